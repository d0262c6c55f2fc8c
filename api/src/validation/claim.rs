//! Persistent volumes and claims.

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate,
    PersistentVolumeSpec, SecretReference, TypedLocalObjectReference, TypedObjectReference,
    VolumeNodeAffinity,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report, json};
use crate::format::{self, Messages};
use crate::json::semantic_eq;

use super::affinity::{has_invalid_values, node_selector};
use super::meta;
use super::resources::{basic_amount, is_native, resource_amount};
use super::rules::{amount, immutable, list, positive_amount, text, to_value};
use super::source::{self, Iscsi, required};
use super::volume::{Sources, object_name};
use super::{golang, volume};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// The name of a persistent volume.
pub(crate) fn is_volume_name(name: &str, prefix: bool) -> Messages {
    format::name_is_subdomain(name, prefix)
}

/// The template of a claim inside of a pod.
pub(crate) fn claim_template(template: &PersistentVolumeClaimTemplate, path: &Path) -> ErrorList {
    let mut errors = template_metadata(template.metadata.as_ref(), &path.child("metadata"));
    errors.extend(claim_spec(&template.spec, None, &path.child("spec")));
    errors
}

/// The metadata of a template: labels and annotations, and nothing else (upstream `ValidateTemplateObjectMeta`).
pub(crate) fn template_metadata(meta: Option<&ObjectMeta>, at: &Path) -> ErrorList {
    let empty = ObjectMeta::default();
    let meta = meta.unwrap_or(&empty);
    let mut errors = meta::annotations(meta.annotations.as_ref(), &at.child("annotations"));
    errors.extend(meta::labels(meta.labels.as_ref(), &at.child("labels")));
    // In the order of the struct's fields, as upstream finds them by reflection.
    let other = [
        ("name", meta.name.is_some()),
        ("generateName", meta.generate_name.is_some()),
        ("namespace", meta.namespace.is_some()),
        ("selfLink", meta.self_link.is_some()),
        ("uID", meta.uid.is_some()),
        ("resourceVersion", meta.resource_version.is_some()),
        ("generation", meta.generation.is_some_and(|g| g != 0)),
        ("creationTimestamp", meta.creation_timestamp.is_some()),
        ("deletionTimestamp", meta.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", meta.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", meta.owner_references.is_some()),
        ("finalizers", meta.finalizers.is_some()),
        ("managedFields", meta.managed_fields.is_some()),
    ];
    for (key, _) in other.iter().filter(|(_, set)| *set) {
        errors.forbidden(&at.child(key), "cannot be set");
    }
    errors
}

