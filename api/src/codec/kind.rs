//! What a document says it is, read before the rest (upstream `SimpleMetaFactory`, which has the standard library of
//! Go read it: the case of field names does not count, and the last of several wins).

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::json;

/// The Go type that upstream reads a document into.
const GO_TYPE: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// What a document says it is; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// `apiVersion`
    pub api_version: String,
    /// `kind`
    pub kind: String,
}

impl TypeMeta {
    /// Reads JSON text.
    ///
    /// # Errors
    /// Upstream's message when the text is not JSON or no object.
    pub fn of_json(text: &[u8]) -> Result<Self, String> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let mut reader = Reader::default();
        let read = reader.read(&mut deserializer).and_then(|()| deserializer.end());
        match read {
            Ok(()) => reader.finish(),
            Err(error) => match json::mend(text) {
                Some(mended) => Self::of_json(&mended),
                None => Err(parse_error(&json::syntax_error(text, &error))),
            },
        }
    }

    /// Reads a document that was parsed before.
    ///
    /// # Errors
    /// Upstream's message when it is no object.
    pub fn of_value(value: &Value) -> Result<Self, String> {
        let mut reader = Reader::default();
        reader.read(value).map_err(|error| parse_error(&error.to_string()))?;
        reader.finish()
    }
}

fn parse_error(why: &str) -> String {
    format!("couldn't get version/kind; json parse error: {why}")
}

#[derive(Default)]
struct Reader {
    meta: TypeMeta,
    /// The first value that did not fit.
    error: Option<String>,
}

impl Reader {
    fn read<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn finish(self) -> Result<TypeMeta, String> {
        match self.error {
            Some(why) => Err(parse_error(&why)),
            None => Ok(self.meta),
        }
    }

    fn mismatch(&mut self, found: &str) {
        self.error = Some(format!("json: cannot unmarshal {found} into Go value of type {GO_TYPE}"));
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reader {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.mismatch("bool");
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.mismatch("number");
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.mismatch("number");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.mismatch("number");
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.mismatch("string");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.mismatch("array");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let (slot, name) = if key.eq_ignore_ascii_case("apiVersion") {
                (&mut self.meta.api_version, "apiVersion")
            } else if key.eq_ignore_ascii_case("kind") {
                (&mut self.meta.kind, "kind")
            } else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            match map.next_value::<Text>()? {
                Text::Null => {}
                Text::Given(text) => *slot = text,
                Text::Other(found) => {
                    let why =
                        format!("json: cannot unmarshal {found} into Go struct field .{name} of type string");
                    self.error.get_or_insert(why);
                }
            }
        }
        Ok(())
    }
}

/// A value that should be text.
enum Text {
    Null,
    Given(String),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Self::Null,
            Value::String(text) => Self::Given(text),
            other => Self::Other(json::kind_of(&other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_they_are() {
        let cases = [
            (r#"{"kind":"Pod","apiVersion":"v1","metadata":{"kind":1}}"#, "v1", "Pod"),
            (r#"{"Kind":"Pod","APIVERSION":"v1"}"#, "v1", "Pod"),
            (r#"{"kind":"A","kind":"B","apiVersion":null}"#, "", "B"),
            ("{}", "", ""),
            (" null ", "", ""),
            (r#"{"kind":"\ud800"}"#, "", "\u{fffd}"),
        ];
        for (text, api_version, kind) in cases {
            let meta = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
            assert_eq!(TypeMeta::of_json(text.as_bytes()), Ok(meta), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_says_nothing() {
        let of_type = |found: &str| format!("json: cannot unmarshal {found} into Go value of type {GO_TYPE}");
        let of_field = |found: &str, name: &str| {
            format!("json: cannot unmarshal {found} into Go struct field .{name} of type string")
        };
        let cases = [
            ("", "unexpected end of JSON input".to_owned()),
            ("[]", of_type("array")),
            ("5", of_type("number")),
            ("\"a\"", of_type("string")),
            ("true", of_type("bool")),
            ("[1 2]", "invalid character '2' after array element".to_owned()),
            ("{} x", "invalid character 'x' after top-level value".to_owned()),
            (r#"{"apiVersion":1,"kind":[]}"#, of_field("number", "apiVersion")),
            (r#"{"kind":{}}"#, of_field("object", "kind")),
        ];
        for (text, why) in cases {
            let expected = Err(format!("couldn't get version/kind; json parse error: {why}"));
            assert_eq!(TypeMeta::of_json(text.as_bytes()), expected, "{text}");
            if let Ok(value) = serde_json::from_str::<Value>(text) {
                assert_eq!(TypeMeta::of_value(&value), expected, "{text}");
            }
        }
    }
}
