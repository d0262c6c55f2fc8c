//! What the schema says about patching a field.

use super::{Result, internal};
use crate::schema::{Field, GoKind, Node, NodeRef, TypeRef};

/// The type of the value being patched.
#[derive(Clone, Copy)]
pub(super) enum Meta<'s> {
    /// An object with named fields.
    Object(TypeRef<'s>),
    /// Something whose fields have no names of their own; the word is Go's for it.
    Other(&'static str),
}

/// How a field is patched.
#[derive(Clone, Copy)]
pub(super) struct FieldMeta<'s> {
    pub(super) patch: crate::schema::Patch,
    pub(super) merge_key: &'s str,
    /// The type of the field, or of its elements.
    pub(super) inner: Meta<'s>,
}

impl<'s> FieldMeta<'s> {
    fn new(field: &'s Field, inner: Meta<'s>) -> Self {
        Self { patch: field.patch, merge_key: field.merge_key.as_deref().unwrap_or_default(), inner }
    }
}

impl<'s> Meta<'s> {
    fn of(node: NodeRef<'s>) -> Self {
        match node.node() {
            Node::Map { .. } => Self::Other("map"),
            Node::List { .. } | Node::Bytes => Self::Other("slice"),
            Node::String => Self::Other("string"),
            Node::Int32 => Self::Other("int32"),
            Node::Int64 => Self::Other("int64"),
            Node::Bool => Self::Other("bool"),
            Node::Double => Self::Other("float64"),
            Node::SchemaOr { ty, .. } => Self::Object(node.schema().ty(*ty)),
            _ => node.object().map_or(Self::Other("struct"), Self::Object),
        }
    }

    fn lookup(self, key: &str) -> Result<(NodeRef<'s>, &'s Field)> {
        let ty = match self {
            Self::Object(ty) => ty,
            Self::Other("struct") => {
                return internal(format!(
                    "unable to find api field in struct RawExtension for the json field {key:?}"
                ));
            }
            Self::Other(kind) => {
                return internal(format!(
                    "merging an object in json but data type is not struct, instead is: {kind}"
                ));
            }
        };
        let Some(field) = ty.field(key) else {
            let name = ty.short_name();
            return internal(format!("unable to find api field in struct {name} for the json field {key:?}"));
        };
        Ok((ty.node(field), field))
    }

    /// How the field `key`, which holds an object, is patched.
    pub(super) fn for_map(self, key: &str) -> Result<FieldMeta<'s>> {
        let (node, field) = self.lookup(key)?;
        Ok(FieldMeta::new(field, Self::of(node)))
    }

    /// How the field `key`, which holds a list, is patched.
    pub(super) fn for_list(self, key: &str) -> Result<FieldMeta<'s>> {
        let (node, field) = self.lookup(key)?;
        let inner = match (node.item().map(Self::of), Self::of(node)) {
            (Some(Self::Other("slice")), _) => return internal("unexpected slice of slice"),
            (Some(inner), _) => inner,
            (None, Self::Other("slice")) => Self::Other("uint8"),
            // Upstream sees through pointers here, so a single object counts as the element.
            (None, inner @ Self::Object(_)) if field.go == GoKind::Pointer => inner,
            (None, Self::Object(_)) => return internal("expected slice or array type, but got: struct"),
            (None, Self::Other(kind)) => {
                return internal(format!("expected slice or array type, but got: {kind}"));
            }
        };
        Ok(FieldMeta::new(field, inner))
    }

    /// What errors call the type.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object(_) => "struct",
            Self::Other(kind) => kind,
        }
    }
}
