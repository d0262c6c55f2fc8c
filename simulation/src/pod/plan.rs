//! What a pod needs next. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kubelet::duration::GoDuration;
use kubelet::status::conditions::OWNED;
use kubelet::status::terminate::terminate;
use kubelet::status::{StatusInput, Verdict, generate};
use kubelet::sync::reasons::WaitingReasons;
use kubelet::types;

use super::life::{Life, Stage, life, told};
use super::{Durations, Place, Run, is_terminal};

/// How long the API server may take to remove a pod that is deleted without any grace period.
const OTHERS: Duration = Duration::from_secs(2);

/// What is to be done about a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Nothing, until somebody changes it.
    Rest,
    /// Nothing before that time.
    Later(Timestamp),
    /// Its status is to be written.
    Report(Box<PodStatus>),
    /// It has stopped, and is to go. Where something keeps it from going, what became of it is to be written before:
    /// the status, whoever waits with a finalizer wants to know it.
    Remove {
        /// The last status.
        last: Option<Box<PodStatus>>,
    },
}

/// Whether addresses of its own are needed to go on with a pod.
#[must_use]
pub fn needs_addresses(pod: &Pod) -> bool {
    !types::host_network(pod) && !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Decides what `pod` needs at `now`.
#[must_use]
pub fn plan(pod: &Pod, place: &Place, durations: &Durations, now: Timestamp) -> Plan {
    if pod.metadata.deletion_timestamp.is_some() {
        return leave(pod, place, durations, now);
    }
    if is_terminal(pod) {
        return Plan::Rest;
    }
    let starts = starts_at(pod, durations.start);
    if starts > now {
        let status = status(pod, place, &Life::default(), None, now);
        return if says(pod, &status) { Plan::Later(starts) } else { Plan::Report(status.into()) };
    }
    let (deadline, verdict) = deadline(pod, now);
    let mut life = life(pod, Run::of(pod, durations.run), verdict.is_some(), now);
    life.over |= verdict.is_some();
    let status = status(pod, place, &life, verdict.as_ref(), now);
    if !says(pod, &status) {
        return Plan::Report(status.into());
    }
    [life.next, deadline].into_iter().flatten().min().map_or(Plan::Rest, Plan::Later)
}

/// The end of a pod that is deleted.
fn leave(pod: &Pod, place: &Place, durations: &Durations, now: Timestamp) -> Plan {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    let told_at = pod.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let told_at = told_at.checked_sub(grace).unwrap_or(told_at);
    let takes =
        if has_started(pod) && !is_terminal(pod) { durations.stop.min(grace) } else { Duration::ZERO };
    let stops = told_at.checked_add(takes).unwrap_or(now);
    if stops > now {
        return Plan::Later(stops);
    }
    let is_held = pod.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty());
    let last = (is_held && !is_terminal(pod)).then(|| {
        let mut life = life(pod, None, true, now);
        life.over = true;
        Box::new(terminate(pod, status(pod, place, &life, None, now)))
    });
    let others_until = told_at.checked_add(OTHERS).unwrap_or(now);
    match (grace.is_zero(), last) {
        // It was removed already, as far as it is on the node.
        (true, Some(last)) => Plan::Report(last),
        (true, None) if is_held => Plan::Rest,
        // Whoever wants it gone at once is about to remove it.
        (true, None) if others_until > now => Plan::Later(others_until),
        (_, last) => Plan::Remove { last },
    }
}

fn has_started(pod: &Pod) -> bool {
    let statuses = pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
    statuses.map(|status| told(Some(status))).any(|course| course.stage != Stage::Absent)
}

/// When the containers of a pod run that was bound when its status says.
fn starts_at(pod: &Pod, takes: Duration) -> Timestamp {
    if takes.is_zero() || has_started(pod) {
        return Timestamp::MIN;
    }
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let bound =
        conditions.filter(|c| c.type_ == "PodScheduled").find_map(|c| c.last_transition_time.as_ref());
    let bound = bound.or(pod.metadata.creation_timestamp.as_ref());
    bound.and_then(|time| time.0.checked_add(takes).ok()).unwrap_or(Timestamp::MIN)
}

