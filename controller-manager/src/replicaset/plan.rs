//! Decides how many pods to create, or which to delete.

use super::BURST;
use crate::common::pods;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// What a set needs.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// There are as many pods as asked for.
    Keep,
    /// Create so many pods.
    Create(usize),
    /// Delete these pods.
    Delete(Vec<Arc<Pod>>),
}

/// Compares the pods that count with the number wanted. `related` is asked only when pods must go.
pub fn plan(
    replicas: i32,
    active: Vec<Arc<Pod>>,
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Plan {
    let wanted = usize::try_from(replicas).unwrap_or(0);
    match active.len() {
        have if have < wanted => Plan::Create((wanted - have).min(BURST)),
        have if have > wanted => {
            Plan::Delete(pods::to_delete(active, &related(), (have - wanted).min(BURST), now))
        }
        _ => Plan::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|i| Arc::new(pod(&format!("p{i}"), "n", "Running", Some(1)))).collect()
    }

    #[test]
    fn difference_decides() {
        for (wanted, have, expected) in
            [(0, 0, 0), (2, 2, 0), (2, 0, 2), (600, 1, 500), (0, 3, -3), (1, 700, -500)]
        {
            let made = match plan(wanted, pods(have), Vec::new, at(9)) {
                Plan::Keep => 0,
                Plan::Create(count) => count as i64,
                Plan::Delete(pods) => -(pods.len() as i64),
            };
            assert_eq!(made, expected, "{have} pods, {wanted} wanted");
        }
    }

    #[test]
    fn related_pods_are_not_looked_up_without_need() {
        assert_eq!(plan(1, Vec::new(), || unreachable!("nothing goes"), at(9)), Plan::Create(1));
    }
}
