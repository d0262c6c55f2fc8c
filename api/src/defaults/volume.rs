//! Defaults of volumes, in pods and in persistent volumes.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::image;

/// Fields of a volume that are no source.
const NOT_SOURCES: [&str; 1] = ["name"];

/// A volume of a pod.
pub(crate) fn volume(volume: &mut Object) {
    let has_source =
        volume.iter().any(|(key, value)| !NOT_SOURCES.contains(&key.as_str()) && !value.is_null());
    if !has_source {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(image) = volume.object_mut("image") {
        let policy = image::default_pull_policy(image.text("reference"));
        image.or_zero("pullPolicy", policy);
    }
    if let Some(empty_dir) = volume.object_mut("emptyDir")
        && let Some(limit) = empty_dir.get_mut("sizeLimit")
    {
        super::quantity(limit, false);
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.object_mut(key) {
            source.or_default("defaultMode", 0o644);
        }
    }
    if let Some(source) = volume.object_mut("downwardAPI") {
        downward_items(source);
    }
    for source in volume.object_mut("projected").into_iter().flat_map(|p| p.each_mut("sources")) {
        if let Some(downward) = source.object_mut("downwardAPI") {
            downward_items(downward);
        }
        if let Some(token) = source.object_mut("serviceAccountToken") {
            token.or_default("expirationSeconds", 3600);
        }
    }
    let template = volume.object_mut("ephemeral").and_then(|e| e.object_mut("volumeClaimTemplate"));
    if let Some(spec) = template.and_then(|t| t.object_mut("spec")) {
        claim_spec(spec);
    }
    source(volume);
}

fn downward_items(source: &mut Object) {
    for item in source.each_mut("items") {
        if let Some(field) = item.object_mut("fieldRef") {
            field.or_zero("apiVersion", "v1");
        }
        if let Some(resource) = item.object_mut("resourceFieldRef") {
            // As upstream's encoder, which writes the zero divisor.
            resource.or_default("divisor", "0");
            if let Some(divisor) = resource.get_mut("divisor") {
                super::quantity(divisor, false);
            }
        }
    }
}

/// The sources that pods' volumes and persistent volumes share.
pub(crate) fn source(object: &mut Object) {
    let strings: [(&str, &[(&str, &str)]); 3] = [
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (key, fields) in strings {
        if let Some(source) = object.object_mut(key) {
            fields.iter().for_each(|(field, value)| source.or_zero(field, *value));
        }
    }
    if let Some(disk) = object.object_mut("azureDisk") {
        disk.or_default("cachingMode", "ReadWrite");
        disk.or_default("fsType", "ext4");
        disk.or_default("readOnly", false);
        disk.or_default("kind", "Shared");
    }
    if let Some(path) = object.object_mut("hostPath") {
        path.or_default("type", "");
    }
}

/// The spec of a claim.
pub(crate) fn claim_spec(spec: &mut Object) {
    spec.or_default("volumeMode", "Filesystem");
    super::resources(spec, "resources");
}

/// A claim.
pub(crate) fn claim(claim: &mut Object) {
    if let Some(spec) = claim.ensure("spec") {
        claim_spec(spec);
    }
    if let Some(status) = claim.ensure("status") {
        status.or_zero("phase", "Pending");
        super::resource_list(status, "capacity");
        super::resource_list(status, "allocatedResources");
    }
}

/// A persistent volume.
pub(crate) fn persistent_volume(object: &mut Object) {
    if let Some(status) = object.ensure("status") {
        status.or_zero("phase", "Pending");
    }
    if let Some(spec) = object.ensure("spec") {
        spec.or_zero("persistentVolumeReclaimPolicy", "Retain");
        spec.or_default("volumeMode", "Filesystem");
        super::resource_list(spec, "capacity");
        source(spec);
    }
}

/// An attachment, which may carry a volume inline.
pub(crate) fn attachment(object: &mut Object) {
    let source_of = object.object_mut("spec").and_then(|s| s.object_mut("source"));
    if let Some(spec) = source_of.and_then(|s| s.object_mut("inlineVolumeSpec")) {
        super::resource_list(spec, "capacity");
        source(spec);
    }
}

/// A storage class.
pub(crate) fn storage_class(object: &mut Object) {
    object.or_default("reclaimPolicy", "Delete");
    object.or_default("volumeBindingMode", "Immediate");
}

/// A CSI driver.
pub(crate) fn csi_driver(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    spec.or_default("attachRequired", true);
    for key in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        spec.or_default(key, false);
    }
    spec.or_default("fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        spec.insert("volumeLifecycleModes".to_owned(), Value::from(vec!["Persistent"]));
    }
}
