//! Scores by what is used of a node's resources.

use std::sync::Arc;

use crate::config::args::{
    BalancedAllocationArgs, ResourceSpec, ScoringStrategy, ShapePoint, default_resources,
};
use crate::framework::{MAX_SCORE, Plugin, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::resources::Resources;
use crate::snapshot::Snapshot;

/// The greatest score in the configuration of shapes.
const MAX_CUSTOM_SCORE: i64 = 10;

/// A resource that is looked at, and how much it counts.
#[derive(Clone)]
struct Looked {
    kind: Kind,
    weight: i64,
}

/// Which amount is meant; names are compared once only.
#[derive(Clone)]
enum Kind {
    Cpu,
    Memory,
    EphemeralStorage,
    Scalar(String),
}

impl Looked {
    fn all(resources: &[ResourceSpec]) -> Vec<Self> {
        let look = |spec: &ResourceSpec| {
            let kind = match spec.name.as_str() {
                "cpu" => Kind::Cpu,
                "memory" => Kind::Memory,
                "ephemeral-storage" => Kind::EphemeralStorage,
                other => Kind::Scalar(other.to_owned()),
            };
            Self { kind, weight: spec.weight.max(1) }
        };
        resources.iter().map(look).collect()
    }

    fn amount(&self, of: &Resources) -> i64 {
        match &self.kind {
            Kind::Cpu => of.cpu,
            Kind::Memory => of.memory,
            Kind::EphemeralStorage => of.ephemeral_storage,
            Kind::Scalar(name) => of.amount(name),
        }
    }
}

/// One resource of a node as it would be with the pod.
#[derive(Clone, Copy)]
struct Use {
    with_pod: i64,
    without: i64,
    capacity: i64,
    weight: i64,
}

/// How nodes are scored by what is left on them.
pub(super) struct Scorer {
    resources: Vec<Looked>,
    strategy: Strategy,
}

enum Strategy {
    Least,
    Most,
    Ratio(Vec<ShapePoint>),
}

impl Scorer {
    pub(super) fn new(strategy: Option<&ScoringStrategy>) -> Self {
        let resources = strategy.map(|s| s.resources.clone()).filter(|r| !r.is_empty());
        let shape = || strategy.and_then(|s| s.requested_to_capacity_ratio.clone()).unwrap_or_default().shape;
        let kind = match strategy.map(|s| s.kind.as_str()) {
            Some("MostAllocated") => Strategy::Most,
            Some("RequestedToCapacityRatio") => Strategy::Ratio(shape()),
            _ => Strategy::Least,
        };
        Self { resources: Looked::all(&resources.unwrap_or_else(default_resources)), strategy: kind }
    }

    pub(super) fn for_pod(this: &Arc<Self>, pod: &Arc<PodInfo>) -> Box<dyn Score> {
        Box::new(ForPod { scorer: this.clone(), pod: pod.clone() })
    }
}

struct ForPod {
    scorer: Arc<Scorer>,
    pod: Arc<PodInfo>,
}

impl Score for ForPod {
    fn score(&self, node: &NodeInfo) -> i64 {
        let uses = uses(&self.scorer.resources, &self.pod, node, false);
        match &self.scorer.strategy {
            Strategy::Least => weighted(uses.map(|u| (least(u), u.weight))),
            Strategy::Most => weighted(uses.map(|u| (most(u), u.weight))),
            Strategy::Ratio(shape) => by_shape(uses.map(|u| (on_shape(shape, u), u.weight))),
        }
    }
}

/// What is used of the resources that the node has. A scalar that the pod does not request does not matter.
/// `exact`: as requested, instead of with a little for containers that request nothing.
fn uses<'a>(
    resources: &'a [Looked],
    pod: &'a PodInfo,
    node: &'a NodeInfo,
    exact: bool,
) -> impl Iterator<Item = Use> + Clone + 'a {
    resources.iter().filter_map(move |resource| {
        let capacity = resource.amount(&node.allocatable);
        let (wanted, without) = match resource.kind {
            Kind::Cpu if !exact => (pod.non_zero.0, node.non_zero.0),
            Kind::Memory if !exact => (pod.non_zero.1, node.non_zero.1),
            _ => (resource.amount(&pod.requests), resource.amount(&node.requested)),
        };
        let counts = capacity != 0 && !(matches!(resource.kind, Kind::Scalar(_)) && wanted == 0);
        counts.then_some(Use { with_pod: without + wanted, without, capacity, weight: resource.weight })
    })
}

fn weighted(scores: impl Iterator<Item = (i64, i64)>) -> i64 {
    let (sum, weights) = scores.fold((0, 0), |(sum, weights), (score, w)| (sum + score * w, weights + w));
    if weights == 0 { 0 } else { sum / weights }
}

