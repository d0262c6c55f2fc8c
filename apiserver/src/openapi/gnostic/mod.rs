//! OpenAPI documents as protobuf messages, as the gnostic library has them (`openapiv2` and `openapiv3`). JSON is
//! turned into messages by tables that say which member stands under which tag.

mod v2;
mod v3;

use api::codec::protobuf::wire;
use api::codec::yaml;
use serde_json::{Map, Value};

pub use v2::{DEFINITIONS as V2_DEFINITIONS, DOCUMENT as V2, PATHS as V2_PATHS};
pub use v3::{
    DOCUMENT as V3, PATHS as V3_PATHS, SCHEMAS as V3_SCHEMAS, SECURITY_SCHEMES as V3_SECURITY_SCHEMES,
};

/// A message and the JSON object it is made from.
pub struct Message {
    /// Members with their tags, in the order of the tags.
    pub fields: &'static [(&'static str, u32, Shape)],
    /// Members of any name, each a message of a name (1) and a value (2) under a tag.
    pub named: Option<(u32, Shape)>,
    /// The tag of members whose names begin with `x-`.
    pub extensions: u32,
}

/// What a member is in protobuf.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Text.
    Text,
    /// A truth value.
    Flag,
    /// An integer.
    Integer,
    /// A floating-point number.
    Number,
    /// A list of texts.
    Texts,
    /// A message with the texts under tag 1: a `StringArray` or a `TypeItem`.
    TextList,
    /// Anything, as YAML.
    Any,
    /// A list of anything.
    Anys,
    /// A message.
    One(&'static Message),
    /// A list of messages.
    Many(&'static Message),
    /// A message that holds another one under tag 1.
    Wrapped(&'static Message),
    /// One of several, chosen by value; the tag stands in a message of its own.
    Either(Choose),
    /// A list of such.
    Eithers(Choose),
    /// A message that holds such a one under tag 1.
    WrappedEither(Choose),
}

/// Chooses the tag and the shape of a value; `None` leaves the message empty.
pub type Choose = fn(&Value) -> Option<(u32, Shape)>;

/// Writes the members of an object.
pub fn write(out: &mut Vec<u8>, message: &Message, object: &Map<String, Value>) {
    for (name, tag, shape) in message.fields {
        if let Some(value) = object.get(*name) {
            field(out, *tag, *shape, value, false);
        }
    }
    if let Some((tag, shape)) = message.named {
        let extension = |name: &str| message.extensions != 0 && name.starts_with("x-");
        for (name, value) in object.iter().filter(|(name, _)| !extension(name)) {
            named(out, tag, name, shape, value);
        }
    }
    if message.extensions != 0 {
        for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            named(out, message.extensions, name, Shape::Any, value);
        }
    }
}

/// Writes a name and a value as one message.
pub fn named(out: &mut Vec<u8>, tag: u32, name: &str, shape: Shape, value: &Value) {
    wire::nested(out, tag, |out| {
        wire::bytes(out, 1, name.as_bytes());
        field(out, 2, shape, value, false);
    });
}

/// Writes one field. What is empty is left out unless `always`.
fn field(out: &mut Vec<u8>, tag: u32, shape: Shape, value: &Value, always: bool) {
    let message = |out: &mut Vec<u8>, message: &Message, value: &Value| {
        if let Some(object) = value.as_object() {
            wire::nested(out, tag, |out| write(out, message, object));
        }
    };
    let either = |out: &mut Vec<u8>, choose: Choose, value: &Value| {
        wire::nested(out, tag, |out| chosen(out, choose, value));
    };
    let list = || value.as_array().into_iter().flatten();
    match shape {
        Shape::Text => match value.as_str() {
            Some(text) if always || !text.is_empty() => wire::bytes(out, tag, text.as_bytes()),
            _ => {}
        },
        Shape::Flag => match value.as_bool() {
            Some(flag) if always || flag => wire::number(out, tag, flag.into()),
            _ => {}
        },
        Shape::Integer => match value.as_i64() {
            Some(number) if always || number != 0 => wire::number(out, tag, number),
            _ => {}
        },
        Shape::Number => match value.as_f64() {
            Some(number) if always || number != 0.0 => double(out, tag, number),
            _ => {}
        },
        Shape::Texts => texts(out, tag, value),
        Shape::TextList => wire::nested(out, tag, |out| texts(out, 1, value)),
        Shape::Any => any(out, tag, value),
        Shape::Anys => list().for_each(|value| any(out, tag, value)),
        Shape::One(inner) => message(out, inner, value),
        Shape::Many(inner) => list().for_each(|value| message(out, inner, value)),
        Shape::Wrapped(inner) => wire::nested(out, tag, |out| field(out, 1, Shape::One(inner), value, false)),
        Shape::Either(choose) => either(out, choose, value),
        Shape::Eithers(choose) => list().for_each(|value| either(out, choose, value)),
        Shape::WrappedEither(choose) => {
            wire::nested(out, tag, |out| field(out, 1, Shape::Either(choose), value, false));
        }
    }
}

fn chosen(out: &mut Vec<u8>, choose: Choose, value: &Value) {
    if let Some((tag, shape)) = choose(value) {
        field(out, tag, shape, value, true);
    }
}

fn texts(out: &mut Vec<u8>, tag: u32, value: &Value) {
    let mut one = |value: &Value| {
        if let Some(text) = value.as_str() {
            wire::bytes(out, tag, text.as_bytes());
        }
    };
    match value {
        Value::Array(list) => list.iter().for_each(one),
        value => one(value),
    }
}

fn any(out: &mut Vec<u8>, tag: u32, value: &Value) {
    wire::nested(out, tag, |out| wire::bytes(out, 2, yaml::encode(value).as_bytes()));
}

fn double(out: &mut Vec<u8>, tag: u32, number: f64) {
    wire::tag(out, tag, 1);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Whether a value is a reference to another one.
fn is_reference(value: &Value) -> bool {
    value.get("$ref").is_some()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;

    /// The parts of gnostic's messages that the test reads back.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "2")]
        yaml: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct NamedAny {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        value: Option<Any>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct NamedSchema {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        value: Option<Schema>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Properties {
        #[prost(message, repeated, tag = "1")]
        list: Vec<NamedSchema>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct TypeItem {
        #[prost(string, repeated, tag = "1")]
        value: Vec<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Additional {
        #[prost(message, optional, tag = "1")]
        schema: Option<Schema>,
        #[prost(bool, optional, tag = "2")]
        boolean: Option<bool>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Schema {
        #[prost(string, tag = "1")]
        reference: String,
        #[prost(string, tag = "4")]
        description: String,
        #[prost(int64, tag = "12")]
        min_length: i64,
        #[prost(double, tag = "7")]
        maximum: f64,
        #[prost(string, repeated, tag = "19")]
        required: Vec<String>,
        #[prost(message, repeated, tag = "20")]
        enumeration: Vec<Any>,
        #[prost(message, optional, boxed, tag = "21")]
        additional: Option<Box<Additional>>,
        #[prost(message, optional, tag = "22")]
        kind: Option<TypeItem>,
        #[prost(message, optional, tag = "25")]
        properties: Option<Properties>,
        #[prost(message, repeated, tag = "31")]
        extensions: Vec<NamedAny>,
    }

    #[test]
    fn schemas_become_gnostics_messages() {
        let value = json!({
            "type": "object",
            "description": "A thing.",
            "required": ["a", "b"],
            "properties": {
                "a": {"$ref": "#/definitions/A"},
                "b": {"type": "object", "additionalProperties": {"type": "string", "minLength": 3}},
                "c": {"additionalProperties": false, "maximum": 1.5, "enum": ["x", 1]},
            },
            "x-kubernetes-group-version-kind": [{"group": "g", "kind": "K", "version": "v1"}],
        });
        let mut out = Vec::new();
        write(&mut out, &v2::SCHEMA, value.as_object().expect("an object"));
        let schema = Schema::decode(out.as_slice()).expect("a message");
        assert_eq!(schema.description, "A thing.");
        assert_eq!(schema.required, ["a", "b"]);
        assert_eq!(schema.kind.map(|kind| kind.value), Some(vec!["object".to_owned()]));
        let [extension] = schema.extensions.as_slice() else { panic!("one extension") };
        assert_eq!(extension.name, "x-kubernetes-group-version-kind");
        let text = extension.value.as_ref().map(|value| value.yaml.as_str());
        assert_eq!(text, Some("- group: g\n  kind: K\n  version: v1\n"));
        let properties = schema.properties.expect("properties").list;
        let by_name = |name: &str| {
            let found = properties.iter().find(|property| property.name == name).expect("a property");
            found.value.clone().expect("a schema")
        };
        assert_eq!(by_name("a").reference, "#/definitions/A");
        let inner = by_name("b").additional.and_then(|inner| inner.schema).expect("a schema");
        assert_eq!(inner.min_length, 3);
        let c = by_name("c");
        assert_eq!(c.additional.and_then(|inner| inner.boolean), Some(false));
        assert_eq!(c.maximum.to_bits(), 1.5_f64.to_bits());
        assert_eq!(c.enumeration.iter().map(|value| value.yaml.as_str()).collect::<Vec<_>>(), ["x\n", "1\n"]);
    }
}
