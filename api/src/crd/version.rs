//! Definitions as they are served: each version with all that its objects need.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, SelectableField, WebhookConversion,
};
use serde_json::Value;

use super::columns::Columns;
use super::props::{Props, list, text};
use super::rules::Rules;
use super::value::Checker;
use super::{compile, defaulting, versions};
use crate::jsonpath::Template;
use crate::names::GroupVersionKind;
use crate::schema::{Schema, TypeId, TypeRef};

mod objects;
mod path;
mod strategy;

/// A definition as it is served.
#[derive(Debug)]
pub struct Definition {
    /// Group.
    pub group: String,
    /// The plural, as in the URL.
    pub plural: String,
    /// The singular.
    pub singular: String,
    /// Kind of the objects.
    pub kind: String,
    /// Kind of lists of them.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// The version that objects are stored in.
    pub storage: String,
    /// Who converts between versions (`conversion.strategy: Webhook`); `None`: they differ in nothing but their name.
    pub webhook: Option<WebhookConversion>,
    /// All versions, the preferred one first.
    pub versions: Vec<Arc<Version>>,
}

/// Where the scale of an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// As the definition has it: `.spec.replicas`.
    pub spec_replicas: String,
    /// As the definition has it: `.status.replicas`.
    pub status_replicas: String,
    /// As the definition has it; `None` if objects have no selector.
    pub selector: Option<String>,
}

/// One version of a definition.
#[derive(Debug)]
pub struct Version {
    /// Group, version and kind of its objects.
    pub gvk: GroupVersionKind,
    /// Whether it is served.
    pub served: bool,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What is said to everybody who uses it, if it is deprecated.
    pub warning: Option<String>,
    /// Whether the status is written by a subresource of its own.
    pub has_status: bool,
    /// Where the scale stands, if there is one.
    pub scale: Option<Scale>,
    /// How objects are shown.
    pub columns: Columns,
    /// Names of fields that can be selected by, and where they stand.
    selectable: Vec<(String, Option<Template>)>,
    /// The schema, defaults pruned.
    schema: Option<Props>,
    /// Whether nothing is pruned at all (`spec.preserveUnknownFields`).
    preserve_unknown: bool,
    checker: Checker,
    rules: Option<Rules>,
    merge: (Schema, TypeId),
}

impl Definition {
    /// What a definition serves, by the names that it has been given; `None` if it lacks some of them.
    #[must_use]
    pub fn new(crd: &CustomResourceDefinition) -> Option<Self> {
        let names = crd.status.as_ref()?.accepted_names.as_ref()?;
        let filled = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        let kind = filled(&names.kind)?;
        let mut served: Vec<Arc<Version>> =
            crd.spec.versions.iter().map(|version| Arc::new(Version::new(crd, version, &kind))).collect();
        served.sort_by(|a, b| versions::compare(&b.gvk.version, &a.gvk.version));
        let conversion = crd.spec.conversion.as_ref().filter(|conversion| conversion.strategy == "Webhook");
        Some(Self {
            group: crd.spec.group.clone(),
            plural: filled(&names.plural)?,
            singular: filled(text(&names.singular))?,
            list_kind: filled(text(&names.list_kind))?,
            namespaced: crd.spec.scope == "Namespaced",
            short_names: list(&names.short_names).to_vec(),
            categories: list(&names.categories).to_vec(),
            storage: crd.spec.versions.iter().find(|version| version.storage)?.name.clone(),
            webhook: conversion.map(|conversion| conversion.webhook.clone().unwrap_or_default()),
            versions: served,
            kind,
        })
    }

