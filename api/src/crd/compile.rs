//! A definition's schema as a [`Schema`] of the kind that built-in types have: what structured merge works over.
//! (Upstream publishes it as OpenAPI first, `controller/openapi/builder`, and reads that.)

use std::borrow::Cow;
use std::collections::HashMap;

use super::props::{META_FIELDS, Props, PropsExt};
use crate::schema::{Field, ListType, Node, NodeId, Raw, Schema, TypeDef, TypeId, TypeRef, type_named};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Compiles the schema of a kind called `name`; gives the type of its objects as well.
pub(super) fn compile(name: &str, schema: &Props, preserve_unknown: bool) -> (Schema, TypeId) {
    let mut compiler = Compiler::default();
    let root = compiler.object(name, schema, true, preserve_unknown);
    (Schema::new(compiler.types, compiler.nodes), root)
}

#[derive(Default)]
struct Compiler {
    types: Vec<TypeDef>,
    nodes: Vec<Node>,
    /// Built-in types that were copied, by their place in the built-in schema.
    copied: HashMap<TypeId, TypeId>,
}

impl Compiler {
    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
    }

    fn add_type(&mut self, def: TypeDef) -> TypeId {
        self.types.push(def);
        TypeId(u32::try_from(self.types.len() - 1).unwrap_or(u32::MAX))
    }

    fn node(&mut self, name: &str, schema: &Props) -> NodeId {
        let atomic = schema.map_type() == "atomic";
        let node = match schema.kind() {
            _ if schema.int_or_string() => Node::IntOrString,
            "string" => Node::String,
            "integer" => Node::Int64,
            "number" => Node::Double,
            "boolean" => Node::Bool,
            "array" => match schema.item() {
                Some(item) => {
                    let item = self.node(name, item);
                    Node::List { item, semantics: list_type(schema), wrapped: false }
                }
                None => Node::Raw(Raw::Unstructured),
            },
            "object" => match schema.additional() {
                Some(value) if schema.fields().next().is_none() => {
                    Node::Map { value: self.node(name, value), atomic }
                }
                _ => Node::Object {
                    ty: self.object(name, schema, schema.embedded(), false),
                    atomic: Some(atomic),
                },
            },
            _ => Node::Raw(Raw::Unstructured),
        };
        self.add(node)
    }

    /// `resource`: the object has a kind and metadata, whether the schema says so or not.
    fn object(&mut self, name: &str, schema: &Props, resource: bool, preserve: bool) -> TypeId {
        let mut fields: Vec<Field> = schema
            .fields()
            .filter(|(field, _)| !resource || !META_FIELDS.contains(&field.as_str()))
            .map(|(field, shape)| {
                let node = self.node(&format!("{name}.{field}"), shape);
                Field {
                    required: schema.required_names().contains(field),
                    nullable: shape.is_nullable(),
                    default: shape.default_value().map(|value| Cow::Owned(value.to_string())),
                    ..Field::custom(field.clone(), node)
                }
            })
            .collect();
        if resource {
            for field in ["apiVersion", "kind"] {
                let node = self.add(Node::String);
                fields.push(Field::custom(field, node));
            }
            if let Some(meta) = type_named(OBJECT_META) {
                let ty = self.copy(meta);
                let node = self.add(Node::Object { ty, atomic: None });
                fields.push(Field::custom("metadata", node));
            }
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        self.add_type(TypeDef {
            name: Cow::Owned(name.to_owned()),
            atomic: false,
            preserve_unknown: preserve || schema.preserves(),
            fields: Cow::Owned(fields),
            wire: Cow::Borrowed(&[]),
            present: Cow::Borrowed(&[]),
        })
    }

    /// A built-in type, with all that it is made of.
    fn copy(&mut self, ty: TypeRef<'_>) -> TypeId {
        if let Some(known) = self.copied.get(&ty.id()) {
            return *known;
        }
        // Its place is taken first, in case it is made of itself.
        let id = self.add_type(TypeDef { fields: Cow::Borrowed(&[]), ..ty.def().clone() });
        self.copied.insert(ty.id(), id);
        let fields: Vec<Field> = ty
            .fields()
            .iter()
            .map(|field| Field { node: self.copy_node(ty, field.node), ..field.clone() })
            .collect();
        self.types[id.0 as usize].fields = Cow::Owned(fields);
        id
    }

    fn copy_node(&mut self, ty: TypeRef<'_>, id: NodeId) -> NodeId {
        let schema = ty.schema();
        let node = match schema.node(id).node().clone() {
            Node::Object { ty: inner, atomic } => Node::Object { ty: self.copy(schema.ty(inner)), atomic },
            Node::SchemaOr { flavour, ty: inner } => {
                Node::SchemaOr { flavour, ty: self.copy(schema.ty(inner)) }
            }
            Node::List { item, semantics, wrapped } => {
                Node::List { item: self.copy_node(ty, item), semantics, wrapped }
            }
            Node::Map { value, atomic } => Node::Map { value: self.copy_node(ty, value), atomic },
            scalar => scalar,
        };
        self.add(node)
    }
}

fn list_type(schema: &Props) -> ListType {
    match schema.list_type() {
        "set" => ListType::Set,
        "map" => ListType::Map(schema.map_keys().iter().map(|key| Cow::Owned(key.clone())).collect()),
        _ => ListType::Atomic,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_becomes_a_schema() {
        let props: Props = serde_json::from_value(json!({"type": "object", "properties": {
            "spec": {"type": "object", "required": ["n"], "properties": {
                "n": {"type": "integer", "default": 3},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
                "any": {"x-kubernetes-preserve-unknown-fields": true}}}}})).expect("a schema");
        let (schema, root) = compile("Foo", &props, false);
        let root = schema.ty(root);
        let names: Vec<&str> = root.fields().iter().map(|field| field.name.as_ref()).collect();
        assert_eq!(names, ["apiVersion", "kind", "metadata", "spec"]);
        let meta = root.child("metadata").and_then(|node| node.object()).expect("an object");
        assert!(meta.child("managedFields").is_some_and(|node| node.item().is_some()));
        let spec = root.child("spec").and_then(|node| node.object()).expect("an object");
        assert_eq!(spec.field("n").and_then(|field| field.default.as_deref()), Some("3"));
        assert!(spec.field("n").is_some_and(|field| field.required));
        let list = spec.child("list").expect("a list");
        assert!(matches!(list.node(), Node::List { semantics: ListType::Map(keys), .. } if keys[0] == "k"));
        assert!(spec.child("map").is_some_and(|node| node.atomic()));
        assert_eq!(spec.child("any").map(|node| node.node().clone()), Some(Node::Raw(Raw::Unstructured)));
    }
}
