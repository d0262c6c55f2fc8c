//! Values as text.

use std::fmt::{self, Write};

use super::{List, Map, Text, Value, format_double};

/// As Go prints the value with `%v`.
pub(super) fn display(value: &Value<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Null => f.write_str("null"),
        Value::Bool(value) => write!(f, "{value}"),
        Value::Int(value) => write!(f, "{value}"),
        Value::Uint(value) => write!(f, "{value}"),
        Value::Double(value) => f.write_str(&format_double(*value)),
        Value::String(text) => f.write_str(text),
        Value::Bytes(bytes) => {
            f.write_char('[')?;
            for (at, byte) in bytes.iter().enumerate() {
                write!(f, "{}{byte}", if at == 0 { "" } else { " " })?;
            }
            f.write_char(']')
        }
        Value::Duration(nanos) => f.write_str(&seconds(*nanos)),
        Value::Timestamp(moment) => f.write_str(&moment.format()),
        Value::List(list) => elements(list, f, display),
        Value::Map(map) => entries(map, f, display),
        Value::Type(ty) => f.write_str(ty.name()),
        Value::Optional(None) => f.write_str("optional.none()"),
        Value::Optional(Some(value)) => write!(f, "optional({value})"),
        Value::Object(object) => write!(f, "{}{{}}", object.type_name),
        Value::Extension(extension) => write!(f, "{extension}"),
        Value::Fields(type_name) => f.write_str(type_name),
        Value::Preserved(json) => write!(f, "{json}"),
    }
}

/// As an expression that denotes the value.
pub(super) fn debug(value: &Value<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Uint(value) => write!(f, "{value}u"),
        Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e21 => write!(f, "{value:.1}"),
        Value::String(Text::Borrowed(text)) => write!(f, "{text:?}"),
        Value::String(Text::Shared(text)) => write!(f, "{text:?}"),
        Value::Bytes(bytes) => {
            f.write_str("b\"")?;
            bytes.iter().try_for_each(|byte| write!(f, "\\{byte:03o}"))?;
            f.write_char('"')
        }
        Value::Duration(nanos) => write!(f, "duration(\"{}\")", seconds(*nanos)),
        Value::Timestamp(moment) => write!(f, "timestamp(\"{}\")", moment.format()),
        Value::List(list) => elements(list, f, debug),
        Value::Map(map) => entries(map, f, debug),
        Value::Optional(Some(value)) => write!(f, "optional.of({value:?})"),
        Value::Object(object) => {
            write!(f, "{}{{", object.type_name)?;
            for (at, (name, value)) in object.fields.iter().enumerate() {
                write!(f, "{}{name}: {value:?}", if at == 0 { "" } else { ", " })?;
            }
            f.write_char('}')
        }
        other => display(other, f),
    }
}

type Show = fn(&Value<'_>, &mut fmt::Formatter<'_>) -> fmt::Result;

fn elements(list: &List<'_>, f: &mut fmt::Formatter<'_>, show: Show) -> fmt::Result {
    f.write_char('[')?;
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        match item {
            Ok(item) => show(&item, f)?,
            Err(fault) => write!(f, "{fault}")?,
        }
    }
    f.write_char(']')
}

fn entries(map: &Map<'_>, f: &mut fmt::Formatter<'_>, show: Show) -> fmt::Result {
    f.write_char('{')?;
    for (at, key) in map.keys().iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        show(key, f)?;
        f.write_str(": ")?;
        if let Ok(Some(value)) = map.find(key) {
            show(&value, f)?;
        }
    }
    f.write_char('}')
}

/// A span of time in seconds: `1.5s`.
pub(super) fn seconds(nanos: i64) -> String {
    // As upstream: whole seconds and the rest are added up as floating-point numbers.
    let value = (nanos / 1_000_000_000) as f64 + (nanos % 1_000_000_000) as f64 / 1e9;
    format!("{value}s")
}
