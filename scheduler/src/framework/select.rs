//! Which nodes can take a pod, and which of them is the best.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::known::{self, Known};
use super::{Code, Diagnosis, Framework, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::parallel;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// So many nodes are looked at by one thread. Enough are found among them mostly; if not, others help.
const ALONE: usize = 1024;
/// So many nodes a thread looks at before it asks whether that is enough.
const BLOCK: usize = 256;

/// The pods nominated to each node.
pub type Nominated = HashMap<String, Vec<Arc<PodInfo>>>;

/// The nodes that can take a pod.
#[derive(Debug, Default)]
pub struct Choice {
    /// The nodes.
    pub feasible: Vec<Arc<NodeInfo>>,
    /// How many nodes were looked at.
    pub evaluated: usize,
}

/// One look at the nodes.
struct Round<'a> {
    pod: &'a Arc<PodInfo>,
    prepared: &'a Prepared,
    snapshot: &'a Snapshot,
    there: &'a [&'a [Arc<PodInfo>]],
}

impl Round<'_> {
    fn nominated(&self, at: usize) -> &[Arc<PodInfo>] {
        self.there.get(at).copied().unwrap_or_default()
    }

    /// Whether the pod fits on the node.
    fn look(&self, known: Option<&Known>, at: usize) -> Result<(), Rejection> {
        let (node, nominated) = (&self.snapshot.nodes[at], self.nominated(at));
        if let Some(verdict) = known.and_then(|known| known.fits(at, node, nominated)) {
            return verdict;
        }
        match nominated {
            [] => self.prepared.check(node),
            others => self.prepared.check_with_nominated(self.pod, node, others),
        }
    }

    fn learn(&self, known: &mut Known, at: usize, verdict: &Result<(), Rejection>) {
        if !matches!(verdict, Err(rejection) if rejection.code == Code::Error) {
            known.learn_fit(at, &self.snapshot.nodes[at], self.nominated(at), self.pod.uid(), verdict);
        }
    }
}

impl Framework {
    /// The nodes that can take the pod, as many as are worth looking for. `start` is where to begin among the
    /// nodes, so that all of them get their turn. Refusals go to the diagnosis.
    ///
    /// # Errors
    /// A plugin failed.
    pub fn find_feasible(
        &self,
        pod: &Arc<PodInfo>,
        prepared: &Prepared,
        snapshot: &Snapshot,
        nominated: &Nominated,
        search: Search,
        diagnosis: &mut Diagnosis,
    ) -> Result<Choice, Rejection> {
        let there = known::by_place(nominated, snapshot);
        let round = Round { pod, prepared, snapshot, there: &there };
        let mut known = self.known.take(pod, prepared, snapshot);
        let choice = self.look_around(&round, search, &mut known, diagnosis);
        self.known.keep(known);
        choice
    }

