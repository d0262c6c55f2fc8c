//! Routes in the form of an edition of OpenAPI.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

use super::routes::{Content, Parameter, Place, Route, code_text};
use super::schema::{Definitions, Edition};

/// Renders paths; gathers the parameters that version 2 shares between them.
pub struct Paths<'d, 't> {
    edition: Edition,
    definitions: &'d mut Definitions<'t>,
    /// Shared parameters by name.
    pub shared: BTreeMap<String, Value>,
}

impl<'d, 't> Paths<'d, 't> {
    /// Paths that refer to `definitions`.
    pub fn new(edition: Edition, definitions: &'d mut Definitions<'t>) -> Self {
        Self { edition, definitions, shared: BTreeMap::new() }
    }

    /// All methods of one path. Parameters that all of them have stand once.
    pub fn item(&mut self, routes: &[Route]) -> Value {
        let key = |parameter: &Parameter| (parameter.name.clone(), parameter.place);
        let everywhere = |parameter: &Parameter| {
            routes.iter().all(|route| route.parameters.iter().any(|other| key(other) == key(parameter)))
        };
        let (common, _): (Vec<_>, Vec<_>) = routes
            .first()
            .map(|route| route.parameters.clone())
            .unwrap_or_default()
            .into_iter()
            .partition(everywhere);
        let mut item = Map::new();
        if !common.is_empty() {
            let common: Vec<Value> = common.iter().map(|parameter| self.parameter(parameter)).collect();
            item.insert("parameters".to_owned(), common.into());
        }
        for route in routes {
            let own: Vec<&Parameter> =
                route.parameters.iter().filter(|parameter| !everywhere(parameter)).collect();
            let operation = self.operation(route, &own);
            item.insert(route.method.to_owned(), operation);
        }
        item.into()
    }

    fn operation(&mut self, route: &Route, own: &[&Parameter]) -> Value {
        let mut value = json!({
            "description": route.text,
            "operationId": route.id,
            "tags": route.tags,
            "responses": self.responses(route),
        });
        let mut parameters: Vec<Value> = own.iter().map(|parameter| self.parameter(parameter)).collect();
        if let Some((name, required)) = &route.body {
            let mut schema = json!({"schema": self.definitions.refer(name)});
            if self.edition == Edition::V2 {
                // Parameters are sorted by name.
                let at =
                    own.iter().position(|parameter| parameter.name.as_str() > "body").unwrap_or(own.len());
                parameters.insert(at, self.body(name, *required, &schema["schema"]));
            } else {
                let content: Map<String, Value> =
                    route.consumes.iter().map(|media| ((*media).to_owned(), schema.clone())).collect();
                schema = json!({"content": content});
                if *required {
                    schema["required"] = true.into();
                }
                value["requestBody"] = schema;
            }
        }
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        if self.edition == Edition::V2 {
            value["schemes"] = json!(["https"]);
            value["produces"] = route.produces.clone().into();
            if !route.consumes.is_empty() {
                value["consumes"] = route.consumes.clone().into();
            }
        }
        if !route.action.is_empty() {
            value["x-kubernetes-action"] = route.action.into();
        }
        if let Some(kind) = &route.kind {
            value["x-kubernetes-group-version-kind"] =
                json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        }
        value
    }

    fn responses(&mut self, route: &Route) -> Value {
        let mut responses = Map::new();
        for (code, content) in &route.answers {
            let schema = match content {
                Content::Text => json!({"type": "string"}),
                Content::Named(name) => self.definitions.refer(name),
            };
            let mut response = json!({"description": code_text(*code)});
            if self.edition == Edition::V2 {
                response["schema"] = schema;
            } else {
                let content: Map<String, Value> = route
                    .produces
                    .iter()
                    .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                    .collect();
                response["content"] = content.into();
            }
            responses.insert(code.to_string(), response);
        }
        responses.insert("401".to_owned(), json!({"description": code_text(401)}));
        responses.into()
    }

    fn parameter(&mut self, parameter: &Parameter) -> Value {
        let place = match parameter.place {
            Place::Path => "path",
            Place::Query => "query",
        };
        if self.edition == Edition::V3 {
            let mut value = json!({
                "name": parameter.name,
                "in": place,
                "schema": {"type": parameter.kind, "uniqueItems": true},
            });
            add_text_and_required(&mut value, parameter);
            return value;
        }
        let mut value =
            json!({"uniqueItems": true, "type": parameter.kind, "name": parameter.name, "in": place});
        add_text_and_required(&mut value, parameter);
        // kubectl looks for these two in each operation; names differ from kind to kind.
        let alone = matches!(parameter.name.as_str(), "name" | "fieldValidation" | "dryRun");
        if alone { value } else { self.share(&parameter.name, value) }
    }

    fn body(&mut self, definition: &str, required: bool, schema: &Value) -> Value {
        let mut value = json!({"name": "body", "in": "body", "schema": schema});
        if required {
            value["required"] = true.into();
        }
        if definition.starts_with("io.k8s.apimachinery") { self.share("body", value) } else { value }
    }

    /// Puts a parameter among the shared ones; answers with a reference to it (upstream `deduplicateParameters`).
    fn share(&mut self, name: &str, value: Value) -> Value {
        let name = format!("{name}-{}", fingerprint(&in_struct_order(&value)));
        let reference = json!({"$ref": format!("#/parameters/{name}")});
        self.shared.insert(name, value);
        reference
    }
}

fn add_text_and_required(value: &mut Value, parameter: &Parameter) {
    if !parameter.text.is_empty() {
        value["description"] = parameter.text.as_str().into();
    }
    if parameter.place == Place::Path {
        value["required"] = true.into();
    }
}

/// A parameter as upstream's encoder writes it, which is what names of shared parameters are made from.
fn in_struct_order(value: &Value) -> String {
    let order = ["uniqueItems", "type", "description", "name", "in", "required", "schema"];
    let members: Vec<String> = order
        .into_iter()
        .filter_map(|key| value.get(key).map(|member| format!("\"{key}\":{member}")))
        .collect();
    let text = format!("{{{}}}", members.join(","));
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Eight letters of the FNV-1 hash.
fn fingerprint(text: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(byte);
    }
    URL_SAFE.encode(&hash.to_be_bytes()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_parameters_have_upstreams_names() {
        let body = |required: bool, kind: &str| {
            let mut value = json!({"name": "body", "in": "body",
                "schema": {"$ref": format!("#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")}});
            if required {
                value["required"] = true.into();
            }
            value
        };
        assert_eq!(fingerprint(&in_struct_order(&body(false, "DeleteOptions"))), "2Y1dVQaQ");
        assert_eq!(fingerprint(&in_struct_order(&body(true, "Patch"))), "78PwaGsr");
    }
}
