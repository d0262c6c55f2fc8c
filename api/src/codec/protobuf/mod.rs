//! Protobuf straight between values and the wire, driven by the schema.
//!
//! A stored or sent object is four magic bytes and a `runtime.Unknown` that names its kind and holds the message.
//! Lists can be put together from messages made before, item by item.

use serde_json::{Map, Value};

use crate::names::{GroupVersion, GroupVersionKind};
use crate::schema::{self, TypeRef};

mod decode;
mod embedded;
mod encode;
pub mod wire;

#[cfg(test)]
mod tests;

pub use embedded::{restore, texts};
pub use wire::frame;

/// The first bytes of every protobuf body.
pub const PREFIX: [u8; 4] = *b"k8s\0";

/// Messages nested deeper than this are refused.
const MAX_DEPTH: usize = 64;

/// Why protobuf could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing there.
    #[error("empty data")]
    Empty,
    /// Something else than protobuf.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoPrefix,
    /// The message ends in the middle of a value.
    #[error("unexpected EOF")]
    Truncated,
    /// The message breaks the rules of the wire format.
    #[error("proto: {0}")]
    Malformed(&'static str),
    /// A field holds something that its type cannot take.
    #[error("proto: {field}: {why}")]
    Value {
        /// The field.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The kind is not known here.
    #[error("no kind \"{kind}\" is registered for version \"{version}\"")]
    UnknownKind {
        /// Kind.
        kind: String,
        /// `apiVersion`.
        version: String,
    },
}

/// The envelope of an object: what it is, and its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// `apiVersion`; may be empty.
    pub api_version: &'a str,
    /// Kind; may be empty.
    pub kind: &'a str,
    /// The message.
    pub raw: &'a [u8],
    /// How the message is compressed; empty for not at all.
    pub content_encoding: &'a str,
    /// What the message is written in; empty for protobuf.
    pub content_type: &'a str,
}

impl<'a> Unknown<'a> {
    /// Opens the envelope of a body.
    ///
    /// # Errors
    /// When the body is no protobuf envelope.
    pub fn open(body: &'a [u8]) -> Result<Self, Error> {
        if body.is_empty() {
            return Err(Error::Empty);
        }
        decode::open(body.strip_prefix(&PREFIX).ok_or(Error::NoPrefix)?)
    }

    /// Group, version and kind, as far as they are named.
    #[must_use]
    pub fn gvk(&self) -> Option<GroupVersionKind> {
        let version = GroupVersion::parse(self.api_version)?;
        (!self.kind.is_empty()).then(|| version.with_kind(self.kind.to_owned()))
    }
}

/// Decodes a body of a built-in kind; the value says its `apiVersion` and `kind`.
///
/// # Errors
/// When the body is malformed or its kind unknown.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    let unknown = Unknown::open(body)?;
    let ty = unknown.gvk().and_then(|gvk| schema::type_for(&gvk)).ok_or_else(|| Error::UnknownKind {
        kind: unknown.kind.to_owned(),
        version: unknown.api_version.to_owned(),
    })?;
    decode_as(&unknown, ty)
}

/// Decodes the message of an envelope as an object of type `ty`.
///
/// # Errors
/// When the message is malformed.
pub fn decode_as(unknown: &Unknown<'_>, ty: TypeRef<'_>) -> Result<Value, Error> {
    let mut map = decode_message(unknown.raw, ty)?;
    for (name, text) in [("apiVersion", unknown.api_version), ("kind", unknown.kind)] {
        if !text.is_empty() {
            map.insert(name.to_owned(), Value::from(text));
        }
    }
    Ok(Value::Object(map))
}

/// Decodes a bare message.
///
/// # Errors
/// When the message is malformed.
pub fn decode_message(message: &[u8], ty: TypeRef<'_>) -> Result<Map<String, Value>, Error> {
    decode::message(message, ty, MAX_DEPTH)
}

