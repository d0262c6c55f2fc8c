//! Pods spread over zones, hosts or any other domain (KEP-895).
//!
//! For each constraint, matching pods are counted by domain over the nodes that count. The counts for one pod serve
//! the next one like it ([`Memo`]).

mod constraints;
mod tally;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use self::constraints::{Constraint, Defaults};
use self::tally::{Key, Tally};
use super::selector::label;
use crate::config::args::PodTopologySpreadArgs;
use crate::framework::memo::{Count, Memo};
use crate::framework::{
    Action, ClusterEvent, Filter, Interest, MAX_SCORE, Plugin, PreFilter, Rejection, Resource, Score,
};
use crate::listers::Listers;
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, labels, namespace, node_name, nominated_node, uid};
use crate::snapshot::Snapshot;

const NAME: &str = "PodTopologySpread";
const HOSTNAME: &str = "kubernetes.io/hostname";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// The plugin.
pub struct PodTopologySpread {
    defaults: Defaults,
    hard: Memo<Key, Tally>,
    soft: Memo<Key, Tally>,
}

impl PodTopologySpread {
    /// With these arguments; `listers` know what selects a pod.
    #[must_use]
    pub fn new(args: &PodTopologySpreadArgs, listers: &Listers) -> Self {
        let alike = |one: &Key, other: &Key| one == other;
        Self { defaults: Defaults::new(args, listers), hard: Memo::new(alike), soft: Memo::new(alike) }
    }

    fn hard(&self, pod: &PodInfo) -> Vec<Constraint> {
        self.defaults.constraints(&pod.pod, "DoNotSchedule")
    }
}

#[derive(Clone)]
struct Check {
    pod: Arc<PodInfo>,
    tally: Arc<Tally>,
}

impl Filter for Check {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for (constraint, counts) in self.tally.counted() {
            let Some(domain) = node.label(&constraint.key) else {
                return Err(Rejection::unresolvable(NAME, NO_LABEL));
            };
            let itself = i64::from(constraint.selector.matches(self.pod.labels()));
            if counts.get(domain) + itself - counts.least(constraint.min_domains) > constraint.max_skew {
                return Err(Rejection::new(NAME, MISMATCH));
            }
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        Arc::make_mut(&mut self.tally).change(pod, node, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        Arc::make_mut(&mut self.tally).change(pod, node, -1);
    }

    fn counts_pods(&self) -> bool {
        true
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

struct Crowding {
    tally: Arc<Tally>,
    weights: Vec<f64>,
    /// Nodes without all the topology labels; they get the least score.
    ignored: BTreeSet<String>,
}

impl Score for Crowding {
    /// How crowded the node's domains are; [`Score::normalize`] turns it round.
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut score = 0.0;
        for ((constraint, counts), weight) in self.tally.counted().zip(&self.weights) {
            let Some(domain) = node.label(&constraint.key) else { continue };
            let domain = if constraint.key == HOSTNAME { node.name() } else { domain };
            score += counts.get(domain) as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, nodes: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let counted = |i: usize| self.ignored.is_empty() || !self.ignored.contains(nodes[i].name());
        let known = || (0..scores.len()).filter(|i| counted(*i)).map(|i| scores[i]);
        let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
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
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        let pods = Action::ADD.or(Action::DELETE).or(Action::POD_LABEL).or(Action::POD_TOLERATION);
        let nodes = Action::ADD.or(Action::DELETE).or(Action::NODE_LABEL).or(Action::NODE_TAINT);
        vec![Interest::pods(pods), Interest::of(Resource::Node, nodes)]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let constraints = self.hard(pod);
        match (event.pods(), event.nodes()) {
            ((None, None), (old, new)) => {
                node_event_helps(&constraints, old.map(|n| &**n), new.map(|n| &**n))
            }
            (pods, _) => pod_event_helps(pod, &constraints, pods),
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<PreFilter, Rejection> {
        let hard = self.hard(pod);
        if hard.is_empty() {
            return Ok(PreFilter::skip());
        }
        let key = Key::new(pod, hard, true);
        let tally = self.hard.get(&key, snapshot, || Tally::hard(&key, snapshot));
        Ok(PreFilter::with(Check { pod: pod.clone(), tally }))
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        nodes: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Option<Box<dyn Score>> {
        let soft = self.defaults.constraints(&pod.pod, "ScheduleAnyway");
        if soft.is_empty() {
            return None;
        }
        let need_all = self.defaults.need_all_labels(&pod.pod);
        let lacking = nodes.iter().filter(|node| need_all && !constraints::has_all(&node.node, &soft));
        let ignored: BTreeSet<_> = lacking.map(|node| node.name().to_owned()).collect();
        let weights = soft.iter().map(|constraint| {
            let candidates = nodes.iter().filter(|n| ignored.is_empty() || !ignored.contains(n.name()));
            let count = if constraint.key == HOSTNAME {
                candidates.count()
            } else {
                candidates.map(|n| n.label(&constraint.key)).collect::<BTreeSet<_>>().len()
            };
            (count as f64 + 2.0).ln()
        });
        let weights = weights.collect();
        let key = Key::new(pod, soft, need_all);
        let tally = self.soft.get(&key, snapshot, || Tally::soft(&key, snapshot));
        Some(Box::new(Crowding { tally, weights, ignored }))
    }
}

fn node_event_helps(constraints: &[Constraint], old: Option<&Node>, new: Option<&Node>) -> bool {
    let matches = |node: Option<&Node>| node.is_some_and(|node| constraints::has_all(node, constraints));
    let (Some(before), Some(now)) = (old, new) else { return matches(old.or(new)) };
    let taints = |node: &'_ Node| node.spec.as_ref().and_then(|s| s.taints.clone());
    let moved = || constraints.iter().any(|c| label(before, &c.key) != label(now, &c.key));
    matches(old) != matches(new) || (matches(new) && (moved() || taints(before) != taints(now)))
}

fn pod_event_helps(
    pod: &PodInfo,
    constraints: &[Constraint],
    (old, new): (
        Option<&Arc<k8s_openapi::api::core::v1::Pod>>,
        Option<&Arc<k8s_openapi::api::core::v1::Pod>>,
    ),
) -> bool {
    let involved = |other: &Arc<_>| {
        let placed = !node_name(other).is_empty() || !nominated_node(other).is_empty();
        uid(other) == pod.uid() || (placed && namespace(other) == pod.namespace())
    };
    if !old.is_none_or(involved) || !new.is_none_or(involved) {
        return false;
    }
    let tolerations =
        |pod: &'_ Arc<k8s_openapi::api::core::v1::Pod>| super::taint_toleration::tolerations(pod).len();
    match (old, new) {
        (Some(old), Some(new)) => {
            let tolerates_more = uid(new) == pod.uid() && tolerations(old) != tolerations(new);
            let changes = |c: &Constraint| c.selector.matches(labels(old)) != c.selector.matches(labels(new));
            (tolerates_more && constraints.iter().any(|c| c.by_taints)) || constraints.iter().any(changes)
        }
        (None, Some(other)) | (Some(other), None) => {
            constraints.iter().any(|c| c.selector.matches(labels(other)))
        }
        (None, None) => true,
    }
}
