//! Messages of version 2, as far as documents of the API use them.

use serde_json::Value;

use super::Shape::{
    self, Any, Anys, Either, Eithers, Flag, Integer, Many, Number, One, Text, TextList, Texts, Wrapped,
};
use super::{Message, is_reference};

const fn object(fields: &'static [(&'static str, u32, Shape)], extensions: u32) -> Message {
    Message { fields, named: None, extensions }
}

const fn map(tag: u32, shape: Shape) -> Message {
    Message { fields: &[], named: Some((tag, shape)), extensions: 0 }
}

/// A whole document.
pub static DOCUMENT: Message = object(
    &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 8, One(&PATHS)),
        ("definitions", 9, One(&DEFINITIONS)),
        ("parameters", 10, One(&PARAMETERS)),
        ("security", 12, Many(&REQUIREMENT)),
        ("securityDefinitions", 13, One(&SECURITY_DEFINITIONS)),
    ],
    16,
);

static INFO: Message = object(&[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], 7);
/// All paths.
pub static PATHS: Message = Message { fields: &[], named: Some((2, One(&PATH_ITEM))), extensions: 1 };
/// All definitions.
pub static DEFINITIONS: Message = map(1, One(&SCHEMA));
static PARAMETERS: Message = map(1, Either(parameter));
static REQUIREMENT: Message = map(1, TextList);
static SECURITY_DEFINITIONS: Message = map(1, Either(security));
static API_KEY: Message =
    object(&[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)], 5);

static PATH_ITEM: Message = object(
    &[
        ("$ref", 1, Text),
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Eithers(parameter_or_reference)),
    ],
    10,
);

static OPERATION: Message = object(
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Eithers(parameter_or_reference)),
        ("responses", 9, One(&RESPONSES)),
        ("schemes", 10, Texts),
        ("deprecated", 11, Flag),
    ],
    13,
);

static RESPONSES: Message = Message { fields: &[], named: Some((1, Either(response))), extensions: 2 };
static RESPONSE: Message = object(&[("description", 1, Text), ("schema", 2, Wrapped(&SCHEMA))], 5);
static REFERENCE: Message = object(&[("$ref", 1, Text), ("description", 2, Text)], 0);
static BODY: Message = object(
    &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Flag),
        ("schema", 5, One(&SCHEMA)),
    ],
    6,
);
static QUERY: Message = object(
    &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("allowEmptyValue", 5, Flag),
        ("type", 6, Text),
        ("format", 7, Text),
        ("uniqueItems", 20, Flag),
    ],
    23,
);
static PATH: Message = object(
    &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("uniqueItems", 19, Flag),
    ],
    22,
);

/// A schema.
pub static SCHEMA: Message = object(
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Integer),
        ("minLength", 12, Integer),
        ("pattern", 13, Text),
        ("maxItems", 14, Integer),
        ("minItems", 15, Integer),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Integer),
        ("minProperties", 18, Integer),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Either(additional)),
        ("type", 22, TextList),
        ("items", 23, Wrapped(&SCHEMA)),
        ("allOf", 24, Many(&SCHEMA)),
        ("properties", 25, One(&PROPERTIES)),
        ("externalDocs", 29, One(&EXTERNAL_DOCS)),
        ("example", 30, Any),
    ],
    31,
);
static PROPERTIES: Message = Message { fields: &[], named: Some((1, One(&SCHEMA))), extensions: 0 };
static EXTERNAL_DOCS: Message = object(&[("description", 1, Text), ("url", 2, Text)], 3);

fn additional(value: &Value) -> Option<(u32, Shape)> {
    Some(if value.is_boolean() { (2, Flag) } else { (1, One(&SCHEMA)) })
}

fn response(value: &Value) -> Option<(u32, Shape)> {
    Some(if is_reference(value) { (2, One(&REFERENCE)) } else { (1, One(&RESPONSE)) })
}

fn parameter_or_reference(value: &Value) -> Option<(u32, Shape)> {
    Some(if is_reference(value) { (2, One(&REFERENCE)) } else { (1, Either(parameter)) })
}

fn parameter(value: &Value) -> Option<(u32, Shape)> {
    Some(if value["in"] == "body" { (1, One(&BODY)) } else { (2, Either(plain_parameter)) })
}

fn plain_parameter(value: &Value) -> Option<(u32, Shape)> {
    match value["in"].as_str()? {
        "query" => Some((3, One(&QUERY))),
        "path" => Some((4, One(&PATH))),
        _ => None,
    }
}

fn security(value: &Value) -> Option<(u32, Shape)> {
    (value["type"] == "apiKey").then_some((2, One(&API_KEY)))
}