/// Encodes an object of type `ty` with its envelope, which names the kind that `value` says it is.
///
/// # Errors
/// When a field holds something that its type cannot take.
pub fn encode(value: &Value, ty: TypeRef<'_>) -> Result<Vec<u8>, Error> {
    let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    encode_as(value, ty, text("apiVersion"), text("kind"))
}

/// Encodes an object of type `ty` with an envelope that names `api_version` and `kind`.
///
/// # Errors
/// When a field holds something that its type cannot take.
pub fn encode_as(value: &Value, ty: TypeRef<'_>, api_version: &str, kind: &str) -> Result<Vec<u8>, Error> {
    let mut result = Ok(());
    let out = enveloped(api_version, kind, |out| result = encode_message(out, value, ty));
    result.map(|()| out)
}

/// A body with the message that `write` writes, in an envelope that names `api_version` and `kind`.
#[must_use]
pub fn enveloped(api_version: &str, kind: &str, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(&PREFIX);
    wire::nested(&mut out, 1, |out| type_meta(out, api_version, kind));
    wire::nested(&mut out, 2, write);
    // Content encoding and content type, both empty.
    out.extend_from_slice(&[0x1a, 0, 0x22, 0]);
    out
}

/// Appends the bare message of an object of type `ty`.
///
/// # Errors
/// When a field holds something that its type cannot take.
pub fn encode_message(out: &mut Vec<u8>, value: &Value, ty: TypeRef<'_>) -> Result<(), Error> {
    match value {
        Value::Object(map) => encode::message(out, map, ty),
        Value::Null => encode::message(out, &Map::new(), ty),
        _ => Err(Error::Value { field: ty.short_name().to_owned(), why: "not an object".to_owned() }),
    }
}

fn type_meta(out: &mut Vec<u8>, api_version: &str, kind: &str) {
    wire::bytes(out, 1, api_version.as_bytes());
    wire::bytes(out, 2, kind.as_bytes());
}

/// Puts a list together from the bare messages of its items, without touching them.
#[derive(Clone, Debug)]
pub struct ListWriter {
    /// What stands before the first item.
    pub head: Vec<u8>,
}

impl ListWriter {
    /// Begins a list whose items' messages have these lengths. After [`Self::head`], each item is written as
    /// [`Self::item_prefix`] and its message, and after the last comes [`Self::TAIL`].
    ///
    /// # Errors
    /// When `metadata` is not list metadata.
    pub fn new(
        api_version: &str,
        kind: &str,
        metadata: &Value,
        lengths: impl IntoIterator<Item = usize>,
    ) -> Result<Self, Error> {
        let list_meta =
            schema::type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta").ok_or(Error::Empty)?;
        let mut message = Vec::with_capacity(64);
        let mut result = Ok(());
        wire::nested(&mut message, 1, |out| result = encode_message(out, metadata, list_meta));
        result?;
        let items: usize =
            lengths.into_iter().map(|length| 1 + wire::varint_len(length as u64) + length).sum();
        let mut head = PREFIX.to_vec();
        wire::nested(&mut head, 1, |out| type_meta(out, api_version, kind));
        head.push(0x12);
        wire::varint(&mut head, (message.len() + items) as u64);
        head.extend_from_slice(&message);
        Ok(Self { head })
    }

    /// What stands before an item whose message has this length.
    #[must_use]
    pub fn item_prefix(length: usize) -> Vec<u8> {
        let mut out = vec![0x12];
        wire::varint(&mut out, length as u64);
        out
    }

    /// What stands after the last item.
    pub const TAIL: &'static [u8] = &[0x1a, 0, 0x22, 0];
}

/// A framed watch event. `object` is a body with envelope, as [`encode`] makes it.
#[must_use]
pub fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + kind.len() + 24);
    out.extend_from_slice(&[0; 4]);
    wire::bytes(&mut out, 1, kind.as_bytes());
    wire::nested(&mut out, 2, |out| wire::bytes(out, 1, object));
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Takes a watch event without its frame apart: its type, and the body of its object.
///
/// # Errors
/// When the event is malformed.
pub fn read_watch_event(event: &[u8]) -> Result<(&str, &[u8]), Error> {
    decode::watch_event(event)
}
