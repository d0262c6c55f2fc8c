//! Types of data, declared by schemas.
//!
//! A [`Declared`] type says what an expression may select from a value of it, and how large such values can be, which
//! bounds the cost of expressions before they run. It is made from a JSON schema as a CustomResourceDefinition has
//! it, or from the schema of a built-in type.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::schema::{Node, NodeRef, TypeId, TypeRef};

use super::escape::{escape, is_reserved};
use super::ty::Type;

/// The largest request, which bounds whatever has no bound of its own.
pub const MAX_REQUEST_BYTES: i64 = 3 * 1024 * 1024;

/// The deepest nesting of a schema that is looked at.
const MAX_DEPTH: usize = 200;

/// A type of data.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Its name; `object` for an object that has not been given one.
    pub name: Arc<str>,
    /// What it is made of.
    pub parts: Parts,
    /// The most elements, entries, characters or bytes a value can have.
    pub max_elements: i64,
    /// The fewest bytes a value takes as JSON.
    pub min_size: i64,
    /// The type expressions see.
    pub ty: Type,
}

/// What a type is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Parts {
    /// Nothing else.
    Scalar,
    /// Elements.
    List(Arc<Declared>),
    /// Values under text.
    Map(Arc<Declared>),
    /// Fields, by escaped name.
    Object(BTreeMap<String, Arc<Declared>>),
}

impl Declared {
    /// A type without parts.
    #[must_use]
    pub fn scalar(name: &str, ty: Type, min_size: i64, max_elements: i64) -> Self {
        Self { name: name.into(), parts: Parts::Scalar, max_elements, min_size, ty }
    }

    /// Lists of `item`, of at most `max_items`.
    #[must_use]
    pub fn list(item: Declared, max_items: i64) -> Self {
        let ty = Type::list(item.ty.clone());
        Self {
            name: "list".into(),
            parts: Parts::List(Arc::new(item)),
            max_elements: max_items,
            min_size: 2,
            ty,
        }
    }

    /// Maps from text to `value`, of at most `max_entries`.
    #[must_use]
    pub fn map(value: Declared, max_entries: i64) -> Self {
        let ty = Type::map(Type::String, value.ty.clone());
        Self {
            name: "map".into(),
            parts: Parts::Map(Arc::new(value)),
            max_elements: max_entries,
            min_size: 2,
            ty,
        }
    }

    /// Objects with these fields, by escaped name.
    #[must_use]
    pub fn object(name: &str, fields: BTreeMap<String, Arc<Declared>>) -> Self {
        let ty = Type::object(name);
        Self { name: name.into(), parts: Parts::Object(fields), max_elements: 0, min_size: 2, ty }
    }

    /// The type a JSON schema describes; `root` for the root of a resource, in which type and name can always be
    /// read. `None` when expressions cannot see such data.
    #[must_use]
    pub fn of_schema(schema: &Json, root: bool) -> Option<Self> {
        SchemaReader { schema }.declared(root, 0)
    }

    /// The type of built-in objects.
    #[must_use]
    pub fn of_type(ty: TypeRef<'_>) -> Self {
        builtin_object(ty, &mut Vec::new())
    }

    /// The same type, its objects named after their place below `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        match &self.parts {
            Parts::Scalar => self.clone(),
            Parts::List(item) => Self::list(item.named(&format!("{name}.@idx")), self.max_elements),
            Parts::Map(value) => Self::map(value.named(&format!("{name}.@elem")), self.max_elements),
            Parts::Object(fields) => {
                let name = if &*self.name == "object" { name } else { &self.name };
                let named = |(field, declared): (&String, &Arc<Self>)| {
                    (field.clone(), Arc::new(declared.named(&format!("{name}.{field}"))))
                };
                let fields = fields.iter().map(named).collect();
                Self { min_size: self.min_size, ..Self::object(name, fields) }
            }
        }
    }

    /// The type of a field; reserved words may be written without escape where `keywords` says so.
    #[must_use]
    pub fn field(&self, name: &str, keywords: bool) -> Option<&Arc<Declared>> {
        match &self.parts {
            Parts::Object(fields) => fields.get(name).or_else(|| {
                (keywords && is_reserved(name)).then(|| fields.get(&format!("__{name}__"))).flatten()
            }),
            _ => None,
        }
    }

    /// How large values at `path` can be; steps are fields, `@items`, `@values` and `@keys`.
    #[must_use]
    pub fn max_elements_at<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Option<i64> {
        let mut path = path.into_iter();
        let Some(step) = path.next() else { return Some(self.max_elements) };
        let next = match (&self.parts, step) {
            (Parts::List(item) | Parts::Map(item), "@items" | "@values") => item,
            // Keys have no limit of their own.
            (Parts::Map(_), "@keys") => return path.next().is_none().then_some(0),
            (Parts::Object(fields), name) => fields.get(name)?,
            _ => return None,
        };
        next.max_elements_at(path)
    }

    fn collect(self: &Arc<Self>, types: &mut HashMap<Arc<str>, Arc<Declared>>) {
        match &self.parts {
            Parts::Scalar => {}
            Parts::List(part) | Parts::Map(part) => part.collect(types),
            Parts::Object(fields) => {
                if types.insert(self.name.clone(), self.clone()).is_none() {
                    fields.values().for_each(|field| field.collect(types));
                }
            }
        }
    }
}

