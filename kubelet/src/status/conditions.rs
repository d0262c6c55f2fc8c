//! Conditions of a pod that the kubelet owns. Pure; as upstream's `status/generate.go`.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use crate::allocation::{IN_PROGRESS, PENDING};
use crate::sync::restart::{may_restart_all, to_reset};
use crate::types;

/// Condition of a pod that starts over.
const ALL_RESTARTING: &str = "AllContainersRestarting";

/// Conditions only the kubelet writes.
pub const OWNED: [&str; 8] = [
    ALL_RESTARTING,
    "PodScheduled",
    "Ready",
    "Initialized",
    "ContainersReady",
    "PodReadyToStartContainers",
    PENDING,
    IN_PROGRESS,
];

/// Those of them that come and go.
pub const PASSING: [&str; 2] = [PENDING, IN_PROGRESS];

fn condition(pod: &Pod, kind: &str, status: bool, reason: &str, message: String) -> PodCondition {
    let text = |t: String| (!t.is_empty()).then_some(t);
    PodCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: text(reason.to_owned()),
        message: text(message),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// Names as Go prints a list: `[a b]`.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn unready_message(what: &str, unknown: &[&str], unready: &[&str]) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !unready.is_empty() {
        parts.push(format!("containers with {what} status: {}", list(unready)));
    }
    parts.join(", ")
}

/// `ContainersReady`.
#[must_use]
pub fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    const KIND: &str = "ContainersReady";
    if statuses.is_empty() {
        return condition(pod, KIND, false, "UnknownContainerStatuses", String::new());
    }
    let spec = types::spec(pod);
    let sidecars = types::init_containers(spec).iter().filter(|c| types::is_restartable_init(c));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in sidecars.chain(&spec.containers) {
        match statuses.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Failed" {
        return condition(pod, KIND, false, "PodFailed", String::new());
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, KIND, false, "PodCompleted", String::new());
    }
    let message = unready_message("unready", &unknown, &unready);
    if message.is_empty() {
        return condition(pod, KIND, true, "", String::new());
    }
    condition(pod, KIND, false, "ContainersNotReady", message)
}

/// `Ready`: containers ready and every readiness gate open.
#[must_use]
pub fn ready(pod: &Pod, others: &[PodCondition], statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    const KIND: &str = "Ready";
    let containers = containers_ready(pod, statuses, phase);
    if containers.status != "True" {
        return PodCondition { type_: KIND.to_owned(), ..containers };
    }
    let mut shut = Vec::new();
    for gate in types::spec(pod).readiness_gates.iter().flatten() {
        match others.iter().find(|c| c.type_ == gate.condition_type) {
            None => shut.push(format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            )),
            Some(c) if c.status != "True" => shut.push(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, c.status
            )),
            Some(_) => {}
        }
    }
    if shut.is_empty() {
        return condition(pod, KIND, true, "", String::new());
    }
    condition(pod, KIND, false, "ReadinessGatesNotReady", shut.join(", "))
}

/// `Initialized`: all init containers done, all sidecars started.
#[must_use]
pub fn initialized(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    const KIND: &str = "Initialized";
    let spec = types::spec(pod);
    let init = types::init_containers(spec);
    if statuses.is_empty() && !init.is_empty() {
        return condition(pod, KIND, false, "UnknownContainerStatuses", String::new());
    }
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in init {
        let done = |s: &ContainerStatus| {
            if types::is_restartable_init(container) { s.started == Some(true) } else { s.ready }
        };
        match statuses.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !done(status) => incomplete.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, KIND, true, "PodCompleted", String::new());
    }
    // Once an app container has run, initialization is behind, whatever sidecars do now.
    let app_started =
        spec.containers.iter().any(|c| statuses.iter().any(|s| s.name == c.name && has_started(s)));
    let message = unready_message("incomplete", &unknown, &incomplete);
    if app_started || message.is_empty() {
        return condition(pod, KIND, true, "", String::new());
    }
    condition(pod, KIND, false, "ContainersNotInitialized", message)
}

fn has_started(status: &ContainerStatus) -> bool {
    let ended = |s: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        s.as_ref().is_some_and(|s| s.terminated.is_some())
    };
    status.started == Some(true)
        || status.state.as_ref().is_some_and(|s| s.running.is_some())
        || ended(&status.state)
        || ended(&status.last_state)
}

/// `PodReadyToStartContainers`: the sandbox is there and needs no replacement.
#[must_use]
pub fn ready_to_start(pod: &Pod, sandbox_is_good: bool) -> PodCondition {
    condition(pod, "PodReadyToStartContainers", sandbox_is_good, "", String::new())
}

/// Whether the pod starts over: some container wants it, or others have gone for it already.
#[must_use]
pub fn starts_over(pod: &Pod, observed: &types::PodStatus, old: &PodStatus) -> bool {
    let told = |c: &PodCondition| c.type_ == ALL_RESTARTING && c.status == "True";
    may_restart_all(types::spec(pod))
        && (old.conditions.iter().flatten().any(told) || !to_reset(pod, observed).is_empty())
}

/// `AllContainersRestarting`: containers are removed, and not all have gone.
#[must_use]
pub fn all_restarting(pod: &Pod, observed: &types::PodStatus, old: &PodStatus, phase: &str) -> PodCondition {
    let no = |reason: &str| condition(pod, ALL_RESTARTING, false, reason, String::new());
    match phase {
        "Succeeded" => no("PodCompleted"),
        "Failed" => no("PodFailed"),
        _ if observed.containers.is_empty() || !starts_over(pod, observed, old) => no(""),
        _ => {
            let message = "container exited with restart policy rule".to_owned();
            condition(pod, ALL_RESTARTING, true, "RestartAllContainersStarted", message)
        }
    }
}

/// `PodScheduled`: always true of a pod that is here.
#[must_use]
pub fn scheduled(pod: &Pod) -> PodCondition {
    condition(pod, "PodScheduled", true, "", String::new())
}
