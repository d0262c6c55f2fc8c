//! Field paths and field errors: what is wrong with an object, where (upstream `util/validation/field`).

use std::fmt;

use serde_json::Value;
use smallvec::SmallVec;

/// The path of a field inside an object, written as upstream does: `spec.containers[0].ports[1].name`,
/// `metadata.labels[app]`.
///
/// Checks make the path of every field they look at, and hardly ever use it: those of an ordinary length take no
/// memory of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(SmallVec<[u8; 88]>);

impl Path {
    /// The path of a top-level field.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(SmallVec::from_slice(name.as_bytes()))
    }

    /// The object itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A field below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { self.and(&[".", name]) }
    }

    /// An element of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.key(&index.to_string())
    }

    /// An entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.and(&["[", key, "]"])
    }

    fn and(&self, parts: &[&str]) -> Self {
        let mut path =
            SmallVec::with_capacity(self.0.len() + parts.iter().map(|part| part.len()).sum::<usize>());
        path.extend_from_slice(&self.0);
        parts.iter().for_each(|part| path.extend_from_slice(part.as_bytes()));
        Self(path)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is made of texts alone.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { self.as_str() })
    }
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// A referenced thing does not exist.
    NotFound,
    /// A value is missing.
    Required,
    /// A value that must be unique stands twice.
    Duplicate,
    /// A value is malformed or out of bounds.
    Invalid,
    /// A value is not one of those known.
    NotSupported,
    /// A value is not allowed here.
    Forbidden,
    /// A string or list is too long, by bytes or characters.
    TooLong,
    /// A list or map has too many items.
    TooMany,
    /// A list or map has too few items.
    TooFew,
    /// A string is too short.
    TooShort,
    /// The check itself failed.
    Internal,
    /// A value is of the wrong type.
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a status cause.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::TooShort => "FieldValueTooShort",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// The words that upstream begins a message with.
    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::TooShort => "Too short",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of thing is wrong.
    pub kind: ErrorType,
    /// Where.
    pub field: Path,
    /// The offending value; shown in the message for the kinds that upstream shows it for.
    pub value: Value,
    /// What would be right.
    pub detail: String,
    /// The value as text, where it is not what [`Self::message`] would make of it.
    pub shown: Option<String>,
}

/// All that is wrong with an object, in upstream's order.
pub type ErrorList = Vec<Error>;

impl Error {
    fn new(kind: ErrorType, field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind, field: field.clone(), value: value.into(), detail: detail.into(), shown: None }
    }

    /// A malformed or out-of-bounds value.
    pub fn invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, value, detail)
    }

    /// A malformed value that is not shown.
    pub fn invalid_omitted(field: &Path, detail: impl Into<String>) -> Self {
        Self { shown: Some(String::new()), ..Self::new(ErrorType::Invalid, field, Value::Null, detail) }
    }

    /// The same, without showing the value.
    #[must_use]
    pub fn without_value(self) -> Self {
        Self { shown: Some(String::new()), ..self }
    }

    /// A missing value.
    pub fn required(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, field, Value::Null, detail)
    }

    /// A value that must be unique and stands twice.
    pub fn duplicate(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::Duplicate, field, value, "")
    }

    /// A value that is not allowed here.
    pub fn forbidden(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, field, Value::Null, detail)
    }

    /// A referenced thing that does not exist.
    pub fn not_found(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::NotFound, field, value, "")
    }

    /// A check that failed by itself.
    pub fn internal(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Internal, field, Value::Null, detail)
    }

    /// A value of the wrong type.
    pub fn type_invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::TypeInvalid, field, value, detail)
    }

    /// A value that is not one of `supported` (given in the order to be shown; upstream sorts most of them).
    pub fn not_supported(field: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<_> = supported.iter().map(|s| quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(ErrorType::NotSupported, field, value, detail)
    }

    /// A string longer than `max` bytes.
    pub fn too_long(field: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(ErrorType::TooLong, field, Value::Null, format!("may not be more than {max} {unit}"))
    }

    /// A string longer than `max` characters.
    pub fn too_long_characters(field: &Path, max: usize) -> Self {
        let unit = if max == 1 { "character" } else { "characters" };
        Self::new(ErrorType::TooLong, field, Value::Null, format!("may not be more than {max} {unit}"))
    }

    /// A list or map with more than `max` items.
    pub fn too_many(field: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(ErrorType::TooMany, field, Value::from(actual), format!("must have at most {max} {unit}"))
    }

    /// A list or map with fewer than `min` items.
    pub fn too_few(field: &Path, actual: usize, min: usize) -> Self {
        let unit = if min == 1 { "item" } else { "items" };
        Self::new(ErrorType::TooFew, field, Value::from(actual), format!("must have at least {min} {unit}"))
    }

    /// A malformed value whose text is made by the caller: objects are shown with Go's order of fields.
    pub fn invalid_shown(field: &Path, shown: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { shown: Some(shown.into()), ..Self::new(ErrorType::Invalid, field, Value::Null, detail) }
    }

    /// The message without the field, as in a status cause.
    #[must_use]
    pub fn message(&self) -> String {
        let words = self.kind.words();
        let shown = match self.kind {
            ErrorType::Required
            | ErrorType::Forbidden
            | ErrorType::TooLong
            | ErrorType::TooShort
            | ErrorType::Internal => None,
            _ => Some(self.shown.clone().unwrap_or_else(|| show(&self.value)))
                .filter(|shown| !shown.is_empty()),
        };
        match (shown, self.detail.is_empty()) {
            (None, true) => words.to_owned(),
            (None, false) => format!("{words}: {}", self.detail),
            (Some(value), true) => format!("{words}: {value}"),
            (Some(value), false) => format!("{words}: {value}: {}", self.detail),
        }
    }
}

