//! Structural schemas of custom resources as they are published: what a schema says, in the form and with the
//! omissions of upstream's types (`apiserver/schema/kubeopenapi.go`), and for version 2 without what old clients
//! stumble over (`controller/openapi/v2/conversion.go`).

use serde_json::{Map, Value, json};

use super::schema::Edition;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// Texts that are left out when empty.
const TEXTS: &[&str] = &["type", "format", "title", "description", "pattern"];
/// Truth values that are left out unless true.
const FLAGS: &[&str] =
    &["exclusiveMaximum", "exclusiveMinimum", "uniqueItems", "nullable", PRESERVE, EMBEDDED, INT_OR_STRING];
/// Values that are left out when they are not given.
const GIVEN: &[&str] = &[
    "maximum",
    "minimum",
    "multipleOf",
    "maxLength",
    "minLength",
    "maxItems",
    "minItems",
    "maxProperties",
    "minProperties",
    "example",
    "externalDocs",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];
/// Lists that are left out when empty.
const LISTS: &[&str] = &["required", "enum", "x-kubernetes-list-map-keys", "x-kubernetes-validations"];
/// Lists of schemas of which some have to hold.
const JUNCTORS: &[&str] = &["allOf", "anyOf", "oneOf"];

/// A schema as it is published in an edition.
#[must_use]
pub fn publish(schema: &Value, edition: Edition) -> Value {
    let empty = Map::new();
    Value::Object(structural(schema.as_object().unwrap_or(&empty), edition))
}

fn structural(schema: &Map<String, Value>, edition: Edition) -> Map<String, Value> {
    let mut out = common(schema, edition);
    match edition {
        Edition::V2 => weaken(schema, &mut out),
        Edition::V3 => unfold(schema, &mut out),
    }
    for (key, value) in
        ["items", "additionalProperties"].into_iter().filter_map(|key| Some((key, schema.get(key)?)))
    {
        let hidden = key == "items" && hides_children(schema, edition);
        let value = match value {
            _ if hidden => continue,
            Value::Object(inner) => structural(inner, edition).into(),
            Value::Bool(flag) => (*flag).into(),
            _ => continue,
        };
        out.insert(key.to_owned(), value);
    }
    add_properties(schema, edition, &mut out, structural);
    out
}

/// A schema inside `allOf` and the like, of version 3.
fn nested(schema: &Map<String, Value>, edition: Edition) -> Map<String, Value> {
    let mut out = common(schema, edition);
    if let Some(Value::Object(items)) = schema.get("items") {
        out.insert("items".to_owned(), nested(items, edition).into());
    }
    add_properties(schema, edition, &mut out, nested);
    out
}

fn add_properties(
    schema: &Map<String, Value>,
    edition: Edition,
    out: &mut Map<String, Value>,
    each: fn(&Map<String, Value>, Edition) -> Map<String, Value>,
) {
    if hides_children(schema, edition) {
        return;
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let inner: Map<String, Value> = properties
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), each(value.as_object()?, edition).into())))
        .collect();
    if !inner.is_empty() {
        out.insert("properties".to_owned(), inner.into());
    }
}

/// Whether a value is written at all.
type WorthIt = fn(&Value) -> bool;

/// What does not depend on where a schema stands.
fn common(schema: &Map<String, Value>, edition: Edition) -> Map<String, Value> {
    let mut out = Map::new();
    let groups: [(&[&str], WorthIt); 4] = [
        (TEXTS, |value| value.as_str().is_some_and(|text| !text.is_empty())),
        (FLAGS, |value| *value == Value::Bool(true)),
        (GIVEN, |value| !value.is_null()),
        (LISTS, |value| value.as_array().is_some_and(|list| !list.is_empty())),
    ];
    for (keys, worth_it) in groups {
        for key in keys {
            if let Some(value) = schema.get(*key).filter(|value| worth_it(value)) {
                out.insert((*key).to_owned(), value.clone());
            }
        }
    }
    if edition == Edition::V2 {
        return out;
    }
    if let Some(default) = schema.get("default").filter(|value| !value.is_null()) {
        out.insert("default".to_owned(), default.clone());
    }
    for key in JUNCTORS {
        let list = schema.get(*key).and_then(Value::as_array);
        let list: Vec<Value> = list
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .map(|inner| nested(inner, edition).into())
            .collect();
        if !list.is_empty() {
            out.insert((*key).to_owned(), list.into());
        }
    }
    if let Some(Value::Object(not)) = schema.get("not") {
        out.insert("not".to_owned(), nested(not, edition).into());
    }
    out
}

