//! In which order pods end with their node, and how long each group may take. Pure; as upstream's `groupByPriority`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::types;

/// Priority from which pods are critical.
const CRITICAL: i32 = 2_000_000_000;

/// One of `shutdownGracePeriodByPodPriority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Period {
    /// The lowest priority it is for.
    pub priority: i32,
    /// How long pods of that priority may take, in seconds.
    pub shutdown_grace_period_seconds: i64,
}

impl Period {
    fn seconds(self) -> u64 {
        u64::try_from(self.shutdown_grace_period_seconds).unwrap_or_default()
    }
}

/// Pods that end together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// How long they may take.
    pub grace: Duration,
    /// The pods.
    pub pods: Vec<Arc<Pod>>,
}

/// The periods from the lowest priority to the highest: those by priority, else one for ordinary pods and one for critical
/// ones. None where nodes are not shut down gracefully.
#[must_use]
pub fn periods(by_priority: &[Period], whole: Duration, critical: Duration) -> Vec<Period> {
    let mut periods = by_priority.to_vec();
    if periods.is_empty() && !whole.is_zero() && whole >= critical {
        let period = |priority, grace: Duration| Period {
            priority,
            shutdown_grace_period_seconds: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        periods = vec![period(0, whole.saturating_sub(critical)), period(CRITICAL, critical)];
    }
    periods.sort_by_key(|period| period.priority);
    periods
}

/// How long all of it may take.
#[must_use]
pub fn whole(periods: &[Period]) -> Duration {
    Duration::from_secs(periods.iter().map(|period| period.seconds()).sum())
}

/// The pods by period, in the order in which they end. Pods below the lowest period end with it; groups without pods are
/// left out.
#[must_use]
pub fn groups(periods: &[Period], pods: &[Arc<Pod>]) -> Vec<Group> {
    let mut groups: Vec<Group> = periods
        .iter()
        .map(|period| Group { grace: Duration::from_secs(period.seconds()), pods: Vec::new() })
        .collect();
    for pod in pods {
        let priority = types::spec(pod).priority.unwrap_or_default();
        let index = periods.iter().rposition(|period| period.priority <= priority).unwrap_or_default();
        if let Some(group) = groups.get_mut(index) {
            group.pods.push(pod.clone());
        }
    }
    groups.retain(|group| !group.pods.is_empty());
    groups
}

/// How long a pod may take: what it says itself, but no longer than its group.
#[must_use]
pub fn grace(pod: &Pod, group: Duration) -> Duration {
    let own = types::spec(pod).termination_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
    own.map_or(group, |own| group.min(Duration::from_secs(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(periods: &[Period]) -> Vec<(i32, i64)> {
        periods.iter().map(|p| (p.priority, p.shutdown_grace_period_seconds)).collect()
    }

    fn period(priority: i32, shutdown_grace_period_seconds: i64) -> Period {
        Period { priority, shutdown_grace_period_seconds }
    }

    #[test]
    fn two_periods_stand_for_many() {
        let of = |whole, critical| {
            seconds(&periods(&[], Duration::from_secs(whole), Duration::from_secs(critical)))
        };
        assert_eq!(of(300, 120), [(0, 180), (CRITICAL, 120)]);
        assert_eq!(of(100, 0), [(0, 100), (CRITICAL, 0)]);
        assert_eq!(of(0, 0), []);
        assert_eq!(of(1, 100), []);
        let given = [period(5, 1), period(-1, 2)];
        let sorted = periods(&given, Duration::from_secs(9), Duration::ZERO);
        assert_eq!(seconds(&sorted), [(-1, 2), (5, 1)]);
        assert_eq!(whole(&sorted), Duration::from_secs(3));
    }

    #[test]
    fn pods_end_by_priority() {
        let pod = |priority: i32| -> Arc<Pod> {
            let text =
                format!("metadata: {{name: p{priority}}}\nspec: {{priority: {priority}, containers: []}}");
            Arc::new(serde_saphyr::from_str(&text).expect("valid"))
        };
        let shown = |periods: &[Period], priorities: &[i32]| -> Vec<(u64, Vec<i32>)> {
            let pods: Vec<_> = priorities.iter().map(|p| pod(*p)).collect();
            let of = |group: Group| {
                let pods = group.pods.iter().map(|p| types::spec(p).priority.unwrap_or_default()).collect();
                (group.grace.as_secs(), pods)
            };
            groups(periods, &pods).into_iter().map(of).collect()
        };
        let two = periods(&[], Duration::from_secs(300), Duration::from_secs(120));
        assert_eq!(
            shown(&two, &[0, 1_000_000_000, CRITICAL]),
            [(180, vec![0, 1_000_000_000]), (120, vec![CRITICAL])]
        );
        let four = [period(1, 10), period(2, 20), period(3, 30), period(4, 40)];
        assert_eq!(
            shown(&four, &[0, 1, 2, 3, 4, 5]),
            [(10, vec![0, 1]), (20, vec![2]), (30, vec![3]), (40, vec![4, 5])]
        );
        assert_eq!(shown(&four, &[5]), [(40, vec![5])], "nobody waits for nobody");
        let own: Pod = serde_saphyr::from_str("spec: {terminationGracePeriodSeconds: 5, containers: []}")
            .expect("valid");
        assert_eq!(grace(&own, Duration::from_secs(9)), Duration::from_secs(5));
        assert_eq!(grace(&own, Duration::from_secs(3)), Duration::from_secs(3));
        assert_eq!(grace(&Pod::default(), Duration::from_secs(3)), Duration::from_secs(3));
    }
}
