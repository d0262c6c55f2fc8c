//! Whether a container that ended is started again.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec};

use crate::types::{self, ContainerState, ContainerStatus, PodStatus};

/// The action of a rule that starts the whole pod over, in its sandbox.
pub const RESTART_ALL: &str = "RestartAllContainers";

/// Whether a container that ended with `exit_code` is to run again, by its own rules, its own policy, the pod's policy.
#[must_use]
pub fn restarts_after(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    if container.restart_policy.is_some() {
        let starts = |rule: &ContainerRestartRule| matches!(rule.action.as_str(), "Restart" | RESTART_ALL);
        if matching_rule(container, exit_code).is_some_and(starts) {
            return true;
        }
        match container.restart_policy.as_deref() {
            Some("Always") => return true,
            Some("OnFailure") => return exit_code != 0,
            Some("Never") => return false,
            _ => {}
        }
    }
    match spec.restart_policy.as_deref() {
        Some("OnFailure") => exit_code != 0,
        Some("Never") => false,
        _ => true,
    }
}

fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    })
}

/// Whether some container of the pod may start the whole pod over.
#[must_use]
pub fn may_restart_all(spec: &PodSpec) -> bool {
    let all = types::init_containers(spec).iter().chain(&spec.containers);
    all.flat_map(|c| c.restart_policy_rules.iter().flatten()).any(|rule| rule.action == RESTART_ALL)
}

/// Whether this container has ended in a way that starts the whole pod over.
fn restarts_all(container: &Container, status: &ContainerStatus) -> bool {
    status.state == ContainerState::Exited
        && matching_rule(container, status.exit_code).is_some_and(|rule| rule.action == RESTART_ALL)
}

/// Every container that has to go because one of them starts the whole pod over; those that do so last, so that one
/// that is interrupted goes on. Nothing when none does.
#[must_use]
pub fn to_reset<'a>(pod: &Pod, status: &'a PodStatus) -> Vec<&'a ContainerStatus> {
    let spec = types::spec(pod);
    if pod.metadata.deletion_timestamp.is_some() || !may_restart_all(spec) {
        return Vec::new();
    }
    let of = |containers: &[Container]| -> (Vec<&'a ContainerStatus>, Vec<&'a ContainerStatus>) {
        let records = containers.iter().flat_map(|c| {
            status.containers.iter().filter(move |s| s.name == c.name).map(move |s| (restarts_all(c, s), s))
        });
        let (sources, others): (Vec<_>, Vec<_>) = records.partition(|(source, _)| *source);
        (sources.into_iter().map(|(_, s)| s).collect(), others.into_iter().map(|(_, s)| s).collect())
    };
    let newest = |c: &Container| status.container(&c.name).is_some_and(|s| restarts_all(c, s));
    if !types::init_containers(spec).iter().chain(&spec.containers).any(newest) {
        return Vec::new();
    }
    let (sources, others) = of(&spec.containers);
    let (init_sources, init_others) = of(types::init_containers(spec));
    [others, init_others, sources, init_sources].concat()
}

/// Whether a container that does not run is to be started.
#[must_use]
pub fn should_start(container: &Container, pod: &Pod, status: &PodStatus) -> bool {
    // A pod being deleted starts nothing again.
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match status.container(&container.name) {
        None => true,
        Some(found) => match found.state {
            ContainerState::Running => false,
            ContainerState::Unknown | ContainerState::Created => true,
            ContainerState::Exited => restarts_after(container, types::spec(pod), found.exit_code),
        },
    }
}

/// Whether a running container that has to be stopped comes back.
#[must_use]
pub fn comes_back(container: &Container, pod: &Pod) -> bool {
    match container.restart_policy.as_deref() {
        Some(policy) => policy != "Never",
        None => pod_restarts_on_failure(pod),
    }
}

/// The pod's policy is not `Never`.
#[must_use]
pub fn pod_restarts_on_failure(pod: &Pod) -> bool {
    types::spec(pod).restart_policy.as_deref() != Some("Never")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_rules() {
        let cases = [
            ("{name: a}", "Always", 0, true),
            ("{name: a}", "OnFailure", 0, false),
            ("{name: a}", "OnFailure", 1, true),
            ("{name: a}", "Never", 1, false),
            ("{name: a, restartPolicy: Never}", "Always", 1, false),
            ("{name: a, restartPolicy: OnFailure}", "Never", 1, true),
            (
                "{name: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}",
                "Never",
                42,
                true,
            ),
            (
                "{name: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}",
                "Always",
                1,
                false,
            ),
            (
                "{name: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [42]}}]}",
                "Never",
                1,
                true,
            ),
        ];
        for (container, policy, code, expected) in cases {
            let container: Container = serde_saphyr::from_str(container).expect("valid");
            let spec = PodSpec { restart_policy: Some(policy.to_owned()), ..PodSpec::default() };
            assert_eq!(restarts_after(&container, &spec, code), expected, "{container:?} {policy} {code}");
        }
    }
}
