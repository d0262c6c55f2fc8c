//! The extension points of a scheduling cycle (upstream `kube-scheduler/framework`), and the run through them.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::node_info::{NodeInfo, PodInfo};
use crate::plugins;
use crate::snapshot::Snapshot;

/// The best a plugin can say of a node.
pub const MAX_SCORE: i64 = 100;

/// Why a node, or every node, cannot take the pod, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The plugin that says so.
    pub plugin: &'static str,
    /// What it says; each is counted over nodes by itself.
    pub reasons: Vec<String>,
    /// Whether removing other pods could not help either.
    pub unresolvable: bool,
}

impl Rejection {
    /// Removing other pods might help.
    pub fn new(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { plugin, reasons: vec![reason.into()], unresolvable: false }
    }

    /// Removing other pods would not help.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { plugin, reasons: vec![reason.into()], unresolvable: true }
    }
}

/// What plugins remember from one extension point to the next, by plugin, for one pod.
#[derive(Default)]
pub struct CycleState {
    slots: HashMap<&'static str, Box<dyn Any + Send + Sync>>,
}

impl CycleState {
    /// Remembers.
    pub fn set<T: Any + Send + Sync>(&mut self, plugin: &'static str, value: T) {
        self.slots.insert(plugin, Box::new(value));
    }

    /// What was remembered; none if nothing was.
    #[must_use]
    pub fn get<T: Any>(&self, plugin: &'static str) -> Option<&T> {
        self.slots.get(plugin)?.downcast_ref()
    }
}

/// What happened in the cluster that may let a pod fit that did not fit before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterEvent {
    /// A node is new.
    NodeAdded,
    /// What a node can take has grown or changed.
    NodeAllocatable,
    /// Labels of a node changed.
    NodeLabels,
    /// Taints or the unschedulable mark of a node changed.
    NodeTaints,
    /// A pod on a node is gone, has ended, or needs less.
    PodRemoved,
    /// A pod is new on a node.
    PodAssigned,
    /// Labels of a pod on a node changed.
    PodLabels,
    /// The waiting pod itself changed.
    PodItself,
    /// A namespace is new or its labels changed.
    Namespace,
    /// Volumes or claims changed.
    Volume,
}

/// One plugin. It implements the extension points it has something to say at; the others do nothing.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// The events after which a pod that this plugin refused is worth another try (upstream `EventsToRegister`).
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }

    /// Whether the pod may be tried at all; the error says what it waits for.
    ///
    /// # Errors
    /// The pod must wait.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// Once before filtering: computes what filters need, or refuses the pod for all nodes.
    ///
    /// # Errors
    /// No node can take the pod.
    fn pre_filter(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        Ok(())
    }

    /// Whether the node can take the pod.
    ///
    /// # Errors
    /// It cannot.
    fn filter(&self, _state: &CycleState, _pod: &PodInfo, _node: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// Once before scoring: computes what scores need. False: this plugin has no preference for this pod.
    fn pre_score(
        &self,
        _state: &mut CycleState,
        _pod: &PodInfo,
        _nodes: &[Arc<NodeInfo>],
        _snapshot: &Snapshot,
    ) -> bool {
        false
    }

    /// How good the node is; higher is better. Any range; [`Plugin::normalize`] brings it to 0..=100.
    fn score(&self, _state: &CycleState, _pod: &PodInfo, _node: &NodeInfo) -> i64 {
        0
    }

    /// Brings the scores of all nodes to 0..=100.
    fn normalize(&self, _state: &CycleState, _nodes: &[Arc<NodeInfo>], _scores: &mut [i64]) {}

    /// How much its score counts.
    fn weight(&self) -> i64 {
        1
    }
}

/// Scales scores so that the greatest becomes 100; with `reverse`, so that the least does (upstream
/// `DefaultNormalizeScore`).
pub fn scale(scores: &mut [i64], reverse: bool) {
    let greatest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if greatest == 0 {
            *score = if reverse { MAX_SCORE } else { *score };
            continue;
        }
        *score = MAX_SCORE * *score / greatest;
        if reverse {
            *score = MAX_SCORE - *score;
        }
    }
}

/// Why a pod fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// The refusal for all nodes before any was looked at.
    pub before: Option<Rejection>,
    /// How many nodes each reason holds for.
    pub reasons: BTreeMap<String, usize>,
    /// The plugins that refused.
    pub plugins: Vec<&'static str>,
}

/// As upstream words the event and the condition.
impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(before) = &self.before {
            return write!(f, " {}.", before.reasons.join(", "));
        }
        let mut reasons: Vec<_> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        if !reasons.is_empty() {
            write!(f, " {}.", reasons.join(", "))?;
        }
        Ok(())
    }
}

