//! What objects use of a quota.

use crate::common::{meta, pods as pod};
use api::quantity::{Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ScopedResourceSelectorRequirement, Service,
};
use std::collections::BTreeMap;
use std::sync::Arc;

type Used = BTreeMap<String, Quantity>;

fn add(used: &mut Used, name: impl Into<String>, amount: &Quantity) {
    used.entry(name.into()).or_insert_with(|| Quantity::new(0, amount.format())).add(amount);
}

fn number(count: usize) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// The resource that a limit only counts, as `resource.group`; `None` when it is not such a limit, or when the
/// objects are known more closely.
pub fn counted_resource(limit: &str) -> Option<String> {
    let plain = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];
    if plain.contains(&limit) {
        return Some(limit.to_owned());
    }
    let name = limit.strip_prefix("count/")?;
    (!["pods", "services", "persistentvolumeclaims"].contains(&name)).then(|| name.to_owned())
}

/// So many objects of `resource.group`.
pub fn count(resource: &str, count: usize, used: &mut Used) {
    add(used, format!("count/{resource}"), &number(count));
    if !resource.contains('.') {
        add(used, resource, &number(count));
    }
}

/// Whether the quota is about all objects.
pub fn has_no_scopes(quota: &ResourceQuota) -> bool {
    let Some(spec) = &quota.spec else { return true };
    spec.scopes.as_ref().is_none_or(Vec::is_empty) && requirements(quota).is_empty()
}

fn requirements(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let selector = quota.spec.as_ref().and_then(|spec| spec.scope_selector.as_ref());
    selector.and_then(|selector| selector.match_expressions.clone()).unwrap_or_default()
}

/// Whether the pod is within the quota's scopes.
fn in_scope(quota: &ResourceQuota, pod: &Pod) -> bool {
    let scopes = quota.spec.as_ref().and_then(|spec| spec.scopes.clone()).unwrap_or_default();
    scopes.iter().all(|scope| has_scope(pod, scope))
        && requirements(quota).iter().all(|requirement| satisfies(pod, requirement))
}

