//! JSON patch (RFC 6902) as the library upstream uses applies it: negative indexes count from the end, a `test`
//! for null passes where nothing is, and nothing is changed unless every operation succeeds.

use serde_json::{Map, Value};

use super::{Error, Strict};
use crate::codec::json::kind_of;
use crate::schema::{DecodeError, decode_unstructured_value};

/// No more operations than this are taken.
pub const MAX_OPERATIONS: usize = 10_000;

/// A list of operations.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPatch {
    operations: Vec<Map<String, Value>>,
}

/// A JSON pointer in its parts.
type Pointer = Vec<String>;

type Step<T = ()> = Result<T, String>;

impl JsonPatch {
    /// Reads a patch.
    ///
    /// # Errors
    /// When it is not a list of objects, or too long.
    pub fn decode(json: &[u8]) -> Result<Strict<Self>, Error> {
        let bad = |why: String| Error::BadRequest(format!("error decoding patch: {why}"));
        let type_error = |value: &Value, wanted: &str| {
            bad(format!("json: cannot unmarshal {} into Go value of type {wanted}", kind_of(value)))
        };
        let duplicates = duplicates(json).map_err(|error| bad(error.to_string()))?;
        let items = match serde_json::from_slice(json).map_err(|error| bad(error.to_string()))? {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            other => return Err(type_error(&other, "[]handlers.jsonPatchOp")),
        };
        if items.len() > MAX_OPERATIONS {
            let message = format!(
                "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                items.len()
            );
            return Err(Error::TooLarge(message));
        }
        let mut strict_errors = duplicates;
        let mut operations = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let Value::Object(operation) = item else {
                return Err(type_error(&item, "handlers.jsonPatchOp"));
            };
            for key in operation.keys().filter(|key| !["op", "path", "from", "value"].contains(&key.as_str()))
            {
                strict_errors.push(format!("unknown field \"[{i}].{key}\""));
            }
            for key in ["op", "path", "from"] {
                if let Some(value) = operation.get(key).filter(|value| !value.is_string() && !value.is_null())
                {
                    let kind = kind_of(value);
                    let message = format!(
                        "json: cannot unmarshal {kind} into Go struct field jsonPatchOp.{key} of type string"
                    );
                    return Err(bad(message));
                }
            }
            operations.push(operation);
        }
        let strict_errors = strict_errors.into_iter().map(|error| format!("json patch {error}")).collect();
        Ok(Strict { patch: Self { operations }, strict_errors })
    }

    /// The patched document.
    ///
    /// # Errors
    /// When an operation cannot be carried out.
    pub fn apply(&self, document: &Value) -> Result<Value, Error> {
        let mut out = document.clone();
        for operation in &self.operations {
            run(&mut out, operation).map_err(Error::Unprocessable)?;
        }
        Ok(out)
    }
}

/// Fields given twice within one operation.
fn duplicates(json: &[u8]) -> Result<Vec<String>, DecodeError> {
    crate::schema::decode_any(json).map(|decoded| decoded.strict_errors)
}

fn run(document: &mut Value, operation: &Map<String, Value>) -> Step {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let pointer = |key: &str| text(key).ok_or_else(|| format!("missing {key}")).and_then(parse);
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match text("op").unwrap_or("unknown") {
        "add" => add(document, &pointer("path")?, value()),
        "remove" => remove(document, &pointer("path")?).map(drop),
        "replace" => replace(document, &pointer("path")?, value()),
        "move" => {
            let (from, path) = (pointer("from")?, pointer("path")?);
            let moved = remove(document, &from)?;
            add(document, &path, moved)
        }
        "copy" => {
            let (from, path) = (pointer("from")?, pointer("path")?);
            let copied = find(document, &from).ok_or("copy operation does not apply: missing path")?.clone();
            add(document, &path, copied)
        }
        "test" => {
            let (path, wanted) = (pointer("path")?, value());
            let found = find(document, &path).unwrap_or(&Value::Null);
            if equal(found, &wanted) {
                Ok(())
            } else {
                Err(format!("testing value {} failed", text("path").unwrap_or_default()))
            }
        }
        kind => Err(format!("unexpected kind: {kind}")),
    }
}

fn parse(pointer: &str) -> Step<Pointer> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer
        .strip_prefix('/')
        .ok_or_else(|| format!("pointer {pointer:?} does not begin with a slash"))?;
    Ok(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

/// Where in a list of `length` elements a part points.
fn index(part: &str, length: usize) -> Step<usize> {
    let wrong = || format!("invalid array index {part:?}");
    let (negative, digits) = part.strip_prefix('-').map_or((false, part), |rest| (true, rest));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: usize = digits.parse().map_err(|_| wrong())?;
    if negative { length.checked_sub(number).ok_or_else(wrong) } else { Ok(number) }
}

fn find<'v>(document: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(items) => items.get(index(part, items.len()).ok()?),
        _ => None,
    })
}

/// The container that the last part of a path is in, and that part.
fn parent<'v, 'p>(document: &'v mut Value, path: &'p [String]) -> Step<(&'v mut Value, &'p str)> {
    let (last, way) = path.split_last().ok_or("the whole document cannot be patched so")?;
    let mut value = document;
    for part in way {
        let missing = || format!("doc is missing path {part:?}");
        value = match value {
            Value::Object(map) => map.get_mut(part).ok_or_else(missing)?,
            Value::Array(items) => {
                let at = index(part, items.len())?;
                items.get_mut(at).ok_or_else(missing)?
            }
            _ => return Err(missing()),
        };
    }
    Ok((value, last))
}

