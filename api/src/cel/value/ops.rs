//! Equality, order and arithmetic of values.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::cel::eval::{Evaluated, Fault};
use crate::cel::shape::{ListKind, Shape, ShapeKind};

use super::{List, Map, Value, json, number};

/// Whether two values are equal, whatever their types.
///
/// # Errors
/// When data is not of its shape, or a typed list is compared with something else.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Fault> {
    if let Some(order) = number::compare(a, b) {
        return Ok(order.is_ok_and(Ordering::is_eq));
    }
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => equal(a, b)?,
        (Value::List(a), Value::List(b)) => lists_equal(a, b)?,
        (Value::List(a), _) if a.shape().is_some() => return Err(Fault::no_such_overload()),
        (Value::Map(a), Value::Map(b)) => maps_equal(a, b)?,
        (Value::Map(Map::Json(_, Some(_))), _) => return Err(Fault::no_such_overload()),
        (Value::Object(a), Value::Object(b)) => {
            let mut same = a.type_name == b.type_name && a.fields.len() == b.fields.len();
            for (name, value) in &a.fields {
                let other = b.fields.iter().find(|(other, _)| other == name);
                same = same
                    && match other {
                        Some((_, other)) => equal(value, other)?,
                        None => false,
                    };
            }
            same
        }
        (Value::Extension(a), Value::Extension(b)) => a.equals(b)?,
        (Value::Preserved(a), Value::Preserved(b)) => crate::json::semantic_eq(Some(a), Some(b)),
        _ => false,
    })
}

fn lists_equal(a: &List<'_>, b: &List<'_>) -> Result<bool, Fault> {
    if a.len() != b.len() {
        return Ok(false);
    }
    match a.shape().map(|shape| (&shape.kind, shape)) {
        Some((ListKind::Set, _)) => return Ok(json::set_of(a)? == json::set_of(b)?),
        Some((ListKind::Map, shape)) if json::is_keyed(shape) => {
            let ours: Vec<_> = a.iter().collect::<Result<_, _>>()?;
            let keys: Vec<_> = ours.iter().map(|item| json::list_key(item, &shape.keys)).collect();
            for item in b.iter() {
                let item = item?;
                let key = json::list_key(&item, &shape.keys);
                match keys.iter().rposition(|other| *other == key) {
                    Some(at) if equal(&ours[at], &item)? => {}
                    _ => return Ok(false),
                }
            }
            return Ok(true);
        }
        _ => {}
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equal(&a?, &b?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps_equal(a: &Map<'_>, b: &Map<'_>) -> Result<bool, Fault> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let (Map::Json(left, Some(shape)), Map::Json(right, Some(_))) = (a, b)
        && !json::unknown_fields_equal(left, right, |key| is_known(shape, key))
    {
        return Ok(false);
    }
    for key in a.keys() {
        let same = match (a.find(&key)?, b.find(&key)?) {
            (Some(a), Some(b)) => equal(&a, &b)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_known(shape: &Shape, key: &str) -> bool {
    match &shape.kind {
        ShapeKind::Object(fields) => fields.contains_key(key),
        ShapeKind::Map(_) => true,
        _ => false,
    }
}

/// Whether an element is in a list, or a key in a map.
pub(crate) fn contains(container: &Value<'_>, value: &Value<'_>) -> Result<bool, Fault> {
    match container {
        Value::List(list) => {
            let mut fault = None;
            for item in list.iter() {
                match equal(&item?, value) {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(error) => fault = fault.or(Some(error)),
                }
            }
            match fault {
                Some(fault) if list.shape().is_some() => Err(fault),
                _ => Ok(false),
            }
        }
        Value::Map(map) => Ok(map.find(value)?.is_some()),
        _ => Err(Fault::no_such_overload()),
    }
}

/// The order of two values.
pub(crate) fn compare(function: &str, a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Fault> {
    if let Some(order) = number::compare(a, b) {
        return order;
    }
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.instant().cmp(&b.instant()),
        (
            Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Duration(_)
            | Value::Timestamp(_),
            _,
        ) => return Err(Fault::no_such_overload()),
        _ => return Err(Fault::new(format!("no such overload: {function}"))),
    })
}

const INT_OVERFLOW: &str = "integer overflow";
const UINT_OVERFLOW: &str = "unsigned integer overflow";
const DURATION_OVERFLOW: &str = "duration overflow";

fn int<'a>(value: Option<i64>) -> Evaluated<'a> {
    value.map(Value::Int).ok_or_else(|| Fault::new(INT_OVERFLOW))
}

fn uint<'a>(value: Option<u64>) -> Evaluated<'a> {
    value.map(Value::Uint).ok_or_else(|| Fault::new(UINT_OVERFLOW))
}

fn duration<'a>(value: Option<i64>) -> Evaluated<'a> {
    value.map(Value::Duration).ok_or_else(|| Fault::new(DURATION_OVERFLOW))
}

/// Operands that do not fit: the message depends on whether the left one knows the operation at all.
fn mismatch<'a>(function: &str, knows: bool) -> Evaluated<'a> {
    Err(if knows { Fault::no_such_overload() } else { Fault::new(format!("no such overload: {function}")) })
}

pub(crate) fn add<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::text([&**a, &**b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(*b)),
        (Value::Timestamp(moment), Value::Duration(nanos))
        | (Value::Duration(nanos), Value::Timestamp(moment)) => moment.plus(*nanos).map(Value::Timestamp),
        (Value::List(a), Value::List(b)) => join(a.clone(), b).map(Value::List),
        (
            Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Duration(_)
            | Value::Timestamp(_)
            | Value::List(_),
            _,
        ) => mismatch("_+_", true),
        _ => mismatch("_+_", false),
    }
}

/// Lists longer than this are joined without copying them.
const MAX_COPIED: usize = 64;
/// The longest list there can be; no budget allows for more.
const MAX_LENGTH: usize = 10_000_000;

/// One list behind another; sets and lists with keys are merged.
pub(crate) fn join<'a>(a: List<'a>, b: &List<'a>) -> Result<List<'a>, Fault> {
    if a.shape().is_none() {
        if a.is_empty() {
            return Ok(b.clone());
        }
        if b.is_empty() {
            return Ok(a);
        }
    }
    let length = a.len() + b.len();
    if length > MAX_LENGTH {
        return Err(Fault::CostLimit);
    }
    if a.shape().is_none() && length > MAX_COPIED {
        return Ok(List::Joined(Arc::new((a, b.clone())), length));
    }
    let shape = a.shape();
    let mut values = match a {
        List::Values(values, _) => values,
        list => Arc::new(list.iter().collect::<Result<Vec<_>, _>>()?),
    };
    let out = Arc::make_mut(&mut values);
    match shape.map(|shape| &shape.kind) {
        Some(ListKind::Set) => {
            for item in b.iter() {
                let item = item?;
                let known = out.iter().any(|other| matches!(equal(other, &item), Ok(true)));
                if !known {
                    out.push(item);
                }
            }
        }
        Some(ListKind::Map) => {
            let keys = shape.map_or(&[][..], |shape| &shape.keys);
            for item in b.iter() {
                let item = item?;
                let key = json::list_key(&item, keys);
                match out.iter().position(|other| json::list_key(other, keys) == key) {
                    Some(at) => out[at] = item,
                    None => out.push(item),
                }
            }
        }
        _ => {
            for item in b.iter() {
                out.push(item?);
            }
        }
    }
    Ok(List::Values(values, shape))
}

pub(crate) fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(*b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.since(*b).map(Value::Duration),
        (Value::Timestamp(a), Value::Duration(b)) => {
            let nanos = b.checked_neg().ok_or_else(|| Fault::new(DURATION_OVERFLOW))?;
            a.plus(nanos).map(Value::Timestamp)
        }
        (Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_) | Value::Timestamp(_), _) => {
            mismatch("_-_", true)
        }
        _ => mismatch("_-_", false),
    }
}

pub(crate) fn multiply<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), _) => mismatch("_*_", true),
        _ => mismatch("_*_", false),
    }
}