fn is(schema: &Map<String, Value>, flag: &str) -> bool {
    schema.get(flag) == Some(&Value::Bool(true))
}

/// Whether clients of version 2 must not know what is inside: they would refuse everything else.
fn hides_children(schema: &Map<String, Value>, edition: Edition) -> bool {
    edition == Edition::V2 && (is(schema, "nullable") || is(schema, PRESERVE))
}

/// Makes a schema of version 2 as weak as old clients need it (upstream `ToStructuralOpenAPIV2`).
fn weaken(schema: &Map<String, Value>, out: &mut Map<String, Value>) {
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let items = schema.get("items").is_some_and(Value::is_object) && !hides_children(schema, Edition::V2);
    let unclear = (kind == "array" && !items) || (kind == "object" && is(schema, PRESERVE));
    if out.remove("nullable").is_some() || unclear {
        out.remove("type");
    }
    let nullable = |value: &Value| value.get("nullable") == Some(&Value::Bool(true));
    if schema.get("additionalProperties").is_some_and(nullable) {
        out.remove("required");
    }
    if hides_children(schema, Edition::V2) {
        return;
    }
    if let Some(Value::Array(required)) = out.get_mut("required") {
        let properties = schema.get("properties");
        let may_be_null =
            |name: &Value| name.as_str().and_then(|name| properties?.get(name)).is_some_and(nullable);
        required.retain(|name| !may_be_null(name));
        if required.is_empty() {
            out.remove("required");
        }
    }
}

