//! The one description of the API that every generic operation works from.
//!
//! A [`Schema`] is two tables: types with their fields, and the nodes (shapes of values) that fields point to.
//! The built-in one is static, made by the build script from `data/types.tsv`; a CustomResourceDefinition builds
//! one at run time out of the same parts. Nothing here knows which of the two it looks at.
//!
//! Go's habits are columns: whether a field is a value, a pointer, a slice or a map in upstream's structs, and
//! when its encoder leaves an empty one out. They decide both what JSON looks like and what goes on the wire.

use std::borrow::Cow;

mod builtin;
mod decode;
mod defaults;
mod empties;
pub(crate) mod scalar;
mod struct_check;
mod unstructured;

#[cfg(test)]
mod tests;

pub use builtin::{Declared, Union, builtin, declared, enum_values, kinds, type_for, type_named, unions};
pub use decode::{DecodeError, Decoded, strict_message};
pub(crate) use decode::{fill_absent, plain_number, settle};
pub use scalar::{format_micro_time, format_time, parse_duration, parse_micro_time, parse_time};
pub use unstructured::{decode_any, decode_unstructured, decode_unstructured_value};

/// Where a type stands in its schema's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// Where a node stands in its schema's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// Types and the nodes they are made of.
#[derive(Clone, Debug)]
pub struct Schema {
    types: Cow<'static, [TypeDef]>,
    nodes: Cow<'static, [Node]>,
}

/// An object with named fields.
#[derive(Clone, Debug)]
pub struct TypeDef {
    /// Full name, for example `io.k8s.api.core.v1.Pod`.
    pub name: Cow<'static, str>,
    /// Whether every object of this type is replaced as a whole (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Whether unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// Fields as they stand in JSON, sorted by name.
    pub fields: Cow<'static, [Field]>,
    /// What goes on the protobuf wire, sorted by tag.
    pub wire: Cow<'static, [Wire]>,
    /// Indexes of the fields that the encoder may write although they were not given.
    pub present: Cow<'static, [u16]>,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: Cow<'static, str>,
    /// The shape of its value.
    pub node: NodeId,
    /// What it is in upstream's struct.
    pub go: GoKind,
    /// Whether an empty one is written.
    pub empty: WhenEmpty,
    /// Protobuf tag; 0 when it has none of its own.
    pub tag: u32,
    /// Whether the schema demands it.
    pub required: bool,
    /// Whether `null` is a value of its own (custom resources).
    pub nullable: bool,
    /// How a strategic merge patch treats it.
    pub patch: Patch,
    /// The field that identifies elements in a strategic merge patch.
    pub merge_key: Option<Cow<'static, str>>,
    /// The default of the schema, as JSON text.
    pub default: Option<Cow<'static, str>>,
}

/// The strategies of a strategic merge patch (`patchStrategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Lists are merged by key, or as sets.
    pub merge: bool,
    /// Replaced as a whole although an object.
    pub replace: bool,
    /// Fields not named by `$retainKeys` are dropped.
    pub retain_keys: bool,
}

/// What a field is in upstream's Go struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoKind {
    /// On the wire even when zero.
    Value,
    /// On the wire only when set.
    Pointer,
    /// A list, or bytes.
    Slice,
    /// A map.
    Map,
}

/// When the JSON encoder leaves an empty field out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenEmpty {
    /// Never.
    Always,
    /// When empty; a struct held by value is never empty.
    Omit,
    /// When zero, structs included.
    OmitZero,
}

/// One entry of a message on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Protobuf tag.
    pub tag: u32,
    /// What stands under the tag.
    pub to: WireTo,
}

/// What a protobuf tag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireTo {
    /// The field at this index.
    Field(u16),
    /// A nested message whose fields stand directly in the JSON object.
    Inline(TypeId),
}

