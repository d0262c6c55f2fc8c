//! What the agent asks of volumes.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use proto::cri;

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
    ) -> Result<Vec<cri::Mount>, String>;
}
