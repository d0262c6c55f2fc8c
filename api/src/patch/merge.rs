//! JSON merge patch (RFC 7396).

use serde_json::{Map, Value};

use super::{Error, Strict};
use crate::codec::json::kind_of;

/// Reads a merge patch.
///
/// # Errors
/// When it is not an object.
pub fn decode(json: &[u8]) -> Result<Strict<Value>, Error> {
    let bad = |why: String| Error::BadRequest(format!("error decoding patch: {why}"));
    let decoded = crate::schema::decode_any(json).map_err(|error| bad(error.to_string()))?;
    match decoded.value {
        Value::Object(_) => Ok(Strict { patch: decoded.value, strict_errors: decoded.strict_errors }),
        Value::Null => Err(Error::BadRequest("Invalid JSON Patch".to_owned())),
        other => {
            let kind = kind_of(&other);
            Err(bad(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")))
        }
    }
}

/// Applies a merge patch: objects are merged, `null` deletes, everything else replaces.
pub fn apply(document: &mut Value, patch: Value) {
    match (document, patch) {
        (Value::Object(document), Value::Object(patch)) => merge(document, patch),
        (document, patch @ Value::Object(_)) => *document = without_nulls(patch),
        (document, patch) => *document = patch,
    }
}

fn merge(document: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match document.get_mut(&key) {
            _ if value.is_null() => {
                document.remove(&key);
            }
            Some(current) if !current.is_null() => apply(current, value),
            _ => {
                document.insert(key, without_nulls(value));
            }
        }
    }
}

/// A new value has no nulls in its objects, not even inside lists.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(key, v)| (key, without_nulls(v))).collect(),
        ),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// The merge patch that leads from `original` to `modified`.
#[must_use]
pub fn create(original: &Value, modified: &Value) -> Value {
    let (Value::Object(original), Value::Object(modified)) = (original, modified) else {
        return modified.clone();
    };
    let mut patch = Map::new();
    for (key, value) in modified {
        match original.get(key) {
            Some(before) if before == value => {}
            Some(before @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), create(before, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in original.keys().filter(|key| !modified.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// The merge patch of an apply: additions and changes from `current` to `modified`, and deletions from `original`
/// to `modified`.
#[must_use]
pub fn create_three_way(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = create(current, modified);
    keep_nulls(&mut patch, false);
    let mut deletions = create(original, modified);
    keep_nulls(&mut deletions, true);
    overlay(&mut patch, deletions);
    patch
}

/// Keeps only deletions of a patch, or only the rest.
fn keep_nulls(patch: &mut Value, keep: bool) {
    let Value::Object(map) = patch else { return };
    map.retain(|_, value| match value {
        Value::Null => keep,
        Value::Object(inner) if keep || !inner.is_empty() => {
            keep_nulls(value, keep);
            value.as_object().is_some_and(|inner| !inner.is_empty())
        }
        _ => !keep || value.as_object().is_some_and(|inner| !inner.is_empty()),
    });
}

/// Merges one patch into another, deletions included.
fn overlay(patch: &mut Value, over: Value) {
    match (patch, over) {
        (Value::Object(patch), Value::Object(over)) => {
            for (key, value) in over {
                match patch.get_mut(&key) {
                    Some(slot) => overlay(slot, value),
                    None => {
                        patch.insert(key, value);
                    }
                }
            }
        }
        (patch, over) => *patch = over,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        for (document, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"a": "text"}), json!({"a": {"b": 1, "c": null}}), json!({"a": {"b": 1}})),
        ] {
            let mut patched = document;
            apply(&mut patched, patch.clone());
            assert_eq!(patched, result, "{patch}");
        }
    }

    #[test]
    fn bad_patches_are_refused() {
        for (text, message) in [
            (
                "[]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            ("null", "Invalid JSON Patch"),
            (
                "{data}",
                "error decoding patch: invalid character 'd' looking for beginning of object key string",
            ),
        ] {
            assert_eq!(decode(text.as_bytes()), Err(Error::BadRequest(message.to_owned())), "{text}");
        }
    }

    #[test]
    fn three_ways_keep_what_others_added() {
        let (original, modified) = (json!({"a": 1, "b": 2, "m": {"x": 1}}), json!({"a": 5, "m": {"y": 2}}));
        let current = json!({"a": 1, "b": 2, "c": 3, "m": {"x": 1, "z": 3}});
        let patch = create_three_way(&original, &modified, &current);
        assert_eq!(patch, json!({"a": 5, "b": null, "m": {"x": null, "y": 2}}));
        let mut patched = current;
        apply(&mut patched, patch);
        assert_eq!(patched, json!({"a": 5, "c": 3, "m": {"y": 2, "z": 3}}));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("x")), Just(json!(true)), Just(json!([1, 2]))];
        leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Value>())
        })
    }

    proptest! {
        #[test]
        fn a_created_patch_leads_there_and_twice_is_once(
            a in any_json().prop_filter("object", Value::is_object),
            b in any_json().prop_filter("object", Value::is_object),
        ) {
            let patch = create(&a, &b);
            let mut once = a;
            apply(&mut once, patch.clone());
            prop_assert_eq!(&once, &b);
            let mut twice = once.clone();
            apply(&mut twice, patch);
            prop_assert_eq!(twice, once);
        }
    }
}
