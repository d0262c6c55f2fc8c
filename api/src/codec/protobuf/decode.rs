//! Messages to values, in the form that upstream's JSON encoder would write.

use serde_json::{Map, Value};

use super::wire::{Data, Reader};
use super::{Error, Unknown};
use crate::schema::{Node, NodeRef, Raw, SchemaOr, TypeRef, WireTo, fill_absent, scalar, settle};

pub(super) fn open(message: &[u8]) -> Result<Unknown<'_>, Error> {
    let mut unknown = Unknown::default();
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        match tag {
            1 => {
                let mut type_meta = Reader::new(data.bytes()?);
                while let Some((tag, data)) = type_meta.next()? {
                    match tag {
                        1 => unknown.api_version = data.text()?,
                        2 => unknown.kind = data.text()?,
                        _ => {}
                    }
                }
            }
            2 => unknown.raw = data.bytes()?,
            3 => unknown.content_encoding = data.text()?,
            4 => unknown.content_type = data.text()?,
            _ => {}
        }
    }
    Ok(unknown)
}

pub(super) fn watch_event(message: &[u8]) -> Result<(&str, &[u8]), Error> {
    let (mut kind, mut object) = ("", &[][..]);
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        match tag {
            1 => kind = data.text()?,
            2 => object = first_bytes(data.bytes()?)?,
            _ => {}
        }
    }
    Ok((kind, object))
}

/// Field 1 of a message that holds nothing else.
fn first_bytes(message: &[u8]) -> Result<&[u8], Error> {
    let mut found = &[][..];
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        if tag == 1 {
            found = data.bytes()?;
        }
    }
    Ok(found)
}

pub(super) fn message(message: &[u8], ty: TypeRef<'_>, depth: usize) -> Result<Map<String, Value>, Error> {
    let depth = depth.checked_sub(1).ok_or(Error::Malformed("nested too deeply"))?;
    let mut slots: Vec<Option<Value>> = vec![None; ty.fields().len()];
    let mut out = Map::new();
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        let Ok(at) = ty.wire().binary_search_by_key(&tag, |entry| entry.tag) else { continue };
        match ty.wire()[at].to {
            WireTo::Inline(inner) => {
                out.extend(self::message(data.bytes()?, ty.schema().ty(inner), depth)?);
            }
            WireTo::Field(at) => {
                let field = &ty.fields()[usize::from(at)];
                value(&mut slots[usize::from(at)], data, ty.node(field), depth).map_err(
                    |error| match error {
                        Error::Value { field: inner, why } => {
                            let inner = if inner.is_empty() { inner } else { format!(".{inner}") };
                            Error::Value { field: format!("{}{inner}", field.name), why }
                        }
                        error => error,
                    },
                )?;
            }
        }
    }
    for (field, slot) in ty.fields().iter().zip(slots) {
        if let Some(value) = slot
            && let Some(value) = settle(field, ty.node(field), Some(value))
        {
            out.insert(field.name.clone().into_owned(), value);
        }
    }
    fill_absent(&mut out, ty);
    Ok(out)
}

fn invalid(why: String) -> Error {
    Error::Value { field: String::new(), why }
}

fn string(data: Data<'_>) -> Result<Value, Error> {
    Ok(Value::String(String::from_utf8_lossy(data.bytes()?).into_owned()))
}

