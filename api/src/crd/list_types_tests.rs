//! Cases of upstream's `listtype/validation_test.go`.

use serde_json::json;

use super::*;

#[test]
fn items_of_sets_and_maps_stand_once() {
    let set = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"});
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
        "items": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}});
    for (schema, value, fields) in [
        (set.clone(), json!(["a", "b"]), vec![]),
        (set.clone(), json!(["a", "b", "a"]), vec!["l[2]"]),
        (set, json!([]), vec![]),
        (map.clone(), json!([{"a": 1, "b": 1}, {"a": 1, "b": 2}]), vec![]),
        (map.clone(), json!([{"a": 1, "b": 1}, {"a": 1, "b": 1}]), vec!["l[1]"]),
        (map, json!([{"a": 1}, {"a": 1}]), vec!["l[1]"]),
    ] {
        let schema: Props =
            serde_json::from_value(json!({"type": "object", "properties": {"l": schema}})).expect("a schema");
        let errors = validate(&json!({"l": value}), &schema, &Path::root());
        let found: Vec<String> = errors.iter().map(|error| error.field.to_string()).collect();
        assert_eq!(found, fields);
    }
}
