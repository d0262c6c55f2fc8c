//! Every pod this kubelet is to run, by UID: API pods, and static pods with the mirrors that stand for them.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use crate::types;

/// Annotation with where a pod comes from.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation with the hash of a static pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation of mirror pods with the hash of what they mirror.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation with when a pod was first seen.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// The pod comes from a manifest on this node.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    types::annotation(pod, CONFIG_SOURCE).is_some_and(|source| source != "api") && !is_mirror(pod)
}

/// The pod stands in the API for a static pod.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    types::annotation(pod, CONFIG_MIRROR).is_some()
}

/// All pods of this node; clones share it.
#[derive(Clone, Debug, Default)]
pub struct PodRegistry {
    maps: Arc<RwLock<Maps>>,
}

#[derive(Debug, Default)]
struct Maps {
    pods: HashMap<String, Arc<Pod>>,
    mirrors: HashMap<String, Arc<Pod>>,
}

impl PodRegistry {
    /// Adds or replaces a pod. Answers the pod that is run: for a mirror, the static pod it stands for.
    pub fn upsert(&self, pod: Arc<Pod>) -> Option<Arc<Pod>> {
        let mut maps = self.maps.write();
        if is_mirror(&pod) {
            let name = types::full_name(&pod);
            maps.mirrors.insert(name.clone(), pod);
            return maps.pods.values().find(|p| is_static(p) && types::full_name(p) == name).cloned();
        }
        maps.pods.insert(types::uid(&pod).to_owned(), pod.clone());
        Some(pod)
    }

    /// Removes a pod by its UID, or a mirror by its own.
    pub fn remove(&self, uid: &str) -> Option<Arc<Pod>> {
        let mut maps = self.maps.write();
        let removed = maps.pods.remove(uid);
        maps.mirrors.retain(|_, mirror| types::uid(mirror) != uid);
        removed
    }

    /// All pods that are run, mirrors left out.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.maps.read().pods.values().cloned().collect()
    }

    /// All mirrors.
    #[must_use]
    pub fn mirrors(&self) -> Vec<Arc<Pod>> {
        self.maps.read().mirrors.values().cloned().collect()
    }

    /// The pod with this UID; a mirror's UID leads to its static pod.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<Arc<Pod>> {
        let maps = self.maps.read();
        maps.pods.get(uid).cloned().or_else(|| {
            let mirror = maps.mirrors.values().find(|m| types::uid(m) == uid)?;
            let name = types::full_name(mirror);
            maps.pods.values().find(|p| is_static(p) && types::full_name(p) == name).cloned()
        })
    }

    /// The pod with this name. When a pod was replaced by one of the same name, the one not being deleted.
    #[must_use]
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let maps = self.maps.read();
        let mut found: Vec<_> = maps
            .pods
            .values()
            .filter(|p| types::name(p) == name && types::namespace(p) == namespace)
            .cloned()
            .collect();
        found.sort_by_key(|p| p.metadata.deletion_timestamp.is_some());
        found.into_iter().next()
    }

    /// The mirror of a static pod.
    #[must_use]
    pub fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.maps.read().mirrors.get(&types::full_name(pod)).cloned()
    }

    /// The API's object for a pod: the mirror of a static pod, else the pod itself.
    #[must_use]
    pub fn api_pod(&self, pod: &Arc<Pod>) -> Option<Arc<Pod>> {
        if is_static(pod) { self.mirror_of(pod) } else { Some(pod.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str, annotations: &str) -> Arc<Pod> {
        Arc::new(
            serde_saphyr::from_str(&format!(
                "metadata: {{name: {name}, namespace: ns, uid: {uid}, annotations: {{{annotations}}}}}"
            ))
            .expect("valid"),
        )
    }

    #[test]
    fn mirrors_lead_to_their_static_pod() {
        let registry = PodRegistry::default();
        let fixed = pod("etcd-n1", "s", "kubernetes.io/config.source: file");
        let mirror = pod("etcd-n1", "m", "kubernetes.io/config.mirror: h, kubernetes.io/config.source: file");
        assert!(registry.upsert(mirror.clone()).is_none());
        registry.upsert(fixed.clone());
        assert_eq!(registry.upsert(mirror.clone()), Some(fixed.clone()));
        assert_eq!(registry.by_uid("m"), Some(fixed.clone()));
        assert_eq!(registry.api_pod(&fixed), Some(mirror));
        assert_eq!(registry.pods().len(), 1);
        registry.remove("m");
        assert_eq!(registry.api_pod(&fixed), None);
        assert_eq!(registry.by_name("ns", "etcd-n1"), Some(fixed));
    }
}
