//! JSON as Go writes it: the fields of an object in the order of upstream's struct, texts with Go's escapes.
//!
//! The order of a struct is that of its protobuf tags, kind and version in front; `data/order.tsv` names the structs
//! that are written down in another one. What has no schema keeps the order of its keys.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::LazyLock;

use serde::ser::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::{Map, Value};

use crate::schema::{self, Node, NodeRef, TypeRef, WireTo};

/// A value to be written in Go's order.
#[derive(Clone, Copy)]
pub struct Ordered<'a> {
    /// The value.
    pub value: &'a Value,
    /// Its type, if it is an object of one.
    pub ty: Option<TypeRef<'static>>,
}

/// The order of the fields of a built-in type.
struct Order {
    /// Their names, in the order of the struct.
    names: Vec<&'static str>,
    /// For each field of the type its place among them.
    ranks: Vec<usize>,
}

/// For each built-in type, by its id.
static ORDERS: LazyLock<Vec<Order>> = LazyLock::new(|| {
    let order = |ty: TypeRef<'static>| {
        let names = order(ty);
        let mut ranks = vec![usize::MAX; ty.fields().len()];
        for (rank, name) in names.iter().enumerate() {
            if let Some(at) = ty.position(name) {
                ranks[at] = rank;
            }
        }
        Order { names, ranks }
    };
    schema::builtin().types().map(order).collect()
});

fn order_of(ty: TypeRef<'static>) -> Option<&'static Order> {
    ORDERS.get(usize::try_from(ty.id().0).ok()?)
}

/// The fields of a built-in type in the order of upstream's struct.
#[must_use]
pub fn fields_in_order(ty: TypeRef<'static>) -> &'static [&'static str] {
    order_of(ty).map(|order| order.names.as_slice()).unwrap_or_default()
}

/// The structs whose order is not that of their tags: a name and the fields, a line each.
static EXCEPTIONS: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let lines = include_str!("../../data/order.tsv").lines();
    lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(ty, names)| (ty, names.split(' ').collect()))
        .collect()
});

fn order(ty: TypeRef<'static>) -> Vec<&'static str> {
    let mut names = Vec::new();
    wired(ty, &mut names);
    // Elsewhere than at the top these are fields like others.
    let head = ["kind", "apiVersion"].into_iter().filter(|name| !names.contains(name));
    names = head.collect::<Vec<_>>().into_iter().chain(names.iter().copied()).collect();
    let rest: Vec<&str> = ty.fields().iter().map(|f| &*f.name).filter(|name| !names.contains(name)).collect();
    names.extend(rest);
    names.retain(|name| ty.field(name).is_some());
    names
}

fn wired(ty: TypeRef<'static>, names: &mut Vec<&'static str>) {
    if let Some(written) = EXCEPTIONS.get(ty.name()) {
        return names.extend(written);
    }
    for entry in ty.wire() {
        match entry.to {
            WireTo::Field(at) => {
                let name = ty.fields().get(usize::from(at)).map(|field| &*field.name);
                names.extend(name.filter(|name| !names.contains(name)));
            }
            WireTo::Inline(inner) => wired(ty.schema().ty(inner), names),
        }
    }
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.ty) {
            (Value::Object(map), Some(_)) => serializer.collect_map(entries(map, self.ty)),
            (value, _) => value.serialize(serializer),
        }
    }
}

/// A value within an object.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The value.
    pub value: &'a Value,
    node: Option<NodeRef<'static>>,
}

impl Part<'_> {
    /// The type of the value, if it is an object of one.
    #[must_use]
    pub fn ty(&self) -> Option<TypeRef<'static>> {
        self.node.and_then(NodeRef::object)
    }
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(node) = self.node else { return self.value.serialize(serializer) };
        match (self.value, node.node()) {
            (value, Node::Object { .. }) => Ordered { value, ty: node.object() }.serialize(serializer),
            (Value::Array(items), Node::List { .. }) => {
                serializer.collect_seq(items.iter().map(|value| Part { value, node: node.item() }))
            }
            (Value::Object(map), Node::Map { .. }) => serializer
                .collect_map(map.iter().map(|(key, value)| (key, Part { value, node: node.value() }))),
            (value, _) => value.serialize(serializer),
        }
    }
}

/// The entries of an object in Go's order, each with what it is. What the type does not know comes last.
pub fn entries<'a>(
    map: &'a Map<String, Value>,
    ty: Option<TypeRef<'static>>,
) -> impl Iterator<Item = (&'a str, Part<'a>)> {
    let order = ty.and_then(order_of);
    let place = |key: &str| match (ty, order) {
        (Some(ty), Some(order)) => match ty.position(key) {
            Some(at) => (order.ranks[at], Some(ty.node(&ty.fields()[at]))),
            None => (usize::MAX, None),
        },
        _ => (["kind", "apiVersion"].iter().position(|name| *name == key).unwrap_or(usize::MAX), None),
    };
    let mut found: Vec<_> = map.iter().map(|(key, value)| (place(key), key.as_str(), value)).collect();
    found.sort_by_key(|((rank, _), ..)| *rank);
    found.into_iter().map(|((_, node), key, value)| (key, Part { value, node }))
}

/// The outcome of a patch as upstream's library leaves it: what the patch touched has its keys sorted, all else is as
/// it was. `touched` has the shape of a merge patch.
pub struct Touched<'a> {
    /// The outcome.
    pub value: &'a Value,
    /// Its type.
    pub ty: Option<TypeRef<'static>>,
    /// Where the patch went.
    pub touched: &'a Value,
}

