//! What differs between two values of a shape (upstream `typed/compare.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Problems;
use super::check::scalar;
use super::element::{Element, same_values};
use super::set::{Filter, Set};
use super::shape::{Form, List, Mapping, Scalar, Shape, list_step};

/// What differs between an old and a new value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Paths that are gone.
    pub removed: Set,
    /// Paths whose values changed.
    pub modified: Set,
    /// Paths that are new.
    pub added: Set,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// The part of it that counts.
    #[must_use]
    pub fn filtered(self, filter: Option<&Filter>) -> Self {
        match filter {
            None => self,
            Some(filter) => Self {
                removed: filter.apply(self.removed),
                modified: filter.apply(self.modified),
                added: filter.apply(self.added),
            },
        }
    }
}

/// Compares two values of a shape.
///
/// # Errors
/// When neither fits the shape somewhere.
pub fn compare(shape: Shape<'_>, old: &Value, new: &Value) -> Result<Comparison, Problems> {
    value(shape, Some(old), Some(new)).map(|outcome| outcome.below)
}

/// What was found about one place.
#[derive(Default)]
struct Outcome {
    mark: Option<Mark>,
    below: Comparison,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Added,
    Removed,
    Modified,
}

impl Comparison {
    fn graft(&mut self, element: Element, outcome: Outcome) {
        let Outcome { mark, below, .. } = outcome;
        let parts = [
            (&mut self.removed, mark == Some(Mark::Removed), below.removed),
            (&mut self.modified, mark == Some(Mark::Modified), below.modified),
            (&mut self.added, mark == Some(Mark::Added), below.added),
        ];
        let mut parts = parts.into_iter().filter(|(_, member, below)| *member || !below.is_empty());
        // Most often there is but one.
        let last = parts.next_back();
        for (set, member, below) in parts {
            set.graft(element.clone(), member, below);
        }
        if let Some((set, member, below)) = last {
            set.graft(element, member, below);
        }
    }
}

/// An absent value has any form.
fn value(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<Outcome, Problems> {
    let mut outcome = Outcome::default();
    match (old, new) {
        (None, None) => {}
        (None, Some(new)) => {
            outcome.mark = Some(Mark::Added);
            outcome.below.added = whole(shape, new)?;
        }
        (Some(old), None) => {
            outcome.mark = Some(Mark::Removed);
            outcome.below.removed = whole(shape, old)?;
        }
        (Some(_), Some(_)) => {
            let atom = shape.atom();
            let (before, after) = (atom.form(old), atom.form(new));
            if !before.is_like(&after) {
                visit(before, old, new, &mut outcome)?;
            }
            visit(after, old, new, &mut outcome)?;
        }
    }
    Ok(outcome)
}

/// Everything below a value that has nothing to be compared with.
fn whole(shape: Shape<'_>, value: &Value) -> Result<Set, Problems> {
    let mut set = Set::default();
    match shape.atom().form(Some(value)) {
        Form::List(list) if !list.atomic() => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let mut steps = steps(&list, items)?;
            steps.sort_by(|(a, _), (b, _)| a.cmp(b));
            for same in steps.chunk_by(|(a, _), (b, _)| a == b) {
                match same {
                    [(element, item)] => {
                        let below = whole(list.item, item).map_err(|found| found.below(element))?;
                        set.graft(element.clone(), true, below);
                    }
                    // Elements with the same key are one, without their fields.
                    [(element, _), ..] => set.graft(element.clone(), true, Set::default()),
                    [] => {}
                }
            }
        }
        Form::Map(map) if !map.atomic => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let below = whole(member(&map, name)?, value);
                let element = Element::field(name);
                let below = below.map_err(|found| found.below(&element))?;
                set.graft(element, true, below);
            }
        }
        _ => {}
    }
    Ok(set)
}

