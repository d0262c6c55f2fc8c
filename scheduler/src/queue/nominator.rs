//! Pods for which a node is set aside while they wait, usually because room is being made there.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::framework::Nominated;
use crate::pod_info::{PodInfo, nominated_node, uid};

/// Which pods are nominated to which nodes.
#[derive(Default)]
pub struct Nominator {
    by_node: Arc<Nominated>,
    nodes: HashMap<String, String>,
}

impl Nominator {
    /// The pods by node. Cheap; what was given out does not change.
    #[must_use]
    pub fn nominated(&self) -> Arc<Nominated> {
        self.by_node.clone()
    }

    /// The node of a pod; none if it has none.
    #[must_use]
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.nodes.get(uid).map(String::as_str)
    }

    /// Nominates the pod to `node` (empty: to none), or if that is not said, to the node its status names.
    pub fn set(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        let node = node.unwrap_or_else(|| pod.nominated_node()).to_owned();
        self.remove(pod.uid());
        if !node.is_empty() {
            self.nodes.insert(pod.uid().to_owned(), node.clone());
            Arc::make_mut(&mut self.by_node).entry(node).or_default().push(pod.clone());
        }
    }

    /// Takes the new state of a pod. A node that only we know of stays: the API may not have heard of it yet.
    pub fn update(&mut self, old: &Pod, new: &Arc<PodInfo>) {
        let unsaid = nominated_node(old).is_empty() && new.nominated_node().is_empty();
        let ours = self.node_of(uid(old)).map(str::to_owned).filter(|_| unsaid);
        self.remove(uid(old));
        self.set(new, ours.as_deref());
    }

    /// The pod is nominated nowhere.
    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.nodes.remove(uid) else { return };
        let by_node = Arc::make_mut(&mut self.by_node);
        if let Some(pods) = by_node.get_mut(&node) {
            pods.retain(|pod| pod.uid() != uid);
            if pods.is_empty() {
                by_node.remove(&node);
            }
        }
    }
}
