//! A value with what a configuration says of it laid over it (upstream `typed/merge.go`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::Problems;
use super::compare::check_scalars;
use super::element::Element;
use super::shape::{Form, List, Mapping, Shape, list_step};

/// `live` with `config` laid over it: nothing is removed, `config` wins, and lists whose elements have keys keep
/// the order of `live` as far as `config` does not say otherwise.
///
/// # Errors
/// When neither fits the shape somewhere.
pub fn merge(shape: Shape<'_>, live: &Value, config: &Value) -> Result<Value, Problems> {
    value(shape, Some(live), Some(config)).map(Option::unwrap_or_default)
}

fn value(shape: Shape<'_>, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, Problems> {
    let atom = shape.atom();
    let (before, after) = (atom.form(live), atom.form(config));
    if config.is_none() {
        return visit(before, live, config);
    }
    if live.is_some() && !before.is_like(&after) {
        // The value changes its form; the old one is only looked at for mistakes.
        visit(before, live, config)?;
    }
    visit(after, live, config)
}

fn visit(form: Form<'_>, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, Problems> {
    let whole = || Ok(config.or(live).cloned());
    match form {
        Form::Scalar(kind) => {
            check_scalars(kind, live, config)?;
            whole()
        }
        Form::List(list) => {
            let (before, after) = (live.and_then(Value::as_array), config.and_then(Value::as_array));
            let empty = |items: Option<&Vec<Value>>| items.is_none_or(Vec::is_empty);
            if list.atomic() || (empty(before) && empty(after)) {
                return whole();
            }
            let items = |items: Option<&'_ Vec<Value>>| items.cloned().unwrap_or_default();
            let merged = elements(&list, &items(before), &items(after))?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
        Form::Map(map) => {
            let (before, after) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            let empty = |fields: Option<&Map<String, Value>>| fields.is_none_or(Map::is_empty);
            if map.atomic || (empty(before) && empty(after)) {
                return whole();
            }
            let merged = members(&map, before, after)?;
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
    }
}

fn members(
    map: &Mapping<'_>,
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
) -> Result<Map<String, Value>, Problems> {
    let mut out = Map::new();
    let names: BTreeSet<&String> =
        live.into_iter().flatten().chain(config.into_iter().flatten()).map(|(k, _)| k).collect();
    for name in names {
        let (before, after) = (live.and_then(|map| map.get(name)), config.and_then(|map| map.get(name)));
        let merged = match map.field(name) {
            Some(shape) => value(shape, before, after).map_err(|found| found.below(&Element::field(name)))?,
            None => {
                return Err(Problems::one("schema error: invalid atom: inlined").below(&Element::field(name)));
            }
        };
        if let Some(merged) = merged {
            out.insert(name.clone(), merged);
        }
    }
    Ok(out)
}

/// The elements of one side, in their order and by their steps.
struct Side<'v> {
    order: Vec<Element>,
    by_step: BTreeMap<Element, &'v Value>,
}

static NULL: Value = Value::Null;

impl<'v> Side<'v> {
    fn new(list: &List<'_>, items: &'v [Value], duplicates: bool) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let (mut order, mut by_step) = (Vec::with_capacity(items.len()), BTreeMap::new());
        for (place, item) in items.iter().enumerate() {
            match list_step(list, item) {
                Err(why) => problems.0.extend(Problems::one(format!("element {place}: {why}")).0),
                Ok(element) if by_step.contains_key(&element) && !duplicates => {
                    problems.0.extend(Problems::one(format!("duplicate entries for key {element}")).0);
                }
                Ok(element) => {
                    // Elements with the same key are not merged with the other side's: they give way to it.
                    by_step.entry(element.clone()).and_modify(|value| *value = &NULL).or_insert(item);
                    order.push(element);
                }
            }
        }
        problems.into_result().map(|()| Self { order, by_step })
    }

    fn get(&self, element: &Element) -> Option<&'v Value> {
        self.by_step.get(element).copied()
    }
}

/// The merge of two lists of one kind, on its way.
struct ListMerge<'a, 'v> {
    list: &'a List<'a>,
    live: Side<'v>,
    config: Side<'v>,
    /// Elements of both sides that have not been reached, in the order of `config`.
    shared: VecDeque<Element>,
    merged: BTreeSet<Element>,
    out: Vec<Value>,
}

fn elements(list: &List<'_>, live: &[Value], config: &[Value]) -> Result<Vec<Value>, Problems> {
    let config_side = Side::new(list, config, false)?;
    let live_side = Side::new(list, live, true)?;
    let shared =
        config_side.order.iter().filter(|step| live_side.by_step.contains_key(*step)).cloned().collect();
    let merge = ListMerge {
        list,
        live: live_side,
        config: config_side,
        shared,
        merged: BTreeSet::new(),
        out: Vec::with_capacity(live.len().max(config.len())),
    };
    Ok(merge.run(live))
}

impl ListMerge<'_, '_> {
    /// Upstream's `visitListItems`: walks both lists at once. Elements of `live` alone stay where they are; those
    /// of both come in the order of `config`.
    fn run(mut self, live: &[Value]) -> Vec<Value> {
        let (lives, configs) = (self.live.order.clone(), self.config.order.clone());
        let (mut l, mut r) = (0, 0);
        while l < lives.len() || r < configs.len() {
            if let (Some(step), Some(wanted)) = (lives.get(l), configs.get(r)) {
                if step == wanted {
                    self.both(step);
                    self.shared.pop_front();
                    (l, r) = (l + 1, r + 1);
                    continue;
                }
                let another = self.shared.front().is_some_and(|next| next != step);
                if self.config.by_step.contains_key(step) && another {
                    // Of both, but its turn comes later.
                    l += 1;
                    continue;
                }
            }
            if let Some(step) = lives.get(l) {
                if !self.config.by_step.contains_key(step) {
                    self.push(live.get(l), None);
                    l += 1;
                    continue;
                }
                if self.merged.contains(step) {
                    l += 1;
                }
            }
            if let Some(step) = configs.get(r) {
                self.both(step);
                r += 1;
                if self.shared.front() == Some(step) {
                    self.shared.pop_front();
                }
            }
        }
        self.out
    }

    /// An element of `config`, merged with that of `live` if there is one.
    fn both(&mut self, step: &Element) {
        self.merged.insert(step.clone());
        self.push(self.live.get(step), self.config.get(step));
    }

    fn push(&mut self, live: Option<&Value>, config: Option<&Value>) {
        // As upstream, which loses the mistakes of elements here: they were found by the check before.
        self.out.extend(value(self.list.item, live, config).ok().flatten());
    }
}
