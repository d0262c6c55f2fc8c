//! Decides what each ReplicaSet of a Deployment should look like.
//!
//! All steps change copies of the ReplicaSets; what differs from the originals in the end is what gets written.

use super::{annotations, progress, rollback, rolling, scale, sets};
use crate::common::meta;
use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use std::sync::Arc;
use std::time::Duration;

/// What to do about a Deployment.
#[derive(Debug)]
pub struct Plan {
    /// Events to record: reason, type, message.
    pub events: Vec<(&'static str, EventType, String)>,
    /// What to say once a rollback was written.
    pub rolled_back: Option<String>,
    /// What to write.
    pub outcome: Outcome,
}

/// What to write.
#[derive(Debug)]
pub enum Outcome {
    /// Another spec for the Deployment itself: a rollback. Everything else waits for the next look.
    Replace(Box<Deployment>),
    /// Changes of ReplicaSets, then the status.
    Converge {
        /// The ReplicaSet of a new template.
        create: Option<Box<ReplicaSet>>,
        /// ReplicaSets with other sizes or annotations.
        update: Vec<ReplicaSet>,
        /// ReplicaSets beyond the history limit.
        delete: Vec<ReplicaSet>,
        /// The revision to note on the Deployment, if it is known.
        revision: Option<String>,
        /// The status.
        status: DeploymentStatus,
        /// When to look for progress again.
        check_after: Option<Duration>,
    },
}

/// The ReplicaSets of a Deployment: the one of the current template, and all others.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// The one with the Deployment's template.
    pub new: Option<ReplicaSet>,
    /// The others.
    pub old: Vec<ReplicaSet>,
}

impl Sets {
    /// Tells the new ReplicaSet from the old ones.
    pub fn sort(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Self {
        let new = sets::find_new(deployment, sets.iter().map(Arc::as_ref)).cloned();
        let is_new = |set: &ReplicaSet| new.as_ref().is_some_and(|new| new.metadata.uid == set.metadata.uid);
        let old = sets.iter().filter(|set| !is_new(set)).map(|set| ReplicaSet::clone(set)).collect();
        Self { new, old }
    }

    /// All of them, old ones first.
    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> + Clone {
        self.old.iter().chain(&self.new)
    }
}

/// Decides. `running` tells whether a ReplicaSet (by UID) has pods that have not ended.
pub fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    running: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Plan {
    let mut work = Sets::sort(deployment, sets);
    let before = work.clone();
    let spec = deployment.spec.clone().unwrap_or_default();
    if meta::is_deleting(&deployment.metadata) {
        return converge(deployment, &before, work, Kind::Scaling, now);
    }
    let paused = spec.paused == Some(true);
    if !paused && let Some(revision) = rollback::asked_for(deployment) {
        return rollback::plan(deployment, &work, revision);
    }
    let revision = annotations::max_revision(&work.old) + 1;
    if let Some(new) = &mut work.new {
        annotations::sync_new(deployment, new, revision);
        if let Some(set_spec) = &mut new.spec {
            set_spec.min_ready_seconds = min_ready(spec.min_ready_seconds, set_spec.min_ready_seconds);
        }
    }
    if paused || is_scaling(deployment, &work) {
        scale::scale(deployment, &mut work);
        return converge(deployment, &before, work, Kind::Scaling, now);
    }
    let rolled = if sets::is_recreate(deployment) {
        recreate(deployment, &mut work, revision, running)
    } else {
        ensure_new(deployment, &mut work, revision);
        rolling::roll(deployment, &mut work)
    };
    if rolled {
        converge(deployment, &before, work, Kind::Rollout { settled: false }, now)
    } else {
        converge(deployment, &before, work, Kind::Rollout { settled: true }, now)
    }
}

/// 0 and nothing mean the same, so neither replaces the other.
fn min_ready(wanted: Option<i32>, have: Option<i32>) -> Option<i32> {
    if wanted.unwrap_or(0) == have.unwrap_or(0) { have } else { wanted }
}

/// Whether the Deployment's size changed: then sizes are adjusted in proportion and the rollout waits.
fn is_scaling(deployment: &Deployment, work: &Sets) -> bool {
    work.all()
        .filter(|set| sets::wanted(set) > 0)
        .filter_map(|set| annotations::number(set, annotations::DESIRED_REPLICAS))
        .any(|desired| desired != sets::replicas(deployment))
}

/// Adds the ReplicaSet of the current template if there is none.
fn ensure_new(deployment: &Deployment, work: &mut Sets, revision: i64) {
    if work.new.is_some() {
        return;
    }
    let mut new = sets::build_new(deployment);
    let replicas = sets::new_replicas(deployment, work.all().chain([&new]), &new);
    rolling::resize(&mut new, replicas);
    annotations::sync_new(deployment, &mut new, revision);
    annotations::set_replicas(&mut new, deployment);
    work.new = Some(new);
}

/// First all old pods go, then the new ones come.
fn recreate(deployment: &Deployment, work: &mut Sets, revision: i64, running: impl Fn(&str) -> bool) -> bool {
    let mut scaled = false;
    for old in work.old.iter_mut().filter(|old| sets::wanted(old) > 0) {
        rolling::scale_to(old, 0, deployment);
        scaled = true;
    }
    let old_pods = sets::sum(&work.old, sets::actual) > 0
        || work.old.iter().any(|old| running(meta::uid(&old.metadata)));
    if scaled || old_pods {
        return true;
    }
    ensure_new(deployment, work, revision);
    if let Some(new) = &mut work.new {
        rolling::scale_to(new, sets::replicas(deployment), deployment);
    }
    false
}

/// Which conditions the status gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// No progress is estimated.
    Scaling,
    /// Progress counts; a settled rollout also tidies up old ReplicaSets.
    Rollout {
        /// Nothing was scaled this time.
        settled: bool,
    },
}

