//! Resources: what does not fit, and where it fits best.

use std::sync::Arc;

use crate::framework::{ClusterEvent, CycleState, MAX_SCORE, Plugin, Rejection};
use crate::node_info::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// Requests must fit; nodes with the most left over are best (`LeastAllocated` over CPU and memory).
pub struct Fit;

/// Nodes whose CPU and memory are used alike are best.
pub struct BalancedAllocation;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[
            ClusterEvent::NodeAdded,
            ClusterEvent::NodeAllocatable,
            ClusterEvent::PodRemoved,
            ClusterEvent::PodItself,
        ]
    }

    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let reasons = insufficient(pod, node);
        if reasons.is_empty() {
            return Ok(());
        }
        let more_than_all = |name: &str| pod.requests.amount(name) > node.allocatable.amount(name);
        let names = ["cpu", "memory", "ephemeral-storage"]
            .into_iter()
            .chain(pod.requests.scalar.keys().map(String::as_str));
        let unresolvable = names.into_iter().any(more_than_all);
        Err(Rejection { plugin: self.name(), reasons, unresolvable })
    }

    fn pre_score(&self, _: &mut CycleState, _: &PodInfo, _: &[Arc<NodeInfo>], _: &Snapshot) -> bool {
        true
    }

    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let free_share = |requested: i64, capacity: i64| {
            if requested > capacity { 0 } else { (capacity - requested) * MAX_SCORE / capacity }
        };
        let pairs = [
            (node.non_zero.0 + pod.non_zero.0, node.allocatable.cpu),
            (node.non_zero.1 + pod.non_zero.1, node.allocatable.memory),
        ];
        let known: Vec<_> = pairs.into_iter().filter(|(_, capacity)| *capacity > 0).collect();
        let sum: i64 = known.iter().map(|(requested, capacity)| free_share(*requested, *capacity)).sum();
        sum / i64::try_from(known.len().max(1)).unwrap_or(1)
    }
}

/// What the node has too little of, in upstream's words.
fn insufficient(pod: &PodInfo, node: &NodeInfo) -> Vec<String> {
    let mut reasons = vec![];
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if pods + 1 > node.allocatable.pods {
        reasons.push("Too many pods".to_owned());
    }
    let names = ["cpu", "memory", "ephemeral-storage"]
        .into_iter()
        .chain(pod.requests.scalar.keys().map(String::as_str));
    for name in names {
        let wanted = pod.requests.amount(name);
        if wanted > 0 && wanted > node.allocatable.amount(name) - node.requested.amount(name) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &[Arc<NodeInfo>], _: &Snapshot) -> bool {
        pod.requests.cpu > 0 || pod.requests.memory > 0
    }

    /// How much the pod improves the balance: 50 to 100, 75 for no change (as upstream since v1.34).
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let without = balance(node, 0, 0);
        let with = balance(node, pod.requests.cpu, pod.requests.memory);
        MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
    }
}

/// 100 if CPU and memory are used in the same share, less the more they differ.
fn balance(node: &NodeInfo, cpu: i64, memory: i64) -> i64 {
    let share = |requested: i64, capacity: i64| (requested as f64 / capacity as f64).min(1.0);
    let pairs = [
        (node.requested.cpu + cpu, node.allocatable.cpu),
        (node.requested.memory + memory, node.allocatable.memory),
    ];
    let shares: Vec<_> = pairs.into_iter().filter(|(_, c)| *c > 0).map(|(r, c)| share(r, c)).collect();
    let deviation = match shares.as_slice() {
        [a, b] => ((a - b) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