fn access_modes(modes: &[String], path: &Path, errors: &mut ErrorList) {
    for mode in modes {
        errors.one_of(path, mode, &MODES);
    }
    let once = modes.iter().any(|m| m == "ReadWriteOncePod");
    if once && modes.iter().any(|m| m != "ReadWriteOncePod" && MODES.contains(&m.as_str())) {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// The spec of a claim; some of what was wrong with the one it replaces may stay.
pub(crate) fn claim_spec(
    spec: &PersistentVolumeClaimSpec,
    old: Option<&PersistentVolumeClaimSpec>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let any_group = old.is_some_and(|old| {
        old.data_source.as_ref().is_some_and(|s| s.api_group.is_some())
            || old.data_source_ref.as_ref().is_some_and(|s| s.api_group.is_some())
    });
    let before = old.and_then(|old| old.selector.as_ref());
    let any_value = !meta::label_selector(before, false, path).is_empty();
    let modes = list(&spec.access_modes);
    if modes.is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    errors.extend(meta::label_selector(spec.selector.as_ref(), any_value, &path.child("selector")));
    access_modes(modes, &path.child("accessModes"), &mut errors);
    let at = path.child("resources").key("storage");
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|r| r.get("storage")) {
        None => errors.required(&at, ""),
        Some(size) => {
            let found = positive_amount(size, &at);
            errors.extend(if found.is_empty() { resource_amount("storage", size, &at) } else { found });
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        errors.extend(object_name(class, &path.child("storageClassName")));
    }
    if let Some(mode) = &spec.volume_mode {
        errors.one_of(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    if let Some(source) = &spec.data_source {
        data_source(source, &path.child("dataSource"), any_group, &mut errors);
    }
    if let Some(source) = &spec.data_source_ref {
        data_source_ref(source, &path.child("dataSourceRef"), any_group, &mut errors);
    }
    data_sources_agree(spec, path, &mut errors);
    if let Some(class) = spec.volume_attributes_class_name.as_deref().filter(|c| !c.is_empty()) {
        errors.extend(object_name(class, &path.child("volumeAttributesClassName")));
    }
    errors
}

fn data_sources_agree(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut ErrorList) {
    let (Some(old), Some(new)) = (&spec.data_source, &spec.data_source_ref) else { return };
    // As upstream, which shows the path itself as the bad value; its JSON is an empty object.
    if !text(&new.namespace).is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(Error::invalid_shown(path, "{}", detail));
    } else if old.api_group != new.api_group || old.kind != new.kind || old.name != new.name {
        errors.push(Error::invalid_shown(path, "{}", "must match dataSourceRef"));
    }
}

fn source_reference(
    group: &str,
    kind: &str,
    name: &str,
    any_group: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    errors.extend(required(path, &[("name", name), ("kind", kind)]));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        errors.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    if !group.is_empty() && !any_group {
        errors.extend(object_name(group, &path.child("apiGroup")));
    }
}

fn data_source(source: &TypedLocalObjectReference, path: &Path, any_group: bool, errors: &mut ErrorList) {
    source_reference(text(&source.api_group), &source.kind, &source.name, any_group, path, errors);
}

fn data_source_ref(source: &TypedObjectReference, path: &Path, any_group: bool, errors: &mut ErrorList) {
    source_reference(text(&source.api_group), &source.kind, &source.name, any_group, path, errors);
    if let Some(namespace) = source.namespace.as_deref().filter(|n| !n.is_empty()) {
        errors.messages(&path.child("namespace"), namespace, format::dns1123_label(namespace));
    }
}

/// A new claim.
pub(crate) fn claim(claim: &PersistentVolumeClaim) -> ErrorList {
    any_claim(claim, None)
}

fn any_claim(claim: &PersistentVolumeClaim, old: Option<&PersistentVolumeClaimSpec>) -> ErrorList {
    let mut errors = meta::validate_core(&claim.metadata, true, is_volume_name, &Path::new("metadata"));
    let empty = PersistentVolumeClaimSpec::default();
    errors.extend(claim_spec(claim.spec.as_ref().unwrap_or(&empty), old, &Path::new("spec")));
    errors
}

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn class_annotation(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION).map(String::as_str)
}

fn storage(
    list: Option<
        &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
) -> crate::quantity::Quantity {
    list.and_then(|r| r.get("storage")).map(amount).unwrap_or_default()
}

/// A changed claim.
pub(crate) fn claim_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (new_spec, old_spec) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    errors.extend(any_claim(new, Some(&old_spec)));
    let (mut changed, mut kept) = (new_spec.clone(), old_spec.clone());
    if text(&kept.volume_name).is_empty() {
        kept.volume_name.clone_from(&changed.volume_name);
    }
    let (old_class, new_class) = (class_annotation(old), class_annotation(new));
    let moved = old_class.is_some()
        && kept.storage_class_name.is_none()
        && changed.storage_class_name.as_deref() == old_class
        && (new_class.is_none() || new_class == old_class);
    if moved {
        changed.storage_class_name = None;
    } else {
        if old_class.unwrap_or_default() != new_class.unwrap_or_default() {
            let at = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
            errors.invalid(&at, new_class.unwrap_or_default(), super::rules::IMMUTABLE);
        }
        let from_nothing = changed.storage_class_name.is_some() && kept.storage_class_name.is_none();
        if from_nothing && (old_class.is_none() || changed.storage_class_name.as_deref() == old_class) {
            changed.storage_class_name = None;
        }
    }
    let status = new.status.as_ref();
    if status.and_then(|s| s.phase.as_deref()) == Some("Bound") {
        let old_size =
            kept.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
        if let Some(requests) = changed.resources.as_mut().and_then(|r| r.requests.as_mut()) {
            requests.insert("storage".to_owned(), old_size.cloned().unwrap_or_default());
        }
        changed.volume_attributes_class_name.clone_from(&kept.volume_attributes_class_name);
    }
    if !same(&changed, &kept) {
        let diff = golang::diff("core.PersistentVolumeClaimSpec", &to_value(&kept), &to_value(&changed));
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"
        );
        errors.forbidden(&Path::new("spec"), detail);
    }
    claim_sizes(new, old, &new_spec, &old_spec, &mut errors);
    errors
}

