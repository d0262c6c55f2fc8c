//! What the agent asks of volumes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use proto::cri;

use crate::layout::Layout;
use crate::sync::runner::ImageVolumes;
use crate::types;
use crate::volumes::{self, MountInfo, VolumeManager};

/// Volumes of pods; the text of an error goes into an event or a container's status.
#[async_trait]
pub trait PodVolumes: Send + Sync {
    /// Makes every volume of the pod usable. Repeatable.
    async fn mount_pod(&self, pod: &Pod) -> Result<(), String>;
    /// Releases every volume of the pod, from what is on disk alone. Repeatable.
    async fn unmount_pod(&self, uid: &str) -> Result<(), String>;
    /// Something of the pod's volumes is still there.
    async fn exist(&self, uid: &str) -> bool;
    /// Mounts of one container.
    async fn container_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[(String, String)],
        images: &ImageVolumes,
    ) -> Result<Vec<cri::Mount>, String>;
    /// Volumes that one container uses as devices.
    fn container_devices(&self, pod: &Pod, container: &Container) -> Result<Vec<cri::Device>, String>;
    /// Where a volume of the pod is, once it is mounted.
    fn path(&self, uid: &str, volume: &str) -> Option<PathBuf>;
}

/// Volumes of this node, with what was mounted for each pod kept for its containers.
pub struct NodeVolumes {
    manager: Arc<VolumeManager>,
    layout: Layout,
    mounted: Mutex<HashMap<String, HashMap<String, MountInfo>>>,
}

impl NodeVolumes {
    /// Over a volume manager.
    #[must_use]
    pub fn new(manager: Arc<VolumeManager>, layout: Layout) -> Self {
        Self { manager, layout, mounted: Mutex::default() }
    }
}

#[async_trait]
impl PodVolumes for NodeVolumes {
    async fn mount_pod(&self, pod: &Pod) -> Result<(), String> {
        let mounts = self.manager.mount_pod(pod).await.map_err(|e| client::chain(&e))?;
        self.mounted.lock().insert(types::uid(pod).to_owned(), mounts);
        Ok(())
    }

    async fn unmount_pod(&self, uid: &str) -> Result<(), String> {
        self.mounted.lock().remove(uid);
        self.manager.unmount_pod(uid).await.map_err(|e| client::chain(&e))
    }

    async fn exist(&self, uid: &str) -> bool {
        self.manager.pod_volumes_exist(uid).await
    }

    async fn container_mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[(String, String)],
        images: &ImageVolumes,
    ) -> Result<Vec<cri::Mount>, String> {
        let mounts = self.mounted.lock().get(types::uid(pod)).cloned().unwrap_or_default();
        let made = volumes::container_mounts(pod, container, &mounts, env, images, &self.layout).await;
        made.map_err(|e| client::chain(&e))
    }

    fn container_devices(&self, pod: &Pod, container: &Container) -> Result<Vec<cri::Device>, String> {
        let mounts = self.mounted.lock().get(types::uid(pod)).cloned().unwrap_or_default();
        volumes::container_devices(container, &mounts).map_err(|e| client::chain(&e))
    }

    fn path(&self, uid: &str, volume: &str) -> Option<PathBuf> {
        self.mounted.lock().get(uid)?.get(volume).map(|info| info.host_path.clone())
    }
}