/// The shape of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Text.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Double,
    /// A truth value.
    Bool,
    /// Bytes, base64 in JSON.
    Bytes,
    /// An amount such as `100m` or `1Gi`.
    Quantity,
    /// A time in whole seconds.
    Time,
    /// A time in microseconds.
    MicroTime,
    /// A span of time such as `1m30s`.
    Duration,
    /// A number or a name.
    IntOrString,
    /// JSON without a schema.
    Raw(Raw),
    /// A JSON schema, or something simpler in its place.
    SchemaOr {
        /// What may stand in its place.
        flavour: SchemaOr,
        /// The type of the JSON schema.
        ty: TypeId,
    },
    /// An object with named fields.
    Object {
        /// Its type.
        ty: TypeId,
        /// Whether it is replaced as a whole here; `None`: as its type says.
        atomic: Option<bool>,
    },
    /// A list.
    List {
        /// The shape of its elements.
        item: NodeId,
        /// How two such lists are merged.
        semantics: ListType,
        /// Whether it is a message of its own on the wire.
        wrapped: bool,
    },
    /// A map from strings.
    Map {
        /// The shape of its values.
        value: NodeId,
        /// Whether it is replaced as a whole.
        atomic: bool,
    },
}

/// Kinds of JSON without a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    /// `runtime.RawExtension`: an embedded object.
    Extension,
    /// `metav1.FieldsV1`.
    FieldsV1,
    /// `apiextensions.JSON`.
    Json,
    /// Anything, never on the protobuf wire.
    Any,
    /// A part of a custom resource, in which duplicate fields count.
    Unstructured,
}

/// What may stand in place of a JSON schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaOr {
    /// A list of schemas.
    Array,
    /// A truth value.
    Bool,
    /// A list of names.
    StringArray,
}

/// How lists are merged (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Elements identified by these fields.
    Map(Cow<'static, [Cow<'static, str>]>),
}

/// A kind and the type it is of.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Its type.
    pub ty: TypeId,
}

/// A type and the schema it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct TypeRef<'s> {
    schema: &'s Schema,
    def: &'s TypeDef,
    id: TypeId,
}

/// A node and the schema it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct NodeRef<'s> {
    schema: &'s Schema,
    node: &'s Node,
}

impl Schema {
    /// A schema from its tables. Fields must be sorted by name and wire entries by tag.
    #[must_use]
    pub fn new(types: Vec<TypeDef>, nodes: Vec<Node>) -> Self {
        Self { types: Cow::Owned(types), nodes: Cow::Owned(nodes) }
    }

    const fn fixed(types: &'static [TypeDef], nodes: &'static [Node]) -> Self {
        Self { types: Cow::Borrowed(types), nodes: Cow::Borrowed(nodes) }
    }

    /// The type at `id`, which must be one of this schema's.
    #[must_use]
    pub fn ty(&self, id: TypeId) -> TypeRef<'_> {
        TypeRef { schema: self, def: &self.types[id.0 as usize], id }
    }

    /// The node at `id`, which must be one of this schema's.
    #[must_use]
    pub fn node(&self, id: NodeId) -> NodeRef<'_> {
        NodeRef { schema: self, node: &self.nodes[id.0 as usize] }
    }

    /// All types.
    pub fn types(&self) -> impl Iterator<Item = TypeRef<'_>> {
        self.types.iter().enumerate().map(|(i, def)| TypeRef { schema: self, def, id: TypeId(i as u32) })
    }
}

impl TypeDef {
    const fn fixed(
        name: &'static str,
        atomic: bool,
        fields: &'static [Field],
        wire: &'static [Wire],
        present: &'static [u16],
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            atomic,
            preserve_unknown: false,
            fields: Cow::Borrowed(fields),
            wire: Cow::Borrowed(wire),
            present: Cow::Borrowed(present),
        }
    }
}

