//! Reading JSON as values, with and without a shape.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map as JsonMap, Value as Json};

use crate::cel::escape;
use crate::cel::eval::{Evaluated, Fault};
use crate::cel::shape::{ListShape, Shape, ShapeKind, StringFormat};
use crate::gofmt::type_name;

use super::{List, Map, Text, Timestamp, Value};

pub(crate) fn dynamic(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Double(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(items) => Value::List(List::Json(items, None)),
        Json::Object(map) => Value::Map(Map::Json(map, None)),
    }
}

pub(crate) fn shaped<'a>(json: &'a Json, shape: &'a Shape) -> Evaluated<'a> {
    let fail = |message: &str| Err(Fault::new(message));
    if json.is_null() {
        return match shape.nullable {
            true => Ok(Value::Null),
            false => fail("invalid data, got null for schema with nullable=false"),
        };
    }
    match &shape.kind {
        ShapeKind::IntOrString => match json {
            Json::String(text) => Ok(Value::String(Text::Borrowed(text))),
            Json::Number(number) if number.is_i64() => Ok(dynamic(json)),
            _ => fail("invalid data, expected XIntOrString value to be either a string or integer"),
        },
        ShapeKind::Object(_) | ShapeKind::Map(_) => match json {
            Json::Object(map) => Ok(Value::Map(Map::Json(map, Some(shape)))),
            _ => fail("invalid data, expected a map for the provided schema with type=object"),
        },
        ShapeKind::List(list) => match json {
            Json::Array(items) => Ok(Value::List(List::Json(items, Some(list)))),
            _ => fail("invalid data, expected an array for the provided schema with type=array"),
        },
        ShapeKind::String(format) => match json {
            Json::String(text) => string(text, *format),
            other => Err(Fault::new(format!("invalid data, expected string, got {}", type_name(other)))),
        },
        ShapeKind::Number => match json.as_f64() {
            Some(value) => Ok(Value::Double(value)),
            None => Err(Fault::new(format!("invalid data, expected float, got {}", type_name(json)))),
        },
        ShapeKind::Integer => match json.as_i64() {
            Some(value) => Ok(Value::Int(value)),
            None => Err(Fault::new(format!("invalid data, expected int, got {}", type_name(json)))),
        },
        ShapeKind::Boolean => match json {
            Json::Bool(value) => Ok(Value::Bool(*value)),
            other => Err(Fault::new(format!("invalid data, expected bool, got {}", type_name(other)))),
        },
        ShapeKind::Preserved => Ok(Value::Preserved(json)),
        ShapeKind::Other(ty) => Err(Fault::new(format!(
            "invalid type, expected object, array, number, integer, boolean or string, or no type with \
             x-kubernetes-int-or-string or x-kubernetes-preserve-unknown-fields is true, got {ty}"
        ))),
    }
}

fn string(text: &str, format: StringFormat) -> Evaluated<'_> {
    Ok(match format {
        StringFormat::None => Value::String(Text::Borrowed(text)),
        StringFormat::Duration => Value::Duration(
            crate::schema::parse_duration(text)
                .map_err(|error| Fault::new(format!("Invalid duration {text}: {error}")))?,
        ),
        StringFormat::Date => {
            let moment = crate::schema::parse_time(&format!("{text}T00:00:00Z"))
                .map_err(|error| Fault::new(format!("Invalid date formatted string {text}: {error}")))?;
            Value::Timestamp(Timestamp { seconds: moment.0, nanos: moment.1, offset: 0 })
        }
        StringFormat::DateTime => Value::Timestamp(
            Timestamp::parse(text)
                .map_err(|error| Fault::new(format!("Invalid date-time formatted string {text}: {error}")))?,
        ),
        StringFormat::Bytes => {
            let engines = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
            let bytes = engines.iter().find_map(|engine| engine.decode(text).ok());
            Value::Bytes(
                bytes.ok_or_else(|| Fault::new(format!("Invalid byte formatted string {text}")))?.into(),
            )
        }
    })
}

