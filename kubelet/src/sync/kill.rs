//! Stops containers and whole pods: preStop hooks, grace, order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, PodSpec};

use super::hooks;
use super::plan::{Kill, KillReason};
use super::runner::PodRuntime;
use super::termination::{MINIMUM_GRACE, TerminationOrder, grace_period};
use crate::containers::labels::ContainerInfo;
use crate::types::{self, PodStatus};

impl PodRuntime {
    /// Stops one container. Without its pod, what its labels say must do.
    pub async fn kill_container(
        &self,
        pod: Option<&Pod>,
        kill: &Kill,
        grace_override: Option<Duration>,
        order: Option<&TerminationOrder>,
    ) -> Result<(), String> {
        let inner = &self.inner;
        let found =
            pod.and_then(|p| types::find_container(types::spec(p), &kill.name).map(|(_, c)| (p.clone(), c)));
        let (pod, container) = match found {
            Some(found) => found,
            None => self.restore(&kill.id, &kill.name).await?,
        };
        let mut grace = grace_override.unwrap_or_else(|| grace_period(&pod, &container, kill.reason));
        let message = match kill.message.as_str() {
            "" => format!("Stopping container {}", container.name),
            text => text.to_owned(),
        };
        inner.events.container_normal(&pod, &container.name, "Killing", message);
        let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        if let Some(handler) = pre_stop.filter(|_| !grace.is_zero()) {
            let started = Instant::now();
            self.pre_stop(&pod, &container, &kill.id, handler, grace).await;
            grace = grace.saturating_sub(whole_seconds(started.elapsed()));
        }
        if let Some(order) = order {
            let started = Instant::now();
            order.wait_for_turn(&container.name, grace).await;
            grace = grace.saturating_sub(whole_seconds(started.elapsed()));
        }
        let result = inner.runtime.stop_container(&kill.id, grace.max(MINIMUM_GRACE)).await;
        if let Some(order) = order {
            order.ended(&container.name);
        }
        match result {
            Err(error) if !error.is_not_found() => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    async fn pre_stop(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        handler: &k8s_openapi::api::core::v1::LifecycleHandler,
        grace: Duration,
    ) {
        let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
        let hook = hooks::run(&self.inner.runtime, id, container, ip, handler);
        match tokio::time::timeout(grace, hook).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(pod = types::format_pod(pod), container = container.name, %error, "preStop hook failed");
                // The event does not say why: answers of servers may hold secrets.
                self.inner.events.container_warning(
                    pod,
                    &container.name,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
            Err(_) => {
                tracing::warn!(container = container.name, "preStop hook not completed in grace period")
            }
        }
    }

    /// Stops all containers of a pod, then its sandboxes.
    pub async fn kill_pod(
        &self,
        pod: Option<&Pod>,
        observed: &PodStatus,
        grace_override: Option<Duration>,
    ) -> Result<(), String> {
        let running: Vec<_> = observed.containers.iter().filter(|c| may_run(c.state)).collect();
        let names: Vec<&str> = running.iter().map(|c| c.name.as_str()).collect();
        let order = pod.map(|p| TerminationOrder::new(p, &names));
        let kills = running.iter().map(|status| {
            let kill = Kill {
                id: status.id.id.clone(),
                name: status.name.clone(),
                message: String::new(),
                reason: KillReason::Other,
            };
            let order = order.as_ref();
            async move { self.kill_container(pod, &kill, grace_override, order).await }
        });
        let mut errors: Vec<String> = join_all(kills).await.into_iter().filter_map(Result::err).collect();
        let ready = observed.sandboxes.iter().filter(|s| s.ready);
        for sandbox in ready {
            if let Err(error) = self.inner.runtime.stop_pod_sandbox(&sandbox.id).await
                && !error.is_not_found()
            {
                errors.push(format!("failed to \"KillPodSandbox\" for {:?}: {error}", observed.uid));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join(", ")) }
    }
}

/// Grace counts in seconds: what began and did not pass is not taken away.
fn whole_seconds(elapsed: Duration) -> Duration {
    Duration::from_secs(elapsed.as_secs())
}

fn may_run(state: types::ContainerState) -> bool {
    matches!(state, types::ContainerState::Running | types::ContainerState::Unknown)
}

/// As much of pod and container as the labels of a container hold.
pub(super) fn restore_specs(
    labels: &HashMap<String, String>,
    annotations: &HashMap<String, String>,
    name: &str,
) -> (Pod, Container) {
    let info = ContainerInfo::read(labels, annotations);
    let container = Container {
        name: name.to_owned(),
        ports: Some(info.ports),
        termination_message_path: Some(info.message_path),
        lifecycle: info.pre_stop.map(|handler| Lifecycle { pre_stop: Some(handler), ..Lifecycle::default() }),
        ..Container::default()
    };
    let mut pod = Pod::default();
    pod.metadata.name = Some(info.pod_name);
    pod.metadata.namespace = Some(info.pod_namespace);
    pod.metadata.uid = Some(info.pod_uid);
    pod.metadata.deletion_grace_period_seconds = info.deletion_grace;
    pod.spec = Some(PodSpec {
        termination_grace_period_seconds: info.termination_grace,
        containers: vec![container.clone()],
        ..PodSpec::default()
    });
    (pod, container)
}