/// The object types an environment knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    types: HashMap<Arc<str>, Arc<Declared>>,
    /// Whether reserved words may be selected without escape.
    pub keywords: bool,
}

impl Registry {
    pub(crate) fn add(&mut self, declared: Arc<Declared>) {
        declared.collect(&mut self.types);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Declared>> {
        self.types.get(name)
    }
}

/// Reads one JSON schema.
struct SchemaReader<'s> {
    schema: &'s Json,
}

impl SchemaReader<'_> {
    fn flag(&self, name: &str) -> bool {
        self.schema.get(name).and_then(Json::as_bool).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.schema.get(name).and_then(Json::as_i64).map(|number| number.max(0))
    }

    fn text(&self, name: &str) -> &str {
        self.schema.get(name).and_then(Json::as_str).unwrap_or_default()
    }

    fn declared(&self, root: bool, depth: usize) -> Option<Declared> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.flag("x-kubernetes-int-or-string") {
            // Characters may take four bytes each.
            let most = self.number("maxLength").map_or(MAX_REQUEST_BYTES - 2, |max| max.saturating_mul(4));
            return Some(Declared::scalar("dyn", Type::Dyn, 1, most));
        }
        match self.text("type") {
            "array" => self.list(depth),
            "object" => self.object(root, depth),
            "string" => Some(self.string()),
            "boolean" => Some(Declared::scalar("bool", Type::Bool, 4, 0)),
            "number" => Some(Declared::scalar("double", Type::Double, 1, 0)),
            "integer" => Some(Declared::scalar("int", Type::Int, 1, 0)),
            _ => None,
        }
    }

    fn child(schema: &Json, depth: usize) -> Option<Declared> {
        let reader = SchemaReader { schema };
        reader.declared(reader.flag("x-kubernetes-embedded-resource"), depth + 1)
    }

    fn list(&self, depth: usize) -> Option<Declared> {
        let item = Self::child(self.schema.get("items")?, depth)?;
        let most = self.number("maxItems").unwrap_or((MAX_REQUEST_BYTES - 2) / (item.min_size + 1));
        Some(Declared::list(item, most))
    }

    fn object(&self, root: bool, depth: usize) -> Option<Declared> {
        if let Some(value) = self.schema.get("additionalProperties").filter(|value| value.is_object()) {
            let value = Self::child(value, depth)?;
            let most = self.number("maxProperties").unwrap_or((MAX_REQUEST_BYTES - 2) / (value.min_size + 6));
            return Some(Declared::map(value, most));
        }
        let mut fields = BTreeMap::new();
        let mut min_size = 2;
        let required: Vec<&str> = match self.schema.get("required") {
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        for (name, schema) in self.schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            if root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let Some(field) = Self::child(schema, depth) else { continue };
            let defaulted = schema.get("default").is_some_and(|default| !default.is_null());
            if required.contains(&name.as_str()) && !defaulted {
                min_size += name.len() as i64 + field.min_size + 4;
            }
            if let Some(name) = escape(name) {
                fields.insert(name, Arc::new(field));
            }
        }
        if root {
            self.add_metadata(&mut fields, &mut min_size, &required);
        }
        Some(Declared { min_size, ..Declared::object("object", fields) })
    }

    /// Type and name of a resource, unless the schema has them in full.
    fn add_metadata(
        &self,
        fields: &mut BTreeMap<String, Arc<Declared>>,
        min_size: &mut i64,
        required: &[&str],
    ) {
        let text = || Arc::new(Declared::scalar("string", Type::String, 2, MAX_REQUEST_BYTES - 2));
        let given = |name: &str| self.schema.get("properties").and_then(|properties| properties.get(name));
        let is =
            |schema: Option<&Json>, ty: &str| schema.and_then(|s| s.get("type")) == Some(&Json::from(ty));
        let metadata = given("metadata");
        let below = |name: &str| metadata.and_then(|m| m.get("properties")).and_then(|p| p.get(name));
        let complete = is(given("kind"), "string")
            && is(given("apiVersion"), "string")
            && is(metadata, "object")
            && is(below("name"), "string")
            && is(below("generateName"), "string");
        let mut add = |name: &str, declared: Arc<Declared>| {
            if required.contains(&name) {
                *min_size += name.len() as i64 + declared.min_size + 4;
            }
            fields.insert(name.to_owned(), declared);
        };
        if complete {
            for (name, schema) in
                [("apiVersion", given("apiVersion")), ("kind", given("kind")), ("metadata", metadata)]
            {
                if let Some(declared) = schema.and_then(|schema| Self::child(schema, 0)) {
                    add(name, Arc::new(declared));
                }
            }
            return;
        }
        add("apiVersion", text());
        add("kind", text());
        let names = [("generateName".to_owned(), text()), ("name".to_owned(), text())];
        add("metadata", Arc::new(Declared::object("object", names.into())));
    }

    fn string(&self) -> Declared {
        let unbounded = MAX_REQUEST_BYTES - 2;
        match self.text("format") {
            "byte" => {
                let most = self.number("maxLength").unwrap_or(unbounded);
                Declared::scalar("bytes", Type::Bytes, 2, most)
            }
            "duration" => Declared::scalar("duration", Type::Duration, 3, 32),
            "date" => Declared::scalar("timestamp", Type::Timestamp, 12, 12),
            "date-time" => Declared::scalar("timestamp", Type::Timestamp, 21, 32),
            _ => {
                let longest =
                    self.schema.get("enum").and_then(Json::as_array).filter(|values| !values.is_empty());
                let most = match (self.number("maxLength"), longest) {
                    (Some(max), _) => max.saturating_mul(4),
                    (None, Some(values)) => values
                        .iter()
                        .filter_map(Json::as_str)
                        .map(|text| text.len() as i64)
                        .max()
                        .unwrap_or(0),
                    (None, None) => unbounded,
                };
                Declared::scalar("string", Type::String, 2, most)
            }
        }
    }
}

