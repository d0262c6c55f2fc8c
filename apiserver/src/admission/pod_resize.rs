//! NodeDeclaredFeatureValidator and PodResizeValidator: what a pod on a node is given while it runs must be something
//! that the node can do, and has (upstream `plugin/pkg/admission/{nodedeclaredfeatures,podresize}`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod::{effective_requests, is_sidecar, read};
use api::status::ApiError;
use client::ObjectKey;
use client::informer::Informer;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::{Attributes, Deps, Operation, Plugin, Verdict, decode};

const POD_LEVEL: &str = "InPlacePodLevelResourcesVerticalScaling";
const INIT_CONTAINERS: &str = "InPlacePodVerticalScalingInitContainers";

fn is_resize(attributes: &Attributes<'_>) -> bool {
    attributes.operation == Operation::Update
        && attributes.is_any("", "pods")
        && attributes.subresource == "resize"
}

/// The pod before and after, and the name of its node; `None` if nothing is asked of a node.
fn resized(object: &Value, old: Option<&Value>) -> Result<Option<(Pod, Pod, String)>, ApiError> {
    let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
    let Some(old) = old.filter(|_| !node.is_empty()) else { return Ok(None) };
    if object["metadata"]["generation"] == old["metadata"]["generation"] {
        return Ok(None);
    }
    Ok(Some((decode(old)?, decode(object)?, node.to_owned())))
}

fn find(
    nodes: &Informer<Node>,
    name: &str,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<Arc<Node>, ApiError> {
    let found = nodes.store().get(&ObjectKey::new("", name));
    found.ok_or_else(|| attributes.forbidden(object, &format!("node {name:?} not found")))
}

/// NodeDeclaredFeatureValidator.
pub struct DeclaredFeatures {
    nodes: Informer<Node>,
}

impl DeclaredFeatures {
    /// Watches nodes.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { nodes: deps.informers.informer() }
    }
}

/// The features that a node needs for a change of a pod.
fn needed(old: &Pod, new: &Pod) -> Vec<&'static str> {
    let (Some(old), Some(new)) = (&old.spec, &new.spec) else { return Vec::new() };
    let (before, after) = (old.init_containers.iter().flatten(), new.init_containers.iter().flatten());
    let changed = before.zip(after).any(|(a, b)| !is_sidecar(a) && a.resources != b.resources);
    let needs = [(POD_LEVEL, old.resources != new.resources), (INIT_CONTAINERS, changed)];
    needs.into_iter().filter(|(_, needed)| *needed).map(|(feature, _)| feature).collect()
}

fn missing(needed: Vec<&'static str>, node: &Node) -> Vec<&'static str> {
    let declared = node.status.as_ref().and_then(|status| status.declared_features.as_deref());
    let has = |feature: &&str| declared.unwrap_or_default().iter().any(|own| own == feature);
    needed.into_iter().filter(|feature| !has(feature)).collect()
}

impl Plugin for DeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is_resize(attributes)
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::later(async move {
            let Some((old, new, name)) = resized(object, old)? else { return Ok(()) };
            let needed = needed(&old, &new);
            if needed.is_empty() {
                return Ok(());
            }
            self.nodes.synced().await;
            let node = find(&self.nodes, &name, attributes, object)?;
            let missing = missing(needed, &node).join(", ");
            if missing.is_empty() {
                return Ok(());
            }
            let why =
                format!("pod update requires features {missing} which are not available on node {name:?}");
            Err(attributes.forbidden(object, &why))
        })
    }
}

/// PodResizeValidator.
pub struct PodResize {
    nodes: Informer<Node>,
}

impl PodResize {
    /// Watches nodes.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { nodes: deps.informers.informer() }
    }
}

