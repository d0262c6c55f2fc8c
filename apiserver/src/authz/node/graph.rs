//! Which node may read which objects, because a pod that runs there refers to them (upstream `node/graph.go`).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use parking_lot::RwLock;

use super::slim::{Kind, SlimPod};

type Map<K, V> = HashMap<K, V, RandomState>;
type Vertex = (Kind, String, String);

/// The relations, counted: an object may be related to a node by several pods.
#[derive(Default)]
pub struct Graph {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// Object to nodes, with the number of pods that relate them.
    nodes: Map<Vertex, Map<String, u32>>,
    /// What each pod has contributed, by namespace and name.
    pods: Map<(String, String), Contribution>,
    /// The claim each persistent volume is bound to, and the secrets it needs.
    volumes: Map<String, Volume>,
    /// Persistent volumes that need a secret, by namespace and name of the secret.
    volumes_by_secret: Map<(String, String), Vec<String>>,
    /// The node of each volume attachment.
    attachments: Map<String, String>,
    /// The node of each resource slice.
    slices: Map<String, String>,
}

struct Contribution {
    node: String,
    vertices: Vec<Vertex>,
}

#[derive(Default)]
struct Volume {
    claim: Option<(String, String)>,
    secrets: Vec<(String, String)>,
}

impl Graph {
    /// Takes in a pod, or what has become of it.
    pub fn put_pod(&self, pod: &SlimPod) {
        let (namespace, name) = key_of(pod);
        let mut state = self.state.write();
        state.remove_pod(&namespace, &name);
        if pod.node.is_empty() {
            return;
        }
        let mut vertices = vec![(Kind::Pod, namespace.clone(), name.clone())];
        vertices
            .extend(pod.references.iter().map(|(kind, name)| (*kind, namespace.clone(), name.to_string())));
        let node = pod.node.to_string();
        for vertex in &vertices {
            *state.nodes.entry(vertex.clone()).or_default().entry(node.clone()).or_default() += 1;
        }
        state.pods.insert((namespace, name), Contribution { node, vertices });
    }

    /// Forgets a pod.
    pub fn remove_pod(&self, pod: &SlimPod) {
        let (namespace, name) = key_of(pod);
        self.state.write().remove_pod(&namespace, &name);
    }

    /// Takes in a persistent volume.
    pub fn put_volume(&self, volume: &PersistentVolume) {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let spec = volume.spec.clone().unwrap_or_default();
        let claim = spec.claim_ref.as_ref().map(|claim| {
            (claim.namespace.clone().unwrap_or_default(), claim.name.clone().unwrap_or_default())
        });
        let mut secrets = Vec::new();
        if let Some(csi) = &spec.csi {
            for reference in [
                &csi.node_publish_secret_ref,
                &csi.node_stage_secret_ref,
                &csi.node_expand_secret_ref,
                &csi.controller_publish_secret_ref,
                &csi.controller_expand_secret_ref,
            ]
            .into_iter()
            .flatten()
            {
                secrets.push((
                    reference.namespace.clone().unwrap_or_default(),
                    reference.name.clone().unwrap_or_default(),
                ));
            }
        }
        let mut state = self.state.write();
        state.remove_volume(&name);
        for secret in &secrets {
            state.volumes_by_secret.entry(secret.clone()).or_default().push(name.clone());
        }
        state.volumes.insert(name, Volume { claim, secrets });
    }

    /// Forgets a persistent volume.
    pub fn remove_volume(&self, volume: &PersistentVolume) {
        self.state.write().remove_volume(volume.metadata.name.as_deref().unwrap_or_default());
    }

    /// Takes in a volume attachment.
    pub fn put_attachment(&self, attachment: &VolumeAttachment) {
        let name = attachment.metadata.name.clone().unwrap_or_default();
        self.state.write().attachments.insert(name, attachment.spec.node_name.clone());
    }

    /// Forgets a volume attachment.
    pub fn remove_attachment(&self, attachment: &VolumeAttachment) {
        self.state.write().attachments.remove(attachment.metadata.name.as_deref().unwrap_or_default());
    }

    /// Takes in a resource slice.
    pub fn put_slice(&self, name: &str, node: Option<&str>) {
        let mut state = self.state.write();
        match node {
            Some(node) => state.slices.insert(name.to_owned(), node.to_owned()),
            None => state.slices.remove(name),
        };
    }

    /// Whether a pod on `node` refers to the object.
    #[must_use]
    pub fn related(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let state = self.state.read();
        if state.has(node, kind, namespace, name) {
            return true;
        }
        if kind != Kind::Secret {
            return false;
        }
        let volumes = state.volumes_by_secret.get(&(namespace.to_owned(), name.to_owned()));
        volumes.into_iter().flatten().any(|volume| state.volume_related(node, volume))
    }

    /// Whether a pod on `node` uses the claim that the persistent volume is bound to.
    #[must_use]
    pub fn volume_related(&self, node: &str, volume: &str) -> bool {
        self.state.read().volume_related(node, volume)
    }

    /// Whether the volume attachment is for `node`.
    #[must_use]
    pub fn attachment_related(&self, node: &str, attachment: &str) -> bool {
        self.state.read().attachments.get(attachment).is_some_and(|of| of == node)
    }

    /// Whether the resource slice is `node`'s.
    #[must_use]
    pub fn slice_related(&self, node: &str, slice: &str) -> bool {
        self.state.read().slices.get(slice).is_some_and(|of| of == node)
    }
}

fn key_of(pod: &SlimPod) -> (String, String) {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

impl State {
    fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(contribution) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        for vertex in contribution.vertices {
            let Some(nodes) = self.nodes.get_mut(&vertex) else { continue };
            if let Some(count) = nodes.get_mut(&contribution.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&contribution.node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&vertex);
            }
        }
    }

    fn remove_volume(&mut self, name: &str) {
        let Some(volume) = self.volumes.remove(name) else { return };
        for secret in volume.secrets {
            if let Some(volumes) = self.volumes_by_secret.get_mut(&secret) {
                volumes.retain(|other| other != name);
                if volumes.is_empty() {
                    self.volumes_by_secret.remove(&secret);
                }
            }
        }
    }

    fn has(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let vertex = (kind, namespace.to_owned(), name.to_owned());
        self.nodes.get(&vertex).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn volume_related(&self, node: &str, volume: &str) -> bool {
        let claim = self.volumes.get(volume).and_then(|volume| volume.claim.as_ref());
        claim.is_some_and(|(namespace, name)| self.has(node, Kind::Claim, namespace, name))
    }
}
