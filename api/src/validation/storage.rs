//! `storage.k8s.io`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSIDriverSpec, CSINode, CSINodeDriver, CSIStorageCapacity, StorageClass, TokenRequest,
    VolumeAttachment, VolumeAttachmentSource, VolumeAttributesClass, VolumeError,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::claim::{inline_volume_spec, same};
use super::golang;
use super::meta::{self, has_invalid_values, label_selector};
use super::rules::{
    IMMUTABLE, dns_subdomain, list, non_negative, non_negative_amount, qualified_name, text, to_value,
};
use super::source::csi_driver;
use super::workload::show_selector;

const MAX_PARAMETERS: usize = 512;
const MAX_BYTES: usize = 256 << 10;
const MAX_MESSAGE: usize = 1024;

fn metadata(meta: &ObjectMeta) -> ErrorList {
    meta::validate_core(meta, false, format::name_is_subdomain, &Path::new("metadata"))
}

fn metadata_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    meta::validate_update_core(new, old, &Path::new("metadata"))
}

/// A new storage class.
pub(crate) fn class(object: &StorageClass) -> ErrorList {
    let mut errors = metadata(&object.metadata);
    provisioner(&object.provisioner, &Path::new("provisioner"), &mut errors);
    parameters(object.parameters.as_ref(), true, &Path::new("parameters"), &mut errors);
    let policy = text(&object.reclaim_policy);
    if !policy.is_empty() {
        errors.one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let path = Path::new("volumeBindingMode");
    match &object.volume_binding_mode {
        None => errors.required(&path, ""),
        Some(mode) => errors.one_of(&path, mode, &["Immediate", "WaitForFirstConsumer"]),
    }
    topologies(list(&object.allowed_topologies), &Path::new("allowedTopologies"), &mut errors);
    errors
}

/// A changed storage class.
pub(crate) fn class_update(new: &StorageClass, old: &StorageClass) -> ErrorList {
    let mut errors = class(new);
    errors.extend(metadata_update(&new.metadata, &old.metadata));
    let (now, then) = (to_value(new), to_value(old));
    for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        if !same(&now[key], &then[key]) {
            errors.invalid(&Path::new(key), now[key].clone(), IMMUTABLE);
        }
    }
    errors
}

fn provisioner(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.extend(qualified_name(&name.to_lowercase(), path));
    }
}

fn parameters(
    parameters: Option<&BTreeMap<String, String>>,
    allow_empty: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let empty = BTreeMap::new();
    let parameters = parameters.unwrap_or(&empty);
    if parameters.len() > MAX_PARAMETERS {
        return errors.too_long(path, MAX_PARAMETERS);
    }
    for key in parameters.keys().filter(|key| key.is_empty()) {
        errors.invalid(path, key.as_str(), "field can not be empty.");
    }
    if size(parameters) > MAX_BYTES {
        errors.too_long(path, MAX_BYTES);
    }
    if !allow_empty && parameters.is_empty() {
        errors.required(path, "must contain at least one key/value pair");
    }
}

fn size(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

fn topologies(terms: &[TopologySelectorTerm], path: &Path, errors: &mut ErrorList) {
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let path = path.index(i).child("matchLabelExpressions");
        let mut keys = BTreeMap::new();
        for (j, expression) in list(&term.match_label_expressions).iter().enumerate() {
            let path = path.index(j);
            let at = path.child("values");
            if expression.values.is_empty() {
                errors.required(&at, "");
            }
            let mut values = BTreeSet::new();
            for (k, value) in expression.values.iter().enumerate() {
                if !values.insert(value.as_str()) {
                    errors.duplicate(&at.index(k), value.as_str());
                }
            }
            errors.extend(meta::label_name(&expression.key, &path.child("key")));
            if keys.insert(expression.key.as_str(), values).is_some() {
                errors.duplicate(&path.child("key"), expression.key.as_str());
            }
        }
        // Upstream starts its list with as many empty terms as there are terms, so an empty one is a duplicate.
        let copies = seen.iter().filter(|other| **other == keys).count();
        let copies = copies + if keys.is_empty() { terms.len() } else { 0 };
        for _ in 0..copies {
            errors.duplicate(&path, "");
        }
        seen.push(keys);
    }
}

/// A new class of volume attributes.
pub(crate) fn attributes_class(object: &VolumeAttributesClass) -> ErrorList {
    let mut errors = metadata(&object.metadata);
    provisioner(&object.driver_name, &Path::new("driverName"), &mut errors);
    parameters(object.parameters.as_ref(), false, &Path::new("parameters"), &mut errors);
    errors
}

