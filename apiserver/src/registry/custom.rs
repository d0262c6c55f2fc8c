//! Writes of custom objects: what their version does to them, and its checks (upstream `customresource` strategies).

use std::sync::Arc;

use api::crd::{Definition, Version};
use api::field::ErrorList;
use api::names::{GroupVersionKind, GroupVersionResource};
use api::status::ApiError;
use api::{strategy, validation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::view::View;
use super::write::Write;
use super::{Custom, Deletion, Resource, Subresource};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// A version of a definition as a resource, without its cache.
pub(super) fn resource(
    definition: &Arc<Definition>,
    version: &Arc<Version>,
    terminating: bool,
    view: Option<Arc<View>>,
) -> Resource {
    let makes = |verb: &str| matches!(verb, "patch" | "create" | "update");
    let part = |name: &str, kind: GroupVersionKind| Subresource {
        name: name.to_owned(),
        kind,
        verbs: ["get", "patch", "update"].map(str::to_owned).to_vec(),
    };
    let mut subresources = Vec::new();
    if version.has_status {
        subresources.push(part("status", version.gvk.clone()));
    }
    if version.scale.is_some() {
        subresources.push(part("scale", GroupVersionKind::new("autoscaling", "v1", "Scale")));
    }
    let (group, name) = (definition.group.clone(), version.gvk.version.clone());
    Resource {
        gvr: GroupVersionResource::new(group.clone(), name, definition.plural.clone()),
        singular: definition.singular.clone(),
        namespaced: definition.namespaced,
        verbs: VERBS
            .iter()
            .filter(|verb| !terminating || !makes(verb))
            .map(|verb| (*verb).to_owned())
            .collect(),
        short_names: definition.short_names.clone(),
        categories: definition.categories.clone(),
        subresources,
        stored_as: GroupVersionKind::new(group, definition.storage.clone(), definition.kind.clone()),
        prefix: String::new(),
        cache: None,
        deletion: Deletion::Plain,
        ttl: None,
        custom: Some(Custom {
            definition: Arc::clone(definition),
            version: Arc::clone(version),
            terminating,
            view,
        }),
        gvk: version.gvk.clone(),
    }
}

fn metadata(object: &Value) -> ObjectMeta {
    object.get("metadata").and_then(|meta| ObjectMeta::deserialize(meta).ok()).unwrap_or_default()
}

fn refuse(kind: &GroupVersionKind, name: &str, errors: &ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, name, errors)) }
}

/// A new object.
pub(super) fn prepare_create(
    write: &Write<'_>,
    custom: &Custom,
    name: &str,
    object: &mut Value,
) -> Result<(), ApiError> {
    let version = &custom.version;
    if custom.terminating {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(&write.resource.group_resource(), name, why));
    }
    version.prepare_for_create(object);
    let mut errors = version.validate_create(object);
    let verdict = version.validate_rules(object, None, &errors);
    errors.extend(verdict.errors);
    if errors.is_empty() {
        errors = validation::meta::validate_path_segment(object, version.namespaced);
    }
    refuse(&version.gvk, name, &errors)?;
    version.warnings(object, None).into_iter().for_each(|warning| write.cx.warn(warning));
    Ok(())
}

/// A changed object.
pub(super) fn prepare_update(
    write: &Write<'_>,
    custom: &Custom,
    name: &str,
    object: &mut Value,
    old: &Value,
) -> Result<(), ApiError> {
    let version = &custom.version;
    let by_status = write.part == "status";
    strategy::keep_system_metadata(object, old);
    if by_status {
        version.prepare_for_status_update(object, old);
    } else {
        version.prepare_for_update(object, old);
    }
    let (new_meta, old_meta) = (metadata(object), metadata(old));
    let mut errors = validation::meta::validate_common_update(&new_meta, &old_meta, version.namespaced);
    errors.extend(if by_status {
        version.validate_status_update(object, old)
    } else {
        version.validate_update(object, old)
    });
    let verdict = version.validate_rules(object, Some(old), &errors);
    errors.extend(verdict.errors);
    verdict.warnings.into_iter().for_each(|warning| write.cx.warn(warning));
    refuse(&version.gvk, name, &errors)?;
    version.warnings(object, Some(old)).into_iter().for_each(|warning| write.cx.warn(warning));
    Ok(())
}
