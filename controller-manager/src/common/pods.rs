//! Pods as controllers see them: are they counted, and which goes first.

use super::{conditions, meta};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use api::pod::{is_active, is_available, is_ready, is_terminal, phase};

/// The node a pod is bound to; empty for none.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The conditions of a pod.
pub fn pod_conditions(pod: &Pod) -> &[PodCondition] {
    pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// The `Ready` condition.
pub fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    conditions::find(pod_conditions(pod), "Ready")
}

/// Whether the pod is on its way out but has not ended.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && meta::is_deleting(&pod.metadata)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    ready_condition(pod)
        .filter(|condition| condition.status == "True")?
        .last_transition_time
        .as_ref()
        .map(|time| time.0)
}

/// When the next ready pod becomes available, if one will.
pub fn next_available(pods: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds <= 0 {
        return None;
    }
    let waits = pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| {
        let wait = ready_since(pod)?.as_second() + i64::from(min_ready_seconds) - now.as_second();
        u64::try_from(wait).ok().filter(|wait| *wait > 0)
    });
    waits.min().map(Duration::from_secs)
}

/// Builds the pod that a template describes. The API gives it a name that begins with the owner's.
pub fn from_template(template: &PodTemplateSpec, owner_name: &str, owner: OwnerReference) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(name_prefix(owner_name)),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// What the names of an owner's pods begin with: its name and a dash, unless that would be too long.
pub fn name_prefix(owner_name: &str) -> String {
    if owner_name.len() < 253 { format!("{owner_name}-") } else { owner_name.to_owned() }
}

/// Of these active pods, the `count` that should be deleted first. `related` are pods of the same owner's other
/// replica sets: a pod that shares its node with more of them goes earlier.
/// As upstream's ActivePodsWithRanks.
pub fn to_delete(
    mut pods: Vec<Arc<Pod>>,
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count < pods.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|pod| is_active(pod)) {
            *on_node.entry(node_name(pod)).or_default() += 1;
        }
        let rank = |pod: &Pod| on_node.get(node_name(pod)).copied().unwrap_or(0);
        pods.sort_by(|a, b| deletion_order(a, b, now, rank));
        pods.truncate(count);
    }
    pods
}

// Upstream has the UID decide between pods that have been ready since different times of one rank, before it looks at
// restarts. That orders pairs but not all pods (three can go round), which sorting does not take here: the UID is last.
fn deletion_order(a: &Pod, b: &Pod, now: Timestamp, rank: impl Fn(&Pod) -> usize) -> Ordering {
    let assigned = |pod: &Pod| !node_name(pod).is_empty();
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (assigned(a).cmp(&assigned(b)))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank(b).cmp(&rank(a)))
        .then_with(|| age(ready_since(a), now).cmp(&age(ready_since(b), now)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| age(created(a), now).cmp(&age(created(b), now)))
        .then_with(|| meta::uid(&a.metadata).cmp(meta::uid(&b.metadata)))
}

/// The plain order without ranks and cost, by which Jobs choose the pods to give up.
/// As upstream's ActivePods.
pub fn by_activity(a: &Pod, b: &Pod) -> Ordering {
    let assigned = |pod: &Pod| !node_name(pod).is_empty();
    let newest_first = |a: Option<Timestamp>, b: Option<Timestamp>| match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => b.cmp(&a),
    };
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (assigned(a).cmp(&assigned(b)))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| newest_first(ready_since(a), ready_since(b)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| newest_first(created(a), created(b)))
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    meta::annotation(&pod.metadata, "controller.kubernetes.io/pod-deletion-cost")
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

/// An age, of which only the power of two counts: the lower goes first, and one that is not known before all.
fn age(since: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    since.map(|since| match now.as_nanosecond() - since.as_nanosecond() {
        age if age > 0 => i64::from(age.ilog2()),
        _ => -1,
    })
}

