//! Pods near to, or away from, other pods.
//!
//! For each topology key that terms name, pods are counted by the key's value, the *domain*. The counts for one
//! pod serve the next one like it ([`Memo`]), brought up to date with the pods that came and went.

use std::sync::Arc;

use foldhash::HashMap;
use k8s_openapi::api::core::v1::Pod;

use super::is_placed;
use super::selector::label;
use crate::config::args::InterPodAffinityArgs;
use crate::framework::memo::{Count, Memo};
use crate::framework::{
    Action, ClusterEvent, Filter, Interest, MAX_SCORE, Plugin, PreFilter, Rejection, Resource, Score,
};
use crate::node_info::NodeInfo;
use crate::pod_info::{
    AffinityTerms, Namespaces, PodInfo, Term, affinity, matches_all, node_name, nominated_node, uid,
};
use crate::snapshot::Snapshot;

const NAME: &str = "InterPodAffinity";

/// The plugin.
pub struct InterPodAffinity {
    args: InterPodAffinityArgs,
    required: Memo<Arc<PodInfo>, Required>,
    preferred: Memo<Arc<PodInfo>, Preferred>,
}

impl InterPodAffinity {
    /// With these arguments.
    #[must_use]
    pub fn new(args: &InterPodAffinityArgs) -> Self {
        Self { args: args.clone(), required: Memo::new(are_alike), preferred: Memo::new(are_alike) }
    }
}

/// Whether the two pods are the same to all terms, and have the same terms.
fn are_alike(one: &Arc<PodInfo>, other: &Arc<PodInfo>) -> bool {
    one.namespace() == other.namespace()
        && one.labels() == other.labels()
        && one.affinity.is_some() == other.affinity.is_some()
        && (one.affinity.is_none() || affinity(&one.pod) == affinity(&other.pod))
}

/// Numbers by topology key and domain.
#[derive(Clone, Debug, Default, PartialEq)]
struct Domains(Vec<(String, HashMap<String, i64>)>);

impl Domains {
    fn add(&mut self, key: &str, node: &NodeInfo, amount: i64) {
        let Some(domain) = node.label(key) else { return };
        let at = self.0.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
            self.0.push((key.to_owned(), HashMap::default()));
            self.0.len() - 1
        });
        let counts = &mut self.0[at].1;
        match counts.get_mut(domain) {
            Some(count) => {
                *count += amount;
                if *count == 0 {
                    counts.remove(domain);
                }
            }
            None => drop(counts.insert(domain.to_owned(), amount)),
        }
    }

    fn get(&self, key: &str, node: &NodeInfo) -> i64 {
        let counts = self.0.iter().find(|(k, _)| k == key).map(|(_, counts)| counts);
        counts.and_then(|counts| counts.get(node.label(key)?).copied()).unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, counts)| counts.is_empty())
    }

    /// The numbers of all domains that the node is in.
    fn of_node<'a>(&'a self, node: &'a NodeInfo) -> impl Iterator<Item = i64> + 'a {
        self.0.iter().filter_map(|(key, counts)| counts.get(node.label(key)?).copied())
    }
}

/// What required terms say, counted over all pods.
#[derive(Clone)]
struct Required {
    pod: Arc<PodInfo>,
    namespaces: Arc<Namespaces>,
    /// Pods that refuse the incoming one.
    refusing: Domains,
    /// Pods matching *all* the terms the incoming pod requires.
    wanted: Domains,
    /// Pods matching a term the incoming pod refuses.
    unwanted: Domains,
}

