//! How JSON of a custom resource is read: the part of its schema that matters when an expression looks at data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

/// The deepest nesting of a schema that is looked at.
const MAX_DEPTH: usize = 200;

/// What JSON at some place is read as.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// What it is.
    pub kind: ShapeKind,
    /// Whether `null` may stand in its place.
    pub nullable: bool,
}

/// What JSON is read as.
#[derive(Clone, Debug, PartialEq)]
pub enum ShapeKind {
    /// A number or text.
    IntOrString,
    /// An object with these fields.
    Object(BTreeMap<String, Shape>),
    /// A map to values of one shape.
    Map(Arc<Shape>),
    /// A list.
    List(ListShape),
    /// Text, perhaps denoting something else.
    String(StringFormat),
    /// A floating-point number.
    Number,
    /// An integer.
    Integer,
    /// A truth value.
    Boolean,
    /// Anything, kept as it is.
    Preserved,
    /// A type that does not exist.
    Other(String),
}

/// How a list is read.
#[derive(Clone, Debug, PartialEq)]
pub struct ListShape {
    /// The shape of elements.
    pub item: Arc<Shape>,
    /// How two such lists compare and add up.
    pub kind: ListKind,
    /// Fields that identify elements.
    pub keys: Vec<String>,
}

/// How lists compare and add up (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// In order.
    Atomic,
    /// As sets.
    Set,
    /// Element by element, identified by keys.
    Map,
}

/// What text denotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringFormat {
    /// Itself.
    None,
    /// Bytes, as base64.
    Bytes,
    /// A span of time.
    Duration,
    /// A day.
    Date,
    /// A point in time.
    DateTime,
}

impl Shape {
    /// The shape a JSON schema describes.
    #[must_use]
    pub fn of_schema(schema: &Json) -> Self {
        Self::at_depth(schema, 0)
    }

    fn new(kind: ShapeKind) -> Self {
        Self { kind, nullable: false }
    }

    fn at_depth(schema: &Json, depth: usize) -> Self {
        let flag = |name: &str| schema.get(name).and_then(Json::as_bool).unwrap_or_default();
        let kind = if flag("x-kubernetes-int-or-string") {
            ShapeKind::IntOrString
        } else if depth > MAX_DEPTH {
            ShapeKind::Preserved
        } else {
            match schema.get("type").and_then(Json::as_str).unwrap_or_default() {
                "object" => object(schema, depth),
                "array" => list(schema, depth),
                "string" => ShapeKind::String(match schema.get("format").and_then(Json::as_str) {
                    Some("byte") => StringFormat::Bytes,
                    Some("duration") => StringFormat::Duration,
                    Some("date") => StringFormat::Date,
                    Some("date-time") => StringFormat::DateTime,
                    _ => StringFormat::None,
                }),
                "number" => ShapeKind::Number,
                "integer" => ShapeKind::Integer,
                "boolean" => ShapeKind::Boolean,
                "" if flag("x-kubernetes-preserve-unknown-fields") => ShapeKind::Preserved,
                other => ShapeKind::Other(other.to_owned()),
            }
        };
        Self { kind, nullable: flag("nullable") }
    }

    /// The shape of the root of a resource, in which type and name can always be read.
    #[must_use]
    pub fn of_resource(schema: &Json) -> Self {
        let mut shape = Self::of_schema(schema);
        if let ShapeKind::Object(fields) = &mut shape.kind {
            add_metadata(fields);
        }
        shape
    }
}

fn object(schema: &Json, depth: usize) -> ShapeKind {
    let embedded = schema.get("x-kubernetes-embedded-resource").and_then(Json::as_bool).unwrap_or_default();
    let properties = schema.get("properties").and_then(Json::as_object);
    if embedded || properties.is_some() {
        let mut fields: BTreeMap<String, Shape> = properties
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.clone(), Shape::at_depth(schema, depth + 1)))
            .collect();
        if embedded {
            add_metadata(&mut fields);
        }
        return ShapeKind::Object(fields);
    }
    match schema.get("additionalProperties").filter(|value| value.is_object()) {
        Some(value) => ShapeKind::Map(Arc::new(Shape::at_depth(value, depth + 1))),
        None => ShapeKind::Object(BTreeMap::new()),
    }
}

fn list(schema: &Json, depth: usize) -> ShapeKind {
    let item =
        schema.get("items").map_or(Shape::new(ShapeKind::Preserved), |item| Shape::at_depth(item, depth + 1));
    let kind = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map,
        _ => ListKind::Atomic,
    };
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array).into_iter().flatten();
    let keys = keys.filter_map(Json::as_str).map(str::to_owned).collect();
    ShapeKind::List(ListShape { item: Arc::new(item), kind, keys })
}

fn add_metadata(fields: &mut BTreeMap<String, Shape>) {
    let text = || Shape::new(ShapeKind::String(StringFormat::None));
    fields.insert("apiVersion".to_owned(), text());
    fields.insert("kind".to_owned(), text());
    let metadata = fields.entry("metadata".to_owned()).or_insert_with(|| Shape::new(ShapeKind::Preserved));
    if !matches!(&metadata.kind, ShapeKind::Object(fields) if fields.contains_key("name") && fields.contains_key("generateName"))
    {
        let names = ["generateName", "name"].map(|name| (name.to_owned(), text()));
        *metadata = Shape::new(ShapeKind::Object(names.into()));
    }
}
