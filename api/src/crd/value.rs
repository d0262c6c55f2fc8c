//! Checking values against a JSON schema, worded and ordered as upstream's fork of go-openapi does it
//! (`kube-openapi/pkg/validation/validate`, with ratcheting as in `apiextensions` `apiserver/validation`).

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSON, JSONSchemaPropsOrBool};
use regex::Regex;
use serde_json::{Map, Value};

use super::correlate::Correlated;
use super::formats::{self, Format};
use super::number;
use super::props::{Props, PropsExt, list, text};
use crate::field::{Error, ErrorList, Path, json, quote};
use crate::regexp;

/// A schema made ready for checking values.
#[derive(Debug, Default)]
pub struct Checker {
    types: Vec<String>,
    nullable: bool,
    format_name: String,
    format: Option<Format>,
    pub(super) numbers: number::Limits,
    max_length: Option<i64>,
    min_length: Option<i64>,
    pattern: Option<(String, Result<Regex, String>)>,
    max_items: Option<i64>,
    min_items: Option<i64>,
    unique_items: bool,
    max_properties: Option<i64>,
    min_properties: Option<i64>,
    required: Vec<String>,
    values: Vec<Value>,
    items: Option<Box<Checker>>,
    properties: BTreeMap<String, Checker>,
    additional: Additional,
    all_of: Vec<Checker>,
    any_of: Vec<Checker>,
    one_of: Vec<Checker>,
    not: Option<Box<Checker>>,
}

#[derive(Debug, Default)]
enum Additional {
    #[default]
    Allowed,
    Forbidden,
    Checked(Box<Checker>),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    kind: Kind,
    /// Where, as `spec.list[0].name`.
    name: String,
    value: Value,
    message: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// A value that does not satisfy a keyword.
    Invalid,
    /// A value of another type.
    Type,
    Required,
    Enum(Vec<Value>),
    TooLong(i64),
    TooMany {
        actual: usize,
        max: i64,
    },
    /// Upstream knows no place for it.
    General,
}

impl Problem {
    pub(super) fn general(message: String) -> Self {
        Self { kind: Kind::General, name: String::new(), value: Value::Null, message }
    }

    pub(super) fn invalid(name: &str, value: impl Into<Value>, message: String) -> Self {
        Self { kind: Kind::Invalid, name: name.to_owned(), value: value.into(), message }
    }

    /// The value is of type `found` rather than `wanted`.
    fn of_type(name: &str, wanted: &str, found: &str) -> Self {
        let message = format!("{name} in body must be of type {wanted}: {}", quote(found));
        Self { kind: Kind::Type, ..Self::invalid(name, found, message) }
    }

