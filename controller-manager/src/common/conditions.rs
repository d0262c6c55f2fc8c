//! Status conditions: set one, keep the transition time when the status did not change.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The parts that all condition types of workloads have.
pub trait Condition: Clone {
    /// The condition's type.
    fn kind(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// Machine-readable reason.
    fn reason(&self) -> &str;
    /// When the status last changed.
    fn last_transition(&mut self) -> &mut Option<Time>;
}

macro_rules! condition {
    ($($type:path),+ $(,)?) => {$(
        impl Condition for $type {
            fn kind(&self) -> &str {
                &self.type_
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn reason(&self) -> &str {
                self.reason.as_deref().unwrap_or_default()
            }
            fn last_transition(&mut self) -> &mut Option<Time> {
                &mut self.last_transition_time
            }
        }
    )+};
}

condition!(
    k8s_openapi::api::apps::v1::ReplicaSetCondition,
    k8s_openapi::api::apps::v1::DeploymentCondition,
    k8s_openapi::api::core::v1::ReplicationControllerCondition,
    k8s_openapi::api::core::v1::NamespaceCondition,
    k8s_openapi::api::core::v1::PodCondition,
    k8s_openapi::api::core::v1::NodeCondition,
    k8s_openapi::api::batch::v1::JobCondition,
);

/// The condition of a type.
pub fn find<'a, C: Condition>(conditions: &'a [C], kind: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.kind() == kind)
}

/// Whether the condition of a type has a status.
pub fn is<C: Condition>(conditions: &[C], kind: &str, status: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status() == status)
}

/// Sets a condition unless it is there with the same status and reason. The transition time stays when the status
/// does. The condition moves to the end of the list, as upstream's setters do.
pub fn set<C: Condition>(conditions: &mut Vec<C>, mut condition: C) {
    if let Some(current) = conditions.iter_mut().find(|current| current.kind() == condition.kind()) {
        if current.status() == condition.status() && current.reason() == condition.reason() {
            return;
        }
        if current.status() == condition.status() {
            *condition.last_transition() = current.last_transition().clone();
        }
    }
    remove(conditions, condition.kind());
    conditions.push(condition);
}

/// Removes the condition of a type.
pub fn remove<C: Condition>(conditions: &mut Vec<C>, kind: &str) {
    conditions.retain(|condition| condition.kind() != kind);
}

/// A moment as the API writes it.
pub fn time(now: Timestamp) -> Option<Time> {
    Some(Time(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSetCondition;

    fn condition(status: &str, reason: &str, second: i64) -> ReplicaSetCondition {
        ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: status.into(),
            reason: Some(reason.into()),
            last_transition_time: time(Timestamp::from_second(second).expect("in range")),
            ..Default::default()
        }
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let mut conditions = vec![condition("True", "A", 1)];
        set(&mut conditions, condition("True", "A", 2));
        assert_eq!(conditions, [condition("True", "A", 1)]);
        set(&mut conditions, condition("True", "B", 3));
        assert_eq!(conditions, [condition("True", "B", 1)]);
        set(&mut conditions, condition("False", "B", 4));
        assert_eq!(conditions, [condition("False", "B", 4)]);
    }
}
