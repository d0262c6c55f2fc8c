//! Pods that need a feature of the kubelet get nodes that declare it (KEP-5328).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::framework::{Action, ClusterEvent, Filter, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, uid};
use crate::snapshot::Snapshot;

const NAME: &str = "NodeDeclaredFeatures";

/// The plugin.
pub struct NodeDeclaredFeatures;

/// What the pod needs. (Upstream `nodedeclaredfeatures/features`; its other features matter to updates only.)
fn needed(pod: &Pod) -> Vec<&'static str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut rules = containers.flat_map(|container| container.restart_policy_rules.iter().flatten());
    let restarts_all = rules.any(|rule| rule.action == "RestartAllContainers");
    let maps_users_of_host_network = spec.host_network == Some(true) && spec.host_users == Some(false);
    let features = [
        (restarts_all, "RestartAllContainersOnContainerExits"),
        (maps_users_of_host_network, "UserNamespacesHostNetworkSupport"),
    ];
    features.into_iter().filter_map(|(needed, feature)| needed.then_some(feature)).collect()
}

fn declared(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|status| status.declared_features.as_deref()).unwrap_or_default()
}

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_FEATURES)),
            Interest::pods(Action::UPDATE),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match (event.nodes(), event.pods()) {
            ((old, Some(new)), _) => old.is_none_or(|old| declared(old) != declared(new)),
            (_, (Some(old), Some(new))) => uid(new) == pod.uid() && needed(old) != needed(new),
            _ => true,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let needed = needed(&pod.pod);
        if needed.is_empty() {
            return Ok(PreFilter::skip());
        }
        Ok(PreFilter::with(Declares { needed }))
    }
}

/// Not local: what is known of one pod says nothing of another that needs other features.
#[derive(Clone)]
struct Declares {
    needed: Vec<&'static str>,
}

impl Filter for Declares {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let declared = declared(&node.node);
        if self.needed.iter().all(|feature| declared.iter().any(|known| known == feature)) {
            return Ok(());
        }
        Err(Rejection::unresolvable(NAME, "node(s) didn't match Pod's required features"))
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::framework::events::Object;
    use crate::testing::{cluster, node, pod};

    fn restarting() -> Value {
        json!({"containers": [{"name": "c", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]})
    }

    #[test]
    fn nodes_must_declare_what_a_pod_needs() {
        let features = |all: &[&str]| json!({"status": {"declaredFeatures": all}});
        let (restarts, users) = ("RestartAllContainersOnContainerExits", "UserNamespacesHostNetworkSupport");
        let hosts = json!({"hostNetwork": true, "hostUsers": false});
        for (what, spec, declared, fits) in [
            ("nothing needed", json!({}), features(&[]), true),
            ("not declared", restarting(), features(&[users]), false),
            ("declared", restarting(), features(&[restarts, users]), true),
            ("users of the host's network", hosts.clone(), features(&[restarts]), false),
            ("and declared", hosts, features(&[users]), true),
            ("users alone", json!({"hostUsers": false}), features(&[]), true),
        ] {
            let snapshot = cluster(vec![node("a", "z", declared)]);
            let prepared =
                NodeDeclaredFeatures.pre_filter(&pod("p", "a", spec), &snapshot).expect("no refusal");
            let said = prepared.filter.map_or(Ok(()), |filter| filter.filter(&snapshot.nodes[0]));
            assert_eq!(said.is_ok(), fits, "{what}");
        }
    }

    #[test]
    fn a_pod_is_tried_again_when_a_node_declares_something_else() {
        let object = |features: &[&str]| {
            Object::Node(node("a", "z", json!({"status": {"declaredFeatures": features}})).node)
        };
        let event = |old: Option<Object>, new: Object| {
            ClusterEvent::new(Resource::Node, Action::NODE_FEATURES, old, Some(new))
        };
        let pod = pod("p", "a", restarting());
        let worth = |event: &ClusterEvent| NodeDeclaredFeatures.is_worth_retrying(&pod, event);
        assert!(worth(&event(None, object(&[]))));
        assert!(worth(&event(Some(object(&[])), object(&["x"]))));
        assert!(!worth(&event(Some(object(&["x"])), object(&["x"]))));
    }
}