/// Says in terms of OpenAPI what `x-kubernetes-int-or-string` means (upstream `Unfold`).
fn unfold(schema: &Map<String, Value>, out: &mut Map<String, Value>) {
    if !is(schema, INT_OR_STRING) {
        return;
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let first = schema.get("allOf").and_then(|all| all.get(0));
    let said =
        schema.get("anyOf") == Some(&either) || first.and_then(|first| first.get("anyOf")) == Some(&either);
    if said {
        return;
    }
    if !out.contains_key("anyOf") {
        out.insert("anyOf".to_owned(), either);
        return;
    }
    match out.entry("allOf").or_insert_with(|| json!([])) {
        Value::Array(all) => all.insert(0, json!({"anyOf": either})),
        other => *other = json!([{"anyOf": either}]),
    }
}

/// Gives embedded objects the properties that all objects have (upstream `addEmbeddedProperties`).
pub fn complete_embedded(
    schema: &mut Value,
    edition: Edition,
    properties: &dyn Fn() -> [(&'static str, Value); 3],
) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Object(inner)) = map.get_mut("properties") {
        inner.values_mut().for_each(|value| complete_embedded(value, edition, properties));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            complete_embedded(inner, edition, properties);
        }
    }
    if !is(map, EMBEDDED) || (edition == Edition::V2 && is(map, PRESERVE)) {
        return;
    }
    let mut required = map.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for name in ["kind", "apiVersion"] {
        if !required.iter().any(|known| known == name) {
            required.push(name.into());
        }
    }
    map.insert("required".to_owned(), required.into());
    let own = map.entry("properties").or_insert_with(|| json!({}));
    for (name, property) in properties() {
        own[name] = property;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edition: Edition, cases: &[(&str, Value, Value)]) {
        for (about, schema, expected) in cases {
            assert_eq!(publish(schema, edition), *expected, "{about}");
        }
    }

    // The cases of upstream's v2/conversion_test.go and of builder_test.go that concern one schema.
    #[test]
    fn version_2_says_no_more_than_old_clients_understand() {
        let string = || json!({"type": "string"});
        check(
            Edition::V2,
            &[
                (
                    "junctors and defaults",
                    json!({"type": "object", "default": {}, "not": {"type": "integer"}, "allOf": [string()],
                        "anyOf": [string()], "oneOf": [string()], "properties": {"a": {"type": "string",
                        "default": "x", "allOf": [{"minLength": 1}], "maxLength": 3}}}),
                    json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}}),
                ),
                (
                    "nullable",
                    json!({"type": "object", "nullable": true, "properties": {"a": string()}, "required": ["a"]}),
                    json!({"required": ["a"]}),
                ),
                (
                    "nullable properties are not required",
                    json!({"type": "object", "required": ["a", "b"],
                        "properties": {"a": {"type": "string", "nullable": true}, "b": string()}}),
                    json!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": string()}}),
                ),
                (
                    "nullable values of a map",
                    json!({"type": "object", "required": ["a"],
                        "additionalProperties": {"type": "string", "nullable": true}}),
                    json!({"type": "object", "additionalProperties": {}}),
                ),
                (
                    "unknown fields",
                    json!({"type": "object", PRESERVE: true, "properties": {"a": string()}}),
                    json!({PRESERVE: true}),
                ),
                (
                    "unknown fields in a list",
                    json!({"type": "array", PRESERVE: true, "items": {"type": "string"}}),
                    json!({PRESERVE: true}),
                ),
                ("a list of anything", json!({"type": "array"}), json!({})),
                (
                    "a number or a name",
                    json!({INT_OR_STRING: true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
                    json!({INT_OR_STRING: true}),
                ),
            ],
        );
    }

    #[test]
    fn version_3_says_everything_but_what_is_empty() {
        let either = || json!([{"type": "integer"}, {"type": "string"}]);
        check(
            Edition::V3,
            &[
                (
                    "empty and false",
                    json!({"type": "object", "description": "", "nullable": false, "required": [], "properties": {},
                        "default": null, "minProperties": 0, "x-kubernetes-validations": []}),
                    json!({"type": "object", "minProperties": 0}),
                ),
                (
                    "a number or a name",
                    json!({INT_OR_STRING: true}),
                    json!({INT_OR_STRING: true, "anyOf": either()}),
                ),
                (
                    "a number or a name, said already",
                    json!({INT_OR_STRING: true, "allOf": [{"anyOf": either()}, {"pattern": "^x"}]}),
                    json!({INT_OR_STRING: true, "allOf": [{"anyOf": either()}, {"pattern": "^x"}]}),
                ),
                (
                    "a number or a name among others",
                    json!({INT_OR_STRING: true, "anyOf": [{"minimum": 1}]}),
                    json!({INT_OR_STRING: true, "anyOf": [{"minimum": 1}], "allOf": [{"anyOf": either()}]}),
                ),
                (
                    "open maps",
                    json!({"type": "object", "additionalProperties": true, "nullable": true, "default": {"a": 1}}),
                    json!({"type": "object", "additionalProperties": true, "nullable": true, "default": {"a": 1}}),
                ),
            ],
        );
    }

    #[test]
    fn embedded_objects_have_what_all_objects_have() {
        let properties = || ["apiVersion", "kind", "metadata"].map(|name| (name, json!({"title": name})));
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "object", EMBEDDED: true, "required": ["kind"], "properties": {"spec": {}}},
            "b": {"type": "object", EMBEDDED: true, PRESERVE: true}}});
        for (edition, open) in [(Edition::V2, false), (Edition::V3, true)] {
            let mut value = schema.clone();
            complete_embedded(&mut value, edition, &properties);
            assert_eq!(value["properties"]["a"]["required"], json!(["kind", "apiVersion"]));
            assert_eq!(value["properties"]["a"]["properties"]["metadata"], json!({"title": "metadata"}));
            assert_eq!(value["properties"]["b"].get("properties").is_some(), open, "{edition:?}");
        }
    }
}
