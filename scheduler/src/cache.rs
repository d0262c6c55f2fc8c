//! What runs where: nodes and the pods on them, as the API says, and ahead of it the pods we have just placed.
//!
//! The cache notes what changed since the last time, and [`Cache::update`] brings a snapshot up to date with just
//! that. Nodes are shared with the snapshot and copied when they change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::node_info::NodeInfo;
use crate::pod_info::{Namespaces, PodInfo, affinity, node_name};
use crate::snapshot::{Change, Snapshot};

/// The cache. One lock guards it; nothing slow happens under it.
#[derive(Default)]
pub struct Cache {
    nodes: HashMap<String, Arc<NodeInfo>>,
    /// Names of the nodes by zone, in the order they came.
    zones: BTreeMap<String, Vec<String>>,
    /// Which node each pod counts on, by UID; pods may come before their node.
    places: HashMap<String, Place>,
    /// UIDs of pods placed by us, and not yet seen so in the API.
    assumed: HashSet<String>,
    /// UIDs of pods whose node is not known yet.
    homeless: HashSet<String>,
    images: HashMap<String, usize>,
    namespaces: Namespaces,
    news: News,
}

struct Place {
    node: String,
    pod: Arc<PodInfo>,
}

/// What changed since the last snapshot.
#[derive(Default)]
struct News {
    /// Nodes came, went or moved to another zone.
    nodes: bool,
    /// Labels or taints of nodes changed.
    shapes: bool,
    images: bool,
    namespaces: bool,
    touched: HashSet<String>,
    pods: Vec<(String, Arc<PodInfo>, bool)>,
}