    fn into_error(self, base: &Path) -> Error {
        let at = match self.name.as_str() {
            "" | "." => base.clone(),
            name => base.child(name.strip_prefix('.').unwrap_or(name)),
        };
        match self.kind {
            Kind::General => Error::invalid(base, "", self.message),
            Kind::Invalid => Error::invalid(&at, or_empty(self.value), self.message),
            Kind::Type => Error::type_invalid(&at, or_empty(self.value), self.message),
            Kind::Required => Error::required(&at, ""),
            Kind::Enum(values) => {
                let shown: Vec<String> = values
                    .iter()
                    .map(|value| value.as_str().map_or_else(|| json(value), str::to_owned))
                    .collect();
                Error::not_supported(&at, self.value, &shown.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Kind::TooLong(max) => Error::too_long(&at, usize::try_from(max).unwrap_or_default()),
            Kind::TooMany { actual, max } => {
                Error::too_many(&at, actual, usize::try_from(max).unwrap_or_default())
            }
        }
    }
}

/// Go shows a missing value as an empty text.
fn or_empty(value: Value) -> Value {
    if value.is_null() { Value::from("") } else { value }
}

/// What checking found, and how many checks were passed: of several alternatives the one that passed most is told.
#[derive(Default)]
pub(super) struct Outcome {
    problems: Vec<Problem>,
    matches: i64,
}

impl Outcome {
    fn of(problem: Problem) -> Self {
        Self { problems: vec![problem], matches: 0 }
    }

    pub(super) fn add(&mut self, problem: Problem) {
        if !self.problems.iter().any(|known| known.text() == problem.text()) {
            self.problems.push(problem);
        }
    }

    fn merge(&mut self, other: Self) {
        other.problems.into_iter().for_each(|problem| self.add(problem));
        self.matches += other.matches;
    }

    pub(super) fn increment(&mut self) {
        self.matches += 1;
    }

    fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Problem {
    fn text(&self) -> &str {
        &self.message
    }
}

impl Checker {
    /// For objects: formats that upstream does not check are ignored (upstream `NewSchemaValidator`).
    #[must_use]
    pub fn new(schema: &Props) -> Self {
        Self::compile(schema, true)
    }

    /// For defaults, which upstream checks by the structural schema: an integer or string may be anything there.
    #[must_use]
    pub(crate) fn for_defaults(schema: &Props) -> Self {
        Self::compile(schema, false)
    }

    fn compile(schema: &Props, objects: bool) -> Self {
        let all = |clauses: &Option<Vec<Props>>| {
            list(clauses).iter().map(|clause| Self::compile(clause, objects)).collect::<Vec<_>>()
        };
        let types = match schema.kind() {
            _ if schema.int_or_string() && objects => vec!["integer".to_owned(), "string".to_owned()],
            "" => Vec::new(),
            kind => vec![kind.to_owned()],
        };
        let format_name = match text(&schema.format) {
            name if objects && !formats::is_supported(name, &types) => "",
            name => name,
        };
        let pattern = text(&schema.pattern);
        Self {
            nullable: schema.is_nullable(),
            format: formats::find(format_name),
            numbers: number::Limits::new(schema, &types, format_name),
            format_name: format_name.to_owned(),
            max_length: schema.max_length,
            min_length: schema.min_length,
            pattern: (!pattern.is_empty()).then(|| (pattern.to_owned(), regexp::compile(pattern))),
            max_items: schema.max_items,
            min_items: schema.min_items,
            unique_items: schema.unique_items.unwrap_or_default(),
            max_properties: schema.max_properties,
            min_properties: schema.min_properties,
            required: schema.required_names().to_vec(),
            values: schema.enumerated().iter().map(|JSON(value)| value.clone()).collect(),
            items: schema.item().map(|item| Box::new(Self::compile(item, objects))),
            properties: schema
                .fields()
                .map(|(name, field)| (name.clone(), Self::compile(field, objects)))
                .collect(),
            additional: match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Bool(false)) => Additional::Forbidden,
                Some(JSONSchemaPropsOrBool::Schema(inner)) => {
                    Additional::Checked(Box::new(Self::compile(inner, objects)))
                }
                _ => Additional::Allowed,
            },
            all_of: all(&schema.all_of),
            any_of: all(&schema.any_of),
            one_of: all(&schema.one_of),
            not: schema.not.as_ref().map(|clause| Box::new(Self::compile(clause, objects))),
            types,
        }
    }

    /// The checks of one field, on their own.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name)
    }

    /// What is wrong with a value.
    #[must_use]
    pub fn check(&self, value: &Value, base: &Path) -> ErrorList {
        self.errors(self.run(value, "", None), base)
    }

    /// What is wrong with a changed value. What was wrong before and has not been changed does not count.
    #[must_use]
    pub(crate) fn check_update(&self, value: &Value, old: Option<&Correlated<'_>>, base: &Path) -> ErrorList {
        self.errors(self.ratcheted(value, "", old), base)
    }

    fn errors(&self, outcome: Outcome, base: &Path) -> ErrorList {
        outcome.problems.into_iter().map(|problem| problem.into_error(base)).collect()
    }

    fn ratcheted(&self, value: &Value, path: &str, old: Option<&Correlated<'_>>) -> Outcome {
        let mut outcome = self.run(value, path, old);
        if !outcome.is_valid() && old.is_some_and(Correlated::is_unchanged) {
            outcome.problems.clear();
        }
        outcome
    }

    fn run(&self, value: &Value, path: &str, old: Option<&Correlated<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        if value.is_null() {
            outcome.merge(self.check_type(value, path));
            outcome.merge(self.check_enum(value, path));
            return outcome;
        }
        let mut passed = |found: Outcome| {
            outcome.merge(found);
            outcome.matches += 1;
        };
        if !self.types.is_empty() || !self.format_name.is_empty() {
            passed(self.check_type(value, path));
        }
        passed(self.check_clauses(value, path, old));
        match value {
            Value::String(text) => {
                passed(self.check_text(text, path));
                if self.format.is_some() {
                    passed(self.check_format(text, path));
                }
            }
            Value::Number(number) => passed(self.numbers.check(number, path)),
            Value::Array(items) => passed(self.check_items(items, path, old)),
            _ => {}
        }
        passed(self.check_enum(value, path));
        if let Value::Object(fields) = value {
            passed(self.check_fields(fields, path, old));
        }
        outcome.matches += 1;
        outcome
    }

