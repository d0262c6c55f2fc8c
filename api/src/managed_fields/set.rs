//! Sets of field paths, and their wire form `fieldsV1` (upstream `structured-merge-diff/fieldpath`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of an object, or a key of a map.
    Field(String),
    /// An element of a list, by its key fields; JSON of an object with sorted keys.
    Key(String),
    /// An element of a set, by its value; JSON.
    Value(String),
    /// An element of a list, by its place.
    Index(usize),
}

impl Element {
    /// As it stands in `fieldsV1`.
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => format!("k:{key}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let canonical = |json: &str| serde_json::from_str::<Value>(json).ok().map(|value| sorted(&value));
        match text.split_once(':')? {
            ("f", name) => Some(Self::Field(name.to_owned())),
            ("k", key) => canonical(key).map(Self::Key),
            ("v", value) => canonical(value).map(Self::Value),
            ("i", index) => index.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

/// JSON text with the keys of objects in order, whatever the order of the map type in use.
pub(super) fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, &Value> = map.iter().collect();
            let entries: Vec<String> =
                ordered.into_iter().map(|(key, value)| format!("{}:{}", json!(key), sorted(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
        other => other.to_string(),
    }
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, Set>,
}

impl Set {
    /// Whether there is no path in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Self::is_empty)
    }

    /// Adds a path; the empty one cannot be a member.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether a path is in it.
    #[must_use]
    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.contains(rest)),
        }
    }

    /// A set of one path of plain fields.
    #[must_use]
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::Field((*name).to_owned())).collect();
            set.insert(&path);
        }
        set
    }

    /// Paths of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let own = out.children.entry(element.clone()).or_default();
            *own = own.union(child);
        }
        out
    }

    /// Paths that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        let less = |(element, child): (&Element, &Self)| {
            let child = match other.children.get(element) {
                Some(theirs) => child.difference(theirs),
                None => child.clone(),
            };
            (!child.is_empty()).then(|| (element.clone(), child))
        };
        Self { members, children: self.children.iter().filter_map(less).collect() }
    }

    /// Paths that are neither in `other` nor below one of its paths.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        let less = |(element, child): (&Element, &Self)| {
            if other.members.contains(element) {
                return None;
            }
            let child = match other.children.get(element) {
                Some(theirs) => child.recursive_difference(theirs),
                None => child.clone(),
            };
            (!child.is_empty()).then(|| (element.clone(), child))
        };
        Self { members, children: self.children.iter().filter_map(less).collect() }
    }

    /// Paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let members = self.members.intersection(&other.members).cloned().collect();
        let both = |(element, child): (&Element, &Self)| {
            let child = child.intersection(other.children.get(element)?);
            (!child.is_empty()).then(|| (element.clone(), child))
        };
        Self { members, children: self.children.iter().filter_map(both).collect() }
    }

    /// As `fieldsV1`.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut map = Map::new();
        let all: BTreeSet<&Element> = self.members.iter().chain(self.children.keys()).collect();
        for element in all {
            let mut inner = match self.children.get(element).map(Self::encode) {
                Some(Value::Object(inner)) => inner,
                _ => Map::new(),
            };
            if self.members.contains(element) && !inner.is_empty() {
                inner.insert(".".to_owned(), json!({}));
            }
            if self.members.contains(element) || !inner.is_empty() {
                map.insert(element.encode(), Value::Object(inner));
            }
        }
        Value::Object(map)
    }

    /// From `fieldsV1`; `None` if it is malformed.
    #[must_use]
    pub fn decode(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (text, inner) in value.as_object()? {
            if text == "." {
                continue;
            }
            let element = Element::decode(text)?;
            let map = inner.as_object()?;
            if map.is_empty() || map.contains_key(".") {
                set.members.insert(element.clone());
            }
            let child = Self::decode(inner)?;
            if !child.is_empty() {
                set.children.insert(element, child);
            }
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: Value) -> Set {
        Set::decode(&value).expect("well formed")
    }

    #[test]
    fn sets_survive_their_wire_form() {
        let wire = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:x": {}},
            "f:metadata": {"f:finalizers": {".": {}, "v:\"a\"": {}}}});
        assert_eq!(set(wire.clone()).encode(), wire);
    }

    #[test]
    fn operations_are_those_of_sets() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}}));
        let b = set(json!({"f:a": {"f:b": {}}, "f:e": {}}));
        assert_eq!(a.difference(&b).encode(), json!({"f:a": {".": {}, "f:c": {}}, "f:d": {}}));
        assert_eq!(a.intersection(&b).encode(), json!({"f:a": {"f:b": {}}}));
        assert_eq!(
            a.union(&b).encode(),
            json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}, "f:e": {}})
        );
        let whole = Set::of_fields(&[&["a"]]);
        assert_eq!(a.difference(&whole).encode(), json!({"f:a": {"f:b": {}, "f:c": {}}, "f:d": {}}));
        assert_eq!(a.recursive_difference(&whole).encode(), json!({"f:d": {}}));
    }
}
