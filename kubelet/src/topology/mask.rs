//! Sets of NUMA nodes of one machine, numbers 0 to 63.

use std::fmt;

/// A set of NUMA nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NumaMask(u64);

/// Most NUMA nodes a mask can tell apart.
pub const MAX_NODES: usize = 64;

impl NumaMask {
    /// The set of these nodes; numbers out of range are left out.
    #[must_use]
    pub fn of(nodes: impl IntoIterator<Item = usize>) -> Self {
        Self(nodes.into_iter().filter(|n| *n < MAX_NODES).fold(0, |bits, n| bits | 1 << n))
    }

    /// How many nodes it has.
    #[must_use]
    pub fn count(self) -> usize {
        usize::try_from(self.0.count_ones()).unwrap_or(MAX_NODES)
    }

    /// It has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a node is in it.
    #[must_use]
    pub fn contains(self, node: usize) -> bool {
        node < MAX_NODES && self.0 & (1 << node) != 0
    }

    /// Whether any of these is in it.
    #[must_use]
    pub fn contains_any(self, nodes: &[usize]) -> bool {
        nodes.iter().any(|node| self.contains(*node))
    }

    /// The nodes of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The nodes of either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Fewer nodes; of as many, the lower ones.
    #[must_use]
    pub fn is_narrower_than(self, other: Self) -> bool {
        if self.count() == other.count() { self.is_less_than(other) } else { self.count() < other.count() }
    }

    /// The lower nodes.
    #[must_use]
    pub fn is_less_than(self, other: Self) -> bool {
        self.0 < other.0
    }

    /// Its nodes, in order.
    pub fn nodes(self) -> impl Iterator<Item = usize> {
        (0..MAX_NODES).filter(move |node| self.contains(*node))
    }

    /// All sets of at least one of `nodes`: the smallest first, and of as many, in the order of `nodes`.
    #[must_use]
    pub fn subsets(nodes: &[usize]) -> Vec<Self> {
        let mut found = Vec::new();
        for size in 1..=nodes.len() {
            extend(nodes, Self::default(), size, &mut found);
        }
        found
    }
}

fn extend(nodes: &[usize], chosen: NumaMask, left: usize, found: &mut Vec<NumaMask>) {
    if left == 0 {
        found.push(chosen);
        return;
    }
    for (at, node) in nodes.iter().enumerate() {
        extend(&nodes[at + 1..], chosen.or(NumaMask::of([*node])), left - 1, found);
    }
}

impl fmt::Display for NumaMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.nodes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrower_is_fewer_or_lower() {
        let mask = |nodes: &[usize]| NumaMask::of(nodes.iter().copied());
        for (a, b, narrower) in [
            (&[0][..], &[0, 1][..], true),
            (&[0], &[1], true),
            (&[1], &[0], false),
            (&[0, 1], &[2], false),
            (&[0, 2], &[1, 2], true),
            (&[0], &[0], false),
        ] {
            assert_eq!(mask(a).is_narrower_than(mask(b)), narrower, "{a:?} {b:?}");
        }
        assert!(!NumaMask::of([64, 99]).contains(64));
        assert!(NumaMask::of([64]).is_empty());
    }

    #[test]
    fn subsets_come_by_size() {
        let shown: Vec<_> = NumaMask::subsets(&[0, 1, 3]).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["{0}", "{1}", "{3}", "{0, 1}", "{0, 3}", "{1, 3}", "{0, 1, 3}"]);
        assert!(NumaMask::subsets(&[]).is_empty());
    }
}
