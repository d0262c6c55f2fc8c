//! Extended resources that nodes offer as devices (KEP-5004): a pod asks for `example.com/gpu: 2`, and gets a claim for
//! two devices of the class that goes by that name (upstream `extendeddynamicresources.go`).
//!
//! Which resources those are depends on the node: what a device plugin offers there is counted, not claimed.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod::is_sidecar;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest, Pod};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::NAME;
use crate::framework::Rejection;
use crate::listers::Lister;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::resources::is_extended;
use crate::volumes::global;

/// The prefix of the name that every class goes by.
const OF_CLASS: &str = "deviceclass.resource.kubernetes.io/";
/// Marks claims that are made for extended resources.
pub(super) const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// The name of the claim before it is written; no claim of the API can have it.
const IN_MEMORY: &str = "<extended-resources>";

/// Which containers get which devices.
pub(super) type Mappings = Vec<ContainerExtendedResourceRequest>;

/// The class that goes by the name of an extended resource. Of several the newest, which makes it possible to move
/// from one class to another.
pub(crate) fn class_of(classes: &Lister<DeviceClass>, resource: &str) -> Option<Arc<DeviceClass>> {
    if let Some(name) = resource.strip_prefix(OF_CLASS) {
        return classes.get(&global(name));
    }
    if !is_extended(resource) {
        return None;
    }
    let named = classes
        .all()
        .into_iter()
        .filter(|class| class.spec.extended_resource_name.as_deref() == Some(resource));
    named.max_by(|a, b| {
        let created = |class: &DeviceClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        created(a).cmp(&created(b)).then_with(|| b.metadata.name.cmp(&a.metadata.name))
    })
}

/// The names that a class goes by.
pub(crate) fn names_of(class: &DeviceClass) -> Vec<String> {
    let own = class.metadata.name.as_ref().map(|name| format!("{OF_CLASS}{name}"));
    own.into_iter().chain(class.spec.extended_resource_name.clone()).collect()
}

/// What a pod asks for that may be devices.
pub(super) struct Extended {
    pod: Arc<PodInfo>,
    /// Classes by resource.
    classes: BTreeMap<String, Arc<DeviceClass>>,
    /// A claim of an earlier attempt.
    pub(super) stale: Option<Arc<ResourceClaim>>,
}

impl Extended {
    /// None if the pod asks for nothing like that.
    pub(super) fn of(
        pod: &Arc<PodInfo>,
        classes: &Lister<DeviceClass>,
        claims: &Lister<ResourceClaim>,
    ) -> Option<Self> {
        let wanted = pod.requests.scalar.iter().filter(|(_, amount)| **amount > 0);
        let classes: BTreeMap<_, _> =
            wanted.filter_map(|(name, _)| Some((name.clone(), class_of(classes, name)?))).collect();
        if classes.is_empty() {
            return None;
        }
        let stale = claims.list(pod.namespace()).into_iter().find(|claim| is_for(claim, pod));
        Some(Self { pod: pod.clone(), classes, stale })
    }

    /// The claim that the pod needs on the node; none if the node offers all of it otherwise.
    ///
    /// # Errors
    /// The node offers a resource in neither way, or there is a claim already that has to go first.
    pub(super) fn on(&self, node: &NodeInfo) -> Result<Option<(ResourceClaim, Mappings)>, Rejection> {
        let refuse = |reason: &'static str| Err(Rejection::unresolvable(NAME, reason));
        if self.stale.is_some() {
            return refuse("cannot schedule extended resource claim");
        }
        let mut claimed = BTreeMap::new();
        for (name, amount) in &self.pod.requests.scalar {
            if *amount == 0 || !(is_extended(name) || name.starts_with(OF_CLASS)) {
                continue;
            }
            match self.classes.get(name) {
                Some(class) if node.allocatable.amount(name) == 0 => {
                    claimed.insert(name.as_str(), class.metadata.name.as_deref().unwrap_or_default());
                }
                _ if !node.allocatable.scalar.contains_key(name) => return refuse("cannot fit resource"),
                _ => {}
            }
        }
        if claimed.is_empty() {
            return Ok(None);
        }
        let (requests, mappings) = requests(&self.pod.pod, &claimed);
        Ok(Some((claim(&self.pod, requests), mappings)))
    }
}