fn has_scope(pod: &Pod, scope: &str) -> bool {
    let spec = pod.spec.as_ref();
    let terminating = spec.and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0);
    let best_effort = spec.is_some_and(|spec| api::pod::compute_qos_class(spec) == "BestEffort");
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => spec.and_then(|spec| spec.priority_class_name.as_ref()).is_some(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn satisfies(pod: &Pod, requirement: &ScopedResourceSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let class = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref()).unwrap_or_default();
    match (requirement.scope_name.as_str(), requirement.operator.as_str()) {
        ("PriorityClass", "In") => values.iter().any(|value| value == class),
        ("PriorityClass", "NotIn") => !values.iter().any(|value| value == class),
        ("PriorityClass", "DoesNotExist") => class.is_empty(),
        (scope, _) => has_scope(pod, scope),
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let value = serde_json::to_value(affinity).unwrap_or_default();
    let terms = ["/podAffinity", "/podAntiAffinity"].into_iter().flat_map(|kind| {
        let required = format!("{kind}/requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = format!("{kind}/preferredDuringSchedulingIgnoredDuringExecution");
        let list =
            |path: &str| value.pointer(path).and_then(|list| list.as_array().cloned()).unwrap_or_default();
        let weighted = list(&preferred).into_iter().filter_map(|term| term.get("podAffinityTerm").cloned());
        list(&required).into_iter().chain(weighted).collect::<Vec<_>>()
    });
    let named = |term: &serde_json::Value| {
        let names = term.get("namespaces").and_then(|names| names.as_array());
        names.is_some_and(|names| !names.is_empty()) || term.get("namespaceSelector").is_some()
    };
    terms.into_iter().any(|term| named(&term))
}

/// Adds up pods. Pods that ended, or should have, are counted as objects only.
pub fn pods(quota: &ResourceQuota, pods: &[Arc<Pod>], now: Timestamp, used: &mut Used) {
    for held in pods.iter().filter(|held| in_scope(quota, held)) {
        add(used, "count/pods", &number(1));
        if !is_charged(held, now) {
            continue;
        }
        add(used, "pods", &number(1));
        for (name, amount) in api::pod::effective_requests(held) {
            if is_standard(&name) {
                add(used, name.clone(), &amount);
            }
            add(used, format!("requests.{name}"), &amount);
        }
        for (name, amount) in api::pod::effective_limits(held) {
            add(used, format!("limits.{name}"), &amount);
        }
    }
}

fn is_charged(held: &Pod, now: Timestamp) -> bool {
    !pod::is_terminal(held) && !is_overdue(held, now)
}

/// Whether a changed pod uses less, or counts for other quotas.
pub fn frees_pod(old: &Pod, new: &Pod, now: Timestamp) -> bool {
    let resources = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let all = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
        all.map(|container| (container.name, container.resources)).collect::<Vec<_>>()
    };
    let (before, after) = (resources(old), resources(new));
    let resized = |(name, old): &(String, _)| after.iter().any(|(other, new)| other == name && new != old);
    before.iter().any(resized)
        || has_scope(old, "Terminating") != has_scope(new, "Terminating")
        || (is_charged(old, now) && !is_charged(new, now))
}

/// Whether a changed Service is of another kind for quotas.
pub fn frees_service(old: &Service, new: &Service) -> bool {
    let kind = |service: &Service| {
        let kind = service.spec.as_ref().and_then(|spec| spec.type_.clone());
        kind.filter(|kind| kind == "NodePort" || kind == "LoadBalancer")
    };
    kind(old) != kind(new)
}

/// Whether a changed claim uses another amount.
pub fn frees_claim(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> bool {
    let allocated = |claim: &PersistentVolumeClaim| {
        let status = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
        status.and_then(|resources| resources.get("storage").cloned())
    };
    let classes = |claim: &PersistentVolumeClaim| {
        let status = claim.status.as_ref();
        let modify = status.and_then(|status| status.modify_volume_status.clone());
        (
            claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone()),
            status.and_then(|status| status.current_volume_attributes_class_name.clone()),
            modify.and_then(|modify| modify.target_volume_attributes_class_name),
        )
    };
    allocated(old) != allocated(new) || classes(old) != classes(new)
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn is_overdue(held: &Pod, now: Timestamp) -> bool {
    // The deletion timestamp already includes the grace time.
    let deleted = held.metadata.deletion_timestamp.as_ref();
    let grace = held.metadata.deletion_grace_period_seconds.unwrap_or(0);
    deleted.is_some_and(|time| time.0.as_second() + grace < now.as_second())
}

/// Adds up Services.
pub fn services(services: &[Arc<Service>], used: &mut Used) {
    for service in services {
        add(used, "services", &number(1));
        add(used, "count/services", &number(1));
        let Some(spec) = &service.spec else { continue };
        let ports = spec.ports.as_ref().map_or(0, Vec::len);
        match spec.type_.as_deref() {
            Some("NodePort") => add(used, "services.nodeports", &number(ports)),
            Some("LoadBalancer") => {
                let node_ports = match spec.allocate_load_balancer_node_ports {
                    Some(false) => {
                        spec.ports.iter().flatten().filter(|port| port.node_port.unwrap_or(0) != 0).count()
                    }
                    _ => ports,
                };
                add(used, "services.nodeports", &number(node_ports));
                add(used, "services.loadbalancers", &number(1));
            }
            _ => {}
        }
    }
}

/// Adds up claims for storage, in all and by class.
pub fn claims(claims: &[Arc<PersistentVolumeClaim>], used: &mut Used) {
    for claim in claims {
        let class = meta::annotation(&claim.metadata, "volume.beta.kubernetes.io/storage-class");
        let class = class.or(claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()));
        let of_class = |name: &str| {
            class
                .filter(|class| !class.is_empty())
                .map(|class| format!("{class}.storageclass.storage.k8s.io/{name}"))
        };
        for name in ["persistentvolumeclaims", "count/persistentvolumeclaims"] {
            add(used, name, &number(1));
        }
        if let Some(name) = of_class("persistentvolumeclaims") {
            add(used, name, &number(1));
        }
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        if let Some(storage) = api::pod::read(requests).get("storage") {
            add(used, "requests.storage", storage);
            if let Some(name) = of_class("requests.storage") {
                add(used, name, storage);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{
        Container, PersistentVolumeClaimSpec, ResourceQuotaSpec, ResourceRequirements, ServicePort,
        ServiceSpec, VolumeResourceRequirements,
    };
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
    use serde_json::json;

    fn list(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, Text>> {
        Some(pairs.iter().map(|(name, amount)| ((*name).to_owned(), Text((*amount).to_owned()))).collect())
    }

    fn made(phase: &str, cpu: Option<&str>) -> Arc<Pod> {
        let mut held = pod::tests::pod("p", "n", phase, None);
        if let Some(spec) = &mut held.spec {
            let resources =
                cpu.map(|cpu| ResourceRequirements { requests: list(&[("cpu", cpu)]), ..Default::default() });
            spec.containers = vec![Container { resources, ..Default::default() }];
        }
        Arc::new(held)
    }

    fn text(used: &Used, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| used.get(*name).map_or("-".to_owned(), ToString::to_string)).collect()
    }

    #[test]
    fn what_frees_wakes_and_what_uses_does_not() {
        let pod = |value: serde_json::Value| serde_json::from_value::<Pod>(value).unwrap();
        let running = pod(json!({"metadata": {}, "status": {"phase": "Running"}}));
        let ready = pod(
            json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running", "podIP": "1.2.3.4"}}),
        );
        let ended = pod(json!({"metadata": {}, "status": {"phase": "Succeeded"}}));
        let bounded = pod(json!({"metadata": {}, "spec": {"containers": [], "activeDeadlineSeconds": 5}}));
        for (old, new, expected) in [
            (&running, &ready, false),
            (&running, &ended, true),
            (&ended, &running, false),
            (&running, &bounded, true),
        ] {
            assert_eq!(frees_pod(old, new, Timestamp::UNIX_EPOCH), expected, "{old:?} -> {new:?}");
        }
        let service = |kind: &str| {
            serde_json::from_value::<Service>(json!({"metadata": {}, "spec": {"type": kind}})).unwrap()
        };
        assert!(frees_service(&service("NodePort"), &service("ClusterIP")));
        assert!(!frees_service(&service("ExternalName"), &service("ClusterIP")));
    }

    #[test]
    fn pods_are_added_up_by_scope() {
        let all = [
            made("Running", Some("500m")),
            made("Running", Some("1")),
            made("Running", None),
            made("Failed", Some("1")),
        ];
        for (scope, expected) in [
            (None, ["3", "4", "1500m", "1500m"]),
            (Some("BestEffort"), ["1", "1", "-", "-"]),
            (Some("NotBestEffort"), ["2", "3", "1500m", "1500m"]),
            (Some("Terminating"), ["-", "-", "-", "-"]),
        ] {
            let spec =
                ResourceQuotaSpec { scopes: scope.map(|scope| vec![scope.to_owned()]), ..Default::default() };
            let quota = ResourceQuota { spec: Some(spec), ..Default::default() };
            let mut used = Used::new();
            pods(&quota, &all, pod::tests::at(1), &mut used);
            assert_eq!(text(&used, &["pods", "count/pods", "cpu", "requests.cpu"]), expected, "{scope:?}");
        }
    }

    #[test]
    fn services_use_ports() {
        let made = |kind: &str, ports: usize| {
            let ports = vec![ServicePort::default(); ports];
            let spec = ServiceSpec { type_: Some(kind.into()), ports: Some(ports), ..Default::default() };
            Arc::new(Service { spec: Some(spec), ..Default::default() })
        };
        let mut used = Used::new();
        services(&[made("ClusterIP", 1), made("NodePort", 2), made("LoadBalancer", 1)], &mut used);
        let names = ["services", "services.nodeports", "services.loadbalancers"];
        assert_eq!(text(&used, &names), ["3", "3", "1"]);
    }

    #[test]
    fn claims_are_added_up_by_class() {
        let made = |class: &str, storage: &str| {
            let resources =
                VolumeResourceRequirements { requests: list(&[("storage", storage)]), ..Default::default() };
            let spec = PersistentVolumeClaimSpec {
                storage_class_name: Some(class.into()),
                resources: Some(resources),
                ..Default::default()
            };
            Arc::new(PersistentVolumeClaim { spec: Some(spec), ..Default::default() })
        };
        let mut used = Used::new();
        claims(&[made("fast", "1Gi"), made("fast", "2Gi"), made("", "1Gi")], &mut used);
        let names = [
            "persistentvolumeclaims",
            "requests.storage",
            "fast.storageclass.storage.k8s.io/requests.storage",
        ];
        assert_eq!(text(&used, &names), ["3", "4Gi", "3Gi"]);
    }

    #[test]
    fn limits_that_only_count() {
        for (limit, expected) in [
            ("configmaps", Some("configmaps")),
            ("count/deployments.apps", Some("deployments.apps")),
            ("count/pods", None),
            ("cpu", None),
        ] {
            assert_eq!(counted_resource(limit).as_deref(), expected, "{limit}");
        }
    }
}
