//! The schema as structured merge sees it: what may stand in a place, and how it is merged (upstream
//! `structured-merge-diff/schema`, and `kube-openapi/pkg/schemaconv`, which makes it of the published schema).

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::element::Element;
use crate::schema::{Field, GoKind, ListType, Node, NodeRef, Raw, TypeRef, WhenEmpty};

/// What may stand in a place.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'s> {
    /// An object of a type.
    Type {
        /// The type.
        ty: TypeRef<'s>,
        /// Whether unknown fields are kept because something further up says so.
        preserve: bool,
    },
    /// A value of a node.
    Node {
        /// The node.
        node: NodeRef<'s>,
        /// Whether unknown fields are kept because something further up says so.
        preserve: bool,
    },
    /// Anything: objects are merged field by field, everything else is replaced as a whole.
    Deduced,
    /// Anything, replaced as a whole.
    Untyped,
}

/// Kinds of scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    /// Any of them.
    Untyped,
}

/// How the elements of a list are told apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Relation<'s> {
    /// They are not: the list is replaced as a whole.
    Atomic,
    /// By their values.
    Set,
    /// By these fields.
    Keys(&'s [Cow<'static, str>]),
}

/// A list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'s> {
    pub item: Shape<'s>,
    pub relation: Relation<'s>,
}

impl List<'_> {
    pub fn atomic(&self) -> bool {
        matches!(self.relation, Relation::Atomic)
    }
}

/// An object: fields with names, and others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping<'s> {
    pub fields: Option<TypeRef<'s>>,
    /// The shape of fields without a name here; `None`: there are none.
    pub rest: Option<Shape<'s>>,
    pub atomic: bool,
    /// Handed down to named fields.
    preserve: bool,
}

impl<'s> Mapping<'s> {
    /// Whether a field has a shape of its own.
    pub fn names(&self, name: &str) -> bool {
        self.fields.is_some_and(|ty| ty.field(name).is_some())
    }

    /// Whether nothing is known of its fields.
    pub fn is_deduced(&self) -> bool {
        self.fields.is_none_or(|ty| ty.fields().is_empty()) && matches!(self.rest, Some(Shape::Deduced))
    }

    /// The shape of a field.
    pub fn field(&self, name: &str) -> Option<Shape<'s>> {
        match self.fields.and_then(|ty| ty.child(name)) {
            Some(node) => Some(Shape::Node { node, preserve: self.preserve }),
            None => self.rest,
        }
    }
}

/// What a value may be here; several of them where the schema leaves that open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Atom<'s> {
    pub scalar: Option<Scalar>,
    pub list: Option<List<'s>>,
    pub map: Option<Mapping<'s>>,
}

/// What a value is taken for.
pub(super) enum Form<'s> {
    Map(Mapping<'s>),
    Scalar(Scalar),
    List(List<'s>),
}

impl<'s> Atom<'s> {
    /// What a value is taken for: what it is if that is allowed, else what is expected.
    pub fn form(&self, value: Option<&Value>) -> Form<'s> {
        let fits = match value {
            Some(Value::Number(_) | Value::String(_) | Value::Bool(_)) => self.scalar.map(Form::Scalar),
            Some(Value::Array(_)) => self.list.map(Form::List),
            Some(Value::Object(_)) => self.map.map(Form::Map),
            Some(Value::Null) | None => None,
        };
        let expected = || {
            let scalar = || self.scalar.map(Form::Scalar);
            let list = || self.list.map(Form::List);
            self.map.map(Form::Map).or_else(scalar).or_else(list)
        };
        fits.or_else(expected).unwrap_or(Form::Scalar(Scalar::Untyped))
    }
}

impl Form<'_> {
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl<'s> Shape<'s> {
    /// Objects of a type.
    #[must_use]
    pub fn of_type(ty: TypeRef<'s>) -> Self {
        Self::Type { ty, preserve: false }
    }

    pub(super) fn atom(self) -> Atom<'s> {
        match self {
            Self::Type { ty, preserve } => Atom { map: Some(object(ty, preserve, None)), ..Atom::default() },
            Self::Node { node, preserve } => of_node(node, preserve),
            Self::Deduced => anything(Self::Deduced, false),
            Self::Untyped => anything(Self::Untyped, true),
        }
    }

    /// Whether an object of this shape knows a field by name.
    pub(super) fn names(self, name: &str) -> bool {
        self.atom().map.is_some_and(|map| map.names(name))
    }

    /// The shape one step further down; `None` where nothing is known.
    pub(super) fn step(self, element: &Element) -> Option<Self> {
        let atom = self.atom();
        match element {
            Element::Field(name) => atom.map?.field(name),
            Element::Key(_) => Some(atom.list?.item),
            Element::Value(_) | Element::Index(_) => None,
        }
    }
}

