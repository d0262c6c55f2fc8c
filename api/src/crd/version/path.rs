//! Values at simple paths of an object, with upstream's errors (`unstructured.NestedInt64` and the like).

use serde_json::{Map, Value};

use crate::gofmt::{plain, type_name};

/// The names of a path such as `.spec.replicas`.
pub(super) fn names(path: &str) -> Vec<&str> {
    path.strip_prefix('.').unwrap_or(path).split('.').collect()
}

/// The value at a path, if all of its names are there.
///
/// # Errors
/// When something on the way is no object.
pub(super) fn find<'v>(object: &'v Value, names: &[&str]) -> Result<Option<&'v Value>, String> {
    let mut value = object;
    for (i, name) in names.iter().enumerate() {
        match value {
            Value::Object(fields) => match fields.get(*name) {
                Some(found) => value = found,
                None => return Ok(None),
            },
            Value::Null => return Ok(None),
            other => {
                let path = format!(".{}", names[..=i].join("."));
                return Err(accessor_error(&path, other, "map[string]interface{}"));
            }
        }
    }
    Ok(Some(value))
}

/// The whole number at a path.
pub(super) fn int(object: &Value, path: &str) -> Result<Option<i64>, String> {
    let names = names(path);
    match find(object, &names)? {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(number) => Ok(Some(number)),
            None => Err(accessor_error(&format!(".{}", names.join(".")), value, "int64")),
        },
    }
}

/// The text at a path.
pub(super) fn text<'v>(object: &'v Value, path: &str) -> Result<Option<&'v str>, String> {
    let names = names(path);
    match find(object, &names)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(value) => Err(accessor_error(&format!(".{}", names.join(".")), value, "string")),
    }
}

/// Sets a value, making the objects on the way.
pub(super) fn set(object: &mut Value, path: &str, new: Value) -> Result<(), String> {
    let names = names(path);
    let mut value = object;
    for (i, name) in names.iter().enumerate() {
        let Value::Object(fields) = value else {
            let at = format!(".{}", names[..i].join("."));
            return Err(format!("value cannot be set because {at} is not a map[string]interface{{}}"));
        };
        value = fields.entry((*name).to_owned()).or_insert_with(|| Value::Object(Map::new()));
    }
    *value = new;
    Ok(())
}

fn accessor_error(path: &str, value: &Value, wanted: &str) -> String {
    format!("{path} accessor error: {} is of the type {}, expected {wanted}", plain(value), type_name(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_found_or_refused_as_upstream_does() {
        let mut object = json!({"spec": {"n": 3, "s": "x", "f": 1.5, "m": {"a": [1, "b"]}}});
        assert_eq!(int(&object, ".spec.n"), Ok(Some(3)));
        assert_eq!(int(&object, ".status.n"), Ok(None));
        assert_eq!(
            int(&object, ".spec.s"),
            Err(".spec.s accessor error: x is of the type string, expected int64".to_owned())
        );
        assert_eq!(
            int(&object, ".spec.n.x"),
            Err(".spec.n.x accessor error: 3 is of the type int64, expected map[string]interface{}"
                .to_owned())
        );
        assert_eq!(
            text(&object, ".spec.m"),
            Err(".spec.m accessor error: map[a:[1 b]] is of the type map[string]interface {}, expected string".to_owned())
        );
        set(&mut object, ".status.r", json!(1)).expect("objects on the way");
        assert_eq!(object["status"]["r"], 1);
    }
}
