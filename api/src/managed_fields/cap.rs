//! Not more than ten managers by update (upstream `internal/capmanagers.go`).

use std::collections::BTreeMap;

use super::entries::{Managed, ManagerId, Operation};

/// More managers by update than this are merged into one for each version, the oldest first.
const MAX_UPDATERS: usize = 10;
/// The manager they are merged into.
const ANCIENT: &str = "ancient-changes";

/// Merges the oldest updaters, if there are too many.
pub(super) fn cap(managed: &mut Managed) {
    cap_at(managed, MAX_UPDATERS);
}

/// As [`cap`], with another limit.
pub(super) fn cap_at(managed: &mut Managed, limit: usize) {
    let updaters = managed.fields.iter().filter(|(_, owned)| !owned.applied).map(|(id, _)| id.clone());
    let mut updaters: Vec<ManagerId> = updaters.collect();
    let mut count = updaters.len();
    if count <= limit {
        return;
    }
    updaters.sort_by_cached_key(|id| (managed.times.get(id).cloned().unwrap_or_default(), id.text()));
    // The first one of a version stays alone as long as it is the only one.
    let mut firsts: BTreeMap<String, ManagerId> = BTreeMap::new();
    for updater in updaters {
        if count <= limit {
            return;
        }
        let Some(version) = managed.fields.get(&updater).map(|owned| owned.version.clone()) else { continue };
        let Some(first) = firsts.get(&version) else {
            firsts.insert(version, updater);
            continue;
        };
        let bucket = ManagerId {
            manager: ANCIENT.to_owned(),
            operation: Operation::Update,
            api_version: version,
            subresource: String::new(),
        };
        if !managed.fields.contains_key(&bucket)
            && let Some(owned) = managed.fields.remove(first)
        {
            managed.fields.insert(bucket.clone(), owned);
        }
        if let Some(owned) = managed.fields.remove(&updater)
            && let Some(ancient) = managed.fields.get_mut(&bucket)
        {
            ancient.set = std::mem::take(&mut ancient.set).union(owned.set.clone());
            count -= 1;
        }
        match managed.times.get(&updater).cloned() {
            Some(time) => managed.times.insert(bucket, time),
            None => managed.times.remove(&bucket),
        };
    }
}
