//! Pods that have to leave for a critical one.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::Agent;
use crate::admission::preempt::victims;
use crate::admission::{Rejection, admit_critical};
use crate::pod_workers::KillOptions;
use crate::qos;
use crate::status::{PREEMPTING, Verdict};
use crate::types;

/// The least time that is waited for a pod to leave.
const PREEMPTION: Duration = Duration::from_secs(10);

impl Agent {
    /// Ends other pods where a critical one finds no room. Whether it did.
    pub(super) async fn make_room(&self, pod: &Arc<Pod>) -> Result<bool, Rejection> {
        let Some(node) = self.node().filter(|_| qos::is_critical(pod)) else { return Ok(false) };
        let node = self.parts().placement.raised(pod, &node);
        let holders = self.holders(types::uid(pod));
        let others: Vec<&Pod> = holders.iter().map(|p| &**p).collect();
        let shortages = admit_critical(pod, &others, &node, &self.parts().config.allowed_unsafe_sysctls)?;
        let Some(short) = shortages.first() else { return Ok(false) };
        let victims = victims(pod, &others, &shortages).map_err(|error| Rejection {
            reason: "UnexpectedAdmissionError".to_owned(),
            message: format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
                 pods to preempt: {error}"
            ),
        })?;
        for victim in victims {
            self.preempt(victim, pod).await;
            metrics::counter!("kubelet_preemptions", "preemption_signal" => short.resource.clone())
                .increment(1);
        }
        Ok(true)
    }

    /// Ends a pod so that another may come, and waits for that.
    async fn preempt(&self, victim: &Pod, by: &Pod) {
        let message = "Preempted in order to admit critical pod";
        self.parts().events.warning(victim, PREEMPTING, message.to_owned());
        tracing::info!(pod = types::format_pod(victim), by = types::format_pod(by), "preempting pod");
        let verdict =
            Verdict { reason: PREEMPTING.to_owned(), message: message.to_owned(), disruption: true };
        let options = KillOptions { grace: None, verdict: Some(verdict), evict: true };
        self.workers().kill(types::uid(victim), &options);
        let grace = types::spec(victim).termination_grace_period_seconds;
        let grace = Duration::from_secs(grace.and_then(|s| u64::try_from(s).ok()).unwrap_or_default());
        let patience = PREEMPTION.max(grace.saturating_add(grace / 2));
        if tokio::time::timeout(patience, self.workers().finished(types::uid(victim))).await.is_err() {
            tracing::warn!(pod = types::format_pod(victim), "preempted pod has not ended in time");
        }
    }
}
