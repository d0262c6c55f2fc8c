//! How long to wait before failed pods are replaced: twice as long after each failure since the last success.

use crate::common::meta;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::sync::Arc;
use std::time::Duration;

const FIRST: i64 = 10;
const LONGEST: i64 = 600;

/// Failures since the last success.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// Takes newly ended pods into account.
    #[must_use]
    pub fn after(&self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let times = |pods: &[Arc<Pod>]| pods.iter().map(|pod| finished_at(pod)).collect::<Vec<_>>();
        let failed = times(failed);
        let Some(success) = times(succeeded).into_iter().max() else {
            let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
            return match failed.into_iter().max() {
                None => self.clone(),
                last => Self { failures: self.failures.saturating_add(count), last },
            };
        };
        let later: Vec<_> = failed.into_iter().filter(|at| *at > success).collect();
        Self { failures: u32::try_from(later.len()).unwrap_or(u32::MAX), last: later.into_iter().max() }
    }

    /// How long to wait still.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        self.last.and_then(|last| remaining(self.failures, last, now))
    }
}

/// How long to wait after so many failures, the last one at `last`.
pub fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    if failures == 0 {
        return None;
    }
    let delay =
        FIRST.saturating_mul(1_i64.checked_shl((failures - 1).min(30)).unwrap_or(i64::MAX)).min(LONGEST);
    let left = SignedDuration::from_secs(delay) - now.duration_since(last);
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// When a pod ended: its last container, else when it stopped being ready, else when its deletion began.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let deleted = || {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        at.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let unready = || {
        let condition =
            crate::common::pods::ready_condition(pod).filter(|condition| condition.status == "False")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    last_container(pod).or_else(unready).or_else(deleted).or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn last_container(pod: &Pod) -> Option<Timestamp> {
    let ended =
        |status: &ContainerStatus| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let all: Option<Vec<_>> = statuses.iter().map(ended).collect();
    all?.into_iter().max()
}

/// The number in an annotation of a pod.
pub fn count(pod: &Pod, annotation: &str) -> u32 {
    meta::annotation(&pod.metadata, annotation).and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn ended(second: i64) -> Arc<Pod> {
        let mut pod = pod("p", "n", "Failed", None);
        if let Some(status) = &mut pod.status {
            let terminated =
                ContainerStateTerminated { finished_at: Some(Time(at(second))), ..Default::default() };
            status.container_statuses = Some(vec![ContainerStatus {
                state: Some(ContainerState { terminated: Some(terminated), ..Default::default() }),
                ..Default::default()
            }]);
        }
        Arc::new(pod)
    }

    #[test]
    fn each_failure_doubles_and_success_resets() {
        let none = Backoff::default();
        let wait = |backoff: &Backoff, now| backoff.remaining(at(now)).map(|wait| wait.as_secs());
        let one = none.after(&[], &[ended(100)]);
        assert_eq!(wait(&one, 100), Some(10));
        assert_eq!(wait(&one, 111), None);
        let three = one.after(&[], &[ended(200), ended(150)]);
        assert_eq!(wait(&three, 200), Some(40));
        assert_eq!(wait(&three.after(&[ended(210)], &[ended(205)]), 210), None);
        assert_eq!(wait(&three.after(&[ended(210)], &[ended(215)]), 215), Some(10));
        let many = (0..20).fold(none, |backoff, second| backoff.after(&[], &[ended(second)]));
        assert_eq!(wait(&many, 19), Some(600));
    }
}
