//! Making patches.

use std::cmp::Ordering;

use serde_json::Value;

use super::list::{self, Kind};
use super::meta::Meta;
use super::{
    DELETE_FROM_LIST, DIRECTIVE, Object, RETAIN_KEYS, Result, SET_ORDER, go_type, go_value, internal,
    merge_key,
};

/// What a diff shows.
#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) set_order: bool,
    pub(super) ignore_additions: bool,
    pub(super) ignore_deletions: bool,
    pub(super) retain_keys: bool,
}

/// Additions, deletions and the order of a list.
#[derive(Default)]
struct ListDiff {
    patch: Vec<Value>,
    delete: Vec<Value>,
    order: Vec<Value>,
}

/// The patch that leads from `original` to `modified`.
pub(super) fn maps(original: &Object, modified: &Object, meta: Meta<'_>, options: Options) -> Result<Object> {
    let mut patch = Object::new();
    for (key, new) in modified {
        match original.get(key) {
            None => add(&mut patch, key, new, options),
            Some(old) if key == DIRECTIVE => directive(&mut patch, old, new)?,
            Some(old) if go_type(old) != go_type(new) => add(&mut patch, key, new, options),
            Some(old) => match (old, new) {
                (Value::Object(old), Value::Object(new)) => {
                    map_field(&mut patch, key, old, new, meta, options)?
                }
                (Value::Array(old), Value::Array(new)) => {
                    list_field(&mut patch, key, old, new, meta, options)?
                }
                (old, new) if old != new => add(&mut patch, key, new, options),
                _ => {}
            },
        }
    }
    if !options.ignore_deletions {
        for key in original.keys().filter(|key| !modified.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    if options.retain_keys {
        let retained: Vec<Value> = modified
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, _)| Value::from(key.as_str()))
            .collect();
        let lost = original.iter().any(|(key, value)| !value.is_null() && !modified.contains_key(key));
        if !retained.is_empty() && (!patch.is_empty() || lost) {
            patch.insert(RETAIN_KEYS.to_owned(), Value::Array(list::sort_scalars(retained)));
        }
    }
    Ok(patch)
}

fn add(patch: &mut Object, key: &str, value: &Value, options: Options) {
    if !options.ignore_additions {
        patch.insert(key.to_owned(), value.clone());
    }
}

fn directive(patch: &mut Object, old: &Value, new: &Value) -> Result<()> {
    if !old.is_string() || !new.is_string() {
        return internal(format!("invalid value for special key: {DIRECTIVE}"));
    }
    if old != new {
        patch.insert(DIRECTIVE.to_owned(), new.clone());
    }
    Ok(())
}

fn map_field(
    patch: &mut Object,
    key: &str,
    old: &Object,
    new: &Object,
    meta: Meta<'_>,
    options: Options,
) -> Result<()> {
    let field = match meta.for_map(key) {
        Ok(field) => field,
        // Without metadata only a difference is a problem.
        Err(_) if old == new => return Ok(()),
        Err(error) => return Err(error),
    };
    if field.patch.replace {
        add(patch, key, &Value::Object(new.clone()), options);
        return Ok(());
    }
    let inner = maps(old, new, field.inner, Options { retain_keys: field.patch.retain_keys, ..options })?;
    if !inner.is_empty() {
        patch.insert(key.to_owned(), Value::Object(inner));
    }
    Ok(())
}

fn list_field(
    patch: &mut Object,
    key: &str,
    old: &[Value],
    new: &[Value],
    meta: Meta<'_>,
    options: Options,
) -> Result<()> {
    let field = match meta.for_list(key) {
        Ok(field) => field,
        Err(_) if old == new => return Ok(()),
        Err(error) => return Err(error),
    };
    if !field.patch.merge {
        if old != new {
            add(patch, key, &Value::Array(new.to_vec()), options);
        }
        return Ok(());
    }
    let options = Options { retain_keys: field.patch.retain_keys, ..options };
    let diff = lists(old, new, field.inner, field.merge_key, options)?;
    for (name, items) in [
        (key.to_owned(), diff.patch),
        (format!("{DELETE_FROM_LIST}/{key}"), diff.delete),
        (format!("{SET_ORDER}/{key}"), diff.order),
    ] {
        if !items.is_empty() {
            patch.insert(name, Value::Array(items));
        }
    }
    Ok(())
}

