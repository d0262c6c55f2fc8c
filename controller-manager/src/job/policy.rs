//! What a failed pod means, and when enough has succeeded: pod failure policy and success policy.

use super::indexes::Indexes;
use crate::common::meta;
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It counts against the limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The job has failed, for this reason.
    FailJob(String),
}

impl Failure {
    /// Whether it counts against the limit.
    pub fn counts(&self) -> bool {
        *self != Self::Ignore
    }
}

/// Judges a failed pod: the first rule that matches decides.
pub fn judge(job: &Job, pod: &Pod) -> Failure {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Failure::Ignore,
            "FailIndex" => Failure::FailIndex,
            "FailJob" => Failure::FailJob(format!("{what} matching {} rule at index {index}", rule.action)),
            _ => Failure::Count,
        };
    }
    Failure::Count
}

fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = format!("{}/{}", meta::namespace(&pod.metadata), meta::name(&pod.metadata));
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let (container, code) = containers.into_iter().find_map(|container| exited(container, codes))?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_deref()?;
    let conditions = status.conditions.as_deref()?;
    let matching = |kind: &str, status: &str| {
        patterns.iter().any(|p| p.type_ == kind && p.status.as_deref().unwrap_or("True") == status)
    };
    let condition = conditions.iter().find(|condition| matching(&condition.type_, &condition.status))?;
    Some(format!("Pod {name} has condition {}", condition.type_))
}

fn exited<'a>(
    container: &'a ContainerStatus,
    codes: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = codes.container_name.as_ref().is_none_or(|name| *name == container.name);
    let listed = codes.values.contains(&code);
    let wanted = match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (code != 0 && named && wanted).then_some((container.name.as_str(), code))
}

/// Whether the success policy is met by these indexes, and by which rule.
pub fn success(job: &Job, succeeded: &Indexes, completions: i32) -> Option<String> {
    let policy = job.spec.as_ref()?.success_policy.as_ref().filter(|_| succeeded.len() > 0)?;
    let met = policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Indexes::parse(text, completions);
            let overlap = required.overlap(succeeded);
            required.len() > 0
                && (overlap == required.len() || rule.succeeded_count.is_some_and(|count| overlap >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.len() >= count),
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::pod;
    use k8s_openapi::api::batch::v1::{
        JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, SuccessPolicy, SuccessPolicyRule,
    };
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, PodCondition};

    fn exit_rule(action: &str, operator: &str, values: &[i32]) -> PodFailurePolicyRule {
        PodFailurePolicyRule {
            action: action.into(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                container_name: None,
                operator: operator.into(),
                values: values.to_vec(),
            }),
            on_pod_conditions: None,
        }
    }

    #[test]
    fn first_matching_rule_decides() {
        let disrupted = PodFailurePolicyRule {
            action: "Ignore".into(),
            on_exit_codes: None,
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                type_: "DisruptionTarget".into(),
                status: Some("True".into()),
            }]),
        };
        let rules =
            vec![disrupted, exit_rule("FailJob", "In", &[42]), exit_rule("FailIndex", "NotIn", &[1, 42])];
        let spec = JobSpec { pod_failure_policy: Some(PodFailurePolicy { rules }), ..Default::default() };
        let job = Job { spec: Some(spec), ..Default::default() };
        let message =
            "Container c for pod default/p failed with exit code 42 matching FailJob rule at index 1";
        for (code, is_disrupted, expected) in [
            (1, false, Failure::Count),
            (1, true, Failure::Ignore),
            (42, true, Failure::Ignore),
            (42, false, Failure::FailJob(message.into())),
            (7, false, Failure::FailIndex),
        ] {
            let mut pod = pod("p", "n", "Failed", None);
            if let Some(status) = &mut pod.status {
                let terminated = ContainerStateTerminated { exit_code: code, ..Default::default() };
                status.container_statuses = Some(vec![ContainerStatus {
                    name: "c".into(),
                    state: Some(ContainerState { terminated: Some(terminated), ..Default::default() }),
                    ..Default::default()
                }]);
                status.conditions = Some(vec![PodCondition {
                    type_: "DisruptionTarget".into(),
                    status: if is_disrupted { "True" } else { "False" }.into(),
                    ..Default::default()
                }]);
            }
            assert_eq!(judge(&job, &pod), expected, "{code} {is_disrupted}");
        }
    }

    #[test]
    fn success_policy_rules() {
        for (indexes, count, succeeded, met) in [
            (Some("0,2-3"), None, "0,2,3", true),
            (Some("0,2-3"), None, "0,2", false),
            (Some("0,2-3"), Some(2), "0,2", true),
            (None, Some(2), "5,6", true),
            (None, Some(3), "5,6", false),
            (None, Some(1), "", false),
        ] {
            let rule =
                SuccessPolicyRule { succeeded_indexes: indexes.map(str::to_owned), succeeded_count: count };
            let policy = SuccessPolicy { rules: vec![rule] };
            let spec = JobSpec { success_policy: Some(policy), ..Default::default() };
            let job = Job { spec: Some(spec), ..Default::default() };
            let result = success(&job, &Indexes::parse(succeeded, 10), 10);
            assert_eq!(result.is_some(), met, "{indexes:?} {count:?} {succeeded}");
        }
    }
}
