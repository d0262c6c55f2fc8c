//! interim
use crate::agent::PodProbes;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::sync::Arc;
/// x
pub struct NoProbes;
impl crate::sync::plan::ProbeResults for NoProbes {
    fn liveness(&self, _: &str) -> Option<bool> {
        None
    }
    fn startup(&self, _: &str) -> Option<bool> {
        None
    }
}
impl PodProbes for NoProbes {
    fn add_pod(&self, _: &Arc<Pod>) {}
    fn remove_pod(&self, _: &str) {}
    fn stop_liveness_and_startup(&self, _: &str) {}
    fn update_pod_status(&self, pod: &Pod, status: &mut PodStatus) {
        let running = |s: &k8s_openapi::api::core::v1::ContainerStatus| {
            s.state.as_ref().is_some_and(|s| s.running.is_some())
        };
        for s in status.container_statuses.iter_mut().flatten() {
            let r = running(s);
            s.started = Some(r);
            s.ready = r;
        }
        for s in status.init_container_statuses.iter_mut().flatten() {
            let r = running(s);
            s.started = Some(r);
            let side = crate::types::find_container(crate::types::spec(pod), &s.name)
                .is_some_and(|(_, c)| crate::types::is_restartable_init(&c));
            s.ready = if side {
                r
            } else {
                s.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0)
            };
        }
    }
    fn cleanup(&self, _: &std::collections::HashSet<String>) {}
}