fn add(document: &mut Value, path: &[String], value: Value) -> Step {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    match parent(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key.to_owned(), value);
        }
        (Value::Array(items), "-") => items.push(value),
        (Value::Array(items), part) => {
            // Negative indexes count from behind the new end.
            let at = index(part, items.len() + 1)?;
            if at > items.len() {
                return Err(format!("index {at} is out of bounds"));
            }
            items.insert(at, value);
        }
        (_, part) => return Err(format!("add operation does not apply at {part:?}")),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &[String]) -> Step<Value> {
    match parent(document, path)? {
        (Value::Object(map), key) => {
            map.remove(key).ok_or_else(|| format!("unable to remove nonexistent key {key:?}"))
        }
        (Value::Array(items), part) => {
            let at = index(part, items.len())?;
            if at < items.len() { Ok(items.remove(at)) } else { Err(format!("index {at} is out of bounds")) }
        }
        (_, part) => Err(format!("remove operation does not apply at {part:?}")),
    }
}

fn replace(document: &mut Value, path: &[String], value: Value) -> Step {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let slot = match parent(document, path)? {
        (Value::Object(map), key) => map.get_mut(key),
        (Value::Array(items), part) => {
            let at = index(part, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    };
    *slot.ok_or("replace operation does not apply: missing key")? = value;
    Ok(())
}

/// Equality of JSON in which `1` and `1.0` are the same number.
fn equal(a: &Value, b: &Value) -> bool {
    let plain = |value: &Value| decode_unstructured_value(value.clone()).map(|decoded| decoded.value);
    a == b || matches!((plain(a), plain(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(document: Value, patch: Value) -> Result<Value, Error> {
        JsonPatch::decode(patch.to_string().as_bytes())?.patch.apply(&document)
    }

    #[test]
    fn operations_do_what_the_rfc_says() {
        for (document, patch, result) in [
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": [1]}]), json!({"a": 1, "b": [1]})),
            (
                json!([1, 3]),
                json!([{"op": "add", "path": "/1", "value": 2}, {"op": "add", "path": "/-", "value": 4}]),
                json!([1, 2, 3, 4]),
            ),
            (json!([1, 2]), json!([{"op": "add", "path": "/-1", "value": 3}]), json!([1, 2, 3])),
            (json!({"a": {"b": 1}}), json!([{"op": "remove", "path": "/a/b"}]), json!({"a": {}})),
            (json!([1, 2, 3]), json!([{"op": "remove", "path": "/-1"}]), json!([1, 2])),
            (
                json!({"a/b": 1, "c~d": 2}),
                json!([{"op": "replace", "path": "/a~1b", "value": 3}, {"op": "remove", "path": "/c~0d"}]),
                json!({"a/b": 3}),
            ),
            (
                json!({"a": {"x": 1}, "b": {}}),
                json!([{"op": "move", "from": "/a/x", "path": "/b/y"}]),
                json!({"a": {}, "b": {"y": 1}}),
            ),
            (
                json!({"a": [1]}),
                json!([{"op": "copy", "from": "/a/0", "path": "/b"}]),
                json!({"a": [1], "b": 1}),
            ),
            (
                json!({"a": 1}),
                json!([{"op": "test", "path": "/a", "value": 1.0}, {"op": "test", "path": "/z", "value": null}]),
                json!({"a": 1}),
            ),
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"b": 2}}]), json!({"b": 2})),
        ] {
            assert_eq!(apply(document, patch.clone()), Ok(result), "{patch}");
        }
    }

    #[test]
    fn operations_that_do_not_apply_are_unprocessable() {
        for patch in [
            json!([{"op": "remove", "path": "/z"}]),
            json!([{"op": "replace", "path": "/z", "value": 1}]),
            json!([{"op": "add", "path": "/z/y", "value": 1}]),
            json!([{"op": "add", "path": "/l/5", "value": 1}]),
            json!([{"op": "add", "path": "l", "value": 1}]),
            json!([{"op": "move", "from": "/z", "path": "/y"}]),
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "poke", "path": "/a"}]),
            json!([{"path": "/a"}]),
            json!([{"op": "remove"}]),
        ] {
            let error = apply(json!({"a": 1, "l": [1]}), patch.clone()).unwrap_err();
            assert_eq!(error.code(), 422, "{patch}");
        }
    }

    #[test]
    fn bad_patches_are_refused() {
        let decode = |text: &str| JsonPatch::decode(text.as_bytes()).map(|p| p.strict_errors);
        assert_eq!(
            decode("{}"),
            Err(Error::BadRequest(
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp".into()
            ))
        );
        let many = format!("[{}]", vec![r#"{"op":"test","path":"/a"}"#; 10_001].join(","));
        assert_eq!(
            decode(&many),
            Err(Error::TooLarge("The allowed maximum operations in a JSON patch is 10000, got 10001".into()))
        );
        assert_eq!(
            decode(r#"[{"op":"add","op":"add","path":"/a","extra":1}]"#),
            Ok(vec![
                r#"json patch duplicate field "[0].op""#.to_owned(),
                r#"json patch unknown field "[0].extra""#.to_owned()
            ])
        );
    }
}