fn converge(deployment: &Deployment, before: &Sets, work: Sets, kind: Kind, now: Timestamp) -> Plan {
    let changed = |set: &&ReplicaSet| !before.all().any(|old| old == *set);
    let (create, new_update) = match &work.new {
        Some(new) if new.metadata.uid.is_none() => (Some(new.clone()), None),
        other => (None, other.as_ref()),
    };
    let update = work.old.iter().chain(new_update).filter(changed).cloned().collect();
    let paused = deployment.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    let complete = deployment.status.as_ref().is_some_and(|status| progress::is_complete(deployment, status));
    let tidy = match kind {
        Kind::Scaling => paused && !meta::is_deleting(&deployment.metadata),
        Kind::Rollout { settled } => settled && complete && create.is_none(),
    };
    let delete = if tidy { beyond_history(deployment, &work.old) } else { Vec::new() };
    // The status speaks of what is there, not of what is about to be written.
    let created = create.as_ref().map(|set| meta::name(&set.metadata).to_owned());
    let status = progress::status(deployment, before, created.as_deref(), kind, now);
    let check_after = progress::check_after(deployment, &status, kind, now);
    let revision = work.new.as_ref().map(annotations::revision).filter(|revision| *revision > 0);
    let revision =
        revision.filter(|_| !meta::is_deleting(&deployment.metadata)).map(|revision| revision.to_string());
    Plan {
        events: Vec::new(),
        rolled_back: None,
        outcome: Outcome::Converge {
            create: create.map(Box::new),
            update,
            delete,
            revision,
            status,
            check_after,
        },
    }
}

