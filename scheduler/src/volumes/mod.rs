//! Volumes and claims as the scheduler sees them: as the API says, and ahead of it what was promised to pods that
//! are on their way to their nodes.

pub mod matching;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Object, ObjectKey, SharedInformerFactory};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::listers::Lister;

/// Marks a claim with the node that its volume is to be made for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Marks a claim whose binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Marks a volume that was bound by Kubernetes, not by the user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// Objects of one type, some of them as they will be.
pub struct Assuming<K> {
    /// As the API says.
    pub seen: Lister<K>,
    assumed: Arc<Mutex<HashMap<ObjectKey, Arc<K>>>>,
}

impl<K> Clone for Assuming<K> {
    fn clone(&self) -> Self {
        Self { seen: self.seen.clone(), assumed: self.assumed.clone() }
    }
}

impl<K> Default for Assuming<K> {
    fn default() -> Self {
        Lister::default().into()
    }
}

impl<K> From<Lister<K>> for Assuming<K> {
    fn from(seen: Lister<K>) -> Self {
        Self { seen, assumed: Arc::default() }
    }
}

impl<K: Object> Assuming<K> {
    /// The object; as it was assumed to become, until the API shows another version than the assumption was made of.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.seen.get(key).map(|seen| self.ahead(seen))
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.seen.all().into_iter().map(|seen| self.ahead(seen)).collect()
    }

    fn ahead(&self, seen: Arc<K>) -> Arc<K> {
        let key = ObjectKey::of(&*seen);
        let mut assumed = self.assumed.lock();
        let Some(ahead) = assumed.get(&key) else { return seen };
        if ahead.meta().resource_version == seen.meta().resource_version {
            return ahead.clone();
        }
        assumed.remove(&key);
        seen
    }

    /// The object is going to be so.
    pub fn assume(&self, object: K) {
        self.assumed.lock().insert(ObjectKey::of(&object), Arc::new(object));
    }

    /// The object is as the API says after all.
    pub fn restore(&self, key: &ObjectKey) {
        self.assumed.lock().remove(key);
    }
}

/// All that scheduling knows of storage.
#[derive(Clone)]
pub struct Volumes {
    /// Claims.
    pub claims: Assuming<PersistentVolumeClaim>,
    /// Volumes.
    pub volumes: Assuming<PersistentVolume>,
    /// Classes.
    pub classes: Lister<StorageClass>,
    /// What the nodes' storage drivers can do.
    pub csi_nodes: Lister<CSINode>,
    /// Storage drivers.
    pub csi_drivers: Lister<CSIDriver>,
    /// How much room storage drivers have.
    pub capacities: Lister<CSIStorageCapacity>,
    /// Volumes attached to nodes.
    pub attachments: Lister<VolumeAttachment>,
    /// Counts changes of claims and volumes.
    pub changes: Arc<watch::Sender<u64>>,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            claims: Assuming::default(),
            volumes: Assuming::default(),
            classes: Lister::default(),
            csi_nodes: Lister::default(),
            csi_drivers: Lister::default(),
            capacities: Lister::default(),
            attachments: Lister::default(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Volumes {
    /// From informers.
    #[must_use]
    pub fn new(factory: &SharedInformerFactory) -> Self {
        Self {
            claims: Lister::from(factory.informer::<PersistentVolumeClaim>()).into(),
            volumes: Lister::from(factory.informer::<PersistentVolume>()).into(),
            classes: factory.informer().into(),
            csi_nodes: factory.informer().into(),
            csi_drivers: factory.informer().into(),
            capacities: factory.informer().into(),
            attachments: factory.informer().into(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }

    /// A claim or a volume changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// The key of something that is in no namespace.
#[must_use]
pub fn global(name: &str) -> ObjectKey {
    ObjectKey::new("", name)
}
