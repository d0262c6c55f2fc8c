//! Steps of a path, their order and their two text forms (upstream `fieldpath/element.go`, `serialize-pe.go`).

use std::cmp::Ordering;
use std::fmt::{self, Display};

use serde_json::{Number, Value};

use crate::codec::json::write_escaped;
use crate::gofmt::{number, number_text};
use crate::schema::scalar::go_quote;

/// One step of a path.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of an object, or a key of a map.
    Field(String),
    /// An element of a list, by its key fields, sorted by name.
    Key(Vec<(String, Value)>),
    /// An element of a set, by its value.
    Value(Value),
    /// An element of a list, by its place.
    Index(i64),
}

/// Steps from the top of an object to a part of it; printed as `.spec.ports[port=80,protocol="TCP"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Element>);

impl Path {
    /// A path of plain fields.
    #[must_use]
    pub fn of_fields(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Element::field(name)).collect())
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

impl Element {
    /// A field.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// A list element by its key fields, in any order.
    #[must_use]
    pub fn key(mut fields: Vec<(String, Value)>) -> Self {
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Key(fields)
    }

    /// As it stands in `fieldsV1`.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(fields) => {
                let mut text = b"k:{".to_vec();
                for (place, (name, value)) in fields.iter().enumerate() {
                    if place > 0 {
                        text.push(b',');
                    }
                    write_escaped(&mut text, name);
                    text.push(b':');
                    write_json(&mut text, value);
                }
                text.push(b'}');
                String::from_utf8(text).unwrap_or_default()
            }
            Self::Value(value) => {
                let mut text = b"v:".to_vec();
                write_json(&mut text, value);
                String::from_utf8(text).unwrap_or_default()
            }
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads what [`Element::encode`] wrote. `Ok(None)` for a kind of step that is not known.
    pub(super) fn decode(text: &str) -> Result<Option<Self>, Malformed> {
        if text.len() < 2 || text.as_bytes()[1] != b':' {
            return Err(Malformed);
        }
        let rest = &text[2..];
        let json = || serde_json::from_str::<Value>(rest).map_err(|_| Malformed);
        match text.as_bytes()[0] {
            b'f' => Ok(Some(Self::field(rest))),
            b'v' => Ok(Some(Self::Value(json()?))),
            b'k' => match json()? {
                Value::Object(map) => Ok(Some(Self::key(map.into_iter().collect()))),
                _ => Err(Malformed),
            },
            b'i' => rest.parse().map(|index| Some(Self::Index(index))).map_err(|_| Malformed),
            _ => Ok(None),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

/// The text is no step of a path, or no set of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed set of fields")]
pub struct Malformed;

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let order = |a: &(String, Value), b: &(String, Value)| {
                    a.0.cmp(&b.0).then_with(|| compare_values(&a.1, &b.1))
                };
                compare_lists(a, b, order)
            }
            (Self::Value(a), Self::Value(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={}", plain_text(value))).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Self::Value(value) => write!(f, "[={}]", plain_text(value)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A value as it stands inside a step; `2.0` is `2`, as Go writes it.
fn write_json(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => out.extend_from_slice(number_text(number).as_bytes()),
        other => write_escaped(out, other),
    }
}

/// A value as people read it (upstream `value.ToString`).
fn plain_text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number_text(number),
        Value::String(text) => go_quote(text),
        Value::Array(items) => format!("[{}]", items.iter().map(plain_text).collect::<Vec<_>>().join(",")),
        Value::Object(map) => map.iter().map(|(key, value)| format!("{key}={}", plain_text(value))).collect(),
    }
}

fn compare_lists<T>(a: &[T], b: &[T], order: impl Fn(&T, &T) -> Ordering) -> Ordering {
    let first = a.iter().zip(b).map(|(a, b)| order(a, b)).find(|order| *order != Ordering::Equal);
    first.unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// A total order of values: numbers, texts, truth values, lists, maps, null (upstream `value.Compare`).
#[must_use]
pub fn compare_values(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(number) if number.is_f64() => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Bool(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
        Value::Null => 6,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => compare_lists(a, b, compare_values),
        (Value::Object(a), Value::Object(b)) => {
            let (a, b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
            compare_lists(&a, &b, |a, b| a.0.cmp(b.0).then_with(|| compare_values(a.1, b.1)))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => number(a).total_cmp(&number(b)),
    }
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// Whether two values are the same to structured merge: `1` is `1.0` (upstream `value.Equals`).
#[must_use]
pub fn same_values(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b) == Ordering::Equal,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_values(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same_values(value, other)))
        }
        _ => a == b,
    }
}
