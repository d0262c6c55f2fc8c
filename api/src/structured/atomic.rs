//! What of a value would be replaced as a whole (upstream `policy/mutating/patch/smd.go`).

use serde_json::Value;

use super::element::Element;
use super::shape::Shape;

/// The paths of all lists and objects within a value that are replaced as a whole when they are merged into another.
/// Of maps, the values are not looked at.
#[must_use]
pub fn atomic_paths(shape: Shape<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(shape, value, "", &mut found);
    found
}

fn collect(shape: Shape<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    let atom = shape.atom();
    match (value, atom.map, atom.list) {
        (Value::Object(fields), Some(map), _) => {
            if map.atomic {
                found.push(path.to_owned());
            }
            for (name, value) in fields.iter().filter(|(name, _)| map.names(name)) {
                if let Some(shape) = map.field(name) {
                    collect(shape, value, &format!("{path}{}", Element::field(name)), found);
                }
            }
        }
        (Value::Array(items), _, Some(list)) => {
            if list.atomic() {
                found.push(path.to_owned());
            }
            for (at, item) in items.iter().enumerate() {
                let element = Element::Index(i64::try_from(at).unwrap_or(i64::MAX));
                collect(list.item, item, &format!("{path}{element}"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::GroupVersionKind;
    use crate::schema::type_for;

    #[test]
    fn what_is_replaced_as_a_whole_is_found() {
        let deployment = type_for(&GroupVersionKind::new("apps", "v1", "Deployment")).expect("a type");
        let cases = [
            (json!({"spec": {"replicas": 1}}), vec![]),
            (json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x"]}}), vec![]),
            (json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}), vec![".spec.selector"]),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "args": ["x"]}, {"name": "d",
                    "command": [], "env": [{"name": "e"}]}]}}}}),
                vec![".spec.template.spec.containers[0].args", ".spec.template.spec.containers[1].command"],
            ),
        ];
        for (value, wanted) in cases {
            assert_eq!(atomic_paths(Shape::of_type(deployment), &value), wanted, "{value}");
        }
    }
}