fn claim_sizes(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    new_spec: &PersistentVolumeClaimSpec,
    old_spec: &PersistentVolumeClaimSpec,
    errors: &mut ErrorList,
) {
    let size =
        |spec: &PersistentVolumeClaimSpec| storage(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let actual = storage(old.status.as_ref().and_then(|s| s.capacity.as_ref()));
    if size(new_spec) < size(old_spec) && size(new_spec) <= actual {
        let at = Path::new("spec").child("resources").child("requests").child("storage");
        errors.forbidden(&at, "field can not be less than status.capacity");
    }
    errors.extend(immutable(&new_spec.volume_mode, &old_spec.volume_mode, &Path::new("volumeMode")));
    let _ = new;
    if old_spec.volume_attributes_class_name != new_spec.volume_attributes_class_name
        && old.status.as_ref().is_some_and(|s| s.current_volume_attributes_class_name.is_some())
    {
        let at = Path::new("spec").child("volumeAttributesClassName");
        let to = match new_spec.volume_attributes_class_name.as_deref() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        let detail =
            format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.forbidden(&at, detail);
    }
}

/// Whether two values say the same. Most of those compared are alike in every way, and need not be written for it.
pub(crate) fn same<T: serde::Serialize + PartialEq>(a: &T, b: &T) -> bool {
    a == b || semantic_eq(Some(&to_value(a)), Some(&to_value(b)))
}

/// A claim changed by its status.
pub(crate) fn claim_status(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    if text(&new.metadata.resource_version).is_empty() {
        errors.required(&Path::new("resourceVersion"), "");
    }
    if new.spec.as_ref().is_none_or(|s| list(&s.access_modes).is_empty()) {
        errors.required(&Path::new("Spec").child("accessModes"), "");
    }
    let path = Path::new("status");
    let Some(status) = &new.status else { return errors };
    for (name, value) in status.capacity.iter().flatten() {
        errors.extend(basic_amount(value, &path.child("capacity").key(name)));
    }
    let states = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let at = path.child("allocatedResourceStatuses");
    for (name, state) in status.allocated_resource_statuses.iter().flatten() {
        errors.extend(claim_resource(name, &at));
        if !states.contains(&state.as_str()) {
            errors.not_supported(&at, name.as_str(), &states);
        }
    }
    let at = path.child("allocatedResources");
    for (name, value) in status.allocated_resources.iter().flatten() {
        let found = claim_resource(name, &at);
        if !found.is_empty() {
            errors.extend(found);
            continue;
        }
        let found = basic_amount(value, &at.key(name));
        let more = if found.is_empty() { resource_amount("storage", value, &at.key(name)) } else { found };
        errors.extend(more);
    }
    errors
}

fn claim_resource(name: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    errors.messages(path, name, format::label_key(name));
    if errors.is_empty() && is_native(name) && name != "storage" {
        errors.not_supported(path, name, &["storage"]);
    }
    errors
}

/// A new persistent volume.
pub(crate) fn persistent_volume(volume: &PersistentVolume) -> ErrorList {
    any_volume(volume, false)
}

fn any_volume(volume: &PersistentVolume, any_value: bool) -> ErrorList {
    let mut errors = meta::validate_core(&volume.metadata, false, is_volume_name, &Path::new("metadata"));
    let empty = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&empty);
    errors.extend(volume_spec(spec, text(&volume.metadata.name), any_value, &Path::new("spec")));
    errors
}

/// A changed persistent volume.
pub(crate) fn persistent_volume_update(new: &PersistentVolume, old: &PersistentVolume) -> ErrorList {
    // As upstream's strategy, which checks the whole object and then calls an update check that checks it again.
    let affinity = old.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let any_value = affinity.and_then(|a| a.required.as_ref()).is_some_and(has_invalid_values);
    let mut errors = any_volume(new, any_value);
    errors.extend(any_volume(new, any_value));
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    let source = |spec: &PersistentVolumeSpec| {
        let mut value = to_value(spec);
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, _| !NOT_SOURCE.contains(&key.as_str()));
        }
        value
    };
    let (old_source, mut new_source) = (source(old_spec), source(new_spec));
    let has_expand = |value: &Value| value.pointer("/csi/controllerExpandSecretRef").is_some();
    if old_source.get("csi").is_some() && !has_expand(&old_source) && has_expand(&new_source) {
        new_source["csi"].as_object_mut().map(|csi| csi.remove("controllerExpandSecretRef"));
    }
    if !semantic_eq(Some(&new_source), Some(&old_source)) {
        let diff = golang::diff("core.PersistentVolumeSource", &old_source, &new_source);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
        errors.forbidden(&Path::new("spec").child("persistentvolumesource"), detail);
    }
    errors.extend(immutable(&new_spec.volume_mode, &old_spec.volume_mode, &Path::new("volumeMode")));
    if old_spec.node_affinity.is_some() {
        errors
            .extend(volume_affinity_update(new_spec.node_affinity.as_ref(), old_spec.node_affinity.as_ref()));
    }
    let class = |spec: &PersistentVolumeSpec| spec.volume_attributes_class_name.clone();
    if class(old_spec).is_some() && class(new_spec).is_none() {
        let at = Path::new("spec").child("volumeAttributesClassName");
        errors.forbidden(&at, "update from non-nil value to nil is forbidden");
    }
    errors
}

