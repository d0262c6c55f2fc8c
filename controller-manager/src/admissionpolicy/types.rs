//! Finds the types that a policy is about: built-in ones are known, others are asked for and described by the server.

use super::check::Types;
use api::cel::Declared;
use api::names::{GroupVersion, GroupVersionKind};
use api::schema;
use client::Client;
use k8s_openapi::api::admissionregistration::v1::{NamedRuleWithOperations, ValidatingAdmissionPolicySpec};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// No more types are looked at.
const MAX_TYPES: usize = 10;
const REFERENCE: &str = "#/components/schemas/";

/// The types of a policy, as far as there are such types.
pub async fn resolve(client: &Client, spec: &ValidatingAdmissionPolicySpec) -> Types {
    let mut kinds = BTreeSet::new();
    for rule in spec.match_constraints.iter().flat_map(|resources| resources.resource_rules.iter().flatten())
    {
        let mut found = 0;
        for (version, resource) in resources(rule) {
            if found == MAX_TYPES {
                break;
            }
            if let Some(kind) = kind_of(client, &version, &resource).await {
                kinds.insert(kind);
                found += 1;
            }
        }
    }
    let mut types = Types::default();
    for kind in kinds {
        if let Some(declared) = declared(client, &kind).await {
            types.objects.push((kind, declared));
        }
    }
    if let Some(given) = &spec.param_kind
        && let Some(version) = GroupVersion::parse(given.api_version.as_deref().unwrap_or_default())
    {
        let kind = version.with_kind(given.kind.clone().unwrap_or_default());
        types.params = declared(client, &kind).await;
    }
    types
}

/// The resources a rule names, by group, version and plural in order; none if it says `*` for group or version.
fn resources(rule: &NamedRuleWithOperations) -> Vec<(GroupVersion, String)> {
    let names = |list: &Option<Vec<String>>| -> BTreeSet<String> { list.iter().flatten().cloned().collect() };
    let (groups, versions) = (names(&rule.api_groups), names(&rule.api_versions));
    if groups.iter().chain(&versions).any(|name| name.contains('*')) {
        return Vec::new();
    }
    let resources = names(&rule.resources).into_iter().filter(|name| !name.contains(['*', '/']));
    let resources: Vec<String> = resources.collect();
    let mut found = Vec::new();
    for group in &groups {
        for version in &versions {
            let version = GroupVersion::new(group.clone(), version.clone());
            found.extend(resources.iter().map(|resource| (version.clone(), resource.clone())));
        }
    }
    found
}

async fn kind_of(client: &Client, version: &GroupVersion, resource: &str) -> Option<GroupVersionKind> {
    let built_in = api::registry::resources()
        .iter()
        .find(|row| row.group == version.group && row.version == version.version && row.plural == resource);
    if let Some(row) = built_in {
        return Some(row.gvk());
    }
    if version.group.is_empty() {
        return None;
    }
    let list = client.list_api_group_resources(&version.to_string()).await.ok()?;
    let found = list.resources.into_iter().find(|found| found.name == resource)?;
    Some(version.with_kind(found.kind))
}

/// The type of a kind; `None` if there is none.
async fn declared(client: &Client, kind: &GroupVersionKind) -> Option<Arc<Declared>> {
    if let Some(ty) = schema::type_for(kind) {
        return Some(Arc::new(Declared::of_type(ty).named(&kind.kind)));
    }
    let path = format!("/openapi/v3/apis/{}", kind.group_version());
    let request = http::Request::get(path).body(Vec::new()).ok()?;
    let document: Value = match client.request(request).await {
        Ok(document) => document,
        Err(error) => {
            tracing::debug!(%kind, %error, "no schema to check expressions with");
            return None;
        }
    };
    published(&document, kind).map(Arc::new)
}

/// The type that a document of the API publishes for a kind.
fn published(document: &Value, kind: &GroupVersionKind) -> Option<Declared> {
    let all = document["components"]["schemas"].as_object()?;
    let own = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let is_of_kind = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.contains(&own))
    };
    let schema = complete(all.values().find(is_of_kind)?, all, &mut Vec::new());
    Some(Declared::of_schema(&schema, true)?.named(&kind.kind))
}

/// A schema with all that it refers to in place; what is made of itself ends there.
fn complete<'s>(schema: &'s Value, all: &'s Map<String, Value>, within: &mut Vec<&'s str>) -> Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|text| text.strip_prefix(REFERENCE)) {
        return match all.get(name).filter(|_| !within.contains(&name)) {
            Some(found) => {
                within.push(name);
                let completed = complete(found, all, within);
                within.pop();
                completed
            }
            None => json!({}),
        };
    }
    let Some(fields) = schema.as_object() else { return schema.clone() };
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let complete = |(name, property)| (name, complete(property, all, within));
                let properties = properties.iter().map(|(name, value)| (name.clone(), value)).map(complete);
                Value::Object(properties.collect())
            }
            ("items" | "additionalProperties", Value::Object(_)) => complete(value, all, within),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    // References with a default stand in a list of one.
    if let Some(Value::Array(parts)) = fields.get("allOf")
        && let [only] = parts.as_slice()
        && let Value::Object(part) = complete(only, all, within)
    {
        out.remove("allOf");
        for (key, value) in part {
            out.entry(key).or_insert(value);
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_resources() {
        let rule = |rule: Value| {
            let rule: NamedRuleWithOperations = serde_json::from_value(rule).expect("a rule");
            let found = resources(&rule).into_iter();
            found.map(|(version, resource)| format!("{version} {resource}")).collect::<Vec<_>>()
        };
        let plain = json!({"apiGroups": ["apps"], "apiVersions": ["v1", "v1beta1"],
            "resources": ["replicasets", "deployments", "deployments/scale", "*/status"]});
        assert_eq!(
            rule(plain),
            [
                "apps/v1 deployments",
                "apps/v1 replicasets",
                "apps/v1beta1 deployments",
                "apps/v1beta1 replicasets"
            ]
        );
        assert!(rule(json!({"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]})).is_empty());
        assert!(rule(json!({"apiGroups": ["apps"], "apiVersions": ["*"], "resources": ["pods"]})).is_empty());
    }

    #[test]
    fn published_schemas_are_types() {
        let document = json!({"components": {"schemas": {
            "io.Thing": {"type": "object", "x-kubernetes-group-version-kind": [{"group": "example.com", "kind": "Thing",
                "version": "v1"}], "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}]},
                "spec": {"$ref": "#/components/schemas/Spec"}}},
            "Meta": {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
            "Spec": {"type": "object", "properties": {"size": {"type": "integer"},
                "spec": {"$ref": "#/components/schemas/Spec"}}}}}});
        let declared =
            published(&document, &GroupVersionKind::new("example.com", "v1", "Thing")).expect("a type");
        let spec = declared.field("spec", false).expect("a spec");
        assert_eq!((&*declared.name, &*spec.name), ("Thing", "Thing.spec"));
        assert!(spec.field("size", false).is_some() && spec.field("spec", false).is_none());
        assert!(declared.field("metadata", false).is_some_and(|meta| meta.field("labels", false).is_some()));
        assert!(published(&document, &GroupVersionKind::new("example.com", "v2", "Thing")).is_none());
    }
}
