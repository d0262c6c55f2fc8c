//! The rolling update: new pods as far as the surge goes, old ones away as far as availability allows.

use super::plan::Sets;
use super::{annotations, sets};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

/// Sets the size alone.
pub fn resize(set: &mut ReplicaSet, replicas: i32) {
    set.spec.get_or_insert_default().replicas = Some(replicas);
}

/// Sets the size, and notes the Deployment's when that changes anything.
pub fn scale_to(set: &mut ReplicaSet, replicas: i32, deployment: &Deployment) {
    if sets::wanted(set) != replicas {
        resize(set, replicas);
        annotations::set_replicas(set, deployment);
    }
}

/// Takes one step: up with the new ReplicaSet, or else down with the old ones. Tells whether anything was scaled.
pub fn roll(deployment: &Deployment, work: &mut Sets) -> bool {
    let Some(new) = &work.new else { return false };
    // One that is not stored yet was given its size when it was made.
    if new.metadata.uid.is_some() {
        let size = match sets::wanted(new).cmp(&sets::replicas(deployment)) {
            std::cmp::Ordering::Less => sets::new_replicas(deployment, work.all(), new),
            _ => sets::replicas(deployment),
        };
        if size != sets::wanted(new) {
            if let Some(new) = &mut work.new {
                scale_to(new, size, deployment);
            }
            return true;
        }
    }
    shrink_old(deployment, work)
}

/// The available pods of a ReplicaSet that are to stay, as far as that is known. A status may speak of pods that are on
/// their way out because fewer are wanted by now; and one that is older than the size that is asked for may do so even if
/// as many are wanted again. Upstream counts those, and could then take more than it may.
fn staying(set: &ReplicaSet) -> i32 {
    let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    let is_old = observed < set.metadata.generation.unwrap_or(0);
    if is_old { 0 } else { healthy(set) }
}

/// The pods of a ReplicaSet that its status does not say are unhealthy.
fn healthy(set: &ReplicaSet) -> i32 {
    sets::available(set).min(sets::wanted(set))
}

/// Takes pods from old ReplicaSets: unhealthy ones first, then as many as availability allows.
fn shrink_old(deployment: &Deployment, work: &mut Sets) -> bool {
    let Some(new) = work.new.clone().filter(|new| new.metadata.uid.is_some()) else { return false };
    if sets::sum(&work.old, sets::wanted) == 0 {
        return false;
    }
    let min_available = sets::replicas(deployment) - sets::max_unavailable(deployment);
    let new_unavailable = sets::wanted(&new) - staying(&new);
    let may_go = sets::sum(work.all(), sets::wanted) - min_available - new_unavailable;
    if may_go <= 0 {
        return false;
    }
    work.old.sort_by_key(sets::by_age);
    let mut gone = 0;
    for old in work.old.iter_mut().filter(|old| sets::wanted(old) > 0) {
        let unhealthy = (sets::wanted(old) - healthy(old)).min(may_go - gone);
        let size = sets::wanted(old) - unhealthy;
        scale_to(old, size, deployment);
        gone += unhealthy;
    }
    let spare = sets::sum(work.all(), staying) - min_available;
    let mut taken = 0;
    for old in work.old.iter_mut().filter(|old| sets::wanted(old) > 0) {
        let take = sets::wanted(old).min(spare - taken).max(0);
        let size = sets::wanted(old) - take;
        scale_to(old, size, deployment);
        taken += take;
    }
    gone + taken > 0
}

#[cfg(test)]
mod tests {
    use super::super::sets::tests::{deployment, set};
    use super::*;

    /// (size, available) of the new and of each old ReplicaSet before, sizes after; None for no new one.
    fn check(
        replicas: i32,
        surge: &str,
        unavailable: &str,
        new: (i32, i32),
        old: &[(i32, i32)],
        after: (i32, &[i32]),
    ) {
        let deployment = deployment(replicas, surge, unavailable);
        let mut work = Sets {
            new: Some(set("new", "new", 99, new.0, new.1)),
            old: (old.iter().enumerate())
                .map(|(i, (size, available))| set(&format!("o{i}"), "old", i as i64, *size, *available))
                .collect(),
        };
        roll(&deployment, &mut work);
        let sizes: Vec<_> = work.old.iter().map(sets::wanted).collect();
        assert_eq!((work.new.as_ref().map(sets::wanted), sizes.as_slice()), (Some(after.0), after.1));
    }

    #[test]
    fn new_grows_within_the_surge() {
        check(10, "0", "2", (0, 0), &[(10, 10)], (0, &[8]));
        check(10, "2", "0", (0, 0), &[(10, 10)], (2, &[10]));
        check(10, "0", "2", (5, 5), &[(0, 0)], (10, &[0]));
        check(10, "2", "2", (12, 12), &[], (10, &[]));
    }

    #[test]
    fn old_shrink_as_availability_allows() {
        // From upstream's TestDeploymentController_reconcileOldReplicaSets and ..._scaleDownOldReplicaSets.
        check(10, "3", "2", (5, 0), &[(8, 8)], (5, &[8]));
        check(10, "3", "2", (5, 0), &[(8, 0)], (5, &[8]));
        check(10, "3", "2", (3, 3), &[(10, 10)], (3, &[5]));
        check(10, "3", "2", (3, 0), &[(10, 9)], (3, &[8]));
        // Unhealthy old pods go first, as many as may go at all.
        check(10, "0", "2", (4, 4), &[(5, 0), (1, 1)], (4, &[3, 1]));
        check(10, "2", "0", (6, 0), &[(6, 1)], (6, &[6]));
        check(4, "1", "1", (2, 2), &[(3, 1)], (2, &[1]));
        // A status that speaks of pods that were already given up does not let others go.
        check(3, "2", "1", (1, 0), &[(1, 3), (3, 1)], (1, &[1, 1]));
    }

    #[test]
    fn oldest_goes_first() {
        check(10, "0", "5", (5, 5), &[(3, 3), (2, 2)], (5, &[0, 0]));
        check(10, "0", "2", (2, 2), &[(4, 4), (4, 4)], (2, &[2, 4]));
    }
}
