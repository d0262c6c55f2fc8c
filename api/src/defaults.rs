//! What is filled in for fields the client left out (upstream `pkg/apis/*/v1*/defaults.go` and the parts of
//! `conversion.go` that change what is stored).
//!
//! Defaulting changes JSON in place: it runs on every write, and a detour over typed values would cost more than all
//! of it. Applying it twice is applying it once.

use serde_json::Value;

use crate::json::{Object, ObjectExt};
use crate::kinds;
use crate::names::GroupVersionKind;
use crate::quantity::Quantity;

pub(crate) mod admission;
pub(crate) mod apps;
pub(crate) mod autoscaling;
pub(crate) mod core;
pub(crate) mod image;
pub(crate) mod other;
pub(crate) mod pod;
pub(crate) mod volume;

/// Fills in the defaults of a kind.
pub fn apply(gvk: &GroupVersionKind, object: &mut Value) {
    if let (Some(kind), Some(object)) = (kinds::find(gvk), object.as_object_mut()) {
        (kind.defaults)(object);
    }
}

/// Makes the amounts in the resource list at `key` canonical and drops what is below a thousandth.
pub(crate) fn resource_list(object: &mut Object, key: &str) {
    for amount in object.object_mut(key).into_iter().flat_map(|list| list.values_mut()) {
        quantity(amount, true);
    }
}

/// Makes one amount canonical. What is no amount is left for validation to complain about.
pub(crate) fn quantity(amount: &mut Value, milli: bool) {
    let parsed = match &*amount {
        Value::String(text) => Quantity::parse(text.trim()),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => return,
    };
    if let Ok(mut parsed) = parsed {
        if milli {
            parsed.round_up_to_milli();
        }
        *amount = Value::String(parsed.to_string());
    }
}

/// As [`resource_list`], for the `limits` and `requests` under `key`.
pub(crate) fn resources(object: &mut Object, key: &str) {
    if let Some(resources) = object.object_mut(key) {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
}
