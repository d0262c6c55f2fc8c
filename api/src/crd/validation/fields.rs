//! Selectable fields, and paths to fields that a schema knows (upstream `ValidateCustomResourceSelectableFields` and
//! `cel.ValidFieldPath`).

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::SelectableField;

use super::options::Options;
use crate::crd::props::{Props, PropsExt};
use crate::field::{Error, ErrorList, Path, Report};

/// No version may have more selectable fields.
pub(super) const MAX_SELECTABLE: usize = 8;

const NOT_A_FIELD: &str = "does not refer to a valid field";
const UNEXPECTED_END: &str = "unexpected end of JSON path";

pub(super) fn validate(
    fields: &[SelectableField],
    schema: &Props,
    options: &Options,
    version: &str,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut unique = BTreeSet::new();
    for (i, field) in fields.iter().enumerate() {
        let at = path.index(i).child("jsonPath");
        let own = field.json_path.as_str();
        if own.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let (found, end) = match field_path(own, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&at, own, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if found.as_str().split(['.', '[']).next() == Some("metadata") {
            errors.invalid(&at, own, "must not point to fields in metadata");
        }
        if !end.is_some_and(|end| matches!(end.kind(), "string" | "boolean" | "integer")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&at, own, detail);
        }
        if !unique.insert(found) {
            errors.duplicate(&at, own);
        }
    }
    if unique.len() > MAX_SELECTABLE && !options.many_selectable.contains(version) {
        errors.push(Error::too_many(path, unique.len(), MAX_SELECTABLE));
    }
    errors
}

/// Follows a path through a schema: `.spec.name`, or `.spec['name']` if `brackets` are allowed. Gives it as a path of
/// fields, with the schema at its end, if that has one.
pub(crate) fn field_path<'s>(
    text: &str,
    schema: &'s Props,
    brackets: bool,
) -> Result<(Path, Option<&'s Props>), String> {
    let mut tokens = Tokens { rest: text };
    let (mut path, mut at) = (Path::root(), Some(schema));
    while let Some(token) = tokens.next() {
        let name = match token {
            "." => tokens.next().ok_or(UNEXPECTED_END)?.to_owned(),
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let token = tokens.next().ok_or(UNEXPECTED_END)?;
                let inside = token.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let inside =
                    inside.ok_or_else(|| format!("expected single quoted string but got {token}"))?;
                unescape(inside)?
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let here = at.ok_or(NOT_A_FIELD)?;
        if here.properties.as_ref().is_some_and(|fields| !fields.is_empty()) {
            path = path.child(&name);
            at = Some(here.field(&name).ok_or(NOT_A_FIELD)?);
        } else if here.has_additional() {
            path = path.key(&name);
            at = here.additional();
        } else {
            return Err(NOT_A_FIELD.to_owned());
        }
        if token == "[" {
            match tokens.next().ok_or(UNEXPECTED_END)? {
                "]" => {}
                other => return Err(format!("expected ] but got {other}")),
            }
        }
    }
    Ok((path, at))
}

/// Splits at dots and brackets, but not within quotes.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let first = bytes.first()?;
        let end = match first {
            b'.' | b'[' | b']' => 1,
            b'\'' => (1..bytes.len())
                .find(|i| bytes[*i] == b'\'' && bytes[i - 1] != b'\\')
                .map_or(bytes.len(), |i| i + 1),
            _ => self.rest.find(['.', '[', ']']).unwrap_or(bytes.len()),
        };
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | '\'' | '"')) => out.push(escaped),
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                _ => return Err("invalid string literal: invalid syntax".to_owned()),
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_followed_through_fields_and_maps() {
        let schema: Props = serde_json::from_value(json!({"type": "object", "properties": {
            "foo": {"type": "object", "properties": {"bar": {"type": "string"}, "f.b[a]r34": {"type": "string"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object",
                "properties": {"x": {"type": "integer"}}}},
        }})).expect("a schema");
        for (text, want) in [
            (".foo.bar", Ok("foo.bar")),
            (".foo['bar']", Ok("foo.bar")),
            (".foo['f.b[a]r34']", Ok("foo.f.b[a]r34")),
            (".map.any.x", Ok("map[any].x")),
            (".map['a.b'].x", Ok("map[a.b].x")),
            ("", Ok("")),
            (".foo.nope", Err(NOT_A_FIELD)),
            (".foo.bar.baz", Err(NOT_A_FIELD)),
            (".foo.", Err(UNEXPECTED_END)),
            (".foo['bar'", Err(UNEXPECTED_END)),
            ("foo", Err("expected [ or . but got: foo")),
            (".foo[bar]", Err("expected single quoted string but got bar")),
            (".foo['bar'x", Err("expected ] but got x")),
        ] {
            let got = field_path(text, &schema, true).map(|(path, _)| path.as_str().to_owned());
            assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
        assert_eq!(
            field_path(".foo['bar']", &schema, false).err().as_deref(),
            Some("array notation is not allowed")
        );
    }
}
