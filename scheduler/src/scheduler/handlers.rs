//! What informers tell goes to the cache and the queue (upstream `eventhandlers.go`).

use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use client::k8s_openapi::api::resource::v1::ResourceClaim;
use client::{Event, SharedInformerFactory};
use tokio::time::Instant;

use super::{Shared, State};
use crate::framework::events::{Object, node_changes, pod_changes};
use crate::framework::{Action, ClusterEvent, Resource};
use crate::measure;
use crate::pod_info::{PodInfo, node_name, nominated_node, on_node, uid};

/// Subscribes to all that matters.
pub(super) fn watch(factory: &SharedInformerFactory, shared: &Arc<Shared>) {
    let to = shared.clone();
    factory.informer::<Node>().subscribe(move |event| to.node_changed(event));
    let to = shared.clone();
    factory.informer::<Namespace>().subscribe(move |event| to.namespace_changed(event));
    let to = shared.clone();
    shared.pods.subscribe(move |event| to.pod_changed(event));
    watch_storage(factory, shared);
}

/// What happens to storage and devices matters to waiting pods, and to those that are about to be bound.
fn watch_storage(factory: &SharedInformerFactory, shared: &Arc<Shared>) {
    let to = shared.clone();
    factory.informer::<PersistentVolume>().subscribe(move |event| {
        to.volumes.changed();
        to.object_changed(event, Resource::PersistentVolume, Object::Volume);
    });
    let to = shared.clone();
    factory.informer::<PersistentVolumeClaim>().subscribe(move |event| {
        to.volumes.changed();
        to.object_changed(event, Resource::PersistentVolumeClaim, Object::Claim);
    });
    tell(factory, shared, Resource::StorageClass, Object::StorageClass);
    tell(factory, shared, Resource::CsiNode, Object::CsiNode);
    tell(factory, shared, Resource::CsiDriver, Object::CsiDriver);
    tell(factory, shared, Resource::CsiStorageCapacity, Object::CsiCapacity);
    tell(factory, shared, Resource::VolumeAttachment, Object::Attachment);
    let to = shared.clone();
    factory.informer::<ResourceClaim>().subscribe(move |event| {
        to.devices.changed();
        to.object_changed(event, Resource::ResourceClaim, Object::ResourceClaim);
    });
    tell(factory, shared, Resource::ResourceSlice, Object::ResourceSlice);
    tell(factory, shared, Resource::DeviceClass, Object::DeviceClass);
}

/// Tells the queue of every change of objects of one type.
fn tell<K: client::Object>(
    factory: &SharedInformerFactory,
    shared: &Arc<Shared>,
    resource: Resource,
    object: fn(Arc<K>) -> Object,
) {
    let to = shared.clone();
    factory.informer::<K>().subscribe(move |event| to.object_changed(event, resource, object));
}

fn is_assigned(pod: &Pod) -> bool {
    !node_name(pod).is_empty()
}

impl Shared {
    /// Tells the queue what happened.
    pub(super) fn happened(&self, state: &mut State, event: ClusterEvent) {
        let (label, started) = (event.label(), std::time::Instant::now());
        state.queue.happened(event, Instant::now());
        measure::handled(label, started);
        self.changed.notify_one();
    }

    fn object_changed<K>(&self, event: &Event<K>, resource: Resource, object: fn(Arc<K>) -> Object) {
        let object = |it: &Arc<K>| Some(object(it.clone()));
        let event = match event {
            Event::Added(new) => ClusterEvent::new(resource, Action::ADD, None, object(new)),
            Event::Updated { old, new } => {
                ClusterEvent::new(resource, Action::OTHER, object(old), object(new))
            }
            Event::Deleted(old) => ClusterEvent::new(resource, Action::DELETE, object(old), None),
        };
        self.happened(&mut self.state.lock(), event);
    }

