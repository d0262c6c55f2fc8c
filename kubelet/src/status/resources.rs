//! The resources of a pod as a whole, as its status shows them. Pure; as upstream's `convertToAPIPodLevelResourcesStatus`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::allocation::sizes::{InForce, quota_to_milli, shares_to_milli};
use crate::cgroups::Limits;
use crate::{quantity, types};

type List = BTreeMap<String, Quantity>;

fn list(amounts: &api::pod::Resources) -> Option<List> {
    let list: List =
        amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect();
    (!list.is_empty()).then_some(list)
}

/// What the pod as a whole was allocated.
#[must_use]
pub fn allocated(pod: &Pod) -> Option<List> {
    list(&api::pod::effective_requests(pod))
}

/// What is in force for the pod as a whole: its group's limits while it runs, else what was allocated.
#[must_use]
pub fn pod_resources(
    pod: &Pod,
    api: &PodStatus,
    old: &PodStatus,
    group: Option<&Limits>,
) -> ResourceRequirements {
    let own = types::spec(pod).resources.clone().unwrap_or_default();
    let (Some("Running"), Some(group)) = (api.phase.as_deref(), group) else {
        let limits = list(&api::pod::effective_limits(pod));
        return ResourceRequirements { requests: allocated(pod), limits, ..own };
    };
    let own_memory = own.requests.as_ref().and_then(|r| r.get("memory")).map(quantity::value);
    let memory = own_memory
        .or_else(|| api::pod::effective_requests(pod).get("memory").map(api::quantity::Quantity::value));
    let period = group.period.and_then(|p| i64::try_from(p).ok()).unwrap_or_default();
    let in_force = InForce {
        cpu_request: group.shares.and_then(|s| shares_to_milli(i64::try_from(s).ok()?)),
        cpu_limit: group.quota.and_then(|quota| quota_to_milli(quota, period)),
        // Groups know of no requests for memory.
        memory_request: memory,
        memory_limit: group.memory.filter(|bytes| *bytes > 0 && *bytes != i64::MAX),
    };
    let mut base = own;
    base.requests.get_or_insert_default();
    base.limits.get_or_insert_default();
    let before = old.resources.as_ref().filter(|_| old.phase.as_deref() == Some("Running"));
    let mut shown = in_force.shown(Some(&base), before);
    for list in [&mut shown.requests, &mut shown.limits] {
        if list.as_ref().is_some_and(BTreeMap::is_empty) {
            *list = None;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_limits_are_shown_while_the_pod_runs() {
        let group = Limits {
            shares: Some(204),
            quota: Some(20_000),
            period: Some(100_000),
            memory: Some(64 << 20),
            pids: None,
        };
        let unlimited = Limits {
            shares: Some(2),
            quota: Some(-1),
            period: Some(100_000),
            memory: Some(i64::MAX),
            pids: None,
        };
        let asks = "{containers: [{name: a, resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 1, memory: 1Gi}}}]}";
        let whole = "{resources: {requests: {cpu: 1}, limits: {cpu: 2}}, containers: [{name: a}]}";
        let cases = [
            (
                asks,
                "Pending",
                &group,
                "{requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: '1', memory: 1Gi}}",
            ),
            (
                asks,
                "Running",
                &group,
                "{requests: {cpu: 200m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}",
            ),
            (whole, "Running", &group, "{requests: {cpu: 200m}, limits: {cpu: 200m, memory: 64Mi}}"),
            ("{containers: [{name: a}]}", "Running", &unlimited, "{}"),
            ("{containers: [{name: a}]}", "Pending", &unlimited, "{}"),
        ];
        for (spec, phase, group, shown) in cases {
            let pod: Pod = serde_saphyr::from_str(&format!("spec: {spec}")).expect("valid");
            let status = PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() };
            let expected: ResourceRequirements = serde_saphyr::from_str(shown).expect("valid");
            assert_eq!(
                pod_resources(&pod, &status, &PodStatus::default(), Some(group)),
                expected,
                "{spec} {phase}"
            );
        }
    }
}
