//! Container statuses as the API shows them, from what the runtime shows and what was shown before.
//!
//! Pure. Mechanism as upstream's `convertToAPIContainerStatuses`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, Pod, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::allocation::sizes::{InForce, shown_before};
use crate::sync::reasons::WaitingReasons;
use crate::sync::restart::should_start;
use crate::types::{self, ContainerKind, ContainerState as Observed, PodStatus};

const CREATING: &str = "ContainerCreating";
const INITIALIZING: &str = "PodInitializing";
const UNKNOWN: &str = "ContainerStatusUnknown";
/// Reason of containers that were removed because their pod starts over.
pub const STARTED_OVER: &str = "RestartingAllContainers";

/// Builds the statuses of one list of the pod's spec.
#[must_use]
pub fn container_statuses(
    pod: &Pod,
    observed: &PodStatus,
    previous: &[ContainerStatus],
    kind: ContainerKind,
    reasons: &WaitingReasons,
    starts_over: bool,
) -> Vec<ContainerStatus> {
    let spec = types::spec(pod);
    let containers: Vec<Container> = match kind {
        ContainerKind::Init => types::init_containers(spec).to_vec(),
        ContainerKind::App => spec.containers.clone(),
        ContainerKind::Ephemeral => {
            types::ephemeral_containers(spec).iter().map(types::as_container).collect()
        }
    };
    let mut all: Vec<ContainerStatus> = containers
        .iter()
        .map(|container| {
            let old = previous.iter().find(|s| s.name == container.name);
            let mut status = from_observed(pod, container, observed, old).unwrap_or_else(|| {
                let old_state = old.and_then(|o| o.state.as_ref());
                match old.filter(|_| starts_over && old_state.is_some_and(|s| s.waiting.is_none())) {
                    Some(old) => removed(pod, container, old),
                    None => unseen(pod, container, old),
                }
            });
            explain_waiting(pod, container, observed, kind, reasons, &mut status);
            status
        })
        .collect();
    if kind != ContainerKind::Init {
        // Upstream sorts by name; only init containers keep the order of the spec.
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    all
}

fn default_waiting(pod: &Pod) -> ContainerState {
    let initializing = !types::init_containers(types::spec(pod)).is_empty();
    waiting(if initializing { INITIALIZING } else { CREATING }, "")
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let waiting = ContainerStateWaiting { reason: text(reason), message: text(message) };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

/// The status of a container of which the runtime shows nothing.
fn unseen(pod: &Pod, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    let default = default_waiting(pod);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(default),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    let was = old.state.clone().unwrap_or_default();
    if was.terminated.is_some() {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state.clone_from(&old.last_state);
    let has_last = status.last_state.as_ref().is_some_and(|l| l.terminated.is_some());
    if was.running.is_some() && !has_last {
        // It ran and is gone: it ended, though nobody saw how.
        let text =
            "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(lost(text));
        if pod.metadata.deletion_timestamp.is_none() {
            status.restart_count += 1;
        }
    }
    status
}

/// The status of a container that was removed because its pod starts over.
fn removed(pod: &Pod, container: &Container, old: &ContainerStatus) -> ContainerStatus {
    const MESSAGE: &str = "The container is removed because RestartAllContainers in place";
    let mut last = lost(MESSAGE);
    if let Some(terminated) = &mut last.terminated {
        terminated.reason = Some(STARTED_OVER.to_owned());
    }
    ContainerStatus {
        state: Some(waiting(STARTED_OVER, MESSAGE)),
        last_state: Some(last),
        restart_count: old.restart_count + 1,
        ..unseen(pod, container, None)
    }
}

fn lost(message: &str) -> ContainerState {
    let terminated = ContainerStateTerminated {
        reason: Some(UNKNOWN.to_owned()),
        message: Some(message.to_owned()),
        exit_code: 137,
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// The status from the newest record of a container and the one before it.
fn from_observed(
    pod: &Pod,
    container: &Container,
    observed: &PodStatus,
    old: Option<&ContainerStatus>,
) -> Option<ContainerStatus> {
    let mut records = observed.containers_named(&container.name);
    let newest = records.next()?;
    let mut status = convert(container, newest, old);
    if newest.state == Observed::Running {
        let told = observed.actuated.containers.get(&container.name);
        let before = shown_before(old, &newest.id.to_string());
        status.resources = Some(
            InForce::of_container(newest.resources.as_ref(), told)
                .shown(container.resources.as_ref(), before),
        );
    }
    if let Some(before) = records.next() {
        status.last_state = convert(container, before, None).state;
    }
    if status.last_state.is_none() {
        // The runtime has collected the record; what was published stays true.
        status.last_state = old.and_then(|o| inherited_last_state(o, &status));
    }
    if status.state.as_ref().is_some_and(|s| s.waiting.is_some())
        && types::init_containers(types::spec(pod)).is_empty()
    {
        status.started = Some(false);
    }
    Some(status)
}

fn inherited_last_state(old: &ContainerStatus, new: &ContainerStatus) -> Option<ContainerState> {
    let ended = |state: &Option<ContainerState>| state.clone().filter(|s| s.terminated.is_some());
    if old.container_id != new.container_id && old.container_id.is_some() {
        ended(&old.state).or_else(|| ended(&old.last_state))
    } else {
        ended(&old.last_state)
    }
}

fn convert(
    container: &Container,
    record: &types::ContainerStatus,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id = record.id.to_string();
    let mut status = ContainerStatus {
        name: record.name.clone(),
        // A runtime whose records were removed counts anew.
        restart_count: old.map_or(0, |o| o.restart_count).max(record.restart_count),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        container_id: Some(id.clone()),
        volume_mounts: old.map_or_else(|| volume_mounts(container), |o| o.volume_mounts.clone()),
        resources: Some(container.resources.clone().unwrap_or_default()),
        allocated_resources: container.resources.as_ref().and_then(|r| r.requests.clone()),
        stop_signal: record.stop_signal.clone(),
        user: record.user.as_ref().map(|u| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: u.uid,
                gid: u.gid,
                supplemental_groups: (!u.supplemental_groups.is_empty())
                    .then(|| u.supplemental_groups.clone()),
            }),
        }),
        ..ContainerStatus::default()
    };
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let state = match record.state {
        Observed::Running => {
            // What was ready before a restart of this program stays so until a probe says otherwise.
            status.started = old.filter(|o| o.container_id.as_deref() == Some(&id)).and_then(|o| o.started);
            let running = ContainerStateRunning { started_at: record.started_at.map(api_time) };
            ContainerState { running: Some(running), ..ContainerState::default() }
        }
        Observed::Exited => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: record.exit_code,
                reason: text(&record.reason),
                message: text(&record.message),
                started_at: record.started_at.map(api_time),
                finished_at: record.finished_at.map(api_time),
                container_id: Some(id),
                signal: None,
            }),
            ..ContainerState::default()
        },
        Observed::Unknown if old.and_then(|o| o.state.as_ref()).is_some_and(|s| s.running.is_some()) => {
            status.restart_count = old.map_or(0, |o| o.restart_count) + 1;
            lost("The container could not be located when the pod was terminated")
        }
        Observed::Created | Observed::Unknown => waiting("", ""),
    };
    status.state = Some(state);
    status
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|m| !m.is_empty())?;
    let status = |m: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = m.read_only.unwrap_or_default();
        VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    Some(mounts.iter().map(status).collect())
}