/// The value under a key. Keys of objects are escaped; a field that is null is as good as absent.
pub(super) fn find<'a>(
    map: &'a JsonMap<String, Json>,
    shape: &'a Shape,
    key: &str,
) -> Result<Option<Value<'a>>, Fault> {
    let child = match &shape.kind {
        ShapeKind::Object(fields) => {
            let Some(name) = escape::unescape(key) else { return Ok(None) };
            map.get(&name).filter(|json| !json.is_null()).zip(fields.get(&name))
        }
        ShapeKind::Map(value) => map.get(key).map(|json| (json, &**value)),
        _ => None,
    };
    child.map(|(json, shape)| shaped(json, shape)).transpose()
}

pub(super) fn keys<'a>(map: &'a JsonMap<String, Json>, shape: &'a Shape) -> Vec<Value<'a>> {
    match &shape.kind {
        ShapeKind::Object(fields) => map
            .keys()
            .filter(|key| fields.contains_key(*key))
            .map(|key| match escape::escape(key) {
                Some(escaped) if escaped != *key => Value::text(escaped),
                _ => Value::String(Text::Borrowed(key)),
            })
            .collect(),
        ShapeKind::Map(_) => map.keys().map(|key| Value::String(Text::Borrowed(key))).collect(),
        _ => Vec::new(),
    }
}

/// Whether two objects are equal in the fields nothing is known of.
pub(super) fn unknown_fields_equal(
    a: &JsonMap<String, Json>,
    b: &JsonMap<String, Json>,
    known: impl Fn(&str) -> bool,
) -> bool {
    a.iter()
        .filter(|(key, _)| !known(key))
        .all(|(key, value)| b.get(key).is_none_or(|other| crate::json::semantic_eq(Some(value), Some(other))))
}

/// What identifies an element of a list with keys.
pub(super) fn list_key(value: &Value<'_>, keys: &[String]) -> Option<Vec<String>> {
    let Value::Map(map) = value else { return None };
    keys.iter()
        .map(|key| {
            let key = escape::escape(key).unwrap_or_else(|| key.clone());
            let found = map.find(&Value::text(key)).ok()?;
            Some(found.map_or_else(|| "<nil>".to_owned(), |value| format!("{value:?}")))
        })
        .collect()
}

/// The elements of a set, comparable.
pub(super) fn set_of(list: &List<'_>) -> Result<BTreeSet<String>, Fault> {
    list.iter().map(|item| item.map(|item| format!("{item:?}"))).collect()
}

/// JSON of a value, as far as it has one.
///
/// # Errors
/// When it has none.
pub(crate) fn to_json(value: &Value<'_>) -> Result<Json, Fault> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Uint(value) => Json::from(*value),
        Value::Double(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
        Value::String(text) => Json::from(&**text),
        Value::Bytes(bytes) => Json::from(STANDARD.encode(bytes)),
        Value::Duration(_) | Value::Timestamp(_) => Json::from(value.to_string()),
        Value::Preserved(json) => (*json).clone(),
        Value::List(List::Json(items, _)) => Json::Array(items.to_vec()),
        Value::List(list) => Json::Array(list.iter().map(|item| to_json(&item?)).collect::<Result<_, _>>()?),
        Value::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
        Value::Map(Map::Values(entries)) => {
            let mut out = JsonMap::new();
            for (key, value) in entries.iter() {
                let Value::String(key) = key else {
                    return Err(Fault::new(format!("unsupported map key type: {}", key.type_of().name())));
                };
                out.insert(key.to_string(), to_json(value)?);
            }
            Json::Object(out)
        }
        Value::Object(object) => {
            let mut out = JsonMap::new();
            for (name, value) in &object.fields {
                let name = escape::unescape(name).unwrap_or_else(|| name.clone());
                out.insert(name, to_json(value)?);
            }
            Json::Object(out)
        }
        Value::Optional(Some(value)) => to_json(value)?,
        Value::Extension(extension) => Json::from(extension.to_string()),
        Value::Optional(None) | Value::Type(_) | Value::Fields(_) => {
            return Err(Fault::new(format!(
                "unsupported conversion of '{}' to JSON",
                value.type_of().name()
            )));
        }
    })
}

/// Whether an element of a list with this shape is identified by keys or by itself.
pub(super) fn is_keyed(shape: &ListShape) -> bool {
    !shape.keys.is_empty()
}
