//! Node selectors and node affinity, required and preferred.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeAffinity as Affinity, NodeSelectorTerm, PreferredSchedulingTerm};

use super::selector::{node_affinity, required_matches, requires_node, selector_matches, term_matches};
use crate::config::args::NodeAffinityArgs;
use crate::framework::{
    Action, ClusterEvent, Interest, Plugin, PreFilter, Rejection, Resource, Score, scale,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

const NAME: &str = "NodeAffinity";

/// The plugin.
pub struct NodeAffinity {
    /// Holds for all pods.
    added: Option<Arc<Affinity>>,
}

impl NodeAffinity {
    /// With these arguments.
    #[must_use]
    pub fn new(args: &NodeAffinityArgs) -> Self {
        Self { added: args.added_affinity.clone().map(Arc::new) }
    }

    fn added_matches(&self, node: &Node) -> bool {
        self.added.as_ref().is_none_or(|added| added_matches(added, node))
    }
}

fn added_matches(added: &Affinity, node: &Node) -> bool {
    let required = added.required_during_scheduling_ignored_during_execution.as_ref();
    required.is_none_or(|selector| selector_matches(selector, node))
}

fn preferred(affinity: Option<&Affinity>) -> &[PreferredSchedulingTerm] {
    affinity
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![Interest::of(Resource::Node, Action::ADD.or(Action::NODE_LABEL))]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let (old, Some(new)) = event.nodes() else { return true };
        self.added_matches(new)
            && required_matches(&pod.pod, new)
            && !old.is_some_and(|old| self.added_matches(old) && required_matches(&pod.pod, old))
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        if self.added.is_none() && !requires_node(&pod.pod) {
            return Ok(PreFilter::skip());
        }
        let required = node_affinity(&pod.pod)
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let nodes = required.and_then(|selector| named_nodes(&selector.node_selector_terms));
        if nodes.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(Rejection::unresolvable(NAME, "pod affinity terms conflict"));
        }
        let (pod, added) = (pod.clone(), self.added.clone());
        let filter = PreFilter::check(move |node| {
            if added.as_ref().is_some_and(|added| !added_matches(added, &node.node)) {
                let reason = "node(s) didn't match scheduler-enforced node affinity";
                return Err(Rejection::unresolvable(NAME, reason));
            }
            if !required_matches(&pod.pod, &node.node) {
                return Err(Rejection::unresolvable(
                    NAME,
                    "node(s) didn't match Pod's node affinity/selector",
                ));
            }
            Ok(())
        });
        Ok(PreFilter { nodes, ..filter })
    }

    fn pre_score(&self, pod: &Arc<PodInfo>, _: &[Arc<NodeInfo>], _: &Snapshot) -> Option<Box<dyn Score>> {
        let own = preferred(node_affinity(&pod.pod));
        let added = preferred(self.added.as_deref());
        let terms: Vec<_> = own.iter().chain(added).filter(|term| term.weight != 0).cloned().collect();
        (!terms.is_empty()).then(|| Box::new(Preferred(terms)) as Box<dyn Score>)
    }
}

/// The nodes that the terms name, if every one of them names some.
fn named_nodes(terms: &[NodeSelectorTerm]) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for term in terms {
        let fields = term.match_fields.iter().flatten();
        let listed = fields.filter(|r| r.key == "metadata.name" && r.operator == "In");
        let sets = listed.map(|r| r.values.iter().flatten().cloned().collect::<BTreeSet<_>>());
        names.extend(sets.reduce(|all, set| all.intersection(&set).cloned().collect())?);
    }
    (!terms.is_empty()).then_some(names)
}

struct Preferred(Vec<PreferredSchedulingTerm>);

impl Score for Preferred {
    fn score(&self, node: &NodeInfo) -> i64 {
        // A preferred term that says nothing matches every node, unlike a required one.
        let says_nothing = |term: &PreferredSchedulingTerm| {
            let preference = &term.preference;
            preference.match_expressions.iter().flatten().next().is_none()
                && preference.match_fields.iter().flatten().next().is_none()
        };
        let liked = self.0.iter().filter(|t| says_nothing(t) || term_matches(&t.preference, &node.node));
        liked.map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        scale(scores, false);
    }
}