    fn node_changed(&self, event: &Event<Node>) {
        let state = &mut *self.state.lock();
        let object = |node: &Arc<Node>| Some(Object::Node(node.clone()));
        match event {
            Event::Added(node) => {
                state.cache.set_node(node.clone());
                self.happened(state, ClusterEvent::new(Resource::Node, Action::ADD, None, object(node)));
            }
            Event::Updated { old, new } => {
                state.cache.set_node(new.clone());
                for action in node_changes(old, new) {
                    self.happened(state, ClusterEvent::new(Resource::Node, action, object(old), object(new)));
                }
            }
            Event::Deleted(node) => {
                self.happened(state, ClusterEvent::new(Resource::Node, Action::DELETE, object(node), None));
                state.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    fn namespace_changed(&self, event: &Event<Namespace>) {
        let object = event.object();
        let name = object.metadata.name.clone().unwrap_or_default();
        let labels = match event {
            Event::Deleted(_) => None,
            _ => Some(object.metadata.labels.clone().unwrap_or_default()),
        };
        let relabelled = match event {
            Event::Updated { old, new } => old.metadata.labels != new.metadata.labels,
            _ => true,
        };
        if relabelled {
            let state = &mut *self.state.lock();
            state.cache.set_namespace(&name, labels);
            self.happened(state, ClusterEvent::new(Resource::Namespace, Action::OTHER, None, None));
        }
    }

    /// A pod that has ended needs no place any more: it counts as gone.
    fn pod_changed(&self, event: &Event<Pod>) {
        let pod = event.object();
        let state = &mut *self.state.lock();
        let gone = matches!(event, Event::Deleted(_)) || api::pod::is_terminal(pod);
        match event {
            _ if gone && is_assigned(pod) => self.assigned_pod_gone(state, pod),
            _ if gone => self.waiting_pod_gone(state, pod),
            Event::Updated { old, new } if is_assigned(old) => self.assigned_pod_changed(state, old, new),
            Event::Updated { new, .. } if is_assigned(new) => self.pod_assigned(state, new),
            Event::Updated { old, new } => self.waiting_pod_changed(state, old, new),
            Event::Added(pod) if is_assigned(pod) => self.pod_assigned(state, pod),
            Event::Added(pod) if self.profiles.of(pod).is_some() => {
                state.queue.add(Arc::new(PodInfo::new(pod.clone())), Instant::now());
                self.changed.notify_one();
            }
            _ => {}
        }
    }

    fn pod_assigned(&self, state: &mut State, pod: &Arc<Pod>) {
        state.queue.remove(uid(pod));
        state.cache.set_pod(pod.clone());
        let new = Some(Object::Pod(pod.clone()));
        self.happened(state, ClusterEvent::new(Resource::AssignedPod, Action::ADD, None, new));
    }

    fn assigned_pod_changed(&self, state: &mut State, old: &Arc<Pod>, new: &Arc<Pod>) {
        state.cache.set_pod(new.clone());
        for action in pod_changes(old, new) {
            let (old, new) = (Some(Object::Pod(old.clone())), Some(Object::Pod(new.clone())));
            self.happened(state, ClusterEvent::new(Resource::AssignedPod, action, old, new));
        }
    }

    fn assigned_pod_gone(&self, state: &mut State, pod: &Arc<Pod>) {
        state.queue.remove(uid(pod));
        if state.cache.has_pod(uid(pod)) {
            state.cache.remove_pod(uid(pod));
            self.happened(state, ClusterEvent::pod_gone(pod.clone()));
        }
    }

    fn waiting_pod_changed(&self, state: &mut State, old: &Arc<Pod>, new: &Arc<Pod>) {
        if self.profiles.of(new).is_none() {
            return;
        }
        if state.cache.is_assumed(uid(new)) {
            if api::pod::is_terminating(new) && !api::pod::is_terminating(old) {
                self.assumed_pod_goes(state, new);
            }
            return;
        }
        state.queue.update(old, Arc::new(PodInfo::new(new.clone())), Instant::now());
        let before = nominated_node(old);
        if !before.is_empty() && before != nominated_node(new) {
            self.nomination_gone(state, old);
        }
        self.changed.notify_one();
    }

    fn waiting_pod_gone(&self, state: &mut State, pod: &Arc<Pod>) {
        state.queue.remove(uid(pod));
        if state.cache.is_assumed(uid(pod)) {
            self.assumed_pod_goes(state, pod);
        } else if !nominated_node(pod).is_empty() {
            self.nomination_gone(state, pod);
        }
    }

    /// The place that we took for a pod is free again. Its binding goes on, and will fail.
    fn assumed_pod_goes(&self, state: &mut State, pod: &Arc<Pod>) {
        let Some(node) = state.cache.node_of(uid(pod)).map(str::to_owned) else { return };
        if !self.stop_waiting(uid(pod), "removed") {
            state.cache.forget(uid(pod));
        }
        self.happened(state, ClusterEvent::pod_gone(Arc::new(on_node(pod, &node))));
    }

    /// Less important pods had to leave room on the node the pod was nominated to.
    fn nomination_gone(&self, state: &mut State, pod: &Arc<Pod>) {
        let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        let lesser = |other: &PodInfo| other.priority <= priority;
        state.queue.happened_to(ClusterEvent::pod_gone(pod.clone()), lesser, Instant::now());
        self.changed.notify_one();
    }
}