impl Cache {
    /// A node is new or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let Some(info) = self.nodes.get_mut(&name) else { return self.add_node(name, node) };
        let shape = |node: &Node| {
            let spec = node.spec.as_ref();
            (node.metadata.labels.clone(), spec.and_then(|s| s.taints.clone()), spec.map(|s| s.unschedulable))
        };
        self.news.shapes |= shape(&info.node) != shape(&node);
        let (images, zone) = (info.images.clone(), info.zone());
        let info = Arc::make_mut(info);
        info.set_node(node);
        let (new_images, new_zone) = (info.images.clone(), info.zone());
        if !Arc::ptr_eq(&images, &new_images) {
            self.count_images(&images, false);
            self.count_images(&new_images, true);
        }
        if zone != new_zone {
            self.leave_zone(&zone, &name);
            self.zones.entry(new_zone).or_default().push(name.clone());
            self.news.nodes = true;
        }
        self.news.touched.insert(name);
    }

    fn add_node(&mut self, name: String, node: Arc<Node>) {
        let mut info = NodeInfo::new(node);
        let places = &self.places;
        self.homeless.retain(|uid| match places.get(uid) {
            Some(place) if place.node == name => {
                info.add(place.pod.clone());
                false
            }
            place => place.is_some(),
        });
        self.zones.entry(info.zone()).or_default().push(name.clone());
        self.count_images(&info.images.clone(), true);
        self.nodes.insert(name, Arc::new(info));
        self.news.nodes = true;
    }

    /// A node is gone. Its pods count again if it comes back before they go.
    pub fn remove_node(&mut self, name: &str) {
        let Some(info) = self.nodes.remove(name) else { return };
        self.homeless.extend(info.pods.iter().map(|pod| pod.uid().to_owned()));
        self.count_images(&info.images, false);
        self.leave_zone(&info.zone(), name);
        self.news.nodes = true;
    }

    fn leave_zone(&mut self, zone: &str, name: &str) {
        if let Some(names) = self.zones.get_mut(zone) {
            names.retain(|n| n != name);
            if names.is_empty() {
                self.zones.remove(zone);
            }
        }
    }

    fn count_images(&mut self, images: &BTreeMap<String, i64>, more: bool) {
        self.news.images |= !images.is_empty();
        for name in images.keys() {
            let count = self.images.entry(name.clone()).or_insert(0);
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.images.remove(name);
            }
        }
    }

    /// A pod runs on a node, says the API.
    pub fn set_pod(&mut self, pod: Arc<Pod>) {
        let node = node_name(&pod).to_owned();
        self.place(Arc::new(PodInfo::new(pod)), node, false);
    }

    /// A pod is gone, or has ended.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        self.homeless.remove(uid);
        self.assumed.remove(uid);
        if let Some(info) = self.nodes.get_mut(&place.node)
            && let Some(pod) = Arc::make_mut(info).remove(uid)
        {
            self.news.touched.insert(place.node.clone());
            self.news.pods.push((place.node, pod, false));
        }
    }

    /// We chose a node for a pod: it counts there from now on.
    pub fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.place(pod.clone(), node.to_owned(), true);
    }

    /// The choice came to nothing.
    pub fn forget(&mut self, uid: &str) {
        if self.is_assumed(uid) {
            self.remove_pod(uid);
        }
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: String, assumed: bool) {
        let uid = pod.uid().to_owned();
        let confirms =
            self.places.get_mut(&uid).filter(|old| old.node == node && counts_the_same(&old.pod, &pod));
        if let Some(old) = confirms {
            let old = std::mem::replace(&mut old.pod, pod.clone());
            self.swap(&node, &old, pod);
            if assumed {
                self.assumed.insert(uid);
            } else {
                self.assumed.remove(&uid);
            }
            return;
        }
        self.remove_pod(&uid);
        match self.nodes.get_mut(&node) {
            Some(info) => {
                Arc::make_mut(info).add(pod.clone());
                self.news.touched.insert(node.clone());
                self.news.pods.push((node.clone(), pod.clone(), true));
            }
            None => {
                self.homeless.insert(uid.clone());
            }
        }
        if assumed {
            self.assumed.insert(uid.clone());
        }
        self.places.insert(uid, Place { node, pod });
    }

    /// Holds the newer state of a pod that counts for the same.
    fn swap(&mut self, node: &str, old: &Arc<PodInfo>, new: Arc<PodInfo>) {
        let Some(info) = self.nodes.get_mut(node) else { return };
        let at = info.pods.iter().position(|pod| Arc::ptr_eq(pod, old));
        if let Some(at) = at {
            Arc::make_mut(info).pods[at] = new;
            self.news.touched.insert(node.to_owned());
        }
    }

    /// Whether the pod counts on some node.
    #[must_use]
    pub fn has_pod(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }

    /// The node that the pod counts on.
    #[must_use]
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(|place| place.node.as_str())
    }

    /// Whether the pod counts on a node only because we placed it there.
    #[must_use]
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains(uid)
    }

    /// Takes the labels of a namespace; `None` if it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        self.news.namespaces = true;
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    /// How many nodes there are, how many pods count on nodes, and how many of them we placed just now.
    #[must_use]
    pub fn sizes(&self) -> [usize; 3] {
        [self.nodes.len(), self.places.len(), self.assumed.len()]
    }

    /// Brings the snapshot up to date with what changed since the last call. There is one snapshot per cache.
    pub fn update(&mut self, snapshot: &mut Snapshot) {
        let news = std::mem::take(&mut self.news);
        if news.namespaces {
            snapshot.namespaces = Arc::new(self.namespaces.clone());
        }
        if news.images {
            snapshot.images = Arc::new(self.images.clone());
        }
        if news.nodes {
            let nodes = self.in_turns();
            *snapshot = Snapshot::new(nodes, snapshot.images.clone(), snapshot.namespaces.clone());
            return;
        }
        for name in &news.touched {
            if let (Some(at), Some(node)) = (snapshot.place(name), self.nodes.get(name)) {
                snapshot.replace(at, node.clone());
            }
        }
        if news.shapes || news.namespaces {
            snapshot.next_epoch();
            return;
        }
        for (name, pod, added) in news.pods {
            if let Some(node) = snapshot.place(&name) {
                snapshot.note(Change { node, pod, added });
            }
        }
    }

    /// The nodes, one of each zone in turn, so that looking at some of them looks at all zones alike.
    fn in_turns(&self) -> Vec<Arc<NodeInfo>> {
        let longest = self.zones.values().map(Vec::len).max().unwrap_or(0);
        let mut seen = BTreeSet::new();
        let names = (0..longest).flat_map(|turn| self.zones.values().filter_map(move |zone| zone.get(turn)));
        names.filter(|name| seen.insert(*name)).filter_map(|name| self.nodes.get(name).cloned()).collect()
    }
}

