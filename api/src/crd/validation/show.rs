//! Parts of a definition as upstream's messages show them: JSON of its internal types, with Go's names and order.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceSubresources, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool, JSONSchemaPropsOrStringArray, ValidationRule,
};
use serde::Serialize;

use super::internal::Version;
use crate::crd::props::{Props, PropsExt, list, text};
use crate::field::json;

const NULL: &str = "null";

fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// A list; null when empty.
fn array<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    if items.is_empty() {
        return NULL.to_owned();
    }
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(","))
}

fn map<'a, T: 'a>(entries: impl Iterator<Item = (&'a String, &'a T)>, show: impl Fn(&T) -> String) -> String {
    let entries: Vec<String> =
        entries.map(|(name, value)| format!("{}:{}", json(name), show(value))).collect();
    if entries.is_empty() { NULL.to_owned() } else { format!("{{{}}}", entries.join(",")) }
}

fn pointer<T: Serialize>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| NULL.to_owned(), json)
}

fn or_null<T>(value: Option<&T>, show: impl Fn(&T) -> String) -> String {
    value.map_or_else(|| NULL.to_owned(), show)
}

/// The versions of a definition.
pub(super) fn versions(versions: &[Version<'_>]) -> String {
    if versions.is_empty() { "[]".to_owned() } else { array(versions, version) }
}

fn version(version: &Version<'_>) -> String {
    let schema = |schema: &Props| object(&[("OpenAPIV3Schema", props(schema))]);
    object(&[
        ("Name", json(&version.name)),
        ("Served", version.served.to_string()),
        ("Storage", version.storage.to_string()),
        ("Deprecated", version.deprecated.to_string()),
        ("DeprecationWarning", pointer(&version.deprecation_warning)),
        ("Schema", or_null(version.schema, schema)),
        ("Subresources", or_null(version.subresources, subresources)),
        ("AdditionalPrinterColumns", array(version.columns, column)),
        (
            "SelectableFields",
            array(version.selectable_fields, |field| object(&[("JSONPath", json(&field.json_path))])),
        ),
    ])
}

fn subresources(all: &CustomResourceSubresources) -> String {
    let scale = all.scale.as_ref().map(|scale| {
        object(&[
            ("SpecReplicasPath", json(&scale.spec_replicas_path)),
            ("StatusReplicasPath", json(&scale.status_replicas_path)),
            ("LabelSelectorPath", pointer(&scale.label_selector_path)),
        ])
    });
    let status = if all.status.is_some() { "{}" } else { NULL };
    object(&[("Status", status.to_owned()), ("Scale", scale.unwrap_or_else(|| NULL.to_owned()))])
}

fn column(column: &CustomResourceColumnDefinition) -> String {
    object(&[
        ("Name", json(&column.name)),
        ("Type", json(&column.type_)),
        ("Format", json(&text(&column.format))),
        ("Description", json(&text(&column.description))),
        ("Priority", column.priority.unwrap_or_default().to_string()),
        ("JSONPath", json(&column.json_path)),
    ])
}

/// A rule.
pub(super) fn rule(rule: &ValidationRule) -> String {
    object(&[
        ("Rule", json(&rule.rule)),
        ("Message", json(&text(&rule.message))),
        ("MessageExpression", json(&text(&rule.message_expression))),
        ("Reason", pointer(&rule.reason)),
        ("FieldPath", json(&text(&rule.field_path))),
        ("OptionalOldSelf", pointer(&rule.optional_old_self)),
    ])
}

/// The items of a list: one schema or several.
pub(super) fn items(items: &JSONSchemaPropsOrArray) -> String {
    match items {
        JSONSchemaPropsOrArray::Schema(schema) => {
            object(&[("Schema", props(schema)), ("JSONSchemas", NULL.to_owned())])
        }
        JSONSchemaPropsOrArray::Schemas(all) => {
            object(&[("Schema", NULL.to_owned()), ("JSONSchemas", array(all, props))])
        }
    }
}

fn or_bool(value: &JSONSchemaPropsOrBool) -> String {
    match value {
        JSONSchemaPropsOrBool::Schema(schema) => {
            object(&[("Allows", true.to_string()), ("Schema", props(schema))])
        }
        JSONSchemaPropsOrBool::Bool(allows) => {
            object(&[("Allows", allows.to_string()), ("Schema", NULL.to_owned())])
        }
    }
}

fn dependency(value: &JSONSchemaPropsOrStringArray) -> String {
    match value {
        JSONSchemaPropsOrStringArray::Schema(schema) => {
            object(&[("Schema", props(schema)), ("Property", NULL.to_owned())])
        }
        JSONSchemaPropsOrStringArray::Strings(names) => {
            object(&[("Schema", NULL.to_owned()), ("Property", array(names, json))])
        }
    }
}

fn flag(value: Option<bool>) -> String {
    value.unwrap_or_default().to_string()
}

/// A whole number has no fraction in Go's JSON.
fn number(value: &Option<f64>) -> String {
    value.map_or_else(|| NULL.to_owned(), |value| crate::schema::plain_number(value).to_string())
}

/// A schema.
pub(super) fn props(schema: &Props) -> String {
    let clauses = |clauses: &Option<Vec<Props>>| array(list(clauses), props);
    let strings = |strings: &Option<Vec<String>>| array(list(strings), json);
    let docs = schema.external_docs.as_ref();
    object(&[
        ("ID", json(&text(&schema.id))),
        ("Schema", json(&text(&schema.schema))),
        ("Ref", pointer(&schema.ref_path)),
        ("Description", json(&text(&schema.description))),
        ("Type", json(&schema.kind())),
        ("Nullable", flag(schema.nullable)),
        ("Format", json(&text(&schema.format))),
        ("Title", json(&text(&schema.title))),
        ("Default", schema.default_value().map_or_else(|| NULL.to_owned(), json)),
        ("Maximum", number(&schema.maximum)),
        ("ExclusiveMaximum", flag(schema.exclusive_maximum)),
        ("Minimum", number(&schema.minimum)),
        ("ExclusiveMinimum", flag(schema.exclusive_minimum)),
        ("MaxLength", pointer(&schema.max_length)),
        ("MinLength", pointer(&schema.min_length)),
        ("Pattern", json(&text(&schema.pattern))),
        ("MaxItems", pointer(&schema.max_items)),
        ("MinItems", pointer(&schema.min_items)),
        ("UniqueItems", flag(schema.unique_items)),
        ("MultipleOf", number(&schema.multiple_of)),
        ("Enum", array(schema.enumerated(), |value| json(&value.0))),
        ("MaxProperties", pointer(&schema.max_properties)),
        ("MinProperties", pointer(&schema.min_properties)),
        ("Required", strings(&schema.required)),
        ("Items", or_null(schema.items.as_ref(), items)),
        ("AllOf", clauses(&schema.all_of)),
        ("OneOf", clauses(&schema.one_of)),
        ("AnyOf", clauses(&schema.any_of)),
        ("Not", or_null(schema.not.as_deref(), props)),
        ("Properties", map(schema.fields(), props)),
        ("AdditionalProperties", or_null(schema.additional_properties.as_ref(), or_bool)),
        ("PatternProperties", map(schema.pattern_properties.iter().flatten(), props)),
        ("Dependencies", map(schema.dependencies.iter().flatten(), dependency)),
        ("AdditionalItems", or_null(schema.additional_items.as_ref(), or_bool)),
        ("Definitions", map(schema.definitions.iter().flatten(), props)),
        (
            "ExternalDocs",
            or_null(docs, |docs| {
                object(&[("Description", json(&text(&docs.description))), ("URL", json(&text(&docs.url)))])
            }),
        ),
        ("Example", or_null(schema.example.as_ref(), |value| json(&value.0))),
        ("XPreserveUnknownFields", pointer(&schema.x_kubernetes_preserve_unknown_fields)),
        ("XEmbeddedResource", flag(schema.x_kubernetes_embedded_resource)),
        ("XIntOrString", flag(schema.x_kubernetes_int_or_string)),
        ("XListMapKeys", strings(&schema.x_kubernetes_list_map_keys)),
        ("XListType", pointer(&schema.x_kubernetes_list_type)),
        ("XMapType", pointer(&schema.x_kubernetes_map_type)),
        ("XValidations", array(schema.rules(), rule)),
    ])
}
