//! Whether a merged object can become upstream's Go struct: the schema of structured merge takes numbers and texts
//! that the struct does not (upstream `runtime.DefaultUnstructuredConverter`). Only the words differ from decoding.

use serde_json::Value;

use crate::codec::json::kind_of;
use crate::schema::scalar::{canonical_quantity, parse_base64};
use crate::schema::{Node, NodeRef, TypeRef, parse_duration, parse_micro_time, parse_time};

/// The first thing that does not fit, in upstream's words.
pub(super) fn mismatch(ty: TypeRef<'_>, value: &Value) -> Option<String> {
    let fields = value.as_object()?;
    ty.fields().iter().find_map(|field| of_node(ty.node(field), fields.get(field.name.as_ref())?))
}

fn of_node(node: NodeRef<'_>, value: &Value) -> Option<String> {
    let text = |parse: fn(&str) -> Option<String>| match value {
        Value::Null => None,
        Value::String(text) => parse(text),
        other => Some(format!("json: cannot unmarshal {} into Go value of type string", kind_of(other))),
    };
    match (node.node(), value) {
        (Node::Object { ty, .. }, value) => mismatch(node.schema().ty(*ty), value),
        (Node::List { item, .. }, Value::Array(items)) => {
            items.iter().find_map(|value| of_node(node.schema().node(*item), value))
        }
        (Node::Map { value, .. }, Value::Object(fields)) => {
            fields.values().find_map(|field| of_node(node.schema().node(*value), field))
        }
        (Node::Int32, Value::Number(number)) => fraction(number.as_f64()?, "int32"),
        (Node::Int64, Value::Number(number)) => fraction(number.as_f64()?, "int64"),
        (Node::Time, _) => text(|text| parse_time(text).err()),
        (Node::MicroTime, _) => text(|text| parse_micro_time(text).err()),
        (Node::Duration, _) => text(|text| parse_duration(text).err()),
        (Node::Quantity, Value::Null) => None,
        (Node::Quantity, Value::String(text)) => canonical_quantity(text).err(),
        (Node::Quantity, other) => canonical_quantity(&other.to_string()).err(),
        (Node::IntOrString, Value::Number(number)) if number.is_f64() => {
            Some(format!("json: cannot unmarshal number {number} into Go value of type int32"))
        }
        (Node::IntOrString, Value::Null | Value::String(_) | Value::Number(_)) => None,
        (Node::IntOrString, other) => {
            Some(format!("json: cannot unmarshal {} into Go value of type int32", kind_of(other)))
        }
        (Node::Bytes, Value::String(text)) => {
            parse_base64(text).err().map(|why| format!("error decoding from json: {why}"))
        }
        _ => None,
    }
}

fn fraction(number: f64, wanted: &str) -> Option<String> {
    (number.fract() != 0.0).then(|| format!("cannot convert float64 to {wanted}"))
}
