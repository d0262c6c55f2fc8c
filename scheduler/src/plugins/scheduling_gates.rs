//! Pods with scheduling gates wait until the gates are removed (KEP-3521).

use crate::framework::{Action, ClusterEvent, Interest, Plugin, Rejection, Resource};
use crate::pod_info::{PodInfo, uid};

/// The plugin.
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn events(&self) -> Vec<Interest> {
        vec![Interest::of(Resource::UnscheduledPod, Action::POD_GATES_GONE)]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        event.pods().1.is_none_or(|changed| uid(changed) == pod.uid())
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        let gates = pod.pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref()).into_iter().flatten();
        let names: Vec<_> = gates.map(|g| g.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let reason = format!("waiting for scheduling gates: [{}]", names.join(" "));
        Err(Rejection::unresolvable(self.name(), reason))
    }
}
