//! Host ports are used once per node.

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::PodRemoved]
    }

    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.ports.iter().any(|port| node.conflicts(port)) {
            return Err(Rejection::new(
                self.name(),
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }
}
