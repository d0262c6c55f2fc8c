//! Pods near to, or away from, other pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{PodAffinityTerm, WeightedPodAffinityTerm};

use crate::framework::{ClusterEvent, CycleState, MAX_SCORE, Plugin, Rejection};
use crate::node_info::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// The plugin.
pub struct InterPodAffinity;

/// Topology key and value.
type Domain = (String, String);

#[derive(Default)]
struct Counts {
    /// Domains that hold pods which refuse the incoming one.
    refused: BTreeMap<Domain, i64>,
    /// Domains that hold pods matching *all* the terms the incoming pod requires.
    affinity: BTreeMap<Domain, i64>,
    /// Domains that hold pods matching a term the incoming pod refuses.
    anti: BTreeMap<Domain, i64>,
    /// Whether the incoming pod matches its own terms, so that the first of a group can start it.
    matches_itself: bool,
}

struct Scores(BTreeMap<Domain, i64>);

/// A term, ready to be matched.
struct Term {
    selector: LabelSelector,
    namespaces: Vec<String>,
    by_namespace_labels: Option<LabelSelector>,
    key: String,
}

impl Term {
    fn new(owner: &PodInfo, term: &PodAffinityTerm) -> Self {
        let mut selector = LabelSelector::from_meta(term.label_selector.as_ref())
            .unwrap_or_else(|_| LabelSelector::nothing());
        let value = |key: &String| Some((key.clone(), owner.labels().get(key)?.clone()));
        let also: BTreeMap<_, _> = term.match_label_keys.iter().flatten().filter_map(value).collect();
        if !also.is_empty() {
            let mut requirements = selector.requirements().to_vec();
            requirements.extend(LabelSelector::from_set(&also).requirements().to_vec());
            selector = LabelSelector::from_requirements(requirements);
        }
        let named = term.namespaces.clone().unwrap_or_default();
        let by_labels = term.namespace_selector.as_ref();
        let own_only = named.is_empty() && by_labels.is_none();
        Self {
            selector,
            namespaces: if own_only { vec![owner.namespace().to_owned()] } else { named },
            by_namespace_labels: by_labels
                .map(|s| LabelSelector::from_meta(Some(s)).unwrap_or_else(|_| LabelSelector::nothing())),
            key: term.topology_key.clone(),
        }
    }

    fn matches(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        let namespace = pod.namespace();
        let by_labels = || {
            let selector = self.by_namespace_labels.as_ref()?;
            Some(selector.matches(snapshot.namespaces.get(namespace)?))
        };
        let here = self.namespaces.iter().any(|n| n == namespace) || by_labels().unwrap_or(false);
        here && self.selector.matches(pod.labels())
    }

    fn domain(&self, node: &NodeInfo) -> Option<Domain> {
        Some((self.key.clone(), node.label(&self.key)?.to_owned()))
    }
}

fn terms(owner: &PodInfo, terms: &[PodAffinityTerm]) -> Vec<Term> {
    terms.iter().map(|term| Term::new(owner, term)).collect()
}

