//! What of a definition is published as OpenAPI (upstream `controller/openapi`).

use api::crd::conditions;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};

use crate::openapi::CustomVersion;

/// The versions of a definition that are published: of an established one, those that are served.
pub fn versions(crd: &CustomResourceDefinition) -> Vec<CustomVersion> {
    if !conditions::is_true(crd, conditions::ESTABLISHED) || crd.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    crd.spec.versions.iter().filter(|version| version.served).map(|version| published(crd, version)).collect()
}

fn published(crd: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> CustomVersion {
    let names = &crd.spec.names;
    let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    // A schema that is not structural says nothing that could be relied on.
    let schema = schema.filter(|_| conditions::find(crd, conditions::NON_STRUCTURAL).is_none());
    let subresources = version.subresources.as_ref();
    CustomVersion {
        group: crd.spec.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        list_kind: names.list_kind.clone().unwrap_or_default(),
        plural: names.plural.clone(),
        namespaced: crd.spec.scope == "Namespaced",
        schema: schema.and_then(|schema| serde_json::to_string(schema).ok()),
        preserve_unknown_fields: crd.spec.preserve_unknown_fields.unwrap_or_default(),
        status: subresources.is_some_and(|subresources| subresources.status.is_some()),
        scale: subresources.is_some_and(|subresources| subresources.scale.is_some()),
        selectable_fields: version
            .selectable_fields
            .iter()
            .flatten()
            .map(|field| field.json_path.clone())
            .collect(),
    }
}
