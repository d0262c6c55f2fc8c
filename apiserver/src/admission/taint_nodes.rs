//! TaintNodesByCondition: a new node is not ready until somebody says so. PodTopologyLabels: a pod learns the zone and
//! region of its node when it is bound (upstream `plugin/pkg/admission/{nodetaint,podtopologylabels}`).

use client::ObjectKey;
use client::informer::Informer;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::{Attributes, Deps, Operation, Plugin, Verdict, items, list_member, member, text};

/// Taints new nodes.
pub struct TaintNodes;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

impl Plugin for TaintNodes {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "nodes")
    }

    fn admit<'a>(
        &'a self,
        _: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            let spec = member(object, "spec");
            let tainted =
                |taint: &Value| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule";
            if !items(spec, "taints").iter().any(tainted) {
                list_member(spec, "taints").push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
            Ok(())
        })
    }
}

/// Copies topology labels of the node to pods.
pub struct PodTopologyLabels {
    nodes: Informer<Node>,
}

const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

impl PodTopologyLabels {
    /// Watches nodes.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { nodes: deps.informers.informer() }
    }
}

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let binding = attributes.is_any("", "pods") && attributes.subresource == "binding";
        attributes.operation == Operation::Create
            && (attributes.is("", "pods") || binding || attributes.is("", "bindings"))
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            let node = if attributes.kind.kind == "Binding" {
                text(&object["target"], "name")
            } else {
                text(&object["spec"], "nodeName")
            };
            let Some(node) = self.nodes.store().get(&ObjectKey::new("", node)) else { return Ok(()) };
            let labels = node.metadata.labels.as_ref();
            for key in TOPOLOGY {
                if let Some(value) = labels.and_then(|labels| labels.get(key)) {
                    member(member(object, "metadata"), "labels")[key] = json!(value);
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::Write;

    #[tokio::test]
    async fn new_nodes_are_not_ready() {
        let write = Write::new("", "Node", "nodes");
        let attributes = write.attributes(Operation::Create, "", "n1");
        let mut node = json!({"metadata": {"name": "n1"}});
        for _ in 0..2 {
            TaintNodes.admit(&attributes, &mut node, None, &mut Vec::new()).get().await.expect("admitted");
            assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        }
        assert!(!TaintNodes.handles(&write.attributes(Operation::Update, "", "n1")));
    }
}
