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

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The patched document.
    ///
    /// # Errors
    /// When an operation cannot be carried out.
    pub fn apply(&self, document: &Value) -> Result<Value, Error> {
        let mut out = document.clone();
        for operation in &self.operations {
            run(&mut out, operation)?;
        }
        Ok(out)
    }
}

/// Fields given twice within one operation.
fn duplicates(json: &[u8]) -> Result<Vec<String>, DecodeError> {
    crate::schema::decode_any(json).map(|decoded| decoded.strict_errors)
}

fn run(document: &mut Value, operation: &Map<String, Value>) -> Result<(), Error> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let step = Operation { path: text("path"), from: text("from"), value: operation.get("value") };
    let done = match kind {
        "add" => step.add(document),
        "remove" => step.remove(document),
        "replace" => step.replace(document),
        "move" => step.relocate(document),
        "copy" => step.copy(document),
        "test" => {
            return match step.test(document).map_err(Error::Unprocessable)? {
                true => Ok(()),
                false => {
                    let path = step.path.unwrap_or_default();
                    Err(Error::TestFailed(format!("testing value {path} failed: test failed")))
                }
            };
        }
        kind => Err(format!("Unexpected kind: {kind}")),
    };
    done.map_err(Error::Unprocessable)
}

/// One operation, with the messages of the library.
struct Operation<'o> {
    path: Option<&'o str>,
    from: Option<&'o str>,
    value: Option<&'o Value>,
}

const NO_PATH: &str = "operation missing path field: missing value";
const NO_FROM: &str = "operation, missing from field: missing value";

impl Operation<'_> {
    fn value(&self) -> Value {
        self.value.cloned().unwrap_or(Value::Null)
    }

    fn add(&self, document: &mut Value) -> Step {
        let path = self.path.ok_or("add operation failed to decode path: missing value")?;
        let missing =
            || format!("add operation does not apply: doc is missing path: \"{path}\": missing value");
        let (container, key) = parent(document, path).ok_or_else(missing)?;
        add(container, &key, self.value()).map_err(|why| format!("error in add for path: '{path}': {why}"))
    }

    fn remove(&self, document: &mut Value) -> Step {
        let path = self.path.ok_or("remove operation failed to decode path: missing value")?;
        let missing =
            || format!("remove operation does not apply: doc is missing path: \"{path}\": missing value");
        let (container, key) = parent(document, path).ok_or_else(missing)?;
        let why = |why| format!("error in remove for path: '{path}': {why}");
        remove(container, &key).map(drop).map_err(why)
    }

    fn replace(&self, document: &mut Value) -> Step {
        let path = self.path.ok_or_else(|| format!("replace operation failed to decode path: {NO_PATH}"))?;
        if path.is_empty() {
            *document = self.value();
            return match document {
                Value::Object(_) | Value::Array(_) => Ok(()),
                _ => Err("replace operation value must be object or array: %!w(<nil>)".to_owned()),
            };
        }
        let missing = |what: &str| {
            format!("replace operation does not apply: doc is missing {what}: {path}: missing value")
        };
        let (container, key) = parent(document, path).ok_or_else(|| missing("path"))?;
        match container {
            // As the library: a key that is not there is added.
            Value::Object(map) => {
                map.insert(key, self.value());
            }
            Value::Array(items) => {
                let at = index(&key, items.len()).map_err(|_| missing("key"))?;
                items[at] = self.value();
            }
            _ => return Err(missing("path")),
        }
        Ok(())
    }

    fn relocate(&self, document: &mut Value) -> Step {
        let from = self.from.ok_or_else(|| format!("move operation failed to decode from: {NO_FROM}"))?;
        let missing = |what: &str, path: &str| {
            format!("move operation does not apply: doc is missing {what} path: {path}: missing value")
        };
        let (container, key) = parent(document, from).ok_or_else(|| missing("from", from))?;
        let value =
            remove(container, &key).map_err(|why| format!("error in move for path: '{key}': {why}"))?;
        let path = self.path.ok_or_else(|| format!("move operation failed to decode path: {NO_PATH}"))?;
        let (container, key) = parent(document, path).ok_or_else(|| missing("destination", path))?;
        add(container, &key, value).map_err(|why| format!("error in move for path: '{path}': {why}"))
    }

    fn copy(&self, document: &mut Value) -> Step {
        let from = self.from.ok_or_else(|| format!("copy operation failed to decode from: {NO_FROM}"))?;
        let missing = |what: &str, path: &str| {
            format!("copy operation does not apply: doc is missing {what} path: {path}: missing value")
        };
        let (container, key) = parent(document, from).ok_or_else(|| missing("from", from))?;
        let found =
            find(container, &key).map_err(|why| format!("error in copy for from: '{from}': {why}"))?;
        let value = found.cloned().unwrap_or(Value::Null);
        let path = self.path.ok_or("copy operation failed to decode path: missing value")?;
        let (container, key) = parent(document, path).ok_or_else(|| missing("destination", path))?;
        add(container, &key, value).map_err(|why| format!("error while adding value during copy: {why}"))
    }

    /// Whether the value is as it should be.
    fn test(&self, document: &mut Value) -> Step<bool> {
        let path = self.path.ok_or_else(|| format!("test operation failed to decode path: {NO_PATH}"))?;
        if path.is_empty() {
            return Ok(equal(document, &self.value()));
        }
        let missing = || format!("test operation does not apply: is missing path: {path}: missing value");
        let (container, key) = parent(document, path).ok_or_else(missing)?;
        let found =
            find(container, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?;
        Ok(equal(found.unwrap_or(&Value::Null), &self.value()))
    }
}

