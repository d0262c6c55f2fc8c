//! Persistent volumes, claims, storage classes, drivers and capacities.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::Value;

use crate::field::{Path, quote};
use crate::quantity::Quantity;

use super::{deprecated_node_label, has_annotation, selector_term, typed};

const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const CLASS_TEXT: &str = "deprecated since v1.8; use \"storageClassName\" attribute instead";

/// Amounts of bytes that are no whole number.
pub(super) fn fractional(amount: Option<&ApiQuantity>, path: &Path) -> Option<String> {
    let amount = Quantity::parse(&amount?.0).ok()?;
    (amount.milli_value() % 1000 != 0).then(|| {
        format!("{path}: fractional byte value {} is invalid, must be an integer", quote(&amount.to_string()))
    })
}

/// Claims.
pub(crate) fn claim(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if has_annotation(new, CLASS) {
        warnings.push(format!("metadata.annotations[{CLASS}]: {CLASS_TEXT}"));
    }
    if let Some(spec) = new.get("spec").and_then(typed::<PersistentVolumeClaimSpec>) {
        warnings.extend(claim_spec(&spec, &Path::new("spec")));
    }
    warnings
}

pub(super) fn claim_spec(spec: &PersistentVolumeClaimSpec, path: &Path) -> Vec<String> {
    let empty = VolumeResourceRequirements::default();
    let resources = spec.resources.as_ref().unwrap_or(&empty);
    let path = path.child("resources");
    let storage = [("requests", &resources.requests), ("limits", &resources.limits)];
    let amounts = storage.into_iter().filter_map(|(key, amounts)| {
        fractional(amounts.as_ref()?.get("storage"), &path.child(key).key("storage"))
    });
    amounts.collect()
}

/// Volumes.
pub(crate) fn persistent_volume(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let annotations = [
        (CLASS, CLASS_TEXT),
        (
            "volume.beta.kubernetes.io/mount-options",
            "deprecated since v1.31; use \"mountOptions\" attribute instead",
        ),
    ];
    for (key, text) in annotations.iter().filter(|(key, _)| has_annotation(new, key)) {
        warnings.push(format!("metadata.annotations[{key}]: {text}"));
    }
    let Some(spec) = typed::<PersistentVolume>(new).and_then(|volume| volume.spec) else { return warnings };
    let path = Path::new("spec");
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        warnings.push(format!("{}: {text}", path.child("persistentVolumeReclaimPolicy")));
    }
    if let Some(required) = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref()) {
        let path = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
        for (i, term) in required.node_selector_terms.iter().enumerate() {
            warnings.extend(selector_term(term, false, &path.index(i)));
        }
    }
    let gone = [
        ("cephfs", spec.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        (
            "photonPersistentDisk",
            spec.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", spec.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("storageOS", spec.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", spec.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", spec.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (key, _, text) in gone.iter().filter(|(_, set, _)| *set) {
        warnings.push(format!("{}: {text}", path.child(key)));
    }
    warnings
}

/// Storage classes.
pub(crate) fn storage_class(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let path = Path::new("allowedTopologies");
    for (i, term) in new["allowedTopologies"].as_array().into_iter().flatten().enumerate() {
        for (j, expression) in term["matchLabelExpressions"].as_array().into_iter().flatten().enumerate() {
            if let Some(text) = expression["key"].as_str().and_then(deprecated_node_label) {
                let at = path.index(i).child("matchLabelExpressions").index(j).child("key");
                warnings.push(format!("{at}: {text}"));
            }
        }
    }
    warnings
}

/// Capacities.
pub(crate) fn capacity(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let path = Path::new("nodeTopology");
    let selector = &new["nodeTopology"];
    for (i, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let key = expression["key"].as_str().unwrap_or_default();
        if let Some(text) = deprecated_node_label(key) {
            let at = path.child("matchExpressions").index(i).child("key");
            warnings.push(format!("{at}: {key} is {text}"));
        }
    }
    for key in selector["matchLabels"].as_object().into_iter().flat_map(|labels| labels.keys()) {
        if let Some(text) = deprecated_node_label(key) {
            warnings.push(format!("{}: {text}", path.child("matchLabels").child(key)));
        }
    }
    warnings
}

/// Drivers that ask for tokens.
pub(crate) fn driver(new: &Value, old: Option<&Value>) -> Vec<String> {
    let requests = |object: &Value| object.pointer("/spec/tokenRequests").cloned().unwrap_or_default();
    let asked = requests(new);
    let changed = old.is_none_or(|old| requests(old) != asked);
    let unset = new.pointer("/spec/serviceAccountTokenInSecrets").is_none_or(Value::is_null);
    if !changed || !unset || asked.as_array().is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    let text = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";
    vec![text.to_owned()]
}
