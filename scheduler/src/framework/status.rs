//! What plugins and the whole run say of a pod that cannot be placed, in upstream's words.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Removing other pods might help.
    Unschedulable,
    /// Removing other pods would not help.
    Unresolvable,
    /// Something outside is on its way; once it is there the pod is tried at once.
    Pending,
    /// Something went wrong that is not the pod's fault.
    Error,
}

/// Why a node, or every node, cannot take the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The plugin that says so.
    pub plugin: &'static str,
    /// What follows from it.
    pub code: Code,
    /// What it says; most have one reason only, which costs no memory if it is a constant.
    reason: Cow<'static, str>,
    more: Vec<Cow<'static, str>>,
}

impl Rejection {
    /// A refusal for one reason.
    pub fn with_code(plugin: &'static str, code: Code, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, code, reason: reason.into(), more: Vec::new() }
    }

    /// Removing other pods might help.
    pub fn new(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::with_code(plugin, Code::Unschedulable, reason)
    }

    /// Removing other pods would not help.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::with_code(plugin, Code::Unresolvable, reason)
    }

    /// Something went wrong.
    pub fn error(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::with_code(plugin, Code::Error, reason)
    }

    /// Adds a reason.
    pub fn push(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.more.push(reason.into());
    }

    /// All reasons; each is counted over nodes by itself.
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.reason).chain(&self.more).map(AsRef::as_ref).filter(|r| !r.is_empty())
    }

    /// The reasons as one text.
    #[must_use]
    pub fn message(&self) -> String {
        self.reasons().collect::<Vec<_>>().join(", ")
    }

    /// Whether removing other pods could not help either.
    #[must_use]
    pub fn is_unresolvable(&self) -> bool {
        self.code == Code::Unresolvable
    }
}

/// What is known of why a pod fits nowhere (upstream `Diagnosis` and `FitError`).
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// What was said of each node that was looked at and refused, by its place in the snapshot: a place among the
    /// kinds, counted from one. Nodes are many, and mostly the same is said of them.
    refused: Vec<u32>,
    kinds: Vec<Rejection>,
    /// What holds for the nodes that were not looked at; none: nothing can be said.
    pub others: Option<Rejection>,
    /// The refusal for all nodes before any was looked at.
    pub before: Option<Rejection>,
    /// The plugins that refused.
    pub plugins: BTreeSet<&'static str>,
    /// The plugins that wait for something outside.
    pub pending: BTreeSet<&'static str>,
    /// What making room for the pod came to.
    pub after: String,
}

impl Diagnosis {
    /// Of a cluster of that many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// One node refused.
    pub fn refuse(&mut self, node: usize, rejection: Rejection) {
        /// So far back is looked whether the same was said before.
        const BACK: usize = 8;
        let first = self.kinds.len().saturating_sub(BACK);
        let known = self.kinds[first..].iter().rposition(|kind| *kind == rejection);
        let kind = known.map_or(self.kinds.len(), |at| first + at);
        if known.is_none() {
            self.blame(&rejection);
            self.kinds.push(rejection);
        }
        if self.refused.len() <= node {
            self.refused.resize(self.nodes.max(node + 1), 0);
        }
        self.refused[node] = u32::try_from(kind + 1).unwrap_or(u32::MAX);
    }

    /// The nodes, in their order, of which is said what `what` looks for.
    #[must_use]
    pub fn nodes_with(&self, what: impl Fn(&Rejection) -> bool) -> Vec<usize> {
        let others = self.others.as_ref().is_some_and(&what);
        let kinds: Vec<bool> = std::iter::once(others).chain(self.kinds.iter().map(what)).collect();
        let said = |node: usize| self.refused.get(node).map_or(0, |kind| *kind as usize);
        (0..self.nodes).filter(|node| kinds[said(*node)]).collect()
    }

    /// Every node refused before any was looked at.
    pub fn refuse_all(&mut self, rejection: Rejection) {
        self.blame(&rejection);
        self.others = Some(rejection.clone());
        self.before = Some(rejection);
    }

    /// Remembers who refused.
    pub fn blame(&mut self, rejection: &Rejection) {
        match rejection.code {
            Code::Pending => self.pending.insert(rejection.plugin),
            _ => self.plugins.insert(rejection.plugin),
        };
    }

