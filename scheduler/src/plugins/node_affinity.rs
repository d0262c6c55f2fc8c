//! Node selectors and node affinity, required and preferred.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PreferredSchedulingTerm;

use super::selector::{required_matches, term_matches};
use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection, scale};
use crate::node_info::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// The plugin.
pub struct NodeAffinity;

fn preferred(pod: &PodInfo) -> &[PreferredSchedulingTerm] {
    let affinity = pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
    affinity
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeLabels]
    }

    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if required_matches(&pod.pod, node) {
            return Ok(());
        }
        Err(Rejection::unresolvable(self.name(), "node(s) didn't match Pod's node affinity/selector"))
    }

    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &[Arc<NodeInfo>], _: &Snapshot) -> bool {
        !preferred(pod).is_empty()
    }

    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        // A preferred term that says nothing matches every node, unlike a required one.
        let says_nothing = |term: &PreferredSchedulingTerm| {
            let preference = &term.preference;
            preference.match_expressions.iter().flatten().next().is_none()
                && preference.match_fields.iter().flatten().next().is_none()
        };
        let liked = preferred(pod).iter().filter(|t| says_nothing(t) || term_matches(&t.preference, node));
        liked.map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, _: &CycleState, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        scale(scores, false);
    }

    fn weight(&self) -> i64 {
        2
    }
}