impl Field {
    #[allow(clippy::too_many_arguments)] // called by generated tables only
    const fn fixed(
        name: &'static str,
        node: u32,
        go: GoKind,
        empty: WhenEmpty,
        tag: u32,
        required: bool,
        patch: Patch,
        merge_key: Option<&'static str>,
        default: Option<&'static str>,
    ) -> Self {
        const fn text(text: Option<&'static str>) -> Option<Cow<'static, str>> {
            match text {
                Some(text) => Some(Cow::Borrowed(text)),
                None => None,
            }
        }
        Self {
            name: Cow::Borrowed(name),
            node: NodeId(node),
            go,
            empty,
            tag,
            required,
            nullable: false,
            patch,
            merge_key: text(merge_key),
            default: text(default),
        }
    }

    /// A field as a custom resource has it: unset unless given, never on the protobuf wire.
    #[must_use]
    pub fn custom(name: impl Into<Cow<'static, str>>, node: NodeId) -> Self {
        Self {
            name: name.into(),
            node,
            go: GoKind::Pointer,
            empty: WhenEmpty::Omit,
            tag: 0,
            required: false,
            nullable: false,
            patch: Patch::default(),
            merge_key: None,
            default: None,
        }
    }
}

impl<'s> TypeRef<'s> {
    /// The schema this type belongs to.
    #[must_use]
    pub fn schema(self) -> &'s Schema {
        self.schema
    }

    /// Where it stands in its schema's table.
    #[must_use]
    pub fn id(self) -> TypeId {
        self.id
    }

    /// The definition itself.
    #[must_use]
    pub fn def(self) -> &'s TypeDef {
        self.def
    }

    /// Full name, for example `io.k8s.api.core.v1.Pod`.
    #[must_use]
    pub fn name(self) -> &'s str {
        &self.def.name
    }

    /// Name without package, for example `Pod`.
    #[must_use]
    pub fn short_name(self) -> &'s str {
        self.name().rsplit('.').next().unwrap_or_default()
    }

    /// Fields as they stand in JSON, sorted by name.
    #[must_use]
    pub fn fields(self) -> &'s [Field] {
        &self.def.fields
    }

    /// The index of the field called `name`.
    #[must_use]
    pub fn position(self, name: &str) -> Option<usize> {
        self.def.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()
    }

    /// The field called `name`.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'s Field> {
        self.position(name).map(|at| &self.def.fields[at])
    }

    /// The shape of a field of this type.
    #[must_use]
    pub fn node(self, field: &Field) -> NodeRef<'s> {
        self.schema.node(field.node)
    }

    /// The shape of the field called `name`.
    #[must_use]
    pub fn child(self, name: &str) -> Option<NodeRef<'s>> {
        self.field(name).map(|field| self.node(field))
    }

    /// What goes on the protobuf wire, sorted by tag.
    #[must_use]
    pub fn wire(self) -> &'s [Wire] {
        &self.def.wire
    }
}

impl<'s> NodeRef<'s> {
    /// The node itself.
    #[must_use]
    pub fn node(self) -> &'s Node {
        self.node
    }

    /// The schema this node belongs to.
    #[must_use]
    pub fn schema(self) -> &'s Schema {
        self.schema
    }

    /// The type, if this is an object with named fields.
    #[must_use]
    pub fn object(self) -> Option<TypeRef<'s>> {
        match self.node {
            Node::Object { ty, .. } => Some(self.schema.ty(*ty)),
            _ => None,
        }
    }

    /// The shape of elements, if this is a list.
    #[must_use]
    pub fn item(self) -> Option<NodeRef<'s>> {
        match self.node {
            Node::List { item, .. } => Some(self.schema.node(*item)),
            _ => None,
        }
    }

    /// The shape of values, if this is a map.
    #[must_use]
    pub fn value(self) -> Option<NodeRef<'s>> {
        match self.node {
            Node::Map { value, .. } => Some(self.schema.node(*value)),
            _ => None,
        }
    }

    /// Whether this value is replaced as a whole by structured merge.
    #[must_use]
    pub fn atomic(self) -> bool {
        match self.node {
            Node::Object { ty, atomic } => atomic.unwrap_or(self.schema.ty(*ty).def.atomic),
            Node::Map { atomic, .. } => *atomic,
            Node::List { semantics, .. } => *semantics == ListType::Atomic,
            _ => true,
        }
    }
}