/// Fields of a volume's spec that are not its source.
const NOT_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Node affinity stays, but for labels that have moved out of beta.
fn volume_affinity_update(new: Option<&VolumeNodeAffinity>, old: Option<&VolumeNodeAffinity>) -> ErrorList {
    let moved = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    let mut renamed = old.cloned();
    let terms = renamed.as_mut().and_then(|a| a.required.as_mut()).map(|r| &mut r.node_selector_terms);
    let new_terms = new.and_then(|a| a.required.as_ref()).map(|r| &r.node_selector_terms);
    for (term, new_term) in terms.into_iter().flatten().zip(new_terms.into_iter().flatten()) {
        let expressions = term.match_expressions.iter_mut().flatten();
        for (old, new) in expressions.zip(new_term.match_expressions.iter().flatten()) {
            if moved.contains(&(old.key.as_str(), new.key.as_str())) {
                old.key.clone_from(&new.key);
            }
        }
    }
    if same(&new, &renamed.as_ref()) {
        return ErrorList::new();
    }
    let shown = golang::show("core.VolumeNodeAffinity", &to_value(&new));
    let detail = "field is immutable, except for updating from beta label to GA";
    vec![Error::invalid_shown(&Path::new("nodeAffinity"), shown, detail)]
}

/// A persistent volume changed by its status.
pub(crate) fn persistent_volume_status(new: &PersistentVolume, old: &PersistentVolume) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    if text(&new.metadata.resource_version).is_empty() {
        errors.required(&Path::new("resourceVersion"), "");
    }
    errors
}

/// The spec of a persistent volume inside of an attachment.
pub(crate) fn inline_volume_spec(spec: &PersistentVolumeSpec, path: &Path) -> ErrorList {
    any_volume_spec(spec, "", true, false, path)
}

fn volume_spec(spec: &PersistentVolumeSpec, name: &str, any_value: bool, path: &Path) -> ErrorList {
    any_volume_spec(spec, name, false, any_value, path)
}

fn any_volume_spec(
    spec: &PersistentVolumeSpec,
    name: &str,
    inline: bool,
    any_value: bool,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    if inline {
        inline_spec(spec, path, &mut errors);
    }
    let modes = list(&spec.access_modes);
    if modes.is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    access_modes(modes, &path.child("accessModes"), &mut errors);
    if !inline {
        capacity(spec, &path.child("capacity"), &mut errors);
    }
    reclaim_policy(spec, inline, &path.child("persistentVolumeReclaimPolicy"), &mut errors);
    let at = path.child("nodeAffinity");
    match spec.node_affinity.as_ref() {
        Some(_) if inline => errors.forbidden(&at, "may not be specified in the context of inline volumes"),
        Some(affinity) => match &affinity.required {
            Some(selector) => errors.extend(node_selector(selector, any_value, &at.child("required"))),
            None => errors.required(&at.child("required"), "must specify required node constraints"),
        },
        None => {}
    }
    errors.extend(volume_source(spec, name, inline, path));
    let recycle = text(&spec.persistent_volume_reclaim_policy) == "Recycle";
    if recycle && spec.host_path.as_ref().is_some_and(|h| is_root(&h.path)) {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), detail);
    }
    let at = path.child("storageClassName");
    match text(&spec.storage_class_name) {
        "" => {}
        _ if inline => errors.forbidden(&at, "may not be specified in the context of inline volumes"),
        class => errors.extend(object_name(class, &at)),
    }
    if let Some(mode) = spec.volume_mode.as_deref() {
        let at = path.child("volumeMode");
        if !inline {
            errors.one_of(&at, mode, &VOLUME_MODES);
        } else if mode != "Filesystem" {
            let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
            errors.forbidden(&at, detail);
        }
    }
    if let Some(class) = spec.volume_attributes_class_name.as_deref() {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.required(&at, "an empty string is disallowed");
        } else {
            errors.extend(object_name(class, &at));
        }
        if spec.csi.is_none() {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
    errors
}