    fn look_around(
        &self,
        round: &Round<'_>,
        search: Search,
        known: &mut Option<Known>,
        diagnosis: &mut Diagnosis,
    ) -> Result<Choice, Rejection> {
        let (snapshot, prepared) = (round.snapshot, round.prepared);
        if let Some(at) = snapshot.place(round.pod.nominated_node()) {
            // The node that room was made on is the most likely, maybe the only one.
            match round.look(known.as_ref(), at) {
                Ok(()) => return Ok(Choice { feasible: vec![snapshot.nodes[at].clone()], evaluated: 1 }),
                Err(rejection) if rejection.code == Code::Error => return Err(rejection),
                Err(rejection) => diagnosis.refuse(at, rejection),
            }
        }
        let narrowed: Option<Vec<usize>> =
            prepared.nodes.as_ref().map(|names| names.iter().filter_map(|n| snapshot.place(n)).collect());
        let count = narrowed.as_ref().map_or(snapshot.nodes.len(), Vec::len);
        if narrowed.is_some() {
            let names = prepared.narrowed_by.iter().copied().collect::<Vec<_>>().join(" ");
            let reason = format!("node(s) didn't satisfy plugin(s) [{names}]");
            diagnosis.plugins.extend(&prepared.narrowed_by);
            diagnosis.others = Some(Rejection::unresolvable("", reason));
        }
        let enough = search.enough(self.percentage_of_nodes_to_score, count);
        let place = |i: usize| {
            let at = (search.start + i) % count;
            narrowed.as_ref().map_or(at, |places| places[at])
        };
        let mut choice = Choice::default();
        let mut note = |choice: &mut Choice, known: &mut Option<Known>, at: usize, verdict| {
            if let Some(known) = known {
                round.learn(known, at, &verdict);
            }
            choice.evaluated += 1;
            match verdict {
                Ok(()) => choice.feasible.push(snapshot.nodes[at].clone()),
                Err(rejection) if rejection.code == Code::Error => return Err(rejection),
                Err(rejection) => diagnosis.refuse(at, rejection),
            }
            Ok(choice.feasible.len() >= enough)
        };
        let alone = if search.threads > 1 { count.min(ALONE) } else { count };
        for at in (0..alone).map(place) {
            let verdict = round.look(known.as_ref(), at);
            if note(&mut choice, known, at, verdict)? {
                return Ok(choice);
            }
        }
        let found = AtomicUsize::new(choice.feasible.len());
        let seen = known.as_ref();
        let verdicts = parallel::in_blocks(
            search.threads,
            count - alone,
            BLOCK,
            || (),
            |(), range| {
                let verdicts: Vec<_> =
                    range.map(|i| place(alone + i)).map(|at| (at, round.look(seen, at))).collect();
                let fit = verdicts.iter().filter(|(_, verdict)| verdict.is_ok()).count();
                (verdicts, found.fetch_add(fit, Ordering::Relaxed) + fit >= enough)
            },
        );
        for (at, verdict) in verdicts.into_iter().flatten() {
            if note(&mut choice, known, at, verdict)? {
                break;
            }
        }
        Ok(choice)
    }

    /// The sum of weighted scores of each node.
    #[must_use]
    pub fn score_nodes(&self, pod: &Arc<PodInfo>, nodes: &[Arc<NodeInfo>], snapshot: &Snapshot) -> Vec<i64> {
        let mut totals = vec![0; nodes.len()];
        let mut scores = vec![0; nodes.len()];
        for weighted in &self.score {
            let Some(scorer) = weighted.plugin.pre_score(pod, nodes, snapshot) else { continue };
            for (score, node) in scores.iter_mut().zip(nodes) {
                *score = scorer.score(node);
            }
            scorer.normalize(nodes, &mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * weighted.weight;
            }
        }
        totals
    }
}

/// One of those with the greatest score, at random.
#[must_use]
pub fn best(totals: &[i64]) -> Option<usize> {
    let greatest = totals.iter().copied().max()?;
    let best: Vec<_> = (0..totals.len()).filter(|i| totals[*i] == greatest).collect();
    best.get(rand::random_range(0..best.len())).copied()
}

/// Where and how far to look for nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// Where to begin among the nodes.
    pub start: usize,
    /// The scheduler's percentage of nodes; 0: as many as the size of the cluster suggests.
    pub percentage: i32,
    /// Whether any node will do, because nothing scores them.
    pub first_will_do: bool,
    /// How many threads may look; none or one: only this one.
    pub threads: usize,
}

impl Search {
    fn enough(self, of_profile: Option<i32>, count: usize) -> usize {
        if self.first_will_do { 1 } else { enough_nodes(of_profile.unwrap_or(self.percentage), count) }
    }
}

/// How many feasible nodes are enough to choose from (upstream `numFeasibleNodesToFind`).
#[must_use]
pub fn enough_nodes(percentage: i32, count: usize) -> usize {
    const ALWAYS: usize = 100;
    if count < ALWAYS {
        return count.max(1);
    }
    let percent = match usize::try_from(percentage) {
        Ok(0) | Err(_) => 50_usize.saturating_sub(count / 125).max(5),
        Ok(percent) => percent,
    };
    (count * percent / 100).max(ALWAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_clusters_are_not_searched_whole() {
        for (percentage, count, enough) in [
            (0, 0, 1),
            (0, 50, 50),
            (0, 100, 100),
            (0, 1000, 420),
            (0, 5000, 500),
            (0, 10_000, 500),
            (40, 1000, 400),
            (40, 200, 100),
            (100, 6000, 6000),
        ] {
            assert_eq!(enough_nodes(percentage, count), enough, "{percentage} % of {count}");
        }
    }
}
