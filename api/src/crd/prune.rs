//! Dropping what a schema does not know (upstream `apiserver/schema/pruning` and `defaulting/prunenulls.go`).

use serde_json::{Map, Value};

use super::props::{META_FIELDS, Props, PropsExt};

/// Drops unknown fields. The metadata of the object is left alone if the value is a whole object (`is_resource`), and so
/// is that of embedded objects. Returns the paths of what was dropped, sorted.
pub fn prune(value: &mut Value, schema: Option<&Props>, is_resource: bool) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), dropped: Vec::new() };
    pruner.prune(value, schema, is_resource || schema.is_some_and(|s| s.embedded()), is_resource);
    pruner.dropped.sort();
    pruner.dropped
}

struct Pruner {
    path: String,
    dropped: Vec<String>,
}

impl Pruner {
    /// `known`: without a schema nothing is known, but for the metadata of a whole object.
    fn prune(&mut self, value: &mut Value, schema: Option<&Props>, embedded: bool, known: bool) {
        if schema.is_some_and(|schema| schema.preserves()) {
            return self.skip(value, schema, embedded);
        }
        match value {
            Value::Object(fields) if schema.is_none() && !known => {
                for name in fields.keys() {
                    self.note(name);
                }
                fields.clear();
            }
            Value::Object(fields) => self.fields(fields, schema, embedded),
            Value::Array(items) => {
                let item = schema.and_then(|schema| schema.item());
                for (i, value) in items.iter_mut().enumerate() {
                    self.at_index(i, |this| this.below(value, item));
                }
            }
            _ => {}
        }
    }

    fn below(&mut self, value: &mut Value, schema: Option<&Props>) {
        self.prune(value, schema, schema.is_some_and(|schema| schema.embedded()), false);
    }

    fn fields(&mut self, fields: &mut Map<String, Value>, schema: Option<&Props>, embedded: bool) {
        let mut unknown = Vec::new();
        for (name, value) in fields.iter_mut() {
            let is_meta = META_FIELDS.contains(&name.as_str());
            if embedded && is_meta {
                continue;
            }
            if let Some(field) = schema.and_then(|schema| schema.field(name)) {
                self.at_key(name, |this| this.below(value, Some(field)));
            } else if schema.is_some_and(|schema| schema.has_additional()) {
                let additional = schema.and_then(|schema| schema.additional());
                self.at_key(name, |this| this.below(value, additional));
            } else {
                if !is_meta || !self.path.is_empty() {
                    self.note(name);
                }
                unknown.push(name.clone());
            }
        }
        for name in unknown {
            fields.remove(&name);
        }
    }

    /// Goes on where something is specified inside of what is kept whole.
    fn skip(&mut self, value: &mut Value, schema: Option<&Props>, embedded: bool) {
        let Some(schema) = schema else { return };
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    if embedded && META_FIELDS.contains(&name.as_str()) {
                        continue;
                    }
                    if let Some(field) = schema.field(name) {
                        self.at_key(name, |this| this.below(value, Some(field)));
                    } else if schema.has_additional() {
                        self.at_key(name, |this| this.below(value, schema.additional()));
                    }
                }
            }
            Value::Array(items) => {
                let item = schema.item();
                for (i, value) in items.iter_mut().enumerate() {
                    let embedded = item.is_some_and(|item| item.embedded());
                    self.at_index(i, |this| this.skip(value, item, embedded));
                }
            }
            _ => {}
        }
    }

    fn at_key(&mut self, name: &str, go: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        go(self);
        self.path.truncate(length);
    }

    fn at_index(&mut self, index: usize, go: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        go(self);
        self.path.truncate(length);
    }

    fn note(&mut self, name: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.dropped.push(format!("{}{dot}{name}", self.path));
    }
}

/// Drops nulls where the schema allows none and has no default to put in their place.
pub fn prune_nulls(value: &mut Value, schema: Option<&Props>) {
    match value {
        Value::Object(fields) => {
            let below = |name: &str| schema.and_then(|s| s.field(name).or_else(|| s.additional()));
            fields.retain(|name, value| {
                let goes = value.is_null()
                    && below(name).is_some_and(|s| !s.is_nullable() && s.default_value().is_none());
                !goes
            });
            for (name, value) in fields.iter_mut() {
                prune_nulls(value, below(name));
            }
        }
        Value::Array(items) => {
            let item = schema.and_then(|schema| schema.item());
            items.iter_mut().for_each(|value| prune_nulls(value, item));
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod tests;
