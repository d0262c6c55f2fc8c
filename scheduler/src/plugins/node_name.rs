//! A pod that names its node goes there or nowhere.

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::{NodeInfo, PodInfo};

/// The plugin.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded]
    }

    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let wanted = pod.pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        if wanted.is_empty() || wanted == node.name() {
            return Ok(());
        }
        Err(Rejection::unresolvable(self.name(), "node(s) didn't match the requested node name"))
    }
}