    /// What is said of a node; none if nothing is.
    #[must_use]
    pub fn of_node(&self, node: usize) -> Option<&Rejection> {
        let kind = self.refused.get(node).and_then(|kind| self.kinds.get((*kind as usize).checked_sub(1)?));
        kind.or(self.others.as_ref())
    }

    /// How many nodes each reason holds for, as upstream sorts and words it.
    fn counted(&self) -> String {
        let mut counts = vec![0; self.kinds.len() + 1];
        self.refused.iter().for_each(|kind| counts[*kind as usize] += 1);
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (kind, count) in self.kinds.iter().zip(&counts[1..]).filter(|(_, count)| **count > 0) {
            kind.reasons().for_each(|reason| *reasons.entry(reason).or_insert(0) += count);
        }
        let others = self.nodes.saturating_sub(counts[1..].iter().sum());
        for reason in self.others.iter().flat_map(Rejection::reasons).filter(|_| others > 0) {
            *reasons.entry(reason).or_insert(0) += others;
        }
        let mut lines: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        lines.sort();
        lines.join(", ")
    }
}

/// As upstream words the event and the condition.
impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        let before = self.before.as_ref().map(Rejection::message).filter(|message| !message.is_empty());
        let reasons = before.unwrap_or_else(|| self.counted());
        if !reasons.is_empty() {
            write!(f, " {reasons}.")?;
        }
        if !self.after.is_empty() {
            write!(f, " {}", self.after)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_upstream_does() {
        let mut diagnosis = Diagnosis::new(3);
        diagnosis.refuse(0, Rejection::new("NodeResourcesFit", "Insufficient cpu"));
        diagnosis.refuse(2, Rejection::new("NodeResourcesFit", "Insufficient cpu"));
        diagnosis.refuse(1, Rejection::unresolvable("NodeUnschedulable", "node(s) were unschedulable"));
        let expected = "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.";
        assert_eq!(diagnosis.to_string(), expected);
        diagnosis.after = "preemption: not eligible due to preemptionPolicy=Never.".into();
        let with_more = format!("{expected} preemption: not eligible due to preemptionPolicy=Never.");
        assert_eq!(diagnosis.to_string(), with_more);
        assert_eq!(Diagnosis::new(0).to_string(), "no nodes available to schedule pods");
    }

    #[test]
    fn what_is_said_of_each_node_can_be_asked() {
        let mut diagnosis = Diagnosis::new(30);
        for node in 0..20 {
            diagnosis.refuse(node, Rejection::new("a", format!("reason {}", node % 13)));
        }
        diagnosis.refuse(3, Rejection::unresolvable("b", "never"));
        assert_eq!(diagnosis.of_node(2), Some(&Rejection::new("a", "reason 2")));
        assert_eq!(diagnosis.of_node(3), Some(&Rejection::unresolvable("b", "never")));
        assert_eq!(diagnosis.of_node(25), None);
        let is = |reason: &'static str| move |r: &Rejection| r.message() == reason;
        assert_eq!(diagnosis.nodes_with(is("reason 4")), [4, 17]);
        assert_eq!(diagnosis.nodes_with(Rejection::is_unresolvable), [3]);
        assert_eq!(diagnosis.to_string().matches("2 reason 4").count(), 1, "{diagnosis}");
        assert!(diagnosis.to_string().contains("1 reason 3,"), "{diagnosis}");
        diagnosis.others = Some(Rejection::unresolvable("c", "not helpful"));
        assert_eq!(diagnosis.nodes_with(Rejection::is_unresolvable).len(), 11);
        assert_eq!(diagnosis.of_node(25), diagnosis.others.as_ref());
    }

    #[test]
    fn nodes_that_were_not_looked_at_count_too() {
        let mut diagnosis = Diagnosis::new(4);
        diagnosis.refuse(1, Rejection::new("a", "No preemption victims found for incoming pod"));
        diagnosis.others = Some(Rejection::unresolvable("b", "Preemption is not helpful for scheduling"));
        assert_eq!(
            diagnosis.to_string(),
            "0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn a_refusal_before_any_node_is_said_once() {
        let mut diagnosis = Diagnosis::new(4);
        diagnosis
            .refuse_all(Rejection::unresolvable("VolumeBinding", "persistentvolumeclaim \"x\" not found"));
        assert_eq!(diagnosis.to_string(), "0/4 nodes are available: persistentvolumeclaim \"x\" not found.");
    }
}
