//! The status of a pod as the API shows it. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use super::addresses;
use super::conditions;
use super::containers::{api_time, container_statuses};
use super::phase::phase;
use crate::cgroups::Limits;
use crate::qos;
use crate::sync::reasons::WaitingReasons;
use crate::sync::restart::may_restart_all;
use crate::types::{self, ContainerKind};

/// What a status is made from, beside the pod and what the runtime shows.
pub struct StatusInput<'a> {
    /// The pod, with the status the API has.
    pub pod: &'a Pod,
    /// What the runtime shows.
    pub observed: &'a types::PodStatus,
    /// The status generated last, when there is one.
    pub previous: Option<&'a PodStatus>,
    /// Why containers wait.
    pub reasons: &'a WaitingReasons,
    /// Nothing of the pod will be started again.
    pub terminal: bool,
    /// Phase, reason and message that were decided elsewhere: evicted, deadline exceeded.
    pub verdict: Option<&'a Verdict>,
    /// Addresses of the node, primary first.
    pub host_ips: &'a [IpAddr],
    /// The sandbox is there and needs no replacement.
    pub sandbox_is_good: bool,
    /// What is told of resizes.
    pub resizes: &'a [PodCondition],
    /// Limits in force of the pod's group, where it has one.
    pub group: Option<&'a Limits>,
}

/// A phase that was decided, not computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The kubelet ends the pod for the sake of others, not for its own fault.
    pub disruption: bool,
}

/// Reason of pods that had to leave for a critical one.
pub const PREEMPTING: &str = "Preempting";
/// What the condition of such a pod says, in other words than its status.
const PREEMPTED: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// Generates the status; `probed` fills in what probes know (`started`, `ready`).
#[must_use]
pub fn generate(
    input: &StatusInput<'_>,
    probed: impl FnOnce(&Pod, &mut PodStatus),
    now: Timestamp,
) -> PodStatus {
    let (pod, observed) = (input.pod, input.observed);
    let api = pod.status.clone().unwrap_or_default();
    let old = input.previous.unwrap_or(&api);
    let starts_over = conditions::starts_over(pod, observed, old);
    let empty = Vec::new();
    let convert = |previous: &Option<Vec<ContainerStatus>>, kind| {
        let previous = previous.as_ref().unwrap_or(&empty);
        container_statuses(pod, observed, previous, kind, input.reasons, starts_over)
    };
    let apps = convert(&old.container_statuses, ContainerKind::App);
    let init = convert(&old.init_container_statuses, ContainerKind::Init);
    let ephemeral = convert(&old.ephemeral_container_statuses, ContainerKind::Ephemeral);
    let initialized = app_started_in_sandbox(pod, observed);
    let mut status = PodStatus {
        container_statuses: some(apps),
        init_container_statuses: some(init),
        ephemeral_container_statuses: some(ephemeral),
        qos_class: Some(qos::pod_qos(pod).to_string()),
        observed_generation: pod.metadata.generation,
        resources: Some(super::resources::pod_resources(pod, &api, old, input.group)),
        allocated_resources: super::resources::allocated(pod),
        start_time: old.start_time.clone().or_else(|| api.start_time.clone()).or(Some(api_time(now))),
        ..PodStatus::default()
    };
    // The phase needs to know which sidecars have started, so probes come first.
    probed(pod, &mut status);
    decide_phase(input, &api, old, initialized, &mut status);
    set_conditions(input, old, &api, &mut status, now);
    addresses::set(input, old, &mut status);
    status
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Failed" | "Succeeded"))
}

fn app_started_in_sandbox(pod: &Pod, observed: &types::PodStatus) -> bool {
    let sandbox = observed.sandboxes.first().map(|s| s.id.as_str()).unwrap_or_default();
    types::spec(pod).containers.iter().any(|c| {
        observed.containers_named(&c.name).any(|s| {
            s.sandbox_id == sandbox
                && matches!(s.state, types::ContainerState::Running | types::ContainerState::Exited)
        })
    })
}

fn decide_phase(
    input: &StatusInput<'_>,
    api: &PodStatus,
    old: &PodStatus,
    initialized: bool,
    status: &mut PodStatus,
) {
    let empty = Vec::new();
    let computed = phase(
        input.pod,
        status.init_container_statuses.as_ref().unwrap_or(&empty),
        status.container_statuses.as_ref().unwrap_or(&empty),
        input.terminal,
        initialized,
    );
    let mut chosen = Some(computed.to_owned());
    if !is_terminal(chosen.as_deref()) {
        // What was terminal stays so.
        if is_terminal(old.phase.as_deref()) {
            chosen.clone_from(&old.phase);
        } else if is_terminal(api.phase.as_deref()) {
            chosen.clone_from(&api.phase);
        }
    }
    if chosen == old.phase {
        status.reason = old.reason.clone().or_else(|| api.reason.clone());
        status.message = old.message.clone().or_else(|| api.message.clone());
    }
    if let Some(verdict) = input.verdict {
        chosen = Some("Failed".to_owned());
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
    if is_terminal(api.phase.as_deref()) {
        chosen.clone_from(&api.phase);
    }
    status.phase = chosen;
}

fn set_conditions(
    input: &StatusInput<'_>,
    old: &PodStatus,
    api: &PodStatus,
    status: &mut PodStatus,
    now: Timestamp,
) {
    let pod = input.pod;
    let phase = status.phase.clone().unwrap_or_default();
    let statuses: Vec<ContainerStatus> =
        status.init_container_statuses.iter().chain(&status.container_statuses).flatten().cloned().collect();
    let others: Vec<PodCondition> = api
        .conditions
        .iter()
        .flatten()
        .filter(|c| !conditions::OWNED.contains(&c.type_.as_str()) && c.type_ != "DisruptionTarget")
        .cloned()
        .collect();
    // A disruption is noted once and kept.
    let disruption =
        old.conditions.iter().chain(&api.conditions).flatten().find(|c| c.type_ == "DisruptionTarget");
    let disruption = disruption.cloned().or_else(|| {
        let verdict = input.verdict.filter(|verdict| verdict.disruption)?;
        Some(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(if verdict.reason == PREEMPTING {
                PREEMPTED.to_owned()
            } else {
                verdict.message.clone()
            }),
            observed_generation: pod.metadata.generation,
            last_transition_time: Some(api_time(now)),
            last_probe_time: None,
        })
    });
    let mut owned = vec![
        conditions::ready_to_start(pod, input.sandbox_is_good),
        conditions::initialized(pod, &statuses, &phase),
        conditions::ready(pod, &others, &statuses, &phase),
        conditions::containers_ready(pod, &statuses, &phase),
        conditions::scheduled(pod),
    ];
    if may_restart_all(types::spec(pod)) {
        owned.push(conditions::all_restarting(pod, input.observed, old, &phase));
    }
    for condition in &mut owned {
        let find = |from: &PodStatus| {
            let same = from
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == condition.type_ && c.status == condition.status);
            same.and_then(|c| c.last_transition_time.clone())
        };
        condition.last_transition_time = find(old).or_else(|| find(api)).or(Some(api_time(now)));
    }
    let resizes = input.resizes.iter().cloned();
    status.conditions = Some(others.into_iter().chain(resizes).chain(disruption).chain(owned).collect());
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