/// Whether the newer state of a pod makes no difference to what is counted on its node and to other pods.
fn counts_the_same(old: &PodInfo, new: &PodInfo) -> bool {
    old.requests == new.requests
        && old.non_zero == new.non_zero
        && old.ports == new.ports
        && old.priority == new.priority
        && old.labels() == new.labels()
        && old.is_terminating() == new.is_terminating()
        && affinity(&old.pod) == affinity(&new.pod)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, node: Option<&str>) -> Arc<Pod> {
        let object = json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}}}]}});
        Arc::new(serde_json::from_value(object).expect("a pod"))
    }

    fn node(name: &str, labels: Value) -> Arc<Node> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).expect("a node"),
        )
    }

    fn cpu(cache: &mut Cache, snapshot: &mut Snapshot) -> i64 {
        cache.update(snapshot);
        snapshot.nodes.iter().map(|node| node.requested.cpu).sum()
    }

    #[test]
    fn assumed_pod_counts_once_through_confirmation_and_not_after_being_forgotten() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        cache.set_node(node("n1", json!({})));
        cache.assume(&Arc::new(PodInfo::new(pod("a", None))), "n1");
        cache.assume(&Arc::new(PodInfo::new(pod("b", None))), "n1");
        assert_eq!(cpu(&mut cache, &mut snapshot), 500);
        cache.set_pod(pod("a", Some("n1")));
        cache.forget("a");
        cache.forget("b");
        assert_eq!(cpu(&mut cache, &mut snapshot), 250, "a confirmed pod is not forgotten");
    }

    #[test]
    fn pods_may_come_before_their_node_and_survive_it() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        cache.set_pod(pod("a", Some("n1")));
        cache.set_node(node("n1", json!({})));
        assert_eq!(cpu(&mut cache, &mut snapshot), 250);
        cache.remove_node("n1");
        assert_eq!(cpu(&mut cache, &mut snapshot), 0);
        cache.set_node(node("n1", json!({})));
        assert_eq!(cpu(&mut cache, &mut snapshot), 250);
        cache.remove_pod("a");
        assert_eq!(cpu(&mut cache, &mut snapshot), 0);
    }

    #[test]
    fn the_log_tells_which_pods_came_and_went() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        cache.set_node(node("n1", json!({})));
        cache.update(&mut snapshot);
        let (epoch, version) = (snapshot.epoch(), snapshot.version());
        cache.assume(&Arc::new(PodInfo::new(pod("a", None))), "n1");
        cache.set_pod(pod("a", Some("n1")));
        cache.remove_pod("a");
        cache.update(&mut snapshot);
        let changes: Vec<_> = snapshot.since(version).expect("remembered").map(|c| c.added).collect();
        assert_eq!(changes, [true, false], "a confirmation is no change");
        assert_eq!(snapshot.epoch(), epoch);
        cache.set_node(node("n1", json!({"zone": "z"})));
        cache.update(&mut snapshot);
        assert_ne!(snapshot.epoch(), epoch);
    }

    #[test]
    fn nodes_of_different_zones_take_turns() {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("c2", "c")] {
            cache.set_node(node(name, json!({"topology.kubernetes.io/zone": zone})));
        }
        cache.update(&mut snapshot);
        let names: Vec<_> = snapshot.nodes.iter().map(|node| node.name()).collect();
        assert_eq!(names, ["a1", "b1", "c1", "a2", "c2", "a3"]);
    }
}