/// Old ReplicaSets without pods, beyond the number to keep; lowest revision first.
fn beyond_history(deployment: &Deployment, old: &[ReplicaSet]) -> Vec<ReplicaSet> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(i32::MAX);
    if limit == i32::MAX {
        return Vec::new();
    }
    let mut alive: Vec<_> = old.iter().filter(|set| !meta::is_deleting(&set.metadata)).collect();
    let excess = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|set| (annotations::revision(set), sets::by_age(set)));
    let observed =
        |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    let idle = |set: &&ReplicaSet| {
        sets::actual(set) == 0
            && sets::wanted(set) == 0
            && set.metadata.generation.unwrap_or(0) <= observed(set)
    };
    alive.into_iter().take(excess).filter(idle).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::sets::tests::{deployment, set};
    use super::*;
    use crate::common::pods::tests::at;

    fn converged(
        deployment: &Deployment,
        sets: &[ReplicaSet],
        running: bool,
    ) -> (Option<i32>, Vec<(String, i32)>, usize) {
        let sets: Vec<_> = sets.iter().cloned().map(Arc::new).collect();
        match plan(deployment, &sets, |_| running, at(100)).outcome {
            Outcome::Converge { create, update, delete, .. } => (
                create.map(|set| sets::wanted(&set)),
                update.iter().map(|set| (meta::name(&set.metadata).to_owned(), sets::wanted(set))).collect(),
                delete.len(),
            ),
            Outcome::Replace(_) => panic!("no rollback was asked for"),
        }
    }

    fn annotated(mut set: ReplicaSet, deployment: &Deployment, revision: i64) -> ReplicaSet {
        annotations::set_replicas(&mut set, deployment);
        annotations::sync_new(&Deployment::default(), &mut set, revision);
        set
    }

    #[test]
    fn first_set_gets_all_replicas() {
        assert_eq!(converged(&deployment(3, "25%", "25%"), &[], false), (Some(3), vec![], 0));
    }

    #[test]
    fn second_set_gets_the_surge() {
        let deployment = deployment(10, "3", "2");
        let old = annotated(set("old", "old", 1, 10, 10), &deployment, 1);
        // Old pods may go down to 8 available at once, as upstream does in the same pass.
        assert_eq!(converged(&deployment, &[old], true), (Some(3), vec![], 0));
    }

    #[test]
    fn at_rest_nothing_is_written() {
        let deployment = deployment(3, "1", "0");
        let new = annotated(set("new", "new", 1, 3, 3), &deployment, 1);
        assert_eq!(converged(&deployment, &[new], true), (None, vec![], 0));
    }

    #[test]
    fn recreate_waits_for_the_last_old_pod() {
        let mut deployment = deployment(2, "1", "1");
        if let Some(strategy) = deployment.spec.as_mut().and_then(|spec| spec.strategy.as_mut()) {
            strategy.type_ = Some("Recreate".into());
            strategy.rolling_update = None;
        }
        let old = annotated(set("old", "old", 1, 2, 2), &deployment, 1);
        assert_eq!(
            converged(&deployment, std::slice::from_ref(&old), true),
            (None, vec![("old".into(), 0)], 0)
        );
        let empty = annotated(set("old", "old", 1, 0, 0), &deployment, 1);
        assert_eq!(converged(&deployment, std::slice::from_ref(&empty), true), (None, vec![], 0));
        assert_eq!(converged(&deployment, &[empty], false), (Some(2), vec![], 0));
    }

    #[test]
    fn history_is_cut_when_the_rollout_is_complete() {
        let mut deployment = deployment(1, "1", "0");
        if let Some(spec) = &mut deployment.spec {
            spec.revision_history_limit = Some(1);
        }
        deployment.status = Some(DeploymentStatus {
            replicas: Some(1),
            updated_replicas: Some(1),
            available_replicas: Some(1),
            ..Default::default()
        });
        let sets = [
            annotated(set("r1", "a", 1, 0, 0), &deployment, 1),
            annotated(set("r2", "b", 2, 0, 0), &deployment, 2),
            annotated(set("r3", "c", 3, 0, 0), &deployment, 3),
            annotated(set("new", "new", 4, 1, 1), &deployment, 4),
        ];
        assert_eq!(converged(&deployment, &sets, true).2, 2);
        deployment.status = None;
        assert_eq!(converged(&deployment, &sets, true).2, 0);
    }
}
