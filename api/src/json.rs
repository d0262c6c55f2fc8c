//! Reading and changing JSON objects in place: what defaulting and strategies need, without a typed detour.

use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;

/// Conveniences over JSON objects. "Unset" is absent or null.
pub(crate) trait ObjectExt {
    fn is_unset(&self, key: &str) -> bool;
    /// Sets a field that is unset.
    fn or_default(&mut self, key: &str, value: impl Into<Value>);
    /// Sets a field that is unset or an empty string or zero: Go's non-pointer fields.
    fn or_zero(&mut self, key: &str, value: impl Into<Value>);
    fn object(&self, key: &str) -> Option<&Object>;
    fn object_mut(&mut self, key: &str) -> Option<&mut Object>;
    /// The object at `key`, made if unset. `None` only when something else stands there.
    fn ensure(&mut self, key: &str) -> Option<&mut Object>;
    fn list(&self, key: &str) -> &[Value];
    fn list_mut(&mut self, key: &str) -> &mut [Value];
    /// The objects in the list at `key`.
    fn each<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Object>;
    fn each_mut<'a>(&'a mut self, key: &str) -> impl Iterator<Item = &'a mut Object>;
    /// The string at `key`, or empty.
    fn text(&self, key: &str) -> &str;
    fn int(&self, key: &str) -> i64;
    fn flag(&self, key: &str) -> bool;
    /// Copies a field from `other`, absence too.
    fn copy(&mut self, key: &str, other: &Object);
}

impl ObjectExt for Object {
    fn is_unset(&self, key: &str) -> bool {
        self.get(key).is_none_or(Value::is_null)
    }

    fn or_default(&mut self, key: &str, value: impl Into<Value>) {
        if self.is_unset(key) {
            self.insert(key.to_owned(), value.into());
        }
    }

    fn or_zero(&mut self, key: &str, value: impl Into<Value>) {
        let zero = match self.get(key) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Number(number)) => number.as_i64() == Some(0),
            Some(_) => false,
        };
        if zero {
            self.insert(key.to_owned(), value.into());
        }
    }

    fn object(&self, key: &str) -> Option<&Object> {
        self.get(key)?.as_object()
    }

    fn object_mut(&mut self, key: &str) -> Option<&mut Object> {
        self.get_mut(key)?.as_object_mut()
    }

    fn ensure(&mut self, key: &str) -> Option<&mut Object> {
        self.or_default(key, Object::new());
        self.object_mut(key)
    }

    fn list(&self, key: &str) -> &[Value] {
        self.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn list_mut(&mut self, key: &str) -> &mut [Value] {
        self.get_mut(key).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
    }

    fn each<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Object> {
        self.list(key).iter().filter_map(Value::as_object)
    }

    fn each_mut<'a>(&'a mut self, key: &str) -> impl Iterator<Item = &'a mut Object> {
        self.list_mut(key).iter_mut().filter_map(Value::as_object_mut)
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn int(&self, key: &str) -> i64 {
        self.get(key).and_then(Value::as_i64).unwrap_or_default()
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or_default()
    }

    fn copy(&mut self, key: &str, other: &Object) {
        match other.get(key) {
            Some(value) => self.insert(key.to_owned(), value.clone()),
            None => self.remove(key),
        };
    }
}

/// Equality as upstream's `apiequality.Semantic`: an empty list is as good as none.
#[must_use]
pub fn semantic_eq(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null)) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| semantic_eq(Some(value), b.get(key)))
                && b.iter().all(|(key, value)| a.contains_key(key) || semantic_eq(None, Some(value)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| semantic_eq(Some(a), Some(b)))
        }
        (Value::Null, Value::Array(list)) | (Value::Array(list), Value::Null) => list.is_empty(),
        (a, b) => a == b,
    }
}

/// The typed object without the sets in `metadata.managedFields`: they are large, and no rule is about them. Otherwise as
/// [`read`].
///
/// # Errors
/// The object does not fit its struct.
pub fn read_lean<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(Lean { value: object, place: Place::Object }).or_else(|_| read(object))
}

