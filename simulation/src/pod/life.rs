//! The runtime that is not there: what it would show of a pod's containers, as a function of what the pod's status
//! shows already and the time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus,
};
use kubelet::sync::restart::restarts_after;
use kubelet::types::{self, ContainerId, ContainerState, SandboxStatus};

use super::Run;

/// A container that is started again waits this long, doubled each time, up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// A container that ran for this long begins anew with the waits.
const GOOD_RUN: Duration = Duration::from_secs(600);
/// What a process that a signal ended (SIGTERM) exits with.
const TERMINATED: i32 = 128 + 15;

/// An end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When it had started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// What it exited with.
    pub code: i32,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Never started.
    Absent,
    /// Runs since then.
    Running(Timestamp),
    /// Does not run, and may be started again.
    Ended(End),
}

/// A container on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// Where it stands.
    pub stage: Stage,
    /// How often it was started again.
    pub restarts: i32,
    /// The end before this stage, if it came about just now.
    pub before: Option<End>,
    /// When it goes on by itself.
    pub next: Option<Timestamp>,
}

/// What all containers of a pod do.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// What the runtime shows.
    pub observed: types::PodStatus,
    /// When something happens by itself.
    pub next: Option<Timestamp>,
    /// Nothing runs or will run again.
    pub over: bool,
    /// Containers that wait to be started again, and how long in all.
    pub waiting: Vec<(String, Duration)>,
}

/// Reads where a container stands from what is told of it.
#[must_use]
pub fn told(status: Option<&ContainerStatus>) -> Course {
    let restarts = status.map_or(0, |status| status.restart_count);
    let state = status.and_then(|status| status.state.as_ref());
    let last = status.and_then(|status| status.last_state.as_ref());
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    };
    let end = |t: &ContainerStateTerminated| End {
        started: time(&t.started_at),
        finished: time(&t.finished_at),
        code: t.exit_code,
    };
    let running = state.and_then(|state| state.running.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    let waits = state.is_some_and(|state| state.waiting.is_some());
    let ended = ended.or_else(|| last.filter(|_| waits)?.terminated.as_ref());
    let stage = match (running, ended) {
        (Some(running), _) => Stage::Running(time(&running.started_at)),
        (None, Some(ended)) => Stage::Ended(end(ended)),
        (None, None) => Stage::Absent,
    };
    Course { stage, restarts, before: None, next: None }
}

impl Course {
    /// Goes on to `now`, from one stage to the next as often as its time has come.
    #[must_use]
    pub fn advanced(
        mut self,
        container: &Container,
        spec: &PodSpec,
        run: Option<Run>,
        now: Timestamp,
    ) -> Self {
        loop {
            let due = match (self.stage, run) {
                (Stage::Absent, _) => now,
                (Stage::Running(since), Some(run)) => later(since, run.duration),
                (Stage::Ended(end), _) if restarts_after(container, spec, end.code) => {
                    later(end.finished, backoff(self.restarts, &end))
                }
                _ => return self,
            };
            if due > now {
                return Self { next: Some(due), ..self };
            }
            self = self.stepped(due, run.map_or(0, |run| run.code));
        }
    }

    fn stepped(self, at: Timestamp, code: i32) -> Self {
        match self.stage {
            Stage::Absent => Self { stage: Stage::Running(at), ..self },
            Stage::Running(started) => {
                Self { stage: Stage::Ended(End { started, finished: at, code }), ..self }
            }
            Stage::Ended(end) => Self {
                stage: Stage::Running(at),
                restarts: self.restarts.saturating_add(1),
                before: Some(end),
                next: None,
            },
        }
    }

    /// What became of it when it was told to stop.
    fn stopped(self, now: Timestamp) -> Self {
        match self.stage {
            Stage::Running(_) => self.stepped(now, TERMINATED),
            _ => self,
        }
    }
}

/// How long a container that ended waits, the first time not at all.
fn backoff(restarts: i32, end: &End) -> Duration {
    let ran = Duration::try_from(end.finished.duration_since(end.started)).unwrap_or_default();
    match u32::try_from(restarts) {
        Ok(restarts @ 1..) if ran < GOOD_RUN => {
            FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(restarts - 1)).min(LONGEST_BACKOFF)
        }
        _ => Duration::ZERO,
    }
}

fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// The life of a pod up to `now`; `stopped`: its containers were told to stop. Init containers have done their work at
/// once, sidecars stop when all else has ended.
#[must_use]
pub fn life(pod: &Pod, run: Option<Run>, stopped: bool, now: Timestamp) -> Life {
    let spec = types::spec(pod);
    let status = pod.status.clone().unwrap_or_default();
    let mut life = Life { over: true, ..Life::default() };
    let mut last_end = Timestamp::UNIX_EPOCH;
    let mut sandbox = Vec::new();
    for container in &spec.containers {
        let course = told(find(&status, &container.name));
        let course = if stopped { course.stopped(now) } else { course.advanced(container, spec, run, now) };
        match course.stage {
            Stage::Ended(end) if stopped || !restarts_after(container, spec, end.code) => {
                last_end = last_end.max(end.finished);
            }
            Stage::Absent if stopped => {}
            Stage::Ended(end) => {
                life.over = false;
                life.waiting.push((container.name.clone(), backoff(course.restarts, &end)));
            }
            _ => life.over = false,
        }
        life.next = [life.next, course.next].into_iter().flatten().min();
        show(pod, container, &course, &mut sandbox);
    }
    for container in types::init_containers(spec) {
        let course = told(find(&status, &container.name));
        let course = match types::is_restartable_init(container) {
            true if stopped => course.stopped(now),
            true if life.over => course.advanced(container, spec, None, now).stepped_down(last_end),
            true => course.advanced(container, spec, None, now),
            false if stopped => course,
            false => course.done_at_once(now),
        };
        show(pod, container, &course, &mut sandbox);
    }
    for container in types::ephemeral_containers(spec).iter().map(types::as_container) {
        let course = told(find(&status, &container.name));
        let course = if stopped || life.over {
            course.stopped(now)
        } else {
            course.advanced(&container, spec, None, now)
        };
        show(pod, &container, &course, &mut sandbox);
    }
    life.observed = types::PodStatus {
        uid: types::uid(pod).to_owned(),
        name: types::name(pod).to_owned(),
        namespace: types::namespace(pod).to_owned(),
        sandboxes: vec![SandboxStatus { id: sandbox_id(pod), ready: !life.over, ..SandboxStatus::default() }],
        containers: sandbox,
        ..types::PodStatus::default()
    };
    life
}

impl Course {
    /// An init container does its work, once, in no time.
    fn done_at_once(self, now: Timestamp) -> Self {
        match self.stage {
            Stage::Absent => self.stepped(now, 0).stepped(now, 0),
            _ => self,
        }
    }

    /// A sidecar after all others have ended: it stops, and that is no fault.
    fn stepped_down(self, at: Timestamp) -> Self {
        match self.stage {
            Stage::Running(since) => self.stepped(at.max(since), 0),
            _ => self,
        }
    }
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

fn sandbox_id(pod: &Pod) -> String {
    format!("{}-sandbox", types::uid(pod))
}

/// Adds what the runtime shows of a container, newest first.
fn show(pod: &Pod, container: &Container, course: &Course, all: &mut Vec<types::ContainerStatus>) {
    let image = container.image.clone().unwrap_or_default();
    let record = |restarts: i32| types::ContainerStatus {
        id: ContainerId::new("simulated", format!("{}-{}-{restarts}", types::uid(pod), container.name)),
        name: container.name.clone(),
        image: image.clone(),
        image_id: image.clone(),
        restart_count: restarts,
        sandbox_id: sandbox_id(pod),
        ..types::ContainerStatus::default()
    };
    let ended = |end: &End, restarts: i32| types::ContainerStatus {
        state: ContainerState::Exited,
        started_at: Some(end.started),
        finished_at: Some(end.finished),
        exit_code: end.code,
        reason: if end.code == 0 { "Completed" } else { "Error" }.to_owned(),
        ..record(restarts)
    };
    match &course.stage {
        Stage::Absent => {}
        Stage::Running(since) => all.push(types::ContainerStatus {
            state: ContainerState::Running,
            started_at: Some(*since),
            ..record(course.restarts)
        }),
        Stage::Ended(end) => all.push(ended(end, course.restarts)),
    }
    if let Some(before) = &course.before {
        all.push(ended(before, course.restarts - 1));
    }
}
