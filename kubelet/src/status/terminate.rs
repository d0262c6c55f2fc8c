//! The last status of a pod: nothing of it runs, so no container may look as if it did. Pure.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

use crate::pods::{is_mirror, is_static};
use crate::types;

/// As upstream's `TerminatePod`: containers that should have ended count as lost, and the phase becomes terminal.
#[must_use]
pub fn terminate(pod: &Pod, mut status: PodStatus) -> PodStatus {
    let initialized = types::init_containers(types::spec(pod)).is_empty()
        || status.container_statuses.iter().flatten().any(has_run)
        || status.conditions.iter().flatten().any(|c| c.type_ == "Initialized" && c.status == "True");
    if initialized {
        status.container_statuses.iter_mut().flatten().for_each(end);
    }
    end_init_containers(&mut status);
    if !is_static(pod) && !is_mirror(pod) && !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
    {
        status.phase = Some("Failed".to_owned());
    }
    status
}

/// Init containers before the last that ran must have ended; those after it never started.
fn end_init_containers(status: &mut PodStatus) {
    let Some(list) = status.init_container_statuses.as_mut() else { return };
    let Some(last) = list.iter().rposition(has_run) else { return };
    list[..=last].iter_mut().for_each(end);
}

fn has_run(status: &ContainerStatus) -> bool {
    let ended = |s: &Option<ContainerState>| {
        s.as_ref().is_some_and(|s| s.terminated.is_some() || s.running.is_some())
    };
    ended(&status.state) || ended(&status.last_state)
}

fn end(status: &mut ContainerStatus) {
    if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        return;
    }
    status.state = Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            exit_code: 137,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    });
    status.ready = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(spec: &str, status: &str) -> String {
        let pod: Pod = serde_saphyr::from_str(&format!("spec: {spec}")).expect("valid pod");
        let ended = terminate(&pod, serde_saphyr::from_str(status).expect("valid status"));
        let code = |s: &ContainerStatus| match s.state.as_ref().and_then(|s| s.terminated.as_ref()) {
            Some(t) => format!("{}={}", s.name, t.exit_code),
            None => format!("{}=-", s.name),
        };
        let all = ended.init_container_statuses.iter().chain(&ended.container_statuses).flatten().map(code);
        format!("{} {}", ended.phase.clone().unwrap_or_default(), all.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn nothing_looks_alive() {
        let running = "{running: {}}";
        let waiting = "{waiting: {}}";
        let done = "{terminated: {exitCode: 0}}";
        let c = |name: &str, state: &str| {
            format!("{{name: {name}, image: i, imageID: i, ready: false, restartCount: 0, state: {state}}}")
        };
        let plain = "{containers: [{name: a}]}";
        let init = "{initContainers: [{name: i}, {name: j}], containers: [{name: a}]}";
        let cases = [
            (plain, format!("{{phase: Running, containerStatuses: [{}]}}", c("a", running)), "Failed a=137"),
            (plain, format!("{{phase: Succeeded, containerStatuses: [{}]}}", c("a", done)), "Succeeded a=0"),
            (plain, format!("{{phase: Pending, containerStatuses: [{}]}}", c("a", waiting)), "Failed a=137"),
            (
                init,
                format!(
                    "{{phase: Pending, initContainerStatuses: [{}, {}], containerStatuses: [{}]}}",
                    c("i", running),
                    c("j", waiting),
                    c("a", waiting)
                ),
                "Failed i=137 j=- a=-",
            ),
        ];
        for (spec, status, expected) in cases {
            assert_eq!(summary(spec, &status), expected, "{status}");
        }
    }
}
