//! Metadata of objects and of the resources embedded in them.

use serde_json::json;

use super::*;

fn embedding() -> Props {
    serde_json::from_value(json!({"type": "object", "properties": {
        "e": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }}))
    .expect("a schema")
}

#[test]
fn metadata_is_read_as_its_type_says() {
    let read = read(&json!({"name": "x", "labels": {"a": "b"}, "unknown": 1}), false);
    let read = read.expect("metadata");
    assert_eq!((&read.value["name"], &read.unknown[..]), (&json!("x"), &["unknown".to_owned()][..]));
    assert!(super::read(&json!({"name": 5}), false).is_err());
}

#[test]
fn embedded_resources_are_objects_with_a_kind() {
    let schema = embedding();
    let errors = |e: Value| validate(&json!({"e": e}), Some(&schema), false, &Path::root());
    assert!(errors(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}})).is_empty());
    let fields: Vec<String> =
        errors(json!({"metadata": {"labels": {"-": ""}}})).iter().map(|e| e.field.to_string()).collect();
    for missing in ["e.apiVersion", "e.kind"] {
        assert!(fields.iter().any(|field| field == missing), "{fields:?}");
    }
}
