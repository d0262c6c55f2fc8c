//! Whole documents, written part by part: paths and definitions are rendered one at a time, so that only bytes add up.

use std::collections::BTreeMap;

use api::codec::protobuf::wire;
use serde_json::{Value, json};

use super::foreign::Foreign;
use super::gnostic::{self, Shape};
use super::render::Paths;
use super::routes::{Route, by_path};
use super::schema::{Definitions, Edition};

/// A document in both encodings.
#[derive(Debug, Default)]
pub struct Output {
    /// JSON.
    pub json: Vec<u8>,
    /// Protobuf; empty if it was not asked for.
    pub protobuf: Vec<u8>,
}

/// What stands at the head of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Title.
    pub title: &'static str,
    /// Version of the API.
    pub version: String,
    /// Whether it says how clients authenticate.
    pub secured: bool,
}

/// Writes a document of `routes`, of `given` definitions and of those that both refer to.
#[must_use]
pub fn write(
    edition: Edition,
    head: &Head,
    routes: Vec<Route>,
    mut definitions: Definitions<'_>,
    given: BTreeMap<String, Value>,
    foreign: Vec<Foreign>,
    with_protobuf: bool,
) -> Output {
    let mut writer = Writer::new(edition, with_protobuf);
    let mut paths = Paths::new(edition, &mut definitions);
    let mut part = Part::new(edition, PartKind::Paths, with_protobuf);
    for (path, routes) in by_path(routes) {
        part.add(&path, &paths.item(&routes));
    }
    let shared = std::mem::take(&mut paths.shared);
    let mut paths = part;
    let mut part = Part::new(edition, PartKind::Definitions, with_protobuf);
    let mut own = BTreeMap::new();
    definitions.finish(given, &mut |name, value| {
        part.add(name, value);
        if !foreign.is_empty() {
            own.insert(name.to_owned(), value.clone());
        }
    });
    for foreign in foreign {
        let foreign = foreign.beside(&own);
        foreign.paths.iter().for_each(|(path, item)| paths.add(path, item));
        for (name, definition) in foreign.definitions {
            part.add(&name, &definition);
            own.insert(name, definition);
        }
    }
    match edition {
        Edition::V2 => writer.version_2(head, &paths, &part, &shared),
        Edition::V3 => writer.version_3(head, &paths, &part),
    }
    writer.output
}

fn security_scheme() -> Value {
    json!({
        "description": "Bearer Token authentication",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    })
}

#[derive(Clone, Copy)]
enum PartKind {
    Paths,
    Definitions,
}

/// A member of the document that is a map, on its way.
struct Part {
    json: Vec<u8>,
    protobuf: Option<(Vec<u8>, u32, Shape)>,
}

impl Part {
    fn new(edition: Edition, kind: PartKind, with_protobuf: bool) -> Self {
        let message = match (edition, kind) {
            (Edition::V2, PartKind::Paths) => &gnostic::V2_PATHS,
            (Edition::V2, PartKind::Definitions) => &gnostic::V2_DEFINITIONS,
            (Edition::V3, PartKind::Paths) => &gnostic::V3_PATHS,
            (Edition::V3, PartKind::Definitions) => &gnostic::V3_SCHEMAS,
        };
        let named = message.named.filter(|_| with_protobuf);
        Self { json: b"{".to_vec(), protobuf: named.map(|(tag, shape)| (Vec::new(), tag, shape)) }
    }

    fn add(&mut self, name: &str, value: &Value) {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
        write_json(&mut self.json, &name.into());
        self.json.push(b':');
        write_json(&mut self.json, value);
        if let Some((out, tag, shape)) = &mut self.protobuf {
            gnostic::named(out, *tag, name, *shape, value);
        }
    }
}

fn write_json(out: &mut Vec<u8>, value: &Value) {
    api::codec::json::write(out, value);
}

struct Writer {
    edition: Edition,
    with_protobuf: bool,
    output: Output,
}

impl Writer {
    fn new(edition: Edition, with_protobuf: bool) -> Self {
        Self { edition, with_protobuf, output: Output { json: b"{".to_vec(), protobuf: Vec::new() } }
    }

    /// Adds a small member.
    fn member(&mut self, name: &str, value: &Value) {
        self.key(name);
        write_json(&mut self.output.json, value);
        if self.with_protobuf {
            let message = match self.edition {
                Edition::V2 => &gnostic::V2,
                Edition::V3 => &gnostic::V3,
            };
            let alone = [(name.to_owned(), value.clone())].into_iter().collect();
            gnostic::write(&mut self.output.protobuf, message, &alone);
        }
    }

    fn key(&mut self, name: &str) {
        let json = &mut self.output.json;
        if json.last() != Some(&b'{') {
            json.push(b',');
        }
        write_json(json, &name.into());
        json.push(b':');
    }

    fn part(&mut self, name: &str, part: &Part) {
        self.key(name);
        self.output.json.extend_from_slice(&part.json);
        self.output.json.push(b'}');
    }

    fn message(&mut self, tag: u32, part: &Part) {
        if let Some((bytes, ..)) = &part.protobuf {
            wire::bytes(&mut self.output.protobuf, tag, bytes);
        }
    }

    fn version_2(&mut self, head: &Head, paths: &Part, definitions: &Part, shared: &BTreeMap<String, Value>) {
        self.member("swagger", &"2.0".into());
        self.member("info", &json!({"title": head.title, "version": head.version}));
        self.part("paths", paths);
        self.message(8, paths);
        self.part("definitions", definitions);
        self.message(9, definitions);
        let shared: serde_json::Map<String, Value> =
            shared.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        self.member("parameters", &shared.into());
        if head.secured {
            self.member("securityDefinitions", &json!({"BearerToken": security_scheme()}));
            self.member("security", &json!([{"BearerToken": []}]));
        }
        self.output.json.push(b'}');
    }

    fn version_3(&mut self, head: &Head, paths: &Part, schemas: &Part) {
        self.member("openapi", &"3.0.0".into());
        self.member("info", &json!({"title": head.title, "version": head.version}));
        self.part("paths", paths);
        self.message(4, paths);
        self.components(head, schemas);
        self.output.json.push(b'}');
    }

    fn components(&mut self, head: &Head, schemas: &Part) {
        self.key("components");
        self.output.json.push(b'{');
        let mut message = Vec::new();
        if schemas.json.len() > 1 {
            self.part("schemas", schemas);
            if let Some((bytes, ..)) = &schemas.protobuf {
                wire::bytes(&mut message, 1, bytes);
            }
        }
        if head.secured {
            let schemes = json!({"BearerToken": security_scheme()});
            self.key("securitySchemes");
            write_json(&mut self.output.json, &schemes);
            if let (true, Value::Object(schemes)) = (self.with_protobuf, &schemes) {
                wire::nested(&mut message, 7, |out| {
                    gnostic::write(out, &gnostic::V3_SECURITY_SCHEMES, schemes)
                });
            }
        }
        self.output.json.push(b'}');
        if self.with_protobuf {
            wire::bytes(&mut self.output.protobuf, 5, &message);
        }
    }
}
