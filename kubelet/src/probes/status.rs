//! `started` and `ready` of containers, from what probes found.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use super::worker::RESTART_GRACE;
use super::{ProbeKind, ProbeManager};
use crate::types;

/// As upstream's UpdatePodStatus.
pub fn update(probes: &ProbeManager, pod: &Pod, status: &mut PodStatus) {
    let spec = types::spec(pod);
    for container in status.container_statuses.iter_mut().flatten() {
        let declared = spec.containers.iter().find(|declared| declared.name == container.name);
        judge(probes, pod, declared, container);
    }
    for container in status.init_container_statuses.iter_mut().flatten() {
        let declared = types::init_containers(spec).iter().find(|declared| declared.name == container.name);
        if declared.is_some_and(types::is_restartable_init) {
            judge(probes, pod, declared, container);
            continue;
        }
        container.started = Some(is_started(probes, pod, container));
        let state = container.state.as_ref();
        if state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0) {
            container.ready = true;
        }
    }
}

fn judge(probes: &ProbeManager, pod: &Pod, declared: Option<&Container>, container: &mut ContainerStatus) {
    let started = is_started(probes, pod, container);
    container.started = Some(started);
    if started {
        container.ready = is_ready(probes, pod, declared, container);
    }
}

fn is_running(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn ran_before(probes: &ProbeManager, container: &ContainerStatus) -> bool {
    let running = container.state.as_ref().and_then(|state| state.running.as_ref());
    let started_at = running.and_then(|running| running.started_at.as_ref());
    started_at.is_some_and(|time| time.0 < probes.shared.start - RESTART_GRACE)
}

fn is_started(probes: &ProbeManager, pod: &Pod, container: &ContainerStatus) -> bool {
    if !is_running(container) {
        return false;
    }
    let id = container.container_id.as_deref().unwrap_or_default();
    if probes.shared.results.knows(id, ProbeKind::Startup) {
        return probes.result(id, ProbeKind::Startup) == Some(true);
    }
    if ran_before(probes, container) && container.started == Some(true) {
        return true;
    }
    // A startup probe that has not looked yet: the container is not started.
    let uid = types::uid(pod);
    let probed = probes.has_worker(uid, &container.name, ProbeKind::Startup);
    if probed {
        probes.trigger(uid, &container.name, ProbeKind::Startup);
    }
    !probed
}

fn is_ready(
    probes: &ProbeManager,
    pod: &Pod,
    declared: Option<&Container>,
    container: &ContainerStatus,
) -> bool {
    if !is_running(container) {
        return false;
    }
    let id = container.container_id.as_deref().unwrap_or_default();
    if probes.result(id, ProbeKind::Readiness) == Some(true) {
        return true;
    }
    let uid = types::uid(pod);
    let probed = probes.has_worker(uid, &container.name, ProbeKind::Readiness);
    if probed {
        probes.trigger(uid, &container.name, ProbeKind::Readiness);
    }
    if !ran_before(probes, container) || declared.is_none() {
        return !probed;
    }
    let unknown = !probes.shared.results.knows(id, ProbeKind::Readiness);
    let was_ready =
        pod.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
    let has_probe = declared.is_some_and(|declared| declared.readiness_probe.is_some());
    (!probed || unknown) && (!has_probe || was_ready)
}
