//! Kubernetes' libraries, and data read by its schema.

use std::sync::Arc;

use serde_json::json;

use crate::cel::{Bindings, Declared, Environment, Shape, Value};

use super::language::value_of;

#[test]
fn library_functions_give_what_they_give_upstream() {
    let env = Environment::kubernetes();
    let mut wrong = Vec::new();
    for line in include_str!("library.txt").lines().filter(|line| !line.starts_with('#')) {
        let (expression, want) = line.split_once('\t').expect("an expression and a value");
        let found = value_of(&env, expression, &Bindings::new());
        if found != want {
            wrong.push(format!("{expression}: {found}, not {want}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn data_is_read_as_its_schema_says() {
    let schema = json!({"type": "object", "properties": {
        "size": {"x-kubernetes-int-or-string": true},
        "ratio": {"type": "number"},
        "when": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"},
        "blob": {"type": "string", "format": "byte"},
        "a-b": {"type": "string"},
        "namespace": {"type": "string"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "empty": {"type": "string", "nullable": true},
    }});
    let data = json!({
        "size": "5%", "ratio": 2, "when": "2020-01-01T00:00:00Z", "wait": "90s", "blob": "YWI=", "a-b": "x",
        "namespace": "n", "set": [1, 2], "keyed": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "labels": {"l": "m"},
        "empty": null,
        "metadata": {"name": "web"}, "kind": "K", "apiVersion": "v1",
    });
    let declared = Arc::new(Declared::of_schema(&schema, true).expect("a type").named("selfType"));
    let env = Environment::kubernetes().with_declared("self", &declared);
    let shape = Shape::of_resource(&schema);
    let value = Value::from_shaped(&data, &shape).expect("a value");
    let variables = Bindings::new().bind("self", value);
    let cases = [
        ("type(self.size) == string && self.size == '5%'", "true"),
        ("self.ratio == 2.0", "true"),
        ("self.when < timestamp('2021-01-01T00:00:00Z')", "true"),
        ("self.wait == duration('1m30s')", "true"),
        ("self.blob == b'ab'", "true"),
        ("self.a__dash__b + self.__namespace__", "\"xn\""),
        ("self.set == [2, 1] && self.set + [2, 3] == [1, 2, 3]", "true"),
        ("self.labels.all(k, self.labels[k] == 'm')", "true"),
        ("has(self.empty)", "false"),
        ("has(self.a__dash__b)", "true"),
        ("self.metadata.name", "\"web\""),
        ("self.?labels['x'].orValue('none')", "\"none\""),
        ("self.missing", "ERROR: <input>:1:5: undefined field 'missing'\n | self.missing\n | ....^"),
        (
            "self.metadata.labels",
            "ERROR: <input>:1:14: undefined field 'labels'\n | self.metadata.labels\n | .............^",
        ),
    ];
    for (expression, want) in cases {
        assert_eq!(value_of(&env, expression, &variables), want, "{expression}");
    }
}

/// Rules over some data; each holds, or fails with a message that contains this.
#[test]
fn rules_hold_where_they_hold_upstream() {
    let mut wrong = Vec::new();
    let (mut schema, mut data) = (json!({}), json!({}));
    for line in include_str!("rules.txt").lines() {
        let (first, second) = line.split_once('\t').expect("two parts");
        if let Some(first) = first.strip_prefix("# ") {
            schema = serde_json::from_str(first).expect("a schema");
            data = serde_json::from_str(second).expect("data");
            continue;
        }
        let declared = Arc::new(Declared::of_schema(&schema, false).expect("a type").named("selfType"));
        let env = Environment::kubernetes().with_declared("self", &declared);
        let shape = Shape::of_schema(&schema);
        let variables = Bindings::new().bind("self", Value::from_shaped(&data, &shape).expect("a value"));
        let found = value_of(&env, second, &variables);
        if !found.contains(first) {
            wrong.push(format!("{second}: {found}, not {first}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
