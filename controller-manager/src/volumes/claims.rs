//! What all controllers of volumes ask about claims, volumes and classes.

use crate::common::{meta, pods};
use crate::context::Context;
use api::quantity::Quantity;
use client::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The binding of a claim is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binding was decided by the controller, not by a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The provisioner that made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The driver that took over from a plugin in Kubernetes itself.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// The node that the scheduler chose for the first pod of a claim.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner that is asked to make a volume for a claim.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The older name of the same.
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a volume that grew: what it had before, until the file system has grown too.
pub const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// The index of pods by `namespace/claim`.
const BY_CLAIM: &str = "claim";

/// The class a claim asks for; empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let beta = meta::annotation(&claim.metadata, BETA_CLASS);
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    beta.or(class).unwrap_or_default()
}

/// Whether a claim says anything about its class, be it that it wants none.
pub fn has_class(claim: &PersistentVolumeClaim) -> bool {
    meta::annotation(&claim.metadata, BETA_CLASS).is_some()
        || claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some())
}

/// The class of a volume; empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let beta = meta::annotation(&volume.metadata, BETA_CLASS);
    let class = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    beta.or(class).unwrap_or_default()
}

/// Whether claims that name no class get this one.
pub fn is_default(class: &StorageClass) -> bool {
    DEFAULT_CLASS.iter().any(|key| meta::annotation(&class.metadata, key) == Some("true"))
}

/// The default class: of several the newest, then the first by name. As upstream's GetDefaultClass.
pub fn default_class(classes: Vec<Arc<StorageClass>>) -> Option<Arc<StorageClass>> {
    let order = |class: &Arc<StorageClass>| {
        (std::cmp::Reverse(meta::created_at(&class.metadata)), class.metadata.name.clone())
    };
    classes.into_iter().filter(|class| is_default(class)).min_by_key(order)
}

/// Whether claims of the class are bound only when a pod needs them.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The volume that a claim names; empty for none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// The phase of a claim.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The phase of a volume.
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The claim that a volume is bound to or kept for.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// What becomes of a volume when its claim is gone.
pub fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or_default()
}

/// The key of the object that a reference names.
pub fn key_of(reference: &ObjectReference) -> ObjectKey {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    ObjectKey::new(text(&reference.namespace), text(&reference.name))
}

/// The UID that a reference names; empty for none.
pub fn uid_of(reference: &ObjectReference) -> &str {
    reference.uid.as_deref().unwrap_or_default()
}

/// The amount of storage in a list of resources; none when it is not there or not an amount.
pub fn storage(resources: Option<&BTreeMap<String, ApiQuantity>>) -> Option<Quantity> {
    Quantity::parse(&resources?.get("storage")?.0).ok()
}

/// The storage that a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref())).unwrap_or_default()
}

/// The storage that a volume has.
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref())).unwrap_or_default()
}

/// The ways in which a volume can be used.
pub fn access_modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

/// Sets an annotation.
pub fn annotate(metadata: &mut ObjectMeta, key: &str, value: &str) {
    metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

/// The claims that a pod names; those of ephemeral volumes are named after it.
pub fn claims_of(pod: &Pod) -> BTreeSet<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| claim_name(pod, volume)).collect()
}

/// The claim behind one volume of a pod.
pub fn claim_name(pod: &Pod, volume: &k8s_openapi::api::core::v1::Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref().map(|_| format!("{}-{}", meta::name(&pod.metadata), volume.name))
}

/// The cache of pods, with their index by claims.
pub fn pods_by_claim(cx: &Context) -> Informer<Pod> {
    let pods = cx.pods();
    pods.add_index(BY_CLAIM, |pod| {
        let namespace = meta::namespace(&pod.metadata);
        claims_of(pod).into_iter().map(|claim| format!("{namespace}/{claim}")).collect()
    });
    pods
}

/// The pods that name a claim.
pub fn pods_of(pods: &Informer<Pod>, claim: &ObjectKey) -> Vec<Arc<Pod>> {
    pods.store().indexed(BY_CLAIM, &claim.to_string())
}

/// Whether all containers of a pod are through: it has ended, or it is being deleted and none of them runs.
/// As upstream's IsPodTerminated.
pub fn is_terminated(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    let runs = statuses.unwrap_or_default().iter().any(|container| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.terminated.is_none() && state.waiting.is_none())
    });
    pods::is_terminal(pod) || (meta::is_deleting(&pod.metadata) && !runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn newest_default_class_is_chosen() {
        let class = |name: &str, created: &str, default: &str| -> Arc<StorageClass> {
            let annotations = json!({ "storageclass.kubernetes.io/is-default-class": default });
            let metadata = json!({ "name": name, "creationTimestamp": created, "annotations": annotations });
            Arc::new(serde_json::from_value(json!({ "metadata": metadata, "provisioner": "p" })).unwrap())
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        for (classes, chosen) in [
            (vec![class("a", early, "true"), class("b", late, "true")], Some("b")),
            (vec![class("b", early, "true"), class("a", early, "true")], Some("a")),
            (vec![class("a", early, "true"), class("b", late, "false")], Some("a")),
            (vec![class("a", early, "no")], None),
        ] {
            let name = default_class(classes).and_then(|class| class.metadata.name.clone());
            assert_eq!(name.as_deref(), chosen);
        }
    }

    #[test]
    fn pods_are_through_when_no_container_runs() {
        let pod = |phase: &str, deleting: bool, running: bool| -> Pod {
            let state =
                if running { json!({ "running": {} }) } else { json!({ "terminated": { "exitCode": 0 } }) };
            let container = json!({ "name": "c", "image": "", "imageID": "", "ready": false,
                                    "restartCount": 0, "state": state });
            let mut pod = json!({ "metadata": {},
                                  "status": { "phase": phase, "containerStatuses": [container] } });
            if deleting {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(pod).unwrap()
        };
        for (phase, deleting, running, through) in [
            ("Running", false, true, false),
            ("Running", false, false, false),
            ("Running", true, true, false),
            ("Running", true, false, true),
            ("Succeeded", false, false, true),
            ("Failed", true, true, true),
        ] {
            assert_eq!(
                is_terminated(&pod(phase, deleting, running)),
                through,
                "{phase} {deleting} {running}"
            );
        }
    }
}
