//! Which volume is right for a claim (upstream `component-helpers/storage/volume`).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, Volumes, global};
use crate::plugins::selector::{label, selector_matches};

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The class of a claim; empty for none.
#[must_use]
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let beta = claim.metadata.annotations.as_ref().and_then(|a| a.get(BETA_CLASS));
    let class = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    beta.map(String::as_str).or(class).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let beta = volume.metadata.annotations.as_ref().and_then(|a| a.get(BETA_CLASS));
    let class = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    beta.map(String::as_str).or(class).unwrap_or_default()
}

/// The name of the volume of a claim; empty for none yet.
#[must_use]
pub fn volume_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

/// Whether claim and volume are bound to each other for good.
#[must_use]
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    let completed = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BIND_COMPLETED));
    completed && !volume_of(claim).is_empty()
}

/// Whether volumes of the class wait for the pod that uses them.
#[must_use]
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether the claim's volume is chosen only when a pod that uses it is scheduled.
#[must_use]
pub fn is_delayed(claim: &PersistentVolumeClaim, volumes: &Volumes) -> bool {
    let class = class_of(claim);
    !class.is_empty() && volumes.classes.get(&global(class)).is_some_and(|class| waits_for_consumer(&class))
}

/// How much storage a claim requests.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Quantity::parse(&requests.get("storage")?.0).ok()
}

/// Orders claims by size.
#[must_use]
pub fn by_size(one: &PersistentVolumeClaim, other: &PersistentVolumeClaim) -> Ordering {
    requested(one).partial_cmp(&requested(other)).unwrap_or(Ordering::Equal)
}

/// Whether the volume can be reached from the node.
#[must_use]
pub fn is_reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|selector| selector_matches(selector, node))
}

/// Whether volumes of the class can be made for the node.
#[must_use]
pub fn is_allowed(class: &StorageClass, node: &Node) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    terms.is_empty()
        || terms.iter().any(|term| {
            let all = term.match_label_expressions.as_deref().unwrap_or_default();
            let holds = |key: &str, values: &[String]| {
                label(node, key).is_some_and(|value| values.iter().any(|v| v == value))
            };
            !all.is_empty() && all.iter().all(|expression| holds(&expression.key, &expression.values))
        })
}

/// Whether the volume is meant for the claim.
#[must_use]
pub fn is_meant_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return false };
    let same = reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace;
    let uid = reference.uid.as_deref().unwrap_or_default();
    same && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

/// The volume for a claim on a node: the one of its class that is meant for it, or else the smallest that will do and
/// is not among those `chosen` already.
#[must_use]
pub fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    node: &Node,
    chosen: &BTreeSet<String>,
) -> Option<&'a Arc<PersistentVolume>> {
    let wanted = requested(claim);
    let size = |volume: &PersistentVolume| -> Option<Quantity> {
        let capacity: &ApiQuantity = volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?;
        Quantity::parse(&capacity.0).ok()
    };
    let mut smallest: Option<(&Arc<PersistentVolume>, Option<Quantity>)> = None;
    for volume in volumes {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let meant = is_meant_for(volume, claim);
        let taken = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some()) && !meant;
        let size = size(volume);
        if chosen.contains(name)
            || taken
            || size < wanted
            || volume.metadata.deletion_timestamp.is_some()
            || !is_of_same_kind(volume, claim)
        {
            continue;
        }
        if meant {
            return is_reachable(volume, node).then_some(volume);
        }
        let smaller = smallest.as_ref().is_none_or(|(_, least)| size < *least);
        if smaller && is_free_for(volume, claim) && is_reachable(volume, node) {
            smallest = Some((volume, size));
        }
    }
    smallest.map(|(volume, _)| volume)
}

/// Whether both are of the same class, mode and attributes class.
fn is_of_same_kind(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    if class_of_volume(volume) != class_of(claim) {
        return false;
    }
    let (Some(volume), Some(claim)) = (&volume.spec, &claim.spec) else { return false };
    let mode = |mode: &'_ Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let attributes = |class: &'_ Option<String>| class.clone().unwrap_or_default();
    mode(&volume.volume_mode) == mode(&claim.volume_mode)
        && attributes(&volume.volume_attributes_class_name) == attributes(&claim.volume_attributes_class_name)
}

/// Whether nobody has the volume, and it has all that the claim asks for.
fn is_free_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    let selected = selector.is_none_or(|selector| {
        LabelSelector::from_meta(Some(selector)).is_ok_and(|selector| selector.matches(&labels))
    });
    let offered = volume.spec.as_ref().and_then(|s| s.access_modes.clone()).unwrap_or_default();
    let mut wanted = claim.spec.iter().flat_map(|s| s.access_modes.iter().flatten());
    phase == Some("Available") && selected && wanted.all(|mode| offered.contains(mode))
}

/// The volume as it is once it is meant for the claim.
#[must_use]
pub fn bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut bound = volume.clone();
    if !is_meant_for(volume, claim) {
        let annotations = bound.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    bound.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
        kind: Some("PersistentVolumeClaim".into()),
        api_version: Some("v1".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    });
    bound
}