fn builtin_object(ty: TypeRef<'_>, within: &mut Vec<TypeId>) -> Declared {
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    within.push(ty.id());
    for field in ty.fields() {
        let declared = builtin_node(ty.node(field), within);
        if field.required && field.default.is_none() {
            min_size += field.name.len() as i64 + declared.min_size + 4;
        }
        if let Some(name) = escape(&field.name) {
            fields.insert(name, Arc::new(declared));
        }
    }
    within.pop();
    Declared { min_size, ..Declared::object("object", fields) }
}

fn builtin_node(node: NodeRef<'_>, within: &mut Vec<TypeId>) -> Declared {
    let unbounded = MAX_REQUEST_BYTES - 2;
    let anything = || Declared::scalar("dyn", Type::Dyn, 1, unbounded);
    match node.node() {
        Node::String | Node::Quantity | Node::Duration => {
            Declared::scalar("string", Type::String, 2, unbounded)
        }
        Node::Int32 | Node::Int64 => Declared::scalar("int", Type::Int, 1, 0),
        Node::Double => Declared::scalar("double", Type::Double, 1, 0),
        Node::Bool => Declared::scalar("bool", Type::Bool, 4, 0),
        Node::Bytes => Declared::scalar("bytes", Type::Bytes, 2, unbounded),
        Node::Time | Node::MicroTime => Declared::scalar("timestamp", Type::Timestamp, 21, 32),
        Node::IntOrString | Node::Raw(_) | Node::SchemaOr { .. } => anything(),
        // A type within itself has no end.
        Node::Object { ty, .. } if within.contains(ty) => anything(),
        Node::Object { ty, .. } => builtin_object(node.schema().ty(*ty), within),
        Node::List { item, .. } => {
            let item = builtin_node(node.schema().node(*item), within);
            let most = unbounded / (item.min_size + 1);
            Declared::list(item, most)
        }
        Node::Map { value, .. } => {
            let value = builtin_node(node.schema().node(*value), within);
            let most = unbounded / (value.min_size + 6);
            Declared::map(value, most)
        }
    }
}
