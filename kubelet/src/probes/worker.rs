//! One probe of one container: when to run it and what its outcomes add up to.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use rand::Rng;
use tokio::sync::Notify;
use tracing::debug;

use super::attempt::{Attempt, Outcome};
use super::{ProbeKind, Shared};
use crate::types;

/// A container that was started this long before the kubelet had been running under the one before it.
pub const RESTART_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// By so much times may differ that are read one after the other.
const CLOCK_SLIP: SignedDuration = SignedDuration::from_secs(1);
const ATTEMPTS: usize = 3;

pub struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    container: Container,
    kind: ProbeKind,
    probe: Probe,
}

/// What the worker remembers between two looks.
#[derive(Debug, Default)]
pub struct Memory {
    container_id: String,
    on_hold: bool,
    last: Option<bool>,
    run: i32,
}

/// What a look at the pod's status leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing to do now.
    Wait,
    /// The worker is not needed any more.
    End,
    /// Probe the container now.
    Probe,
}

impl Worker {
    pub fn new(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        container: Container,
        kind: ProbeKind,
        probe: Probe,
    ) -> Self {
        Self { shared, pod, container, kind, probe }
    }

    /// Probes every period, and when triggered, until the pod has ended.
    pub async fn run(self, trigger: &Notify) {
        let period = seconds(self.probe.period_seconds, 10);
        if self.survived_restart() {
            // Many workers start at once after a restart of the kubelet: spread them.
            let part = rand::rng().random_range(0.0..1.0);
            tokio::time::sleep(period.mul_f64(part)).await;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut memory = Memory::default();
        ticks.tick().await;
        loop {
            let status = self.shared.status.pod_status(types::uid(&self.pod));
            match status.as_deref().map_or(Look::Wait, |status| self.look(&mut memory, status)) {
                Look::End => break,
                Look::Wait => {}
                Look::Probe => {
                    if let Some(status) = &status {
                        self.probe_once(&mut memory, status).await;
                    }
                }
            }
            tokio::select! {
                _ = ticks.tick() => {}
                () = trigger.notified() => ticks.reset(),
            }
        }
        self.shared.results.remove(&memory.container_id, self.kind);
    }

    fn survived_restart(&self) -> bool {
        self.pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
    }

    fn set(&self, id: &str, success: Option<bool>) {
        self.shared.results.set(types::uid(&self.pod), id, self.kind, success);
    }

    /// Decides what to do. As upstream's doProbe up to the probe itself.
    pub fn look(&self, memory: &mut Memory, status: &PodStatus) -> Look {
        if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
            return Look::End;
        }
        let Some((id, container)) = find(status, &self.container.name) else { return Look::Wait };
        let started_at = container
            .state
            .as_ref()
            .and_then(|state| state.running.as_ref())
            .map(|running| running.started_at.as_ref());
        if memory.container_id != id {
            self.take_over(memory, id, container, started_at.flatten().map(|time| time.0));
        }
        if memory.on_hold {
            return Look::Wait;
        }
        let Some(started_at) = started_at else {
            self.set(id, Some(false));
            return if self.comes_back(container) { Look::Wait } else { Look::End };
        };
        if self.pod.metadata.deletion_timestamp.is_some() && self.kind != ProbeKind::Readiness {
            self.set(id, Some(true));
            return Look::End;
        }
        let age = started_at.map_or(SignedDuration::ZERO, |time| Timestamp::now().duration_since(time.0));
        // One that has yet to start is one whose node's clock was set back: how old it is nobody knows.
        let is_known = age > -CLOCK_SLIP;
        if is_known && age.as_secs() < i64::from(self.probe.initial_delay_seconds.unwrap_or_default()) {
            return Look::Wait;
        }
        let started = container.started == Some(true);
        if started == (self.kind == ProbeKind::Startup) { Look::Wait } else { Look::Probe }
    }

