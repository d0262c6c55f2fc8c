//! Whether a value can become upstream's Go struct without a detour through JSON text (upstream
//! `runtime.DefaultUnstructuredConverter`): merged configurations and strategic patches do. Only the words differ from
//! decoding.

use serde_json::Value;

use super::scalar::{canonical_quantity, parse_base64, parse_duration, parse_micro_time, parse_time};
use super::{Node, NodeRef, TypeRef};
use crate::codec::json::kind_of;

impl TypeRef<'_> {
    /// The first thing in a value that does not fit the type, in upstream's words.
    #[must_use]
    pub fn unconvertible(self, value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::Object(fields) => self.fields().iter().find_map(|field| {
                let value = fields.get(field.name.as_ref())?;
                of_node(self.node(field), value)
            }),
            other => Some(format!("cannot restore struct from: {}", go_kind(other))),
        }
    }
}

/// What Go calls a value read from JSON without a type.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

fn of_node(node: NodeRef<'_>, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let text = |parse: fn(&str) -> Option<String>| match value {
        Value::String(text) => parse(text),
        other => Some(format!("json: cannot unmarshal {} into Go value of type string", kind_of(other))),
    };
    match (node.node(), value) {
        (Node::Object { ty, .. }, value) => node.schema().ty(*ty).unconvertible(value),
        (Node::List { item, .. }, Value::Array(items)) => {
            items.iter().find_map(|value| of_node(node.schema().node(*item), value))
        }
        (Node::List { .. }, other) => Some(format!("cannot restore slice from {}", go_kind(other))),
        (Node::Map { value, .. }, Value::Object(fields)) => {
            fields.values().find_map(|field| of_node(node.schema().node(*value), field))
        }
        (Node::Map { .. }, other) => Some(format!("cannot restore map from {}", go_kind(other))),
        (Node::Time, _) => text(|text| parse_time(text).err()),
        (Node::MicroTime, _) => text(|text| parse_micro_time(text).err()),
        (Node::Duration, _) => text(|text| parse_duration(text).err()),
        (Node::Quantity, Value::String(text)) => canonical_quantity(text).err(),
        (Node::Quantity, other) => canonical_quantity(&other.to_string()).err(),
        (Node::IntOrString, Value::Number(number)) if number.is_f64() => {
            Some(format!("json: cannot unmarshal number {number} into Go value of type int32"))
        }
        (Node::IntOrString, Value::String(_) | Value::Number(_)) => None,
        (Node::IntOrString, other) => {
            Some(format!("json: cannot unmarshal {} into Go value of type int32", kind_of(other)))
        }
        (Node::Bytes, Value::String(text)) => {
            parse_base64(text).err().map(|why| format!("error decoding from json: {why}"))
        }
        (Node::Bytes, Value::Array(_)) => None,
        (Node::Bytes, other) => Some(format!("cannot restore slice from {}", go_kind(other))),
        (Node::String, other) => scalar(other, "string"),
        (Node::Bool, other) => scalar(other, "bool"),
        (Node::Int32, other) => scalar(other, "int32"),
        (Node::Int64, other) => scalar(other, "int64"),
        (Node::Double, other) => scalar(other, "float64"),
        (Node::Raw(_) | Node::SchemaOr { .. }, _) => None,
    }
}

/// Go converts between numbers, and would make a character of an integer.
fn scalar(value: &Value, wanted: &str) -> Option<String> {
    match (value, wanted) {
        (Value::String(_), "string") | (Value::Bool(_), "bool") | (Value::Number(_), "float64") => None,
        (Value::Number(number), "int32" | "int64") => {
            let whole = number.as_f64().is_some_and(|number| number.fract() == 0.0);
            (!whole).then(|| format!("cannot convert float64 to {wanted}"))
        }
        (Value::Number(number), "string") if !number.is_f64() => {
            Some("cannot convert int64 to string".to_owned())
        }
        _ => Some(format!("unrecognized type: {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::type_named;

    #[test]
    fn what_cannot_be_converted_is_told_in_upstreams_words() {
        let pod = type_named("io.k8s.api.core.v1.Pod").expect("a type");
        let cases = [
            (json!({"metadata": {"labels": {"a": 1}}}), "cannot convert int64 to string"),
            (json!({"metadata": {"labels": {"a": 1.5}}}), "unrecognized type: string"),
            (json!({"metadata": {"labels": true}}), "cannot restore map from bool"),
            (json!({"metadata": {"labels": ["a"]}}), "cannot restore map from slice"),
            (json!({"metadata": {"finalizers": {"a": 1}}}), "cannot restore slice from map"),
            (json!({"metadata": "x"}), "cannot restore struct from: string"),
            (json!({"spec": {"hostNetwork": "yes"}}), "unrecognized type: bool"),
            (json!({"spec": {"priority": 1.5}}), "cannot convert float64 to int32"),
            (json!({"spec": {"priority": "1"}}), "unrecognized type: int32"),
            (
                json!({"metadata": {"creationTimestamp": 5}}),
                "json: cannot unmarshal number into Go value of type string",
            ),
        ];
        for (value, why) in cases {
            assert_eq!(pod.unconvertible(&value).as_deref(), Some(why), "{value}");
        }
        let fits = json!({"metadata": {"name": null, "labels": {"a": null}}, "spec": {"priority": 1.0}});
        assert_eq!(pod.unconvertible(&fits), None);
    }
}