/// Where in a list of `length` elements a part points; negative numbers count from the end.
fn index(part: &str, length: usize) -> Step<usize> {
    let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
    let number = match part.parse::<i64>() {
        Ok(number) => number,
        Err(_) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(format!("strconv.Atoi: parsing {part:?}: value out of range"));
        }
        Err(_) => return Err(format!("strconv.Atoi: parsing {part:?}: invalid syntax")),
    };
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let at = if number < 0 { number + length } else { number };
    match usize::try_from(at) {
        Ok(place) if at < length => Ok(place),
        _ => Err(format!("Unable to access invalid index: {number}: invalid index referenced")),
    }
}

/// What is below a key; an object may lack it.
fn find<'v>(container: &'v Value, key: &str) -> Step<Option<&'v Value>> {
    match container {
        Value::Object(map) => Ok(map.get(key)),
        Value::Array(items) => index(key, items.len()).map(|at| items.get(at)),
        _ => Ok(None),
    }
}

/// The container that the last part of a path is in, and that part.
fn parent<'v>(document: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let decode = |part: &str| part.replace("~1", "/").replace("~0", "~");
    // What stands before the first slash does not count.
    let (way, last) = path.split_once('/').map(|(_, rest)| rest.rsplit_once('/').unwrap_or(("", rest)))?;
    let nested = path.split('/').count() > 2;
    let mut value = document;
    for part in way.split('/').filter(|_| nested) {
        let part = decode(part);
        value = match value {
            Value::Object(map) => map.get_mut(&part)?,
            Value::Array(items) => {
                let at = index(&part, items.len()).ok()?;
                items.get_mut(at)?
            }
            _ => return None,
        };
    }
    matches!(value, Value::Object(_) | Value::Array(_)).then(|| (value, decode(last)))
}

fn add(container: &mut Value, key: &str, value: Value) -> Step {
    match container {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            // Negative indexes count from behind the new end.
            let at = index(key, items.len() + 1).map_err(|why| match why.starts_with("strconv") {
                true => format!("value was not a proper array index: '{key}': {why}"),
                false => why,
            })?;
            items.insert(at, value);
        }
        _ => return Err("unknown object type".to_owned()),
    }
    Ok(())
}

fn remove(container: &mut Value, key: &str) -> Step<Value> {
    match container {
        Value::Object(map) => {
            map.remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
        }
        Value::Array(items) => index(key, items.len()).map(|at| items.remove(at)),
        _ => Err("unknown object type".to_owned()),
    }
}

