//! Applying patches to objects, and patches to patches.

use serde_json::Value;

use super::list::{self, Kind};
use super::meta::{FieldMeta, Meta};
use super::{
    DELETE_FROM_LIST, DIRECTIVE, Object, RETAIN_KEYS, Result, SET_ORDER, as_map, bad_format, go_type,
    go_value, internal, into_list, merge_key,
};

/// How to merge.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// A patch is applied to an object: directives are carried out and nulls drop out. Otherwise a patch is
    /// merged into a patch and they stay.
    pub(super) final_merge: bool,
}

/// Applies `patch` to `original`.
pub(super) fn map(
    mut original: Object,
    mut patch: Object,
    meta: Meta<'_>,
    options: Options,
) -> Result<Object> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => {
                let shown = match directive {
                    Value::String(text) => text.clone(),
                    other => format!("%!s({}={})", go_type(other), go_value(other)),
                };
                internal(format!("unknown patch type: {shown} in map: {}", go_value(&Value::Object(patch))))
            }
        };
    }
    retain_keys(&mut original, &mut patch, options)?;
    set_orders(&mut original, &mut patch, meta, options)?;
    for (key, value) in patch {
        let mut key = key;
        let mut deleting = false;
        if key.starts_with(DELETE_FROM_LIST) {
            if !options.final_merge {
                original.insert(key, value);
                continue;
            }
            let Some(plain) = key.strip_prefix(DELETE_FROM_LIST).and_then(|rest| rest.strip_prefix('/'))
            else {
                return bad_format("primitive list");
            };
            (key, deleting) = (plain.to_owned(), true);
        }
        field(&mut original, key, value, deleting, meta, options)?;
    }
    Ok(original)
}

/// Applies the patch of one field.
fn field(
    original: &mut Object,
    key: String,
    value: Value,
    deleting: bool,
    meta: Meta<'_>,
    options: Options,
) -> Result<()> {
    if value.is_null() {
        original.remove(&key);
        if options.final_merge {
            return Ok(());
        }
    }
    let current = match original.remove(&key) {
        Some(current) if go_type(&current) == go_type(&value) => current,
        current => {
            if deleting {
                original.extend(current.map(|current| (key, current)));
            } else {
                set(original, key, value, options.final_merge);
            }
            return Ok(());
        }
    };
    match (current, value) {
        (Value::Object(current), Value::Object(value)) => {
            let field = meta.for_map(&key)?;
            let merged = if field.patch.replace { value } else { map(current, value, field.inner, options)? };
            original.insert(key, Value::Object(merged));
        }
        (Value::Array(current), Value::Array(value)) => {
            let merged = list_field(current, value, meta.for_list(&key)?, deleting, options)?;
            original.insert(key, Value::Array(merged));
        }
        (_, value) => set(original, key, value, false),
    }
    Ok(())
}

/// Sets a field to what a patch holds, without the directives in it, and, if `drop_nulls`, without nulls.
fn set(original: &mut Object, key: String, mut value: Value, drop_nulls: bool) {
    if drop_nulls {
        discard_nulls(&mut value);
    }
    original.extend(without_directives(value).map(|value| (key, value)));
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// A value without the objects that carry a directive.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?))).collect(),
        )),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// Carries out `$retainKeys`.
fn retain_keys(original: &mut Object, patch: &mut Object, options: Options) -> Result<()> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if !options.final_merge {
        match original.get(RETAIN_KEYS) {
            Some(other) if *other != retained => {
                return internal(format!(
                    "{} and {} are not deep equal: this may happen when calculating the 3-way diff patch",
                    go_value(other),
                    go_value(&retained)
                ));
            }
            Some(_) => {}
            None => drop(original.insert(RETAIN_KEYS.to_owned(), retained)),
        }
        return Ok(());
    }
    let Value::Array(retained) = retained else { return bad_format("retainKeys") };
    let keeps = |key: &str| retained.iter().any(|name| name.as_str() == Some(key));
    let directive = |key: &str| key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !keeps(key)) {
        return bad_format("retainKeys");
    }
    original.retain(|key, _| keeps(key));
    Ok(())
}

/// Carries out `$setElementOrder`, which takes the lists it names out of the patch.
fn set_orders(original: &mut Object, patch: &mut Object, meta: Meta<'_>, options: Options) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        if !options.final_merge {
            match original.get(&directive) {
                Some(other) if *other != order => return bad_format("setElementOrder list"),
                Some(_) => {}
                None => drop(original.insert(directive.clone(), order.clone())),
            }
        }
        let order = into_list(order)?;
        let Some(key) = directive.strip_prefix(SET_ORDER).and_then(|rest| rest.strip_prefix('/')) else {
            return bad_format("setElementOrder list");
        };
        let current = original.get(key).cloned().map(into_list).transpose()?;
        let change = patch.get(key).cloned().map(into_list).transpose()?;
        let field = meta.for_list(key)?;
        check_order(change.as_deref().unwrap_or_default(), &order, field.merge_key)?;
        let (current_items, change_items) =
            (current.clone().unwrap_or_default(), change.clone().unwrap_or_default());
        let merged = match (current, change) {
            (None, None) => continue,
            (Some(current), None) => current,
            (None, Some(change)) => match without_directives(Value::Array(change)) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(current), Some(change)) => list_field(current, change, field, false, options)?,
        };
        let (named, rest) = list::partition(merged, &order, field.merge_key)?;
        let kind = list::kind(&[&current_items, &change_items])?;
        let server_order = if field.patch.merge && kind == Kind::Maps {
            order_left_behind(current_items, &change_items, field.merge_key)
        } else {
            current_items
        };
        let both = list::merge_orders(named, rest, &order, &server_order, field.merge_key, kind)?;
        original.insert(key.to_owned(), Value::Array(both));
        patch.remove(key);
    }
    Ok(())
}

