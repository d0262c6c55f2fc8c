//! Pods spread over zones, hosts or any other domain (KEP-895).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};

use super::selector::required_matches;
use super::taint_toleration::TaintToleration;
use crate::framework::{ClusterEvent, CycleState, MAX_SCORE, Plugin, Rejection};
use crate::node_info::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";

/// The plugin.
pub struct PodTopologySpread;

/// A constraint, ready to be counted with.
struct Constraint {
    max_skew: i64,
    key: String,
    selector: LabelSelector,
    min_domains: Option<usize>,
    by_affinity: bool,
    by_taints: bool,
    /// Whether the incoming pod itself matches the selector.
    itself: bool,
    /// Matching pods by domain, over the nodes that count.
    counts: BTreeMap<String, i64>,
}

struct Hard(Vec<Constraint>);

struct Soft {
    constraints: Vec<Constraint>,
    weights: Vec<f64>,
    /// Nodes without all the topology labels; they get the least score.
    ignored: BTreeSet<String>,
}

fn constraints(pod: &PodInfo, action: &str) -> Vec<Constraint> {
    let spread = pod.pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.as_ref());
    let wanted = spread.into_iter().flatten().filter(|c| c.when_unsatisfiable == action);
    wanted.map(|constraint| prepare(pod, constraint)).collect()
}

fn prepare(pod: &PodInfo, constraint: &TopologySpreadConstraint) -> Constraint {
    let mut selector = LabelSelector::from_meta(constraint.label_selector.as_ref())
        .unwrap_or_else(|_| LabelSelector::nothing());
    let keys = constraint.match_label_keys.iter().flatten();
    let also: Vec<_> = keys.filter_map(|key| Some((key, pod.labels().get(key)?))).collect();
    if !also.is_empty() {
        let mut requirements = selector.requirements().to_vec();
        requirements.extend(LabelSelector::from_set(also).requirements().to_vec());
        selector = LabelSelector::from_requirements(requirements);
    }
    Constraint {
        max_skew: constraint.max_skew.into(),
        key: constraint.topology_key.clone(),
        itself: selector.matches(pod.labels()),
        selector,
        min_domains: constraint.min_domains.and_then(|n| usize::try_from(n).ok()),
        by_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        by_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        counts: BTreeMap::new(),
    }
}

/// Upstream's defaults for pods without constraints: spread those that one service or workload selects. The
/// selector is that of the pod's own labels, without the hash of its template's revision.
fn default_constraints(pod: &PodInfo) -> Vec<Constraint> {
    let owned = pod.pod.metadata.owner_references.as_ref().is_some_and(|o| !o.is_empty());
    if !owned || pod.labels().is_empty() {
        return vec![];
    }
    let own = pod.labels().iter().filter(|(key, _)| !key.contains("-hash") && !key.ends_with("/pod-index"));
    let selector = LabelSelector::from_set(own);
    if selector.is_empty() {
        return vec![];
    }
    let make = |key: &str, max_skew| Constraint {
        max_skew,
        key: key.to_owned(),
        selector: selector.clone(),
        min_domains: None,
        by_affinity: true,
        by_taints: false,
        itself: true,
        counts: BTreeMap::new(),
    };
    vec![make(HOSTNAME, 3), make(ZONE, 5)]
}

impl Constraint {
    fn counts_node(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.by_affinity || required_matches(&pod.pod, node))
            && (!self.by_taints || TaintToleration.filter(&CycleState::default(), pod, node).is_ok())
    }

    fn matching(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let alike = node.pods.values().filter(|other| {
            other.namespace() == pod.namespace()
                && other.pod.metadata.deletion_timestamp.is_none()
                && self.selector.matches(other.labels())
        });
        i64::try_from(alike.count()).unwrap_or(i64::MAX)
    }

    /// The least count of any domain; 0 if there are fewer domains than wanted.
    fn least(&self) -> i64 {
        if self.min_domains.is_some_and(|wanted| self.counts.len() < wanted) {
            return 0;
        }
        self.counts.values().copied().min().unwrap_or(0)
    }
}