/// As [`read_lean`], of metadata alone.
///
/// # Errors
/// It does not fit its struct.
pub(crate) fn read_lean_metadata<T: DeserializeOwned>(metadata: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(Lean { value: metadata, place: Place::Metadata })
}

/// A value that is read without the sets of managers.
#[derive(Clone, Copy)]
struct Lean<'a> {
    value: &'a Value,
    place: Place,
}

/// Where a value stands on the way to the sets.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Object,
    Metadata,
    Managers,
}

impl<'de> Deserializer<'de> for Lean<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let place = self.place;
        match self.value {
            Value::Object(map) => visitor.visit_map(Fields { entries: map.iter(), place, next: None }),
            Value::Array(items) => {
                let items = items.iter().map(|value| Lean { value, place });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Lean<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Fields<'de> {
    entries: serde_json::map::Iter<'de>,
    place: Place,
    next: Option<(&'de str, &'de Value)>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let skipped = |name: &str| self.place == Place::Managers && name == "fieldsV1";
        let Some((key, value)) = self.entries.find(|(name, _)| !skipped(name)) else { return Ok(None) };
        self.next = Some((key, value));
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Self::Error> {
        let Some((name, value)) = self.next.take() else {
            return Err(serde::de::Error::custom("a value without its key"));
        };
        match (self.place, name) {
            (Place::Object, "metadata") => seed.deserialize(Lean { value, place: Place::Metadata }),
            (Place::Metadata, "managedFields") => seed.deserialize(Lean { value, place: Place::Managers }),
            _ => seed.deserialize(value),
        }
    }
}

/// The typed object. A null where the struct wants a value counts as absent, or as the zero time: upstream's types have
/// no value for "never set" but their zero, and write a time that is zero as null.
///
/// # Errors
/// The object does not fit its struct.
pub fn read<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object)
        .or_else(|_| T::deserialize(without_nulls(object, None)))
        .or_else(|_| T::deserialize(without_nulls(object, Some(ZERO_TIME))))
}

/// What stands for a time that was never set where a struct wants one.
const ZERO_TIME: &str = "1970-01-01T00:00:00Z";

/// A copy without nulls; those in place of times become `time`, if there is one.
fn without_nulls(value: &Value, time: Option<&str>) -> Value {
    let kept = |(key, value): (&String, &Value)| {
        let zero = time.filter(|_| key.ends_with("Time")).map(Value::from);
        let value = if value.is_null() { zero? } else { without_nulls(value, time) };
        Some((key.clone(), value))
    };
    match value {
        Value::Object(map) => Value::Object(map.iter().filter_map(kept).collect()),
        Value::Array(items) => Value::Array(items.iter().map(|item| without_nulls(item, time)).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_of_managers_are_left_out_and_nothing_else() {
        let object = json!({"metadata": {"name": "p", "labels": {"fieldsV1": "b"},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}, {"operation": "Apply"}]},
            "spec": {"containers": [{"name": "managedFields"}]}, "status": {"startTime": null}});
        let pod: Pod = read_lean(&object).expect("a pod");
        let mut expected: Pod = read(&object).expect("a pod");
        expected.metadata.managed_fields.as_mut().expect("managers")[0].fields_v1 = None;
        assert_eq!(pod, expected);
        let why = read_lean::<Pod>(&json!({"metadata": {"name": 1}})).expect_err("no name");
        assert!(why.to_string().contains("string"), "{why}");
    }

    #[test]
    fn empty_lists_equal_absent_ones() {
        let cases = [
            (json!({"a": []}), json!({}), true),
            (json!({"a": null}), json!({}), true),
            (json!({"a": {}}), json!({}), false),
            (json!({"a": [1]}), json!({"a": [1]}), true),
            (json!({"a": [1]}), json!({"a": [2]}), false),
            (json!({}), json!({"a": 1}), false),
        ];
        for (a, b, want) in cases {
            assert_eq!(semantic_eq(Some(&a), Some(&b)), want, "{a} {b}");
        }
    }
}
