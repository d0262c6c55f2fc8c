//! Small checks and accessors that all kinds use.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::quantity::Quantity;

pub(crate) const IMMUTABLE: &str = "field is immutable";
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";
pub(crate) const NOT_INTEGER: &str = "must be an integer";

/// The text of an optional string.
pub(crate) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// The items of an optional list.
pub(crate) fn list<T>(value: &Option<Vec<T>>) -> &[T] {
    value.as_deref().unwrap_or_default()
}

pub(crate) fn non_negative(value: impl Into<i64>, path: &Path) -> ErrorList {
    let value = value.into();
    if value < 0 { vec![Error::invalid(path, value, NEGATIVE)] } else { ErrorList::new() }
}

pub(crate) fn positive(value: impl Into<i64>, path: &Path) -> ErrorList {
    let value = value.into();
    if value <= 0 { vec![Error::invalid(path, value, NOT_POSITIVE)] } else { ErrorList::new() }
}

/// The amount, zero for what cannot be read.
pub(crate) fn amount(value: &ApiQuantity) -> Quantity {
    Quantity::parse(value.0.trim()).unwrap_or_default()
}

pub(crate) fn non_negative_amount(value: &ApiQuantity, path: &Path) -> ErrorList {
    let amount = amount(value);
    if amount.sign() < 0 {
        vec![Error::invalid(path, amount.to_string(), NEGATIVE)]
    } else {
        ErrorList::new()
    }
}

pub(crate) fn positive_amount(value: &ApiQuantity, path: &Path) -> ErrorList {
    let amount = amount(value);
    if amount.sign() <= 0 {
        vec![Error::invalid(path, amount.to_string(), NOT_POSITIVE)]
    } else {
        ErrorList::new()
    }
}

/// `Invalid` for each message of a format check.
pub(crate) fn check(path: &Path, value: &str, messages: Vec<String>) -> ErrorList {
    let mut errors = ErrorList::new();
    errors.messages(path, value, messages);
    errors
}

pub(crate) fn dns_label(value: &str, path: &Path) -> ErrorList {
    check(path, value, format::dns1123_label(value))
}

pub(crate) fn dns_subdomain(value: &str, path: &Path) -> ErrorList {
    check(path, value, format::dns1123_subdomain(value))
}

pub(crate) fn qualified_name(value: &str, path: &Path) -> ErrorList {
    check(path, value, format::label_key(value))
}

/// Number messages.
pub(crate) fn check_int(path: &Path, value: impl Into<i64>, messages: fn(i64) -> Vec<String>) -> ErrorList {
    let value = value.into();
    messages(value).into_iter().map(|message| Error::invalid(path, value, message)).collect()
}

/// A field that must stay as it was.
pub(crate) fn immutable<T: PartialEq + serde::Serialize>(new: &T, old: &T, path: &Path) -> ErrorList {
    if new == old { ErrorList::new() } else { vec![Error::invalid(path, to_value(new), IMMUTABLE)] }
}

/// As a JSON value.
pub(crate) fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A non-negative number or a percentage.
pub(crate) fn non_negative_int_or_percent(value: &IntOrString, path: &Path) -> ErrorList {
    match value {
        IntOrString::Int(number) => non_negative(*number, path),
        IntOrString::String(text) => check(path, text, format::percent(text)),
    }
}

/// The percentage of a value that is one.
pub(crate) fn percentage(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::String(text) if format::percent(text).is_empty() => {
            text.trim_end_matches('%').parse().ok()
        }
        _ => None,
    }
}

/// A percentage must not be above 100.
pub(crate) fn not_more_than_100_percent(value: &IntOrString, path: &Path) -> ErrorList {
    match percentage(value) {
        Some(percent) if percent > 100 => {
            vec![Error::invalid(path, to_value(value), "must not be greater than 100%")]
        }
        _ => ErrorList::new(),
    }
}