/// The order that upstream takes for the server's after it has merged into the server's list in place: what is
/// deleted makes the rest move up, and what is added takes the places that fall free at the end.
fn order_left_behind(mut items: Vec<Value>, change: &[Value], key: &str) -> Vec<Value> {
    let mut length = items.len();
    let place =
        |items: &[Value], value: &Value| items.iter().position(|item| item.get(key) == value.get(key));
    let directive = |value: &Value| value.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    for value in change.iter().filter(|value| directive(value).as_deref() == Some("delete")) {
        while let Some(at) = place(&items[..length], value) {
            length -= 1;
            for i in at..length {
                items[i] = items[i + 1].clone();
            }
        }
    }
    if change.iter().any(|value| directive(value).as_deref() == Some("replace")) {
        return items;
    }
    for value in change.iter().filter(|value| directive(value).is_none()) {
        if length < items.len() && place(&items[..length], value).is_none() {
            items[length] = value.clone();
            length += 1;
        }
    }
    items
}

/// A patch list must hold its elements in the order that `$setElementOrder` gives them.
fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let kept = if key.is_empty() { patch.to_vec() } else { list::split_deleted(patch.to_vec())?.0 };
    let (mut at, mut place) = (0, 0);
    while at < kept.len() && place < order.len() {
        if kept[at].as_object().is_some_and(|map| map.contains_key(DIRECTIVE)) {
            at += 1;
            continue;
        }
        if list::same(&kept[at], &order[place], key)? {
            at += 1;
        }
        place += 1;
    }
    if at < kept.len() && place >= order.len() {
        return internal(format!(
            "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
            go_value(&Value::Array(patch.to_vec())),
            go_value(&Value::Array(order.to_vec()))
        ));
    }
    Ok(())
}

fn list_field(
    original: Vec<Value>,
    patch: Vec<Value>,
    field: FieldMeta<'_>,
    deleting: bool,
    options: Options,
) -> Result<Vec<Value>> {
    if field.patch.merge || deleting {
        merge_lists(original, patch, field, deleting, options)
    } else {
        Ok(patch)
    }
}

fn merge_lists(
    original: Vec<Value>,
    patch: Vec<Value>,
    field: FieldMeta<'_>,
    deleting: bool,
    options: Options,
) -> Result<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let key = field.merge_key;
    let kind = list::kind(&[&original, &patch])?;
    let (mut before, mut change) = (original.clone(), patch);
    let merged = match kind {
        Kind::Scalars if options.final_merge && deleting => {
            return Ok(original.into_iter().filter(|value| !change.contains(value)).collect());
        }
        Kind::Scalars => list::deduplicate(original.into_iter().chain(change.iter().cloned()).collect()),
        Kind::Maps if key.is_empty() => {
            return internal(format!("cannot merge lists without merge key for {}", field.inner.name()));
        }
        Kind::Maps => {
            let (original, rest) = special_elements(original, change, key)?;
            before.clone_from(&original);
            change = rest;
            merge_elements(original, &change, field, options)?
        }
    };
    let (named, rest) = list::partition(merged, &change, key)?;
    list::merge_orders(named, rest, &change, &before, key, kind)
}

/// Carries out elements with a `$patch` directive: `delete` takes an element out, `replace` replaces the list.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut rest = Vec::new();
    let mut replace = false;
    for value in patch {
        let element = as_map(&value)?;
        match element.get(DIRECTIVE) {
            None => rest.push(value),
            Some(Value::String(directive)) if directive == "delete" => {
                let Some(id) = element.get(key) else {
                    return internal(format!(
                        "map: {} does not contain declared merge key: {key}",
                        go_value(&value)
                    ));
                };
                while let Some(at) = list::find(&original, key, id)? {
                    original.remove(at);
                }
            }
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return internal("merging lists cannot yet be specified in the patch");
            }
            Some(other) => {
                let shown = match other {
                    Value::String(text) => text.clone(),
                    other => format!("%!s({}={})", go_type(other), go_value(other)),
                };
                return internal(format!("unknown patch type: {shown} in map: {}", go_value(&value)));
            }
        }
    }
    if replace { Ok((rest, Vec::new())) } else { Ok((original, rest)) }
}

fn merge_elements(
    mut original: Vec<Value>,
    patch: &[Value],
    field: FieldMeta<'_>,
    options: Options,
) -> Result<Vec<Value>> {
    for value in patch {
        let change = as_map(value)?.clone();
        let id = merge_key(value, field.merge_key)?;
        match list::find(&original, field.merge_key, id)? {
            None if options.final_merge => original.extend(without_directives(value.clone())),
            None => original.push(value.clone()),
            Some(at) => {
                let Value::Object(current) = original[at].take() else { continue };
                original[at] = Value::Object(map(current, change, field.inner, options)?);
            }
        }
    }
    Ok(original)
}