/// Reads one occurrence of a field into `slot`: lists and maps grow, everything else is replaced.
fn value(slot: &mut Option<Value>, data: Data<'_>, node: NodeRef<'_>, depth: usize) -> Result<(), Error> {
    let read = match node.node() {
        Node::String => string(data)?,
        Node::Int32 => Value::from(data.number()? as i32),
        Node::Int64 => Value::from(data.number()? as i64),
        Node::Bool => Value::from(data.number()? != 0),
        Node::Double => match data {
            Data::Fixed64(bits) => crate::schema::plain_number(f64::from_bits(bits)),
            _ => return Err(Error::Malformed("wrong wireType")),
        },
        Node::Bytes => Value::String(scalar::format_base64(data.bytes()?)),
        Node::Quantity => {
            let text = std::str::from_utf8(first_bytes(data.bytes()?)?)
                .map_err(|_| Error::Malformed("invalid UTF-8"))?;
            let text = if text.is_empty() { "0" } else { text };
            Value::String(scalar::canonical_quantity(text).map_err(invalid)?)
        }
        Node::Time | Node::MicroTime => match timestamp(data.bytes()?)? {
            None => Value::Null,
            Some((seconds, nanos)) if *node.node() == Node::MicroTime => {
                Value::String(scalar::format_micro_time(seconds, nanos))
            }
            Some((seconds, _)) => Value::String(scalar::format_time(seconds)),
        },
        Node::Duration => {
            let mut nanos = 0;
            let mut reader = Reader::new(data.bytes()?);
            while let Some((tag, data)) = reader.next()? {
                if tag == 1 {
                    nanos = data.number()? as i64;
                }
            }
            Value::String(scalar::format_duration(nanos))
        }
        Node::IntOrString => int_or_string(data.bytes()?)?,
        Node::Raw(Raw::Any | Raw::Unstructured) => return Ok(()),
        Node::Raw(_) => match first_bytes(data.bytes()?)? {
            [] => Value::Null,
            json => serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?,
        },
        Node::SchemaOr { flavour, ty } => schema_or(data.bytes()?, *flavour, node.schema().ty(*ty), depth)?,
        Node::Object { ty, .. } => Value::Object(message(data.bytes()?, node.schema().ty(*ty), depth)?),
        Node::List { item, wrapped, .. } => {
            let item = node.schema().node(*item);
            let Value::Array(items) = slot.get_or_insert_with(|| Value::Array(Vec::new())) else {
                return Ok(());
            };
            if !wrapped {
                return element(items, data, item, depth);
            }
            let mut reader = Reader::new(data.bytes()?);
            while let Some((tag, data)) = reader.next()? {
                if tag == 1 {
                    element(items, data, item, depth)?;
                }
            }
            return Ok(());
        }
        Node::Map { value: shape, .. } => {
            let (key, value) = entry(data.bytes()?, node.schema().node(*shape), depth)?;
            let Value::Object(map) = slot.get_or_insert_with(|| Value::Object(Map::new())) else {
                return Ok(());
            };
            map.insert(key, value);
            return Ok(());
        }
    };
    *slot = Some(read);
    Ok(())
}

/// Reads one element of a list, or, of numbers, several packed together.
fn element(items: &mut Vec<Value>, data: Data<'_>, item: NodeRef<'_>, depth: usize) -> Result<(), Error> {
    let numeric = matches!(item.node(), Node::Int32 | Node::Int64 | Node::Bool);
    if let (true, Data::Bytes(packed)) = (numeric, data) {
        let mut reader = Reader::new(packed);
        while !reader.is_empty() {
            element(items, Data::Varint(reader.varint()?), item, depth)?;
        }
        return Ok(());
    }
    let mut slot = None;
    value(&mut slot, data, item, depth)?;
    items.push(slot.unwrap_or(Value::Null));
    Ok(())
}

fn entry(message: &[u8], shape: NodeRef<'_>, depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut slot) = (String::new(), None);
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        match tag {
            1 => key = String::from_utf8_lossy(data.bytes()?).into_owned(),
            2 => value(&mut slot, data, shape, depth)?,
            _ => {}
        }
    }
    if slot.is_none() {
        // A value that is not there is the zero value.
        slot = match shape.node() {
            Node::Object { ty, .. } => Some(Value::Object(shape.schema().ty(*ty).zero())),
            Node::Quantity => Some(Value::from("0")),
            Node::Int32 | Node::Int64 => Some(Value::from(0)),
            Node::Bool => Some(Value::from(false)),
            Node::String | Node::Bytes => Some(Value::from("")),
            _ => None,
        };
    }
    Ok((key, slot.unwrap_or(Value::Null)))
}

fn timestamp(message: &[u8]) -> Result<Option<(i64, u32)>, Error> {
    if message.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        match tag {
            1 => seconds = data.number()? as i64,
            2 => nanos = data.number()? as u32,
            _ => {}
        }
    }
    Ok((seconds != scalar::ZERO_SECONDS).then_some((seconds, nanos.min(999_999_999))))
}

fn int_or_string(message: &[u8]) -> Result<Value, Error> {
    let (mut kind, mut number, mut name) = (0, 0, Value::from(""));
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        match tag {
            1 => kind = data.number()?,
            2 => number = data.number()? as i32,
            3 => name = string(data)?,
            _ => {}
        }
    }
    Ok(if kind == 1 { name } else { Value::from(number) })
}

fn schema_or(message: &[u8], flavour: SchemaOr, ty: TypeRef<'_>, depth: usize) -> Result<Value, Error> {
    let mut schema = None;
    let mut items = Vec::new();
    let mut allows = false;
    let mut reader = Reader::new(message);
    while let Some((tag, data)) = reader.next()? {
        match (flavour, tag) {
            (SchemaOr::Bool, 1) => allows = data.number()? != 0,
            (SchemaOr::Bool, 2) | (_, 1) => {
                schema = Some(Value::Object(self::message(data.bytes()?, ty, depth)?))
            }
            (SchemaOr::Array, 2) => items.push(Value::Object(self::message(data.bytes()?, ty, depth)?)),
            (SchemaOr::StringArray, 2) => items.push(string(data)?),
            _ => {}
        }
    }
    Ok(match (flavour, schema) {
        (SchemaOr::Bool, None) => Value::from(allows),
        (_, Some(schema)) if items.is_empty() => schema,
        _ => Value::Array(items),
    })
}
