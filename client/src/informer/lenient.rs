//! Reading what the typed structs do not take: times that were never set. Upstream's types have no value for them but
//! their zero, which they write as null; the structs here want a time.

use kube::core::ObjectList;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::Value;

/// What stands for a time that was never set.
const ZERO_TIME: &str = "1970-01-01T00:00:00Z";

/// An object that is read with zero times in place of nulls, if it cannot be read as it is.
#[derive(Clone, Debug)]
pub(super) struct Lenient<K>(pub K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let read = K::deserialize(&value).or_else(|error| {
            set_times(&mut value);
            K::deserialize(&value).map_err(|_| error)
        });
        read.map(Self).map_err(D::Error::custom)
    }
}

/// The list of what was read.
pub(super) fn unwrapped<K: Clone>(list: ObjectList<Lenient<K>>) -> ObjectList<K> {
    ObjectList {
        types: list.types,
        metadata: list.metadata,
        items: list.items.into_iter().map(|item| item.0).collect(),
    }
}

fn set_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if field.is_null() && name.ends_with("Time") {
                    *field = ZERO_TIME.into();
                }
                set_times(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(set_times),
        _ => {}
    }
}
