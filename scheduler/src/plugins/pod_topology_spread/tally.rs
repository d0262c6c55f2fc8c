//! Matching pods, counted by domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

use super::HOSTNAME;
use super::constraints::{Constraint, has_all};
use crate::framework::memo::Count;
use crate::node_info::NodeInfo;
use crate::plugins::selector::{node_affinity, node_selector, required_matches};
use crate::plugins::taint_toleration::{is_kept_away, tolerations};
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// All that the counts depend on.
#[derive(Clone)]
pub(super) struct Key {
    pod: Arc<PodInfo>,
    constraints: Arc<Vec<Constraint>>,
    need_all: bool,
}

impl Key {
    pub(super) fn new(pod: &Arc<PodInfo>, constraints: Vec<Constraint>, need_all: bool) -> Self {
        Self { pod: pod.clone(), constraints: Arc::new(constraints), need_all }
    }

    fn counts_node(&self, constraint: &Constraint, node: &NodeInfo) -> bool {
        (!constraint.by_affinity || required_matches(&self.pod.pod, &node.node))
            && (!constraint.by_taints || !is_kept_away(&self.pod.pod, node.taints()))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.need_all == other.need_all
            && self.pod.namespace() == other.pod.namespace()
            && self.constraints == other.constraints
            && node_selector(&self.pod.pod) == node_selector(&other.pod.pod)
            && node_affinity(&self.pod.pod) == node_affinity(&other.pod.pod)
            && tolerations(&self.pod.pod) == tolerations(&other.pod.pod)
    }
}

/// The pods of each domain, and how many domains have how many pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    by_domain: HashMap<String, i64>,
    domains_with: BTreeMap<i64, usize>,
}

impl Counts {
    pub(super) fn get(&self, domain: &str) -> i64 {
        self.by_domain.get(domain).copied().unwrap_or(0)
    }

    /// The least count of any domain; 0 if there are fewer domains than wanted.
    pub(super) fn least(&self, min_domains: usize) -> i64 {
        if self.by_domain.len() < min_domains {
            return 0;
        }
        self.domains_with.keys().next().copied().unwrap_or(0)
    }

    fn add(&mut self, domain: &str, amount: i64) {
        let count = match self.by_domain.get_mut(domain) {
            Some(count) => {
                if amount == 0 {
                    return;
                }
                if let Some(domains) = self.domains_with.get_mut(count) {
                    *domains -= 1;
                    if *domains == 0 {
                        self.domains_with.remove(count);
                    }
                }
                *count += amount;
                *count
            }
            None => {
                self.by_domain.insert(domain.to_owned(), amount);
                amount
            }
        };
        *self.domains_with.entry(count).or_insert(0) += 1;
    }
}

/// The counts for all constraints of a pod.
#[derive(Clone)]
pub(super) struct Tally {
    key: Key,
    /// For scores, pods are counted on each host by itself, whatever its label, and on all hosts.
    hosts_apart: bool,
    counts: Vec<Counts>,
}

impl Tally {
    pub(super) fn hard(key: &Key, snapshot: &Snapshot) -> Self {
        Self::count(key, snapshot, false)
    }

    pub(super) fn soft(key: &Key, snapshot: &Snapshot) -> Self {
        Self::count(key, snapshot, true)
    }

    fn count(key: &Key, snapshot: &Snapshot, hosts_apart: bool) -> Self {
        let counts = key.constraints.iter().map(|_| Counts::default()).collect();
        let mut tally = Self { key: key.clone(), hosts_apart, counts };
        for node in &snapshot.nodes {
            for at in 0..key.constraints.len() {
                let matching = node.pods.iter().filter(|pod| tally.is_about(at, pod)).count();
                tally.add(at, node, i64::try_from(matching).unwrap_or(i64::MAX));
            }
        }
        tally
    }

    /// The constraints with their counts.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&Constraint, &Counts)> {
        self.key.constraints.iter().zip(&self.counts)
    }

    fn is_about(&self, at: usize, pod: &PodInfo) -> bool {
        let selector = &self.key.constraints[at].selector;
        !selector.is_empty()
            && pod.namespace() == self.key.pod.namespace()
            && !pod.is_terminating()
            && selector.matches(pod.labels())
    }

    fn add(&mut self, at: usize, node: &NodeInfo, amount: i64) {
        let constraint = &self.key.constraints[at];
        if self.hosts_apart && constraint.key == HOSTNAME {
            return self.counts[at].add(node.name(), amount);
        }
        let in_question = !self.key.need_all || has_all(&node.node, &self.key.constraints);
        if let Some(domain) = node.label(&constraint.key)
            && in_question
            && self.key.counts_node(constraint, node)
        {
            self.counts[at].add(domain, amount);
        }
    }
}

impl Count for Tally {
    fn change(&mut self, pod: &PodInfo, node: &NodeInfo, sign: i64) {
        for at in 0..self.counts.len() {
            if self.is_about(at, pod) {
                self.add(at, node, sign);
            }
        }
    }
}
