//! Field selectors: parsing, the fields that each kind can be selected by, and their values.

use std::fmt;

/// The selectable fields of an object with their values.
pub type Fields = Vec<(&'static str, String)>;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// The field, for example `metadata.name`.
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// Whether the field must have the value, or must not.
    pub equals: bool,
}

/// A conjunction of conditions on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    /// The conditions.
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Matches everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// One field with one value.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            requirements: vec![FieldRequirement { field: field.into(), value: value.into(), equals: true }],
        }
    }

    /// Reads `a=b,c!=d`. The error is upstream's message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let (field, equals, value) = split_term(term)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            requirements.push(FieldRequirement { field: field.to_owned(), value: unescape(value)?, equals });
        }
        Ok(Self { requirements })
    }

    /// Renames fields by `transform`, which may refuse one.
    pub fn transform(mut self, transform: impl Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        for requirement in &mut self.requirements {
            requirement.field = transform(&requirement.field)?;
        }
        Ok(self)
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether fields, looked up by name, meet all conditions. A field that is not there is empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (field(&r.field).unwrap_or_default() == r.value) == r.equals)
    }

    /// As [`Self::matches`], over extracted fields.
    #[must_use]
    pub fn matches_fields(&self, fields: &Fields) -> bool {
        self.matches(|name| fields.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str()))
    }

    /// The one value that a field must have, if the selector says so.
    #[must_use]
    pub fn requires_exact_match(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equals && r.field == field).map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if requirement.equals { "=" } else { "!=" };
            let value = requirement.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", requirement.field)?;
        }
        Ok(())
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.char_indices().map(|(i, _)| i).find(|i| {
        let rest = &term[*i..];
        rest.starts_with("!=") || rest.starts_with('=')
    })?;
    let (field, rest) = term.split_at(at);
    let equals = !rest.starts_with("!=");
    let value = rest.strip_prefix("!=").or_else(|| rest.strip_prefix("==")).unwrap_or(&rest[1..]);
    Some((field, equals, value))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// What upstream says of a field that a kind without fields of its own cannot be selected by.
#[must_use]
pub fn field_label_error(label: &str) -> String {
    format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_printed() {
        let cases = [
            ("", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("x!=a,y==b", "x!=a,y=b"),
            ("x=a\\,b", "x=a\\,b"),
            ("x=a\\=b", "x=a\\=b"),
            (",,", ""),
            ("b=1,a=2", "a=2,b=1"),
        ];
        for (text, want) in cases {
            assert_eq!(FieldSelector::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn bad_selectors_are_explained_as_upstream_does() {
        let cases = [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a=b\\c", "invalid field selector: invalid escape sequence: \\c"),
            ("a=\\", "invalid field selector: invalid escape sequence: \\"),
        ];
        for (text, want) in cases {
            assert_eq!(FieldSelector::parse(text).expect_err(text), want);
        }
    }

    #[test]
    fn absent_fields_are_empty() {
        let selector = FieldSelector::parse("spec.nodeName=,metadata.name!=b").unwrap();
        assert!(selector.matches_fields(&vec![("metadata.name", "a".to_owned())]));
        assert!(!selector.matches_fields(&vec![("metadata.name", "b".to_owned())]));
        assert!(!selector.matches_fields(&vec![("spec.nodeName", "n".to_owned())]));
    }
}