    fn check_type(&self, value: &Value, path: &str) -> Outcome {
        let passed = Outcome { problems: Vec::new(), matches: 1 };
        let is = |kind: &str| self.types.iter().any(|own| own == kind);
        let wanted = || self.types.join(",");
        if value.is_null() {
            let fits = self.types.is_empty() || is("null") || self.nullable;
            return if fits { passed } else { Outcome::of(Problem::of_type(path, &wanted(), "null")) };
        }
        let (kind, format) = type_of(value);
        let whole_float = kind == "number" && is("integer") && number::is_integer(value);
        let number = kind == "integer" && is("number");
        let texts = matches!(value, Value::String(_) | Value::Array(_));
        let own_format = self.format_name.as_str();
        if !(texts || own_format.is_empty() || is(kind) || format == own_format || whole_float || number) {
            return Outcome::of(Problem::of_type(path, own_format, format));
        }
        if texts && !own_format.is_empty() && !is("number") && !is("integer") {
            return passed;
        }
        if is(kind) || whole_float || number {
            return passed;
        }
        Outcome::of(Problem::of_type(path, &wanted(), kind))
    }

    fn check_enum(&self, value: &Value, path: &str) -> Outcome {
        if self.values.is_empty() || self.values.iter().any(|allowed| same_value(value, allowed)) {
            return Outcome::default();
        }
        let message = format!("{path} in body should be one of {}", go_values(&self.values));
        let kind = Kind::Enum(self.values.clone());
        Outcome::of(Problem { kind, ..Problem::invalid(path, value.clone(), message) })
    }