/// The plugins in upstream's default order.
pub struct Framework {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Default for Framework {
    fn default() -> Self {
        Self { plugins: plugins::default_plugins() }
    }
}

impl Framework {
    /// Whether the pod may be tried.
    ///
    /// # Errors
    /// A plugin makes it wait.
    pub fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        self.plugins.iter().try_for_each(|plugin| plugin.pre_enqueue(pod))
    }

    /// The plugins for whose refusals an event is worth another try.
    #[must_use]
    pub fn interested_in(&self, event: ClusterEvent) -> Vec<&'static str> {
        self.plugins.iter().filter(|p| p.events().contains(&event)).map(|p| p.name()).collect()
    }

    /// The best node for the pod. `start` is where to begin among the nodes; the second result is where to begin
    /// with the next pod, so that all nodes get their turn when not all need to be looked at.
    ///
    /// # Errors
    /// No node can take the pod.
    pub fn find_node(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        start: usize,
    ) -> Result<(String, usize), FitError> {
        let mut state = CycleState::default();
        let mut error =
            FitError { nodes: snapshot.nodes.len(), before: None, reasons: BTreeMap::new(), plugins: vec![] };
        for plugin in &self.plugins {
            if let Err(rejection) = plugin.pre_filter(&mut state, pod, snapshot) {
                error.plugins.push(rejection.plugin);
                error.before = Some(rejection);
                return Err(error);
            }
        }
        let (feasible, looked_at) = self.filter(&state, pod, snapshot, start, &mut error);
        match feasible.as_slice() {
            [] => Err(error),
            [only] => Ok((only.name().to_owned(), start + looked_at)),
            _ => Ok((self.best(&mut state, pod, &feasible, snapshot), start + looked_at)),
        }
    }

    fn filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        start: usize,
        error: &mut FitError,
    ) -> (Vec<Arc<NodeInfo>>, usize) {
        let count = snapshot.nodes.len();
        let enough = enough_nodes(count);
        let (mut feasible, mut looked_at) = (vec![], 0);
        for i in 0..count {
            let node = &snapshot.nodes[(start + i) % count];
            looked_at += 1;
            match self.plugins.iter().try_for_each(|plugin| plugin.filter(state, pod, node)) {
                Ok(()) => feasible.push(node.clone()),
                Err(rejection) => {
                    if !error.plugins.contains(&rejection.plugin) {
                        error.plugins.push(rejection.plugin);
                    }
                    for reason in rejection.reasons {
                        *error.reasons.entry(reason).or_insert(0) += 1;
                    }
                }
            }
            if feasible.len() >= enough {
                break;
            }
        }
        (feasible, looked_at)
    }

    /// The node with the greatest sum of weighted scores; one of them at random if several have it.
    fn best(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> String {
        let mut totals = vec![0; nodes.len()];
        for plugin in &self.plugins {
            if !plugin.pre_score(state, pod, nodes, snapshot) {
                continue;
            }
            let mut scores: Vec<_> = nodes.iter().map(|node| plugin.score(state, pod, node)).collect();
            plugin.normalize(state, nodes, &mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight();
            }
        }
        let greatest = totals.iter().copied().max().unwrap_or(0);
        let best: Vec<_> = (0..nodes.len()).filter(|i| totals[*i] == greatest).collect();
        nodes[best[rand::random_range(0..best.len())]].name().to_owned()
    }
}

/// How many feasible nodes are enough to choose from (upstream's adaptive `percentageOfNodesToScore`).
fn enough_nodes(count: usize) -> usize {
    const ALWAYS: usize = 100;
    if count < ALWAYS {
        return count.max(1);
    }
    let percent = 50_usize.saturating_sub(count / 125).max(5);
    (count * percent / 100).max(ALWAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_upstream_does() {
        let reasons = [("Insufficient cpu", 2), ("node(s) were unschedulable", 1)];
        let error = FitError {
            nodes: 3,
            before: None,
            reasons: reasons.map(|(r, n)| (r.to_owned(), n)).into(),
            plugins: vec![],
        };
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(FitError { nodes: 0, ..error }.to_string(), "no nodes available to schedule pods");
    }

    #[test]
    fn large_clusters_are_not_searched_whole() {
        for (count, enough) in [(0, 1), (50, 50), (100, 100), (1000, 420), (5000, 500), (10_000, 500)] {
            assert_eq!(enough_nodes(count), enough, "{count}");
        }
    }
}
