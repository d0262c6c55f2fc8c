//! The phase of a pod. Pure; as upstream's `getPhase`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::containers::{STARTED_OVER, by_name};
use crate::sync::restart::restarts_after;
use crate::types;

#[derive(Debug, Default)]
struct Count {
    pending_init: u32,
    pending_sidecars: u32,
    init_failed_for_good: u32,
    unknown: u32,
    running: u32,
    waiting: u32,
    stopped: u32,
    stopped_for_good: u32,
    succeeded: u32,
}

/// Computes the phase from container statuses. `terminal`: nothing of the pod will be started again;
/// `initialized`: an app container of the present sandbox has started.
#[must_use]
pub fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
    terminal: bool,
    initialized: bool,
) -> &'static str {
    let count = count(pod, &by_name(init), &by_name(apps));
    if count.init_failed_for_good > 0 {
        return "Failed";
    }
    if count.pending_init > 0 || (count.pending_sidecars > 0 && !initialized) || count.waiting > 0 {
        return "Pending";
    }
    if count.unknown > 0 {
        return "Pending";
    }
    if count.running > 0 {
        return "Running";
    }
    if count.stopped == 0 {
        return "Pending";
    }
    let ended = if count.stopped == count.succeeded { "Succeeded" } else { "Failed" };
    let is_static = types::annotation(pod, "kubernetes.io/config.source").is_some_and(|s| s != "api");
    if terminal && !is_static {
        return ended;
    }
    if count.stopped != count.stopped_for_good { "Running" } else { ended }
}

/// The container was removed because its pod starts over.
fn started_over(status: &ContainerStatus) -> bool {
    let of =
        |state: &Option<ContainerState>| state.as_ref().and_then(|s| s.terminated.as_ref()?.reason.clone());
    of(&status.state).or_else(|| of(&status.last_state)).as_deref() == Some(STARTED_OVER)
}

type Statuses<'a> = BTreeMap<&'a str, &'a ContainerStatus>;

fn count(pod: &Pod, init: &Statuses<'_>, apps: &Statuses<'_>) -> Count {
    let spec = types::spec(pod);
    let mut count = Count::default();
    for container in types::init_containers(spec) {
        let status = init.get(container.name.as_str()).copied();
        if types::is_restartable_init(container) {
            count_sidecar(status, &mut count);
            continue;
        }
        match status.map(ended_code) {
            Some(Ended::Now(code) | Ended::Before(code)) => {
                if code != 0 && !status.is_some_and(started_over) && !restarts_after(container, spec, code) {
                    count.init_failed_for_good += 1;
                }
            }
            _ => count.pending_init += 1,
        }
    }
    for container in &spec.containers {
        let Some(status) = apps.get(container.name.as_str()) else {
            count.unknown += 1;
            continue;
        };
        match ended_code(status) {
            Ended::Running => count.running += 1,
            Ended::Waiting => count.waiting += 1,
            Ended::Unknown => count.unknown += 1,
            Ended::Now(code) => {
                count.stopped += 1;
                let again = started_over(status) || restarts_after(container, spec, code);
                count.stopped_for_good += u32::from(!again);
                count.succeeded += u32::from(code == 0);
            }
            Ended::Before(code) => {
                count.stopped += 1;
                let again = started_over(status) || restarts_after(container, spec, code);
                count.stopped_for_good += u32::from(!again);
            }
        }
    }
    count
}

fn count_sidecar(status: Option<&ContainerStatus>, count: &mut Count) {
    let Some(status) = status else {
        count.unknown += 1;
        return;
    };
    match ended_code(status) {
        Ended::Running => {
            count.pending_sidecars += u32::from(status.started != Some(true));
            count.running += 1;
        }
        Ended::Waiting => {
            count.pending_sidecars += 1;
            count.waiting += 1;
        }
        Ended::Unknown => {
            count.pending_sidecars += 1;
            count.unknown += 1;
        }
        // Sidecars that ended count for nothing.
        Ended::Now(_) | Ended::Before(_) => {}
    }
}

/// Where a container stands.
enum Ended {
    Running,
    /// Ended, with this code.
    Now(i32),
    /// Waits to be started again; ended before with this code.
    Before(i32),
    Waiting,
    Unknown,
}

fn ended_code(status: &ContainerStatus) -> Ended {
    let Some(state) = &status.state else { return Ended::Unknown };
    let last = status.last_state.as_ref().and_then(|l| l.terminated.as_ref());
    match (&state.running, &state.terminated, &state.waiting) {
        (Some(_), _, _) => Ended::Running,
        (_, Some(terminated), _) => Ended::Now(terminated.exit_code),
        (_, _, Some(_)) => last.map_or(Ended::Waiting, |t| Ended::Before(t.exit_code)),
        _ => Ended::Unknown,
    }
}
