//! Counts healthy pods and computes how many may go.

use crate::common::{conditions, meta, pods};
use crate::deployment::resolve;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// For how long an evicted pod may take to be deleted.
const DELETION_TIMEOUT: i64 = 120;

/// Whether the budget depends on how many pods there should be.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// How many pods there should be, and how many of them healthy.
fn bounds(budget: &PodDisruptionBudget, have: i32, scale: i32) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (0, 0) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => (scale, (scale - resolve(Some(max), scale, true)).max(0)),
        (None, Some(IntOrString::Int(min))) => (have, *min),
        (None, Some(min)) => (scale, resolve(Some(min), scale, true)),
        (None, None) => (0, 0),
    }
}

/// Computes the status, and when it has to be looked at again. `scale` is how many pods the controllers want.
pub fn status(
    budget: &PodDisruptionBudget,
    matching: &[Arc<Pod>],
    scale: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let before = budget.status.clone().unwrap_or_default();
    let (expected, desired) = bounds(budget, i32::try_from(matching.len()).unwrap_or(i32::MAX), scale);
    let (disrupted, recheck) = disrupted(&before, matching, now);
    let healthy = matching.iter().filter(|pod| {
        !meta::is_deleting(&pod.metadata)
            && !disrupted.contains_key(meta::name(&pod.metadata))
            && pods::is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: before.conditions,
    };
    let (state, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, state, reason, "", now);
    (status, recheck)
}

/// Whether a status says nothing new; an absent number means 0.
pub fn same_status(before: &PodDisruptionBudgetStatus, now: &PodDisruptionBudgetStatus) -> bool {
    let full = |status: &PodDisruptionBudgetStatus| PodDisruptionBudgetStatus {
        current_healthy: Some(status.current_healthy.unwrap_or(0)),
        desired_healthy: Some(status.desired_healthy.unwrap_or(0)),
        expected_pods: Some(status.expected_pods.unwrap_or(0)),
        disruptions_allowed: Some(status.disruptions_allowed.unwrap_or(0)),
        disrupted_pods: status.disrupted_pods.clone().filter(|pods| !pods.is_empty()),
        ..status.clone()
    };
    full(before) == full(now)
}

/// Nothing may go while it is not known how many there should be.
pub fn failed(budget: &PodDisruptionBudget, error: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_condition(&mut status, "False", "SyncFailed", error, now);
    status
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let observed = status.observed_generation;
    let list = status.conditions.get_or_insert_default();
    match list.iter_mut().find(|condition| condition.type_ == "DisruptionAllowed") {
        Some(condition) => {
            if condition.status != state {
                condition.last_transition_time = Time(now);
            }
            condition.status = state.to_owned();
            condition.reason = reason.to_owned();
            condition.message = message.to_owned();
            condition.observed_generation = observed;
        }
        None => list.push(Condition {
            type_: "DisruptionAllowed".to_owned(),
            status: state.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: observed,
            last_transition_time: Time(now),
        }),
    }
}

/// Evicted pods that are still on their way, and when to stop believing in it.
fn disrupted(
    before: &PodDisruptionBudgetStatus,
    matching: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let Some(evicted) = &before.disrupted_pods else { return (BTreeMap::new(), None) };
    let here = matching.iter().filter(|pod| !meta::is_deleting(&pod.metadata));
    let mut left = BTreeMap::new();
    let mut recheck = None;
    for name in here.map(|pod| meta::name(&pod.metadata)) {
        let Some(since) = evicted.get(name) else { continue };
        let wait = since.0.as_second() + DELETION_TIMEOUT - now.as_second();
        if let Some(wait) = u64::try_from(wait).ok().map(Duration::from_secs) {
            left.insert(name.to_owned(), since.clone());
            recheck =
                Some(recheck.map_or(wait, |other: Duration| other.min(wait)).max(Duration::from_secs(1)));
        }
    }
    (left, recheck)
}

/// Evicted pods that should be gone by now.
pub fn not_deleted(budget: &PodDisruptionBudget, matching: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let evicted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let is_late = |pod: &&Arc<Pod>| {
        let since = evicted.and_then(|evicted| evicted.get(meta::name(&pod.metadata)));
        !meta::is_deleting(&pod.metadata)
            && since.is_some_and(|since| since.0.as_second() + DELETION_TIMEOUT < now.as_second())
    };
    matching.iter().filter(is_late).cloned().collect()
}

/// What is said of a pod that several budgets select.
pub fn several(pod: &Pod, first: &PodDisruptionBudget) -> String {
    format!(
        "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
        meta::namespace(&pod.metadata),
        meta::name(&pod.metadata),
        meta::name(&first.metadata)
    )
}

/// The selector as upstream prints it.
pub fn selector_as_shown(budget: &PodDisruptionBudget) -> String {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return "nil".to_owned();
    };
    let labels: String =
        selector.match_labels.iter().flatten().map(|(name, value)| format!("{name}: {value},")).collect();
    let terms = selector.match_expressions.iter().flatten().map(|term| {
        let values = term.values.as_deref().unwrap_or_default().join(" ");
        let (key, operator) = (&term.key, &term.operator);
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let terms: String = terms.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )
}

/// Since when a pod that stays says that it is being disrupted.
pub fn disrupted_since(pod: &Pod) -> Option<Timestamp> {
    if meta::is_deleting(&pod.metadata) || pods::is_terminal(pod) {
        return None;
    }
    let condition = conditions::find(pods::pod_conditions(pod), "DisruptionTarget")?;
    let open = condition.status == "True" && condition.reason.as_deref() != Some("TerminationByKubelet");
    condition.last_transition_time.as_ref().filter(|_| open).map(|time| time.0)
}

/// The pod without that claim.
pub fn cleared(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let list = pod.status.as_mut().and_then(|status| status.conditions.as_mut());
    if let Some(condition) =
        list.and_then(|list| list.iter_mut().find(|held| held.type_ == "DisruptionTarget"))
    {
        condition.status = "False".to_owned();
        condition.reason = None;
        condition.message = None;
        condition.last_transition_time = Some(Time(now));
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;

    fn budget(min: Option<IntOrString>, max: Option<IntOrString>) -> PodDisruptionBudget {
        let spec = PodDisruptionBudgetSpec { min_available: min, max_unavailable: max, ..Default::default() };
        PodDisruptionBudget { spec: Some(spec), ..Default::default() }
    }

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let made = |i: usize| pod(&format!("p{i}"), "n", "Running", (i < ready).then_some(1));
        (0..ready + unready).map(|i| Arc::new(made(i))).collect()
    }

    #[test]
    fn allowance() {
        let (int, percent) = (|n| Some(IntOrString::Int(n)), |p: &str| Some(IntOrString::String(p.into())));
        for (min, max, ready, unready, scale, expected) in [
            (int(2), None, 3, 0, 0, (3, 2, 3, 1)),
            (int(2), None, 2, 1, 0, (2, 2, 3, 0)),
            (None, int(1), 3, 0, 3, (3, 2, 3, 1)),
            (None, int(1), 3, 0, 10, (3, 9, 10, 0)),
            (None, percent("30%"), 10, 0, 10, (10, 7, 10, 3)),
            (percent("50%"), None, 5, 0, 5, (5, 3, 5, 2)),
            (int(0), None, 0, 0, 0, (0, 0, 0, 0)),
        ] {
            let (status, _) = status(&budget(min, max), &pods(ready, unready), scale, at(1));
            let got = (
                status.current_healthy,
                status.desired_healthy,
                status.expected_pods,
                status.disruptions_allowed,
            );
            let expected = (Some(expected.0), Some(expected.1), Some(expected.2), Some(expected.3));
            assert_eq!(got, expected, "{ready} ready of {}", ready + unready);
        }
    }

    #[test]
    fn evicted_pods_do_not_count_until_the_eviction_is_overdue() {
        let mut budget = budget(Some(IntOrString::Int(1)), None);
        budget.status = Some(PodDisruptionBudgetStatus {
            disrupted_pods: Some(
                [("p0".to_owned(), Time(at(100))), ("gone".to_owned(), Time(at(100)))].into(),
            ),
            ..Default::default()
        });
        let (first, recheck) = status(&budget, &pods(2, 0), 0, at(110));
        assert_eq!((first.current_healthy, first.disrupted_pods.map(|map| map.len())), (Some(1), Some(1)));
        assert_eq!(recheck, Some(Duration::from_secs(110)));
        assert!(not_deleted(&budget, &pods(2, 0), at(110)).is_empty());
        assert_eq!(not_deleted(&budget, &pods(2, 0), at(221)).len(), 1);
        let (later, recheck) = status(&budget, &pods(2, 0), 0, at(221));
        assert_eq!((later.current_healthy, later.disrupted_pods, recheck), (Some(2), None, None));
    }

    #[test]
    fn pods_that_ended_are_expected_too() {
        let mut all = pods(1, 0);
        all.push(Arc::new(pod("ended", "n", "Succeeded", None)));
        let (status, _) = status(&budget(Some(IntOrString::Int(1)), None), &all, 0, at(1));
        assert_eq!((status.expected_pods, status.current_healthy), (Some(2), Some(1)));
    }

    #[test]
    fn selectors_are_shown_as_upstream_shows_them() {
        let mut budget = budget(None, None);
        let selector = serde_json::json!({"matchLabels": {"a": "b", "c": "d"}, "matchExpressions": [
            {"key": "k", "operator": "In", "values": ["v", "w"]}]});
        budget.spec.get_or_insert_default().selector = serde_json::from_value(selector).ok();
        assert_eq!(
            selector_as_shown(&budget),
            "&LabelSelector{MatchLabels:map[string]string{a: b,c: d,},MatchExpressions:[]LabelSelectorRequirement\
             {LabelSelectorRequirement{Key:k,Operator:In,Values:[v w],},},}"
        );
    }

    #[test]
    fn unchanged_status_is_equal() {
        let mut budget = budget(Some(IntOrString::Int(1)), None);
        budget.status = Some(status(&budget, &pods(2, 0), 0, at(1)).0);
        assert_eq!(budget.status, Some(status(&budget, &pods(2, 0), 0, at(99)).0));
    }
}
