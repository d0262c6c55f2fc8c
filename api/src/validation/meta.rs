//! Object metadata (upstream `apimachinery/pkg/api/validation/objectmeta.go` and `pkg/apis/meta/v1/validation`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path, Report, json as show, quote};
use crate::format::{self, NameCheck};
use crate::json::read_lean_metadata;

use super::rules::{IMMUTABLE, list, non_negative, text};

/// Bytes that all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// What is wrong with the metadata of a new object of a kind whose names are checked by `name`.
#[must_use]
pub fn validate(meta: &ObjectMeta, namespaced: bool, name: NameCheck, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(generate) = meta.generate_name.as_deref().filter(|g| !g.is_empty()) {
        errors.messages(&path.child("generateName"), generate, name(generate, true));
    }
    match text(&meta.name) {
        "" => errors.required(&path.child("name"), "name or generateName is required"),
        own => errors.messages(&path.child("name"), own, name(own, false)),
    }
    let namespace = text(&meta.namespace);
    match (namespaced, namespace) {
        (true, "") => errors.required(&path.child("namespace"), ""),
        (true, _) => {
            errors.messages(&path.child("namespace"), namespace, format::name_is_label(namespace, false));
        }
        (false, "") => {}
        (false, _) => errors.forbidden(&path.child("namespace"), "not allowed on this type"),
    }
    errors.extend(non_negative(meta.generation.unwrap_or(0), &path.child("generation")));
    errors.extend(labels(meta.labels.as_ref(), &path.child("labels")));
    errors.extend(annotations(meta.annotations.as_ref(), &path.child("annotations")));
    errors.extend(owner_references(list(&meta.owner_references), &path.child("ownerReferences")));
    errors.extend(finalizers(list(&meta.finalizers), &path.child("finalizers")));
    errors.extend(managed_fields(list(&meta.managed_fields), &path.child("managedFields")));
    errors
}

/// As [`validate`], for kinds of this server, whose finalizers must be qualified or well known.
#[must_use]
pub fn validate_core(meta: &ObjectMeta, namespaced: bool, name: NameCheck, path: &Path) -> ErrorList {
    let mut errors = validate(meta, namespaced, name, path);
    errors.extend(kube_finalizers(list(&meta.finalizers), &path.child("finalizers")));
    errors
}

/// What is wrong with the metadata of a changed object.
#[must_use]
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.deletion_timestamp.is_some() {
        errors.extend(no_new_finalizers(
            list(&new.finalizers),
            list(&old.finalizers),
            &path.child("finalizers"),
        ));
    }
    if text(&new.resource_version).is_empty() {
        errors.invalid(&path.child("resourceVersion"), "", "must be specified for an update");
    }
    let generation = |meta: &ObjectMeta| meta.generation.unwrap_or(0);
    if generation(new) < generation(old) {
        errors.invalid(&path.child("generation"), generation(new), "must not be decremented");
    }
    let mut immutable = |key: &str, new: Value, old: Value| {
        if new != old {
            errors.invalid(&path.child(key), new, IMMUTABLE);
        }
    };
    immutable("name", json!(text(&new.name)), json!(text(&old.name)));
    immutable("namespace", json!(text(&new.namespace)), json!(text(&old.namespace)));
    immutable("uid", json!(text(&new.uid)), json!(text(&old.uid)));
    immutable("creationTimestamp", json!(new.creation_timestamp), json!(old.creation_timestamp));
    immutable("deletionTimestamp", json!(new.deletion_timestamp), json!(old.deletion_timestamp));
    immutable(
        "deletionGracePeriodSeconds",
        json!(new.deletion_grace_period_seconds),
        json!(old.deletion_grace_period_seconds),
    );
    errors.extend(labels(new.labels.as_ref(), &path.child("labels")));
    errors.extend(annotations(new.annotations.as_ref(), &path.child("annotations")));
    errors.extend(owner_references(list(&new.owner_references), &path.child("ownerReferences")));
    errors.extend(managed_fields(list(&new.managed_fields), &path.child("managedFields")));
    errors
}

