//! The JSON of a cached object: the bytes of the store, and the version that they do not have.

use std::fmt;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use store::Revision;

/// An encoded object with a place for `metadata.resourceVersion`. The bytes are those of the store, not a copy.
pub(super) struct Text {
    stored: Bytes,
    /// What is stored, up to the version.
    head: usize,
    /// Where what is stored goes on.
    tail: usize,
    /// What stands between the head and the digits, and between them and the tail.
    glue: (&'static str, &'static str),
}

impl Text {
    /// The length with the version in it.
    pub(super) fn len(&self, revision: Revision) -> usize {
        let (before, after) = self.glue;
        let digits = revision.0.checked_ilog10().unwrap_or(0) as usize + 1;
        self.head + before.len() + digits + after.len() + self.stored.len() - self.tail
    }

    /// Writes it, but for the first `skip` bytes, which must be of the head.
    pub(super) fn write(&self, revision: Revision, skip: usize, out: &mut Vec<u8>) {
        let (before, after) = self.glue;
        out.extend_from_slice(&self.stored[skip.min(self.head)..self.head]);
        out.extend_from_slice(before.as_bytes());
        write_digits(revision.0, out);
        out.extend_from_slice(after.as_bytes());
        out.extend_from_slice(&self.stored[self.tail..]);
    }

    /// Whether it begins so, before the version.
    pub(super) fn starts_with(&self, prefix: &str) -> bool {
        self.stored[..self.head].starts_with(prefix.as_bytes())
    }
}

fn write_digits(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// What a glance at an encoded object tells.
pub(super) struct Glance {
    pub(super) text: Text,
    /// `metadata.uid`; empty if there is none.
    pub(super) uid: String,
    /// Ordered by key.
    pub(super) labels: Vec<(Box<str>, Box<str>)>,
}

/// As [`glance`], of an object that is there decoded as well: nothing is read again if its fields stand in upstream's
/// order.
pub(super) fn glance_known(stored: Bytes, value: &Value) -> Result<Glance, serde_json::Error> {
    let meta = &value["metadata"];
    let uid = meta["uid"].as_str().unwrap_or_default();
    let Some(end) = end_of_uid(&stored, uid) else { return glance(stored) };
    let labels = meta["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())));
    let labels = labels.collect();
    let text = Text { head: end, tail: end, glue: (",\"resourceVersion\":\"", "\""), stored };
    Ok(Glance { text, uid: uid.to_owned(), labels })
}

/// Where the version follows the uid: in metadata whose fields stand in the order of upstream's struct, of which those
/// before the uid are texts, which a quotation mark in front of a name ends for sure.
fn end_of_uid(stored: &[u8], uid: &str) -> Option<usize> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if uid.is_empty() || !uid.bytes().all(plain) {
        return None;
    }
    let begin = memmem::find(stored, b"\"metadata\":{\"name\":\"")?;
    let field = [b"\",\"uid\":\"", uid.as_bytes(), b"\""].concat();
    let end = begin + memmem::find(&stored[begin..], &field)? + field.len();
    let next = [&b",\"generation\":"[..], b",\"creationTimestamp\":"];
    next.iter().any(|next| stored[end..].starts_with(next)).then_some(end)
}

/// Finds the place of `metadata.resourceVersion` in an encoded object without decoding the rest of it.
pub(super) fn glance(stored: Bytes) -> Result<Glance, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let head: Head<'_> = serde_json::from_slice(&stored)?;
    let metadata: Metadata<'_> = serde_json::from_str(head.metadata.get())?;
    let offset = |part: &str| part.as_ptr() as usize - stored.as_ptr() as usize;
    let open = offset(head.metadata.get()) + 1;
    let (cut, resume, glue) = match (metadata.version, metadata.predecessor) {
        (Some(old), _) => (offset(old), offset(old) + old.len(), ("\"", "\"")),
        (None, Some(value)) => {
            let end = offset(value) + value.len();
            (end, end, (",\"resourceVersion\":\"", "\""))
        }
        (None, None) if metadata.is_empty => (open, open, ("\"resourceVersion\":\"", "\"")),
        (None, None) => (open, open, ("\"resourceVersion\":\"", "\",")),
    };
    let uid: Option<String> = metadata.uid.map(serde_json::from_str).transpose()?.flatten();
    let labels: Option<std::collections::BTreeMap<Box<str>, Box<str>>> =
        metadata.labels.map(serde_json::from_str).transpose()?.flatten();
    let labels = labels.into_iter().flatten().collect();
    let text = Text { head: cut, tail: resume, glue, stored };
    Ok(Glance { text, uid: uid.unwrap_or_default(), labels })
}

/// The parts of `metadata` that matter here, as slices of the input.
#[derive(Default)]
struct Metadata<'a> {
    is_empty: bool,
    /// The value that `resourceVersion` follows: the last one whose key sorts before it, or the uid.
    predecessor: Option<&'a str>,
    version: Option<&'a str>,
    uid: Option<&'a str>,
    labels: Option<&'a str>,
}

