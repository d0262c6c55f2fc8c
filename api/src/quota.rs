//! What objects use of a quota, and which quotas they are under (upstream `pkg/quota/v1/evaluator/core`). Admission
//! charges by it, the controller adds up by it.

mod devices;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub use self::devices::Devices;
use crate::pod::{self, Resources};
use crate::quantity::{Format, Quantity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement, Service,
};

/// An object, as far as quotas treat it specially.
#[expect(clippy::large_enum_variant, reason = "short-lived, one at a time; most are borrowed")]
pub enum Counted<'a> {
    /// A pod.
    Pod(Cow<'a, Pod>),
    /// A service.
    Service(Cow<'a, Service>),
    /// A claim for storage.
    Claim(Cow<'a, PersistentVolumeClaim>),
    /// A claim for devices.
    Devices(Devices<'a>),
    /// Anything else is only counted, under its own name and perhaps an old one.
    Object {
        /// `count/deployments.apps`.
        count: String,
        /// `configmaps`.
        alias: Option<&'static str>,
    },
}

/// The name under which objects of a resource are counted.
#[must_use]
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// The old name of a count.
#[must_use]
pub fn alias(group: &str, resource: &str) -> Option<&'static str> {
    let known = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
    known.into_iter().find(|alias| group.is_empty() && *alias == resource)
}

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const POD_RESOURCES: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// If one of these is limited, every container must ask for it.
const MUST_BE_SET: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

/// A number of things.
fn number(count: usize) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

impl Counted<'_> {
    /// Whether the object could use a resource of this name.
    #[must_use]
    pub fn concerns(&self, name: &str) -> bool {
        match self {
            Self::Pod(_) => {
                POD_RESOURCES.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || name.strip_prefix("requests.").is_some_and(is_extended)
            }
            Self::Service(_) => {
                matches!(
                    name,
                    "count/services" | "services" | "services.nodeports" | "services.loadbalancers"
                )
            }
            Self::Claim(_) => {
                matches!(name, "count/persistentvolumeclaims" | "persistentvolumeclaims" | "requests.storage")
                    || name.ends_with(&format!("{STORAGE_CLASS}persistentvolumeclaims"))
                    || name.ends_with(&format!("{STORAGE_CLASS}requests.storage"))
            }
            Self::Devices(devices) => devices.concerns(name),
            Self::Object { count, alias } => name == count || alias.is_some_and(|alias| alias == name),
        }
    }

    /// What the object uses.
    #[must_use]
    pub fn usage(&self, now: Timestamp) -> Resources {
        match self {
            Self::Pod(pod) => pod_usage(pod, now),
            Self::Service(service) => service_usage(service),
            Self::Claim(claim) => claim_usage(claim),
            Self::Devices(devices) => devices.usage(),
            Self::Object { count, alias } => {
                let names = std::iter::once(count.clone()).chain(alias.map(str::to_owned));
                names.map(|name| (name, one())).collect()
            }
        }
    }

    /// Whether the object is in all scopes of the quota.
    #[must_use]
    pub fn in_scopes(&self, quota: &ResourceQuota) -> bool {
        let Some(spec) = &quota.spec else { return true };
        let plain = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
            scope_name: scope.clone(),
            operator: "Exists".to_owned(),
            values: None,
        });
        let selected =
            spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
        plain.chain(selected.cloned()).all(|scope| self.in_scope(&scope))
    }

    fn in_scope(&self, scope: &ScopedResourceSelectorRequirement) -> bool {
        match self {
            Self::Pod(pod) => pod_in_scope(pod, scope),
            Self::Claim(claim) if scope.scope_name == "VolumeAttributesClass" => {
                let classes = attributes_classes(claim);
                match classes.is_empty() {
                    true => selects(scope, None),
                    false => classes.iter().any(|class| selects(scope, Some(class))),
                }
            }
            _ => false,
        }
    }

    /// The limited resources of the quota that the object could use, if the quota is about the object at all.
    #[must_use]
    pub fn limited_by(&self, quota: &ResourceQuota) -> Vec<String> {
        let hard = quota.status.as_ref().and_then(|status| status.hard.as_ref());
        let names = hard.into_iter().flat_map(BTreeMap::keys).filter(|name| self.concerns(name));
        let names: Vec<String> = names.cloned().collect();
        if names.is_empty() || !self.in_scopes(quota) { Vec::new() } else { names }
    }

    /// What the object must say because these resources are limited; the complaint if it does not.
    #[must_use]
    pub fn missing(&self, limited: &[String]) -> Option<String> {
        let Self::Pod(pod) = self else { return None };
        let spec = pod.spec.as_ref()?;
        let level = spec.resources.as_ref();
        let names = |list: Option<&BTreeMap<String, _>>| {
            list.is_some_and(|list| list.keys().any(|n| pod::is_pod_level(n)))
        };
        if level.is_some_and(|level| names(level.requests.as_ref()) || names(level.limits.as_ref())) {
            return None;
        }
        let required: BTreeSet<&String> =
            limited.iter().filter(|name| MUST_BE_SET.contains(&name.as_str())).collect();
        let mut missing: BTreeMap<&String, BTreeSet<&str>> = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let resources = container.resources.as_ref();
            let requests = pod::read(resources.and_then(|resources| resources.requests.as_ref()));
            let limits = pod::read(resources.and_then(|resources| resources.limits.as_ref()));
            let set = compute_usage(&requests, &limits);
            for name in required.iter().filter(|name| !set.contains_key(name.as_str())) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
        if missing.is_empty() {
            return None;
        }
        let parts = missing.iter().map(|(name, containers)| {
            format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
        });
        Some(format!("must specify {}", parts.collect::<Vec<_>>().join("; ")))
    }
}

