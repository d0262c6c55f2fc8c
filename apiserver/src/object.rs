//! Metadata of an object in its JSON form.

use serde_json::{Map, Value, json};

/// The text of a metadata field; empty if absent.
#[must_use]
pub fn meta_text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// A metadata field.
#[must_use]
pub fn meta<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(field).filter(|value| !value.is_null())
}

/// Metadata, made if absent. `None` only if the object is none, or its metadata is none.
pub fn meta_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let object = object.as_object_mut()?;
    let meta = object.entry("metadata").or_insert_with(|| json!({}));
    if meta.is_null() {
        *meta = json!({});
    }
    meta.as_object_mut()
}

/// Sets a metadata field; `None` takes it away.
pub fn set_meta(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(meta) = meta_mut(object) else { return };
    match value {
        Some(value) => meta.insert(field.to_owned(), value),
        None => meta.remove(field),
    };
}

/// The finalizers.
#[must_use]
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = meta(object, "finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An integer metadata field.
#[must_use]
pub fn meta_int(object: &Value, field: &str) -> Option<i64> {
    meta(object, field).and_then(Value::as_i64)
}

/// Whether a deletion has been asked for.
#[must_use]
pub fn is_being_deleted(object: &Value) -> bool {
    meta(object, "deletionTimestamp").is_some()
}

/// Sets `apiVersion` and `kind`.
pub fn set_kind(object: &mut Value, gvk: &api::names::GroupVersionKind) {
    if let Some(object) = object.as_object_mut() {
        object.insert("apiVersion".to_owned(), gvk.group_version().to_string().into());
        object.insert("kind".to_owned(), gvk.kind.clone().into_owned().into());
    }
}

/// Now, as metadata has it: whole seconds.
#[must_use]
pub fn now() -> Value {
    timestamp(jiff::Timestamp::now())
}

/// A time as metadata has it.
#[must_use]
pub fn timestamp(time: jiff::Timestamp) -> Value {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// Characters of generated name suffixes: no vowels, and nothing that looks like another.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name from a `generateName` (upstream `SimpleNameGenerator`).
#[must_use]
pub fn generate_name(base: &str) -> String {
    use rand::Rng;
    let mut end = base.len().min(63 - 5);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut rng = rand::rng();
    let suffix = (0..5).map(|_| char::from(SUFFIX[rng.random_range(0..SUFFIX.len())]));
    base[..end].chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generate_name("web-").len(), 9);
        assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
        assert_ne!(generate_name("a"), generate_name("a"));
    }

    #[test]
    fn metadata_is_made_when_needed() {
        let mut object = json!({});
        set_meta(&mut object, "uid", Some("u".into()));
        assert_eq!(meta_text(&object, "uid"), "u");
        set_meta(&mut object, "uid", None);
        assert_eq!(object, json!({"metadata": {}}));
    }
}
