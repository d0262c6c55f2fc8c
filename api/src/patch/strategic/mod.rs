//! Strategic merge patch: merging and diffing by the merge keys of the schema.
//!
//! The mechanism is upstream's (`apimachinery/pkg/util/strategicpatch`): lists with strategy `merge` are matched
//! by merge key, or treated as sets; `$patch`, `$retainKeys`, `$setElementOrder/x` and
//! `$deleteFromPrimitiveList/x` direct it. Where upstream depends on the random order of Go maps, keys go sorted.

use serde_json::{Map, Value};

use super::{Error, Strict, go_type, go_value};
use crate::schema::TypeRef;

mod conflict;
mod diff;
mod list;
mod merge;
mod meta;

#[cfg(test)]
mod tests;

use meta::Meta;

type Object = Map<String, Value>;
type Result<T> = std::result::Result<T, Error>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// Reads a strategic merge patch.
///
/// # Errors
/// When it is not an object.
pub fn decode(json: &[u8]) -> Result<Strict<Value>> {
    let bad = |why: String| Error::BadRequest(format!("error decoding patch: {why}"));
    let decoded = crate::schema::decode_any(json).map_err(|error| bad(error.to_string()))?;
    match decoded.value {
        Value::Object(_) => Ok(Strict { patch: decoded.value, strict_errors: decoded.strict_errors }),
        Value::Null => Ok(Strict { patch: Value::Object(Object::new()), strict_errors: vec![] }),
        other => {
            let kind = crate::codec::json::kind_of(&other);
            Err(bad(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")))
        }
    }
}

/// The patched object. `ty` is the type of `original`.
///
/// # Errors
/// When the patch does not fit the type, or its directives contradict each other.
pub fn apply(original: &Value, patch: &Value, ty: TypeRef<'_>) -> Result<Value> {
    let options = merge::Options { final_merge: true };
    merge::map(object(original)?.clone(), object(patch)?.clone(), Meta::Object(ty), options)
        .map(Value::Object)
}

/// The patch that leads from `original` to `modified`.
///
/// # Errors
/// When a list that is merged by key has elements without it.
pub fn create_two_way(original: &Value, modified: &Value, ty: TypeRef<'_>) -> Result<Value> {
    let options = diff::Options { set_order: true, ..diff::Options::default() };
    diff::maps(object(original)?, object(modified)?, Meta::Object(ty), options).map(Value::Object)
}

/// The patch of an apply: additions and changes from `current` to `modified`, deletions from `original` (what was
/// applied last) to `modified`.
///
/// # Errors
/// When a list that is merged by key has elements without it, or, unless `overwrite`, when the patch would undo
/// what others changed since.
pub fn create_three_way(
    original: &Value,
    modified: &Value,
    current: &Value,
    ty: TypeRef<'_>,
    overwrite: bool,
) -> Result<Value> {
    let meta = Meta::Object(ty);
    let (original, modified, current) = (object(original)?, object(modified)?, object(current)?);
    let changes = diff::Options { ignore_deletions: true, set_order: true, ..diff::Options::default() };
    let delta = diff::maps(current, modified, meta, changes)?;
    let only_deletions =
        diff::Options { ignore_additions: true, set_order: true, ..diff::Options::default() };
    let deletions = diff::maps(original, modified, meta, only_deletions)?;
    let patch = merge::map(deletions, delta, meta, merge::Options { final_merge: false })?;
    if !overwrite {
        let changed = diff::maps(original, current, meta, diff::Options::default())?;
        if conflict::maps(&patch, &changed, meta)? {
            let show = |map: &Object| crate::codec::yaml::encode(&Value::Object(map.clone()));
            return Err(Error::Internal(format!(
                "patch:\n{}\nconflicts with changes made from original to current:\n{}\n",
                show(&patch),
                show(&changed)
            )));
        }
    }
    Ok(Value::Object(patch))
}

fn object(value: &Value) -> Result<&Object> {
    value.as_object().ok_or_else(|| Error::BadRequest("invalid JSON document".to_owned()))
}

fn internal<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Internal(message.into()))
}

fn bad_type<T>(wanted: &str, found: &Value) -> Result<T> {
    internal(format!("expected a {wanted}, but received a {}", go_type(found)))
}

fn as_map(value: &Value) -> Result<&Object> {
    value.as_object().map_or_else(|| bad_type("map[string]interface {}", value), Ok)
}

fn into_list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => bad_type("[]interface {}", &other),
    }
}

fn merge_key<'v>(value: &'v Value, key: &str) -> Result<&'v Value> {
    let map = as_map(value)?;
    map.get(key).map_or_else(
        || internal(format!("map: {} does not contain declared merge key: {key}", go_value(value))),
        Ok,
    )
}

fn bad_format<T>(what: &str) -> Result<T> {
    Err(Error::BadRequest(format!("invalid patch format of {what}")))
}
