//! Quality of service of a pod, and what a pod asks of its node in total.
//!
//! As upstream's `qos.ComputePodQOS`, `resourcehelper.PodRequests` and `qos.GetContainerOOMScoreAdjust`.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
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

const QOS_RESOURCES: [&str; 2] = ["cpu", "memory"];

/// The class of a pod: what its status says, else computed from its spec.
#[must_use]
pub fn pod_qos(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => compute(pod),
    }
}

fn compute(pod: &Pod) -> QosClass {
    let spec = types::spec(pod);
    if let Some(resources) = &spec.resources
        && (resources.requests.is_some() || resources.limits.is_some())
    {
        return class_of(&[resources]);
    }
    let empty = ResourceRequirements::default();
    let all: Vec<_> = types::init_containers(spec)
        .iter()
        .chain(&spec.containers)
        .map(|c| c.resources.as_ref().unwrap_or(&empty))
        .collect();
    class_of(&all)
}

fn class_of(all: &[&ResourceRequirements]) -> QosClass {
    let amount = |list: &Option<BTreeMap<String, Quantity>>, name: &str| {
        list.as_ref().and_then(|l| l.get(name)).map(quantity::milli_value).filter(|v| *v > 0)
    };
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    for resources in all {
        for name in QOS_RESOURCES {
            if let Some(v) = amount(&resources.requests, name) {
                *requests.entry(name.to_owned()).or_default() += v;
            }
            match amount(&resources.limits, name) {
                Some(v) => *limits.entry(name.to_owned()).or_default() += v,
                None => guaranteed = false,
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if guaranteed
        && requests.iter().all(|(k, v)| limits.get(k) == Some(v))
        && requests.len() == limits.len()
    {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    list.into_iter().flatten().map(|(k, v)| (k.clone(), quantity::milli_value(v))).collect()
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (k, v) in more {
        let sum = to.entry(k.clone()).or_default();
        *sum = sum.saturating_add(*v);
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (k, v) in other {
        let most = to.entry(k.clone()).or_insert(*v);
        *most = (*most).max(*v);
    }
}

fn total(
    pod: &Pod,
    of: impl Fn(&Container) -> Amounts,
    whole: Option<&BTreeMap<String, Quantity>>,
) -> Amounts {
    let spec = types::spec(pod);
    let mut sum = Amounts::new();
    for c in &spec.containers {
        add(&mut sum, &of(c));
    }
    // Sidecars run beside everything after them; other init containers run alone with the sidecars before them.
    let (mut sidecars, mut init) = (Amounts::new(), Amounts::new());
    for c in types::init_containers(spec) {
        let mut own = of(c);
        if types::is_restartable_init(c) {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut init, &own);
    }
    raise(&mut sum, &init);
    for (k, v) in amounts(whole) {
        sum.insert(k, v);
    }
    sum
}

/// What the pod asks for in total, overhead included, in thousandths.
#[must_use]
pub fn pod_requests(pod: &Pod) -> Amounts {
    let spec = types::spec(pod);
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut sum = total(pod, |c| amounts(c.resources.as_ref().and_then(|r| r.requests.as_ref())), whole);
    add(&mut sum, &amounts(spec.overhead.as_ref()));
    sum
}

/// What the pod is limited to in total, in thousandths; overhead is added where there is a limit.
#[must_use]
pub fn pod_limits(pod: &Pod) -> Amounts {
    let spec = types::spec(pod);
    let whole = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    let mut sum = total(pod, |c| amounts(c.resources.as_ref().and_then(|r| r.limits.as_ref())), whole);
    for (k, v) in amounts(spec.overhead.as_ref()) {
        if let Some(limit) = sum.get_mut(&k) {
            *limit = limit.saturating_add(v);
        }
    }
    sum
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
