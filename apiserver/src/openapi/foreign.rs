//! What other servers say of their APIs in version 2, made part of this server's document (upstream
//! `kube-openapi/pkg/aggregator`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";

/// Paths of another server, and the definitions that they refer to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreign {
    /// Path items by path.
    pub paths: BTreeMap<String, Value>,
    /// Definitions by name.
    pub definitions: BTreeMap<String, Value>,
}

impl Foreign {
    /// What a document says of the paths below `prefix`.
    #[must_use]
    pub fn of(document: Value, prefix: &str) -> Self {
        let Value::Object(mut document) = document else { return Self::default() };
        let mut member = |name: &str| match document.remove(name) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let (paths, parameters, mut known) = (member("paths"), member("parameters"), member("definitions"));
        let below = |path: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut paths: BTreeMap<String, Value> = paths.into_iter().filter(|(path, _)| below(path)).collect();
        let mut wanted = BTreeSet::new();
        for item in paths.values_mut() {
            // Shared parameters are written out: they have no names here.
            references(item, &mut |node| {
                let name = node["$ref"].as_str().and_then(|to| to.strip_prefix(PARAMETERS));
                if let Some(parameter) = name.and_then(|name| parameters.get(name)) {
                    *node = parameter.clone();
                }
            });
            references(item, &mut |node| wanted.extend(refers_to(node)));
        }
        let mut definitions = BTreeMap::new();
        while let Some(name) = wanted.pop_first() {
            let Some(mut definition) = known.remove(&name) else { continue };
            references(&mut definition, &mut |node| wanted.extend(refers_to(node)));
            definitions.insert(name, definition);
        }
        Self { paths, definitions }
    }

    /// The same beside `own` definitions: those that are the same are left out, others of the same name are renamed.
    #[must_use]
    pub fn beside(mut self, own: &BTreeMap<String, Value>) -> Self {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for (name, definition) in &self.definitions {
            match own.get(name) {
                Some(known) if known == definition => {}
                Some(_) => {
                    let free = |number: &u32| {
                        let name = format!("{name}_v{number}");
                        !own.contains_key(&name) && !self.definitions.contains_key(&name)
                    };
                    let number = (2..).find(free).unwrap_or(2);
                    names.insert(name.clone(), format!("{name}_v{number}"));
                }
                None => {}
            }
        }
        self.definitions.retain(|name, _| !own.contains_key(name) || names.contains_key(name));
        let mut rename = |node: &mut Value| {
            if let Some(new) = refers_to(node).and_then(|name| names.get(&name)) {
                node["$ref"] = format!("{DEFINITIONS}{new}").into();
            }
        };
        self.paths.values_mut().for_each(|item| references(item, &mut rename));
        self.definitions.values_mut().for_each(|definition| references(definition, &mut rename));
        let renamed = |(name, definition)| (names.get(&name).cloned().unwrap_or(name), definition);
        self.definitions = std::mem::take(&mut self.definitions).into_iter().map(renamed).collect();
        self
    }
}

fn refers_to(node: &Value) -> Option<String> {
    node["$ref"].as_str()?.strip_prefix(DEFINITIONS).map(str::to_owned)
}

/// Calls `visit` for every object that is a reference.
fn references(value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Object(map) => {
            let is_reference = map.get("$ref").is_some_and(Value::is_string);
            if is_reference {
                visit(value);
            } else {
                map.values_mut().for_each(|value| references(value, visit));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| references(value, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "paths": {
                "/apis/g.io/v1/": {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/List"}}}}},
                "/apis/g.io/v1/things": {"parameters": [{"$ref": "#/parameters/limit"}]},
                "/apis/g.io/v10/": {}, "/version": {}},
            "parameters": {"limit": {"name": "limit", "in": "query"}},
            "definitions": {
                "List": {"properties": {"items": {"items": {"$ref": "#/definitions/Thing"}}}},
                "Thing": {"properties": {"metadata": {"$ref": "#/definitions/Meta"}}},
                "Meta": {"type": "object"}, "Other": {}}})
    }

    #[test]
    fn only_what_belongs_to_the_version_is_taken() {
        let foreign = Foreign::of(document(), "/apis/g.io/v1");
        assert_eq!(foreign.paths.keys().collect::<Vec<_>>(), ["/apis/g.io/v1/", "/apis/g.io/v1/things"]);
        assert_eq!(foreign.definitions.keys().collect::<Vec<_>>(), ["List", "Meta", "Thing"]);
        assert_eq!(foreign.paths["/apis/g.io/v1/things"]["parameters"][0]["name"], "limit");
    }

    #[test]
    fn definitions_of_the_same_name_are_told_apart() {
        let foreign = Foreign::of(document(), "/apis/g.io/v1");
        let own = BTreeMap::from([
            ("Meta".to_owned(), json!({"type": "object"})),
            ("Thing".to_owned(), json!({"type": "string"})),
        ]);
        let merged = foreign.beside(&own);
        assert_eq!(merged.definitions.keys().collect::<Vec<_>>(), ["List", "Thing_v2"]);
        let item = &merged.definitions["List"]["properties"]["items"]["items"];
        assert_eq!(item["$ref"], "#/definitions/Thing_v2");
    }
}