/// Why a node cannot give the pod what it asks for, and the reason of that.
fn obstacle(pod: &Pod, node: &Node) -> Option<(String, &'static str)> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    if let Some(os) = labels.and_then(|labels| labels.get("kubernetes.io/os")).filter(|os| *os != "linux") {
        let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
        return Some((why, "UnsupportedPlatform"));
    }
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let lacking = lacking(pod, allocatable);
    (!lacking.is_empty()).then(|| {
        let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
        (why, "NodeCapacity")
    })
}

fn lacking(pod: &Pod, allocatable: Option<&BTreeMap<String, Quantity>>) -> Vec<String> {
    let (asked, had) = (effective_requests(pod), read(allocatable));
    let mut lacking = Vec::new();
    for name in ["cpu", "memory"] {
        let (asked, had) =
            (asked.get(name).cloned().unwrap_or_default(), had.get(name).cloned().unwrap_or_default());
        if asked > had {
            let amount = |quantity: &api::quantity::Quantity| match name {
                "cpu" => quantity.milli_value(),
                _ => quantity.value(),
            };
            lacking.push(format!("{name}, requested: {}, allocatable: {}", amount(&asked), amount(&had)));
        }
    }
    lacking
}

impl Plugin for PodResize {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is_resize(attributes)
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::later(async move {
            let Some((_, pod, name)) = resized(object, old)? else { return Ok(()) };
            self.nodes.synced().await;
            let node = find(&self.nodes, &name, attributes, object)?;
            match obstacle(&pod, &node) {
                None => Ok(()),
                Some((why, reason)) => {
                    let cause = StatusCause { reason: Some(reason.to_owned()), ..StatusCause::default() };
                    Err(attributes.forbidden(object, &why).with_causes(vec![cause]))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn node(value: Value) -> Node {
        serde_json::from_value(value).expect("a node")
    }

    #[test]
    fn some_changes_need_features() {
        let sized = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let plain = |cpu: &str| pod(json!({"containers": [{"name": "c", "resources": sized(cpu)}]}));
        assert!(needed(&plain("1"), &plain("2")).is_empty());
        let whole = |cpu: &str| pod(json!({"containers": [], "resources": sized(cpu)}));
        assert_eq!(needed(&whole("1"), &whole("2")), [POD_LEVEL]);
        let init = |cpu: &str, policy: Value| {
            pod(json!({"containers": [], "initContainers": [
                {"name": "i", "resources": sized(cpu), "restartPolicy": policy}]}))
        };
        assert_eq!(needed(&init("1", json!(null)), &init("2", json!(null))), [INIT_CONTAINERS]);
        assert!(needed(&init("1", json!("Always")), &init("2", json!("Always"))).is_empty());
        let declares = node(json!({"metadata": {}, "status": {"declaredFeatures": [POD_LEVEL]}}));
        assert!(missing(vec![POD_LEVEL], &declares).is_empty());
        assert_eq!(missing(vec![POD_LEVEL, INIT_CONTAINERS], &declares), [INIT_CONTAINERS]);
    }

    #[test]
    fn a_node_gives_what_it_has() {
        let asks = |cpu: &str, memory: &str| {
            let requests = json!({"requests": {"cpu": cpu, "memory": memory}});
            pod(json!({"containers": [{"name": "c", "resources": requests}]}))
        };
        let of = |os: &str| {
            node(json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": os}},
                "status": {"allocatable": {"cpu": "2", "memory": "1Ki"}}}))
        };
        assert_eq!(obstacle(&asks("2", "1Ki"), &of("linux")), None);
        let (why, reason) = obstacle(&asks("2500m", "2Ki"), &of("linux")).expect("too much");
        assert_eq!(
            (why.as_str(), reason),
            (
                "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; \
                 memory, requested: 2048, allocatable: 1024",
                "NodeCapacity"
            )
        );
        let (why, reason) = obstacle(&asks("1", "1"), &of("windows")).expect("another system");
        assert_eq!(
            (why.as_str(), reason),
            ("pod resize is only supported on linux nodes, node \"n\" is \"windows\"", "UnsupportedPlatform")
        );
    }
}
