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
    /// Nodes that were looked at and refused, by their place in the snapshot.
    pub refused: BTreeMap<usize, Rejection>,
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
        self.blame(&rejection);
        self.refused.insert(node, rejection);
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
        self.refused.get(&node).or(self.others.as_ref())
    }

    /// How many nodes each reason holds for, as upstream sorts and words it.
    fn counted(&self) -> String {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.refused.values().flat_map(Rejection::reasons) {
            *reasons.entry(reason).or_insert(0) += 1;
        }
        let others = self.nodes - self.refused.len().min(self.nodes);
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
