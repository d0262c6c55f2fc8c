//! Cases of upstream's `pruning/algorithm_test.go` and of dropped nulls.

use serde_json::json;

use super::*;

#[test]
fn what_the_schema_does_not_know_is_dropped() {
    let preserve = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    for (schema, value, pruned, dropped) in [
        (object(json!({"a": {"type": "string"}})), json!({"a": "x", "b": 1}), json!({"a": "x"}), vec!["b"]),
        (preserve.clone(), json!({"a": 1, "b": {"c": 2}}), json!({"a": 1, "b": {"c": 2}}), vec![]),
        (
            object(json!({"l": {"type": "array", "items": object(json!({"a": {"type": "integer"}}))}})),
            json!({"l": [{"a": 1}, {"a": 2, "z": 3}]}),
            json!({"l": [{"a": 1}, {"a": 2}]}),
            vec!["l[1].z"],
        ),
        (
            json!({"type": "object", "additionalProperties": object(json!({"a": {"type": "integer"}}))}),
            json!({"k": {"a": 1, "z": 3}}),
            json!({"k": {"a": 1}}),
            vec!["k.z"],
        ),
        (
            object(json!({"e": {"type": "object", "x-kubernetes-embedded-resource": true}})),
            json!({"e": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "x"}, "z": 1}}),
            json!({"e": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "x"}}}),
            vec!["e.z"],
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": object(json!({}))}}),
            json!({"a": {"z": 1}, "b": 1}),
            json!({"a": {}, "b": 1}),
            vec!["a.z"],
        ),
    ] {
        let schema: Props = serde_json::from_value(schema).expect("a schema");
        let mut value = value;
        let found = prune(&mut value, Some(&schema), false);
        assert_eq!((value, found), (pruned, dropped.into_iter().map(str::to_owned).collect()));
    }
}

#[test]
fn a_resource_keeps_what_every_object_has() {
    let schema: Props = serde_json::from_value(json!({"type": "object"})).expect("a schema");
    let mut value = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": {}});
    assert_eq!(prune(&mut value, Some(&schema), true), ["spec"]);
    assert_eq!(value, json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}}));
}