fn has_all(node: &NodeInfo, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|c| node.label(&c.key).is_some())
}

fn count(constraints: &mut [Constraint], pod: &PodInfo, snapshot: &Snapshot, need_all: bool) {
    for node in &snapshot.nodes {
        if need_all && !has_all(node, constraints) {
            continue;
        }
        for constraint in constraints.iter_mut() {
            let Some(domain) = node.label(&constraint.key).map(str::to_owned) else { continue };
            if constraint.counts_node(pod, node) {
                let more = constraint.matching(pod, node);
                *constraint.counts.entry(domain).or_insert(0) += more;
            }
        }
    }
}

fn has_own_constraints(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.as_ref()).is_some_and(|c| !c.is_empty())
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[
            ClusterEvent::NodeAdded,
            ClusterEvent::NodeLabels,
            ClusterEvent::NodeTaints,
            ClusterEvent::PodAssigned,
            ClusterEvent::PodRemoved,
            ClusterEvent::PodLabels,
            ClusterEvent::PodItself,
        ]
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut hard = constraints(pod, "DoNotSchedule");
        if !hard.is_empty() {
            count(&mut hard, pod, snapshot, true);
            state.set(self.name(), Hard(hard));
        }
        Ok(())
    }

    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(Hard(constraints)) = state.get::<Hard>(self.name()) else { return Ok(()) };
        for constraint in constraints {
            let Some(domain) = node.label(&constraint.key) else {
                let reason = format!("{MISMATCH} (missing required label)");
                return Err(Rejection::unresolvable(self.name(), reason));
            };
            let there = constraint.counts.get(domain).copied().unwrap_or(0);
            if there + i64::from(constraint.itself) - constraint.least() > constraint.max_skew {
                return Err(Rejection::new(self.name(), MISMATCH));
            }
        }
        Ok(())
    }

    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> bool {
        let own = has_own_constraints(&pod.pod);
        let mut soft = if own { constraints(pod, "ScheduleAnyway") } else { default_constraints(pod) };
        if soft.is_empty() {
            return false;
        }
        let lacking = nodes.iter().filter(|node| own && !has_all(node, &soft));
        let ignored: BTreeSet<_> = lacking.map(|node| node.name().to_owned()).collect();
        count(&mut soft, pod, snapshot, own);
        let weights = soft.iter().map(|constraint| {
            let candidates = nodes.iter().filter(|n| !ignored.contains(n.name()));
            let domains: BTreeSet<_> = candidates.filter_map(|n| n.label(&constraint.key)).collect();
            (domains.len() as f64 + 2.0).ln()
        });
        let weights = weights.collect();
        state.set("PodTopologySpread/score", Soft { constraints: soft, weights, ignored });
        true
    }

    /// How crowded the node's domains are; [`Plugin::normalize`] turns it round.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(soft) = state.get::<Soft>("PodTopologySpread/score") else { return 0 };
        let mut score = 0.0;
        for (constraint, weight) in soft.constraints.iter().zip(&soft.weights) {
            let Some(domain) = node.label(&constraint.key) else { continue };
            let there = if constraint.key == HOSTNAME {
                constraint.matching(pod, node)
            } else {
                constraint.counts.get(domain).copied().unwrap_or(0)
            };
            score += there as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, state: &CycleState, nodes: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let Some(soft) = state.get::<Soft>("PodTopologySpread/score") else { return };
        let counted = |i: usize| !soft.ignored.contains(nodes[i].name());
        let known: Vec<_> = (0..scores.len()).filter(|i| counted(*i)).map(|i| scores[i]).collect();
        let (least, most) =
            (known.iter().copied().min().unwrap_or(0), known.iter().copied().max().unwrap_or(0));
        for (i, score) in scores.iter_mut().enumerate() {
            *score = if !counted(i) {
                0
            } else if most == 0 {
                MAX_SCORE
            } else {
                MAX_SCORE * (most + least - *score) / most
            };
        }
    }

    fn weight(&self) -> i64 {
        2
    }
}