    /// A container not seen before: its result is what the kind of probe starts from, unless it ran before this kubelet.
    fn take_over(
        &self,
        memory: &mut Memory,
        id: &str,
        container: &ContainerStatus,
        started_at: Option<Timestamp>,
    ) {
        if !memory.container_id.is_empty() {
            self.shared.results.remove(&memory.container_id, self.kind);
        }
        memory.container_id = id.to_owned();
        memory.on_hold = false;
        let ran_before = started_at.is_some_and(|time| time < self.shared.start - RESTART_GRACE);
        if !ran_before {
            self.set(
                id,
                match self.kind {
                    ProbeKind::Readiness => Some(false),
                    ProbeKind::Liveness => Some(true),
                    ProbeKind::Startup => None,
                },
            );
        } else if self.kind == ProbeKind::Startup
            && container.started == Some(true)
            && types::is_restartable_init(&self.container)
        {
            self.set(id, Some(true));
        }
    }

    fn comes_back(&self, container: &ContainerStatus) -> bool {
        let terminated = container.state.as_ref().is_some_and(|state| state.terminated.is_some());
        !terminated
            || types::spec(&self.pod).restart_policy.as_deref() != Some("Never")
            || types::is_restartable_init(&self.container)
    }

    async fn probe_once(&self, memory: &mut Memory, status: &PodStatus) {
        let started = std::time::Instant::now();
        let attempt = Attempt {
            exec: &*self.shared.exec,
            probe: &self.probe,
            container: &self.container,
            container_id: &memory.container_id,
            pod_ip: status.pod_ip.as_deref().unwrap_or_default(),
        };
        let mut outcome = attempt.run().await;
        for _ in 1..ATTEMPTS {
            if !matches!(outcome, Outcome::Error(_)) {
                break;
            }
            outcome = attempt.run().await;
        }
        let success = self.report(&outcome);
        self.count(success, started.elapsed());
        // An error says nothing about the container.
        let Some(success) = success else { return };
        if let Some(result) = add_up(memory, success, &self.probe) {
            let id = memory.container_id.clone();
            self.set(&id, Some(result));
            if (self.kind == ProbeKind::Liveness && !result) || self.kind == ProbeKind::Startup {
                memory.on_hold = true;
                memory.run = 0;
            }
        }
    }

    /// Tells events what came out; whether the probe succeeded.
    fn report(&self, outcome: &Outcome) -> Option<bool> {
        let (kind, name) = (self.kind.name(), &self.container.name);
        debug!(object = %client::ObjectKey::of(&*self.pod), container = name, kind, ?outcome, "probed");
        let warn = |reason: &str, message: String| {
            self.shared.events.container_warning(&self.pod, name, reason, message)
        };
        match outcome {
            Outcome::Success => Some(true),
            Outcome::Warning(text) => {
                warn("ProbeWarning", format!("{kind} probe warning: {text}"));
                Some(true)
            }
            Outcome::Failure(text) => {
                warn("Unhealthy", format!("{kind} probe failed: {text}"));
                Some(false)
            }
            Outcome::Error(text) => {
                warn("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {text}"));
                None
            }
        }
    }

    fn count(&self, success: Option<bool>, elapsed: Duration) {
        let Some(success) = success else { return };
        let labels = [
            ("probe_type", self.kind.name().to_owned()),
            ("result", if success { "successful" } else { "failed" }.to_owned()),
            ("container", self.container.name.clone()),
            ("pod", types::name(&self.pod).to_owned()),
            ("namespace", types::namespace(&self.pod).to_owned()),
            ("pod_uid", types::uid(&self.pod).to_owned()),
        ];
        metrics::counter!("prober_probe_total", &labels).increment(1);
        metrics::histogram!("prober_probe_duration_seconds", "probe_type" => self.kind.name())
            .record(elapsed.as_secs_f64());
    }
}

/// The result once enough outcomes in a row agree.
pub fn add_up(memory: &mut Memory, success: bool, probe: &Probe) -> Option<bool> {
    if memory.last == Some(success) {
        memory.run = memory.run.saturating_add(1);
    } else {
        memory.last = Some(success);
        memory.run = 1;
    }
    let threshold =
        if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
    (memory.run >= threshold).then_some(success)
}

/// Seconds of a probe's field, at least one.
pub fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default),
    )
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<(&'a str, &'a ContainerStatus)> {
    let all =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let found = all.into_iter().find(|container| container.name == name)?;
    Some((found.container_id.as_deref().filter(|id| !id.is_empty())?, found))
}
