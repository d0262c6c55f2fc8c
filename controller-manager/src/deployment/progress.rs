//! The status of a Deployment: counts, availability, progress and its deadline.

use super::plan::{Kind, Sets};
use super::sets;
use crate::common::{conditions, meta};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use std::time::Duration;

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: conditions::time(now),
        last_transition_time: conditions::time(now),
    }
}

/// The deadline for progress, if there is one.
fn deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| i64::from(seconds))
}

/// Whether all pods are new and available and no old ones are left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = sets::replicas(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|n| n.unwrap_or(0) == wanted)
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Zeros and empty lists as the API writes them: not at all.
pub fn normal(status: DeploymentStatus) -> DeploymentStatus {
    let some = |number: Option<i32>| number.filter(|number| *number != 0);
    DeploymentStatus {
        replicas: some(status.replicas),
        updated_replicas: some(status.updated_replicas),
        ready_replicas: some(status.ready_replicas),
        available_replicas: some(status.available_replicas),
        unavailable_replicas: some(status.unavailable_replicas),
        observed_generation: status.observed_generation.filter(|generation| *generation != 0),
        conditions: status.conditions.filter(|conditions| !conditions.is_empty()),
        ..status
    }
}

/// Computes the status from the ReplicaSets as they are. `created` names one that is being created.
pub fn status(
    deployment: &Deployment,
    sets: &Sets,
    created: Option<&str>,
    kind: Kind,
    now: Timestamp,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, sets);
    let mut list = old.conditions.clone().unwrap_or_default();
    let available = status.available_replicas.unwrap_or(0);
    let availability = if available >= sets::replicas(deployment) - sets::max_unavailable(deployment) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    conditions::set(
        &mut list,
        condition("Available", availability.0, availability.1, availability.2.to_owned(), now),
    );
    pausing(deployment, &mut list, now);
    if let Some(name) = created.filter(|_| deadline(deployment).is_some()) {
        let message = format!("Created new replica set {name:?}");
        conditions::set(&mut list, condition("Progressing", "True", "NewReplicaSetCreated", message, now));
    } else if let Kind::Rollout { .. } = kind {
        progressing(deployment, sets, &old, &status, &mut list, now);
    }
    if let Kind::Rollout { .. } = kind {
        replica_failure(sets, &mut list);
    }
    status.conditions = Some(list);
    normal(status)
}

fn counts(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let available = sets::sum(sets.all(), sets::available);
    let ready = |set: &k8s_openapi::api::apps::v1::ReplicaSet| {
        set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    };
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sets::sum(sets.all(), sets::actual)),
        updated_replicas: Some(sets::sum(&sets.new, sets::actual)),
        ready_replicas: Some(sets::sum(sets.all(), ready)),
        available_replicas: Some(available),
        unavailable_replicas: Some((sets::sum(sets.all(), sets::wanted) - available).max(0)),
        terminating_replicas: terminating(sets),
        collision_count: deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: None,
    }
}

/// `None` when a ReplicaSet has been seen by its controller but does not report the number.
fn terminating(sets: &Sets) -> Option<i32> {
    sets.all().try_fold(0, |sum, set| {
        let status = set.status.clone().unwrap_or_default();
        match status.terminating_replicas {
            Some(number) => Some(sum + number),
            None if status.observed_generation.unwrap_or(0) == 0 => Some(sum),
            None => None,
        }
    })
}

/// Pausing stops the clock, resuming starts it anew.
fn pausing(deployment: &Deployment, list: &mut Vec<DeploymentCondition>, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = conditions::find(list, "Progressing").and_then(|condition| condition.reason.clone());
    let noted = reason.as_deref() == Some("DeploymentPaused");
    if reason.as_deref() == Some("ProgressDeadlineExceeded") {
        return;
    }
    let paused = deployment.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    if paused && !noted {
        let text = "Deployment is paused".to_owned();
        conditions::set(list, condition("Progressing", "Unknown", "DeploymentPaused", text, now));
    } else if !paused && noted {
        let text = "Deployment is resumed".to_owned();
        conditions::set(list, condition("Progressing", "Unknown", "DeploymentResumed", text, now));
    }
}