/// As [`validate_update`], for kinds of this server.
#[must_use]
pub fn validate_update_core(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> ErrorList {
    let mut errors = validate_update(new, old, path);
    errors.extend(kube_finalizers(list(&new.finalizers), &path.child("finalizers")));
    errors
}

/// What upstream's BeforeUpdate checks of every kind before the kind's own checks.
#[must_use]
pub fn validate_common_update(new: &ObjectMeta, old: &ObjectMeta, namespaced: bool) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = validate(new, namespaced, format::name_is_path_segment, &path);
    errors.extend(validate_update(new, old, &path));
    errors
}

/// [`validate_update_core`] for the `metadata` of two objects.
#[must_use]
pub fn validate_update_value(new: &Value, old: &Value) -> ErrorList {
    with_metadata(new, old, |new, old| validate_update_core(new, old, &Path::new("metadata")))
}

/// Runs a check on the metadata of two objects.
pub(super) fn with_metadata(
    new: &Value,
    old: &Value,
    check: impl FnOnce(&ObjectMeta, &ObjectMeta) -> ErrorList,
) -> ErrorList {
    let read =
        |object: &Value| read_lean_metadata::<ObjectMeta>(object.get("metadata").unwrap_or(&Value::Null));
    match (read(new), read(old)) {
        (Ok(new), Ok(old)) => check(&new, &old),
        (Err(error), _) | (_, Err(error)) => vec![Error::internal(&Path::new("metadata"), error.to_string())],
    }
}

/// What upstream's BeforeCreate checks of every kind after the kind's own checks: names that can stand in a URL.
#[must_use]
pub fn validate_path_segment(object: &Value, namespaced: bool) -> ErrorList {
    let meta = object.get("metadata").and_then(|metadata| read_lean_metadata::<ObjectMeta>(metadata).ok());
    let meta = meta.unwrap_or_default();
    validate(&meta, namespaced, format::name_is_path_segment, &Path::new("metadata"))
}

/// Labels.
#[must_use]
pub fn labels(labels: Option<&BTreeMap<String, String>>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels.into_iter().flatten() {
        errors.messages(path, key, format::label_key(key));
        errors.messages(path, value, format::label_value(value));
    }
    errors
}

/// The name of a label.
#[must_use]
pub fn label_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    errors.messages(path, name, format::label_key(name));
    errors
}

/// Annotations.
#[must_use]
pub fn annotations(annotations: Option<&BTreeMap<String, String>>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        errors.messages(path, key, format::label_key(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(path, MAX_ANNOTATIONS);
    }
    errors
}

fn owner_references(owners: &[OwnerReference], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        owner_reference(owner, path, &mut errors);
        if owner.controller != Some(true) {
            continue;
        }
        let current = format!("{}/{}", owner.kind, owner.name);
        match &controller {
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {current}"
                );
                let all: Vec<String> = owners.iter().map(show_owner).collect();
                errors.push(Error::invalid_shown(path, format!("[{}]", all.join(",")), detail));
            }
            None => controller = Some(current),
        }
    }
    errors
}

/// An owner as Go's JSON: its fields in the order of the struct.
fn show_owner(owner: &OwnerReference) -> String {
    let mut out = format!(
        "{{\"apiVersion\":{},\"kind\":{},\"name\":{},\"uid\":{}",
        show(&owner.api_version),
        show(&owner.kind),
        show(&owner.name),
        show(&owner.uid)
    );
    if let Some(controller) = owner.controller {
        out.push_str(&format!(",\"controller\":{controller}"));
    }
    if let Some(block) = owner.block_owner_deletion {
        out.push_str(&format!(",\"blockOwnerDeletion\":{block}"));
    }
    out + "}"
}

fn owner_reference(owner: &OwnerReference, path: &Path, errors: &mut ErrorList) {
    let version = owner.api_version.rsplit('/').next().unwrap_or_default();
    if version.is_empty() || owner.api_version.matches('/').count() > 1 {
        errors.invalid(&path.child("apiVersion"), owner.api_version.as_str(), "version must not be empty");
    }
    for (key, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
        if value.is_empty() {
            errors.invalid(&path.child(key), "", "must not be empty");
        }
    }
    if owner.api_version == "v1" && owner.kind == "Event" {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        errors.push(Error::invalid_shown(path, show_owner(owner), detail));
    }
}

fn finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for finalizer in finalizers {
        errors.messages(path, finalizer, format::label_key(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, finalizers.to_vec(), detail);
    }
    errors
}