/// When a pod has run for as long as it may, and what is said of it once it has.
fn deadline(pod: &Pod, now: Timestamp) -> (Option<Timestamp>, Option<Verdict>) {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(seconds), Some(started)) = (types::spec(pod).active_deadline_seconds, started) else {
        return (None, None);
    };
    let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    match started.0.checked_add(limit) {
        Ok(at) if at <= now => {
            let verdict = Verdict {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
                disruption: false,
            };
            (None, Some(verdict))
        }
        at => (at.ok(), None),
    }
}

/// The status that a kubelet makes of all this.
fn status(pod: &Pod, place: &Place, life: &Life, verdict: Option<&Verdict>, now: Timestamp) -> PodStatus {
    let mut observed = life.observed.clone();
    let is_good = observed.sandboxes.iter().any(|sandbox| sandbox.ready) && !life.over;
    for sandbox in &mut observed.sandboxes {
        sandbox.ready = is_good;
    }
    if is_good && !types::host_network(pod) {
        observed.ips = addresses(pod, place);
    }
    let reasons = WaitingReasons::default();
    for (container, wait) in &life.waiting {
        let text = format!(
            "back-off {} restarting failed container={container} pod={}",
            GoDuration(*wait),
            types::format_pod(pod)
        );
        reasons.set(types::uid(pod), container, "CrashLoopBackOff", &text);
    }
    let input = StatusInput {
        pod,
        observed: &observed,
        previous: None,
        reasons: &reasons,
        terminal: life.over,
        verdict,
        host_ips: &place.node,
        sandbox_is_good: is_good,
        resizes: &[],
        group: None,
    };
    generate(&input, all_is_well, now)
}

/// The addresses it has, else those there are for it.
fn addresses(pod: &Pod, place: &Place) -> Vec<String> {
    let has: Vec<_> =
        pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|ip| ip.ip.clone()).collect();
    if has.is_empty() { place.pod.iter().map(IpAddr::to_string).collect() } else { has }
}

/// What probes would say: what runs is well.
fn all_is_well(pod: &Pod, status: &mut PodStatus) {
    let judge = |status: &mut ContainerStatus| {
        let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
        status.started = Some(runs);
        status.ready = runs;
    };
    status.container_statuses.iter_mut().flatten().for_each(judge);
    for init in status.init_container_statuses.iter_mut().flatten() {
        let declared = types::init_containers(types::spec(pod)).iter().find(|c| c.name == init.name);
        judge(init);
        if !declared.is_some_and(types::is_restartable_init) {
            let ended = init.state.as_ref().and_then(|state| state.terminated.as_ref());
            init.ready = ended.is_some_and(|ended| ended.exit_code == 0);
        }
    }
}

/// What a status says, as far as it is worth a request to say it.
#[derive(PartialEq)]
struct Words<'a> {
    phase: Option<&'a str>,
    reason: Option<&'a str>,
    address: Option<&'a str>,
    generation: Option<i64>,
    conditions: BTreeSet<(&'a str, &'a str, Option<&'a str>)>,
    containers: Vec<(&'a str, bool, i32, &'static str)>,
}

impl<'a> Words<'a> {
    fn of(status: &'a PodStatus) -> Self {
        let conditions = status.conditions.iter().flatten().filter(|c| OWNED.contains(&c.type_.as_str()));
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let container = |s: &'a ContainerStatus| {
            let state = match &s.state {
                Some(state) if state.running.is_some() => "running",
                Some(state) if state.terminated.is_some() => "terminated",
                _ => "waiting",
            };
            (s.name.as_str(), s.ready, s.restart_count, state)
        };
        Self {
            phase: status.phase.as_deref(),
            reason: status.reason.as_deref(),
            address: status.pod_ip.as_deref(),
            generation: status.observed_generation,
            conditions: conditions
                .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref()))
                .collect(),
            containers: lists.into_iter().flatten().flatten().map(container).collect(),
        }
    }
}

fn says(pod: &Pod, status: &PodStatus) -> bool {
    pod.status.as_ref().is_some_and(|said| Words::of(said) == Words::of(status))
}
