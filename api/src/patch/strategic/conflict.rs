//! Whether two patches contradict each other.

use std::collections::BTreeMap;

use serde_json::Value;

use super::list::{self, Kind};
use super::meta::{FieldMeta, Meta};
use super::{DIRECTIVE, Object, RETAIN_KEYS, Result, go_value, internal};

/// Whether the two patches set something to different values.
pub(super) fn maps(left: &Object, right: &Object, meta: Meta<'_>) -> Result<bool> {
    let (left_directive, right_directive) = (left.get(DIRECTIVE), right.get(DIRECTIVE));
    if left_directive != right_directive {
        return Ok(true);
    }
    fields(left, right, meta)
}

fn fields(left: &Object, right: &Object, meta: Meta<'_>) -> Result<bool> {
    for (key, value) in left.iter().filter(|(key, _)| ![DIRECTIVE, RETAIN_KEYS].contains(&key.as_str())) {
        let Some(other) = right.get(key) else { continue };
        let field = match value {
            Value::Array(_) => Some(meta.for_list(key)?),
            Value::Object(_) => Some(meta.for_map(key)?),
            _ => None,
        };
        if values(value, other, field)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn values(left: &Value, right: &Value, field: Option<FieldMeta<'_>>) -> Result<bool> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            if left.get(DIRECTIVE) != right.get(DIRECTIVE) {
                return Ok(true);
            }
            match field {
                Some(field) if field.patch.replace => Ok(false),
                Some(field) => fields(left, right, field.inner),
                None => Ok(left != right),
            }
        }
        (Value::Array(left), Value::Array(right)) => lists(left, right, field),
        (left, right) => Ok(left != right),
    }
}

fn lists(left: &[Value], right: &[Value], field: Option<FieldMeta<'_>>) -> Result<bool> {
    let kind = list::kind(&[left, right])?;
    let inner = field.map(|field| FieldMeta { patch: Default::default(), merge_key: "", inner: field.inner });
    if let Some(field) = field.filter(|field| field.patch.merge) {
        if kind == Kind::Scalars {
            return Ok(false);
        }
        let (left, right) = (by_key(left, field.merge_key)?, by_key(right, field.merge_key)?);
        for (key, value) in left {
            if let Some(other) = right.get(&key)
                && values(value, other, inner)?
            {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    if left.len() != right.len() {
        return Ok(true);
    }
    let sorted = |list: &[Value]| match kind {
        Kind::Scalars => list::sort_scalars(list::deduplicate(list.to_vec())),
        Kind::Maps => list.to_vec(),
    };
    for (left, right) in sorted(left).iter().zip(&sorted(right)) {
        if values(left, right, inner)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn by_key<'v>(list: &'v [Value], key: &str) -> Result<BTreeMap<String, &'v Value>> {
    let mut map = BTreeMap::new();
    for value in list {
        let Some(id) = value.get(key) else {
            return internal(format!(
                "cannot find merge key `{key}` in merging list element:{}",
                go_value(value)
            ));
        };
        map.insert(go_value(id), value);
    }
    Ok(map)
}
