//! Drivers of volumes on this node (CSI): which there are, what the API is told of them, and the volumes they provide.
//!
//! What a pod uses is written beside it on disk before a driver is called, in upstream's files, so that everything can
//! be taken down after a restart. Calls for one volume are made one at a time; a volume is unstaged when the last pod of
//! this node that uses it has gone.

mod attach;
mod disk;
mod driver;
mod expand;
mod growth;
mod node_info;
mod secrets;
mod volume;
mod wanted;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use client::{Client, EventRecorder};
use k8s_openapi::api::core::v1::Node;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use driver::DriverClient;
use growth::Known;
pub use wanted::{Source, Wanted};

use crate::layout::Layout;
use crate::volumes::Reason;

/// Prefix of messages, as upstream's.
const PLUGIN: &str = "kubernetes.io/csi";

fn text(what: &str, error: impl std::fmt::Display) -> Reason {
    Reason::Text(format!("{PLUGIN}: {what}: {error}"))
}

/// What drivers' volumes need of the rest.
pub struct Deps {
    /// The API; without it there are no volumes but those of pods' own.
    pub client: Option<Client>,
    /// Name of this node.
    pub node_name: String,
    /// Where things lie on disk.
    pub layout: Layout,
    /// This node as last seen.
    pub node: Arc<dyn Fn() -> Option<Arc<Node>> + Send + Sync>,
    /// Told when the node's status changes: volumes in use.
    pub poke: Arc<Notify>,
    /// For events.
    pub recorder: Option<EventRecorder>,
}

/// The drivers of this node and their volumes. Clones share them.
#[derive(Clone)]
pub struct Csi {
    inner: Arc<Inner>,
}

struct Inner {
    deps: Deps,
    drivers: RwLock<HashMap<String, DriverClient>>,
    /// Volumes that wait to be attached, by the UID of the pod that wants them.
    awaited: Mutex<HashMap<String, BTreeSet<String>>>,
    /// What is known of volumes that pods use, by their unique names.
    known: Mutex<HashMap<String, Known>>,
    /// One at a time works on a volume.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Csi {
    /// No drivers yet.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let inner = Inner {
            deps,
            drivers: RwLock::default(),
            awaited: Mutex::default(),
            known: Mutex::default(),
            turns: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a driver in: asks it how it knows this node, tells the API, and lets volumes use it.
    pub async fn register(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        if !versions.iter().any(|version| is_supported(version)) {
            return Err(format!(
                "{PLUGIN}: RegisterPlugin for CSI driver {name:?} failed. None of the versions specified \
                 {versions:?} are supported"
            ));
        }
        let driver = DriverClient::new(endpoint);
        let info = driver.info().await.map_err(|error| error.to_string())?;
        if info.node_id.is_empty() {
            return Err("error adding CSI driver node info: driverNodeID must not be empty".to_owned());
        }
        let driver = driver.with_capabilities().await.map_err(|error| error.to_string())?;
        if let Some(client) = &self.inner.deps.client {
            node_info::install(client, &self.inner.deps.node_name, name, &info).await?;
        }
        self.inner.drivers.write().insert(name.to_owned(), driver);
        tracing::info!(driver = name, endpoint = %endpoint.display(), "CSI driver registered");
        Ok(())
    }

    /// A driver has gone.
    pub async fn deregister(&self, name: &str) {
        self.inner.drivers.write().remove(name);
        tracing::info!(driver = name, "CSI driver gone");
        if let Some(client) = &self.inner.deps.client
            && let Err(error) = node_info::uninstall(client, &self.inner.deps.node_name, name).await
        {
            tracing::warn!(driver = name, error, "the API still shows a driver that has gone");
        }
    }

    /// Makes the object that tells of this node's drivers, if there is none.
    pub async fn introduce(&self) -> Result<(), String> {
        match &self.inner.deps.client {
            Some(client) => node_info::csi_node(client, &self.inner.deps.node_name).await.map(drop),
            None => Ok(()),
        }
    }

    fn driver(&self, name: &str) -> Result<DriverClient, String> {
        let found = self.inner.drivers.read().get(name).cloned();
        found.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }

    /// Volumes that were attached for this node and may not be detached: used by pods, or awaited.
    #[must_use]
    pub fn volumes_in_use(&self) -> Vec<String> {
        let awaited = self.inner.awaited.lock().values().flatten().cloned().collect::<BTreeSet<_>>();
        let on_disk = disk::used(&self.inner.deps.layout);
        let attached = on_disk.into_iter().filter(|(_, data)| data.attachment.is_some());
        awaited
            .into_iter()
            .chain(attached.map(|(_, data)| data.unique_name()))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn turn(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.inner.turns.lock().entry(volume.to_owned()).or_default().clone()
    }

    /// Forgets the turns of volumes nobody works on.
    fn drop_turn(&self, volume: &str) {
        let mut turns = self.inner.turns.lock();
        if turns.get(volume).is_some_and(|turn| Arc::strong_count(turn) <= 1) {
            turns.remove(volume);
        }
    }
}

/// Major version 1 is what is spoken.
fn is_supported(version: &str) -> bool {
    version.trim_start_matches('v').split('.').next() == Some("1")
}

#[cfg(test)]
pub(crate) mod tests;
