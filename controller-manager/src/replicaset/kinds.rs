//! The two kinds behind one implementation.

use super::status::Status;
use crate::common::Selector;
use client::Object;
use client::kube::Resource;
use client::kube::core::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use serde::Serialize;
use std::sync::LazyLock;

/// What the implementation needs of a set.
pub struct View<'a> {
    /// How many pods are wanted.
    pub replicas: i32,
    /// For how long a pod must be ready to be available.
    pub min_ready_seconds: i32,
    /// Which pods are the set's.
    pub selector: Selector,
    /// What new pods look like.
    pub template: &'a PodTemplateSpec,
    /// The generation of the object.
    pub generation: i64,
    /// Whether the kind reports terminating pods.
    pub reports_terminating: bool,
    /// What was reported last.
    pub status: Status,
}

/// A kind that keeps a number of equal pods.
pub trait Replicated: Object + Resource<Scope = NamespaceResourceScope> + Serialize {
    /// The name of the queue in metrics.
    const QUEUE: &'static str;
    /// The component that events of this kind come from.
    const EVENT_SOURCE: &'static str;
    /// The parts that matter.
    fn view(&self) -> View<'_>;
    /// The object with another status.
    fn with_status(&self, status: Status) -> Self;
}

static NO_TEMPLATE: LazyLock<PodTemplateSpec> = LazyLock::new(PodTemplateSpec::default);

fn some(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

impl Replicated for ReplicaSet {
    const QUEUE: &'static str = "replicaset";
    const EVENT_SOURCE: &'static str = "replicaset-controller";

    fn view(&self) -> View<'_> {
        let spec = self.spec.as_ref();
        let status = self.status.clone().unwrap_or_default();
        View {
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            selector: spec
                .and_then(|spec| Selector::from_meta(Some(&spec.selector)).ok())
                .unwrap_or_else(Selector::nothing),
            template: spec.and_then(|spec| spec.template.as_ref()).unwrap_or(&NO_TEMPLATE),
            generation: self.metadata.generation.unwrap_or(0),
            reports_terminating: true,
            status: Status {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                terminating: status.terminating_replicas,
                observed_generation: status.observed_generation.unwrap_or(0),
                conditions: status.conditions.unwrap_or_default(),
            },
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let status = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            terminating_replicas: status.terminating,
            observed_generation: Some(status.observed_generation),
            conditions: (!status.conditions.is_empty()).then_some(status.conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    const QUEUE: &'static str = "replicationmanager";
    const EVENT_SOURCE: &'static str = "replication-controller";

    fn view(&self) -> View<'_> {
        let spec = self.spec.as_ref();
        let status = self.status.clone().unwrap_or_default();
        let selector = spec.and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
        View {
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            selector: selector.map_or_else(Selector::nothing, Selector::from_set),
            template: spec.and_then(|spec| spec.template.as_ref()).unwrap_or(&NO_TEMPLATE),
            generation: self.metadata.generation.unwrap_or(0),
            reports_terminating: false,
            status: Status {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                terminating: None,
                observed_generation: status.observed_generation.unwrap_or(0),
                conditions: status.conditions.unwrap_or_default().into_iter().map(to_common).collect(),
            },
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let conditions: Vec<_> = status.conditions.into_iter().map(from_common).collect();
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            observed_generation: Some(status.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

fn to_common(condition: ReplicationControllerCondition) -> ReplicaSetCondition {
    ReplicaSetCondition {
        type_: condition.type_,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
        last_transition_time: condition.last_transition_time,
    }
}

fn from_common(condition: ReplicaSetCondition) -> ReplicationControllerCondition {
    ReplicationControllerCondition {
        type_: condition.type_,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
        last_transition_time: condition.last_transition_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_survives_the_round_trip() {
        let status = Status {
            replicas: 3,
            fully_labeled: 2,
            ready: 1,
            available: 0,
            terminating: Some(0),
            observed_generation: 5,
            conditions: vec![ReplicaSetCondition { type_: "ReplicaFailure".into(), ..Default::default() }],
        };
        assert_eq!(ReplicaSet::default().with_status(status.clone()).view().status, status);
        let without = Status { terminating: None, ..status.clone() };
        assert_eq!(ReplicationController::default().with_status(status).view().status, without);
    }
}
