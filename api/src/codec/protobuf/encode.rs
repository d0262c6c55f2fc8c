//! Values to messages.

use serde_json::{Map, Value};

use super::{Error, wire};
use crate::schema::{Field, GoKind, Node, NodeRef, Raw, SchemaOr, TypeRef, WireTo, scalar};

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// Appends the message of an object: fields by tag, values even when zero, pointers only when set.
pub(super) fn message(out: &mut Vec<u8>, map: &Map<String, Value>, ty: TypeRef<'_>) -> Result<(), Error> {
    for entry in ty.wire() {
        match entry.to {
            WireTo::Inline(inner) => nested(out, entry.tag, |out| message(out, map, ty.schema().ty(inner)))?,
            WireTo::Field(at) => {
                let field = &ty.fields()[usize::from(at)];
                let value = if map.is_empty() { None } else { map.get(field.name.as_ref()) };
                self::field(out, entry.tag, field, value.filter(|value| !value.is_null()), ty.node(field))?;
            }
        }
    }
    Ok(())
}

fn field(
    out: &mut Vec<u8>,
    tag: u32,
    field: &Field,
    value: Option<&Value>,
    node: NodeRef<'_>,
) -> Result<(), Error> {
    let result = match (value, field.go) {
        (Some(value), _) => self::value(out, tag, value, node),
        (None, GoKind::Value) => zero(out, tag, node),
        (None, _) => Ok(()),
    };
    result.map_err(|error| match error {
        Error::Value { field: inner, why } => {
            let inner = if inner.is_empty() { String::new() } else { format!(".{inner}") };
            Error::Value { field: format!("{}{inner}", field.name), why }
        }
        error => error,
    })
}

fn nested(
    out: &mut Vec<u8>,
    tag: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Ok(());
    wire::nested(out, tag, |out| result = write(out));
    result
}

fn wrong(value: &Value, wanted: &str) -> Error {
    let why = format!("{} where {wanted} should be", super::super::json::kind_of(value));
    Error::Value { field: String::new(), why }
}

fn text(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| wrong(value, "a string"))
}

fn invalid(why: String) -> Error {
    Error::Value { field: String::new(), why }
}

fn integer(value: &Value) -> Result<i64, Error> {
    value.as_i64().ok_or_else(|| wrong(value, "an integer"))
}

fn timestamp(out: &mut Vec<u8>, (seconds, nanos): (i64, u32)) {
    if seconds != scalar::ZERO_SECONDS {
        wire::number(out, 1, seconds);
        wire::number(out, 2, i64::from(nanos));
    }
}

