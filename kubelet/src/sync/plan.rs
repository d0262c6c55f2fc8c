//! Decides what one pod needs. Pure: no clock, no runtime; the same inputs give the same plan.
//!
//! Mechanism and cases as upstream's `computePodActions` and `computeInitContainerActions`.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::resize::{self, ResizePlan, Verdict};
use super::restart::{comes_back, pod_restarts_on_failure, restarts_after, should_start, to_reset};
use crate::containers::hash::container_hash;
use crate::types::{self, ContainerState, ContainerStatus, PodStatus};

/// Why a container is stopped; decides how much time it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KillReason {
    /// None of the others.
    #[default]
    Other,
    /// Its startup probe failed.
    StartupProbe,
    /// Its liveness probe failed.
    LivenessProbe,
    /// Its postStart hook failed.
    FailedPostStartHook,
}

/// A container to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The runtime's identifier.
    pub id: String,
    /// Name in the spec.
    pub name: String,
    /// Why, as the event says it.
    pub message: String,
    /// Why, as it decides the grace.
    pub reason: KillReason,
}

/// What has to be done to one pod. Indices point into the lists of the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPlan {
    /// Stop everything of the pod, sandbox included.
    pub kill_pod: bool,
    /// Make a new sandbox (after `kill_pod`).
    pub create_sandbox: bool,
    /// Sandbox in which containers start when none is created.
    pub sandbox_id: String,
    /// Number of the sandbox.
    pub attempt: u32,
    /// Ephemeral containers to start.
    pub start_ephemeral: Vec<usize>,
    /// Init containers to start, in this order.
    pub start_init: Vec<usize>,
    /// App containers to start.
    pub start: Vec<usize>,
    /// Containers to stop, where they run, and to remove: the pod starts over.
    pub reset: Vec<Kill>,
    /// Containers to stop first.
    pub kill: Vec<Kill>,
    /// What changes for containers that go on running.
    pub resize: ResizePlan,
}

impl PodPlan {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.kill_pod
            && !self.create_sandbox
            && !self.starts_something()
            && self.kill.is_empty()
            && self.reset.is_empty()
            && self.resize.is_empty()
    }

    /// Some container is to be started.
    #[must_use]
    pub fn starts_something(&self) -> bool {
        !(self.start_ephemeral.is_empty() && self.start_init.is_empty() && self.start.is_empty())
    }
}

/// One line, for logs and tests.
impl fmt::Display for PodPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.kill_pod {
            words.push("kill-pod".to_owned());
        }
        if self.create_sandbox {
            words.push(format!("create-sandbox#{}", self.attempt));
        }
        words.extend(self.reset.iter().map(|k| format!("reset {}", k.name)));
        words.extend(self.kill.iter().map(|k| format!("kill {}", k.name)));
        words.extend(self.resize.memory.iter().map(|u| format!("memory {}", u.name)));
        words.extend(self.resize.cpu.iter().map(|u| format!("cpu {}", u.name)));
        if self.resize.pod || self.resize.pod_level {
            words.push("resize-pod".to_owned());
        }
        words.extend(self.start_ephemeral.iter().map(|i| format!("start ephemeral[{i}]")));
        words.extend(self.start_init.iter().map(|i| format!("start init[{i}]")));
        words.extend(self.start.iter().map(|i| format!("start app[{i}]")));
        f.write_str(&if words.is_empty() { "keep".to_owned() } else { words.join(", ") })
    }
}

/// What probes found about a container; `None` while they found nothing.
pub trait ProbeResults {
    /// Liveness of a container, by the runtime's identifier.
    fn liveness(&self, id: &str) -> Option<bool>;
    /// Startup of a container, by the runtime's identifier.
    fn startup(&self, id: &str) -> Option<bool>;
}

/// Decides what `pod` needs, seeing `observed` of it.
#[must_use]
pub fn plan_pod(pod: &Pod, observed: &PodStatus, probes: &dyn ProbeResults) -> PodPlan {
    let (changed, attempt, sandbox_id) = sandbox_changed(pod, observed);
    let mut plan =
        PodPlan { kill_pod: changed, create_sandbox: changed, attempt, sandbox_id, ..PodPlan::default() };
    if changed {
        plan_new_sandbox(pod, observed, &mut plan);
        return plan;
    }
    plan.reset = to_reset(pod, observed)
        .into_iter()
        .map(|status| Kill {
            id: status.id.id.clone(),
            name: status.name.clone(),
            message: "killing".to_owned(),
            reason: KillReason::Other,
        })
        .collect();
    if !plan.reset.is_empty() {
        return plan;
    }
    for (index, container) in types::ephemeral_containers(types::spec(pod)).iter().enumerate() {
        // They run once and are never restarted.
        if observed.container(&container.name).is_none() {
            plan.start_ephemeral.push(index);
        }
    }
    let initialized = plan_init(pod, observed, probes, &mut plan);
    if !plan.kill_pod && initialized {
        plan_apps(pod, observed, probes, &mut plan);
        plan.resize.pod_level = !plan.kill_pod && resize::pod_level_changed(pod, observed);
    }
    plan
}