/// Whether the name is that of a resource other than Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
        || name.starts_with("deviceclass.resource.kubernetes.io/")
}

/// The classes of attributes that a claim has, had, or is to have.
#[must_use]
pub fn attributes_classes(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|status| {
        status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref()
    });
    [wanted, current, target].into_iter().flatten().filter(|class| !class.is_empty()).collect()
}

/// Requests and limits under the names quotas use.
fn compute_usage(requests: &Resources, limits: &Resources) -> Resources {
    let mut used = Resources::from([("pods".to_owned(), one())]);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            used.insert(name.to_owned(), request.clone());
            used.insert(format!("requests.{name}"), request.clone());
        }
        if let Some(limit) = limits.get(name) {
            used.insert(format!("limits.{name}"), limit.clone());
        }
    }
    for (name, request) in requests {
        if name.starts_with("hugepages-") {
            used.insert(name.clone(), request.clone());
            used.insert(format!("requests.{name}"), request.clone());
        } else if is_extended(name) {
            used.insert(format!("requests.{name}"), request.clone());
        }
    }
    used
}

fn pod_usage(pod: &Pod, now: Timestamp) -> Resources {
    let mut used = Resources::from([("count/pods".to_owned(), one())]);
    if !has_ended(pod, now) {
        let counted = pod::as_counted(pod);
        let counted = counted.as_ref().unwrap_or(pod);
        pod::add(
            &mut used,
            &compute_usage(&pod::effective_requests(counted), &pod::effective_limits(counted)),
        );
    }
    used
}

/// Pods that are over, or that should be, use nothing but their place in the store.
#[must_use]
pub fn has_ended(pod: &Pod, now: Timestamp) -> bool {
    let late = match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => now > at.0 + SignedDuration::from_secs(grace),
        _ => false,
    };
    late || pod::is_terminal(pod)
}

fn service_usage(service: &Service) -> Resources {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let kind = spec.and_then(|spec| spec.type_.as_deref()).unwrap_or_default();
    let suppressed = spec.and_then(|spec| spec.allocate_load_balancer_node_ports) == Some(false);
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if suppressed => {
            ports.iter().filter(|port| port.node_port.unwrap_or_default() != 0).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    Resources::from([
        ("count/services".to_owned(), one()),
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), number(node_ports)),
        ("services.loadbalancers".to_owned(), number(usize::from(kind == "LoadBalancer"))),
    ])
}

fn claim_usage(claim: &PersistentVolumeClaim) -> Resources {
    let mut used = Resources::from([
        ("count/persistentvolumeclaims".to_owned(), one()),
        ("persistentvolumeclaims".to_owned(), one()),
    ]);
    let annotations = claim.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"));
    let spec = claim.spec.as_ref();
    let class = annotated.or_else(|| spec.and_then(|spec| spec.storage_class_name.as_ref()));
    let class = class.filter(|class| !class.is_empty());
    if let Some(class) = class {
        used.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), one());
    }
    let storage = |list: Option<&BTreeMap<String, _>>| {
        let mut amount = pod::read(list).remove("storage")?;
        amount.round_up(0);
        Some(amount)
    };
    let requested = storage(spec.and_then(|spec| spec.resources.as_ref()).and_then(|r| r.requests.as_ref()));
    let allocated = storage(claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()));
    if let Some(requested) = requested {
        let amount = allocated.filter(|allocated| *allocated > requested).unwrap_or(requested);
        if let Some(class) = class {
            used.insert(format!("{class}{STORAGE_CLASS}requests.storage"), amount.clone());
        }
        used.insert("requests.storage".to_owned(), amount);
    }
    used
}

/// Whether a pod ends by itself.
#[must_use]
pub fn is_terminating(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0)
}

fn pod_in_scope(pod: &Pod, scope: &ScopedResourceSelectorRequirement) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let best_effort = || pod::compute_qos_class(spec) == "BestEffort";
    match scope.scope_name.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            selects(scope, spec.priority_class_name.as_deref().filter(|name| !name.is_empty()))
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether the selector takes this value (or the lack of one).
fn selects(scope: &ScopedResourceSelectorRequirement, value: Option<&str>) -> bool {
    let listed = value.is_some_and(|value| scope.values.iter().flatten().any(|known| known == value));
    match scope.operator.as_str() {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|list| !list.is_empty()) || term.namespace_selector.is_some()
    };
    let near = affinity.pod_affinity.as_ref().map(|affinity| {
        (
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let apart = affinity.pod_anti_affinity.as_ref().map(|affinity| {
        (
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    [near, apart].into_iter().flatten().any(|(required, preferred)| {
        required.iter().flatten().any(crosses)
            || preferred.iter().flatten().any(|term| crosses(&term.pod_affinity_term))
    })
}