/// How upstream shows a bad value: strings quoted as Go does, everything else as Go's JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => json(other),
    }
}

/// JSON as Go writes it, which escapes what could end a script in HTML.
#[must_use]
pub fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    if !text.contains(['<', '>', '&']) {
        return text;
    }
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Text in double quotes as Go's `%q` writes it.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_ascii() || !c.escape_debug().eq([c]) => match c {
                c if c.is_ascii() => out.push(c),
                c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            },
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

/// Adds errors to a list.
pub(crate) trait Report {
    fn required(&mut self, path: &Path, detail: impl Into<String>);
    fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl Into<String>);
    fn forbidden(&mut self, path: &Path, detail: impl Into<String>);
    fn duplicate(&mut self, path: &Path, value: impl Into<Value>);
    fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]);
    fn too_long(&mut self, path: &Path, max: usize);
    /// One `Invalid` for each message.
    fn messages(&mut self, path: &Path, value: &str, messages: Vec<String>);
    /// `NotSupported` unless the value is one of `supported`, which are shown in the order given.
    fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]);
}

impl Report for ErrorList {
    fn required(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(Error::required(path, detail));
    }

    fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(Error::invalid(path, value, detail));
    }

    fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(Error::forbidden(path, detail));
    }

    fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.push(Error::duplicate(path, value));
    }

    fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        self.push(Error::not_supported(path, value, supported));
    }

    fn too_long(&mut self, path: &Path, max: usize) {
        self.push(Error::too_long(path, max));
    }

    fn messages(&mut self, path: &Path, value: &str, messages: Vec<String>) {
        self.extend(messages.into_iter().map(|message| Error::invalid(path, value, message)));
    }

    fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_go_shows_them() {
        let path = Path::new("spec").child("x").index(2).key("k");
        let cases = [
            (
                Error::invalid(&path, "a\"b\u{200b}\u{1}é", "bad"),
                "Invalid value: \"a\\\"b\\u200b\\x01é\": bad",
            ),
            (Error::invalid(&path, 3, "bad"), "Invalid value: 3: bad"),
            (Error::invalid(&path, Value::Null, "bad"), "Invalid value: null: bad"),
            (Error::required(&path, ""), "Required value"),
            (Error::duplicate(&path, "x"), "Duplicate value: \"x\""),
            (
                Error::not_supported(&path, "c", &["a", "b"]),
                "Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (Error::too_many(&path, 5, 1), "Too many: 5: must have at most 1 item"),
            (Error::too_long(&path, 63), "Too long: may not be more than 63 bytes"),
            (
                Error::invalid(&path, serde_json::json!({"a": "<"}), "bad"),
                "Invalid value: {\"a\":\"\\u003c\"}: bad",
            ),
        ];
        for (error, want) in cases {
            assert_eq!(error.message(), want);
            assert_eq!(error.to_string(), format!("spec.x[2][k]: {want}"));
        }
    }
}
