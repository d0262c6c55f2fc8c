//! A value without some of its fields (upstream `typed/remove.go`).

use serde_json::{Map, Value, json};

use super::element::Element;
use super::set::Set;
use super::shape::{Form, List, Mapping, Shape, list_step};

/// `value` without the fields and elements in `items`. What is replaced as a whole stays unless it is itself one of
/// them; containers that become empty stay, empty.
#[must_use]
pub fn remove_items(shape: Shape<'_>, value: &Value, items: &Set) -> Value {
    match (shape.atom().form(Some(value)), value) {
        (Form::Scalar(_), _) => value.clone(),
        (Form::List(list), Value::Array(values)) if !list.atomic() => elements(&list, values, items),
        (Form::Map(map), Value::Object(fields)) if !map.atomic => members(&map, fields, items),
        _ => Value::Null,
    }
}

/// A part of a value from which something is removed; a container does not vanish by that.
fn thinned(shape: Option<Shape<'_>>, value: &Value, items: &Set) -> Value {
    let left = match shape {
        Some(shape) => remove_items(shape, value, items),
        None => Value::Null,
    };
    match (left, value) {
        (Value::Null, Value::Object(_)) => json!({}),
        (Value::Null, Value::Array(_)) => json!([]),
        (left, _) => left,
    }
}

fn elements(list: &List<'_>, values: &[Value], items: &Set) -> Value {
    let (mut left, mut touched) = (Vec::with_capacity(values.len()), false);
    for value in values {
        let Ok(element) = list_step(list, value) else {
            left.push(value.clone());
            continue;
        };
        match items.below(&element) {
            _ if items.has(&element) => {}
            Some(below) => {
                touched = true;
                left.push(thinned(Some(list.item), value, below));
            }
            None => left.push(value.clone()),
        }
    }
    if left.is_empty() && !touched { Value::Null } else { Value::Array(left) }
}

fn members(map: &Mapping<'_>, fields: &Map<String, Value>, items: &Set) -> Value {
    let (mut left, mut touched) = (Map::new(), false);
    for (name, value) in fields {
        let element = Element::field(name);
        match items.below(&element) {
            _ if items.has(&element) => {}
            Some(below) => {
                touched = true;
                left.insert(name.clone(), thinned(map.field(name), value, below));
            }
            None => {
                left.insert(name.clone(), value.clone());
            }
        }
    }
    if left.is_empty() && !touched { Value::Null } else { Value::Object(left) }
}