/// Whether a new sandbox is needed, its number, and the sandbox at hand.
fn sandbox_changed(pod: &Pod, observed: &PodStatus) -> (bool, u32, String) {
    let Some(newest) = observed.sandboxes.first() else { return (true, 0, String::new()) };
    let ready = observed.sandboxes.iter().filter(|s| s.ready).count();
    let host_network = types::host_network(pod);
    let unusable = ready > 1
        || !newest.ready
        || newest.host_network != host_network
        || (!host_network && newest.ips.is_empty());
    if unusable {
        (true, newest.attempt + 1, newest.id.clone())
    } else {
        (false, newest.attempt, newest.id.clone())
    }
}

fn plan_new_sandbox(pod: &Pod, observed: &PodStatus, plan: &mut PodPlan) {
    // A pod that never restarts has ended with its sandbox, unless nothing of it was ever created.
    if !pod_restarts_on_failure(pod) && plan.attempt != 0 && !observed.containers.is_empty() {
        plan.create_sandbox = false;
        return;
    }
    let spec = types::spec(pod);
    let start: Vec<usize> = (0..spec.containers.len())
        .filter(|i| {
            let container = &spec.containers[*i];
            let policy = container.restart_policy.as_deref().or(spec.restart_policy.as_deref());
            !(policy == Some("OnFailure") && succeeded(container, observed))
        })
        .collect();
    if start.is_empty() && spec.containers.iter().any(|c| observed.container(&c.name).is_some()) {
        plan.create_sandbox = false;
        return;
    }
    // A new sandbox begins from the beginning.
    if types::init_containers(spec).is_empty() { plan.start = start } else { plan.start_init = vec![0] }
}

fn succeeded(container: &Container, observed: &PodStatus) -> bool {
    observed.container(&container.name).is_some_and(|s| s.state == ContainerState::Exited && s.exit_code == 0)
}

fn plan_apps(pod: &Pod, observed: &PodStatus, probes: &dyn ProbeResults, plan: &mut PodPlan) {
    let mut keep = 0;
    for (index, container) in types::spec(pod).containers.iter().enumerate() {
        let Some(status) = observed.container(&container.name).filter(|s| s.state == ContainerState::Running)
        else {
            if should_start(container, pod, observed) {
                plan.start.push(index);
                let unknown =
                    observed.container(&container.name).filter(|s| s.state == ContainerState::Unknown);
                plan.kill.extend(unknown.map(|s| kill_unknown("Container", s)));
            }
            continue;
        };
        let (message, reason, restart) = if status.hash != container_hash(container) {
            (format!("Container {} definition changed", container.name), KillReason::Other, true)
        } else if probes.liveness(&status.id.id) == Some(false) {
            let text = format!("Container {} failed liveness probe", container.name);
            (text, KillReason::LivenessProbe, comes_back(container, pod))
        } else if probes.startup(&status.id.id) == Some(false) {
            let text = format!("Container {} failed startup probe", container.name);
            (text, KillReason::StartupProbe, comes_back(container, pod))
        } else {
            match resize::plan_container(pod, container, status, observed, plan) {
                Verdict::Keep => keep += 1,
                Verdict::Restart => plan.start.push(index),
            }
            continue;
        };
        if restart {
            plan.start.push(index);
        }
        let message = if restart { format!("{message}, will be restarted") } else { message };
        plan.kill.push(Kill { id: status.id.id.clone(), name: status.name.clone(), message, reason });
    }
    if keep == 0 && plan.start.is_empty() {
        // Nothing runs and nothing will: the pod is over. Sidecars being restarted do not change that.
        plan.kill_pod = true;
        plan.start_init.clear();
    }
}

fn kill_unknown(kind: &str, status: &ContainerStatus) -> Kill {
    // Nobody knows whether it runs: stop it before a second one starts.
    Kill {
        id: status.id.id.clone(),
        name: status.name.clone(),
        message: format!("{kind} is in \"unknown\" state, try killing it before restart"),
        reason: KillReason::Other,
    }
}

fn kill_init(status: &ContainerStatus, what: &str, reason: KillReason) -> Kill {
    Kill {
        id: status.id.id.clone(),
        name: status.name.clone(),
        message: format!("Init container {} {what}", status.name),
        reason,
    }
}

fn init_failed(status: &ContainerStatus) -> bool {
    status.reason == "OOMKilled"
        || (status.state == ContainerState::Exited && status.exit_code != 0)
        || status.state == ContainerState::Unknown
}

