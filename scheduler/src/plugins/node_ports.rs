//! Host ports are used once per node.

use std::sync::Arc;

use super::is_placed;
use crate::framework::{Action, ClusterEvent, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::node_info::ports_conflict;
use crate::pod_info::{PodInfo, host_ports};
use crate::snapshot::Snapshot;

/// The plugin.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn events(&self) -> Vec<Interest> {
        vec![Interest::pods(Action::DELETE), Interest::of(Resource::Node, Action::ADD)]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let (Some(gone), _) = event.pods() else { return true };
        let freed = host_ports(gone);
        is_placed(gone)
            && freed.iter().any(|port| pod.ports.iter().any(|wanted| ports_conflict(port, wanted)))
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        if pod.ports.is_empty() {
            return Ok(PreFilter::skip());
        }
        let pod = pod.clone();
        Ok(PreFilter::check(move |node| {
            if pod.ports.iter().any(|port| node.conflicts(port)) {
                let reason = "node(s) didn't have free ports for the requested pod ports";
                return Err(Rejection::new("NodePorts", reason));
            }
            Ok(())
        }))
    }
}
