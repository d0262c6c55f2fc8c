//! Whether an object is valid (upstream `pkg/apis/*/validation`), with upstream's messages, paths and order.
//!
//! Checks run over the typed structs, after defaulting and the strategy's preparation. An object that does not fit its
//! struct is refused with a single internal error: the codec has checked the types before, so this does not happen.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds;
use crate::names::GroupVersionKind;

pub(crate) mod affinity;
pub(crate) mod certificates;
pub(crate) mod claim;
pub(crate) mod container;
pub(crate) mod cron;
pub(crate) mod golang;
pub(crate) mod ip;
pub(crate) mod job;
pub mod meta;
pub(crate) mod pod;
pub(crate) mod resources;
mod rules;
pub(crate) mod security;
pub(crate) mod source;
pub(crate) mod volume;
pub(crate) mod workload;

pub(crate) use rules::*;

/// What is wrong with a new object. Kinds without checks of their own (custom resources) have none here: the caller
/// checks their metadata with [`meta::validate`].
#[must_use]
pub fn validate_create(gvk: &GroupVersionKind, object: &Value) -> ErrorList {
    kinds::find(gvk).and_then(|kind| kind.create).map(|check| check(object)).unwrap_or_default()
}

/// What is wrong with a changed object.
#[must_use]
pub fn validate_update(gvk: &GroupVersionKind, new: &Value, old: &Value) -> ErrorList {
    kinds::find(gvk).and_then(|kind| kind.update).map(|check| check(new, old)).unwrap_or_default()
}

/// What is wrong with an object changed by its status subresource.
#[must_use]
pub fn validate_status_update(gvk: &GroupVersionKind, new: &Value, old: &Value) -> ErrorList {
    match kinds::find(gvk).and_then(|kind| kind.status_update) {
        Some(check) => check(new, old),
        None => meta::validate_update_value(new, old),
    }
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
    let checks = kinds::find(gvk).map(|kind| kind.subresource_updates).unwrap_or_default();
    match checks.iter().find(|(name, _)| *name == subresource) {
        Some((_, check)) => check(new, old),
        None => meta::validate_update_value(new, old),
    }
}

/// Runs a check on the typed object.
pub(crate) fn typed<T: DeserializeOwned>(object: &Value, check: impl FnOnce(&T) -> ErrorList) -> ErrorList {
    match T::deserialize(object) {
        Ok(object) => check(&object),
        Err(error) => vec![Error::internal(&Path::root(), error.to_string())],
    }
}

/// Runs a check on the typed objects of an update.
pub(crate) fn typed2<T: DeserializeOwned>(
    new: &Value,
    old: &Value,
    check: impl FnOnce(&T, &T) -> ErrorList,
) -> ErrorList {
    match (T::deserialize(new), T::deserialize(old)) {
        (Ok(new), Ok(old)) => check(&new, &old),
        (Err(error), _) | (_, Err(error)) => vec![Error::internal(&Path::root(), error.to_string())],
    }
}

/// Whether a workload has a selector at all: the typed structs do not tell.
pub(crate) fn has_selector(object: &Value) -> bool {
    object.pointer("/spec/selector").is_some_and(|selector| !selector.is_null())
}