fn anything(fields: Shape<'_>, atomic: bool) -> Atom<'_> {
    Atom {
        scalar: Some(Scalar::Untyped),
        list: Some(List { item: Shape::Untyped, relation: Relation::Atomic }),
        map: Some(Mapping { fields: None, rest: Some(fields), atomic, preserve: false }),
    }
}

fn object(ty: TypeRef<'_>, preserve: bool, atomic: Option<bool>) -> Mapping<'_> {
    let def = ty.def();
    let preserve = preserve || def.preserve_unknown;
    // An object without fields of its own is free in form.
    let rest = (preserve || def.fields.is_empty()).then_some(Shape::Deduced);
    Mapping { fields: Some(ty), rest, atomic: atomic.unwrap_or(def.atomic), preserve }
}

fn of_node(node: NodeRef<'_>, preserve: bool) -> Atom<'_> {
    let scalar = |kind| Atom { scalar: Some(kind), ..Atom::default() };
    match node.node() {
        Node::String | Node::Bytes | Node::Duration => scalar(Scalar::String),
        Node::Int32 | Node::Int64 | Node::Double => scalar(Scalar::Numeric),
        Node::Bool => scalar(Scalar::Boolean),
        Node::Quantity | Node::Time | Node::MicroTime => scalar(Scalar::Untyped),
        Node::Raw(Raw::Extension) => anything(Shape::Untyped, true),
        Node::IntOrString | Node::Raw(_) | Node::SchemaOr { .. } => anything(Shape::Deduced, false),
        Node::Object { ty, atomic } => {
            Atom { map: Some(object(node.schema().ty(*ty), preserve, *atomic)), ..Atom::default() }
        }
        Node::List { item, semantics, .. } => {
            let relation = match semantics {
                ListType::Atomic => Relation::Atomic,
                ListType::Set => Relation::Set,
                ListType::Map(keys) => Relation::Keys(keys),
            };
            let item = Shape::Node { node: node.schema().node(*item), preserve };
            Atom { list: Some(List { item, relation }), ..Atom::default() }
        }
        Node::Map { value, atomic } => {
            let rest = Shape::Node { node: node.schema().node(*value), preserve };
            let map = Mapping { fields: None, rest: Some(rest), atomic: *atomic, preserve };
            Atom { map: Some(map), ..Atom::default() }
        }
    }
}

/// The step to an element of a list whose elements are told apart; else why there is none.
pub(super) fn list_step(list: &List<'_>, value: &Value) -> Result<Element, String> {
    match list.relation {
        Relation::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        Relation::Set => match value {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            scalar => Ok(Element::Value(scalar.clone())),
        },
        Relation::Keys(keys) => match value {
            Value::Null => Err("associative list with keys may not have a null element".to_owned()),
            Value::Object(map) => keyed_step(list.item, keys, map),
            _ => Err("associative list with keys may not have non-map elements".to_owned()),
        },
    }
}

fn keyed_step(
    item: Shape<'_>,
    keys: &[Cow<'static, str>],
    map: &Map<String, Value>,
) -> Result<Element, String> {
    let mut fields = Vec::with_capacity(keys.len());
    for key in keys {
        match map.get(key.as_ref()) {
            Some(value) => fields.push((key.to_string(), value.clone())),
            None => fields.extend(key_default(item, key).map(|value| (key.to_string(), value))),
        }
    }
    if fields.is_empty() && !keys.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| crate::schema::scalar::go_quote(key)).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
             values for any key fields)",
            keys.join(" ")
        ));
    }
    Ok(Element::key(fields))
}

/// What an absent key field is taken for.
fn key_default(item: Shape<'_>, key: &str) -> Option<Value> {
    let ty = item.atom().map?.fields?;
    let field = ty.field(key)?;
    match field.default.as_deref() {
        Some(text) => serde_json::from_str(text).ok(),
        None => published_zero(field, ty.node(field)),
    }
}

/// Fields that upstream's encoder always writes are published with their zero as default.
fn published_zero(field: &Field, node: NodeRef<'_>) -> Option<Value> {
    if field.go != GoKind::Value || field.empty != WhenEmpty::Always {
        return None;
    }
    match node.node() {
        Node::String => Some("".into()),
        Node::Int32 | Node::Int64 | Node::Double => Some(0.into()),
        Node::Bool => Some(false.into()),
        _ => None,
    }
}
