//! What Deployments and their ReplicaSets remember in annotations: revisions and sizes.

use super::sets;
use crate::common::meta;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use std::collections::BTreeMap;

/// The revision of a ReplicaSet, and of the Deployment's newest.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions a ReplicaSet had before it was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// A rollback asked for by clients of old API versions.
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

const HISTORY_LIMIT: usize = 2000;
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    ROLLBACK_TO,
];

/// The revision of a ReplicaSet; 0 when it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    meta::annotation(&set.metadata, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// The greatest revision.
pub fn max_revision<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    sets.into_iter().map(revision).max().unwrap_or(0)
}

/// The greatest revision but one: what a rollback without a number goes to.
pub fn last_revision<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    let (mut max, mut second) = (0, 0);
    for revision in sets.into_iter().map(revision) {
        if revision >= max {
            (max, second) = (revision, max);
        } else if revision > second {
            second = revision;
        }
    }
    second
}

/// A non-negative number in an annotation.
pub fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    meta::annotation(&set.metadata, annotation)?.parse().ok().filter(|number| *number >= 0)
}

/// Writes the sizes that scaling later needs to tell a scaled Deployment from a rollout.
pub fn set_replicas(set: &mut ReplicaSet, deployment: &Deployment) {
    let desired = sets::replicas(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), (desired + sets::max_surge(deployment)).to_string());
}

/// Brings the annotations of the new ReplicaSet up to date: those of the Deployment, and a revision of at least
/// `revision`. A revision that is replaced goes into the history, for that was a rollback.
pub fn sync_new(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let Ok(old_number) = old.as_deref().filter(|old| !old.is_empty()).unwrap_or("0").parse::<i64>() else {
        return;
    };
    if old_number < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            remember(annotations, &old);
        }
    }
    if annotations.is_empty() {
        set.metadata.annotations = None;
    }
}

fn remember(annotations: &mut BTreeMap<String, String>, old: &str) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|revision| !revision.is_empty()).collect();
    revisions.push(old);
    while revisions.len() > 1
        && revisions.iter().map(|revision| revision.len() + 1).sum::<usize>() > HISTORY_LIMIT
    {
        revisions.remove(0);
    }
    annotations.insert(REVISION_HISTORY.to_owned(), revisions.join(","));
}

/// Gives the Deployment the annotations of the ReplicaSet it is rolled back to.
pub fn restore(deployment: &mut Deployment, set: &ReplicaSet) {
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| NOT_COPIED.contains(&key.as_str()));
    for (key, value) in set.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::tests::{deployment, set};
    use super::*;

    fn with(mut set: ReplicaSet, pairs: &[(&str, &str)]) -> ReplicaSet {
        let annotations = set.metadata.annotations.get_or_insert_default();
        annotations.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        set
    }

    #[test]
    fn revision_grows_and_leaves_a_history() {
        for (before, revision, after, history) in [
            (&[][..], 1, "1", None),
            (&[(REVISION, "3")], 2, "3", None),
            (&[(REVISION, "1")], 3, "3", Some("1")),
            (&[(REVISION, "3"), (REVISION_HISTORY, "1")], 5, "5", Some("1,3")),
        ] {
            let mut set = with(set("s", "new", 1, 1, 1), before);
            sync_new(&deployment(1, "1", "0"), &mut set, revision);
            assert_eq!(meta::annotation(&set.metadata, REVISION), Some(after));
            assert_eq!(meta::annotation(&set.metadata, REVISION_HISTORY), history);
        }
    }

    #[test]
    fn bookkeeping_is_not_copied() {
        let mut deployment = deployment(1, "1", "0");
        deployment.metadata.annotations = Some(
            [("kubernetes.io/change-cause", "fix"), (REVISION, "9"), (NOT_COPIED[0], "{}")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        );
        let mut set = set("s", "new", 1, 1, 1);
        sync_new(&deployment, &mut set, 1);
        assert_eq!(meta::annotation(&set.metadata, "kubernetes.io/change-cause"), Some("fix"));
        assert_eq!(meta::annotation(&set.metadata, REVISION), Some("1"));
        assert_eq!(meta::annotation(&set.metadata, NOT_COPIED[0]), None);
    }

    #[test]
    fn last_revision_is_the_second_greatest() {
        let sets: Vec<_> = ["2", "5", "4"].map(|r| with(set("s", "new", 1, 1, 1), &[(REVISION, r)])).into();
        assert_eq!((max_revision(&sets), last_revision(&sets)), (5, 4));
        assert_eq!(last_revision(&sets[..1]), 0);
    }
}