fn visit(
    form: Form<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    outcome: &mut Outcome,
) -> Result<(), Problems> {
    match form {
        Form::Scalar(kind) => check_scalars(kind, old, new).map(|()| leaf(old, new, outcome)),
        Form::List(list) => {
            let (before, after) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            let empty = |items: Option<&Vec<Value>>| items.is_none_or(Vec::is_empty);
            if list.atomic() || (empty(before) && empty(after)) {
                leaf(old, new, outcome);
                return Ok(());
            }
            let olds = index(&list, before.map(Vec::as_slice).unwrap_or_default())?;
            let news = index(&list, after.map(Vec::as_slice).unwrap_or_default())?;
            elements(&list, olds, news, &mut outcome.below)
        }
        Form::Map(map) => {
            let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let empty = |fields: Option<&Map<String, Value>>| fields.is_none_or(Map::is_empty);
            if map.atomic || (empty(before) && empty(after)) {
                leaf(old, new, outcome);
                return Ok(());
            }
            members(&map, before, after, &mut outcome.below)
        }
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>, outcome: &mut Outcome) {
    outcome.mark = match (old, new) {
        (None, _) => Some(Mark::Added),
        (_, None) => Some(Mark::Removed),
        (Some(old), Some(new)) => (!same_values(old, new)).then_some(Mark::Modified).or(outcome.mark),
    };
}

/// One of the two must fit.
pub(super) fn check_scalars(kind: Scalar, old: Option<&Value>, new: Option<&Value>) -> Result<(), Problems> {
    let check = |value: Option<&Value>| value.and_then(|value| scalar(kind, value));
    match (check(old), check(new)) {
        (Some(old), Some(new)) => {
            let mut problems = Problems::one(format!("lhs: {old}"));
            problems.0.extend(Problems::one(format!("rhs: {new}")).0);
            Err(problems)
        }
        _ => Ok(()),
    }
}

fn members(
    map: &Mapping<'_>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    out: &mut Comparison,
) -> Result<(), Problems> {
    let olds = old.into_iter().flatten();
    let news = new.into_iter().flatten().filter(|(name, _)| !old.is_some_and(|old| old.contains_key(*name)));
    let pairs = olds
        .map(|(name, before)| (name, Some(before), new.and_then(|new| new.get(name))))
        .chain(news.map(|(name, after)| (name, None, Some(after))));
    for (name, before, after) in pairs {
        if matches!((before, after), (Some(before), Some(after)) if before == after) {
            continue;
        }
        let outcome =
            value(member(map, name)?, before, after).map_err(|found| found.below(&Element::field(name)))?;
        if outcome.mark.is_some() || !outcome.below.is_same() {
            out.graft(Element::field(name), outcome);
        }
    }
    Ok(())
}

/// What may stand in a field.
fn member<'s>(map: &Mapping<'s>, name: &str) -> Result<Shape<'s>, Problems> {
    let inlined = || Problems::one("schema error: invalid atom: inlined").below(&Element::field(name));
    map.field(name).ok_or_else(inlined)
}

/// The elements of a list, each with the step that leads to it.
fn steps<'v>(list: &List<'_>, items: &'v [Value]) -> Result<Vec<(Element, &'v Value)>, Problems> {
    let step = |(place, item): (usize, &'v Value)| match list_step(list, item) {
        Ok(element) => Ok((element, item)),
        Err(why) => Err(Problems::one(format!("element {place}: {why}"))),
    };
    items.iter().enumerate().map(step).collect()
}

type Index<'v> = BTreeMap<Element, Vec<&'v Value>>;

fn index<'v>(list: &List<'_>, items: &'v [Value]) -> Result<Index<'v>, Problems> {
    let mut out = Index::new();
    for (element, item) in steps(list, items)? {
        out.entry(element).or_default().push(item);
    }
    Ok(out)
}

fn elements(list: &List<'_>, olds: Index<'_>, news: Index<'_>, out: &mut Comparison) -> Result<(), Problems> {
    let one = |element: &Element, old: Option<&Value>, new: Option<&Value>| {
        value(list.item, old, new).map_err(|found| found.below(element))
    };
    let only_new = news.iter().filter(|(element, _)| !olds.contains_key(*element));
    let pairs = olds
        .iter()
        .map(|(element, before)| (element, before.as_slice(), news.get(element).map(Vec::as_slice)))
        .chain(only_new.map(|(element, after)| (element, [].as_slice(), Some(after.as_slice()))));
    for (element, old, new) in pairs {
        let new = new.unwrap_or_default();
        match (old.len(), new.len()) {
            (0 | 1, 0 | 1) => {
                let outcome = one(element, old.first().copied(), new.first().copied())?;
                out.graft(element.clone(), outcome);
            }
            // Elements with the same key are compared as a whole.
            (2.., 2..) => {
                let same = old.len() == new.len() && old.iter().zip(new).all(|(a, b)| same_values(a, b));
                out.modified.graft(element.clone(), !same, Set::default());
            }
            (2.., _) => {
                if let Some(new) = new.first() {
                    out.graft(element.clone(), one(element, None, Some(new))?);
                }
                out.removed.graft(element.clone(), true, Set::default());
            }
            _ => {
                if let Some(old) = old.first() {
                    out.graft(element.clone(), one(element, Some(old), None)?);
                }
                out.added.graft(element.clone(), true, Set::default());
            }
        }
    }
    Ok(())
}
