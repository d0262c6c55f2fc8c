//! Lists that are sets or maps hold nothing twice (upstream `apiserver/schema/listtype`).

use serde_json::{Map, Value};

use super::props::{Props, PropsExt};
use crate::field::{ErrorList, Path, Report};

/// What stands twice in the lists of an object.
#[must_use]
pub fn validate(object: &Value, schema: &Props, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(object, schema, path, &mut errors);
    errors
}

fn walk(value: &Value, schema: &Props, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(fields) => {
            if let Some(additional) = schema.additional() {
                fields.iter().for_each(|(name, value)| walk(value, additional, &path.key(name), errors));
            }
            for (name, value) in fields {
                if let Some(field) = schema.field(name) {
                    walk(value, field, &path.child(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type() {
                "set" => {
                    for i in repeated(items) {
                        errors.duplicate(&path.index(i), items[i].clone());
                    }
                }
                "map" => map_items(items, schema.map_keys(), path, errors),
                _ => {}
            }
            if let Some(item) = schema.item() {
                items.iter().enumerate().for_each(|(i, value)| walk(value, item, &path.index(i), errors));
            }
        }
        _ => {}
    }
}

fn map_items(items: &[Value], keys: &[String], path: &Path, errors: &mut ErrorList) {
    if let Some((i, other)) = items.iter().enumerate().find(|(_, item)| !item.is_null() && !item.is_object())
    {
        let detail = "must be an object for an array of list-type map";
        return errors.invalid(&path.index(i), other.clone(), detail);
    }
    let key_of = |item: &Value| {
        let known = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(known.collect::<Map<_, _>>())
    };
    let all: Vec<Value> = items.iter().map(key_of).collect();
    for i in repeated(&all) {
        errors.duplicate(&path.index(i), all[i].clone());
    }
}

/// The index of the second of each value that stands more than once.
fn repeated(items: &[Value]) -> Vec<usize> {
    let mut seen = std::collections::HashMap::<String, usize>::new();
    let mut found = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(i);
        }
    }
    found
}

#[cfg(test)]
#[path = "list_types_tests.rs"]
mod tests;