/// Names without a domain are reserved for this server.
#[must_use]
pub fn kube_finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, finalizer) in finalizers.iter().enumerate() {
        let known = ["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer.as_str());
        if !finalizer.contains('/') && !known {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path.index(i), finalizer.as_str(), detail);
        }
    }
    errors
}

fn no_new_finalizers(new: &[String], old: &[String], path: &Path) -> ErrorList {
    let mut extra: Vec<String> = new.iter().filter(|f| !old.contains(f)).map(|f| quote(f)).collect();
    extra.sort();
    extra.dedup();
    if extra.is_empty() {
        return ErrorList::new();
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        extra.join(", ")
    );
    vec![Error::forbidden(path, detail)]
}

fn managed_fields(entries: &[ManagedFieldsEntry], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        let operation = text(&entry.operation);
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(&path.child("operation"), operation, "must be `Apply` or `Update`");
        }
        let fields = text(&entry.fields_type);
        if !fields.is_empty() && fields != "FieldsV1" {
            errors.invalid(&path.child("fieldsType"), fields, "must be `FieldsV1`");
        }
        errors.extend(field_manager(text(&entry.manager), &path.child("manager")));
        if text(&entry.subresource).len() > 256 {
            errors.too_long(&path.child("subresource"), 256);
        }
    }
    errors
}

/// The name of a field manager.
#[must_use]
pub fn field_manager(manager: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > 128 {
        errors.too_long(path, 128);
    }
    for (i, c) in manager.char_indices().filter(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        let detail = format!("invalid character U+{:04X} (at position {i})", u32::from(c));
        errors.invalid(path, manager, detail);
    }
    errors
}

/// A label selector. `allow_invalid_values` for objects stored before values were checked.
#[must_use]
pub fn label_selector(
    selector: Option<&LabelSelector>,
    allow_invalid_values: bool,
    path: &Path,
) -> ErrorList {
    let Some(selector) = selector else { return ErrorList::new() };
    let mut errors = labels(selector.match_labels.as_ref(), &path.child("matchLabels"));
    for (i, expression) in list(&selector.match_expressions).iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        requirement(expression, allow_invalid_values, &path, &mut errors);
    }
    errors
}

fn requirement(
    expression: &LabelSelectorRequirement,
    allow_invalid: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let values = list(&expression.values);
    match expression.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&path.child("values"), detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.messages(&path.child("key"), &expression.key, format::label_key(&expression.key));
    if !allow_invalid {
        for (i, value) in values.iter().enumerate() {
            errors.messages(&path.child("values").index(i), value, format::label_value(value));
        }
    }
}

/// Whether a selector has values that are no label values.
#[must_use]
pub fn has_invalid_values(selector: Option<&LabelSelector>) -> bool {
    let expressions = selector.and_then(|s| s.match_expressions.as_ref()).into_iter().flatten();
    expressions.flat_map(|e| list(&e.values)).any(|value| !format::label_value(value).is_empty())
}

/// Conditions of a status.
#[must_use]
pub fn conditions(conditions: &[api::Condition], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        if conditions[..i].iter().any(|c| c.type_ == condition.type_) {
            errors.duplicate(&path.child("type"), condition.type_.as_str());
        }
        errors.extend(label_name(&condition.type_, &path.child("type")));
        errors.one_of(&path.child("status"), &condition.status, &["False", "True", "Unknown"]);
        if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
            let detail = "must be greater than or equal to zero";
            errors.invalid(&path.child("observedGeneration"), generation, detail);
        }
        if condition.last_transition_time.0 == jiff::Timestamp::UNIX_EPOCH {
            errors.required(&path.child("lastTransitionTime"), "");
        }
        condition_reason(&condition.reason, &path.child("reason"), &mut errors);
        if condition.message.len() > 32 << 10 {
            errors.too_long(&path.child("message"), 32 << 10);
        }
    }
    errors
}

fn condition_reason(reason: &str, path: &Path, errors: &mut ErrorList) {
    if reason.is_empty() {
        return errors.required(path, "");
    }
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let good = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.bytes().all(|b| b.is_ascii_alphanumeric() || b"_,:".contains(&b))
        && edge(reason.chars().next_back());
    if !good {
        let message = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
        let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
        let detail = format::regex_error(message, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples);
        errors.invalid(path, reason, detail);
    }
    if reason.len() > 1 << 10 {
        errors.too_long(path, 1 << 10);
    }
}
