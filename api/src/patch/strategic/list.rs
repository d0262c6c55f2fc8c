//! Lists: kinds of elements, order, sets.

use std::cmp::Ordering;

use serde_json::Value;

use super::{DIRECTIVE, Error, Result, as_map, go_type, go_value, internal, merge_key};

/// What a list consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Maps,
    Scalars,
}

/// The kind of elements of all these lists together.
pub(super) fn kind(lists: &[&[Value]]) -> Result<Kind> {
    let mut types = lists.iter().flat_map(|list| list.iter()).map(|value| (go_type(value), value));
    let Some((first, value)) = types.next() else {
        return internal("no elements in any of the given slices");
    };
    if value.is_array() {
        return Err(Error::Unprocessable("lists of lists are not supported".to_owned()));
    }
    if types.any(|(other, _)| other != first) {
        let shown: Vec<String> = lists.iter().map(|list| go_value(&Value::Array(list.to_vec()))).collect();
        return internal(format!("list element types are not identical: [{}]", shown.join(" ")));
    }
    Ok(if value.is_object() { Kind::Maps } else { Kind::Scalars })
}

/// Whether two elements are the same one.
pub(super) fn same(a: &Value, b: &Value, key: &str) -> Result<bool> {
    if key.is_empty() {
        return Ok(a == b);
    }
    Ok(merge_key(a, key)? == merge_key(b, key)?)
}

fn identity<'v>(value: &'v Value, key: &str, kind: Kind) -> Option<&'v Value> {
    match kind {
        Kind::Maps => value.as_object().and_then(|map| map.get(key)),
        Kind::Scalars => Some(value),
    }
}

fn index(list: &[Value], value: &Value, key: &str, kind: Kind) -> Option<usize> {
    let wanted = identity(value, key, kind);
    list.iter().position(|other| identity(other, key, kind) == wanted)
}

/// The element with this merge key.
pub(super) fn find(list: &[Value], key: &str, wanted: &Value) -> Result<Option<usize>> {
    for (i, value) in list.iter().enumerate() {
        let Some(map) = value.as_object() else { return internal(format!("value for key {i} is not a map")) };
        if map.get(key) == Some(wanted) {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

/// Elements that are to be deleted, behind the others.
pub(super) fn split_deleted(list: Vec<Value>) -> Result<(Vec<Value>, Vec<Value>)> {
    for value in &list {
        as_map(value)?;
    }
    let is_delete = |value: &Value| value.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
    let (deleted, kept) = list.into_iter().partition(is_delete);
    Ok((kept, deleted))
}

/// Brings `list` into the order in which its elements stand in `order`; what is to be deleted comes last.
pub(super) fn sort_by_order(list: Vec<Value>, order: &[Value], key: &str, kind: Kind) -> Result<Vec<Value>> {
    let (mut list, deleted) = match kind {
        Kind::Scalars => (list, Vec::new()),
        Kind::Maps => {
            for value in list.iter().chain(order) {
                merge_key(value, key)?;
            }
            split_deleted(list)?
        }
    };
    let places: Vec<Option<usize>> = list.iter().map(|value| index(order, value, key, kind)).collect();
    // What is not in `order` goes before anything it is compared with, as in upstream's insertion sort.
    let before = |a: usize, b: usize| match (places[a], places[b]) {
        (Some(a), Some(b)) => a < b,
        _ => true,
    };
    let mut sorted: Vec<usize> = (0..list.len()).collect();
    for i in 1..sorted.len() {
        let mut j = i;
        while j > 0 && before(sorted[j], sorted[j - 1]) {
            sorted.swap(j, j - 1);
            j -= 1;
        }
    }
    let mut taken: Vec<Value> = sorted.into_iter().map(|i| list[i].take()).collect();
    taken.extend(deleted);
    Ok(taken)
}

/// Merges what the patch has and what only the server has, each in its own order.
pub(super) fn merge_orders(
    patch: Vec<Value>,
    server_only: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: &str,
    kind: Kind,
) -> Result<Vec<Value>> {
    let patch = sort_by_order(patch, patch_order, key, kind)?;
    let server_only = sort_by_order(server_only, server_order, key, kind)?;
    let place = |value: &Value| index(server_order, value, key, kind);
    let mut merged = Vec::with_capacity(patch.len() + server_only.len());
    let (mut left, mut right) = (server_only.into_iter().peekable(), patch.into_iter().peekable());
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) => matches!((place(l), place(r)), (Some(l), Some(r)) if l < r),
            (left, _) => left.is_some(),
        };
        match if take_left { left.next() } else { right.next() } {
            Some(value) => merged.push(value),
            None => return Ok(merged),
        }
    }
}

/// What of `list` is named by `by`, and what is not.
pub(super) fn partition(list: Vec<Value>, by: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut named, mut rest) = (Vec::new(), Vec::new());
    for value in list {
        let found = if key.is_empty() {
            by.contains(&value)
        } else {
            find(by, key, merge_key(&value, key)?)?.is_some()
        };
        if found { named.push(value) } else { rest.push(value) }
    }
    Ok((named, rest))
}

/// Drops repeated scalars. The last element takes the place of one that is dropped, as upstream does it.
pub(super) fn deduplicate(mut list: Vec<Value>) -> Vec<Value> {
    let mut i = 0;
    while i + 1 < list.len() {
        let mut j = i + 1;
        while j < list.len() {
            if list[i] == list[j] {
                list.swap_remove(j);
            } else {
                j += 1;
            }
        }
        i += 1;
    }
    list
}

fn by_text(a: &Value, b: &Value) -> Ordering {
    go_value(a).cmp(&go_value(b))
}

/// Scalars in the order of their text.
pub(super) fn sort_scalars(mut list: Vec<Value>) -> Vec<Value> {
    list.sort_by(by_text);
    list
}

/// Maps in the order of their merge key's text.
pub(super) fn sort_maps(list: &[Value], key: &str) -> Result<Vec<Value>> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    if kind(&[list])? == Kind::Scalars {
        return Ok(sort_scalars(deduplicate(list.to_vec())));
    }
    let mut sorted = list.to_vec();
    let text = |value: &Value| value.get(key).map_or_else(|| "<nil>".to_owned(), go_value);
    sorted.sort_by_key(text);
    Ok(sorted)
}