impl Required {
    fn count(pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Self {
        let mut count = Self {
            pod: pod.clone(),
            namespaces: snapshot.namespaces.clone(),
            refusing: Domains::default(),
            wanted: Domains::default(),
            unwanted: Domains::default(),
        };
        let wants = !pod.terms(|t| &t.required).is_empty() || !pod.terms(|t| &t.required_anti).is_empty();
        if wants {
            snapshot.nodes.iter().for_each(|node| count.all_of(node));
        } else {
            let refusing = snapshot.with_anti_affinity.iter().map(|at| &snapshot.nodes[*at]);
            refusing.for_each(|node| count.all_of(node));
        }
        count
    }

    fn all_of(&mut self, node: &NodeInfo) {
        node.pods.iter().for_each(|other| self.change(other, node, 1));
    }

    /// Whether there is nothing to check.
    fn is_idle(&self) -> bool {
        let pod = &self.pod;
        let wants = !pod.terms(|t| &t.required).is_empty() || !pod.terms(|t| &t.required_anti).is_empty();
        !wants && self.refusing.is_empty()
    }

    fn near_enough(&self, node: &NodeInfo) -> bool {
        let terms = self.pod.terms(|t| &t.required);
        if terms.iter().any(|term| node.label(&term.key).is_none()) {
            return false;
        }
        // The first of a group that wants to be together may start it.
        terms.iter().all(|term| self.wanted.get(&term.key, node) > 0)
            || (self.wanted.is_empty() && matches_all(terms, &self.pod.pod, &self.namespaces))
    }
}

impl Count for Required {
    fn change(&mut self, other: &PodInfo, node: &NodeInfo, sign: i64) {
        for term in other.terms(|t| &t.required_anti) {
            if term.matches(&self.pod.pod, &self.namespaces) {
                self.refusing.add(&term.key, node, sign);
            }
        }
        if self.pod.affinity.is_none() {
            return;
        }
        let pod = self.pod.clone();
        let wanted = pod.terms(|t| &t.required);
        if matches_all(wanted, &other.pod, &self.namespaces) {
            wanted.iter().for_each(|term| self.wanted.add(&term.key, node, sign));
        }
        for term in pod.terms(|t| &t.required_anti) {
            if term.matches(&other.pod, &self.namespaces) {
                self.unwanted.add(&term.key, node, sign);
            }
        }
    }
}

#[derive(Clone)]
struct Check(Arc<Required>);

impl Filter for Check {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let counts = &*self.0;
        if !counts.near_enough(node) {
            return Err(Rejection::unresolvable(NAME, "node(s) didn't match pod affinity rules"));
        }
        let away = counts.pod.terms(|t| &t.required_anti);
        if away.iter().any(|term| counts.unwanted.get(&term.key, node) > 0) {
            return Err(Rejection::new(NAME, "node(s) didn't match pod anti-affinity rules"));
        }
        if counts.refusing.of_node(node).any(|count| count > 0) {
            return Err(Rejection::new(NAME, "node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        Arc::make_mut(&mut self.0).change(pod, node, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        Arc::make_mut(&mut self.0).change(pod, node, -1);
    }

    fn counts_pods(&self) -> bool {
        true
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// What preferred terms say, of the incoming pod and of those that are there; weights summed over all pods.
#[derive(Clone)]
struct Preferred {
    pod: Arc<PodInfo>,
    namespaces: Arc<Namespaces>,
    hard_weight: i64,
    scores: Domains,
}

impl Preferred {
    fn count(pod: &Arc<PodInfo>, snapshot: &Snapshot, args: &InterPodAffinityArgs) -> Self {
        let mut count = Self {
            pod: pod.clone(),
            namespaces: snapshot.namespaces.clone(),
            hard_weight: args.hard_pod_affinity_weight.into(),
            scores: Domains::default(),
        };
        if pod.terms(|t| &t.preferred).is_empty() {
            let opinionated = snapshot.with_affinity.iter().map(|at| &snapshot.nodes[*at]);
            opinionated.for_each(|node| count.all_of(node));
        } else {
            snapshot.nodes.iter().for_each(|node| count.all_of(node));
        }
        count
    }

    fn all_of(&mut self, node: &NodeInfo) {
        node.pods.iter().for_each(|other| self.change(other, node, 1));
    }
}

impl Count for Preferred {
    fn change(&mut self, other: &PodInfo, node: &NodeInfo, sign: i64) {
        let pod = self.pod.clone();
        let mut score = |term: &Term, about: &Pod, weight: i64| {
            if term.matches(about, &self.namespaces) {
                self.scores.add(&term.key, node, sign * weight);
            }
        };
        for (term, weight) in pod.terms(|t| &t.preferred) {
            score(term, &other.pod, *weight);
        }
        let Some(theirs) = other.affinity.as_deref() else { return };
        if self.hard_weight > 0 {
            theirs.required.iter().for_each(|term| score(term, &pod.pod, self.hard_weight));
        }
        theirs.preferred.iter().for_each(|(term, weight)| score(term, &pod.pod, *weight));
    }
}

impl Score for Arc<Preferred> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.scores.of_node(node).sum()
    }

    fn normalize(&self, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or(0);
        let most = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            let share = (*score - least) as f64 / (most - least).max(1) as f64;
            *score = if most == least { 0 } else { (MAX_SCORE as f64 * share) as i64 };
        }
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![
            Interest::pods(Action::ADD.or(Action::POD_LABEL).or(Action::DELETE)),
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_LABEL)),
            Interest::of(Resource::Namespace, Action::ALL),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match (event.pods(), event.nodes()) {
            ((None, None), (old, Some(new))) => {
                let near = pod.terms(|t| &t.required).iter();
                let away = pod.terms(|t| &t.required_anti).iter();
                let value = |term: &Term| (old.and_then(|n| label(n, &term.key)), label(new, &term.key));
                let comes_near = |term: &Term| matches!(value(term), (old, Some(new)) if old != Some(new));
                let gets_away = |term: &Term| match (old, value(term)) {
                    (None, _) => true,
                    (_, (Some(before), now)) => now != Some(before),
                    _ => false,
                };
                near.into_iter().any(comes_near) || away.into_iter().any(gets_away)
            }
            ((None, None), _) => true,
            ((old, new), _) => pod_event_helps(pod, old.map(|p| &**p), new.map(|p| &**p)),
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<PreFilter, Rejection> {
        if pod.affinity.is_none() && snapshot.with_anti_affinity.is_empty() {
            return Ok(PreFilter::skip());
        }
        if let Some(fault) = pod.affinity.as_ref().and_then(|terms| terms.fault.as_ref()) {
            return Err(Rejection::unresolvable(NAME, format!("parsing pod: {fault}")));
        }
        let counts = self.required.get(pod, snapshot, || Required::count(pod, snapshot));
        Ok(if counts.is_idle() { PreFilter::skip() } else { PreFilter::with(Check(counts)) })
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        _: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Option<Box<dyn Score>> {
        let has_own = !pod.terms(|t| &t.preferred).is_empty();
        let theirs = !snapshot.with_affinity.is_empty() && !self.args.ignore_preferred_terms_of_existing_pods;
        if !has_own && !theirs {
            return None;
        }
        let counts = self.preferred.get(pod, snapshot, || Preferred::count(pod, snapshot, &self.args));
        (!counts.scores.is_empty()).then(|| Box::new(counts) as Box<dyn Score>)
    }
}

/// Whether a pod that came, went or changed its labels may resolve the refusal. Namespaces chosen by labels are not
/// looked up here: such terms count as being about the pod.
fn pod_event_helps(pod: &PodInfo, old: Option<&Pod>, new: Option<&Pod>) -> bool {
    if new.is_some_and(|new| old.is_some() && uid(new) == pod.uid()) {
        return true;
    }
    let waits = |pod: &Pod| node_name(pod).is_empty() && nominated_node(pod).is_empty();
    if new.is_some_and(waits) || old.is_some_and(waits) {
        return false;
    }
    let (near, away) = (pod.terms(|t| &t.required), pod.terms(|t| &t.required_anti));
    let all = |terms: &[Term], pod: &Pod| !terms.is_empty() && terms.iter().all(|t| t.may_match(pod));
    match (old, new) {
        (Some(old), Some(new)) => (!all(near, old) && all(near, new)) || (all(away, old) && !all(away, new)),
        (None, Some(new)) => all(near, new),
        (Some(old), None) => {
            let refused_us = AffinityTerms::of(old).is_some_and(|terms| all(&terms.required_anti, &pod.pod));
            is_placed(old) && (all(away, old) || refused_us)
        }
        (None, None) => true,
    }
}