/// A changed class of volume attributes.
pub(crate) fn attributes_class_update(new: &VolumeAttributesClass, old: &VolumeAttributesClass) -> ErrorList {
    let mut errors = metadata_update(&new.metadata, &old.metadata);
    if new.driver_name != old.driver_name {
        errors.forbidden(&Path::new("driverName"), "updates to driverName are forbidden.");
    }
    if new.parameters != old.parameters {
        errors.forbidden(&Path::new("parameters"), "updates to parameters are forbidden.");
    }
    errors.extend(attributes_class(new));
    errors
}

/// A new attachment.
pub(crate) fn attachment(object: &VolumeAttachment) -> ErrorList {
    let mut errors = metadata(&object.metadata);
    let (spec, path) = (&object.spec, Path::new("spec"));
    errors.extend(csi_driver(&spec.attacher, &path.child("attacher")));
    attachment_source(&spec.source, &path.child("source"), &mut errors);
    errors.extend(dns_subdomain(&spec.node_name, &path.child("nodeName")));
    let status = object.status.clone().unwrap_or_default();
    let path = Path::new("status");
    if status.attachment_metadata.as_ref().is_some_and(|m| size(m) > MAX_BYTES) {
        errors.too_long(&path.child("attachmentMetadata"), MAX_BYTES);
    }
    for (key, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        if let Some(error) = error {
            volume_error(error, &path.child(key), &mut errors);
        }
    }
    if let Some(name) = &spec.source.persistent_volume_name {
        errors.extend(dns_subdomain(name, &Path::new("spec.source.persistentVolumeName")));
    }
    errors
}

fn volume_error(error: &VolumeError, path: &Path, errors: &mut ErrorList) {
    if text(&error.message).len() > MAX_MESSAGE {
        errors.too_long(&path.child("message"), MAX_BYTES);
    }
    if let Some(code) = error.error_code.filter(|code| *code < 0) {
        let detail = format::range(0, i64::from(i32::MAX));
        errors.invalid(&path.child("errorCode"), code, detail);
    }
}

