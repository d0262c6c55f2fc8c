//! Events about pods and nodes, with upstream's reasons.

use std::sync::Arc;

use client::{EventRecorder, EventType};
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};

use crate::types::{self, ContainerKind};

/// Where events go: the API, or a list in tests.
pub trait EventSink: Send + Sync {
    /// Records one event; never waits.
    fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: String);
}

impl EventSink for EventRecorder {
    fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: String) {
        self.event(about, kind, reason, message);
    }
}

/// Events of one kubelet; clones share it.
#[derive(Clone)]
pub struct Events(Arc<dyn EventSink>);

impl Events {
    /// Events that go to `sink`.
    pub fn new(sink: impl EventSink + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// About anything.
    pub fn about(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        self.0.record(about, kind, reason, message.into());
    }

    /// About a pod: all is as it should be.
    pub fn normal(&self, pod: &Pod, reason: &str, message: impl Into<String>) {
        self.about(&pod_reference(pod), EventType::Normal, reason, message);
    }

    /// About a pod: somebody should look.
    pub fn warning(&self, pod: &Pod, reason: &str, message: impl Into<String>) {
        self.about(&pod_reference(pod), EventType::Warning, reason, message);
    }

    /// About a container: all is as it should be.
    pub fn container_normal(&self, pod: &Pod, container: &str, reason: &str, message: impl Into<String>) {
        self.about(&container_reference(pod, container), EventType::Normal, reason, message);
    }

    /// About a container: somebody should look.
    pub fn container_warning(&self, pod: &Pod, container: &str, reason: &str, message: impl Into<String>) {
        self.about(&container_reference(pod, container), EventType::Warning, reason, message);
    }
}

/// Refers to a pod.
#[must_use]
pub fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Refers to a container of a pod by its place in the spec.
#[must_use]
pub fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let list = match types::find_container(types::spec(pod), container) {
        Some((ContainerKind::Init, _)) => "initContainers",
        Some((ContainerKind::Ephemeral, _)) => "ephemeralContainers",
        Some((ContainerKind::App, Container { .. })) | None => "containers",
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..pod_reference(pod) }
}

/// Refers to a node. As upstream, the UID is the node's name.
#[must_use]
pub fn node_reference(node: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use parking_lot::Mutex;

    /// Keeps events as `reason: message` lines.
    #[derive(Clone, Default)]
    pub(crate) struct Recorded(pub Arc<Mutex<Vec<String>>>);

    impl EventSink for Recorded {
        fn record(&self, _: &ObjectReference, _: EventType, reason: &str, message: String) {
            self.0.lock().push(format!("{reason}: {message}"));
        }
    }

    impl Recorded {
        /// The events so far.
        pub(crate) fn lines(&self) -> Vec<String> {
            self.0.lock().clone()
        }
    }

    #[test]
    fn containers_are_named_by_their_list() {
        let pod: Pod = serde_saphyr::from_str(
            "metadata: {name: p}\nspec: {containers: [{name: a}], initContainers: [{name: i}]}",
        )
        .expect("valid");
        let path = |c| container_reference(&pod, c).field_path.expect("set");
        assert_eq!(path("a"), "spec.containers{a}");
        assert_eq!(path("i"), "spec.initContainers{i}");
    }
}