/// As [`weighted`], but resources with no score do not count, and the result is rounded.
fn by_shape(scores: impl Iterator<Item = (i64, i64)>) -> i64 {
    let scores = scores.filter(|(score, _)| *score > 0);
    let (sum, weights) = scores.fold((0, 0), |(sum, weights), (score, w)| (sum + score * w, weights + w));
    if weights == 0 { 0 } else { (sum as f64 / weights as f64).round() as i64 }
}

fn least(of: Use) -> i64 {
    if of.with_pod > of.capacity { 0 } else { (of.capacity - of.with_pod) * MAX_SCORE / of.capacity }
}

fn most(of: Use) -> i64 {
    of.with_pod.min(of.capacity) * MAX_SCORE / of.capacity
}

/// The value of a function made of straight pieces at the utilization in percent.
fn on_shape(shape: &[ShapePoint], of: Use) -> i64 {
    let utilization = if of.with_pod > of.capacity { 100 } else { of.with_pod * 100 / of.capacity };
    let point = |at: usize| {
        let ShapePoint { utilization, score } = shape[at];
        (i64::from(utilization), i64::from(score) * (MAX_SCORE / MAX_CUSTOM_SCORE))
    };
    match (0..shape.len()).find(|at| utilization <= point(*at).0) {
        None if shape.is_empty() => 0,
        None => point(shape.len() - 1).1,
        Some(0) => point(0).1,
        Some(at) => {
            let ((x0, y0), (x1, y1)) = (point(at - 1), point(at));
            y0 + (y1 - y0) * (utilization - x0) / (x1 - x0).max(1)
        }
    }
}

/// Nodes whose resources are used alike are best.
pub struct BalancedAllocation {
    resources: Arc<Vec<Looked>>,
}

impl BalancedAllocation {
    /// With these arguments.
    #[must_use]
    pub fn new(args: &BalancedAllocationArgs) -> Self {
        let resources = args.resources.clone();
        let resources = if resources.is_empty() { default_resources() } else { resources };
        Self { resources: Arc::new(Looked::all(&resources)) }
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn pre_score(&self, pod: &Arc<PodInfo>, _: &[Arc<NodeInfo>], _: &Snapshot) -> Option<Box<dyn Score>> {
        let wants_some = self.resources.iter().any(|resource| resource.amount(&pod.requests) != 0);
        let scorer = Balance { resources: self.resources.clone(), pod: pod.clone() };
        wants_some.then(|| Box::new(scorer) as Box<dyn Score>)
    }
}

struct Balance {
    resources: Arc<Vec<Looked>>,
    pod: Arc<PodInfo>,
}

impl Score for Balance {
    /// How much the pod improves the balance: 50 to 100, 75 for no change.
    fn score(&self, node: &NodeInfo) -> i64 {
        let uses = || uses(&self.resources, &self.pod, node, true);
        let with = balance(uses().map(|u| share(u.with_pod, u.capacity)));
        let without = balance(uses().map(|u| share(u.without, u.capacity)));
        MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
    }
}

fn share(used: i64, capacity: i64) -> f64 {
    (used as f64 / capacity as f64).min(1.0)
}

/// 100 if all resources are used in the same share, less the more they differ.
fn balance(shares: impl Iterator<Item = f64> + Clone) -> i64 {
    let count = shares.clone().count();
    let mean = shares.clone().sum::<f64>() / count.max(1) as f64;
    let deviation = if count < 2 {
        0.0
    } else {
        (shares.map(|share| (share - mean).powi(2)).sum::<f64>() / count as f64).sqrt()
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(with_pod: i64, capacity: i64) -> Use {
        Use { with_pod, without: 0, capacity, weight: 1 }
    }

    #[test]
    fn strategies_score_the_same_use_differently() {
        assert_eq!((least(of(25, 100)), most(of(25, 100))), (75, 25));
        assert_eq!((least(of(150, 100)), most(of(150, 100))), (0, 100));
        assert_eq!(weighted([(100, 3), (0, 1)].into_iter()), 75);
    }

    #[test]
    fn shapes_are_straight_between_their_points() {
        let point = |utilization, score| ShapePoint { utilization, score };
        let shape = [point(0, 10), point(50, 0), point(100, 5)];
        for (used, expected) in [(0, 100), (25, 50), (50, 0), (75, 25), (100, 50), (170, 50)] {
            assert_eq!(on_shape(&shape, of(used, 100)), expected, "{used}");
        }
        assert_eq!(by_shape([(0, 100), (55, 1), (56, 1)].into_iter()), 56, "no score does not count");
    }

    #[test]
    fn balance_falls_with_the_difference_of_shares() {
        for (shares, expected) in
            [(vec![0.5, 0.5], 100), (vec![0.0, 1.0], 50), (vec![0.3], 100), (vec![0.0, 0.5, 1.0], 59)]
        {
            assert_eq!(balance(shares.iter().copied()), expected, "{shares:?}");
        }
    }
}