/// Equality of JSON in which `1` and `1.0` are the same number.
fn equal(a: &Value, b: &Value) -> bool {
    let plain = |value: &Value| decode_unstructured_value(value.clone()).map(|decoded| decoded.value);
    a == b || matches!((plain(a), plain(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
            // As the library upstream uses: replacing adds, and nothing is copied as null.
            (json!({"a": 1}), json!([{"op": "replace", "path": "/z", "value": 2}]), json!({"a": 1, "z": 2})),
            (json!({}), json!([{"op": "copy", "from": "/z", "path": "/y"}]), json!({"y": null})),
            (json!({}), json!([{"op": "add", "path": "x/z"}]), json!({"z": null})),
            (json!([1, 2]), json!([{"op": "replace", "path": "/+1", "value": 3}]), json!([1, 3])),
        ] {
            assert_eq!(apply(document, patch.clone()), Ok(result), "{patch}");
        }
    }

    #[test]
    fn operations_that_do_not_apply_are_unprocessable() {
        for patch in [
            json!([{"op": "remove", "path": "/z"}]),
            json!([{"op": "replace", "path": "/z/y", "value": 1}]),
            json!([{"op": "replace", "path": "/l/5", "value": 1}]),
            json!([{"op": "add", "path": "/z/y", "value": 1}]),
            json!([{"op": "add", "path": "/l/5", "value": 1}]),
            json!([{"op": "add", "path": "l", "value": 1}]),
            json!([{"op": "add", "path": "", "value": {}}]),
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
    fn it_is_told_what_does_not_apply() {
        let cases = [
            (
                json!({"op": "replace", "path": "/data/k", "value": 1}),
                "replace operation does not apply: doc is missing path: /data/k: missing value",
            ),
            (
                json!({"op": "replace", "path": "/l/5", "value": 1}),
                "replace operation does not apply: doc is missing key: /l/5: missing value",
            ),
            (
                json!({"op": "add", "path": "/z/y", "value": 1}),
                "add operation does not apply: doc is missing path: \"/z/y\": missing value",
            ),
            (
                json!({"op": "add", "path": "/l/7", "value": 1}),
                "error in add for path: '/l/7': Unable to access invalid index: 7: invalid index referenced",
            ),
            (
                json!({"op": "add", "path": "/l/x", "value": 1}),
                "error in add for path: '/l/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": \
                 invalid syntax",
            ),
            (
                json!({"op": "remove", "path": "/z"}),
                "error in remove for path: '/z': Unable to remove nonexistent key: z: missing value",
            ),
            (
                json!({"op": "move", "from": "/z", "path": "/y"}),
                "error in move for path: 'z': Unable to remove nonexistent key: z: missing value",
            ),
            (json!({"op": "test", "path": "/a", "value": 2}), "testing value /a failed: test failed"),
            (json!({"op": "poke", "path": "/a"}), "Unexpected kind: poke"),
        ];
        for (operation, wanted) in cases {
            let error = apply(json!({"a": 1, "l": [1]}), json!([operation])).unwrap_err();
            assert_eq!(error.to_string(), wanted, "{operation}");
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

    fn any_document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(1)),
            Just(json!("x")),
            Just(json!(null)),
            Just(json!([])),
            Just(json!({}))
        ];
        let nested = leaf.prop_recursive(3, 24, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                proptest::collection::btree_map("[ab~/]{1,2}", inner, 0..3)
                    .prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        });
        proptest::collection::btree_map("[ab~/]{1,2}", nested, 1..4)
            .prop_map(|map| map.into_iter().collect::<Value>())
    }

    /// The pointers to all that is in a document.
    fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
        let mut below = |part: String, value: &Value| {
            let pointer = format!("{at}/{}", part.replace('~', "~0").replace('/', "~1"));
            pointers(value, &pointer, out);
            out.push(pointer);
        };
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| below(key.clone(), value)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, value)| below(i.to_string(), value))
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn what_is_put_somewhere_is_there_and_can_be_taken_away(document in any_document(), pick: usize) {
            let mut all = Vec::new();
            pointers(&document, "", &mut all);
            let path = &all[pick % all.len()];
            let found = document.pointer(path).cloned().unwrap();
            let same = apply(document.clone(), json!([
                {"op": "test", "path": path, "value": found},
                {"op": "replace", "path": path, "value": [7]},
                {"op": "test", "path": path, "value": [7]},
                {"op": "replace", "path": path, "value": found},
                {"op": "copy", "from": path, "path": "/new"},
                {"op": "move", "from": "/new", "path": "/newer"},
                {"op": "test", "path": "/newer", "value": found},
                {"op": "remove", "path": "/newer"},
            ]));
            prop_assert_eq!(same, Ok(document.clone()), "{}", path);
            let gone = apply(document.clone(), json!([{"op": "remove", "path": path}])).unwrap();
            let back = apply(gone, json!([{"op": "add", "path": path, "value": found}]));
            prop_assert_eq!(back, Ok(document), "{}", path);
        }
    }
}