/// How the walk over the init containers goes on.
enum Step {
    /// This container says nothing about those before it.
    Next,
    /// Initialization failed for good.
    Failed,
}

/// Plans init containers; whether all of them are done (or, for sidecars, started).
///
/// Walks from the last to the first, because records of those that completed may be gone: the last one found tells
/// how far initialization has come.
fn plan_init(pod: &Pod, observed: &PodStatus, probes: &dyn ProbeResults, plan: &mut PodPlan) -> bool {
    let spec = types::spec(pod);
    let all = types::init_containers(spec);
    if all.is_empty() {
        return true;
    }
    let mut walk = InitWalk {
        pod,
        observed,
        probes,
        last: all.len() - 1,
        // A running app container proves that initialization has been passed.
        initialized: spec
            .containers
            .iter()
            .filter_map(|c| observed.container(&c.name))
            .any(|s| matches!(s.state, ContainerState::Created | ContainerState::Running)),
        later_seen: false,
    };
    walk.later_seen = walk.initialized;
    for index in (0..all.len()).rev() {
        if let Step::Failed = walk.container(index, &all[index], plan) {
            plan.kill_pod = true;
            plan.start_init.clear();
            return false;
        }
    }
    if !walk.later_seen {
        plan.start_init.push(0);
    }
    plan.start_init.reverse();
    walk.initialized
}

struct InitWalk<'a> {
    pod: &'a Pod,
    observed: &'a PodStatus,
    probes: &'a dyn ProbeResults,
    last: usize,
    /// All init containers are done.
    initialized: bool,
    /// A container after the one looked at has been seen, so this one was passed already.
    later_seen: bool,
}

impl InitWalk<'_> {
    fn container(&mut self, index: usize, container: &Container, plan: &mut PodPlan) -> Step {
        let sidecar = types::is_restartable_init(container);
        let Some(status) = self.observed.container(&container.name) else {
            if self.later_seen && sidecar {
                plan.start_init.push(index);
            }
            return Step::Next;
        };
        if self.later_seen && !sidecar {
            return Step::Next;
        }
        let step = match status.state {
            ContainerState::Created => {
                plan.start_init.push(index);
                Step::Next
            }
            ContainerState::Running => {
                if sidecar {
                    self.running_sidecar(index, container, status, plan);
                } else {
                    // Validation lets no init container ask to be restarted for it.
                    resize::plan_container(self.pod, container, status, self.observed, plan);
                }
                Step::Next
            }
            ContainerState::Exited if sidecar => {
                plan.start_init.push(index);
                Step::Next
            }
            ContainerState::Exited => self.exited(index, container, status, plan),
            ContainerState::Unknown => {
                if !sidecar && !comes_back(container, self.pod) {
                    return Step::Failed;
                }
                plan.kill.push(kill_unknown("Init container", status));
                plan.start_init.push(index);
                Step::Next
            }
        };
        self.later_seen = true;
        step
    }

    fn passed(&mut self, index: usize, plan: &mut PodPlan) {
        if index == self.last {
            self.initialized = true;
        } else if !self.later_seen {
            plan.start_init.push(index + 1);
        }
    }

    fn running_sidecar(
        &mut self,
        index: usize,
        container: &Container,
        status: &ContainerStatus,
        plan: &mut PodPlan,
    ) {
        let id = &status.id.id;
        if container.startup_probe.is_some() {
            match self.probes.startup(id) {
                Some(true) => {}
                Some(false) => {
                    plan.kill.push(kill_init(status, "failed startup probe", KillReason::StartupProbe));
                    plan.start_init.push(index);
                    return;
                }
                None => return,
            }
        }
        self.passed(index, plan);
        if status.hash != container_hash(container) {
            plan.kill.push(kill_init(status, "definition changed", KillReason::Other));
            plan.start_init.push(index);
        } else if container.liveness_probe.is_some() && self.probes.liveness(id) == Some(false) {
            plan.kill.push(kill_init(status, "failed liveness probe", KillReason::LivenessProbe));
            plan.start_init.push(index);
        } else if container.liveness_probe.is_some() && self.probes.liveness(id).is_none() {
            // Nothing is decided before its first probe.
        } else if resize::plan_container(self.pod, container, status, self.observed, plan) == Verdict::Restart
        {
            plan.start_init.push(index);
        }
    }

    fn exited(
        &mut self,
        index: usize,
        container: &Container,
        status: &ContainerStatus,
        plan: &mut PodPlan,
    ) -> Step {
        if init_failed(status) {
            // An init container killed for memory failed even if its exit code says otherwise.
            let code = if status.exit_code == 0 { 1 } else { status.exit_code };
            if self.pod.metadata.deletion_timestamp.is_some()
                || !restarts_after(container, types::spec(self.pod), code)
            {
                return Step::Failed;
            }
            plan.start_init.push(index);
        } else {
            self.passed(index, plan);
        }
        Step::Next
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