fn lists(old: &[Value], new: &[Value], meta: Meta<'_>, key: &str, options: Options) -> Result<ListDiff> {
    if old.is_empty() {
        let patch = if options.ignore_additions { Vec::new() } else { new.to_vec() };
        return Ok(ListDiff { patch, ..ListDiff::default() });
    }
    match list::kind(&[old, new])? {
        Kind::Maps => {
            let (patch, deletions) = lists_of_maps(old, new, meta, key, options)?;
            let mut patch = list::sort_by_order(patch, new, key, Kind::Maps)?;
            patch.extend(deletions);
            let changes = !options.ignore_additions && (!patch.is_empty() || !same_order(old, new, key)?);
            let deletes = !options.ignore_deletions && !patch.is_empty();
            let mut order = Vec::new();
            if options.set_order && (changes || deletes) {
                for value in new {
                    let id = merge_key(value, key)?.clone();
                    order.push(Value::Object([(key.to_owned(), id)].into_iter().collect()));
                }
            }
            Ok(ListDiff { patch, delete: Vec::new(), order })
        }
        Kind::Scalars => {
            let (patch, delete) = lists_of_scalars(old, new, options);
            let patch = list::sort_by_order(patch, new, key, Kind::Scalars)?;
            let deletes = !options.ignore_deletions && !delete.is_empty();
            let ordered = options.set_order && (deletes || (!options.ignore_additions && old != new));
            Ok(ListDiff { patch, delete, order: if ordered { new.to_vec() } else { Vec::new() } })
        }
    }
}

fn same_order(old: &[Value], new: &[Value], key: &str) -> Result<bool> {
    if old.len() != new.len() {
        return Ok(false);
    }
    for (old, new) in old.iter().zip(new) {
        if !list::same(old, new, key)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lists_of_scalars(old: &[Value], new: &[Value], options: Options) -> (Vec<Value>, Vec<Value>) {
    let (old, new) = (list::sort_scalars(old.to_vec()), list::sort_scalars(new.to_vec()));
    let (mut added, mut deleted) = (Vec::new(), Vec::new());
    let (mut olds, mut news) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => go_value(old).cmp(&go_value(new)),
        };
        match order {
            Ordering::Equal => {
                olds.next();
                news.next();
            }
            Ordering::Less => deleted.extend(olds.next().filter(|_| !options.ignore_deletions)),
            Ordering::Greater => added.extend(news.next().filter(|_| !options.ignore_additions)),
        }
    }
    (added, list::deduplicate(deleted))
}

fn lists_of_maps(
    old: &[Value],
    new: &[Value],
    meta: Meta<'_>,
    key: &str,
    options: Options,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let (old, new) = (list::sort_maps(old, key)?, list::sort_maps(new, key)?);
    let (mut patch, mut deleted) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let old_key = old.get(i).map(|value| merge_key(value, key)).transpose()?;
        let new_key = new.get(j).map(|value| merge_key(value, key)).transpose()?;
        let order = match (old_key, new_key) {
            (Some(old), Some(new)) => go_value(old).cmp(&go_value(new)),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        match (order, old_key, new_key) {
            (Ordering::Equal, _, Some(id)) => {
                let (Value::Object(before), Value::Object(after)) = (&old[i], &new[j]) else { break };
                let mut inner = maps(before, after, meta, options)?;
                if !inner.is_empty() {
                    inner.insert(key.to_owned(), id.clone());
                    patch.push(Value::Object(inner));
                }
                (i, j) = (i + 1, j + 1);
            }
            (Ordering::Less, Some(id), _) => {
                if !options.ignore_deletions {
                    let entry = [(key.to_owned(), id.clone()), (DIRECTIVE.to_owned(), Value::from("delete"))];
                    deleted.push(Value::Object(entry.into_iter().collect()));
                }
                i += 1;
            }
            _ => {
                if !options.ignore_additions {
                    patch.push(new[j].clone());
                }
                j += 1;
            }
        }
    }
    Ok((patch, deleted))
}
