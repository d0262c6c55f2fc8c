//! Carries out a pod's plan against the runtime. Makes no choice of its own and may be repeated safely.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use proto::cri;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
pub use super::environment::{ContainerOptions, ImageVolumes, PodEnvironment};
use super::image_volumes::PulledVolumes;
use super::plan::PodPlan;
use super::reasons::WaitingReasons;
use crate::allocation::Record;
use crate::containers::resources::LimitSettings;
use crate::containers::sandbox_config::{SandboxInput, sandbox_config};
use crate::events::Events;
use crate::images::Images;
use crate::layout::Layout;
use crate::runtime::{Look, Runtime};
use crate::types::{self, ContainerKind, PodStatus};

/// A container did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// Waiting reason, for example `CrashLoopBackOff`.
    pub reason: String,
    /// Waiting message.
    pub message: String,
    /// When trying again makes sense, when that is known.
    pub retry: Option<Duration>,
}

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Something was changed at the runtime.
    pub changed: bool,
    /// Failures, for the log and for backoff.
    pub failures: Vec<String>,
    /// When trying again makes sense; `None` for the ordinary time.
    pub retry: Option<Duration>,
    /// Why a resize could not be done.
    pub resize_failure: Option<String>,
}

impl Outcome {
    pub(super) fn fail(&mut self, what: String, retry: Option<Duration>) {
        self.failures.push(what);
        self.retry = match (self.retry, retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Everything needed to run pods; clones share it.
#[derive(Clone)]
pub struct PodRuntime {
    pub(super) inner: Arc<Inner>,
}

/// Parts of a [`PodRuntime`].
pub struct Inner {
    /// The runtime.
    pub runtime: Runtime,
    /// What the runtime calls itself.
    pub runtime_name: String,
    /// Images.
    pub images: Images,
    /// Events.
    pub events: Events,
    /// Paths.
    pub layout: Layout,
    /// How limits are enforced.
    pub limits: LimitSettings,
    /// Directory of seccomp profiles.
    pub seccomp_root: PathBuf,
    /// Confine containers that say nothing.
    pub seccomp_default: bool,
    /// Waits of crashing containers.
    pub backoff: Backoff,
    /// Why containers wait.
    pub reasons: WaitingReasons,
    /// What the runtime has been told of resources.
    pub actuated: Record,
    /// What pods need from elsewhere.
    pub environment: Arc<dyn PodEnvironment>,
}

impl PodRuntime {
    /// Runs pods with these parts.
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Why containers wait.
    #[must_use]
    pub fn reasons(&self) -> &WaitingReasons {
        &self.inner.reasons
    }

    /// What the runtime has been told of resources.
    #[must_use]
    pub fn actuated(&self) -> &Record {
        &self.inner.actuated
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// Looks at a pod.
    pub async fn inspect(&self, uid: &str) -> Result<PodStatus, crate::runtime::Error> {
        self.look(uid, Look::Whole).await
    }

    async fn look(&self, uid: &str, look: Look) -> Result<PodStatus, crate::runtime::Error> {
        let inner = &self.inner;
        let mut seen = inner.runtime.inspect_pod(&inner.runtime_name, uid, look).await?;
        seen.actuated = inner.actuated.get(uid).unwrap_or_default();
        Ok(seen)
    }

    /// Looks at a pod that is to go, and makes do with what can be seen.
    pub async fn inspect_leaving(&self, uid: &str) -> Result<PodStatus, crate::runtime::Error> {
        self.look(uid, Look::Whatever).await
    }

    /// Carries out `plan`. `stop` ends it between two steps: the pod is to be stopped.
    pub async fn apply(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        plan: &PodPlan,
        stop: &CancellationToken,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        if plan.kill_pod {
            if plan.create_sandbox && !observed.sandboxes.is_empty() {
                self.inner.events.normal(
                    pod,
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.",
                );
            }
            if !observed.is_stopped() {
                outcome.changed = true;
            }
            if let Err(error) = self.kill_pod(Some(pod), observed, None).await {
                outcome.fail(error, None);
                return outcome;
            }
            if plan.create_sandbox {
                self.remove_init_containers(pod, observed).await;
            }
        } else if !self.reset_listed(pod, observed, plan, &mut outcome).await
            || !self.kill_listed(pod, plan, &mut outcome).await
        {
            return outcome;
        }
        if !plan.kill_pod && !plan.resize.is_empty() {
            self.resize(pod, plan, &mut outcome).await;
        }
        if plan.create_sandbox || plan.starts_something() {
            self.start_all(pod, observed, plan, stop, &mut outcome).await;
        }
        outcome
    }

    /// Removes what has to go before the pod starts over. Its logs stay.
    async fn reset_listed(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        plan: &PodPlan,
        outcome: &mut Outcome,
    ) -> bool {
        for reset in &plan.reset {
            outcome.changed = true;
            let ended =
                observed.container_by_id(&reset.id).map(|s| s.state) == Some(types::ContainerState::Exited);
            let stopped = if ended {
                Ok(())
            } else {
                self.kill_container(Some(pod), reset, Some(Duration::ZERO), None).await
            };
            let removed = match stopped {
                Ok(()) => self.inner.runtime.remove_container(&reset.id).await.map_err(|e| e.to_string()),
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                outcome.fail(format!("failed to \"RemoveContainer\" for {:?}: {error}", reset.name), None);
                return false;
            }
        }
        true
    }

    async fn kill_listed(&self, pod: &Pod, plan: &PodPlan, outcome: &mut Outcome) -> bool {
        for kill in &plan.kill {
            outcome.changed = true;
            if let Err(error) = self.kill_container(Some(pod), kill, None, None).await {
                outcome.fail(format!("failed to \"KillContainer\" for {:?}: {error}", kill.name), None);
                return false;
            }
        }
        true
    }

    /// Records of init containers of a former sandbox would make the new one look initialized.
    async fn remove_init_containers(&self, pod: &Pod, observed: &PodStatus) {
        for init in types::init_containers(types::spec(pod)) {
            for status in observed.containers_named(&init.name) {
                if let Err(error) = self.inner.runtime.remove_container(&status.id.id).await {
                    tracing::warn!(container = init.name, %error, "failed to remove init container");
                }
            }
        }
    }

    async fn start_all(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        plan: &PodPlan,
        stop: &CancellationToken,
        outcome: &mut Outcome,
    ) {
        let config = match self.sandbox_config(pod, plan.attempt) {
            Ok(config) => config,
            Err(error) => {
                outcome.fail(
                    format!("GeneratePodSandboxConfig for pod {:?} failed: {error}", types::format_pod(pod)),
                    None,
                );
                return;
            }
        };
        let (sandbox, ips) = if plan.create_sandbox {
            match self.create_sandbox(pod, &config, stop).await {
                Ok(created) => created,
                Err(error) => {
                    outcome.fail(error, None);
                    return;
                }
            }
        } else {
            (plan.sandbox_id.clone(), observed.ips.clone())
        };
        outcome.changed |= plan.create_sandbox;
        let secrets = self.inner.environment.pull_secrets(pod).await;
        let images = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            images = self.image_volumes(pod, &config, &secrets) => images,
        };
        let place =
            Place { sandbox: &sandbox, config: &config, ips: &ips, secrets: &secrets, images: &images, stop };
        self.start_containers(pod, observed, plan, &place, outcome).await;
    }

    async fn start_containers(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        plan: &PodPlan,
        place: &Place<'_>,
        outcome: &mut Outcome,
    ) {
        let spec = types::spec(pod);
        for index in &plan.start_ephemeral {
            let ephemeral = &types::ephemeral_containers(spec)[*index];
            let target = ephemeral.target_container_name.as_deref();
            let container = types::as_container(ephemeral);
            self.start_one(pod, observed, (ContainerKind::Ephemeral, &container, target), place, outcome)
                .await;
        }
        for index in &plan.start_init {
            let container = &types::init_containers(spec)[*index];
            let started =
                self.start_one(pod, observed, (ContainerKind::Init, container, None), place, outcome).await;
            if !started && !types::is_restartable_init(container) {
                return;
            }
        }
        for index in &plan.start {
            self.start_one(
                pod,
                observed,
                (ContainerKind::App, &spec.containers[*index], None),
                place,
                outcome,
            )
            .await;
        }
    }

    async fn start_one(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        (kind, container, target): (ContainerKind, &Container, Option<&str>),
        place: &Place<'_>,
        outcome: &mut Outcome,
    ) -> bool {
        if place.stop.is_cancelled() {
            return false;
        }
        let uid = types::uid(pod);
        let result = match self.backing_off(pod, container, observed) {
            Some(failure) => Err(failure),
            None => {
                let result = self.start_container(pod, container, observed, target, place).await;
                count_start(kind, &result);
                result
            }
        };
        match result {
            Ok(()) => {
                outcome.changed = true;
                self.inner.reasons.clear(uid, &container.name);
                true
            }
            Err(failure) => {
                tracing::debug!(
                    ?kind,
                    container = container.name,
                    reason = failure.reason,
                    "container did not start"
                );
                outcome.fail(
                    format!(
                        "failed to \"StartContainer\" for {:?} with {}: {:?}",
                        container.name, failure.reason, failure.message
                    ),
                    failure.retry,
                );
                self.inner.reasons.set(uid, &container.name, &failure.reason, &failure.message);
                false
            }
        }
    }

    /// The failure of a container that crashed and has to wait.
    fn backing_off(&self, pod: &Pod, container: &Container, observed: &PodStatus) -> Option<StartFailure> {
        let ended =
            observed.containers_named(&container.name).find(|c| c.state == types::ContainerState::Exited)?;
        let (since, now) = (ended.finished_at.unwrap_or(Timestamp::UNIX_EPOCH), Timestamp::now());
        let key = crate::containers::hash::backoff_key(pod, container);
        let Some(retry) = self.inner.backoff.remaining(&key, since, now) else {
            self.inner.backoff.next(&key, since, now);
            return None;
        };
        let pod_text = types::format_pod(pod);
        self.inner.events.container_warning(
            pod,
            &container.name,
            "BackOff",
            format!("Back-off restarting failed container {} in pod {pod_text}", container.name),
        );
        let wait = crate::duration::GoDuration(self.inner.backoff.wait(&key));
        Some(StartFailure {
            reason: "CrashLoopBackOff".to_owned(),
            message: format!("back-off {wait} restarting failed container={} pod={pod_text}", container.name),
            retry: Some(retry),
        })
    }

    fn sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<cri::PodSandboxConfig, String> {
        let environment = &self.inner.environment;
        let hostname = if types::host_network(pod) { String::new() } else { environment.hostname(pod)? };
        sandbox_config(SandboxInput {
            pod,
            attempt,
            dns: environment.dns(pod)?,
            hostname,
            cgroup_parent: environment.cgroup_parent(pod),
            layout: &self.inner.layout,
            limits: &self.inner.limits,
        })
        .map_err(|e| e.to_string())
    }

    /// Starts the sandbox; answers its identifier and addresses.
    async fn create_sandbox(
        &self,
        pod: &Pod,
        config: &cri::PodSandboxConfig,
        stop: &CancellationToken,
    ) -> Result<(String, Vec<String>), String> {
        let inner = &self.inner;
        if let Err(error) = tokio::fs::create_dir_all(&config.log_directory).await {
            let text =
                format!("Create pod log directory for pod {:?} failed: {error}", types::format_pod(pod));
            inner.events.warning(
                pod,
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {error}"),
            );
            return Err(text);
        }
        metrics::counter!("kubelet_started_pods_total").increment(1);
        let handler = inner.environment.runtime_handler(pod)?;
        let run = inner.runtime.run_pod_sandbox(config.clone(), &handler);
        let created = tokio::select! {
            biased;
            // Dropping the call makes the runtime undo what it began.
            () = stop.cancelled() => return Err("the pod is being stopped".to_owned()),
            created = run => created,
        };
        let id = created.map_err(|error| {
            metrics::counter!("kubelet_started_pods_errors_total").increment(1);
            inner.events.warning(
                pod,
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {error}"),
            );
            format!("failed to \"CreatePodSandbox\" for {:?}: {error}", types::format_pod(pod))
        })?;
        let status = inner.runtime.pod_sandbox_status(&id).await.map_err(|error| {
            inner.events.warning(
                pod,
                "FailedPodSandBoxStatus",
                format!("Unable to get pod sandbox status: {error}"),
            );
            error.to_string()
        })?;
        let sandboxes: Vec<_> = status.status.into_iter().collect();
        let ips = crate::runtime::pod_status(&inner.runtime_name, types::uid(pod), sandboxes, Vec::new()).ips;
        Ok((id, ips))
    }

    /// Labels restore what is needed to stop a container whose pod is no longer known.
    pub(super) async fn restore(&self, id: &str, name: &str) -> Result<(Pod, Container), String> {
        let status = self.inner.runtime.container_status(id).await.map_err(|e| e.to_string())?;
        Ok(super::kill::restore_specs(&HashMap::clone(&status.labels), &status.annotations, name))
    }
}

/// Counts a start of a container, under upstream's names.
fn count_start(kind: ContainerKind, result: &Result<(), StartFailure>) {
    let kind = match kind {
        ContainerKind::Init => "init_container",
        ContainerKind::App => "container",
        ContainerKind::Ephemeral => "ephemeral_container",
    };
    metrics::counter!("kubelet_started_containers_total", "container_type" => kind).increment(1);
    if let Err(failure) = result {
        let labels = [("container_type", kind.to_owned()), ("code", failure.reason.clone())];
        metrics::counter!("kubelet_started_containers_errors_total", &labels).increment(1);
    }
}

/// Where containers are started.
pub(super) struct Place<'a> {
    pub sandbox: &'a str,
    pub config: &'a cri::PodSandboxConfig,
    pub ips: &'a [String],
    pub secrets: &'a [Arc<Secret>],
    pub images: &'a PulledVolumes,
    pub stop: &'a CancellationToken,
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