impl<'de> Deserialize<'de> for Metadata<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scan;
        impl<'de> Visitor<'de> for Scan {
            type Value = Metadata<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object's metadata")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Metadata { is_empty: true, ..Metadata::default() };
                let mut is_struct = false;
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let value = map.next_value::<&'de RawValue>()?.get();
                    found.is_empty = false;
                    if &*key == "creationTimestamp" && found.uid.is_some() {
                        // The order is upstream's struct's: the version stands behind the uid.
                        found.predecessor = found.uid;
                        is_struct = true;
                    } else if &*key < "resourceVersion" && !is_struct {
                        found.predecessor = Some(value);
                    }
                    match &*key {
                        "resourceVersion" => found.version = Some(value),
                        "uid" => found.uid = Some(value),
                        "labels" => found.labels = Some(value),
                        _ => {}
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Scan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(stored: &str) -> String {
        let text = glance(Bytes::copy_from_slice(stored.as_bytes())).expect("valid").text;
        let mut json = vec![];
        text.write(Revision(42), 0, &mut json);
        assert_eq!(json.len(), text.len(Revision(42)));
        String::from_utf8(json).expect("UTF-8")
    }

    #[test]
    fn the_resource_version_is_spliced_in_at_its_sorted_place() {
        for (stored, wanted) in [
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"42"}}"#),
            (
                r#"{"metadata":{"name":"a"},"x":1}"#,
                r#"{"metadata":{"name":"a","resourceVersion":"42"},"x":1}"#,
            ),
            (
                r#"{"metadata":{"name":"a","uid":"u","creationTimestamp":null,"labels":{}}}"#,
                r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"42","creationTimestamp":null,"labels":{}}}"#,
            ),
            (r#"{"metadata":{"uid":"u"}}"#, r#"{"metadata":{"resourceVersion":"42","uid":"u"}}"#),
            (
                r#"{"kind":"K","metadata":{"labels":{"uid":"}"},"name":"a","uid":"u"}}"#,
                r#"{"kind":"K","metadata":{"labels":{"uid":"}"},"name":"a","resourceVersion":"42","uid":"u"}}"#,
            ),
            (
                r#"{"metadata":{"name":"a","resourceVersion":"7","uid":"u"}}"#,
                r#"{"metadata":{"name":"a","resourceVersion":"42","uid":"u"}}"#,
            ),
            (
                r#"{"metadata":{"name":"a","resourceVersion":"","uid":"u"}}"#,
                r#"{"metadata":{"name":"a","resourceVersion":"42","uid":"u"}}"#,
            ),
            (
                r#"{ "metadata" : { "name" : "a" } }"#,
                r#"{ "metadata" : { "name" : "a","resourceVersion":"42" } }"#,
            ),
        ] {
            assert_eq!(spliced(stored), wanted);
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for stored in ["", "{}", "[]", r#"{"metadata":1}"#, r#"{"metadata":{"labels":{"a":1}}}"#] {
            assert!(glance(Bytes::copy_from_slice(stored.as_bytes())).is_err(), "{stored}");
        }
    }

    #[test]
    fn the_version_has_any_number_of_digits() {
        let text = glance(Bytes::from_static(br#"{"metadata":{}}"#)).expect("valid").text;
        for number in [0, 9, 10, 99, 100, 12345, u64::MAX] {
            let mut json = vec![];
            text.write(Revision(number), 0, &mut json);
            let wanted = format!(r#"{{"metadata":{{"resourceVersion":"{number}"}}}}"#);
            assert_eq!(String::from_utf8(json).expect("UTF-8"), wanted);
            assert_eq!(text.len(Revision(number)), wanted.len());
        }
    }

    #[test]
    fn it_may_begin_later() {
        let text = glance(Bytes::from_static(br#"{"kind":"K","metadata":{}}"#)).expect("valid").text;
        assert!(text.starts_with(r#"{"kind":"K","#) && !text.starts_with(r#"{"kind":"K","metadata":{}"#));
        let mut json = vec![];
        text.write(Revision(5), r#"{"kind":"K","#.len(), &mut json);
        assert_eq!(json, br#""metadata":{"resourceVersion":"5"}}"#);
    }

    #[test]
    fn what_is_known_tells_the_same() {
        for stored in [
            // As upstream writes its structs; then not so, and with all that could be taken for the uid.
            r#"{"kind":"K","metadata":{"name":"a","uid":"u-1","creationTimestamp":null,"labels":{"b":"2","a":"1"}}}"#,
            r#"{"kind":"K","metadata":{"name":"a","namespace":"n","uid":"u-1","generation":1,"creationTimestamp":null}}"#,
            r#"{"metadata":{"name":"a","uid":"u-1"}}"#,
            r#"{"metadata":{"creationTimestamp":null,"name":"a","uid":"u-1"}}"#,
            r#"{"metadata":{"name":"a","ownerReferences":[{"name":"o","uid":"u-1"}],"uid":"u-1"}}"#,
            r#"{"metadata":{"name":"x\",\"uid\":\"u-1","uid":"u-1","creationTimestamp":null}}"#,
            r#"{"metadata":{"name":"a","resourceVersion":"3","uid":"u-1"}}"#,
            r#"{"metadata":{"name":"a","uid":"u\"1","creationTimestamp":null}}"#,
            r#"{"metadata":{"name":"a","creationTimestamp":null}}"#,
        ] {
            let value: Value = serde_json::from_str(stored).expect("JSON");
            let read = glance(Bytes::from_static(stored.as_bytes())).expect("valid");
            let known = glance_known(Bytes::from_static(stored.as_bytes()), &value).expect("valid");
            let all = |glance: Glance| {
                let mut json = vec![];
                glance.text.write(Revision(7), 0, &mut json);
                let mut labels = glance.labels;
                labels.sort();
                (String::from_utf8(json).expect("UTF-8"), glance.uid, labels)
            };
            assert_eq!(all(known), all(read), "{stored}");
        }
    }
}
