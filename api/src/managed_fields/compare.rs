//! What differs between two objects of a type, as sets of paths (upstream `structured-merge-diff/typed`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{Element, Set, sorted};
use crate::schema::{GoKind, ListType, Node, NodeRef, TypeRef};

/// The outcome of a comparison. No path is in more than one of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Paths that only the old object has.
    pub removed: Set,
    /// Paths that both have, with different values.
    pub modified: Set,
    /// Paths that only the new object has.
    pub added: Set,
}

impl Comparison {
    /// Leaves out some paths and all below them.
    #[must_use]
    pub fn without(&self, ignored: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            added: self.added.recursive_difference(ignored),
        }
    }
}

/// Compares two objects of a type.
#[must_use]
pub fn compare(ty: TypeRef<'_>, old: &Value, new: &Value) -> Comparison {
    let mut walk = Walk::default();
    walk.object(Shape::Type(ty), old.as_object(), new.as_object());
    walk.out
}

/// The shape of the values of a map.
#[derive(Clone, Copy)]
enum Shape<'s> {
    Type(TypeRef<'s>),
    Values(NodeRef<'s>),
}

impl<'s> Shape<'s> {
    /// The shape of a member; `None` for a field the schema does not know.
    fn member(self, name: &str) -> Option<NodeRef<'s>> {
        match self {
            Self::Type(ty) => ty.child(name),
            Self::Values(node) => Some(node),
        }
    }
}

#[derive(Default)]
struct Walk {
    path: Vec<Element>,
    out: Comparison,
}

fn is_void(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

impl Walk {
    fn at(&mut self, element: Element, work: impl FnOnce(&mut Self)) {
        self.path.push(element);
        work(self);
        self.path.pop();
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            (Some(old), Some(new)) if old != new => self.out.modified.insert(&self.path),
            _ => {}
        }
    }

    fn value(&mut self, node: Option<NodeRef<'_>>, old: Option<&Value>, new: Option<&Value>) {
        let Some(node) = node else { return self.leaf(old, new) };
        if node.atomic() || (is_void(old) && is_void(new)) {
            return self.leaf(old, new);
        }
        let lists = |value: Option<&Value>| matches!(value, None | Some(Value::Null | Value::Array(_)));
        let maps = |value: Option<&Value>| matches!(value, None | Some(Value::Null | Value::Object(_)));
        match node.node() {
            Node::List { semantics, .. } if lists(old) && lists(new) => self.list(node, semantics, old, new),
            Node::Object { .. } if maps(old) && maps(new) => {
                if let Some(ty) = node.object() {
                    self.object(
                        Shape::Type(ty),
                        old.and_then(Value::as_object),
                        new.and_then(Value::as_object),
                    );
                }
            }
            Node::Map { .. } if maps(old) && maps(new) => {
                if let Some(values) = node.value() {
                    let shape = Shape::Values(values);
                    self.object(shape, old.and_then(Value::as_object), new.and_then(Value::as_object));
                }
            }
            _ => return self.leaf(old, new),
        }
        match (old, new) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            _ => {}
        }
    }

    fn object(
        &mut self,
        shape: Shape<'_>,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
    ) {
        let field =
            |map: Option<&'_ Map<String, Value>>, name: &str| map.is_some_and(|map| map.contains_key(name));
        let olds = old.into_iter().flat_map(Map::keys);
        let news = new.into_iter().flat_map(Map::keys).filter(|name| !field(old, name));
        for name in olds.chain(news) {
            let (before, after) = (old.and_then(|map| map.get(name)), new.and_then(|map| map.get(name)));
            let node = shape.member(name);
            self.at(Element::Field(name.clone()), |walk| walk.value(node, before, after));
        }
    }

    fn list(&mut self, node: NodeRef<'_>, semantics: &ListType, old: Option<&Value>, new: Option<&Value>) {
        let item = node.item();
        let (olds, news) = (index(item, semantics, old), index(item, semantics, new));
        let only_new = news.iter().filter(|(element, _)| !olds.contains_key(*element));
        for (element, before) in &olds {
            let after = news.get(element).map(Vec::as_slice).unwrap_or_default();
            self.at(element.clone(), |walk| walk.items(item, before, after));
        }
        for (element, after) in only_new {
            self.at(element.clone(), |walk| walk.items(item, &[], after));
        }
    }

    /// The elements with one key; there should be one, but nobody keeps clients from sending more.
    fn items(&mut self, item: Option<NodeRef<'_>>, old: &[&Value], new: &[&Value]) {
        match (old, new) {
            ([] | [_], [] | [_]) => self.value(item, old.first().copied(), new.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    self.out.modified.insert(&self.path);
                }
            }
            ([_, _, ..], _) => {
                if let Some(new) = new.first() {
                    self.value(item, None, Some(new));
                }
                self.out.removed.insert(&self.path);
            }
            _ => {
                if let Some(old) = old.first() {
                    self.value(item, Some(old), None);
                }
                self.out.added.insert(&self.path);
            }
        }
    }
}

/// The elements of a list by what identifies them.
fn index<'v>(
    item: Option<NodeRef<'_>>,
    semantics: &ListType,
    list: Option<&'v Value>,
) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut out: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for value in list.and_then(Value::as_array).into_iter().flatten() {
        let element = match semantics {
            ListType::Map(keys) => key_of(item, keys, value),
            _ => Element::Value(sorted(value)),
        };
        out.entry(element).or_default().push(value);
    }
    out
}

/// The key of an element; an absent key field has its default.
fn key_of(item: Option<NodeRef<'_>>, keys: &[std::borrow::Cow<'static, str>], value: &Value) -> Element {
    let ty = item.and_then(NodeRef::object);
    let mut map = Map::new();
    for key in keys {
        let default = || {
            let (ty, field) = (ty?, ty?.field(key)?);
            match field.default.as_deref() {
                Some(text) => serde_json::from_str(text).ok(),
                // Names that are no pointers are never absent.
                None if field.go == GoKind::Value && *ty.node(field).node() == Node::String => {
                    Some(Value::from(""))
                }
                None => None,
            }
        };
        if let Some(value) = value.get(key.as_ref()).cloned().or_else(default) {
            map.insert(key.to_string(), value);
        }
    }
    Element::Key(sorted(&Value::Object(map)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::GroupVersionKind;
    use crate::schema::type_for;

    fn pods(old: Value, new: Value) -> Comparison {
        let ty = type_for(&GroupVersionKind::new("", "v1", "Pod")).expect("pods are known");
        compare(ty, &old, &new)
    }

    #[test]
    fn list_elements_are_told_apart_by_their_keys() {
        let old = json!({"spec": {"containers": null}});
        let new = json!({"spec": {"containers": [{"name": "c", "image": "i", "args": ["a", "b"],
            "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}});
        let found = pods(old, new).added.encode();
        let port = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
        assert_eq!(
            found,
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {},
                "f:args": {}, "f:ports": {".": {}, port: {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}})
        );
    }

    #[test]
    fn changes_and_removals_are_told_apart() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]}});
        let new = json!({"metadata": {"labels": {"a": "3"}, "finalizers": ["y", "z"]}});
        let found = pods(old, new);
        assert_eq!(found.modified.encode(), json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
        assert_eq!(
            found.removed.encode(),
            json!({"f:metadata": {"f:labels": {"f:b": {}}, "f:finalizers": {"v:\"x\"": {}}}})
        );
        assert_eq!(found.added.encode(), json!({"f:metadata": {"f:finalizers": {"v:\"z\"": {}}}}));
    }
}