    /// A version by name.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.gvk.version == name)
    }

    /// The version that objects are stored in.
    #[must_use]
    pub fn storage_version(&self) -> Option<&Arc<Version>> {
        self.version(&self.storage)
    }

    /// The version that an object says it is of.
    #[must_use]
    pub fn version_of(&self, object: &Value) -> Option<&Arc<Version>> {
        let (group, version) = object.get("apiVersion")?.as_str()?.split_once('/')?;
        self.version(version).filter(|_| group == self.group)
    }

    /// All fields that can be selected by, with their values in an object: those of any version, or, where versions
    /// differ in more than their name, those of the object's own.
    #[must_use]
    pub fn selectable_values(&self, object: &Value) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        let own = self.webhook.as_ref().and_then(|_| self.version_of(object));
        let counts = |version: &&Arc<Version>| own.is_none_or(|own| own.gvk == version.gvk);
        let fields = self.versions.iter().filter(counts).flat_map(|version| &version.selectable);
        for (name, template) in fields {
            if !found.iter().any(|(known, _)| known == name) {
                let value = template.as_ref().and_then(|template| template.find(object).ok()?.pop());
                found.push((name.clone(), value.filter(|v| !v.is_null()).map_or_else(String::new, shown)));
            }
        }
        found
    }

    /// Whether any version has fields that can be selected by.
    #[must_use]
    pub fn has_selectable(&self) -> bool {
        self.versions.iter().any(|version| !version.selectable.is_empty())
    }
}

fn shown(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

impl Version {
    fn new(crd: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion, kind: &str) -> Self {
        let gvk = GroupVersionKind::new(crd.spec.group.clone(), version.name.clone(), kind.to_owned());
        let preserve_unknown = crd.spec.preserve_unknown_fields.unwrap_or_default();
        let mut schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.clone());
        if let Some(schema) = schema.as_mut().filter(|_| !preserve_unknown) {
            defaulting::prune_defaults(schema);
        }
        let empty = Props::default();
        let known = schema.as_ref().unwrap_or(&empty);
        let subresources = version.subresources.as_ref();
        let selectable = |field: &SelectableField| {
            let path = &field.json_path;
            let name = path.strip_prefix('.').unwrap_or(path).to_owned();
            (name, Template::parse(&format!("{{{path}}}")).ok())
        };
        Self {
            served: version.served,
            namespaced: crd.spec.scope == "Namespaced",
            warning: deprecation(crd, version),
            has_status: subresources.is_some_and(|subresources| subresources.status.is_some()),
            scale: subresources.and_then(|subresources| subresources.scale.as_ref()).map(|scale| Scale {
                spec_replicas: scale.spec_replicas_path.clone(),
                status_replicas: scale.status_replicas_path.clone(),
                selector: scale.label_selector_path.clone().filter(|path| !path.is_empty()),
            }),
            columns: Columns::new(list(&version.additional_printer_columns)),
            selectable: list(&version.selectable_fields).iter().map(selectable).collect(),
            checker: Checker::new(known),
            rules: schema.as_ref().and_then(Rules::of_resource),
            merge: compile::compile(kind, known, preserve_unknown || schema.is_none()),
            schema,
            preserve_unknown,
            gvk,
        }
    }

    /// The `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.gvk.group_version().to_string()
    }

    /// The type of its objects, as structured merge sees it.
    #[must_use]
    pub fn ty(&self) -> TypeRef<'_> {
        self.merge.0.ty(self.merge.1)
    }

    /// The schema of its objects.
    #[must_use]
    pub fn schema(&self) -> Option<&Props> {
        self.schema.as_ref()
    }

    /// Whether objects can be selected by a field beyond their name and namespace.
    #[must_use]
    pub fn selects_by(&self, field: &str) -> bool {
        self.selectable.iter().any(|(name, _)| name == field)
    }
}

/// What is said of a deprecated version.
fn deprecation(crd: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> Option<String> {
    if version.deprecated != Some(true) {
        return None;
    }
    if let Some(own) = &version.deprecation_warning {
        return Some(own.clone());
    }
    let (group, kind) = (&crd.spec.group, &crd.spec.names.kind);
    let better = crd
        .spec
        .versions
        .iter()
        .filter(|other| other.served && other.deprecated != Some(true))
        .map(|other| other.name.as_str())
        .filter(|other| versions::compare(&version.name, other).is_lt())
        .max_by(|a, b| versions::compare(a, b));
    let instead = better.map(|name| format!("; use {group}/{name} {kind}")).unwrap_or_default();
    Some(format!("{group}/{} {kind} is deprecated{instead}", version.name))
}

#[cfg(test)]
mod tests;
