//! The taints that a node's conditions call for.

use super::time;
use crate::common::{meta, nodes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, status, and the taint that follows from them.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Whether NoExecute taints may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evict {
    /// They may.
    Yes,
    /// Not now; those that are there stay.
    Later,
    /// They may not, and those that are there go: everything fails at once, which is more likely our own fault.
    Never,
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}

/// Whether two states of a node call for the same.
pub fn decide_alike(old: &Node, new: &Node) -> bool {
    let same = |kind| nodes::condition(old, kind) == nodes::condition(new, kind);
    BY_CONDITION.iter().all(|(kind, ..)| same(kind))
        && nodes::taints(old) == nodes::taints(new)
        && is_unschedulable(old) == is_unschedulable(new)
        && meta::labels(&old.metadata) == meta::labels(&new.metadata)
}

/// The taints to write; `None` when they are right.
pub fn plan(node: &Node, evict: Evict, now: Timestamp) -> Option<Vec<Taint>> {
    let have = nodes::taints(node);
    let mut wanted: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(kind, status, _)| nodes::condition(node, kind) == Some(status))
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    if is_unschedulable(node) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let held = |key: &str| have.iter().any(|taint| taint.key == key && taint.effect == "NoExecute");
    let evicting = match nodes::condition(node, "Ready") {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    // One that is already evicting goes over to the other taint at once.
    let already = held(NOT_READY) || held(UNREACHABLE);
    if let Some(key) = evicting
        && (evict == Evict::Yes || (evict == Evict::Later && already))
    {
        wanted.push((key, "NoExecute"));
    }
    let ready_known = nodes::condition(node, "Ready").is_some();
    let ours = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => {
            taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key)
        }
        "NoExecute" => ready_known && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        _ => false,
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> =
        have.iter().filter(|taint| !ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: time(now),
                value: None,
            });
        }
    }
    (taints != have).then_some(taints)
}

/// Whether the node waits for a permit to be given a NoExecute taint.
pub fn wants_eviction(node: &Node) -> bool {
    let key = match nodes::condition(node, "Ready") {
        Some("False") => NOT_READY,
        Some("Unknown") => UNREACHABLE,
        _ => return false,
    };
    !nodes::taints(node).iter().any(|taint| taint.key == key && taint.effect == "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::super::health::tests::node;
    use super::*;
    use crate::common::pods::tests::at;
    use k8s_openapi::api::core::v1::NodeSpec;

    /// Taints as `key:effect`, without the common prefix.
    fn planned(
        ready: Option<&str>,
        have: &[(&str, &str)],
        unschedulable: bool,
        evict: Evict,
    ) -> Option<Vec<String>> {
        let mut node = node("n", ready);
        let taint = |(key, effect): &(&str, &str)| Taint {
            key: if key.contains('.') { (*key).into() } else { format!("node.kubernetes.io/{key}") },
            effect: (*effect).into(),
            ..Default::default()
        };
        node.spec = Some(NodeSpec {
            taints: Some(have.iter().map(taint).collect()),
            unschedulable: Some(unschedulable),
            ..Default::default()
        });
        let text = |taint: &Taint| {
            format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect)
        };
        plan(&node, evict, at(1)).map(|taints| taints.iter().map(text).collect())
    }

    #[test]
    fn taints_follow_conditions() {
        let (schedule, execute) = ("NoSchedule", "NoExecute");
        let some = |taints: &[&str]| Some(taints.iter().map(|taint| (*taint).to_owned()).collect::<Vec<_>>());
        for (ready, have, unschedulable, evict, expected) in [
            (Some("True"), vec![], false, Evict::Yes, None),
            (
                Some("False"),
                vec![],
                false,
                Evict::Yes,
                some(&["not-ready:NoSchedule", "not-ready:NoExecute"]),
            ),
            (Some("Unknown"), vec![], false, Evict::Later, some(&["unreachable:NoSchedule"])),
            (
                Some("Unknown"),
                vec![("not-ready", schedule), ("not-ready", execute)],
                false,
                Evict::Later,
                some(&["unreachable:NoSchedule", "unreachable:NoExecute"]),
            ),
            (
                Some("True"),
                vec![("unreachable", schedule), ("unreachable", execute)],
                false,
                Evict::Yes,
                some(&[]),
            ),
            (
                Some("Unknown"),
                vec![("unreachable", schedule), ("unreachable", execute)],
                false,
                Evict::Never,
                some(&["unreachable:NoSchedule"]),
            ),
            (Some("True"), vec![], true, Evict::Yes, some(&["unschedulable:NoSchedule"])),
            (Some("True"), vec![("example.com/mine", execute)], false, Evict::Yes, None),
            (None, vec![("not-ready", schedule)], false, Evict::Yes, some(&[])),
        ] {
            assert_eq!(planned(ready, &have, unschedulable, evict), expected, "{ready:?} {have:?}");
        }
    }
}