fn attachment_source(source: &VolumeAttachmentSource, path: &Path, errors: &mut ErrorList) {
    let exactly = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (&source.inline_volume_spec, &source.persistent_volume_name) {
        (None, None) => errors.required(path, exactly),
        (Some(_), Some(_)) => errors.forbidden(path, exactly),
        (None, Some(name)) if name.is_empty() => {
            errors
                .required(&path.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (None, Some(_)) => {}
        (Some(spec), None) => errors.extend(inline_volume_spec(spec, &path.child("inlineVolumeSpec"))),
    }
}

/// A changed attachment.
pub(crate) fn attachment_update(new: &VolumeAttachment, old: &VolumeAttachment) -> ErrorList {
    let mut errors = attachment(new);
    if !same(&new.spec, &old.spec) {
        let shown = golang::show("storage.VolumeAttachmentSpec", &to_value(&new.spec));
        errors.push(Error::invalid_shown(&Path::new("spec"), shown, IMMUTABLE));
    }
    errors
}

/// An attachment changed by its status.
pub(crate) fn attachment_status(new: &VolumeAttachment, old: &VolumeAttachment) -> ErrorList {
    attachment_update(new, old)
}

/// A new node's drivers.
pub(crate) fn node(object: &CSINode) -> ErrorList {
    let mut errors = metadata(&object.metadata);
    let path = Path::new("spec").child("drivers");
    let drivers = object.spec.drivers.as_slice();
    for (i, driver) in drivers.iter().enumerate() {
        let known = drivers[..i].iter().any(|d| d.name == driver.name);
        node_driver(driver, known, &path.index(i), &mut errors);
    }
    errors
}

fn node_driver(driver: &CSINodeDriver, known: bool, path: &Path, errors: &mut ErrorList) {
    errors.extend(csi_driver(&driver.name, &path.child("name")));
    let at = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.required(&at, "");
    }
    if driver.node_id.len() > 256 {
        errors.invalid(&at, driver.node_id.as_str(), "must be 256 characters or less");
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|a| a.count) {
        errors.extend(non_negative(count, &path.child("allocatable").child("count")));
    }
    if known {
        errors.duplicate(&path.child("name"), driver.name.as_str());
    }
    let mut keys = BTreeSet::new();
    for key in list(&driver.topology_keys) {
        if key.is_empty() {
            errors.required(path, "");
        }
        if !keys.insert(key) {
            errors.duplicate(path, key.as_str());
        }
        errors.extend(qualified_name(key, path));
    }
}

/// A changed node's drivers: only what can be allocated may change.
pub(crate) fn node_update(new: &CSINode, old: &CSINode) -> ErrorList {
    let mut errors = node(new);
    let fixed = |driver: &CSINodeDriver| CSINodeDriver { allocatable: None, ..driver.clone() };
    for before in &old.spec.drivers {
        for driver in new.spec.drivers.iter().filter(|d| d.name == before.name) {
            if !same(&fixed(driver), &fixed(before)) {
                let shown = golang::show("storage.CSINodeDriver", &to_value(&fixed(driver)));
                let path = Path::new("spec").child("drivers");
                errors.push(Error::invalid_shown(&path, shown, IMMUTABLE));
            }
        }
    }
    errors
}

/// A new driver.
pub(crate) fn driver(object: &CSIDriver) -> ErrorList {
    let mut errors = metadata(&object.metadata);
    driver_spec(&object.spec, &mut errors);
    errors
}

/// A changed driver.
pub(crate) fn driver_update(new: &CSIDriver, old: &CSIDriver) -> ErrorList {
    let mut errors = metadata_update(&new.metadata, &old.metadata);
    driver_spec(&new.spec, &mut errors);
    let path = Path::new("spec");
    if new.spec.attach_required != old.spec.attach_required {
        errors.invalid(&path.child("attachedRequired"), to_value(&new.spec.attach_required), IMMUTABLE);
    }
    if !same(&new.spec.volume_lifecycle_modes, &old.spec.volume_lifecycle_modes) {
        let modes = to_value(&new.spec.volume_lifecycle_modes);
        errors.invalid(&path.child("volumeLifecycleModes"), modes, IMMUTABLE);
    }
    errors
}

fn driver_spec(spec: &CSIDriverSpec, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let required = [
        ("attachedRequired", spec.attach_required),
        ("podInfoOnMount", spec.pod_info_on_mount),
        ("storageCapacity", spec.storage_capacity),
    ];
    for (key, _) in required.iter().filter(|(_, value)| value.is_none()) {
        errors.required(&path.child(key), "");
    }
    if let Some(policy) = &spec.fs_group_policy {
        let known = ["File", "None", "ReadWriteOnceWithFSType"];
        errors.one_of(&path.child("fsGroupPolicy"), policy, &known);
    }
    token_requests(list(&spec.token_requests), &path.child("tokenRequests"), errors);
    for mode in list(&spec.volume_lifecycle_modes) {
        errors.one_of(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if spec.se_linux_mount.is_none() {
        errors.required(&path.child("seLinuxMount"), "");
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds.filter(|p| *p < 10) {
        let at = path.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&at, period, "must be greater than or equal to 10 seconds");
    }
    if let Some(in_secrets) = spec.service_account_token_in_secrets
        && list(&spec.token_requests).is_empty()
    {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.invalid(&path.child("serviceAccountTokenInSecrets"), in_secrets, detail);
    }
}

fn token_requests(requests: &[TokenRequest], path: &Path, errors: &mut ErrorList) {
    for (i, request) in requests.iter().enumerate() {
        let path = path.index(i);
        if requests[..i].iter().any(|r| r.audience == request.audience) {
            errors.duplicate(&path.child("audience"), request.audience.as_str());
            continue;
        }
        let Some(seconds) = request.expiration_seconds else { continue };
        let at = path.child("expirationSeconds");
        if seconds < 600 {
            errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

/// New capacity.
pub(crate) fn capacity(object: &CSIStorageCapacity) -> ErrorList {
    any_capacity(object, false)
}

fn any_capacity(object: &CSIStorageCapacity, allow_invalid_values: bool) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    let topology = object.node_topology.as_ref();
    errors.extend(label_selector(topology, allow_invalid_values, &Path::new("nodeTopology")));
    errors.extend(dns_subdomain(&object.storage_class_name, &Path::new("storageClassName")));
    if let Some(amount) = &object.capacity {
        errors.extend(non_negative_amount(amount, &Path::new("capacity")));
    }
    errors
}

/// Changed capacity.
pub(crate) fn capacity_update(new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> ErrorList {
    let mut errors = any_capacity(new, has_invalid_values(old.node_topology.as_ref()));
    errors.extend(metadata_update(&new.metadata, &old.metadata));
    if !same(&new.node_topology, &old.node_topology) {
        let shown = match &new.node_topology {
            None => Value::Null.to_string(),
            selector => show_selector(selector.as_ref()),
        };
        errors.push(Error::invalid_shown(&Path::new("nodeTopology"), shown, IMMUTABLE));
    }
    if new.storage_class_name != old.storage_class_name {
        errors.invalid(&Path::new("storageClassName"), new.storage_class_name.as_str(), IMMUTABLE);
    }
    errors
}
