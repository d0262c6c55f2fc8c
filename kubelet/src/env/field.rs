//! Fields of an object as text, for the downward API.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A field path taken apart.
#[derive(Debug, PartialEq, Eq)]
pub enum ObjectField<'a> {
    /// A plain path.
    Plain(&'a str),
    /// `metadata.labels['key']`.
    Subscript(&'a str, &'a str),
}

impl<'a> ObjectField<'a> {
    /// Splits `path['key']`.
    pub fn parse(path: &'a str) -> Self {
        match path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            Some((path, key)) if !path.is_empty() => Self::Subscript(path, key),
            _ => Self::Plain(path),
        }
    }
}

/// The value of `path`, which must be one of the metadata paths of the downward API.
pub fn object_field(metadata: &ObjectMeta, path: &str) -> Result<String, String> {
    let value = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key).cloned()).unwrap_or_default()
    };
    let empty = BTreeMap::new();
    match ObjectField::parse(path) {
        ObjectField::Subscript("metadata.annotations", key) => Ok(value(&metadata.annotations, key)),
        ObjectField::Subscript("metadata.labels", key) => Ok(value(&metadata.labels, key)),
        ObjectField::Subscript(..) => Err(format!("fieldPath {path:?} does not support subscript")),
        ObjectField::Plain("metadata.annotations") => {
            Ok(format_map(metadata.annotations.as_ref().unwrap_or(&empty)))
        }
        ObjectField::Plain("metadata.labels") => Ok(format_map(metadata.labels.as_ref().unwrap_or(&empty))),
        ObjectField::Plain("metadata.name") => Ok(metadata.name.clone().unwrap_or_default()),
        ObjectField::Plain("metadata.namespace") => Ok(metadata.namespace.clone().unwrap_or_default()),
        ObjectField::Plain("metadata.uid") => Ok(metadata.uid.clone().unwrap_or_default()),
        ObjectField::Plain(_) => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// A map as lines `key="value"`, sorted, values quoted as Go quotes them.
pub fn format_map(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect::<Vec<_>>().join("\n")
}

/// Go's strconv.Quote.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_control() && (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_fields_are_found() {
        let map = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let metadata = ObjectMeta {
            name: Some("n".to_owned()),
            labels: map(&[("b", "2"), ("a", "x\"y\nz")]),
            annotations: map(&[("k", "v")]),
            ..ObjectMeta::default()
        };
        for (path, want) in [
            ("metadata.name", Ok("n")),
            ("metadata.namespace", Ok("")),
            ("metadata.labels", Ok("a=\"x\\\"y\\nz\"\nb=\"2\"")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.annotations['k']", Ok("v")),
            ("metadata.annotations['none']", Ok("")),
            ("spec.nope", Err("unsupported fieldPath: spec.nope")),
            ("metadata.name['x']", Err("fieldPath \"metadata.name['x']\" does not support subscript")),
        ] {
            assert_eq!(
                object_field(&metadata, path),
                want.map(str::to_owned).map_err(str::to_owned),
                "{path}"
            );
        }
    }
}
