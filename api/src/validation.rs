//! Whether an object is valid (upstream `pkg/apis/*/validation`), with upstream's messages, paths and order.
//!
//! Checks run over the typed structs, after defaulting and the strategy's preparation. The kind is the one the client
//! asked for: what is allowed in events depends on it. The object may already be in the version it is stored in;
//! otherwise it is converted, because the rules are about the fields of that version. An object that does not fit its
//! struct is refused with a single internal error: the codec has checked the types before, so this does not happen.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::convert::convert;
use crate::field::{Error, ErrorList, Path};
use crate::json;
use crate::kinds;
use crate::names::GroupVersionKind;
use crate::{registry, strategy};

pub(crate) mod admission;
pub(crate) mod affinity;
pub(crate) mod autoscaling;
pub(crate) mod certificates;
pub(crate) mod claim;
pub(crate) mod container;
pub(crate) mod core;
pub(crate) mod cron;
pub(crate) mod devices;
pub(crate) mod discovery;
pub(crate) mod events;
pub(crate) mod flowcontrol;
pub(crate) mod golang;
pub(crate) mod ip;
pub(crate) mod job;
pub mod meta;
pub(crate) mod networking;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod quota;
pub(crate) mod rbac;
pub(crate) mod registration;
pub(crate) mod resources;
mod rules;
pub(crate) mod security;
pub(crate) mod service;
pub(crate) mod source;
pub(crate) mod storage;
pub(crate) mod volume;
pub(crate) mod workload;

pub(crate) use rules::*;

/// What is wrong with a new object. Kinds without checks of their own (custom resources) have none here: the caller
/// checks their metadata with [`meta::validate`].
#[must_use]
pub fn validate_create(gvk: &GroupVersionKind, object: &Value) -> ErrorList {
    kinds::find(gvk).and_then(|kind| kind.create).map(|check| check(&stored(gvk, object))).unwrap_or_default()
}

/// What is wrong with a new object, and what its client is to be told if nothing is. `stored_as` is the kind that the
/// object has already been converted to.
#[must_use]
pub fn review_create(
    gvk: &GroupVersionKind,
    stored_as: &GroupVersionKind,
    object: &Value,
) -> (ErrorList, Vec<String>) {
    if let Some(review) = kinds::find(gvk).and_then(|kind| kind.review) {
        return review(object);
    }
    let errors = validate_create(gvk, object);
    let warnings = if errors.is_empty() { strategy::warnings(stored_as, object, None) } else { Vec::new() };
    (errors, warnings)
}

/// What is wrong with a changed object: first what is wrong with its metadata for any kind, then for its own.
#[must_use]
pub fn validate_update(gvk: &GroupVersionKind, new: &Value, old: &Value) -> ErrorList {
    let mut errors = common(gvk, new, old);
    if let Some(check) = kinds::find(gvk).and_then(|kind| kind.update) {
        errors.extend(check(&stored(gvk, new), &stored(gvk, old)));
    }
    errors
}

/// What is wrong with an object changed by its status subresource.
#[must_use]
pub fn validate_status_update(gvk: &GroupVersionKind, new: &Value, old: &Value) -> ErrorList {
    let mut errors = common(gvk, new, old);
    errors.extend(match kinds::find(gvk).and_then(|kind| kind.status_update) {
        Some(check) => check(&stored(gvk, new), &stored(gvk, old)),
        None => meta::validate_update_value(new, old),
    });
    errors
}

/// What is wrong with an object changed by another subresource that writes the object itself; `status` too.
#[must_use]
pub fn validate_subresource_update(
    gvk: &GroupVersionKind,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> ErrorList {
    if subresource == "status" {
        return validate_status_update(gvk, new, old);
    }
    let mut errors = common(gvk, new, old);
    let checks = kinds::find(gvk).map(|kind| kind.subresource_updates).unwrap_or_default();
    errors.extend(match checks.iter().find(|(name, _)| *name == subresource) {
        Some((_, check)) => check(new, old),
        None => meta::validate_update_value(new, old),
    });
    errors
}

/// What is wrong with changed metadata, whatever the kind.
fn common(gvk: &GroupVersionKind, new: &Value, old: &Value) -> ErrorList {
    let namespaced = registry::by_kind(gvk).is_some_and(registry::Resource::namespaced);
    meta::with_metadata(new, old, |new, old| meta::validate_common_update(new, old, namespaced))
}

/// The object in the version that objects of the kind are stored in.
fn stored<'a>(gvk: &GroupVersionKind, object: &'a Value) -> Cow<'a, Value> {
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let is_second = matches!(version, "events.k8s.io/v1" | "autoscaling/v1");
    let target = registry::by_kind(gvk).filter(|_| is_second);
    match target.and_then(|resource| registry::storage_version(resource.group, resource.plural)) {
        Some(target) if target.to_string() != version => {
            Cow::Owned(convert(gvk, &target.with_kind(gvk.kind.clone()), object.clone()))
        }
        _ => Cow::Borrowed(object),
    }
}

/// Runs a check on the typed object.
pub(crate) fn typed<T: DeserializeOwned>(object: &Value, check: impl FnOnce(&T) -> ErrorList) -> ErrorList {
    match json::read_lean(object) {
        Ok(object) => check(&object),
        Err(error) => vec![Error::internal(&Path::root(), error.to_string())],
    }
}

/// Runs a check on the typed object, and says what to tell its client if that finds nothing.
pub(crate) fn reviewed<T: DeserializeOwned>(
    object: &Value,
    check: fn(&T) -> ErrorList,
    warn: fn(&T, &Value) -> Vec<String>,
) -> (ErrorList, Vec<String>) {
    let mut warnings = Vec::new();
    let errors = typed(object, |read: &T| {
        let errors = check(read);
        if errors.is_empty() {
            warnings = warn(read, object);
        }
        errors
    });
    (errors, warnings)
}

/// Runs a check on the typed objects of an update.
pub(crate) fn typed2<T: DeserializeOwned>(
    new: &Value,
    old: &Value,
    check: impl FnOnce(&T, &T) -> ErrorList,
) -> ErrorList {
    match (json::read_lean(new), json::read_lean(old)) {
        (Ok(new), Ok(old)) => check(&new, &old),
        (Err(error), _) | (_, Err(error)) => vec![Error::internal(&Path::root(), error.to_string())],
    }
}

/// Whether a workload has a selector at all: the typed structs do not tell.
pub(crate) fn has_selector(object: &Value) -> bool {
    object.pointer("/spec/selector").is_some_and(|selector| !selector.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_that_were_never_set_are_no_reason_to_refuse() {
        let gvk = GroupVersionKind::new("", "v1", "Service");
        let old = json!({"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "None"},
                         "metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"},
                         "status": {"loadBalancer": {}}});
        let mut new = old.clone();
        new["status"]["conditions"] = json!([{"type": "A", "status": "True", "reason": "B", "message": "c",
                                              "lastTransitionTime": null}]);
        assert_eq!(validate_status_update(&gvk, &new, &old), []);
    }
}