/// Whether the claim was made for the pod's extended resources.
fn is_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let marked = claim.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
    let mut owners = claim.metadata.owner_references.iter().flatten();
    marked.is_some_and(|mark| mark == "true")
        && owners
            .any(|owner| owner.controller == Some(true) && owner.name == pod.name() && owner.uid == pod.uid())
}

fn claim(pod: &PodInfo, requests: Vec<DeviceRequest>) -> ResourceClaim {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ResourceClaim {
        metadata: ObjectMeta {
            name: Some(IN_MEMORY.to_owned()),
            namespace: Some(pod.namespace().to_owned()),
            generate_name: Some(format!("{}-extended-resources-", pod.name())),
            uid: Some(format!("{IN_MEMORY} of {}", pod.uid())),
            owner_references: Some(vec![owner]),
            annotations: Some(BTreeMap::from([(ANNOTATION.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec {
            devices: Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() }),
        },
        status: None,
    }
}

/// Whether the claim is not written yet.
pub(super) fn is_in_memory(claim: &ResourceClaim) -> bool {
    claim.metadata.name.as_deref() == Some(IN_MEMORY)
}

/// The requests for all containers, and which container gets what. Init containers that end use the devices of
/// containers that come after them, and those of each other.
fn requests(pod: &Pod, classes: &BTreeMap<&str, &str>) -> (Vec<DeviceRequest>, Mappings) {
    let spec = pod.spec.as_ref();
    let init: &[Container] = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let all: Vec<&Container> = init.iter().chain(spec.iter().flat_map(|s| &s.containers)).collect();
    let ends = |at: usize| at < init.len() && !is_sidecar(all[at]);
    let (mut wanted, mut mappings) = (Vec::new(), Vec::new());
    for (resource, class) in classes {
        let mut lasting: Vec<Option<DeviceRequest>> = vec![None; all.len()];
        for at in (0..all.len()).filter(|at| !ends(*at)) {
            lasting[at] = request(at, all[at], resource, class, &[], &mut mappings);
        }
        let (mut greatest, mut names, mut short) = (None::<DeviceRequest>, Vec::new(), Vec::new());
        for at in (0..all.len()).filter(|at| ends(*at)) {
            let Some(more) = request(at, all[at], resource, class, &lasting[at..], &mut short) else {
                continue;
            };
            names.push(more.name.clone());
            if greatest.as_ref().is_none_or(|known| count(known) < count(&more)) {
                greatest = Some(more);
            }
        }
        if let Some(greatest) = &greatest {
            for mapping in short.iter_mut().filter(|mapping| names.contains(&mapping.request_name)) {
                mapping.request_name.clone_from(&greatest.name);
            }
        }
        wanted.extend(greatest);
        wanted.extend(lasting.into_iter().flatten());
        mappings.extend(short);
    }
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    (wanted, mappings)
}

fn count(request: &DeviceRequest) -> i64 {
    request.exactly.as_ref().and_then(|exactly| exactly.count).unwrap_or(0)
}

/// What a container needs besides the requests that it can use as well.
fn request(
    at: usize,
    container: &Container,
    resource: &str,
    class: &str,
    others: &[Option<DeviceRequest>],
    mappings: &mut Mappings,
) -> Option<DeviceRequest> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    let wanted = Quantity::parse(&requests.get(resource)?.0).ok()?.as_i64().filter(|amount| *amount != 0)?;
    let mapping = |request_name: &str| ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request_name.to_owned(),
    };
    let mut there = 0;
    for other in others.iter().flatten() {
        there += count(other);
        mappings.push(mapping(&other.name));
        if there >= wanted {
            return None;
        }
    }
    let place = requests.keys().position(|name| name == resource).unwrap_or(0);
    let name = format!("container-{at}-request-{place}");
    mappings.push(mapping(&name));
    let exactly = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: Some("ExactCount".to_owned()),
        count: Some(wanted - there),
        ..ExactDeviceRequest::default()
    };
    Some(DeviceRequest { name, exactly: Some(exactly), first_available: None })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(name: &str, amount: i64, extra: Value) -> Value {
        let mut container = json!({"name": name, "resources": {"requests": {"cpu": "1", "example.com/gpu": amount.to_string()}}});
        crate::testing::merge(&mut container, extra);
        container
    }

    /// Upstream's cases of `Test_createRequestsAndMappings`.
    #[test]
    fn containers_share_what_they_do_not_need_at_the_same_time() {
        let (main, sidecar) = (json!({}), json!({"restartPolicy": "Always"}));
        for (what, init, containers, wanted, mapped) in [
            ("one", vec![], vec![("a", 1)], "container-0-request-1:1", "a:container-0-request-1"),
            (
                "two at the same time",
                vec![],
                vec![("a", 1), ("b", 2)],
                "container-0-request-1:1 container-1-request-1:2",
                "a:container-0-request-1 b:container-1-request-1",
            ),
            (
                "an init container uses what comes later",
                vec![("i", 1, &main)],
                vec![("a", 1)],
                "container-1-request-1:1",
                "a:container-1-request-1 i:container-1-request-1",
            ),
            (
                "an init container needs more than comes later",
                vec![("i", 3, &main)],
                vec![("a", 1)],
                "container-0-request-1:2 container-1-request-1:1",
                "a:container-1-request-1 i:container-1-request-1 i:container-0-request-1",
            ),
            (
                "init containers share the greatest",
                vec![("i", 1, &main), ("j", 2, &main)],
                vec![("a", 0)],
                "container-1-request-1:2",
                "i:container-1-request-1 j:container-1-request-1",
            ),
            (
                "a sidecar keeps its own",
                vec![("i", 1, &main), ("s", 1, &sidecar), ("j", 2, &main)],
                vec![("a", 1)],
                "container-1-request-1:1 container-2-request-1:1 container-3-request-1:1",
                "s:container-1-request-1 a:container-3-request-1 i:container-1-request-1 \
                 j:container-3-request-1 j:container-2-request-1",
            ),
            ("nothing", vec![], vec![("a", 0)], "", ""),
        ] {
            let init: Vec<_> = init.into_iter().map(|(n, c, extra)| container(n, c, extra.clone())).collect();
            let containers: Vec<_> =
                containers.into_iter().map(|(n, c)| container(n, c, json!({}))).collect();
            let pod: Pod = serde_json::from_value(
                json!({"metadata": {"name": "p"}, "spec": {"initContainers": init, "containers": containers}}),
            )
            .expect("a pod");
            let (requests, mappings) = requests(&pod, &BTreeMap::from([("example.com/gpu", "gpu")]));
            let requests: Vec<_> = requests.iter().map(|r| format!("{}:{}", r.name, count(r))).collect();
            let mappings: Vec<_> =
                mappings.iter().map(|m| format!("{}:{}", m.container_name, m.request_name)).collect();
            assert_eq!(
                (requests.join(" "), mappings.join(" ")),
                (wanted.to_owned(), mapped.to_owned()),
                "{what}"
            );
        }
    }

    #[test]
    fn the_newest_class_goes_by_a_name() {
        let class = |name: &str, created: &str, resource: &str| -> DeviceClass {
            serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": created},
                "spec": {"extendedResourceName": resource}}))
            .expect("a class")
        };
        let classes = Lister::from(vec![
            class("old", "2026-01-01T00:00:00Z", "example.com/gpu"),
            class("new-b", "2026-01-02T00:00:00Z", "example.com/gpu"),
            class("new-a", "2026-01-02T00:00:00Z", "example.com/gpu"),
            class("other", "2026-01-03T00:00:00Z", "example.com/nic"),
        ]);
        let found =
            |resource: &str| class_of(&classes, resource).and_then(|class| class.metadata.name.clone());
        assert_eq!(found("example.com/gpu").as_deref(), Some("new-a"));
        assert_eq!(found("deviceclass.resource.kubernetes.io/old").as_deref(), Some("old"));
        assert_eq!(found("deviceclass.resource.kubernetes.io/none"), None);
        assert_eq!(found("example.com/none"), None);
        assert_eq!(found("cpu"), None);
    }
}
