//! From a claim to the volume bound to it.

use client::{Api, Client};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::Reason;

/// The claim `volume` of `pod` refers to, by name, and whether the pod wants it read-only. Generic ephemeral volumes have a
/// claim named after pod and volume.
#[must_use]
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some((claim.claim_name.clone(), claim.read_only == Some(true)));
    }
    volume
        .ephemeral
        .as_ref()
        .map(|_| (format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name), false))
}

/// A claim, and the volume bound to it.
pub async fn bound_volume(
    client: &Client,
    pod: &Pod,
    claim: &str,
) -> Result<(PersistentVolumeClaim, PersistentVolume), Reason> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api = |error: client::kube::Error| {
        Reason::Text(format!("failed to fetch PVC from API server: {}", client::chain(&error)))
    };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let found = claims.get(claim).await.map_err(api)?;
    let name = bound_name(namespace, claim, &found)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get(&name).await.map_err(|error| {
        Reason::Text(format!("failed to get PV {name} from api server: {}", client::chain(&error)))
    })?;
    let claim_ref = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let held = claim_ref.and_then(|claim| claim.uid.clone());
    if held != found.metadata.uid {
        return Err(Reason::Text(format!(
            "found PV object {name} with an unexpected or missing claimRef UID"
        )));
    }
    Ok((found, volume))
}

fn bound_name(namespace: &str, name: &str, claim: &PersistentVolumeClaim) -> Result<String, Reason> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if phase != "Bound" || volume.is_empty() {
        return Err(Reason::Text(format!(
            "PVC {namespace}/{name} has non-bound phase ({phase:?}) or empty pvc.Spec.VolumeName ({volume:?})"
        )));
    }
    Ok(volume.to_owned())
}
