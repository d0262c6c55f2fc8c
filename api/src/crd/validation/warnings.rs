//! Warnings about definitions: formats that nobody checks (upstream `customresourcedefinition/strategy.go`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Deserialize;
use serde_json::Value;

use super::super::formats;
use super::super::props::{self, PropsExt, text};
use crate::field::quote;

/// Warnings about a new definition, or about what a change brings.
pub(crate) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let known = old.map(unrecognized).unwrap_or_default();
    let mut found = unrecognized(new);
    found.retain(|format| !known.contains(format));
    found.iter().map(|format| format!("unrecognized format {}", quote(format))).collect()
}

fn unrecognized(object: &Value) -> Vec<String> {
    let Ok(crd) = CustomResourceDefinition::deserialize(object) else { return Vec::new() };
    let mut found = Vec::new();
    let schemas = crd.spec.versions.iter().filter_map(|v| v.schema.as_ref()?.open_api_v3_schema.as_ref());
    for schema in schemas {
        props::has(schema, &mut |part| {
            let format = text(&part.format);
            let types: Vec<String> =
                Some(part.kind().to_owned()).filter(|kind| !kind.is_empty()).into_iter().collect();
            if !format.is_empty() && !formats::is_supported(format, &types) {
                found.push(format.to_owned());
            }
            false
        });
    }
    found
}
