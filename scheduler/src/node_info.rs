//! What the scheduler knows of a node and of the pods on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod_info::{ANY_ADDRESS, HostPort, PodInfo};
use crate::resources::Resources;

/// A node with its pods and sums over them.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Node>,
    /// What pods may use.
    pub allocatable: Resources,
    /// What its pods request.
    pub requested: Resources,
    /// CPU and memory its pods count for in scores.
    pub non_zero: (i64, i64),
    /// Its pods, in no order.
    pub pods: Vec<Arc<PodInfo>>,
    /// Host ports in use, once for each pod that uses one.
    pub ports: Vec<HostPort>,
    /// Sizes of the images it has, by name.
    pub images: Arc<BTreeMap<String, i64>>,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// Whether it has taints that keep pods away.
    pub hard_tainted: bool,
    /// Whether it has taints that pods had better avoid.
    pub soft_tainted: bool,
    /// How many of its pods have affinity to, or against, others.
    pub with_affinity: usize,
    /// How many of its pods have required anti-affinity.
    pub with_anti_affinity: usize,
}

impl NodeInfo {
    /// A node without pods.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            node: node.clone(),
            allocatable: Resources::default(),
            requested: Resources::default(),
            non_zero: (0, 0),
            pods: Vec::new(),
            ports: Vec::new(),
            images: Arc::default(),
            cordoned: false,
            hard_tainted: false,
            soft_tainted: false,
            with_affinity: 0,
            with_anti_affinity: 0,
        };
        info.set_node(node);
        info
    }

    /// Takes the node's new state.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = Resources::of(&api::pod::read(status.and_then(|s| s.allocatable.as_ref())));
        let images = status.and_then(|s| s.images.as_ref()).into_iter().flatten();
        let images: BTreeMap<_, _> = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        if *self.images != images {
            self.images = Arc::new(images);
        }
        self.node = node;
        self.cordoned = self.node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
        let taints = |effects: &[&str]| self.taints().iter().any(|t| effects.contains(&t.effect.as_str()));
        (self.hard_tainted, self.soft_tainted) =
            (taints(&["NoSchedule", "NoExecute"]), taints(&["PreferNoSchedule"]));
    }

    /// Name of the node.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// One label of the node.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// The node's taints.
    #[must_use]
    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
    }

    /// The zone the node is in, with its region; empty if it does not say.
    #[must_use]
    pub fn zone(&self) -> String {
        let label = |names: [&str; 2]| names.into_iter().find_map(|name| self.label(name)).unwrap_or("");
        let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
        let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
        if region.is_empty() && zone.is_empty() { String::new() } else { format!("{region}:\0:{zone}") }
    }

    /// Counts a pod in.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.count(&pod, 1);
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Counts a pod out, and gives it back; none if it was not there.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        // Who is taken away often came last.
        let at = self.pods.iter().rposition(|pod| pod.uid() == uid)?;
        let pod = self.pods.swap_remove(at);
        self.count(&pod, -1);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        Some(pod)
    }

    /// The node without those of its pods for which `goes` holds, and they.
    #[must_use]
    pub fn without(&self, goes: impl Fn(&PodInfo) -> bool) -> (Self, Vec<Arc<PodInfo>>) {
        let (gone, pods): (Vec<_>, Vec<_>) = self.pods.iter().cloned().partition(|pod| goes(pod));
        let mut emptier = Self { pods, ports: Vec::new(), ..self.with_no_pods() };
        emptier.ports.extend(emptier.pods.iter().flat_map(|pod| pod.ports.iter().cloned()));
        gone.iter().for_each(|pod| emptier.count(pod, -1));
        (emptier, gone)
    }

    /// All but the lists of pods and of their ports.
    fn with_no_pods(&self) -> Self {
        Self {
            node: self.node.clone(),
            allocatable: self.allocatable.clone(),
            requested: self.requested.clone(),
            images: self.images.clone(),
            pods: Vec::new(),
            ports: Vec::new(),
            ..*self
        }
    }

    fn count(&mut self, pod: &PodInfo, sign: i64) {
        self.requested.add(&pod.requests, sign);
        self.non_zero.0 += sign * pod.non_zero.0;
        self.non_zero.1 += sign * pod.non_zero.1;
        let step = |count: &mut usize| *count = count.saturating_add_signed(if sign < 0 { -1 } else { 1 });
        if let Some(affinity) = &pod.affinity {
            step(&mut self.with_affinity);
            if !affinity.required_anti.is_empty() {
                step(&mut self.with_anti_affinity);
            }
        }
    }

    /// Whether a host port is taken: the same protocol and port on the same address, or on all of them.
    #[must_use]
    pub fn conflicts(&self, wanted: &HostPort) -> bool {
        self.ports.iter().any(|taken| ports_conflict(taken, wanted))
    }
}

/// Whether two pods cannot both have these host ports on one node.
#[must_use]
pub fn ports_conflict(one: &HostPort, other: &HostPort) -> bool {
    let address = one.1 == other.1 || one.1 == ANY_ADDRESS || other.1 == ANY_ADDRESS;
    one.0 == other.0 && one.2 == other.2 && address
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn removing_a_pod_takes_back_all_that_adding_it_counted() {
        let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4"}}});
        let mut info = NodeInfo::new(Arc::new(serde_json::from_value(node).expect("a node")));
        let empty = format!("{info:?}");
        let pod = json!({"metadata": {"uid": "u"}, "spec": {
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k"}]}},
            "containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}],
                            "resources": {"requests": {"cpu": "1"}}}]}});
        info.add(Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod")))));
        assert_eq!((info.requested.cpu, info.with_affinity, info.with_anti_affinity), (1000, 1, 1));
        assert!(info.conflicts(&("TCP".into(), "10.0.0.1".into(), 80)));
        let (without, gone) = info.without(|pod| pod.uid() == "u");
        assert_eq!((format!("{without:?}"), gone.len()), (empty.clone(), 1));
        let (same, none) = info.without(|_| false);
        assert_eq!((format!("{same:?}"), none.len()), (format!("{info:?}"), 0));
        assert!(info.remove("u").is_some());
        assert_eq!(format!("{info:?}"), empty);
        assert!(info.remove("u").is_none());
    }
}
