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
                left.discovery.join(", ")
            ),
        )),
        "NamespaceDeletionContentFailure" if !left.errors.is_empty() => {
            let mut errors = left.errors.clone();
            errors.sort();
            let text = errors.join(", ");
            Some((
                "ContentDeletionFailed",
                format!("Failed to delete all resource types, {} remaining: {text}", errors.len()),
            ))
        }
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

    #[test]
    fn unchanged_conditions_are_no_change() {
        let (status, _) = said(&Left::default(), None);
        assert_eq!(said(&Left::default(), Some(status.clone())).0, status);
    }
}
