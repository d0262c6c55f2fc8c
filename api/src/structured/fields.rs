//! All fields that a value mentions (upstream `typed/tofieldset.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::shape::{Form, List, Mapping, Shape, list_step};

/// The paths of all leaves and elements that `value` mentions.
#[must_use]
pub fn field_set(shape: Shape<'_>, value: &Value) -> Set {
    visit(shape, value).1
}

/// Whether the value itself is a leaf, and the paths below it.
fn visit(shape: Shape<'_>, value: &Value) -> (bool, Set) {
    match (shape.atom().form(Some(value)), value) {
        (Form::Scalar(_), _) => (true, Set::default()),
        (Form::List(list), _) if list.atomic() => (true, Set::default()),
        (Form::Map(map), _) if map.atomic => (true, Set::default()),
        (Form::List(list), Value::Array(items)) => (false, elements(&list, items)),
        (Form::Map(map), Value::Object(fields)) => (false, members(&map, fields)),
        _ => (false, Set::default()),
    }
}

fn elements(list: &List<'_>, items: &[Value]) -> Set {
    let mut by_step: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = list_step(list, item) {
            by_step.entry(element).or_default().push(item);
        }
    }
    let mut set = Set::default();
    for (element, items) in by_step {
        // Elements with the same key are owned as one, without their fields.
        let below = match items.as_slice() {
            [one] => visit(list.item, one).1,
            _ => Set::default(),
        };
        set.graft(element, true, below);
    }
    set
}

fn members(map: &Mapping<'_>, fields: &Map<String, Value>) -> Set {
    let mut set = Set::default();
    for (name, value) in fields {
        let Some(shape) = map.field(name) else { continue };
        let (leaf, below) = visit(shape, value);
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        set.graft(Element::field(name), leaf || empty || !map.names(name), below);
    }
    set
}
