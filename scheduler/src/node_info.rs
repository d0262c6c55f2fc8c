//! What the scheduler knows of a node and of the pods on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm};

use crate::resources::{Resources, non_zero_request};

/// A pod with what is computed from it once.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it requests.
    pub requests: Resources,
    /// CPU and memory it counts for in scores.
    pub non_zero: (i64, i64),
    /// Host ports it uses: protocol, address, port.
    pub ports: Vec<HostPort>,
}

/// Protocol, host address and host port.
pub type HostPort = (String, String, i32);

impl PodInfo {
    /// Computes what scheduling needs of `pod`.
    #[must_use]
    pub fn new(pod: Arc<Pod>) -> Self {
        let mut requests = Resources::requested_by(&pod);
        requests.pods = 1;
        Self { requests, non_zero: non_zero_request(&pod), ports: host_ports(&pod), pod }
    }

    /// Namespace of the pod.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// UID of the pod.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Labels of the pod.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    /// The pods it must not be near to.
    #[must_use]
    pub fn required_anti_affinity(&self) -> &[PodAffinityTerm] {
        let affinity = self.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()?.pod_anti_affinity.as_ref());
        affinity
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default()
    }

    /// The pods it must be near to.
    #[must_use]
    pub fn required_affinity(&self) -> &[PodAffinityTerm] {
        let affinity = self.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()?.pod_affinity.as_ref());
        affinity
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default()
    }
}

/// Ports of app containers and sidecars; on the host network they all are host ports (the API defaults them so).
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return vec![] };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| api::pod::is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY.to_owned());
            Some((protocol, address, number))
        })
        .collect()
}

const ANY: &str = "0.0.0.0";

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
    /// Its pods by UID.
    pub pods: BTreeMap<String, Arc<PodInfo>>,
    /// Host ports in use.
    pub ports: BTreeSet<HostPort>,
    /// Sizes of the images it has, by name.
    pub images: BTreeMap<String, i64>,
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
            pods: BTreeMap::new(),
            ports: BTreeSet::new(),
            images: BTreeMap::new(),
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
        self.images = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.node = node;
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

    /// Counts a pod in; one that is counted already is replaced.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(pod.uid());
        self.count(&pod, 1);
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    /// Counts a pod out; false if it was not there.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.remove(uid) else { return false };
        self.count(&pod, -1);
        self.ports = self.pods.values().flat_map(|p| p.ports.iter().cloned()).collect();
        true
    }

    fn count(&mut self, pod: &PodInfo, sign: i64) {
        self.requested.add(&pod.requests, sign);
        self.non_zero.0 += sign * pod.non_zero.0;
        self.non_zero.1 += sign * pod.non_zero.1;
        if !pod.required_anti_affinity().is_empty() {
            self.with_anti_affinity = self.with_anti_affinity.saturating_add_signed(sign as isize);
        }
    }

    /// Whether a host port is taken: the same protocol and port on the same address, or on all of them.
    #[must_use]
    pub fn conflicts(&self, (protocol, address, port): &HostPort) -> bool {
        self.ports
            .iter()
            .any(|(p, a, n)| p == protocol && n == port && (a == address || a == ANY || address == ANY))
    }
}
