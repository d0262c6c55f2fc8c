//! Whether a value fits its shape (upstream `typed/validate.go`).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::element::Element;
use super::shape::{Form, List, Mapping, Scalar, Shape, list_step};
use super::{Problem, Problems};
use crate::gofmt::{plain, syntax, type_name};

/// Whether elements of a list may have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// They may: clients can make such lists by updates.
    Allowed,
    /// They may not.
    Refused,
}

/// Checks a value.
///
/// # Errors
/// All that is wrong with it.
pub fn check(shape: Shape<'_>, value: &Value, duplicates: Duplicates) -> Result<(), Problems> {
    let problems = match shape.atom().form(Some(value)) {
        Form::Scalar(kind) => match scalar(kind, value) {
            Some(message) => Problems::one(message),
            None => Problems::default(),
        },
        Form::List(list) => match value {
            Value::Null => Problems::default(),
            Value::Array(items) => elements(&list, items, duplicates),
            other => Problems::one(format!("expected list, got &{{{}}}", plain(other))),
        },
        Form::Map(map) => match value {
            Value::Null => Problems::default(),
            Value::Object(fields) => members(&map, fields, duplicates),
            other => Problems::one(format!("expected map, got &{{{}}}", plain(other))),
        },
    };
    problems.into_result()
}

/// What is wrong with a scalar. Null is one of any kind.
pub(super) fn scalar(kind: Scalar, value: &Value) -> Option<String> {
    match (kind, value) {
        (_, Value::Null)
        | (Scalar::Numeric, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => None,
        (Scalar::Numeric, other) => {
            Some(format!("expected numeric (int or float), got {}", type_name(other)))
        }
        (Scalar::String, other) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", syntax(other)))
        }
        (Scalar::Boolean, other) => Some(format!("expected boolean, got &{{{}}}", plain(other))),
        (Scalar::Untyped, other) => Some(format!("expected any scalar, got &{{{}}}", plain(other))),
    }
}

fn elements(list: &List<'_>, items: &[Value], duplicates: Duplicates) -> Problems {
    let mut problems = Problems::default();
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let element = if list.atomic() {
            Element::Index(i64::try_from(index).unwrap_or(i64::MAX))
        } else {
            match list_step(list, item) {
                Ok(element) => element,
                Err(why) => {
                    problems.0.extend(Problems::one(format!("element {index}: {why}")).0);
                    return problems;
                }
            }
        };
        if !list.atomic() && !seen.insert(element.clone()) && duplicates == Duplicates::Refused {
            problems.0.extend(Problems::one(format!("duplicate entries for key {element}")).0);
        }
        if let Err(found) = check(list.item, item, duplicates) {
            problems.0.extend(found.below(&element).0);
        }
    }
    problems
}

fn members(map: &Mapping<'_>, fields: &Map<String, Value>, duplicates: Duplicates) -> Problems {
    let mut problems = Problems::default();
    for (name, value) in fields {
        let Some(shape) = map.field(name) else {
            let path = Element::field(name).to_string();
            problems.0.push(Problem { path, message: "field not declared in schema".to_owned() });
            // As upstream's visitMapItems, which ends its walk here.
            break;
        };
        if let Err(found) = check(shape, value, duplicates) {
            problems.0.extend(found.below(&Element::field(name)).0);
        }
    }
    problems
}
