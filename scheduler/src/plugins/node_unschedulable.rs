//! Cordoned nodes take only pods that tolerate it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::taint_toleration::tolerates;
use crate::framework::{Action, ClusterEvent, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::pod_info::{PodInfo, uid};
use crate::snapshot::Snapshot;

const NAME: &str = "NodeUnschedulable";

/// The plugin.
pub struct NodeUnschedulable;

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_TAINT)),
            Interest::pods(Action::POD_TOLERATION),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match (event.nodes(), event.pods().1) {
            ((old, Some(new)), _) => old.is_none_or(|old| is_cordoned(old)) && !is_cordoned(new),
            (_, Some(changed)) => uid(changed) == pod.uid(),
            _ => true,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if tolerates(&pod.pod, &taint) {
            return Ok(PreFilter::skip());
        }
        Ok(PreFilter::check(|node| {
            if node.cordoned {
                return Err(Rejection::unresolvable(NAME, "node(s) were unschedulable"));
            }
            Ok(())
        }))
    }
}
