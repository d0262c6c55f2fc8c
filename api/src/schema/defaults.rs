//! Defaults that stand in the schema itself (`default` of a field).

use serde_json::Value;

use super::{Node, NodeRef, TypeRef};

impl TypeRef<'_> {
    /// Fills in the schema's defaults wherever a field with one is absent, all the way down. A `null` counts as
    /// absent unless the field is nullable.
    pub fn apply_defaults(self, value: &mut Value) {
        let Value::Object(map) = value else { return };
        for field in self.fields() {
            if let Some(default) = &field.default
                && map.get(field.name.as_ref()).is_none_or(|value| value.is_null() && !field.nullable)
                && let Ok(default) = serde_json::from_str(default)
            {
                map.insert(field.name.clone().into_owned(), default);
            }
            if let Some(value) = map.get_mut(field.name.as_ref()) {
                default_node(self.node(field), value);
            }
        }
    }
}

fn default_node(node: NodeRef<'_>, value: &mut Value) {
    match (node.node(), value) {
        (Node::Object { ty, .. }, value) => node.schema().ty(*ty).apply_defaults(value),
        (Node::List { item, .. }, Value::Array(items)) => {
            let item = node.schema().node(*item);
            items.iter_mut().for_each(|value| default_node(item, value));
        }
        (Node::Map { value, .. }, Value::Object(map)) => {
            let shape = node.schema().node(*value);
            map.values_mut().for_each(|value| default_node(shape, value));
        }
        _ => {}
    }
}
