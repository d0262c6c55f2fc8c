//! Pods that end because the node shuts down.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

use super::Agent;
use crate::pod_workers::{KillOptions, Stage};
use crate::shutdown::Ending;
use crate::status::Verdict;
use crate::types;

#[async_trait]
impl Ending for Agent {
    fn pods(&self) -> Vec<Arc<Pod>> {
        let runs = |pod: &Arc<Pod>| {
            self.workers().view(types::uid(pod)).is_some_and(|view| view.stage < Stage::Terminated)
        };
        self.parts().pods.pods().into_iter().filter(runs).collect()
    }

    fn end(&self, pod: &Pod, grace: Duration) {
        let verdict = Verdict {
            reason: "Terminated".to_owned(),
            message: "Pod was terminated in response to imminent node shutdown.".to_owned(),
            disruption: true,
        };
        tracing::info!(pod = types::format_pod(pod), ?grace, "pod ends with its node");
        let options = KillOptions { grace: Some(grace), verdict: Some(verdict), evict: false };
        self.workers().kill(types::uid(pod), &options);
    }

    async fn ended(&self, pod: &Pod) {
        self.workers().finished(types::uid(pod)).await;
    }
}
