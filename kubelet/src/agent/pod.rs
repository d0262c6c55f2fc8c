//! The steps of a pod's worker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::pod_workers::{PodSyncer, SyncError, Synced};
use crate::pods::is_static;
use crate::status::Verdict;
use crate::sync::plan_pod;
use crate::types;

/// After this many rounds a sync ends, even if there is more to do: the worker comes back at once.
const ROUNDS: usize = 8;
const NETWORK_RETRY: Duration = Duration::from_secs(1);

#[async_trait]
impl PodSyncer for Agent {
    async fn sync_pod(&self, pod: &Arc<Pod>, stop: &CancellationToken) -> Result<Synced, SyncError> {
        let parts = self.parts();
        let pod = &parts.allocated.applied(pod);
        let uid = types::uid(pod);
        let observed = self.inspect(pod).await?;
        self.note_progress(pod, &observed);
        let now = Timestamp::now();
        let (_, over) = deadline(pod, parts.status.pod_status(uid).as_deref(), now);
        let status = self.report(pod, &observed, false, over.as_ref());
        if is_terminal(&status) {
            return Ok(Synced { terminal: true, again: None });
        }
        let (deadline, _) = deadline(pod, Some(&status), now);
        self.check_network(pod)?;
        self.prepare(pod, &observed, stop).await?;
        let synced = self.converge(pod, observed, stop).await?;
        let again = [synced.again, deadline].into_iter().flatten().min();
        Ok(Synced { again, ..synced })
    }

    async fn sync_terminating_pod(
        &self,
        pod: &Arc<Pod>,
        grace: Option<Duration>,
        verdict: Option<Verdict>,
        interrupt: &CancellationToken,
    ) -> Result<(), SyncError> {
        let parts = self.parts();
        let pod = &parts.allocated.applied(pod);
        let uid = types::uid(pod);
        let observed = self.inspect_leaving(pod).await?;
        self.report(pod, &observed, false, verdict.as_ref());
        parts.probes.stop_liveness_and_startup(uid);
        let kill = parts.runtime.kill_pod(Some(pod), &observed, grace);
        let killed = tokio::select! {
            biased;
            () = interrupt.cancelled() => return Err(SyncError::from("interrupted".to_owned())),
            killed = kill => killed,
        };
        if let Err(error) = killed {
            parts.events.warning(pod, "FailedKillPod", format!("error killing pod: {error}"));
            return Err(SyncError::from(error));
        }
        parts.probes.remove_pod(uid);
        parts.pleg.expect_changes();
        let observed = self.inspect_leaving(pod).await?;
        if observed.running().next().is_some() {
            let names: Vec<_> = observed.running().map(|c| c.name.clone()).collect();
            return Err(format!("detected running containers after a successful KillPod: {names:?}").into());
        }
        // Before the pod counts as ended: another may use its devices from then on.
        parts.claims.unprepare(pod).await.map_err(SyncError::from)?;
        self.report(pod, &observed, true, verdict.as_ref());
        Ok(())
    }

    async fn sync_terminating_runtime_pod(&self, uid: &str) -> Result<(), SyncError> {
        let parts = self.parts();
        let observed =
            parts.runtime.inspect_leaving(uid).await.map_err(|e| SyncError::from(e.to_string()))?;
        // As upstream: an orphan gets a second, nobody is left to say more.
        parts.runtime.kill_pod(None, &observed, Some(Duration::from_secs(1))).await.map_err(SyncError::from)
    }

    async fn sync_terminated_pod(&self, pod: &Arc<Pod>) -> Result<(), SyncError> {
        let parts = self.parts();
        let pod = &parts.allocated.applied(pod);
        let uid = types::uid(pod);
        let observed = self.inspect_leaving(pod).await?;
        self.report(pod, &observed, true, None);
        parts.volumes.unmount_pod(uid).await.map_err(SyncError::from)?;
        parts.objects.unregister_pod(uid);
        parts.runtime.reasons().forget_pod(uid);
        let (cgroups, owned) = (parts.cgroups.clone(), uid.to_owned());
        let removed = tokio::task::spawn_blocking(move || cgroups.remove_pod(&owned)).await;
        if let Ok(Err(error)) = removed {
            let error = client::chain(&error);
            tracing::debug!(pod = types::format_pod(pod), error, "pod cgroup is left to housekeeping");
        }
        self.finish(pod);
        // What it held is free.
        self.retry_resizes();
        Ok(())
    }
}

impl Agent {
    async fn inspect(&self, pod: &Pod) -> Result<types::PodStatus, SyncError> {
        let seen = self.parts().runtime.inspect(types::uid(pod)).await;
        seen.map_err(|error| SyncError { message: error.to_string(), retry: Some(Duration::from_secs(1)) })
    }

    async fn inspect_leaving(&self, pod: &Pod) -> Result<types::PodStatus, SyncError> {
        let seen = self.parts().runtime.inspect_leaving(types::uid(pod)).await;
        seen.map_err(|error| SyncError { message: error.to_string(), retry: Some(Duration::from_secs(1)) })
    }

    fn check_network(&self, pod: &Arc<Pod>) -> Result<(), SyncError> {
        let fault = self.parts().network.read().clone();
        match fault {
            Some(fault) if !types::host_network(pod) => {
                let message = format!("network is not ready: {fault}");
                self.parts().events.warning(pod, "NetworkNotReady", message.clone());
                Err(SyncError { message, retry: Some(NETWORK_RETRY) })
            }
            _ => Ok(()),
        }
    }

