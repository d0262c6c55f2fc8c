//! Decoding against a schema, in one pass: types are checked, unknown and duplicate fields found and dropped,
//! and the value brought into the form that upstream's encoder would write.
//!
//! The same visitor reads JSON text and values already parsed (from YAML, or out of a patch). Errors are worded
//! as `sigs.k8s.io/json` words them; the first type error is kept while decoding goes on, as there.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::empties;
use super::scalar::{self, go_quote};
use super::unstructured::UnstructuredSeed;
use super::{Field, GoKind, Node, NodeRef, Raw, SchemaOr, TypeRef, WhenEmpty};
use crate::codec::verbatim::Verbatim;

/// No more strict errors than this are collected.
const MAX_STRICT_ERRORS: usize = 100;

/// A decoded value, and what a strict decoder would have refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The value, pruned and normalised.
    pub value: Value,
    /// Unknown and duplicate fields in the order of the document: `unknown field "spec.foo"`.
    pub strict_errors: Vec<String>,
    /// Texts of embedded objects that the value does not tell.
    pub verbatim: Vec<Verbatim>,
}

/// Why something could not be decoded, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is no JSON.
    #[error("{0}")]
    Syntax(String),
    /// The JSON does not fit the type.
    #[error("{0}")]
    Type(String),
}

/// The message of a strict decoder for these errors.
#[must_use]
pub fn strict_message(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

impl<'s> TypeRef<'s> {
    /// Decodes JSON text.
    ///
    /// # Errors
    /// When the text is not JSON or does not fit the type.
    pub fn decode_slice(self, json: &[u8]) -> Result<Decoded, DecodeError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let mut decoder = Decoder::default();
        let node = Node::Object { ty: self.id, atomic: None };
        let seed = NodeSeed { decoder: &mut decoder, node: NodeRef { schema: self.schema, node: &node } };
        let result = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        match result {
            Ok(value) => decoder.finish(value, self),
            Err(_) if decoder.fatal.is_some() => decoder.finish(None, self),
            Err(error) => match crate::codec::json::mend(json) {
                Some(mended) => self.decode_slice(&mended),
                None => Err(DecodeError::Syntax(crate::codec::json::syntax_error(json, &error))),
            },
        }
    }

    /// Decodes a value parsed before.
    ///
    /// # Errors
    /// When the value does not fit the type.
    pub fn decode_value(self, value: Value) -> Result<Decoded, DecodeError> {
        let mut decoder = Decoder::default();
        let node = Node::Object { ty: self.id, atomic: None };
        let seed = NodeSeed { decoder: &mut decoder, node: NodeRef { schema: self.schema, node: &node } };
        match seed.deserialize(value) {
            Ok(value) => decoder.finish(value, self),
            Err(_) if decoder.fatal.is_some() => decoder.finish(None, self),
            Err(error) => Err(DecodeError::Syntax(error.to_string())),
        }
    }

    /// The zero value of this type as the encoder writes it.
    #[must_use]
    pub fn zero(self) -> Map<String, Value> {
        let mut map = Map::new();
        fill_absent(&mut map, self);
        map
    }
}

/// A step on the way to the value that is being decoded.
enum Step<'s> {
    Field(&'s str),
    Index(usize),
    Key(String),
}

/// What is known so far while decoding.
#[derive(Default)]
pub(super) struct Decoder<'s> {
    steps: Vec<Step<'s>>,
    /// The innermost type being decoded; its name goes into errors.
    owner: Option<TypeRef<'s>>,
    strict_errors: Vec<String>,
    verbatim: Vec<Verbatim>,
    /// Above zero inside values that upstream decodes by a lenient decoder of their own.
    lenient: u32,
    /// The first type error; decoding goes on.
    error: Option<String>,
    /// An error that ended decoding.
    fatal: Option<String>,
}

impl<'s> Decoder<'s> {
    fn finish(self, value: Option<Value>, ty: TypeRef<'s>) -> Result<Decoded, DecodeError> {
        if let Some(message) = self.fatal.or(self.error) {
            return Err(DecodeError::Type(message));
        }
        let value = value.unwrap_or_else(|| Value::Object(ty.zero()));
        Ok(Decoded { value, strict_errors: self.strict_errors, verbatim: self.verbatim })
    }