fn progressing(
    deployment: &Deployment,
    sets: &Sets,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    list: &mut Vec<DeploymentCondition>,
    now: Timestamp,
) {
    let Some(deadline) = deadline(deployment) else {
        conditions::remove(list, "Progressing");
        return;
    };
    if conditions::find(list, "Progressing").is_none()
        && let Some(set) = &sets.new
    {
        let message = format!("Found new replica set {:?}", meta::name(&set.metadata));
        list.push(condition("Progressing", "True", "FoundNewReplicaSet", message, now));
    }
    let current = conditions::find(list, "Progressing").cloned();
    let reason =
        current.as_ref().and_then(|condition| condition.reason.as_deref()).unwrap_or_default().to_owned();
    if new.replicas == new.updated_replicas && reason == "NewReplicaSetAvailable" {
        return;
    }
    let what = match &sets.new {
        Some(set) => format!("ReplicaSet {:?}", meta::name(&set.metadata)),
        None => format!("Deployment {:?}", meta::name(&deployment.metadata)),
    };
    if is_complete(deployment, new) {
        let message = format!("{what} has successfully progressed.");
        conditions::set(list, condition("Progressing", "True", "NewReplicaSetAvailable", message, now));
    } else if has_progressed(old, new) {
        let message = format!("{what} is progressing.");
        let mut moved = condition("Progressing", "True", "ReplicaSetUpdated", message, now);
        if let Some(current) = current.filter(|current| current.status == "True") {
            moved.last_transition_time = current.last_transition_time;
        }
        // Not `set`: the time of the last update moves although status and reason stay.
        conditions::remove(list, "Progressing");
        list.push(moved);
    } else if has_timed_out(current.as_ref(), deadline, now) {
        let message = format!("{what} has timed out progressing.");
        conditions::set(list, condition("Progressing", "False", "ProgressDeadlineExceeded", message, now));
    }
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |number: Option<i32>| number.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

fn has_timed_out(current: Option<&DeploymentCondition>, deadline: i64, now: Timestamp) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => {
            let since = current.last_update_time.as_ref().map_or(0, |time| time.0.as_second());
            since + deadline < now.as_second()
        }
    }
}

/// The failure of the new ReplicaSet, or else of any, is the Deployment's.
fn replica_failure(sets: &Sets, list: &mut Vec<DeploymentCondition>) {
    let failure = sets.new.iter().chain(&sets.old).find_map(|set| {
        let list = set.status.as_ref()?.conditions.as_deref()?;
        conditions::find(list, "ReplicaFailure").cloned()
    });
    match failure {
        Some(failure) => conditions::set(
            list,
            DeploymentCondition {
                type_: failure.type_,
                status: failure.status,
                reason: failure.reason,
                message: failure.message,
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time,
            },
        ),
        None => conditions::remove(list, "ReplicaFailure"),
    }
}

/// The status after the new ReplicaSet could not be created; `None` when no progress is watched.
pub fn creation_failed(deployment: &Deployment, message: &str, now: Timestamp) -> Option<DeploymentStatus> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let failed = condition("Progressing", "False", "ReplicaSetCreateError", message.to_owned(), now);
    conditions::set(status.conditions.get_or_insert_default(), failed);
    Some(status)
}

/// When to look whether the deadline has passed.
pub fn check_after(
    deployment: &Deployment,
    status: &DeploymentStatus,
    kind: Kind,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = deadline(deployment).filter(|_| kind != Kind::Scaling)?;
    let current = conditions::find(status.conditions.as_deref()?, "Progressing")?;
    if is_complete(deployment, status)
        || matches!(current.reason.as_deref(), Some("ProgressDeadlineExceeded" | "NewReplicaSetAvailable"))
    {
        return None;
    }
    let due = current.last_update_time.as_ref()?.0.as_second() + deadline;
    Some(Duration::from_secs(u64::try_from(due - now.as_second()).unwrap_or(0) + 1))
}

