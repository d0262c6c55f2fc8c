//! Carries out the evictions that make room for a pod (upstream `framework/preemption/executor.go`).

use std::sync::Arc;

use client::k8s_openapi::api::core::v1::Pod;
use client::kube::api::{DeleteParams, Preconditions};
use client::{Api, EventType, ObjectKey, Tasks};
use futures::StreamExt;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::write::{self, Condition};
use super::{Shared, pod_name};
use crate::measure;
use crate::pod_info::{PodInfo, namespace, uid};
use crate::preemption::{Candidate, Nomination, outranked};
use crate::profiles::wanted;

/// How many evictions are asked for at once.
const AT_ONCE: usize = 16;

/// Evictions for one pod.
pub(super) struct Eviction {
    pod: Arc<PodInfo>,
    node: String,
    victims: Vec<Arc<PodInfo>>,
    /// Less important pods that were to come to the node.
    outranked: Vec<Arc<PodInfo>>,
}

/// Notes that the pod waits for evictions; none if all its victims are going already.
pub(super) fn begin(shared: &Shared, pod: &Arc<PodInfo>, candidate: Candidate) -> Option<Eviction> {
    measure::victims(candidate.victims.len());
    let victims: Vec<_> = candidate.victims.into_iter().filter(|victim| !victim.is_terminating()).collect();
    if victims.is_empty() {
        return None;
    }
    let nominated = shared.state.lock().queue.nominator.nominated();
    shared.preempting.begin(pod.uid());
    let outranked = outranked(&nominated, &candidate.node, pod.priority);
    Some(Eviction { pod: pod.clone(), node: candidate.node, victims, outranked })
}

impl Eviction {
    /// Asks for the evictions in a task of its own.
    pub(super) fn start(self, shared: &Arc<Shared>, tasks: &Tasks) {
        let shared = shared.clone();
        tasks.spawn("evict", |_| async move {
            let started = std::time::Instant::now();
            let done = self.run(&shared).await;
            shared.preempting.end(self.pod.uid());
            measure::evicted(started, done);
            if !done {
                // The events that the pod waits for may never come.
                shared.state.lock().queue.activate_pod(&self.pod, Instant::now());
                shared.changed.notify_one();
            }
        });
    }

    /// Whether all went well.
    async fn run(&self, shared: &Shared) -> bool {
        let mut well = self.clear_nominations(shared).await;
        let Some((last, others)) = self.victims.split_last() else { return well };
        let others: Vec<_> = others.iter().map(|victim| self.evict(shared, victim)).collect();
        let evicted: Vec<bool> = futures::stream::iter(others).buffer_unordered(AT_ONCE).collect().await;
        if evicted.contains(&false) {
            return false;
        }
        // As upstream's prepareCandidateAsync: the last one by itself, so that its deletion, when seen, is the end.
        shared.preempting.last(self.pod.uid(), ObjectKey::of(&*last.pod));
        well &= self.evict(shared, last).await;
        well
    }

    /// Less important pods that were to come there had better look elsewhere at once.
    async fn clear_nominations(&self, shared: &Shared) -> bool {
        let mut well = true;
        for pod in &self.outranked {
            let Some(pod) = shared.newest(&pod.pod) else { continue };
            let nowhere = Nomination::Set(String::new());
            if let Err(error) = write::status(&shared.client, &pod, None, &nowhere).await
                && !client::is_not_found(&error)
            {
                warn!(pod = pod_name(&pod), error = %client::chain(&error), "could not clear nominated node");
                well = false;
            }
        }
        well
    }

    async fn evict(&self, shared: &Shared, victim: &Arc<PodInfo>) -> bool {
        let mut message = format!("Preempted by pod {} on node {}", self.pod.uid(), self.node);
        if shared.call_back(victim.uid(), "preempted by DefaultPreemption") {
            message.push_str(" (in kube-scheduler memory).");
        } else if let Err(error) = self.delete(shared, victim).await {
            if client::is_not_found(&error) {
                debug!(victim = pod_name(&victim.pod), "victim is gone already");
                return true;
            }
            warn!(victim = pod_name(&victim.pod), error = %client::chain(&error), "could not evict");
            return false;
        }
        debug!(victim = pod_name(&victim.pod), pod = pod_name(&self.pod.pod), node = self.node, "evicted");
        if let Some(recorder) = shared.recorder(&self.pod.pod) {
            recorder.object_event(&*victim.pod, EventType::Normal, "Preempted", message);
        }
        true
    }

    async fn delete(&self, shared: &Shared, victim: &PodInfo) -> client::kube::Result<()> {
        let scheduler = wanted(&self.pod.pod);
        let condition = Condition {
            kind: "DisruptionTarget",
            status: "True",
            reason: "PreemptionByScheduler",
            message: format!("{scheduler}: preempting to accommodate a higher priority pod"),
        };
        let pod = shared.newest(&victim.pod).unwrap_or_else(|| victim.pod.clone());
        write::status(&shared.client, &pod, Some(&condition), &Nomination::Keep).await?;
        let api: Api<Pod> = Api::namespaced(shared.client.clone(), namespace(&pod));
        let only_this = Preconditions { uid: Some(uid(&pod).to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        match api.delete(victim.name(), &params).await {
            // Another pod has the name by now. (A status that conflicts says no such thing: the pod is there.)
            Err(error) if client::is_conflict(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}