pub(crate) fn divide<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            Err(Fault::new("division by zero"))
        }
        (Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), _) => mismatch("_/_", true),
        _ => mismatch("_/_", false),
    }
}

pub(crate) fn modulo<'a>(a: &Value<'a>, b: &Value<'a>) -> Evaluated<'a> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            Err(Fault::new("modulus by zero"))
        }
        (Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        (Value::Int(_) | Value::Uint(_), _) => mismatch("_%_", true),
        _ => mismatch("_%_", false),
    }
}

pub(crate) fn negate<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::Int(value) => int(value.checked_neg()),
        Value::Double(value) => Ok(Value::Double(-value)),
        Value::Duration(value) => duration(value.checked_neg()),
        Value::Bool(_) => mismatch("-_", true),
        _ => mismatch("-_", false),
    }
}

/// The element of a list or the value of a map at `index`; `None` when there is none.
pub(crate) fn element<'a>(container: &Value<'a>, index: &Value<'_>) -> Result<Option<Value<'a>>, Fault> {
    match container {
        Value::Map(map) => map.find(index),
        Value::List(list) => {
            let at = list_index(list, index)?;
            usize::try_from(at).ok().filter(|at| *at < list.len()).map(|at| list.get(at)).transpose()
        }
        Value::Object(object) => match index {
            Value::String(name) => {
                Ok(object.fields.iter().find(|(field, _)| **field == **name).map(|(_, value)| value.clone()))
            }
            _ => Err(Fault::no_such_overload()),
        },
        _ => Ok(None),
    }
}

fn list_index(list: &List<'_>, index: &Value<'_>) -> Result<i64, Fault> {
    let unsupported = || Fault::new(format!("unsupported index value {index} in list"));
    match index {
        Value::Int(at) => Ok(*at),
        _ if list.shape().is_some() && !matches!(index, Value::Uint(_) | Value::Double(_)) => {
            Err(Fault::new(format!("unsupported index type '{}' in list", index.type_of().name())))
        }
        Value::Uint(at) => i64::try_from(*at).map_err(|_| unsupported()),
        Value::Double(at) if at.fract() == 0.0 => number::double_to_int(*at).map_err(|_| unsupported()),
        Value::Double(_) => Err(unsupported()),
        _ => Err(Fault::new(format!("unsupported index type '{}' in list", index.type_of().name()))),
    }
}
