//! A value with what it was before an update, as far as that can be told (upstream `cel/common/equality.go`): fields by
//! name, items of lists of type `map` by their keys, other items not at all.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::Value;

use super::props::{Props, PropsExt};

/// A value beside its old one.
#[derive(Debug)]
pub struct Correlated<'a> {
    /// The new value.
    pub value: &'a Value,
    /// The old value.
    pub old: &'a Value,
    schema: &'a Props,
    by_key: OnceCell<HashMap<String, &'a Value>>,
}

impl<'a> Correlated<'a> {
    /// Two states of what a schema describes.
    #[must_use]
    pub fn new(value: &'a Value, old: &'a Value, schema: &'a Props) -> Self {
        Self { value, old, schema, by_key: OnceCell::new() }
    }

    /// A field of both, if the schema knows it.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<Self> {
        let (value, old) = (self.value.as_object()?.get(name)?, self.old.as_object()?.get(name)?);
        let schema = self.schema.field(name).or_else(|| self.schema.additional())?;
        Some(Self::new(value, old, schema))
    }

    /// An item of both, if it can be found in the old list.
    #[must_use]
    pub fn index(&self, index: usize) -> Option<Self> {
        let value = self.value.as_array()?.get(index)?;
        let old = self.old.as_array()?;
        if self.schema.list_type() != "map" {
            return None;
        }
        let keys = self.schema.map_keys();
        let known = self.by_key.get_or_init(|| {
            // The first of several with one key counts.
            let all = old.iter().rev().filter_map(|item| Some((map_key(item, keys)?, item)));
            all.collect()
        });
        let old = known.get(&map_key(value, keys)?).copied()?;
        Some(Self::new(value, old, self.schema.item()?))
    }

    /// Whether nothing has changed here.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        match (self.value, self.old) {
            (Value::Array(new), Value::Array(old)) => {
                let correlated = self.schema.list_type() == "map" && self.schema.item().is_some();
                if !correlated {
                    return new == old;
                }
                new.len() == old.len()
                    && (0..new.len()).all(|i| self.index(i).is_some_and(|item| item.is_unchanged()))
            }
            (Value::Object(new), Value::Object(old)) => {
                new.len() == old.len()
                    && new.keys().all(|name| self.key(name).is_some_and(|field| field.is_unchanged()))
            }
            (new, old) => new == old,
        }
    }
}

/// What identifies an item of a list of type `map`.
fn map_key(item: &Value, keys: &[String]) -> Option<String> {
    let object = item.as_object()?;
    let parts: Vec<&Value> = keys.iter().map(|key| object.get(key).unwrap_or(&Value::Null)).collect();
    serde_json::to_string(&parts).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(value: Value) -> Props {
        serde_json::from_value(value).expect("a schema")
    }

    #[test]
    fn items_are_found_by_their_keys() {
        let schema = schema(json!({"type": "object", "properties": {"list": {"type": "array",
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}}}}));
        let new = json!({"list": [{"k": "b", "v": 2}, {"k": "a", "v": 9}, {"k": "c"}]});
        let old = json!({"list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]});
        let list = Correlated::new(&new, &old, &schema).key("list").expect("both have it");
        assert!(list.index(0).expect("found").is_unchanged());
        assert_eq!(list.index(1).expect("found").old, &json!({"k": "a", "v": 1}));
        assert!(list.index(2).is_none());
        assert!(!list.is_unchanged());
    }

    #[test]
    fn order_counts_in_plain_lists_only_as_a_whole() {
        let schema = schema(json!({"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "string"}}}}));
        let (new, old) = (json!({"list": ["a", "b"]}), json!({"list": ["b", "a"]}));
        let list = Correlated::new(&new, &old, &schema);
        assert!(!list.is_unchanged());
        assert!(list.key("list").expect("both have it").index(0).is_none());
        assert!(Correlated::new(&new, &new, &schema).is_unchanged());
    }

    #[test]
    fn unknown_fields_are_never_unchanged() {
        let schema = schema(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        let value = json!({"a": 1});
        assert!(!Correlated::new(&value, &value, &schema).is_unchanged());
    }
}
