//! Sets that were written when a schema was another one (upstream `typed/reconcile_schema.go`).

use super::element::Element;
use super::set::Set;
use super::shape::{Form, Shape};

/// `set` as the schema of today has it: where a container has become atomic, its owners own it as a whole.
/// `None` if nothing has changed.
#[must_use]
pub fn reconcile(shape: Shape<'_>, set: &Set) -> Option<Set> {
    let mut walk = Walk { path: Vec::new(), atomic: Set::default() };
    walk.visit(shape, Some(set), false);
    if walk.atomic.is_empty() {
        return None;
    }
    Some(set.clone().recursive_difference(&walk.atomic).union(walk.atomic))
}

struct Walk {
    path: Vec<Element>,
    /// What has become atomic.
    atomic: Set,
}

impl Walk {
    /// `whole`: the place is owned without any of its parts.
    fn visit(&mut self, shape: Shape<'_>, set: Option<&Set>, whole: bool) {
        match shape.atom().form(None) {
            Form::Scalar(_) => {}
            Form::List(list) if list.atomic() => {
                if !whole {
                    self.atomic.insert(&self.path);
                }
            }
            Form::List(list) => self.each(set, |_| Some(list.item)),
            // Where everything is deduced, nothing says what is atomic.
            Form::Map(map) if map.is_deduced() => {}
            Form::Map(map) if map.atomic => {
                if !whole && set.is_some() {
                    self.atomic.insert(&self.path);
                }
            }
            Form::Map(map) => self.each(set, |element| match element {
                Element::Field(name) => map.field(name),
                _ => map.rest,
            }),
        }
    }

    fn each<'s>(&mut self, set: Option<&Set>, shape: impl Fn(&Element) -> Option<Shape<'s>>) {
        for (element, member, below) in set.into_iter().flat_map(Set::steps) {
            let Some(shape) = shape(element) else { continue };
            let below = Some(below).filter(|below| !below.is_empty());
            self.path.push(element.clone());
            self.visit(shape, below, member && below.is_none());
            self.path.pop();
        }
    }
}