impl Serialize for Touched<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(map) = self.value.as_object() else { return self.value.serialize(serializer) };
        let part = |key: &String, value| {
            let node = self.ty.and_then(|ty| ty.child(key));
            TouchedPart { part: Part { value, node }, touched: self.touched.get(key) }
        };
        serializer.collect_map(map.iter().map(|(key, value)| (key, part(key, value))))
    }
}

struct TouchedPart<'a> {
    part: Part<'a>,
    touched: Option<&'a Value>,
}

impl Serialize for TouchedPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Part { value, node } = self.part;
        match (value, self.touched.filter(|touched| touched.is_object())) {
            (Value::Object(_), Some(touched)) => {
                Touched { value, ty: node.and_then(NodeRef::object), touched }.serialize(serializer)
            }
            (Value::Array(items), Some(touched)) => {
                let item = node.and_then(NodeRef::item);
                serializer.collect_seq(items.iter().enumerate().map(|(i, value)| TouchedPart {
                    part: Part { value, node: item },
                    touched: touched.get(i.to_string()),
                }))
            }
            _ => self.part.serialize(serializer),
        }
    }
}

/// What Go's encoder writes for a character in a text, beyond what all JSON escapes.
pub(super) fn escape(c: char) -> Option<&'static str> {
    SPECIAL.iter().find(|(special, _)| *special == c).map(|(_, escape)| *escape)
}

/// A formatter that writes texts with Go's escapes.
pub(super) struct Go<F>(pub(super) F);

const SPECIAL: [(char, &str); 5] =
    [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];

macro_rules! delegate {
    ($($name:ident($($arg:ident: $ty:ty),*)),* $(,)?) => {
        $(fn $name<W: ?Sized + Write>(&mut self, writer: &mut W, $($arg: $ty),*) -> io::Result<()> {
            self.0.$name(writer, $($arg),*)
        })*
    };
}

impl<F: Formatter> Formatter for Go<F> {
    delegate!(
        begin_array(),
        end_array(),
        begin_array_value(first: bool),
        end_array_value(),
        begin_object(),
        end_object(),
        begin_object_key(first: bool),
        end_object_key(),
        begin_object_value(),
        end_object_value(),
    );

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c| SPECIAL.iter().any(|(special, _)| *special == c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let special = SPECIAL.iter().find(|(special, _)| rest[at..].starts_with(*special));
            let Some((c, escape)) = special else { break };
            writer.write_all(escape.as_bytes())?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Compact JSON with Go's escapes.
pub fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = serde_json::Serializer::with_formatter(out, Go(CompactFormatter));
    // Writing into memory cannot fail, and every value is serializable.
    let _ = value.serialize(&mut serializer);
}

/// Indented JSON with Go's escapes.
pub fn write_pretty(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = serde_json::Serializer::with_formatter(out, Go(PrettyFormatter::new()));
    let _ = value.serialize(&mut serializer);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::GroupVersionKind;

    fn text(kind: &'static str, value: &Value) -> String {
        let ty = schema::type_for(&GroupVersionKind::new("", "v1", kind));
        let mut out = Vec::new();
        write(&mut out, &Ordered { value, ty });
        String::from_utf8(out).expect("JSON is text")
    }

    #[test]
    fn fields_stand_as_in_upstreams_structs() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"creationTimestamp": null, "labels": {"b": "1", "a": "2"}, "name": "p", "uid": "u"},
            "spec": {"containers": [{"image": "i", "name": "c"}], "volumes": [{"emptyDir": {}, "name": "v"}]},
        });
        assert_eq!(
            text("Pod", &pod),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","uid":"u","creationTimestamp":null,"labels":{"a":"2","b":"1"}},"spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"c","image":"i"}]}}"#
        );
    }

    #[test]
    fn exceptions_name_all_fields_of_their_type() {
        assert!(EXCEPTIONS.len() > 50);
        for (name, fields) in EXCEPTIONS.iter() {
            let ty = schema::type_named(name).unwrap_or_else(|| panic!("no type {name}"));
            let mut own: Vec<&str> = ty.fields().iter().map(|field| &*field.name).collect();
            let mut named = fields.clone();
            own.sort_unstable();
            named.sort_unstable();
            assert_eq!(named, own, "{name}");
        }
    }

    #[test]
    fn texts_are_escaped_as_go_does() {
        let map = json!({"kind": "ConfigMap", "data": {"k": "<a&b>\u{2028}\n\"é"}});
        assert_eq!(
            text("ConfigMap", &map),
            r#"{"kind":"ConfigMap","data":{"k":"\u003ca\u0026b\u003e\u2028\n\"é"}}"#
        );
    }

    #[test]
    fn what_a_patch_touched_is_sorted() {
        let value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"uid": "u", "name": "d"},
            "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}, "paused": true, "replicas": 2},
        });
        let touched = json!({"spec": {"replicas": 2}});
        let ty = schema::type_for(&GroupVersionKind::new("apps", "v1", "Deployment"));
        let mut out = Vec::new();
        write(&mut out, &Touched { value: &value, ty, touched: &touched });
        assert_eq!(
            String::from_utf8_lossy(&out),
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","uid":"u"},"spec":{"paused":true,"replicas":2,"strategy":{"type":"RollingUpdate","rollingUpdate":{}}}}"#
        );
    }
}
