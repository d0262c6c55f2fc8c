//! Empty lists: whether one was given can matter until the object is stored. Protobuf, in which upstream stores its own
//! kinds, does not know the difference between an empty list and none.

use serde_json::Value;

use super::{Field, GoKind, Node, NodeRef, TypeRef, WhenEmpty};

/// Fields that are left out when empty, but not defaulted when given so.
const TOLD_APART: [(&str, &str); 1] = [("io.k8s.api.autoscaling.v2.HPAScalingRules", "policies")];

/// Whether an empty list in a field is kept although the encoder leaves it out.
pub(super) fn tells_apart(ty: TypeRef<'_>, field: &Field, value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
        && field.go == GoKind::Slice
        && TOLD_APART.iter().any(|(owner, name)| *owner == ty.name() && *name == field.name)
}

/// Whether there is any empty list in a value.
fn has_empty_list(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty() || items.iter().any(has_empty_list),
        Value::Object(map) => map.values().any(has_empty_list),
        _ => false,
    }
}

impl TypeRef<'_> {
    /// Whether [`Self::forget_empty_lists`] could change the value.
    #[must_use]
    pub fn may_have_empty_lists(value: &Value) -> bool {
        has_empty_list(value)
    }

    /// Makes of an object what is left of it in protobuf: empty lists become none.
    pub fn forget_empty_lists(self, value: &mut Value) {
        let Value::Object(map) = value else { return };
        for field in self.fields().iter().filter(|field| field.go == GoKind::Slice) {
            if map.get(field.name.as_ref()).is_some_and(|value| value.as_array().is_some_and(Vec::is_empty)) {
                match field.empty {
                    WhenEmpty::Always => drop(map.insert(field.name.clone().into_owned(), Value::Null)),
                    _ => drop(map.remove(field.name.as_ref())),
                }
            }
        }
        for (name, value) in map.iter_mut() {
            if let Some(node) = self.child(name) {
                forget(node, value);
            }
        }
    }
}

fn forget(node: NodeRef<'_>, value: &mut Value) {
    match (node.node(), value) {
        (Node::Object { ty, .. }, value) => node.schema().ty(*ty).forget_empty_lists(value),
        (Node::List { item, .. }, Value::Array(items)) => {
            items.iter_mut().for_each(|value| forget(node.schema().node(*item), value));
        }
        (Node::Map { value: shape, .. }, Value::Object(map)) => {
            map.values_mut().for_each(|value| forget(node.schema().node(*shape), value));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::{TypeRef, type_named};

    #[test]
    fn empty_lists_are_there_until_the_object_is_stored() {
        let ty = type_named("io.k8s.api.discovery.v1.EndpointSlice").expect("a type");
        let given = json!({"endpoints": [], "metadata": {"finalizers": []}});
        let mut value = ty.decode_value(given).expect("a slice").value;
        assert_eq!(value, json!({"addressType": "", "endpoints": [], "metadata": {}, "ports": null}));
        assert!(TypeRef::may_have_empty_lists(&value));
        ty.forget_empty_lists(&mut value);
        assert_eq!(value, json!({"addressType": "", "endpoints": null, "metadata": {}, "ports": null}));
        assert!(!TypeRef::may_have_empty_lists(&value));
    }

    #[test]
    fn some_empty_lists_keep_defaults_away() {
        let ty = type_named("io.k8s.api.autoscaling.v2.HPAScalingRules").expect("a type");
        let mut value = ty.decode_value(json!({"policies": []})).expect("rules").value;
        assert_eq!(value, json!({"policies": []}));
        ty.forget_empty_lists(&mut value);
        assert_eq!(value, json!({}));
    }
}
