//! Decoding without a schema, as upstream decodes custom resources: into maps, lists and scalars, noticing
//! duplicate fields on the way.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::decode::{DecodeError, Decoded, plain_number};
use super::scalar::go_quote;

/// Decodes JSON text, collecting duplicate fields.
///
/// # Errors
/// When the text is not a JSON object.
pub fn decode_unstructured(json: &[u8]) -> Result<Decoded, DecodeError> {
    let decoded = decode_any(json)?;
    match decoded.value {
        Value::Object(_) | Value::Null => Ok(decoded),
        other => Err(DecodeError::Type(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            crate::codec::json::kind_of(&other)
        ))),
    }
}

/// Decodes any JSON text, collecting duplicate fields.
///
/// # Errors
/// When the text is not JSON.
pub fn decode_any(json: &[u8]) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    decode(&mut deserializer).and_then(|decoded| deserializer.end().map(|()| decoded)).or_else(|error| {
        match crate::codec::json::mend(json) {
            Some(mended) => decode_any(&mended),
            None => Err(DecodeError::Syntax(crate::codec::json::syntax_error(json, &error))),
        }
    })
}

/// Brings a value parsed before into the form that [`decode_unstructured`] gives.
///
/// # Errors
/// When the value is nested too deeply.
pub fn decode_unstructured_value(value: Value) -> Result<Decoded, DecodeError> {
    decode(value).map_err(|error: serde_json::Error| DecodeError::Syntax(error.to_string()))
}

fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decoded, D::Error> {
    let mut duplicates = Vec::new();
    let value =
        UnstructuredSeed { path: &mut Vec::new(), duplicates: &mut duplicates }.deserialize(deserializer)?;
    let mut strict_errors: Vec<String> = Vec::new();
    for path in duplicates {
        let message = format!("duplicate field {}", go_quote(&path));
        if !strict_errors.contains(&message) {
            strict_errors.push(message);
        }
    }
    Ok(Decoded { value, strict_errors, verbatim: Vec::new() })
}

/// Decodes any value, adding the paths of duplicate fields to `duplicates`.
pub(super) struct UnstructuredSeed<'a> {
    pub(super) path: &'a mut Vec<String>,
    pub(super) duplicates: &'a mut Vec<String>,
}

impl UnstructuredSeed<'_> {
    fn full_path(&self, key: &str) -> String {
        let mut path = String::new();
        for step in self.path.iter().map(String::as_str).chain([key]) {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        path
    }
}

impl<'de> DeserializeSeed<'de> for UnstructuredSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UnstructuredSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Value::from(value),
            Err(_) => Value::from(value as f64),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(plain_number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            self.path.push(format!("[{}]", items.len()));
            let item = seq.next_element_seed(UnstructuredSeed {
                path: &mut *self.path,
                duplicates: &mut *self.duplicates,
            })?;
            self.path.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if out.contains_key(&key) {
                let path = self.full_path(&key);
                self.duplicates.push(path);
            }
            self.path.push(key);
            let value = map.next_value_seed(UnstructuredSeed {
                path: &mut *self.path,
                duplicates: &mut *self.duplicates,
            })?;
            let key = self.path.pop().unwrap_or_default();
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}