    /// Everything that must be there before the sandbox: directories, cgroup, mirror, volumes, probes.
    async fn prepare(
        &self,
        pod: &Arc<Pod>,
        observed: &types::PodStatus,
        stop: &CancellationToken,
    ) -> Result<(), SyncError> {
        let parts = self.parts();
        let uid = types::uid(pod);
        let (cgroups, owned) = (parts.cgroups.clone(), pod.clone());
        let occupied = !observed.is_stopped();
        let made = tokio::task::spawn_blocking(move || cgroups.ensure_pod(&owned, occupied)).await;
        if let Ok(Err(error)) = made {
            let message = format!("unable to ensure pod container exists: {}", client::chain(&error));
            parts.events.warning(pod, "FailedCreatePodContainer", message.clone());
            return Err(message.into());
        }
        if !occupied {
            parts.runtime.note_actuated_pod(pod);
        }
        if is_static(pod)
            && let Some(mirrors) = &parts.mirrors
        {
            mirrors.ensure(pod, parts.pods.mirror_of(pod).as_deref()).await;
        }
        for dir in
            [parts.layout.pod_dir(uid), parts.layout.pod_volumes_dir(uid), parts.layout.pod_plugins_dir(uid)]
        {
            if let Err(error) = tokio::fs::create_dir_all(&dir).await {
                let message = format!("error making pod data directories: {error}");
                parts.events.warning(pod, "Failed", message.clone());
                return Err(message.into());
            }
        }
        parts.objects.register_pod(pod);
        let mounted = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(SyncError::from("the pod is being stopped".to_owned())),
            mounted = parts.volumes.mount_pod(pod) => mounted,
        };
        if let Err(error) = mounted {
            // The volumes have told of it by events already.
            return Err(SyncError { message: error, retry: Some(Duration::from_secs(2)) });
        }
        if !occupied && let Err(error) = parts.claims.prepare(pod).await {
            let message = format!("Failed to prepare dynamic resources: {error}");
            parts.events.warning(pod, "FailedPrepareDynamicResources", message.clone());
            return Err(message.into());
        }
        parts.probes.add_pod(pod);
        Ok(())
    }

    /// Plans and applies until there is nothing to do, something failed, or something has to be waited for.
    async fn converge(
        &self,
        pod: &Arc<Pod>,
        mut observed: types::PodStatus,
        stop: &CancellationToken,
    ) -> Result<Synced, SyncError> {
        let parts = self.parts();
        for _ in 0..ROUNDS {
            let plan = plan_pod(pod, &observed, &*parts.probes);
            if plan.is_empty() || stop.is_cancelled() {
                return Ok(Synced::default());
            }
            tracing::debug!(pod = types::format_pod(pod), %plan, "plan");
            let outcome = parts.runtime.apply(pod, &observed, &plan, stop).await;
            if outcome.changed {
                parts.pleg.expect_changes();
            }
            observed = self.inspect(pod).await?;
            self.note_progress(pod, &observed);
            if let Some(error) = &outcome.resize_failure {
                self.note_resize_failure(pod, error);
            }
            let status = self.report(pod, &observed, false, None);
            if is_terminal(&status) {
                return Ok(Synced { terminal: true, again: None });
            }
            if !outcome.failures.is_empty() {
                let message = outcome.failures.join(", ");
                tracing::debug!(pod = types::format_pod(pod), message, "pod is not yet as it should be");
                return Err(SyncError { message, retry: outcome.retry });
            }
            if !outcome.changed {
                return Ok(Synced::default());
            }
        }
        Ok(Synced { terminal: false, again: Some(Duration::ZERO) })
    }

    /// The last status of a pod, and leave to delete it.
    fn finish(&self, pod: &Arc<Pod>) {
        let parts = self.parts();
        let uid = types::uid(pod);
        if let Some(status) = parts.status.pod_status(uid) {
            let ended = crate::status::terminate::terminate(pod, (*status).clone());
            self.publish(pod, ended);
        }
        if let Some(carrier) = parts.pods.api_pod(pod) {
            parts.status.finish(uid, &carrier);
        }
    }
}

fn is_terminal(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
}

/// How long the pod may still run, and the verdict once it may not.
fn deadline(pod: &Pod, status: Option<&PodStatus>, now: Timestamp) -> (Option<Duration>, Option<Verdict>) {
    let Some(seconds) = types::spec(pod).active_deadline_seconds else { return (None, None) };
    let started = status.or(pod.status.as_ref()).and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let Some(started) = started else { return (None, None) };
    let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let active = Duration::try_from(now.duration_since(started)).unwrap_or_default();
    if active >= limit {
        let verdict = Verdict {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
            disruption: false,
        };
        return (None, Some(verdict));
    }
    (Some(limit - active), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_counts_from_the_start() {
        let pod: Pod = serde_saphyr::from_str(
            "spec: {activeDeadlineSeconds: 10, containers: []}\nstatus: {startTime: '2026-01-01T00:00:00Z'}",
        )
        .expect("valid");
        let at = |text: &str| text.parse::<Timestamp>().expect("time");
        assert_eq!(deadline(&pod, None, at("2026-01-01T00:00:04Z")), (Some(Duration::from_secs(6)), None));
        let (_, verdict) = deadline(&pod, None, at("2026-01-01T00:00:10Z"));
        assert_eq!(verdict.map(|v| v.reason).as_deref(), Some("DeadlineExceeded"));
        assert_eq!(deadline(&Pod::default(), None, at("2026-01-01T00:00:10Z")), (None, None));
    }
}
