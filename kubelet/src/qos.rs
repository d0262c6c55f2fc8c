//! Quality of service of a pod, and what a pod asks of its node in total.
//!
//! Classes and totals are the API's; `oom_score_adj` is as upstream's `qos.GetContainerOOMScoreAdjust`.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{quantity, types};

/// Quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QosClass {
    /// Every container has limits equal to its requests, for CPU and memory.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        })
    }
}

/// Amounts by resource name, in thousandths.
pub type Amounts = BTreeMap<String, i64>;

/// The class of a pod: what its status says, else computed from its spec.
#[must_use]
pub fn pod_qos(pod: &Pod) -> QosClass {
    match api::pod::qos_class(pod) {
        "Guaranteed" => QosClass::Guaranteed,
        "Burstable" => QosClass::Burstable,
        _ => QosClass::BestEffort,
    }
}

/// What the pod asks for in total, overhead included, in thousandths.
#[must_use]
pub fn pod_requests(pod: &Pod) -> Amounts {
    api::pod::effective_requests(pod).into_iter().map(|(name, amount)| (name, amount.milli_value())).collect()
}

/// What the pod is limited to in total, in thousandths; overhead is added where there is a limit.
#[must_use]
pub fn pod_limits(pod: &Pod) -> Amounts {
    api::pod::effective_limits(pod).into_iter().map(|(name, amount)| (name, amount.milli_value())).collect()
}

/// One amount of a container's requests or limits in thousandths.
#[must_use]
pub fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<i64> {
    list?.get(name).map(quantity::milli_value)
}

/// Whether the pod is one the node cannot do without.
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    const SYSTEM_CRITICAL: i32 = 2_000_000_000;
    types::annotation(pod, "kubernetes.io/config.source").is_some_and(|source| source != "api")
        || types::annotation(pod, "kubernetes.io/config.mirror").is_some()
        || types::spec(pod).priority.is_some_and(|p| p >= SYSTEM_CRITICAL)
}

/// `oom_score_adj` of a container: the smaller its share of memory, the likelier it is killed first.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    // As upstream: node critical means -997 whatever the class.
    if types::spec(pod).priority_class_name.as_deref() == Some("system-node-critical")
        || types::spec(pod).priority.is_some_and(|p| p >= 2_000_001_000)
    {
        return GUARANTEED;
    }
    match pod_qos(pod) {
        QosClass::Guaranteed => return GUARANTEED,
        QosClass::BestEffort => return BEST_EFFORT,
        QosClass::Burstable => {}
    }
    let requested = |c: &Container| {
        c.resources
            .as_ref()
            .and_then(|r| r.requests.as_ref())
            .and_then(|r| r.get("memory"))
            .map_or(0, quantity::value)
    };
    let share = |memory: i64| {
        1000 - i64::try_from(1000 * i128::from(memory) / i128::from(memory_capacity.max(1))).unwrap_or(1000)
    };
    let mut score = share(requested(container));
    if types::is_restartable_init(container) {
        let least = types::spec(pod).containers.iter().map(requested).min().unwrap_or_default();
        score = score.min(share(least));
    }
    score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> Pod {
        serde_saphyr::from_str(&format!("metadata: {{name: p}}\nspec:\n{yaml}")).expect("valid pod")
    }

    #[test]
    fn classes_are_upstreams() {
        let cases = [
            ("  containers: [{name: a}]", QosClass::BestEffort),
            ("  containers: [{name: a, resources: {requests: {cpu: 100m}}}]", QosClass::Burstable),
            (
                "  containers: [{name: a, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: '1', memory: 1024Mi}}}]",
                QosClass::Guaranteed,
            ),
            (
                "  containers: [{name: a, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}}, {name: b}]",
                QosClass::Burstable,
            ),
            ("  containers: [{name: a, resources: {limits: {example.com/dongle: 1}}}]", QosClass::BestEffort),
            (
                "  initContainers: [{name: i, resources: {requests: {cpu: 1}}}]\n  containers: [{name: a}]",
                QosClass::Burstable,
            ),
        ];
        for (yaml, class) in cases {
            assert_eq!(pod_qos(&pod(yaml)), class, "{yaml}");
        }
    }

    #[test]
    fn requests_count_init_and_sidecars() {
        let pod = pod("  overhead: {cpu: 10m}\n\
             \x20 initContainers:\n\
             \x20 - {name: i1, resources: {requests: {cpu: 3}}}\n\
             \x20 - {name: s, restartPolicy: Always, resources: {requests: {cpu: 1}}}\n\
             \x20 - {name: i2, resources: {requests: {cpu: 2500m}}}\n\
             \x20 containers: [{name: a, resources: {requests: {cpu: 2}}}]");
        // i1 alone: 3; i2 with s: 3.5; running: 2 + 1.
        assert_eq!(pod_requests(&pod)["cpu"], 3510);
    }

    #[test]
    fn oom_scores_are_upstreams() {
        let gi = 1i64 << 30;
        let cases = [
            ("  containers: [{name: a}]", 1000),
            ("  containers: [{name: a, resources: {requests: {memory: 1Gi}}}]", 875),
            ("  containers: [{name: a, resources: {requests: {memory: 8Gi}}}]", 3),
            ("  containers: [{name: a, resources: {requests: {cpu: 1m}}}]", 999),
            (
                "  containers: [{name: a, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}}]",
                -997,
            ),
            ("  priorityClassName: system-node-critical\n  containers: [{name: a}]", -997),
        ];
        for (yaml, score) in cases {
            let pod = pod(yaml);
            assert_eq!(oom_score_adj(&pod, &types::spec(&pod).containers[0], 8 * gi), score, "{yaml}");
        }
    }
}
