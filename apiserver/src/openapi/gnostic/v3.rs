//! Messages of version 3, as far as documents of the API use them.

use serde_json::Value;

use super::Shape::{
    self, Any, Anys, Either, Eithers, Flag, Integer, Number, One, Text, Texts, WrappedEither,
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
        ("openapi", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 4, One(&PATHS)),
        ("components", 5, One(&COMPONENTS)),
    ],
    9,
);

static INFO: Message = object(&[("title", 1, Text), ("description", 2, Text), ("version", 6, Text)], 7);
/// All paths.
pub static PATHS: Message = Message { fields: &[], named: Some((1, One(&PATH_ITEM))), extensions: 2 };
static COMPONENTS: Message =
    object(&[("schemas", 1, One(&SCHEMAS)), ("securitySchemes", 7, One(&SECURITY_SCHEMES))], 10);
/// All schemas.
pub static SCHEMAS: Message = map(1, Either(schema));
/// Ways to authenticate.
pub static SECURITY_SCHEMES: Message = map(1, Either(security_scheme));
static SECURITY_SCHEME: Message =
    object(&[("type", 1, Text), ("description", 2, Text), ("name", 3, Text), ("in", 4, Text)], 9);
static REFERENCE: Message = object(&[("$ref", 1, Text), ("summary", 2, Text), ("description", 3, Text)], 0);

static PATH_ITEM: Message = object(
    &[
        ("$ref", 1, Text),
        ("get", 4, One(&OPERATION)),
        ("put", 5, One(&OPERATION)),
        ("post", 6, One(&OPERATION)),
        ("delete", 7, One(&OPERATION)),
        ("options", 8, One(&OPERATION)),
        ("head", 9, One(&OPERATION)),
        ("patch", 10, One(&OPERATION)),
        ("parameters", 13, Eithers(parameter)),
    ],
    14,
);

static OPERATION: Message = object(
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("parameters", 6, Eithers(parameter)),
        ("requestBody", 7, Either(request_body)),
        ("responses", 8, One(&RESPONSES)),
        ("deprecated", 10, Flag),
    ],
    13,
);

static RESPONSES: Message = Message { fields: &[], named: Some((2, Either(response))), extensions: 3 };
static RESPONSE: Message = object(&[("description", 1, Text), ("content", 3, One(&MEDIA_TYPES))], 5);
static REQUEST_BODY: Message =
    object(&[("description", 1, Text), ("content", 2, One(&MEDIA_TYPES)), ("required", 3, Flag)], 4);
/// Media types may begin with anything, `x-` included.
static MEDIA_TYPES: Message = map(1, One(&MEDIA_TYPE));
static MEDIA_TYPE: Message = object(&[("schema", 1, Either(schema))], 5);
static PARAMETER: Message = object(
    &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Flag),
        ("schema", 10, Either(schema)),
    ],
    14,
);

static SCHEMA: Message = object(
    &[
        ("nullable", 1, Flag),
        ("externalDocs", 6, One(&EXTERNAL_DOCS)),
        ("example", 7, Any),
        ("title", 9, Text),
        ("multipleOf", 10, Number),
        ("maximum", 11, Number),
        ("exclusiveMaximum", 12, Flag),
        ("minimum", 13, Number),
        ("exclusiveMinimum", 14, Flag),
        ("maxLength", 15, Integer),
        ("minLength", 16, Integer),
        ("pattern", 17, Text),
        ("maxItems", 18, Integer),
        ("minItems", 19, Integer),
        ("uniqueItems", 20, Flag),
        ("maxProperties", 21, Integer),
        ("minProperties", 22, Integer),
        ("required", 23, Texts),
        ("enum", 24, Anys),
        ("type", 25, Text),
        ("allOf", 26, Eithers(schema)),
        ("oneOf", 27, Eithers(schema)),
        ("anyOf", 28, Eithers(schema)),
        ("not", 29, One(&SCHEMA)),
        ("items", 30, WrappedEither(schema)),
        ("properties", 31, One(&PROPERTIES)),
        ("additionalProperties", 32, Either(additional)),
        ("default", 33, Either(default)),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    36,
);
static PROPERTIES: Message = map(1, Either(schema));
static EXTERNAL_DOCS: Message = object(&[("description", 1, Text), ("url", 2, Text)], 3);

fn schema(value: &Value) -> Option<(u32, Shape)> {
    Some(if is_reference(value) { (2, One(&REFERENCE)) } else { (1, One(&SCHEMA)) })
}

fn additional(value: &Value) -> Option<(u32, Shape)> {
    Some(if value.is_boolean() { (2, Flag) } else { (1, Either(schema)) })
}

/// Only scalars can be defaults here.
fn default(value: &Value) -> Option<(u32, Shape)> {
    match value {
        Value::Number(_) => Some((1, Number)),
        Value::Bool(_) => Some((2, Flag)),
        Value::String(_) => Some((3, Text)),
        _ => None,
    }
}

fn parameter(value: &Value) -> Option<(u32, Shape)> {
    Some(if is_reference(value) { (2, One(&REFERENCE)) } else { (1, One(&PARAMETER)) })
}

fn request_body(value: &Value) -> Option<(u32, Shape)> {
    Some(if is_reference(value) { (2, One(&REFERENCE)) } else { (1, One(&REQUEST_BODY)) })
}

fn response(value: &Value) -> Option<(u32, Shape)> {
    Some(if is_reference(value) { (2, One(&REFERENCE)) } else { (1, One(&RESPONSE)) })
}

fn security_scheme(value: &Value) -> Option<(u32, Shape)> {
    Some(if is_reference(value) { (2, One(&REFERENCE)) } else { (1, One(&SECURITY_SCHEME)) })
}