#[cfg(test)]
mod tests {
    use super::super::sets::tests::{deployment, set};
    use super::*;
    use crate::common::pods::tests::at;

    const ROLLOUT: Kind = Kind::Rollout { settled: true };

    fn watched(replicas: i32) -> Deployment {
        let mut deployment = deployment(replicas, "1", "1");
        if let Some(spec) = &mut deployment.spec {
            spec.progress_deadline_seconds = Some(60);
        }
        deployment
    }

    fn progressing(status: &DeploymentStatus) -> (String, String, i64) {
        let list = status.conditions.as_deref().unwrap_or_default();
        let found = conditions::find(list, "Progressing").expect("progress is watched");
        let updated = found.last_update_time.as_ref().map_or(0, |time| time.0.as_second());
        (found.status.clone(), found.reason.clone().unwrap_or_default(), updated)
    }

    #[test]
    fn rollout_from_creation_to_completion() {
        let mut deployment = watched(2);
        let created = status(&deployment, &Sets::default(), Some("web-1"), ROLLOUT, at(10));
        assert_eq!(progressing(&created), ("True".into(), "NewReplicaSetCreated".into(), 10));
        deployment.status = Some(created);
        let sets = |available| Sets { new: Some(set("web-1", "new", 1, 2, available)), old: vec![] };
        let moving = status(&deployment, &sets(1), None, ROLLOUT, at(20));
        assert_eq!(progressing(&moving), ("True".into(), "ReplicaSetUpdated".into(), 20));
        deployment.status = Some(moving.clone());
        assert_eq!(status(&deployment, &sets(1), None, ROLLOUT, at(30)), moving);
        assert_eq!(check_after(&deployment, &moving, ROLLOUT, at(30)), Some(Duration::from_secs(51)));
        let late = status(&deployment, &sets(1), None, ROLLOUT, at(81));
        assert_eq!(progressing(&late), ("False".into(), "ProgressDeadlineExceeded".into(), 81));
        deployment.status = Some(late);
        let done = status(&deployment, &sets(2), None, ROLLOUT, at(90));
        assert_eq!(progressing(&done), ("True".into(), "NewReplicaSetAvailable".into(), 90));
        deployment.status = Some(done.clone());
        assert_eq!(status(&deployment, &sets(2), None, ROLLOUT, at(99)), done);
        assert_eq!(check_after(&deployment, &done, ROLLOUT, at(99)), None);
    }

    #[test]
    fn pause_and_resume_restart_the_clock() {
        let mut deployment = watched(1);
        let sets = Sets { new: Some(set("web-1", "new", 1, 1, 0)), old: vec![] };
        let pause = |deployment: &mut Deployment, paused| {
            if let Some(spec) = &mut deployment.spec {
                spec.paused = Some(paused);
            }
        };
        pause(&mut deployment, true);
        let paused = status(&deployment, &sets, None, Kind::Scaling, at(10));
        assert_eq!(progressing(&paused), ("Unknown".into(), "DeploymentPaused".into(), 10));
        deployment.status = Some(paused);
        pause(&mut deployment, false);
        let resumed = status(&deployment, &sets, None, ROLLOUT, at(500));
        assert_eq!(progressing(&resumed).1, "DeploymentResumed");
    }

    #[test]
    fn availability_follows_the_bound() {
        let deployment = watched(3);
        for (available, expected) in [(1, "False"), (2, "True"), (3, "True")] {
            let sets = Sets { new: Some(set("web-1", "new", 1, 3, available)), old: vec![] };
            let status = status(&deployment, &sets, None, ROLLOUT, at(1));
            let list = status.conditions.expect("there are conditions");
            assert!(conditions::is(&list, "Available", expected), "{available} available");
        }
    }
}
