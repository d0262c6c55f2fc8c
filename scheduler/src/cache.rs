//! What runs where: nodes and the pods on them, as the API says, and ahead of it the pods we have just placed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::node_info::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// The cache. One lock guards it; nothing slow happens under it.
#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    /// Which node each pod counts on, by UID; pods may come before their node.
    places: HashMap<String, Place>,
    images: Option<Arc<BTreeMap<String, usize>>>,
    namespaces: Arc<BTreeMap<String, BTreeMap<String, String>>>,
}

struct Place {
    node: String,
    pod: Arc<PodInfo>,
    /// Placed by us, and not yet seen so in the API.
    assumed: bool,
}

impl Cache {
    /// A node is new or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.images = None;
        if let Some(info) = self.nodes.get_mut(&name) {
            return Arc::make_mut(info).set_node(node);
        }
        let mut info = NodeInfo::new(node);
        for place in self.places.values().filter(|p| p.node == name) {
            info.add(place.pod.clone());
        }
        self.nodes.insert(name, Arc::new(info));
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.images = None;
        self.nodes.remove(name);
    }

    /// A pod runs on a node, says the API.
    pub fn set_pod(&mut self, pod: Arc<Pod>) {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        self.place(Arc::new(PodInfo::new(pod)), node, false);
    }

    /// A pod is gone, or has ended.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        if let Some(info) = self.nodes.get_mut(&place.node) {
            Arc::make_mut(info).remove(uid);
        }
    }

    /// We chose a node for a pod: it counts there from now on.
    pub fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.place(pod.clone(), node.to_owned(), true);
    }

    /// The choice came to nothing.
    pub fn forget(&mut self, uid: &str) {
        if self.places.get(uid).is_some_and(|p| p.assumed) {
            self.remove_pod(uid);
        }
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: String, assumed: bool) {
        let uid = pod.uid().to_owned();
        if self.places.get(&uid).is_some_and(|old| old.node != node) {
            self.remove_pod(&uid);
        }
        if let Some(info) = self.nodes.get_mut(&node) {
            Arc::make_mut(info).add(pod.clone());
        }
        self.places.insert(uid, Place { node, pod, assumed });
    }

    /// Whether the pod counts on some node.
    #[must_use]
    pub fn has_pod(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }

    /// Takes the labels of a namespace; `None` if it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match labels {
            Some(labels) => namespaces.insert(name.to_owned(), labels),
            None => namespaces.remove(name),
        };
    }

    /// The cluster now.
    pub fn snapshot(&mut self) -> Snapshot {
        let nodes: Vec<_> = self.nodes.values().cloned().collect();
        let images = self.images.get_or_insert_with(|| {
            let mut counts = BTreeMap::new();
            for name in nodes.iter().flat_map(|node| node.images.keys()) {
                *counts.entry(name.clone()).or_insert(0) += 1;
            }
            Arc::new(counts)
        });
        Snapshot { images: images.clone(), namespaces: self.namespaces.clone(), nodes }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: Option<&str>) -> Arc<Pod> {
        let object = json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}}}]}});
        Arc::new(serde_json::from_value(object).expect("a pod"))
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).expect("a node"))
    }

    #[test]
    fn assumed_pod_counts_once_through_confirmation_and_not_after_being_forgotten() {
        let mut cache = Cache::default();
        cache.set_node(node("n1"));
        let cpu = |cache: &mut Cache| cache.snapshot().nodes[0].requested.cpu;
        cache.assume(&Arc::new(PodInfo::new(pod("a", None))), "n1");
        cache.assume(&Arc::new(PodInfo::new(pod("b", None))), "n1");
        assert_eq!(cpu(&mut cache), 500);
        cache.set_pod(pod("a", Some("n1")));
        cache.forget("a");
        cache.forget("b");
        assert_eq!(cpu(&mut cache), 250, "a confirmed pod is not forgotten");
    }

    #[test]
    fn pods_may_come_before_their_node_and_snapshots_do_not_change() {
        let mut cache = Cache::default();
        cache.set_pod(pod("a", Some("n1")));
        cache.set_node(node("n1"));
        let before = cache.snapshot();
        cache.remove_pod("a");
        assert_eq!(before.nodes[0].requested.cpu, 250);
        assert_eq!(cache.snapshot().nodes[0].requested.cpu, 0);
    }
}