/// A container that will be started again waits, and the last attempt knows why.
fn explain_waiting(
    pod: &Pod,
    container: &Container,
    observed: &PodStatus,
    kind: ContainerKind,
    reasons: &WaitingReasons,
    status: &mut ContainerStatus,
) {
    if kind == ContainerKind::Init {
        let record = observed.container(&container.name);
        if record.is_some_and(|r| r.state == Observed::Exited && r.exit_code == 0)
            && !types::is_restartable_init(container)
        {
            return;
        }
        let waits = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
        let passed = types::spec(pod).containers.iter().any(|c| observed.container(&c.name).is_some());
        if record.is_none() && passed && waits && !types::is_restartable_init(container) {
            status.state = Some(completed_unseen());
            return;
        }
    }
    if !should_start(container, pod, observed) {
        return;
    }
    let Some((reason, message)) = reasons.find(types::uid(pod), &container.name) else { return };
    if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(&reason, &message));
}

fn completed_unseen() -> ContainerState {
    let text = "Unable to get init container status from container runtime and pod has been initialized, treat it \
                as exited normally";
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("Completed".to_owned()),
            message: Some(text.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// A time as the API keeps it: whole seconds.
#[must_use]
pub fn api_time(time: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// Statuses by container name.
#[must_use]
pub fn by_name(statuses: &[ContainerStatus]) -> BTreeMap<&str, &ContainerStatus> {
    statuses.iter().map(|s| (s.name.as_str(), s)).collect()
}
