//! The rolling update of a DaemonSet: old pods go before the new ones come, or with surge after.

use super::node;
use super::plan::{Plan, View};
use crate::common::meta;
use crate::deployment::resolve;
use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

fn bounds(set: &DaemonSet) -> Option<&RollingUpdateDaemonSet> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref()?;
    strategy.rolling_update.as_ref().filter(|_| strategy.type_.as_deref() != Some("OnDelete"))
}

/// How many nodes may have two pods.
pub fn max_surge(set: &DaemonSet, wanted: usize) -> usize {
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    let surge = bounds(set).map_or(0, |bounds| resolve(bounds.max_surge.as_ref(), wanted, true));
    usize::try_from(surge).unwrap_or(0)
}

fn max_unavailable(set: &DaemonSet, wanted: usize) -> usize {
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    let bound = bounds(set).map_or(1, |bounds| resolve(bounds.max_unavailable.as_ref(), wanted, true));
    usize::try_from(bound).unwrap_or(0)
}

/// What a node has.
enum Has<'a> {
    Nothing,
    New(&'a Arc<Pod>),
    Old(&'a Arc<Pod>),
    Both { new: &'a Arc<Pod>, old: &'a Arc<Pod> },
    TooMany,
}

fn has<'a>(view: &View<'_>, pods: &'a [Arc<Pod>]) -> Has<'a> {
    let staying = pods.iter().filter(|pod| !meta::is_deleting(&pod.metadata));
    let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| view.is_updated(pod));
    match (new.as_slice(), old.as_slice()) {
        ([], []) => Has::Nothing,
        ([new], []) => Has::New(new),
        ([], [old]) => Has::Old(old),
        ([new], [old]) => Has::Both { new, old },
        _ => Has::TooMany,
    }
}

/// Adds what the update replaces now.
pub fn plan(view: &View<'_>, plan: &mut Plan) {
    let wanted = view.wanted();
    let surge = max_surge(view.set, wanted);
    let unavailable = max_unavailable(view.set, wanted);
    if surge > 0 {
        with_surge(view, surge, wanted, plan);
    } else {
        // Both bounds may come out as 0 of few nodes; then one pod at a time.
        without_surge(view, unavailable.max(1), plan);
    }
}

fn without_surge(view: &View<'_>, max_unavailable: usize, plan: &mut Plan) {
    let (mut unavailable, mut candidates) = (0, Vec::new());
    for pods in view.pods.values() {
        match has(view, pods) {
            Has::Nothing | Has::Both { .. } | Has::TooMany => unavailable += 1,
            Has::New(new) => unavailable += usize::from(!view.is_available(new)),
            Has::Old(old) if !view.is_available(old) => {
                // It serves nobody: it may go without counting.
                plan.delete.push(old.clone());
                unavailable += 1;
            }
            Has::Old(old) => candidates.push(old.clone()),
        }
    }
    plan.delete.extend(candidates.into_iter().take(max_unavailable.saturating_sub(unavailable)));
}

fn with_surge(view: &View<'_>, max_surge: usize, wanted: usize, plan: &mut Plan) {
    let (mut surging, mut available) = (0, 0);
    let (mut candidates, mut unwanted) = (Vec::new(), Vec::new());
    for (name, pods) in &view.pods {
        let runs = || {
            let here = view.nodes.iter().find(|here| meta::name(&here.metadata) == name);
            here.is_some_and(|here| node::fit(here, view.set).run)
        };
        match has(view, pods) {
            Has::Nothing => {}
            Has::TooMany => surging += 1,
            Has::New(new) => available += usize::from(view.is_available(new)),
            Has::Old(old) if !view.is_available(old) => {
                if runs() {
                    plan.create.push(name.clone())
                } else {
                    plan.delete.push(old.clone())
                }
            }
            Has::Old(old) => {
                available += 1;
                if runs() { candidates.push(name.clone()) } else { unwanted.push(old.clone()) }
            }
            Has::Both { new, old } => {
                available += usize::from(view.is_available(old));
                if view.is_available(new) { plan.delete.push(old.clone()) } else { surging += 1 }
            }
        }
    }
    plan.delete.extend(unwanted.into_iter().take(available.saturating_sub(wanted)));
    plan.create.extend(candidates.into_iter().take(max_surge.saturating_sub(surging)));
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{planned, set};

    #[test]
    fn without_surge_old_pods_go_within_the_bound() {
        for (unavailable, have, expected) in [
            (1, "a+old b+old c+old", "-a"),
            (2, "a+old b+old c+old", "-a -b"),
            (1, "a-new b+old c+old", ""),
            (1, "a+new b+old c+old", "-b"),
            (1, "a-old b+old c+old", "-a"),
            (1, "a+new b+new c+new", ""),
        ] {
            assert_eq!(planned(&set(0, unavailable), "a b c", have), expected, "{unavailable}: {have}");
        }
    }

    #[test]
    fn with_surge_new_pods_come_first() {
        for (surge, have, expected) in [
            (1, "a+old b+old c+old", "+a"),
            (2, "a+old b+old c+old", "+a +b"),
            (1, "a+old a-new b+old c+old", ""),
            (1, "a+old a+new b+old c+old", "-a"),
            (1, "a-old b+old c+old", "+a +b"),
        ] {
            assert_eq!(planned(&set(surge, 0), "a b c", have), expected, "{surge}: {have}");
        }
    }
}
