//! The status of a set, as numbers and at most one condition.

use super::View;
use crate::common::{Selector, conditions, meta, pods};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSetCondition;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// What both kinds report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Pods that count.
    pub replicas: i32,
    /// Of these, pods with all labels of the template.
    pub fully_labeled: i32,
    /// Of these, ready pods.
    pub ready: i32,
    /// Of these, pods ready for long enough.
    pub available: i32,
    /// Pods on their way out; `None` for ReplicationControllers, which do not report it.
    pub terminating: Option<i32>,
    /// The generation that these numbers are about.
    pub observed_generation: i64,
    /// `ReplicaFailure`, if pods cannot be created or deleted.
    pub conditions: Vec<ReplicaSetCondition>,
}

/// Computes the status. `failure` is the error of the last attempt to create or delete pods.
pub fn status(
    view: &View<'_>,
    active: &[Arc<Pod>],
    terminating: &[Arc<Pod>],
    failure: Option<&str>,
    now: Timestamp,
) -> Status {
    let labels = view.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    let template = Selector::from_set(labels.into_iter().flatten());
    let count = |matches: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|pod| matches(pod)).count()).unwrap_or(i32::MAX)
    };
    let replicas = count(&|_| true);
    Status {
        replicas,
        fully_labeled: count(&|pod| template.matches(meta::labels(&pod.metadata))),
        ready: count(&pods::is_ready),
        available: count(&|pod| pods::is_available(pod, view.min_ready_seconds, now)),
        terminating: view.reports_terminating.then(|| i32::try_from(terminating.len()).unwrap_or(i32::MAX)),
        observed_generation: view.generation,
        conditions: failure_condition(view, replicas, failure, now),
    }
}

fn failure_condition(
    view: &View<'_>,
    active: i32,
    failure: Option<&str>,
    now: Timestamp,
) -> Vec<ReplicaSetCondition> {
    let mut conditions = view.status.conditions.clone();
    match failure {
        Some(message) if conditions::find(&conditions, "ReplicaFailure").is_none() => {
            let reason = match active.cmp(&view.replicas) {
                std::cmp::Ordering::Less => "FailedCreate",
                std::cmp::Ordering::Greater => "FailedDelete",
                std::cmp::Ordering::Equal => "",
            };
            let condition = ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: conditions::time(now),
            };
            conditions::set(&mut conditions, condition);
        }
        Some(_) => {}
        None => conditions::remove(&mut conditions, "ReplicaFailure"),
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::core::v1::PodTemplateSpec;

    fn view<'a>(
        template: &'a PodTemplateSpec,
        replicas: i32,
        conditions: Vec<ReplicaSetCondition>,
    ) -> View<'a> {
        View {
            replicas,
            min_ready_seconds: 10,
            selector: Selector::everything(),
            template,
            generation: 4,
            reports_terminating: true,
            status: Status { conditions, ..Default::default() },
        }
    }

    #[test]
    fn pods_are_counted_by_what_they_are() {
        let template = PodTemplateSpec::default();
        let pods: Vec<_> = [None, Some(80), Some(95)]
            .into_iter()
            .enumerate()
            .map(|(i, ready)| Arc::new(pod(&i.to_string(), "n", "Running", ready)))
            .collect();
        let status = status(&view(&template, 3, vec![]), &pods, &pods[..1], None, at(100));
        let expected = Status {
            replicas: 3,
            fully_labeled: 3,
            ready: 2,
            available: 1,
            terminating: Some(1),
            observed_generation: 4,
            conditions: vec![],
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn failure_appears_once_and_goes_away() {
        let template = PodTemplateSpec::default();
        let first = status(&view(&template, 1, vec![]), &[], &[], Some("quota"), at(1)).conditions;
        assert_eq!(first[0].reason.as_deref(), Some("FailedCreate"));
        let second = status(&view(&template, 1, first.clone()), &[], &[], Some("other"), at(2)).conditions;
        assert_eq!(second, first);
        assert!(status(&view(&template, 1, first), &[], &[], None, at(3)).conditions.is_empty());
    }
}