/// The most restarts of any container, and of any sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |statuses: &mut dyn Iterator<Item = &ContainerStatus>| {
        statuses.map(|status| status.restart_count).max().unwrap_or(0)
    };
    let Some(status) = &pod.status else { return (0, 0) };
    let sidecar = |name: &str| {
        let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        init.iter()
            .any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
    };
    (
        most(&mut status.container_statuses.iter().flatten()),
        most(&mut status.init_container_statuses.iter().flatten().filter(|status| sidecar(&status.name))),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    /// A moment that tests call now.
    pub fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// A pod in a phase; `ready` is the second since which it is ready.
    pub fn pod(name: &str, node: &str, phase: &str, ready: Option<i64>) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("default".into()),
                uid: Some(format!("uid-{name}")),
                creation_timestamp: Some(Time(at(0))),
                ..Default::default()
            },
            spec: Some(PodSpec { node_name: (!node.is_empty()).then(|| node.into()), ..Default::default() }),
            status: Some(PodStatus {
                phase: Some(phase.into()),
                conditions: Some(vec![PodCondition {
                    type_: "Ready".into(),
                    status: if ready.is_some() { "True" } else { "False" }.into(),
                    last_transition_time: ready.map(|second| Time(at(second))),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
        }
    }

    fn with_cost(mut pod: Pod, cost: &str) -> Pod {
        pod.metadata.annotations =
            Some([("controller.kubernetes.io/pod-deletion-cost".to_owned(), cost.to_owned())].into());
        pod
    }

    fn with_restarts(mut pod: Pod, restart_count: i32) -> Pod {
        if let Some(status) = &mut pod.status {
            status.container_statuses = Some(vec![ContainerStatus { restart_count, ..Default::default() }]);
        }
        pod
    }

    #[test]
    fn less_useful_pods_are_deleted_first() {
        let now = at(100_000);
        let pods = [
            pod("unassigned", "", "Pending", None),
            pod("pending", "n", "Pending", None),
            pod("unknown", "n", "Unknown", None),
            pod("unready", "n", "Running", None),
            with_cost(pod("cheap", "n", "Running", Some(1)), "-5"),
            pod("young", "n", "Running", Some(99_000)),
            with_restarts(pod("restarting", "n", "Running", Some(1)), 3),
            pod("old", "n", "Running", Some(1)),
            with_cost(pod("dear", "n", "Running", Some(99_999)), "7"),
        ];
        let shuffled: Vec<_> = [4, 8, 0, 7, 3, 1, 6, 2, 5].map(|i: usize| Arc::new(pods[i].clone())).into();
        let order = to_delete(shuffled.clone(), &shuffled, 8, now);
        let names: Vec<_> = order.iter().map(|pod| meta::name(&pod.metadata)).collect();
        let expected: Vec<_> = pods[..8].iter().map(|pod| meta::name(&pod.metadata)).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn no_three_pods_go_round() {
        let now = at(100_000);
        let mut all = vec![];
        for ready in [None, Some(99_990), Some(99_991), Some(1)] {
            for restarts in [0, 3] {
                for created in [99_989, 99_990, 2] {
                    // UIDs in no order of anything else.
                    let name = format!("{}", (all.len() + 5) * 31 % 24);
                    let mut pod = with_restarts(pod(&name, "n", "Running", ready), restarts);
                    pod.metadata.creation_timestamp = Some(Time(at(created)));
                    all.push(pod);
                }
            }
        }
        let order = |a: &Pod, b: &Pod| deletion_order(a, b, now, |_| 0);
        for a in &all {
            for b in &all {
                assert_eq!(order(a, b), order(b, a).reverse());
                assert_eq!(order(a, b) == Ordering::Equal, a == b);
                for c in &all {
                    let goes_round = order(a, b).is_lt() && order(b, c).is_lt() && order(c, a).is_lt();
                    assert!(!goes_round, "{a:?} {b:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn doubled_up_pods_are_deleted_first() {
        let pods: Vec<_> = [("a", "n1"), ("b", "n2"), ("c", "n2")]
            .map(|(name, node)| Arc::new(pod(name, node, "Running", Some(5))))
            .into();
        let chosen = to_delete(pods.clone(), &pods, 1, at(10));
        assert_eq!(meta::name(&chosen[0].metadata), "b");
    }

    #[test]
    fn availability_counts_from_readiness() {
        for (ready, min_ready, now, available) in [
            (None, 0, 100, false),
            (Some(90), 0, 100, true),
            (Some(90), 10, 100, true),
            (Some(91), 10, 100, false),
        ] {
            assert_eq!(is_available(&pod("p", "n", "Running", ready), min_ready, at(now)), available);
        }
        let pods = [Arc::new(pod("p", "n", "Running", Some(91)))];
        assert_eq!(next_available(&pods, 10, at(100)), Some(Duration::from_secs(1)));
        assert_eq!(next_available(&pods, 10, at(200)), None);
    }
}
