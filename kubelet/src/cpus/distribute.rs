//! Takes CPUs evenly from as few NUMA nodes as will do. Pure; as upstream's `takeByTopologyNUMADistributed` (KEP-2902).

use std::collections::BTreeMap;

use super::layout::{Layout, Level};
use super::set::CpuSet;
use super::take::{Manner, Taker, packed};

/// Takes so many of the free CPUs, in groups of `group`.
pub(super) fn distributed(
    layout: &Layout,
    free: &CpuSet,
    count: usize,
    group: usize,
    manner: Manner,
) -> Result<CpuSet, String> {
    let manner = Manner { by_uncore: false, ..manner };
    if !count.is_multiple_of(group) {
        return packed(layout, free, count, manner);
    }
    let mut taker = Taker::new(layout, free, count, manner);
    if count == 0 {
        return Ok(CpuSet::default());
    }
    taker.check(free)?;
    let numa = taker.parts(Level::Numa);
    let available: BTreeMap<usize, usize> =
        numa.iter().map(|node| (*node, taker.free.cpus_of(Level::Numa, *node).len())).collect();
    let (least, most) = range(layout, &available, count, group);
    for size in least..=most {
        let Some(best) = best(&combinations(&numa, size), &available, count, group) else { continue };
        return take(&mut taker, layout, &best, (count, group), manner);
    }
    packed(layout, free, count, manner)
}

/// Between how many NUMA nodes the answer lies.
fn range(layout: &Layout, available: &BTreeMap<usize, usize>, count: usize, group: usize) -> (usize, usize) {
    let groups = layout.cpus().len().div_ceil(group);
    let per_node = groups.div_ceil(layout.all(Level::Numa).len().max(1)).max(1);
    let needed = count.div_ceil(group);
    (needed.div_ceil(per_node), needed.min(available.len()))
}

/// Where CPUs are taken from: the same from each node, and what remains from some of them.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    balance: f64,
    nodes: Vec<usize>,
    remainder: Vec<usize>,
}

/// The combination after which what is free is spread most evenly.
fn best(
    combinations: &[Vec<usize>],
    available: &BTreeMap<usize, usize>,
    count: usize,
    group: usize,
) -> Option<Plan> {
    let mut best: Option<Plan> = None;
    for nodes in combinations {
        if best.as_ref().is_some_and(|best| best.balance == 0.0) {
            break;
        }
        let Some((balance, remainder)) = score(nodes, available, count, group) else { continue };
        if best.as_ref().is_none_or(|best| balance < best.balance) {
            best = Some(Plan { balance, nodes: nodes.clone(), remainder });
        }
    }
    best
}

/// How even it is afterwards, and where the remainder comes from; `None` where it cannot be done.
fn score(
    nodes: &[usize],
    available: &BTreeMap<usize, usize>,
    count: usize,
    group: usize,
) -> Option<(f64, Vec<usize>)> {
    let free = |node: &usize| available.get(node).copied().unwrap_or_default();
    let groups: usize = nodes.iter().map(|node| free(node) / group).sum();
    let each = each(count, nodes.len(), group);
    if groups * group < count || nodes.iter().any(|node| free(node) < each) {
        return None;
    }
    let mut after = available.clone();
    for node in nodes {
        after.entry(*node).and_modify(|left| *left -= each);
    }
    let remainder = count - each * nodes.len();
    if remainder == 0 {
        return Some((deviation(&after), Vec::new()));
    }
    let able: Vec<usize> =
        nodes.iter().copied().filter(|node| after.get(node).is_some_and(|left| *left >= group)).collect();
    let mut best: Option<(f64, Vec<usize>)> = None;
    for size in (1..=able.len()).rev() {
        for subset in combinations(&able, size) {
            let Some(balance) = strip(after.clone(), &subset, remainder, group) else { continue };
            if best.as_ref().is_none_or(|(known, _)| balance < *known) {
                best = Some((balance, subset));
            }
        }
    }
    best
}

fn each(count: usize, nodes: usize, group: usize) -> usize {
    count / nodes / group * group
}

/// How even it is when the remainder is taken from these in turn.
fn strip(
    mut after: BTreeMap<usize, usize>,
    subset: &[usize],
    mut remainder: usize,
    group: usize,
) -> Option<f64> {
    while remainder > 0 {
        let before = remainder;
        for node in subset {
            if remainder > 0
                && let Some(left) = after.get_mut(node).filter(|left| **left >= group)
            {
                *left -= group;
                remainder -= group;
            }
        }
        if before == remainder {
            return None;
        }
    }
    Some(deviation(&after))
}

/// Standard deviation, to three places.
#[allow(clippy::cast_precision_loss, reason = "numbers of CPUs are small")]
fn deviation(values: &BTreeMap<usize, usize>) -> f64 {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let count = values.len() as f64;
    let mean = round(values.values().map(|v| *v as f64).sum::<f64>() / count);
    round((values.values().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / count).sqrt())
}

fn take(
    taker: &mut Taker<'_>,
    layout: &Layout,
    plan: &Plan,
    (count, group): (usize, usize),
    manner: Manner,
) -> Result<CpuSet, String> {
    let each = each(count, plan.nodes.len(), group);
    for node in &plan.nodes {
        let cpus = packed(layout, &taker.free.cpus_of(Level::Numa, *node), each, manner)?;
        taker.take(&cpus);
    }
    let mut remainder = count - each * plan.nodes.len();
    while remainder > 0 {
        let before = remainder;
        for node in &plan.remainder {
            let free = taker.free.cpus_of(Level::Numa, *node);
            if remainder > 0 && free.len() >= group {
                taker.take(&packed(layout, &free, group, manner)?);
                remainder -= group;
            }
        }
        if before == remainder {
            break;
        }
    }
    if taker.needed > 0 {
        return Err(format!("accounting error, not enough CPUs allocated, remaining: {}", taker.needed));
    }
    Ok(std::mem::take(&mut taker.taken))
}

/// All choices of `size` of `items`, in their order.
fn combinations(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for (at, item) in items.iter().enumerate() {
        for mut rest in combinations(&items[at + 1..], size - 1) {
            rest.insert(0, *item);
            found.push(rest);
        }
    }
    found
}
