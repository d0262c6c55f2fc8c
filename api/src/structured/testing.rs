//! Schemas of structured-merge-diff's own tests as our schemas.

use std::collections::HashMap;

use serde_json::Value;

use super::Shape;
use crate::schema::{Field, ListType, Node, NodeId, Raw, Schema, TypeDef, TypeId};

/// A schema and its named types.
pub struct Named {
    schema: Schema,
    names: HashMap<String, NodeId>,
    root: Option<String>,
}

impl Named {
    /// The shape of a named type.
    pub fn shape(&self, name: &str) -> Shape<'_> {
        Shape::Node { node: self.schema.node(self.names[name]), preserve: false }
    }

    /// The shape of the type that objects are of.
    pub fn root(&self) -> Shape<'_> {
        self.shape(self.root.as_deref().expect("a schema with a root"))
    }
}

/// All schemas of the tests, by name.
pub fn schemas() -> HashMap<String, Named> {
    let rows =
        include_str!("cases/schemas.jsonl").lines().map(|line| serde_json::from_str(line).expect("JSON"));
    rows.map(|row: Value| (row["name"].as_str().expect("a name").to_owned(), build(&row))).collect()
}

#[derive(Default)]
struct Builder {
    names: HashMap<String, NodeId>,
    nodes: Vec<Node>,
    types: Vec<TypeDef>,
}

fn build(row: &Value) -> Named {
    let mut builder = Builder::default();
    let types = row["types"].as_array().expect("types");
    for ty in types {
        let id = builder.push(Node::Bool);
        builder.names.insert(ty["name"].as_str().expect("a name").to_owned(), id);
    }
    // Upstream's parser knows these two by itself.
    for (name, raw) in [("__untyped_atomic_", Raw::Extension), ("__untyped_deduced_", Raw::Json)] {
        if !builder.names.contains_key(name) {
            let id = builder.push(Node::Raw(raw));
            builder.names.insert(name.to_owned(), id);
        }
    }
    for (at, ty) in types.iter().enumerate() {
        builder.nodes[at] = builder.node(ty);
    }
    Named {
        schema: Schema::new(builder.types, builder.nodes),
        names: builder.names,
        root: row["root"].as_str().map(str::to_owned),
    }
}

impl Builder {
    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(u32::try_from(self.nodes.len() - 1).expect("few nodes"))
    }

    fn reference(&mut self, ty: &Value) -> NodeId {
        match ty["namedType"].as_str() {
            Some(name) => self.names[name],
            None => {
                let node = self.node(ty);
                self.push(node)
            }
        }
    }

    fn node(&mut self, ty: &Value) -> Node {
        let atomic = |part: &str| ty[part]["elementRelationship"] == "atomic";
        match (ty["scalar"].as_str(), &ty["list"], &ty["map"]) {
            (Some(_), Value::Object(_), Value::Object(_)) if atomic("map") => Node::Raw(Raw::Extension),
            (Some(_), Value::Object(_), Value::Object(_)) => Node::Raw(Raw::Json),
            (Some("string"), ..) => Node::String,
            (Some("numeric"), ..) => Node::Double,
            (Some("boolean"), ..) => Node::Bool,
            (Some(_), ..) => Node::Quantity,
            (None, Value::Object(list), _) => {
                let keys = list.get("keys").and_then(Value::as_array);
                let text = |key: &Value| key.as_str().expect("a name").to_owned().into();
                let semantics = match keys {
                    _ if list["elementRelationship"] == "atomic" => ListType::Atomic,
                    Some(keys) => ListType::Map(keys.iter().map(text).collect::<Vec<_>>().into()),
                    None => ListType::Set,
                };
                let item = self.reference(&list["elementType"]);
                Node::List { item, semantics, wrapped: false }
            }
            (None, _, map) if map["fields"].is_array() => {
                let ty = self.object(map, atomic("map"));
                Node::Object { ty, atomic: None }
            }
            (None, _, map) => Node::Map { value: self.reference(&map["elementType"]), atomic: atomic("map") },
        }
    }

    fn object(&mut self, map: &Value, atomic: bool) -> TypeId {
        let mut fields: Vec<Field> = Vec::new();
        for field in map["fields"].as_array().expect("fields") {
            let node = self.reference(&field["type"]);
            let name = field["name"].as_str().expect("a name").to_owned();
            let default = field.get("default").map(|value| value.to_string().into());
            fields.push(Field { default, ..Field::custom(name, node) });
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        self.types.push(TypeDef {
            name: "test".into(),
            atomic,
            preserve_unknown: map.get("elementType").is_some(),
            fields: fields.into(),
            wire: Vec::new().into(),
            present: Vec::new().into(),
        });
        TypeId(u32::try_from(self.types.len() - 1).expect("few types"))
    }
}