/// Whether a path leads to the root.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    path.starts_with('/') && depth == 0
}

fn inline_spec(spec: &PersistentVolumeSpec, path: &Path, errors: &mut ErrorList) {
    let detail = "may not be specified in the context of inline volumes";
    if spec.claim_ref.is_some() {
        errors.forbidden(&path.child("claimRef"), detail);
    }
    if spec.capacity.as_ref().is_some_and(|c| !c.is_empty()) {
        errors.forbidden(&path.child("capacity"), detail);
    }
    if spec.csi.is_none() {
        errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
    }
}

fn capacity(spec: &PersistentVolumeSpec, path: &Path, errors: &mut ErrorList) {
    let empty = std::collections::BTreeMap::new();
    let capacity = spec.capacity.as_ref().unwrap_or(&empty);
    if capacity.is_empty() {
        errors.required(path, "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        let shown = if spec.capacity.is_some() { json(capacity) } else { "null".to_owned() };
        let error = Error::not_supported(path, Value::Null, &["storage"]);
        errors.push(Error { shown: Some(shown), ..error });
    }
    for (name, value) in capacity {
        errors.extend(basic_amount(value, &path.key(name)));
        errors.extend(positive_amount(value, &path.key(name)));
    }
}

fn reclaim_policy(spec: &PersistentVolumeSpec, inline: bool, path: &Path, errors: &mut ErrorList) {
    match text(&spec.persistent_volume_reclaim_policy) {
        "" => {}
        "Retain" if inline => {}
        _ if inline => errors.forbidden(path, "may only be Retain in the context of inline volumes"),
        policy => errors.one_of(path, policy, &["Delete", "Recycle", "Retain"]),
    }
}

fn volume_source(spec: &PersistentVolumeSpec, name: &str, inline: bool, path: &Path) -> ErrorList {
    let mut all = Sources::new(path);
    all.take(spec.host_path.as_ref(), "hostPath", "hostPath", source::host_path);
    let disk = spec.gce_persistent_disk.as_ref();
    all.take(disk, "gcePersistentDisk", "persistentDisk", source::gce_disk);
    let store = spec.aws_elastic_block_store.as_ref();
    all.take(store, "awsElasticBlockStore", "awsElasticBlockStore", source::aws_store);
    all.take(spec.glusterfs.as_ref(), "glusterfs", "glusterfs", |g, path| {
        let mut errors = source::glusterfs(&g.endpoints, &g.path, path);
        let at = path.child("endpointsNamespace");
        match g.endpoints_namespace.as_deref() {
            None => {}
            Some("") => {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.invalid(&at, "", detail);
            }
            Some(namespace) => errors.messages(&at, namespace, format::dns1123_label(namespace)),
        }
        errors
    });
    all.take(spec.flocker.as_ref(), "flocker", "flocker", source::flocker);
    all.take(spec.nfs.as_ref(), "nfs", "nfs", source::nfs);
    all.take(spec.rbd.as_ref(), "rbd", "rbd", |rbd, path| source::rbd(&rbd.monitors, &rbd.image, path));
    all.take(spec.quobyte.as_ref(), "quobyte", "quobyte", source::quobyte);
    all.take(spec.cephfs.as_ref(), "cephFS", "cephfs", |c, path| source::ceph(&c.monitors, path));
    all.take(spec.iscsi.as_ref(), "iscsi", "iscsi", |i, path| {
        let mut errors = ErrorList::new();
        if i.initiator_name.is_some() && format!("{name}:{}", i.target_portal).len() > 64 {
            errors.invalid(&path.child("targetportal"), i.target_portal.as_str(), source::ISCSI_TOO_LONG);
        }
        errors.extend(source::iscsi_common(
            &Iscsi {
                portal: &i.target_portal,
                iqn: &i.iqn,
                lun: i.lun,
                chap: i.chap_auth_discovery == Some(true) || i.chap_auth_session == Some(true),
                secret: i.secret_ref.is_some(),
                initiator: i.initiator_name.as_deref(),
                unknown: "must be valid format",
            },
            path,
        ));
        if i.secret_ref.as_ref().is_some_and(|s| text(&s.name).is_empty()) {
            errors.required(&path.child("secretRef").child("name"), "");
        }
        errors
    });
    all.take(spec.cinder.as_ref(), "cinder", "cinder", |cinder, path| {
        let mut errors = required(path, &[("volumeID", &cinder.volume_id)]);
        if let Some(secret) = &cinder.secret_ref {
            let fields = [("name", text(&secret.name)), ("namespace", text(&secret.namespace))];
            errors.extend(required(&path.child("secretRef"), &fields));
        }
        errors
    });
    all.take(spec.fc.as_ref(), "fc", "fc", source::fc);
    // As upstream, which alone here does not mind a second source.
    if let Some(flex) = &spec.flex_volume {
        all.any(|path| source::flex(&flex.driver, flex.options.as_ref(), path), "flexVolume");
    }
    all.take(spec.azure_file.as_ref(), "azureFile", "azureFile", |file, path| {
        let fields = [("secretName", file.secret_name.as_str()), ("shareName", &file.share_name)];
        let mut errors = required(path, &fields);
        if file.secret_namespace.as_deref() == Some("") {
            errors.required(&path.child("secretNamespace"), "");
        }
        errors
    });
    all.take(spec.vsphere_volume.as_ref(), "vsphereVolume", "vsphereVolume", |v, path| {
        required(path, &[("volumePath", &v.volume_path)])
    });
    let photon = spec.photon_persistent_disk.as_ref();
    all.take(photon, "photonPersistentDisk", "photonPersistentDisk", |p, path| {
        required(path, &[("pdID", &p.pd_id)])
    });
    all.take(spec.portworx_volume.as_ref(), "portworxVolume", "portworxVolume", |p, path| {
        required(path, &[("volumeID", &p.volume_id)])
    });
    all.take(spec.azure_disk.as_ref(), "azureDisk", "azureDisk", source::azure_disk);
    all.take(spec.scale_io.as_ref(), "scaleIO", "scaleIO", |s, path| {
        let volume = text(&s.volume_name);
        required(path, &[("gateway", &s.gateway), ("system", &s.system), ("volumeName", volume)])
    });
    let first = all.count() == 0;
    all.take(spec.local.as_ref(), "local", "local", |local, path| {
        if local.path.is_empty() {
            return required(path, &[("path", "")]);
        }
        volume::no_backsteps(&local.path, &path.child("path"))
    });
    if first && spec.local.is_some() && (spec.node_affinity.is_none() || inline) {
        all.errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
    }
    all.take(spec.storageos.as_ref(), "storageos", "storageos", |s, path| {
        let mut errors = source::storage_os_names(text(&s.volume_name), text(&s.volume_namespace), path);
        if let Some(secret) = &s.secret_ref {
            let fields = [("name", text(&secret.name)), ("namespace", text(&secret.namespace))];
            errors.extend(required(&path.child("secretRef"), &fields));
        }
        errors
    });
    all.take(spec.csi.as_ref(), "csi", "csi", |csi, path| {
        let mut errors = source::csi_driver(&csi.driver, &path.child("driver"));
        errors.extend(required(path, &[("volumeHandle", &csi.volume_handle)]));
        let secrets = [
            ("controllerPublishSecretRef", &csi.controller_publish_secret_ref),
            ("controllerExpandSecretRef", &csi.controller_expand_secret_ref),
            ("nodePublishSecretRef", &csi.node_publish_secret_ref),
            ("nodeExpandSecretRef", &csi.node_expand_secret_ref),
        ];
        for (key, secret) in secrets {
            errors.extend(secret.iter().flat_map(|s| secret_reference(s, &path.child(key))));
        }
        errors
    });
    if all.count() == 0 {
        all.errors.required(path, "must specify a volume type");
    }
    all.errors
}

fn secret_reference(secret: &SecretReference, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match text(&secret.name) {
        "" => errors.required(&path.child("name"), ""),
        name => errors.extend(object_name(name, &path.child("name"))),
    }
    match text(&secret.namespace) {
        "" => errors.required(&path.child("namespace"), ""),
        namespace => errors.messages(&path.child("namespace"), namespace, format::dns1123_label(namespace)),
    }
    errors
}
