//! Cases of upstream's `schema/validation_test.go`.

use serde_json::json;

use super::*;

fn fields(schema: serde_json::Value) -> Vec<String> {
    let schema: Props = serde_json::from_value(schema).expect("a schema");
    validate(&Path::root(), &schema).iter().map(|error| error.field.to_string()).collect()
}

#[test]
fn structural_schemas_are_told_from_others() {
    for (schema, wrong) in [
        (json!({"type": "object"}), vec![]),
        (json!({"type": "object", "properties": {"a": {"type": "string"}}}), vec![]),
        (json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true}}}), vec![]),
        (
            json!({"type": "object", "properties": {"a": {"x-kubernetes-preserve-unknown-fields": true}}}),
            vec![],
        ),
        (json!({"type": "string"}), vec!["type"]),
        (json!({"type": "object", "properties": {"a": {}}}), vec!["properties[a].type"]),
        (json!({"type": "object", "properties": {"a": {"type": "array"}}}), vec!["properties[a].items"]),
        (json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}), vec!["properties[b]"]),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "not": {"properties": {"a": {"description": "x"}}}}),
            vec!["not.properties[a].description"],
        ),
    ] {
        assert_eq!(fields(schema.clone()), wrong, "{schema}");
    }
}
