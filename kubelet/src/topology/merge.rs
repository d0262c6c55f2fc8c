//! From what each resource could do, what all of them do together. Pure; as upstream's `topologymanager/policy.go`.

use std::collections::BTreeMap;

use super::mask::NumaMask;
use super::options::{Options, Policy};
use super::{Hint, Hints};

/// NUMA nodes of a machine and how far they are from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaInfo {
    /// The nodes' numbers, in order.
    pub nodes: Vec<usize>,
    /// Distances from a node to all, in their order; empty where nobody asks for them.
    pub distances: BTreeMap<usize, Vec<u64>>,
}

impl NumaInfo {
    fn all(&self) -> NumaMask {
        NumaMask::of(self.nodes.iter().copied())
    }

    /// The mean distance between the nodes of a set, themselves included.
    #[allow(clippy::cast_precision_loss, reason = "distances are small numbers")]
    fn distance(&self, mask: NumaMask) -> f64 {
        let between = |from: usize, to: usize| {
            self.distances.get(&from).and_then(|row| row.get(to)).copied().unwrap_or_default()
        };
        let sum: u64 = mask.nodes().flat_map(|a| mask.nodes().map(move |b| between(a, b))).sum();
        let pairs = mask.count() * mask.count();
        if pairs == 0 { 0.0 } else { sum as f64 / pairs as f64 }
    }

    fn closest(&self, a: NumaMask, b: NumaMask) -> NumaMask {
        if a.count() != b.count() {
            return narrowest(a, b);
        }
        match self.distance(a).total_cmp(&self.distance(b)) {
            std::cmp::Ordering::Less => a,
            std::cmp::Ordering::Greater => b,
            std::cmp::Ordering::Equal => {
                if a.is_less_than(b) {
                    a
                } else {
                    b
                }
            }
        }
    }
}

fn narrowest(a: NumaMask, b: NumaMask) -> NumaMask {
    if a.is_narrower_than(b) { a } else { b }
}

/// The best alignment of what the providers offer, and whether it is good enough.
#[must_use]
pub fn merge(policy: Policy, info: &NumaInfo, options: Options, providers: &[Hints]) -> (Hint, bool) {
    if policy == Policy::None {
        return (Hint::default(), true);
    }
    let mut offers = offers(providers);
    if policy == Policy::SingleNumaNode {
        for offer in &mut offers {
            offer.retain(|hint| hint.preferred && hint.affinity.is_none_or(|mask| mask.count() == 1));
        }
    }
    let merger = Merger {
        info,
        closest: options.prefer_closest && policy != Policy::SingleNumaNode,
        widest_need: widest_need(&offers),
    };
    let (mask, preferred) = merger.best(&offers);
    let any = policy == Policy::SingleNumaNode && mask == info.all();
    let hint = Hint { affinity: (!any).then_some(mask), preferred };
    (hint, policy == Policy::BestEffort || preferred)
}

/// One list of hints for each resource. Who says nothing is content with anything; who can do nothing says so.
fn offers(providers: &[Hints]) -> Vec<Vec<Hint>> {
    let content = || vec![Hint { affinity: None, preferred: true }];
    let mut all = Vec::new();
    for hints in providers {
        if hints.is_empty() {
            all.push(content());
        }
        for offered in hints.values() {
            all.push(match offered {
                None => content(),
                Some(none) if none.is_empty() => vec![Hint { affinity: None, preferred: false }],
                Some(some) => some.clone(),
            });
        }
    }
    all
}

/// How many NUMA nodes the neediest resource cannot do without.
fn widest_need(offers: &[Vec<Hint>]) -> usize {
    let least = |offer: &Vec<Hint>| {
        let masks = offer.iter().filter_map(|hint| hint.affinity);
        masks.reduce(narrowest).map_or(0, NumaMask::count)
    };
    offers.iter().map(least).max().unwrap_or_default()
}

struct Merger<'a> {
    info: &'a NumaInfo,
    closest: bool,
    widest_need: usize,
}

impl Merger<'_> {
    fn best(&self, offers: &[Vec<Hint>]) -> (NumaMask, bool) {
        let mut best = None;
        self.visit(offers, (self.info.all(), true, None), &mut best);
        best.unwrap_or((self.info.all(), false))
    }

    /// Goes through all combinations of one hint each. A combination is preferred if all its hints are and agree.
    fn visit(
        &self,
        offers: &[Vec<Hint>],
        (mask, preferred, first): (NumaMask, bool, Option<NumaMask>),
        best: &mut Option<(NumaMask, bool)>,
    ) {
        let Some((offer, rest)) = offers.split_first() else {
            *best = self.better(*best, (mask, preferred));
            return;
        };
        for hint in offer {
            let agrees = hint.affinity.is_none_or(|own| first.is_none_or(|first| first == own));
            let merged = hint.affinity.map_or(mask, |own| mask.and(own));
            self.visit(rest, (merged, preferred && agrees && hint.preferred, first.or(hint.affinity)), best);
        }
    }

    fn better(
        &self,
        current: Option<(NumaMask, bool)>,
        candidate: (NumaMask, bool),
    ) -> Option<(NumaMask, bool)> {
        if candidate.0.is_empty() {
            return current;
        }
        let Some(current) = current else { return Some(candidate) };
        Some(match (current.1, candidate.1) {
            (false, true) => candidate,
            (true, false) => current,
            (true, true) => self.fitter(current, candidate),
            (false, false) => self.less_bad(current, candidate),
        })
    }

    fn fitter(&self, current: (NumaMask, bool), candidate: (NumaMask, bool)) -> (NumaMask, bool) {
        let best = if self.closest {
            self.info.closest(current.0, candidate.0)
        } else {
            narrowest(current.0, candidate.0)
        };
        if best == current.0 { current } else { candidate }
    }

    /// Of two that nobody prefers: as close as possible to what the neediest resource needs, not more.
    fn less_bad(&self, current: (NumaMask, bool), candidate: (NumaMask, bool)) -> (NumaMask, bool) {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let (now, then) = (current.0.count(), candidate.0.count());
        match (now.cmp(&self.widest_need), then.cmp(&self.widest_need)) {
            (Greater, _) | (Equal, Equal) => self.fitter(current, candidate),
            (Equal, _) | (Less, Greater) => current,
            (Less, Equal) => candidate,
            (Less, Less) => match then.cmp(&now) {
                Greater => candidate,
                Less => current,
                Equal => self.fitter(current, candidate),
            },
        }
    }
}
