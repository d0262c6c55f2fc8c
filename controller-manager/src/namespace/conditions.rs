//! What the status of a deleted namespace says about its content.

use super::content::Left;
use crate::common::conditions as list;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use std::collections::BTreeMap;

/// Type, reason and message when all is well.
const FINE: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// The status of the namespace with conditions for what is left in it.
pub fn with(namespace: &Namespace, left: &Left, now: Timestamp) -> Option<NamespaceStatus> {
    let mut status = namespace.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for (kind, reason, message) in FINE {
        let (state, reason, message) = match trouble(kind, left) {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", reason, message.to_owned()),
        };
        update(conditions, kind, state, reason, message, now);
    }
    Some(status)
}

fn trouble(kind: &str, left: &Left) -> Option<(&'static str, String)> {
    match kind {
        "NamespaceDeletionDiscoveryFailure" if !left.discovery.is_empty() => Some((
            "DiscoveryFailed",
            format!(
                "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
                left.discovery.len(),
                sorted(&left.discovery)
            ),
        )),
        "NamespaceDeletionContentFailure" if !left.errors.is_empty() => Some((
            "ContentDeletionFailed",
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                left.errors.len(),
                sorted(&left.errors)
            ),
        )),
        "NamespaceContentRemaining" if !left.objects.is_empty() => Some((
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", counted(&left.objects, "has")),
        )),
        "NamespaceFinalizersRemaining" if !left.finalizers.is_empty() => Some((
            "SomeFinalizersRemain",
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                counted(&left.finalizers, "in")
            ),
        )),
        _ => None,
    }
}

/// In an order that does not change, so that the message does not either.
fn sorted(texts: &[String]) -> String {
    let mut texts = texts.to_vec();
    texts.sort();
    texts.join(", ")
}

fn counted(counts: &BTreeMap<String, usize>, word: &str) -> String {
    let parts: Vec<_> =
        counts.iter().map(|(name, count)| format!("{name} {word} {count} resource instances")).collect();
    parts.join(", ")
}

/// In place: these conditions keep their order.
fn update(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let now = list::time(now);
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(condition) => {
            if condition.status != status {
                condition.last_transition_time = now;
            }
            condition.status = status.to_owned();
            condition.reason = Some(reason.to_owned());
            condition.message = Some(message);
        }
        None => conditions.push(NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: now,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(left: &Left, before: Option<NamespaceStatus>) -> (NamespaceStatus, Vec<String>) {
        let namespace = Namespace { status: before, ..Default::default() };
        let status = with(&namespace, left, Timestamp::now()).expect("there is a status");
        let bad = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
        let lines =
            bad.map(|c| format!("{}: {}", c.type_, c.message.as_deref().unwrap_or_default())).collect();
        (status, lines)
    }

    #[test]
    fn conditions_name_what_is_left() {
        let left = Left {
            objects: [("pods.".to_owned(), 2), ("configmaps.".to_owned(), 1)].into(),
            finalizers: [("example.com/hold".to_owned(), 1)].into(),
            errors: vec!["z".into(), "a".into()],
            ..Default::default()
        };
        let (status, lines) = said(&left, None);
        assert_eq!(
            lines,
            [
                "NamespaceDeletionContentFailure: Failed to delete all resource types, 2 remaining: a, z",
                "NamespaceContentRemaining: Some resources are remaining: configmaps. has 1 resource instances, pods. has 2 resource instances",
                "NamespaceFinalizersRemaining: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ]
        );
        let (_, after) = said(&Left::default(), Some(status));
        assert!(after.is_empty());
    }

    /// As upstream's TestUpdateConditions.
    #[test]
    fn conditions_keep_their_order_and_strangers_stay() {
        let fine = FINE.map(|(kind, ..)| kind);
        let swapped = [fine[1], fine[0], fine[2], fine[3], fine[4]];
        let stranger = ["unknown", fine[0], fine[1], fine[2], fine[3], fine[4]];
        let trouble = Left { discovery: vec!["b/v1: no".into(), "a/v1: no".into()], ..Default::default() };
        for (before, left, kinds, bad) in [
            (&["unknown"][..], Left::default(), &stranger[..], &["unknown"][..]),
            (&[fine[0]], Left::default(), &fine, &[]),
            (&[fine[1], fine[0]], Left::default(), &swapped, &[]),
            (&[fine[1], fine[0]], trouble, &swapped, &[fine[0]]),
        ] {
            let condition = |kind: &&str| NamespaceCondition {
                type_: (*kind).to_owned(),
                status: "True".to_owned(),
                last_transition_time: list::time(Timestamp::UNIX_EPOCH),
                reason: None,
                message: None,
            };
            let conditions = Some(before.iter().map(condition).collect());
            let (status, lines) = said(&left, Some(NamespaceStatus { conditions, phase: None }));
            let found: Vec<_> = status.conditions.iter().flatten().map(|c| c.type_.as_str()).collect();
            assert_eq!(found, kinds);
            let found: Vec<_> = lines.iter().filter_map(|line| line.split_once(": ")).collect();
            assert_eq!(found.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), bad);
            if !left.discovery.is_empty() {
                assert!(found[0].1.ends_with(
                    "2 failing: unable to retrieve the complete list of server APIs: a/v1: no, b/v1: no"
                ));
            }
        }
    }

    #[test]
    fn unchanged_conditions_are_no_change() {
        let (status, _) = said(&Left::default(), None);
        assert_eq!(said(&Left::default(), Some(status.clone())).0, status);
    }
}