/// Appends one value under `tag`.
fn value(out: &mut Vec<u8>, tag: u32, value: &Value, node: NodeRef<'_>) -> Result<(), Error> {
    match node.node() {
        Node::String => wire::bytes(out, tag, text(value)?.as_bytes()),
        Node::Int32 | Node::Int64 => wire::number(out, tag, integer(value)?),
        Node::Bool => {
            wire::number(out, tag, i64::from(value.as_bool().ok_or_else(|| wrong(value, "a boolean"))?))
        }
        Node::Double => {
            let number = value.as_f64().ok_or_else(|| wrong(value, "a number"))?;
            wire::tag(out, tag, 1);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Node::Bytes => wire::bytes(out, tag, &scalar::parse_base64(text(value)?).map_err(invalid)?),
        Node::Quantity => {
            let amount = match value {
                Value::Number(number) => number.to_string(),
                value => text(value)?.to_owned(),
            };
            let amount = scalar::canonical_quantity(&amount).map_err(invalid)?;
            wire::nested(out, tag, |out| wire::bytes(out, 1, amount.as_bytes()));
        }
        Node::Time => {
            let (seconds, _) = scalar::parse_time(text(value)?).map_err(invalid)?;
            wire::nested(out, tag, |out| timestamp(out, (seconds, 0)));
        }
        Node::MicroTime => {
            let (seconds, nanos) = scalar::parse_micro_time(text(value)?).map_err(invalid)?;
            wire::nested(out, tag, |out| timestamp(out, (seconds, nanos / 1000 * 1000)));
        }
        Node::Duration => {
            let nanos = scalar::parse_duration(text(value)?).map_err(invalid)?;
            wire::nested(out, tag, |out| wire::number(out, 1, nanos));
        }
        Node::IntOrString => {
            let (kind, number, name) = match value {
                Value::String(name) => (1, 0, name.as_str()),
                value => (0, integer(value)?, ""),
            };
            wire::nested(out, tag, |out| {
                wire::number(out, 1, kind);
                wire::number(out, 2, number);
                wire::bytes(out, 3, name.as_bytes());
            });
        }
        Node::Raw(Raw::Any | Raw::Unstructured) => {}
        Node::Raw(_) => wire::nested(out, tag, |out| {
            let mut json = Vec::with_capacity(64);
            super::super::json::write(&mut json, value);
            wire::bytes(out, 1, &json);
        }),
        Node::SchemaOr { flavour, ty } => return schema_or(out, tag, value, *flavour, node.schema().ty(*ty)),
        Node::Object { ty, .. } => {
            let map = value.as_object().ok_or_else(|| wrong(value, "an object"))?;
            return nested(out, tag, |out| message(out, map, node.schema().ty(*ty)));
        }
        Node::List { item, wrapped, .. } => {
            let items = value.as_array().ok_or_else(|| wrong(value, "an array"))?;
            let item = node.schema().node(*item);
            let each =
                |out: &mut Vec<u8>, tag| items.iter().try_for_each(|value| element(out, tag, value, item));
            return if *wrapped { nested(out, tag, |out| each(out, 1)) } else { each(out, tag) };
        }
        Node::Map { value: shape, .. } => {
            let map = value.as_object().ok_or_else(|| wrong(value, "an object"))?;
            let shape = node.schema().node(*shape);
            return map.iter().try_for_each(|(key, value)| {
                nested(out, tag, |out| {
                    wire::bytes(out, 1, key.as_bytes());
                    element(out, 2, value, shape)
                })
            });
        }
    }
    Ok(())
}

fn element(out: &mut Vec<u8>, tag: u32, value: &Value, node: NodeRef<'_>) -> Result<(), Error> {
    if value.is_null() { zero(out, tag, node) } else { self::value(out, tag, value, node) }
}

/// Appends the zero value of a field that upstream holds by value.
fn zero(out: &mut Vec<u8>, tag: u32, node: NodeRef<'_>) -> Result<(), Error> {
    match node.node() {
        Node::String | Node::Bytes => wire::bytes(out, tag, b""),
        Node::Int32 | Node::Int64 | Node::Bool => wire::number(out, tag, 0),
        Node::Double => {
            wire::tag(out, tag, 1);
            out.extend_from_slice(&[0; 8]);
        }
        Node::Quantity => wire::nested(out, tag, |out| wire::bytes(out, 1, b"0")),
        Node::Time | Node::MicroTime => wire::nested(out, tag, |_| {}),
        Node::Duration => wire::nested(out, tag, |out| wire::number(out, 1, 0)),
        Node::IntOrString => return value(out, tag, &Value::from(0), node),
        Node::Raw(Raw::Any | Raw::Unstructured) | Node::SchemaOr { .. } => {}
        Node::Raw(_) => wire::nested(out, tag, |_| {}),
        Node::Object { ty, .. } => {
            return nested(out, tag, |out| message(out, &EMPTY, node.schema().ty(*ty)));
        }
        Node::List { wrapped: true, .. } => wire::nested(out, tag, |_| {}),
        Node::List { .. } | Node::Map { .. } => {}
    }
    Ok(())
}

fn schema_or(
    out: &mut Vec<u8>,
    tag: u32,
    value: &Value,
    flavour: SchemaOr,
    ty: TypeRef<'_>,
) -> Result<(), Error> {
    nested(out, tag, |out| {
        match (flavour, value) {
            (SchemaOr::Bool, Value::Bool(allows)) => wire::number(out, 1, i64::from(*allows)),
            (SchemaOr::Bool, Value::Object(map)) => {
                wire::number(out, 1, 1);
                nested(out, 2, |out| message(out, map, ty))?;
            }
            (_, Value::Object(map)) => nested(out, 1, |out| message(out, map, ty))?,
            (SchemaOr::Array, Value::Array(items)) => {
                for item in items {
                    let map = item.as_object().unwrap_or(&EMPTY);
                    nested(out, 2, |out| message(out, map, ty))?;
                }
            }
            (SchemaOr::StringArray, Value::Array(items)) => {
                for item in items {
                    wire::bytes(out, 2, text(item)?.as_bytes());
                }
            }
            _ => return Err(wrong(value, "a schema")),
        }
        Ok(())
    })
}