/// The preferences of a pod, those to be away with negative weights.
fn preferences(owner: &PodInfo) -> Vec<(Term, i64)> {
    let affinity = owner.pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
    let near = affinity
        .and_then(|a| a.pod_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_ref());
    let away = affinity.and_then(|a| {
        a.pod_anti_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_ref()
    });
    let make = |term: &WeightedPodAffinityTerm, sign: i64| {
        (Term::new(owner, &term.pod_affinity_term), sign * i64::from(term.weight))
    };
    let near = near.into_iter().flatten().map(|t| make(t, 1));
    near.chain(away.into_iter().flatten().map(|t| make(t, -1))).collect()
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[
            ClusterEvent::NodeAdded,
            ClusterEvent::NodeLabels,
            ClusterEvent::PodAssigned,
            ClusterEvent::PodRemoved,
            ClusterEvent::PodLabels,
            ClusterEvent::PodItself,
            ClusterEvent::Namespace,
        ]
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let (near, away) = (terms(pod, pod.required_affinity()), terms(pod, pod.required_anti_affinity()));
        let mut counts = Counts {
            matches_itself: !near.is_empty() && near.iter().all(|term| term.matches(pod, snapshot)),
            ..Counts::default()
        };
        for node in &snapshot.nodes {
            if near.is_empty() && away.is_empty() && node.with_anti_affinity == 0 {
                continue;
            }
            for other in node.pods.values() {
                count_refusals(&mut counts, other, pod, node, snapshot);
                if !near.is_empty() && near.iter().all(|term| term.matches(other, snapshot)) {
                    near.iter()
                        .filter_map(|t| t.domain(node))
                        .for_each(|d| *counts.affinity.entry(d).or_insert(0) += 1);
                }
                let refused = away.iter().filter(|term| term.matches(other, snapshot));
                refused.filter_map(|t| t.domain(node)).for_each(|d| *counts.anti.entry(d).or_insert(0) += 1);
            }
        }
        state.set(self.name(), counts);
        Ok(())
    }

    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(counts) = state.get::<Counts>(self.name()) else { return Ok(()) };
        let domain = |key: &str| Some((key.to_owned(), node.label(key)?.to_owned()));
        let near = pod.required_affinity();
        let labelled = near.iter().all(|term| node.label(&term.topology_key).is_some());
        let together =
            near.iter().all(|t| domain(&t.topology_key).is_some_and(|d| counts.affinity.contains_key(&d)));
        let first_of_group = counts.affinity.is_empty() && counts.matches_itself;
        if !(labelled && (together || first_of_group)) {
            return Err(Rejection::unresolvable(self.name(), "node(s) didn't match pod affinity rules"));
        }
        let away = pod.required_anti_affinity();
        if away.iter().any(|t| domain(&t.topology_key).is_some_and(|d| counts.anti.contains_key(&d))) {
            return Err(Rejection::new(self.name(), "node(s) didn't match pod anti-affinity rules"));
        }
        if counts.refused.keys().any(|(key, value)| node.label(key) == Some(value)) {
            return Err(Rejection::new(
                self.name(),
                "node(s) didn't satisfy existing pods anti-affinity rules",
            ));
        }
        Ok(())
    }

    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> bool {
        let own = preferences(pod);
        let mut scores = BTreeMap::new();
        for node in &snapshot.nodes {
            for other in node.pods.values() {
                for (term, weight) in own.iter().filter(|(term, _)| term.matches(other, snapshot)) {
                    term.domain(node).into_iter().for_each(|d| *scores.entry(d).or_insert(0) += weight);
                }
                // What those already there prefer counts too, and what they require counts once.
                let has_affinity = other.pod.spec.as_ref().is_some_and(|s| s.affinity.is_some());
                if !has_affinity {
                    continue;
                }
                let required = terms(other, other.required_affinity()).into_iter().map(|term| (term, 1));
                let theirs = preferences(other).into_iter().chain(required);
                for (term, weight) in theirs.filter(|(term, _)| term.matches(pod, snapshot)) {
                    term.domain(node).into_iter().for_each(|d| *scores.entry(d).or_insert(0) += weight);
                }
            }
        }
        let any = !scores.is_empty();
        state.set("InterPodAffinity/score", Scores(scores));
        any
    }

    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Scores(scores)) = state.get::<Scores>("InterPodAffinity/score") else { return 0 };
        let here = scores.iter().filter(|((key, value), _)| node.label(key) == Some(value));
        here.map(|(_, score)| score).sum()
    }

    fn normalize(&self, _: &CycleState, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let (least, most) =
            (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if most == least { 0 } else { MAX_SCORE * (*score - least) / (most - least) };
        }
    }

    fn weight(&self) -> i64 {
        2
    }
}

fn count_refusals(counts: &mut Counts, other: &PodInfo, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
    let refusing = terms(other, other.required_anti_affinity());
    for term in refusing.iter().filter(|term| term.matches(pod, snapshot)) {
        term.domain(node).into_iter().for_each(|d| *counts.refused.entry(d).or_insert(0) += 1);
    }
}