    fn strict(&mut self, what: &str, field: &str) {
        if self.lenient > 0 || self.strict_errors.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let path = self.path(field);
        let message = format!("{what} field {}", go_quote(&path));
        if !self.strict_errors.contains(&message) {
            self.strict_errors.push(message);
        }
    }

    fn path(&self, field: &str) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Field(name) => push_name(&mut path, name),
                Step::Key(name) => push_name(&mut path, name),
            }
        }
        push_name(&mut path, field);
        path
    }

    /// Remembers that something of kind `what` stood where the Go type `wanted` should.
    fn mismatch(&mut self, what: &str, wanted: &str) {
        if self.error.is_none() {
            self.error = Some(self.mismatch_message(what, wanted));
        }
    }

    fn mismatch_message(&self, what: &str, wanted: &str) -> String {
        let fields: Vec<&str> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(*name),
                _ => None,
            })
            .collect();
        match self.owner {
            Some(owner) if !fields.is_empty() => format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {wanted}",
                owner.short_name(),
                fields.join(".")
            ),
            _ => format!("json: cannot unmarshal {what} into Go value of type {wanted}"),
        }
    }

    fn die<E: serde::de::Error>(&mut self, message: String) -> E {
        self.fatal.get_or_insert(message);
        E::custom("does not fit the type")
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// The Go type upstream has for a node, as its errors print it.
fn go_type(node: NodeRef<'_>) -> String {
    match node.node {
        Node::String | Node::Quantity | Node::Time | Node::MicroTime | Node::Duration => "string".to_owned(),
        Node::Int32 | Node::IntOrString => "int32".to_owned(),
        Node::Int64 => "int64".to_owned(),
        Node::Double => "float64".to_owned(),
        Node::Bool => "bool".to_owned(),
        Node::Bytes => "[]uint8".to_owned(),
        Node::Raw(_) | Node::SchemaOr { .. } => "interface {}".to_owned(),
        Node::Object { ty, .. } => go_type_name(node.schema.ty(*ty)),
        Node::List { item, .. } => format!("[]{}", go_type(node.schema.node(*item))),
        Node::Map { value, .. } => format!("map[string]{}", go_type(node.schema.node(*value))),
    }
}

fn go_type_name(ty: TypeRef<'_>) -> String {
    let mut parts = ty.name().rsplit('.');
    let name = parts.next().unwrap_or_default();
    format!("{}.{name}", parts.next().unwrap_or_default())
}

/// The zero value of a node, as the encoder writes it; `None` where that is `null`.
fn zero(node: NodeRef<'_>) -> Option<Value> {
    Some(match node.node {
        Node::String | Node::Bytes => Value::from(""),
        Node::Int32 | Node::Int64 | Node::Double | Node::IntOrString => Value::from(0),
        Node::Bool => Value::from(false),
        Node::Quantity => Value::from("0"),
        Node::Duration => Value::from("0s"),
        Node::Object { ty, .. } => Value::Object(node.schema.ty(*ty).zero()),
        Node::Time
        | Node::MicroTime
        | Node::Raw(_)
        | Node::SchemaOr { .. }
        | Node::List { .. }
        | Node::Map { .. } => {
            return None;
        }
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// What the encoder writes for a field that holds `value`; `None` when it leaves the field out.
pub(crate) fn settle(field: &Field, node: NodeRef<'_>, value: Option<Value>) -> Option<Value> {
    let value = value.filter(|value| !value.is_null());
    match field.go {
        GoKind::Pointer => match value {
            None if field.empty == WhenEmpty::Always || field.nullable => Some(Value::Null),
            value => value,
        },
        // An empty list that was given is one until it is stored.
        GoKind::Slice if field.empty == WhenEmpty::Always => {
            Some(value.filter(|value| *value != "").unwrap_or(Value::Null))
        }
        GoKind::Slice | GoKind::Map => match value.filter(|value| !is_empty(value)) {
            None if field.empty == WhenEmpty::Always => Some(Value::Null),
            value => value,
        },
        GoKind::Value => {
            let structural = !matches!(
                node.node,
                Node::String
                    | Node::Int32
                    | Node::Int64
                    | Node::Double
                    | Node::Bool
                    | Node::Bytes
                    | Node::Raw(Raw::Any)
            );
            match (value, field.empty) {
                (Some(value), WhenEmpty::Always) => Some(value),
                (Some(value), WhenEmpty::Omit) if structural => Some(value),
                (Some(value), _) => Some(value).filter(|value| !is_empty(value)),
                (None, WhenEmpty::Always) => Some(zero(node).unwrap_or(Value::Null)),
                (None, WhenEmpty::Omit) if structural => Some(zero(node).unwrap_or(Value::Null)),
                (None, _) => None,
            }
        }
    }
}

/// Adds what the encoder writes for fields that are not there.
pub(crate) fn fill_absent(map: &mut Map<String, Value>, ty: TypeRef<'_>) {
    for at in ty.def.present.iter() {
        let field = &ty.def.fields[usize::from(*at)];
        if !map.contains_key(field.name.as_ref())
            && let Some(value) = settle(field, ty.node(field), None)
        {
            map.insert(field.name.clone().into_owned(), value);
        }
    }
}

/// Decodes one value of the shape `node`; `None` is null, or something that did not fit.
struct NodeSeed<'a, 's> {
    decoder: &'a mut Decoder<'s>,
    node: NodeRef<'s>,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        match self.node.node {
            Node::Raw(Raw::Unstructured) => {
                let mut found = Vec::new();
                let value = UnstructuredSeed { path: &mut Vec::new(), duplicates: &mut found }
                    .deserialize(deserializer)?;
                for path in found {
                    self.decoder.strict("duplicate", &path);
                }
                Ok(Some(value).filter(|value| !value.is_null()))
            }
            Node::Raw(Raw::Extension) => {
                let text: Box<RawValue> = serde::Deserialize::deserialize(deserializer)?;
                let value: Value = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
                self.decoder.verbatim.extend(Verbatim::of(text.get(), &value));
                Ok(Some(value).filter(|value| !value.is_null()))
            }
            Node::Raw(_) => {
                let value: Value = serde::Deserialize::deserialize(deserializer)?;
                Ok(Some(value).filter(|value| !value.is_null()))
            }
            Node::SchemaOr { .. } => {
                self.decoder.lenient += 1;
                let decoder = &mut *self.decoder;
                let result = deserializer.deserialize_any(NodeSeed { decoder, node: self.node });
                self.decoder.lenient -= 1;
                result
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'s> NodeSeed<'_, 's> {
    fn mismatch(self, what: &str) -> Option<Value> {
        let wanted = go_type(self.node);
        self.decoder.mismatch(what, &wanted);
        None
    }

    /// Something other than an object, list or null stands where a special type reads its own text.
    fn scalar<E: serde::de::Error>(self, what: &str) -> Result<Option<Value>, E> {
        match self.node.node {
            // Their own unmarshallers fail, and that ends decoding.
            Node::Time | Node::MicroTime | Node::Duration | Node::IntOrString => {
                let message = self.decoder.mismatch_message(what, &go_type(self.node));
                Err(self.decoder.die(message))
            }
            Node::Quantity => {
                let message = scalar::canonical_quantity(what).err().unwrap_or_default();
                Err(self.decoder.die(message))
            }
            Node::SchemaOr { .. } => {
                let message = self.decoder.mismatch_message(what, "v1.JSONSchemaProps");
                Err(self.decoder.die(message))
            }
            _ => Ok(self.mismatch(what)),
        }
    }

    fn text<E: serde::de::Error>(self, text: &str) -> Result<Option<Value>, E> {
        let read = |result: Result<String, String>, decoder: &mut Decoder<'_>| match result {
            Ok(text) => Ok(Some(Value::String(text))),
            Err(message) => Err(decoder.die(message)),
        };
        match self.node.node {
            Node::Quantity => read(scalar::canonical_quantity(text), self.decoder),
            Node::Time => match scalar::parse_time(text) {
                Ok((scalar::ZERO_SECONDS, 0)) => Ok(None),
                Ok((seconds, _)) => Ok(Some(Value::String(scalar::format_time(seconds)))),
                Err(message) => Err(self.decoder.die(message)),
            },
            Node::MicroTime => match scalar::parse_micro_time(text) {
                Ok((scalar::ZERO_SECONDS, 0)) => Ok(None),
                Ok((seconds, nanos)) => Ok(Some(Value::String(scalar::format_micro_time(seconds, nanos)))),
                Err(message) => Err(self.decoder.die(message)),
            },
            Node::Duration => read(scalar::parse_duration(text).map(scalar::format_duration), self.decoder),
            Node::Bytes => match scalar::parse_base64(text) {
                Ok(_) if scalar::is_canonical_base64(text) => Ok(Some(Value::from(text))),
                Ok(bytes) => Ok(Some(Value::String(scalar::format_base64(&bytes)))),
                Err(message) => {
                    self.decoder.error.get_or_insert(message);
                    Ok(None)
                }
            },
            Node::IntOrString => Ok(Some(Value::from(text))),
            _ => self.scalar("string"),
        }
    }

    fn integer<E: serde::de::Error>(self, number: i128) -> Result<Option<Value>, E> {
        let wide = i64::try_from(number).ok();
        match (self.node.node, wide) {
            (Node::Int64, Some(number)) => Ok(Some(Value::from(number))),
            (Node::Int32 | Node::IntOrString, Some(number)) if i32::try_from(number).is_ok() => {
                Ok(Some(Value::from(number)))
            }
            (Node::Double, Some(number)) => Ok(Some(Value::from(number))),
            (Node::Quantity, _) => self.text(&number.to_string()),
            (Node::Int32 | Node::Int64 | Node::IntOrString, _) => self.scalar(&format!("number {number}")),
            _ => self.scalar("number"),
        }
    }

    fn schema_list<'de, A: SeqAccess<'de>>(
        self,
        flavour: SchemaOr,
        mut seq: A,
    ) -> Result<Option<Value>, A::Error> {
        let Node::SchemaOr { ty, .. } = self.node.node else { return Ok(None) };
        let of_type = Node::Object { ty: *ty, atomic: None };
        let node = if flavour == SchemaOr::StringArray { &Node::String } else { &of_type };
        let mut items = Vec::new();
        // The node lives here only, so the elements are decoded by a decoder of their own.
        let mut inner = Decoder { lenient: 1, owner: self.decoder.owner, ..Decoder::default() };
        let schema = self.node.schema;
        while let Some(item) =
            seq.next_element_seed(NodeSeed { decoder: &mut inner, node: NodeRef { schema, node } })?
        {
            items.push(item.unwrap_or(Value::Null));
        }
        if let Some(message) = inner.fatal.or(inner.error) {
            return Err(self.decoder.die(message));
        }
        Ok(Some(Value::Array(items)))
    }

    fn object<'de, A: MapAccess<'de>>(self, ty: TypeRef<'s>, mut map: A) -> Result<Option<Value>, A::Error> {
        let decoder = self.decoder;
        let outer = decoder.owner.replace(ty);
        let mut out = Map::new();
        let mut seen = Seen::default();
        while let Some(key) = map.next_key_seed(KeySeed(ty))? {
            let at = match key {
                Key::Field(at) => at,
                Key::Unknown(name) if ty.def.preserve_unknown => {
                    if out.contains_key(&name) {
                        decoder.strict("duplicate", &name);
                    }
                    let value: Value = map.next_value()?;
                    out.insert(name, value);
                    continue;
                }
                Key::Unknown(name) => {
                    decoder.strict("unknown", &name);
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let field = &ty.def.fields[at];
            let again = seen.insert(at);
            if again {
                decoder.strict("duplicate", &field.name);
            }
            let node = ty.node(field);
            decoder.steps.push(Step::Field(&field.name));
            let value = map.next_value_seed(NodeSeed { decoder: &mut *decoder, node })?;
            decoder.steps.pop();
            decoder.owner = Some(ty);
            let old = if again { out.remove(field.name.as_ref()) } else { None };
            let merged = merge(old, value, node);
            let kept = merged.as_ref().is_some_and(|value| empties::tells_apart(ty, field, value));
            if let Some(value) = if kept { merged } else { settle(field, node, merged) } {
                out.insert(field.name.clone().into_owned(), value);
            }
        }
        decoder.owner = outer;
        fill_absent(&mut out, ty);
        Ok(Some(Value::Object(out)))
    }
}

/// A field given twice is decoded over what the first gave: objects and maps are merged.
fn merge(old: Option<Value>, new: Option<Value>, node: NodeRef<'_>) -> Option<Value> {
    match (old, new, node.node) {
        (Some(Value::Object(mut old)), Some(Value::Object(new)), Node::Object { .. } | Node::Map { .. }) => {
            for (key, value) in new {
                let child = node.object().and_then(|ty| ty.child(&key)).or_else(|| node.value());
                let before = old.remove(&key);
                let merged = match child {
                    Some(child) => merge(before, Some(value), child),
                    None => Some(value),
                };
                old.extend(merged.map(|value| (key, value)));
            }
            Some(Value::Object(old))
        }
        (old, None, Node::Object { .. }) => old,
        (_, new, _) => new,
    }
}

/// Which fields of an object have been seen.
#[derive(Default)]
struct Seen {
    first: u128,
    rest: Vec<usize>,
}

impl Seen {
    /// Whether the field was there before.
    fn insert(&mut self, at: usize) -> bool {
        if let Some(bit) = u32::try_from(at).ok().and_then(|at| 1u128.checked_shl(at)) {
            let again = self.first & bit != 0;
            self.first |= bit;
            again
        } else {
            let again = self.rest.contains(&at);
            self.rest.push(at);
            again
        }
    }
}

/// A key of an object: an index into its fields, or a name that is none of them.
enum Key {
    Field(usize),
    Unknown(String),
}

struct KeySeed<'s>(TypeRef<'s>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Key, E> {
        Ok(self.0.position(name).map_or_else(|| Key::Unknown(name.to_owned()), Key::Field))
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_type(self.node))
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Option<Value>, E> {
        match self.node.node {
            Node::Bool | Node::SchemaOr { flavour: SchemaOr::Bool, .. } => Ok(Some(Value::Bool(value))),
            Node::Quantity => self.text(if value { "true" } else { "false" }),
            _ => self.scalar("bool"),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Option<Value>, E> {
        self.integer(i128::from(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Option<Value>, E> {
        self.integer(i128::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Option<Value>, E> {
        match self.node.node {
            Node::Double => Ok(Some(plain_number(value))),
            Node::Quantity => self.text(&Value::from(value).to_string()),
            Node::Int32 | Node::Int64 | Node::IntOrString => {
                self.scalar(&format!("number {}", Value::from(value)))
            }
            _ => self.scalar("number"),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Option<Value>, E> {
        match self.node.node {
            Node::String => Ok(Some(Value::from(value))),
            _ => self.text(value),
        }
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Option<Value>, E> {
        match self.node.node {
            Node::String | Node::IntOrString => Ok(Some(Value::String(value))),
            _ => self.text(&value),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Value>, A::Error> {
        let item = match self.node.node {
            Node::List { item, .. } => self.node.schema.node(*item),
            Node::SchemaOr { flavour: flavour @ (SchemaOr::Array | SchemaOr::StringArray), .. } => {
                return self.schema_list(*flavour, seq);
            }
            _ => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return self.scalar("array");
            }
        };
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(64));
        self.decoder.steps.push(Step::Index(0));
        while let Some(value) = seq.next_element_seed(NodeSeed { decoder: &mut *self.decoder, node: item })? {
            items.push(value.or_else(|| zero(item)).unwrap_or(Value::Null));
            if let Some(Step::Index(index)) = self.decoder.steps.last_mut() {
                *index = items.len();
            }
        }
        self.decoder.steps.pop();
        Ok(Some(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let value_node = match self.node.node {
            Node::Object { ty, .. } | Node::SchemaOr { ty, .. } => {
                let ty = self.node.schema.ty(*ty);
                return self.object(ty, map);
            }
            Node::Map { value, .. } => self.node.schema.node(*value),
            _ => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return self.scalar("object");
            }
        };
        let decoder = self.decoder;
        let named = matches!(value_node.node, Node::Object { .. } | Node::Map { .. } | Node::List { .. });
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if out.contains_key(&key) {
                decoder.strict("duplicate", &key);
            }
            if named {
                decoder.steps.push(Step::Key(key.clone()));
            }
            let value = map.next_value_seed(NodeSeed { decoder: &mut *decoder, node: value_node })?;
            if named {
                decoder.steps.pop();
            }
            out.insert(key, value.or_else(|| zero(value_node)).unwrap_or(Value::Null));
        }
        Ok(Some(Value::Object(out)))
    }
}

/// A number as Go prints a float64: without a fraction when it is whole.
pub(crate) fn plain_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { Value::from(value as i64) } else { Value::from(value) }
}
