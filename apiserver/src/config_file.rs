//! Configuration files of the server (`apiserver.config.k8s.io`): strict, so that nothing in them is overlooked.

use api::codec::yaml;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The group of the server's own configuration files.
pub const GROUP: &str = "apiserver.config.k8s.io";

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no YAML or JSON.
    #[error("{0}")]
    Unreadable(String),
    /// It has unknown fields, wrong types, or keys that are given twice.
    #[error("strict decoding error: {0}")]
    Strict(String),
    /// It is another kind of object.
    #[error("no kind {kind:?} is registered for version {version:?}, expected {expected}")]
    Kind {
        /// Its `kind`.
        kind: String,
        /// Its `apiVersion`.
        version: String,
        /// What was looked for.
        expected: String,
    },
}

/// Reads an object of the configuration group and this kind in one of `versions`, which is given back too.
///
/// # Errors
/// When it cannot be used.
pub fn decode<T: DeserializeOwned>(text: &[u8], kind: &str, versions: &[&str]) -> Result<(String, T), Error> {
    let full: Vec<String> = versions.iter().map(|version| format!("{GROUP}/{version}")).collect();
    let full: Vec<&str> = full.iter().map(String::as_str).collect();
    let (version, object) = decode_of(text, kind, &full)?;
    let version = version.rsplit('/').next().unwrap_or_default().to_owned();
    Ok((version, object))
}

/// Reads an object of this kind in one of `versions`, each with its group; it is given back too.
///
/// # Errors
/// When it cannot be used.
pub fn decode_of<T: DeserializeOwned>(
    text: &[u8],
    kind: &str,
    versions: &[&str],
) -> Result<(String, T), Error> {
    let loaded = yaml::load(text).map_err(|error| Error::Unreadable(error.to_string()))?;
    if let Some(error) = loaded.strict_error() {
        return Err(Error::Strict(error));
    }
    let mut value = without_nulls(loaded.value);
    let mut take = |field: &str| match value.as_object_mut().and_then(|object| object.remove(field)) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (found, api_version) = (take("kind"), take("apiVersion"));
    if found != kind || !versions.contains(&api_version.as_str()) {
        let expected = format!("{kind} of {}", versions.join(" or "));
        return Err(Error::Kind { kind: found, version: api_version, expected });
    }
    let object = serde_json::from_value(value).map_err(|error| Error::Strict(error.to_string()))?;
    Ok((api_version, object))
}

/// What is null is absent, as Go's decoder has it.
#[must_use]
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// What the system says of a file, in Go's words.
#[must_use]
pub fn go_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        size: Option<i64>,
    }

    #[test]
    fn files_are_read_strictly() {
        let read = |text: &str| {
            decode::<Sample>(text.as_bytes(), "Sample", &["v1", "v1beta1"]).map_err(|error| error.to_string())
        };
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: Sample\n";
        assert_eq!(read(&format!("{head}size: 3")), Ok(("v1".to_owned(), Sample { size: Some(3) })));
        assert_eq!(read(&format!("{head}size: null")), Ok(("v1".to_owned(), Sample { size: None })));
        for (text, expected) in [
            (format!("{head}sise: 3"), "strict decoding error: unknown field `sise`"),
            (format!("{head}size: a"), "strict decoding error: invalid type"),
            (format!("{head}size: 1\nsize: 2"), "strict decoding error: yaml: unmarshal errors"),
            (
                "apiVersion: v1\nkind: Sample".to_owned(),
                "no kind \"Sample\" is registered for version \"v1\"",
            ),
            ("apiVersion: apiserver.config.k8s.io/v2\nkind: Sample".to_owned(), "no kind \"Sample\""),
            ("a: [".to_owned(), "yaml: "),
        ] {
            let error = read(&text).expect_err("refused");
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
