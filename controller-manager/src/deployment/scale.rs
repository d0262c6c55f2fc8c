//! Scaling in proportion: in the middle of a rollout each ReplicaSet gets its share of a changed size.

use super::plan::Sets;
use super::{annotations, rolling, sets};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

/// Adjusts sizes to the Deployment's.
pub fn scale(deployment: &Deployment, work: &mut Sets) {
    let replicas = sets::replicas(deployment);
    if let Some(only) = active_or_latest(work) {
        rolling::scale_to(only, replicas, deployment);
        return;
    }
    if work.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        for old in work.old.iter_mut().filter(|old| sets::wanted(old) > 0) {
            rolling::scale_to(old, 0, deployment);
        }
        return;
    }
    if !sets::is_recreate(deployment) {
        in_proportion(deployment, work);
    }
}

/// The only ReplicaSet with pods, or the newest when none has any. `None` when several have.
fn active_or_latest(work: &mut Sets) -> Option<&mut ReplicaSet> {
    let active = work.all().filter(|set| sets::wanted(set) > 0).count();
    match active {
        0 if work.new.is_some() => work.new.as_mut(),
        0 => work.old.iter_mut().max_by_key(|set| sets::by_age(set)),
        1 => work.old.iter_mut().chain(&mut work.new).find(|set| sets::wanted(set) > 0),
        _ => None,
    }
}

fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let replicas = sets::replicas(deployment);
    sets::wanted(new) == replicas
        && annotations::number(new, annotations::DESIRED_REPLICAS) == Some(replicas)
        && sets::available(new) == replicas
}

fn in_proportion(deployment: &Deployment, work: &mut Sets) {
    let replicas = sets::replicas(deployment);
    let allowed = if replicas > 0 { replicas + sets::max_surge(deployment) } else { 0 };
    let mut active: Vec<_> =
        work.old.iter_mut().chain(&mut work.new).filter(|set| sets::wanted(set) > 0).collect();
    let to_add = allowed - active.iter().map(|set| sets::wanted(set)).sum::<i32>();
    // The largest first; of equal ones the newer when growing, the older when shrinking.
    active.sort_by_key(|set| sets::by_age(set));
    if to_add > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| std::cmp::Reverse(sets::wanted(set)));
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let share = proportion(deployment, set, to_add, added);
        sizes.push(sets::wanted(set) + share);
        added += share;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (set, size) in active.into_iter().zip(sizes) {
        rolling::resize(set, size);
        annotations::set_replicas(set, deployment);
    }
}

fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if sets::wanted(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let share = fraction(deployment, set);
    if to_add > 0 { share.min(to_add - added) } else { share.max(to_add - added) }
}

/// By how much the ReplicaSet would change if all changed alike.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let (replicas, size) = (sets::replicas(deployment), sets::wanted(set));
    if replicas == 0 {
        return -size;
    }
    let status = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let before =
        annotations::number(set, annotations::MAX_REPLICAS).filter(|max| *max != 0).unwrap_or(status);
    if before == 0 {
        return 0;
    }
    let exact = f64::from(size) * f64::from(replicas + sets::max_surge(deployment)) / f64::from(before);
    #[expect(clippy::cast_possible_truncation, reason = "sizes are 32-bit and the share is bounded by them")]
    let rounded = exact.round() as i32;
    rounded - size
}

#[cfg(test)]
mod tests {
    use super::super::sets::tests::{deployment, set};
    use super::*;

    /// Scales from one size to another with old and new ReplicaSets of these sizes; sizes after.
    fn check(from: i32, to: i32, surge: &str, new: i32, old: &[i32], after: (i32, &[i32])) {
        let before = deployment(from, surge, "0");
        let annotated = |mut set: ReplicaSet| {
            annotations::set_replicas(&mut set, &before);
            set
        };
        let mut work = Sets {
            new: Some(annotated(set("new", "new", 99, new, 0))),
            old: (old.iter().enumerate())
                .map(|(i, size)| annotated(set(&format!("o{i}"), "old", 10 - i as i64, *size, 0)))
                .collect(),
        };
        scale(&deployment(to, surge, "0"), &mut work);
        let sizes: Vec<_> = work.old.iter().map(sets::wanted).collect();
        assert_eq!(
            (work.new.as_ref().map(sets::wanted), sizes.as_slice()),
            (Some(after.0), after.1),
            "{from} to {to}"
        );
    }

    #[test]
    fn shares_are_in_proportion() {
        // From upstream's TestScale; old sizes newest first.
        check(10, 12, "0", 10, &[], (12, &[]));
        check(10, 5, "0", 10, &[], (5, &[]));
        check(10, 12, "0", 5, &[5], (6, &[6]));
        check(10, 5, "0", 5, &[5], (3, &[2]));
        check(5, 10, "0", 2, &[3], (4, &[6]));
        check(5, 4, "0", 3, &[1, 1], (2, &[1, 1]));
        check(6, 11, "2", 3, &[3, 2], (5, &[5, 3]));
        check(10, 0, "0", 4, &[4, 2], (0, &[0, 0]));
        check(0, 6, "0", 0, &[0, 0], (6, &[0, 0]));
    }
}