    fn check_text(&self, text: &str, path: &str) -> Outcome {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            let message = format!("{path} in body should be at most {max} chars long");
            return Outcome::of(Problem {
                kind: Kind::TooLong(max),
                ..Problem::invalid(path, text, message)
            });
        }
        if let Some(min) = self.min_length.filter(|min| length < *min) {
            let message = format!("{path} in body should be at least {min} chars long");
            return Outcome::of(Problem::invalid(path, text, message));
        }
        match &self.pattern {
            Some((pattern, Ok(regex))) if !regex.is_match(text) => {
                Outcome::of(Problem::invalid(path, text, format!("{path} in body should match '{pattern}'")))
            }
            Some((pattern, Err(why))) => {
                let message =
                    format!("{path} in body should match '{pattern}, but pattern is invalid: {why}'");
                Outcome::of(Problem::invalid(path, text, message))
            }
            _ => Outcome::default(),
        }
    }

    fn check_format(&self, text: &str, path: &str) -> Outcome {
        match self.format {
            Some(format) if !format(text) => Outcome::of(Problem::of_type(path, &self.format_name, text)),
            _ => Outcome::default(),
        }
    }

    fn check_items(&self, items: &[Value], path: &str, old: Option<&Correlated<'_>>) -> Outcome {
        let mut outcome = Outcome { problems: Vec::new(), matches: 1 };
        if let Some(item) = &self.items {
            for (i, value) in items.iter().enumerate() {
                let before = old.and_then(|old| old.index(i));
                outcome.merge(item.ratcheted(value, &format!("{path}[{i}]"), before.as_ref()));
            }
        }
        let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(min) = self.min_items.filter(|min| size < *min) {
            let message = format!("{path} in body should have at least {min} items");
            outcome.add(Problem::invalid(path, size, message));
        }
        if let Some(max) = self.max_items.filter(|max| size > *max) {
            let message = format!("{path} in body should have at most {max} items");
            let kind = Kind::TooMany { actual: items.len(), max };
            outcome.add(Problem { kind, ..Problem::invalid(path, size, message) });
        }
        let repeated = || items.iter().enumerate().any(|(i, item)| items[..i].contains(item));
        if self.unique_items && repeated() {
            let message = format!("{path} in body shouldn't contain duplicates");
            outcome.add(Problem::invalid(path, Value::Null, message));
        }
        outcome
    }

    fn check_fields(&self, fields: &Map<String, Value>, path: &str, old: Option<&Correlated<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        let size = i64::try_from(fields.len()).unwrap_or(i64::MAX);
        if let Some(min) = self.min_properties.filter(|min| size < *min) {
            let message = format!("{path} in body should have at least {min} properties");
            outcome.add(Problem::invalid(path, size, message));
        }
        if let Some(max) = self.max_properties.filter(|max| size > *max) {
            let message = format!("{path} in body should have at most {max} properties");
            let kind = Kind::TooMany { actual: fields.len(), max };
            outcome.add(Problem { kind, ..Problem::invalid(path, size, message) });
        }
        let before = |name: &str| {
            // What identifies the type of the whole object is never taken as unchanged.
            let of_type = path.is_empty() && matches!(name, "kind" | "apiVersion");
            old.filter(|_| !of_type).and_then(|old| old.key(name))
        };
        for (name, value) in fields.iter().filter(|(name, _)| !self.properties.contains_key(*name)) {
            match &self.additional {
                Additional::Allowed => {}
                Additional::Forbidden => {
                    let message = format!("{path}.{name} in body is a forbidden property");
                    outcome.add(Problem::invalid(path, name.as_str(), message));
                }
                Additional::Checked(inner) => {
                    outcome.merge(inner.ratcheted(value, &format!("{path}.{name}"), before(name).as_ref()));
                }
            }
        }
        for (name, inner) in &self.properties {
            let Some(value) = fields.get(name) else { continue };
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            outcome.merge(inner.ratcheted(value, &at, before(name).as_ref()));
        }
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            let at = format!("{path}.{name}");
            let message = format!("{at} in body is required");
            outcome.add(Problem { kind: Kind::Required, ..Problem::invalid(&at, Value::Null, message) });
        }
        outcome
    }

    fn check_clauses(&self, value: &Value, path: &str, old: Option<&Correlated<'_>>) -> Outcome {
        let mut outcome = Outcome::default();
        self.check_any_of(value, path, old, &mut outcome);
        self.check_one_of(value, path, old, &mut outcome);
        let mut valid = 0;
        for clause in &self.all_of {
            let result = clause.run(value, path, old);
            valid += usize::from(result.is_valid());
            outcome.merge(result);
        }
        if valid != self.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            let message = format!("{} must validate all the schemas (allOf){none}", quote(path));
            outcome.add(Problem::general(message));
        }
        if self.not.as_ref().is_some_and(|clause| clause.run(value, path, old).is_valid()) {
            let message = format!("{} must not validate the schema (not)", quote(path));
            outcome.add(Problem::general(message));
        }
        outcome.matches += 1;
        outcome
    }

    fn check_any_of(&self, value: &Value, path: &str, old: Option<&Correlated<'_>>, outcome: &mut Outcome) {
        let mut best: Option<Outcome> = None;
        for clause in &self.any_of {
            let result = clause.run(value, path, old);
            if result.is_valid() {
                return outcome.merge(result);
            }
            if best.as_ref().is_none_or(|best| result.matches > best.matches) {
                best = Some(result);
            }
        }
        if let Some(best) = best {
            let message = format!("{} must validate at least one schema (anyOf)", quote(path));
            outcome.add(Problem::general(message));
            outcome.merge(best);
        }
    }

    fn check_one_of(&self, value: &Value, path: &str, old: Option<&Correlated<'_>>, outcome: &mut Outcome) {
        let mut best: Option<Outcome> = None;
        let mut first: Option<Outcome> = None;
        let mut valid = 0;
        for clause in &self.one_of {
            let result = clause.run(value, path, old);
            if result.is_valid() {
                valid += 1;
                best = None;
                first.get_or_insert(result);
            } else if valid == 0 && best.as_ref().is_none_or(|best| result.matches > best.matches) {
                best = Some(result);
            }
        }
        match (valid, first) {
            (1, Some(first)) => outcome.merge(first),
            _ if self.one_of.is_empty() => {}
            (0, _) => {
                let message = format!(
                    "{} must validate one and only one schema (oneOf). Found none valid",
                    quote(path)
                );
                outcome.add(Problem::general(message));
            }
            (count, _) => {
                let message = format!(
                    "{} must validate one and only one schema (oneOf). Found {count} valid alternatives",
                    quote(path)
                );
                outcome.add(Problem::general(message));
            }
        }
        if let Some(best) = best {
            outcome.merge(best);
        }
    }
}

/// The JSON type of a value and the format that Go's type has.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

/// Whether a value is one that an enumeration lists, after Go's conversion between kinds of numbers.
fn same_value(value: &Value, allowed: &Value) -> bool {
    match (value, allowed) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64(), a.as_f64(), b.as_f64()) {
            (Some(a), Some(b), ..) => a == b,
            (None, Some(b), Some(a), _) => a.trunc() == b as f64,
            (_, _, Some(a), Some(b)) => a == b,
            _ => false,
        },
        (a, b) => a == b,
    }
}

/// Values as Go's `%v` prints a slice.
fn go_values(values: &[Value]) -> String {
    let texts: Vec<String> =
        values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
    format!("[{}]", texts.join(" "))
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
