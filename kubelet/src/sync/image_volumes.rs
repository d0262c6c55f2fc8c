//! Images that pods mount as volumes. They are pulled before containers start; who mounts one that could not be had waits
//! with that failure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use proto::cri;

use super::runner::{ImageVolumes, PodRuntime, StartFailure};
use crate::images::Wanted;
use crate::types;

/// What came of pulling each image that is a volume, by the volume's name.
pub(super) type PulledVolumes = HashMap<String, Result<cri::ImageSpec, StartFailure>>;

impl PodRuntime {
    /// Pulls the images that are volumes of `pod`.
    pub(super) async fn image_volumes(
        &self,
        pod: &Pod,
        sandbox: &cri::PodSandboxConfig,
        secrets: &[Arc<Secret>],
    ) -> PulledVolumes {
        let mut pulled = PulledVolumes::new();
        for volume in types::spec(pod).volumes.iter().flatten() {
            let Some(source) = &volume.image else { continue };
            let reference = source.reference.as_deref().unwrap_or_default();
            let wanted =
                Wanted { pod, container: None, image: reference, policy: source.pull_policy.as_deref() };
            let result = self.inner.images.ensure(wanted, secrets, sandbox).await;
            let spec = result.map(|present| cri::ImageSpec {
                image: present.image_ref,
                user_specified_image: reference.to_owned(),
                ..Default::default()
            });
            let failure = |error: crate::images::Error| StartFailure {
                reason: error.reason.as_str().to_owned(),
                message: error.message,
                retry: error.retry,
            };
            pulled.insert(volume.name.clone(), spec.map_err(failure));
        }
        pulled
    }
}

/// The images that `container` mounts, or why it cannot.
pub(super) fn of_container(
    container: &Container,
    pulled: &PulledVolumes,
) -> Result<ImageVolumes, StartFailure> {
    let mut mounted = ImageVolumes::new();
    for mount in container.volume_mounts.iter().flatten() {
        if let Some(result) = pulled.get(&mount.name) {
            mounted.insert(mount.name.clone(), result.clone()?);
        }
    }
    Ok(mounted)
}
