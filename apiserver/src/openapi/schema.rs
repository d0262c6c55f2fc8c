//! Types of the schema as OpenAPI describes them. The two editions differ in few things: version 3 knows defaults and
//! alternatives, and lets nothing stand beside a reference.

use std::collections::{BTreeMap, BTreeSet};

use api::codec::ordered::fields_in_order;
use api::schema::{self, Field, GoKind, ListType, Node, NodeRef, Raw, SchemaOr, TypeId, TypeRef, WhenEmpty};
use serde_json::{Map, Value, json};

use super::texts::Texts;

/// A version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edition {
    /// OpenAPI 2.0, called Swagger once.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Edition {
    /// What a reference to a definition begins with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    /// A reference to a definition.
    #[must_use]
    pub fn reference(self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.prefix())})
    }
}

/// Types of the API's machinery that have no fields of their own.
pub mod names {
    /// The body of a patch.
    pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
    /// An amount.
    pub const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
    /// A time in seconds.
    pub const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
    /// A time in microseconds.
    pub const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
    /// A span of time.
    pub const DURATION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Duration";
    /// A number or a name.
    pub const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
    /// An embedded object.
    pub const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
    /// A set of fields.
    pub const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
    /// What kinds of JSON schemas begin with.
    pub const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
}

/// The name under which a type is published. In the tables, as in protobuf, names have no hyphens.
#[must_use]
pub fn published_name(name: &str) -> String {
    name.replace('_', "-")
}

/// Renders definitions and remembers what they refer to.
pub struct Definitions<'t> {
    edition: Edition,
    texts: &'t Texts,
    types: BTreeMap<String, TypeRef<'static>>,
    kinds: BTreeMap<TypeId, Vec<Value>>,
    wanted: BTreeSet<String>,
}

impl<'t> Definitions<'t> {
    /// Of one edition.
    #[must_use]
    pub fn new(edition: Edition, texts: &'t Texts) -> Self {
        let types = schema::builtin().types().map(|ty| (published_name(ty.name()), ty)).collect();
        Self { edition, texts, types, kinds: kinds_by_type(), wanted: BTreeSet::new() }
    }

    /// For the document of one version of a group of ours, which needs to hear of kinds that exist in every version
    /// only for itself and for the core group (upstream `filterScopedGVKs`).
    #[must_use]
    pub fn of_version(mut self, group: &str, version: &str) -> Self {
        for name in EVERYWHERE {
            let ty = schema::type_named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
            if let Some(kinds) = ty.and_then(|ty| self.kinds.get_mut(&ty.id())) {
                let is = |kind: &Value, g: &str, v: &str| kind["group"] == g && kind["version"] == v;
                kinds.retain(|kind| is(kind, group, version) || is(kind, "", "v1"));
            }
        }
        self
    }

    /// A reference to a definition, which is then wanted.
    pub fn refer(&mut self, name: &str) -> Value {
        self.wanted.insert(name.to_owned());
        self.edition.reference(name)
    }

    /// Writes all definitions that were referred to, and what they refer to in turn; some are given.
    pub fn finish(mut self, given: BTreeMap<String, Value>, write: &mut dyn FnMut(&str, &Value)) {
        let mut done: BTreeSet<String> = BTreeSet::new();
        for (name, value) in given {
            write(&name, &value);
            done.insert(name);
        }
        while let Some(name) = self.wanted.pop_first() {
            if done.insert(name.clone()) {
                let definition = self.definition(&name);
                write(&name, &definition);
            }
        }
    }

    /// A definition by the name it is published under.
    fn definition(&mut self, name: &str) -> Value {
        let mut value = match self.special(name) {
            Some(value) => value,
            None => match self.types.get(name).copied() {
                Some(ty) => self.object(ty),
                None => Map::new(),
            },
        };
        if let Some(text) = self.texts.of_type(name) {
            value.insert("description".to_owned(), text.into());
        }
        Value::Object(value)
    }

    /// Types that are something else in JSON than the fields they have on the wire.
    fn special(&self, name: &str) -> Option<Map<String, Value>> {
        let v3 = self.edition == Edition::V3;
        let value = match name {
            names::QUANTITY if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            names::QUANTITY | names::DURATION => json!({"type": "string"}),
            names::TIME | names::MICRO_TIME => json!({"type": "string", "format": "date-time"}),
            names::INT_OR_STRING if v3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            names::INT_OR_STRING => json!({"type": "string", "format": "int-or-string"}),
            names::RAW_EXTENSION | names::FIELDS | names::PATCH => json!({"type": "object"}),
            name => match name.strip_prefix(names::EXTENSIONS)? {
                "JSON" => json!({}),
                name if name.starts_with("JSONSchemaPropsOr") => json!({}),
                _ => return None,
            },
        };
        match value {
            Value::Object(map) => Some(map),
            _ => None,
        }
    }

    fn object(&mut self, ty: TypeRef<'static>) -> Map<String, Value> {
        let mut value = Map::new();
        value.insert("type".to_owned(), "object".into());
        let properties: Map<String, Value> =
            ty.fields().iter().map(|field| (field.name.to_string(), self.property(ty, field))).collect();
        if !properties.is_empty() {
            value.insert("properties".to_owned(), properties.into());
        }
        let mut required: Vec<&Field> = ty.fields().iter().filter(|field| field.required).collect();
        let order = fields_in_order(ty);
        required.sort_by_key(|field| order.iter().position(|name| *name == field.name));
        if !required.is_empty() {
            let names: Vec<&str> = required.iter().map(|field| field.name.as_ref()).collect();
            value.insert("required".to_owned(), names.into());
        }
        if ty.def().atomic {
            value.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        if let Some(kinds) = self.kinds.get(&ty.id()) {
            value.insert("x-kubernetes-group-version-kind".to_owned(), kinds.clone().into());
        }
        let unions: Vec<Value> = schema::unions(ty.id()).map(union_value).collect();
        if !unions.is_empty() {
            value.insert("x-kubernetes-unions".to_owned(), unions.into());
        }
        value
    }

    fn property(&mut self, ty: TypeRef<'static>, field: &Field) -> Value {
        let node = ty.node(field);
        let mut value = self.shape(node);
        if let Some(text) = self.text(ty, field) {
            value.insert("description".to_owned(), text.into());
        }
        self.add_enum(ty, field, &mut value);
        add_merge_rules(ty, field, node, &mut value);
        if self.edition == Edition::V3 {
            if let Some(default) = default_of(node, field) {
                value.insert("default".to_owned(), default);
            }
            wrap_reference(&mut value);
        }
        Value::Object(value)
    }

    fn text(&self, ty: TypeRef<'static>, field: &Field) -> Option<String> {
        let text = self.texts.of_field(&published_name(ty.name()), &field.name);
        let values = schema::enum_values(ty.id(), &field.name);
        if values.is_empty() {
            return text;
        }
        let list: Vec<String> = values.iter().map(|value| format!(" - `{value:?}`")).collect();
        let list = format!("Possible enum values:\n{}", list.join("\n"));
        Some(text.map_or_else(|| list.clone(), |text| format!("{text}\n\n{list}")))
    }

    fn add_enum(&self, ty: TypeRef<'static>, field: &Field, value: &mut Map<String, Value>) {
        let values = schema::enum_values(ty.id(), &field.name);
        if values.is_empty() {
            return;
        }
        let inner = ["items", "additionalProperties"].into_iter().find(|key| value.contains_key(*key));
        match inner.and_then(|key| value.get_mut(key)) {
            Some(inner) => inner["enum"] = values.into(),
            None => {
                value.insert("enum".to_owned(), values.into());
            }
        }
    }

    /// A value's shape, without what its field says.
    fn shape(&mut self, node: NodeRef<'static>) -> Map<String, Value> {
        let simple = |kind: &str, format: &str| {
            let mut value = Map::new();
            value.insert("type".to_owned(), kind.into());
            if !format.is_empty() {
                value.insert("format".to_owned(), format.into());
            }
            value
        };
        let extensions = |name: &str| format!("{}{name}", names::EXTENSIONS);
        match node.node() {
            Node::String => simple("string", ""),
            Node::Int32 => simple("integer", "int32"),
            Node::Int64 => simple("integer", "int64"),
            Node::Double => simple("number", "double"),
            Node::Bool => simple("boolean", ""),
            Node::Bytes => simple("string", "byte"),
            Node::Quantity => self.reference(names::QUANTITY),
            Node::Time => self.reference(names::TIME),
            Node::MicroTime => self.reference(names::MICRO_TIME),
            Node::Duration => self.reference(names::DURATION),
            Node::IntOrString => self.reference(names::INT_OR_STRING),
            Node::Raw(Raw::Extension) => self.reference(names::RAW_EXTENSION),
            Node::Raw(Raw::FieldsV1) => self.reference(names::FIELDS),
            Node::Raw(Raw::Json) => self.reference(&extensions("JSON")),
            Node::Raw(Raw::Any | Raw::Unstructured) => simple("object", ""),
            Node::SchemaOr { flavour, .. } => self.reference(&extensions(match flavour {
                SchemaOr::Array => "JSONSchemaPropsOrArray",
                SchemaOr::Bool => "JSONSchemaPropsOrBool",
                SchemaOr::StringArray => "JSONSchemaPropsOrStringArray",
            })),
            Node::Object { ty, .. } => self.reference(&published_name(node.schema().ty(*ty).name())),
            Node::List { item, .. } => {
                let mut value = simple("array", "");
                value.insert("items".to_owned(), self.shape(node.schema().node(*item)).into());
                value
            }
            Node::Map { value: inner, .. } => {
                let mut value = simple("object", "");
                let inner = self.shape(node.schema().node(*inner));
                value.insert("additionalProperties".to_owned(), inner.into());
                value
            }
        }
    }

    fn reference(&mut self, name: &str) -> Map<String, Value> {
        match self.refer(name) {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// What a structured or strategic merge has to know of a field.
fn add_merge_rules(
    ty: TypeRef<'static>,
    field: &Field,
    node: NodeRef<'static>,
    value: &mut Map<String, Value>,
) {
    let mut set = |key: &str, fact: Value| value.insert(format!("x-kubernetes-{key}"), fact);
    let declared = schema::declared(ty.id(), &field.name);
    if let Some(list) = declared.list {
        set("list-type", list.into());
    }
    if let Node::List { semantics: ListType::Map(keys), .. } = node.node() {
        set("list-map-keys", keys.iter().map(AsRef::as_ref).collect::<Vec<&str>>().into());
    }
    if let Some(map) = declared.map {
        set("map-type", map.into());
    }
    if let Some(key) = &field.merge_key {
        set("patch-merge-key", key.as_ref().into());
    }
    let patch = field.patch;
    let strategies = [("merge", patch.merge), ("replace", patch.replace), ("retainKeys", patch.retain_keys)];
    let named: Vec<&str> = strategies.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    if !named.is_empty() {
        set("patch-strategy", named.join(",").into());
    }
}

/// The default: the one of the schema, or what upstream's struct has when nothing was given (its generator's
/// `mustEnforceDefault`).
fn default_of(node: NodeRef<'static>, field: &Field) -> Option<Value> {
    if let Some(text) = &field.default {
        return serde_json::from_str(text).ok();
    }
    if field.go != GoKind::Value {
        return None;
    }
    let always = field.empty == WhenEmpty::Always;
    match node.node() {
        Node::Object { .. } => Some(json!({})),
        Node::String if always => Some("".into()),
        Node::Int32 | Node::Int64 | Node::Double if always => Some(0.into()),
        Node::Bool if always => Some(false.into()),
        _ => None,
    }
}

/// In version 3 nothing may stand beside a reference.
pub(super) fn wrap_reference(value: &mut Map<String, Value>) {
    if value.len() > 1
        && let Some(reference) = value.remove("$ref")
    {
        value.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
}

fn union_value(union: &schema::Union) -> Value {
    let members: Map<String, Value> =
        union.members.iter().map(|(field, value)| ((*field).to_owned(), Value::from(*value))).collect();
    let mut value = json!({"fields-to-discriminateBy": members});
    if !union.discriminator.is_empty() {
        value["discriminator"] = union.discriminator.into();
    }
    value
}

/// Groups that only have kinds for machinery: upstream keeps them out of the scheme of served kinds.
const MACHINERY: &[&str] = &["meta.k8s.io", "metrics.k8s.io", "apidiscovery.k8s.io"];

/// Kinds that every group version has.
const EVERYWHERE: [&str; 2] = ["DeleteOptions", "WatchEvent"];

/// The kinds of each type. Some belong to every group version.
fn kinds_by_type() -> BTreeMap<TypeId, Vec<Value>> {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let served = || schema::kinds().iter().filter(|kind| !MACHINERY.contains(&kind.group));
    let mut found: BTreeMap<TypeId, Vec<Value>> = BTreeMap::new();
    for row in served() {
        found.entry(row.ty).or_default().push(kind(row.group, row.version, row.kind));
    }
    let versions: BTreeSet<(&str, &str)> = served().map(|row| (row.group, row.version)).collect();
    for everywhere in EVERYWHERE {
        let name = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{everywhere}");
        if let Some(ty) = schema::type_named(&name) {
            let all = versions.iter().map(|(group, version)| kind(group, version, everywhere)).collect();
            found.insert(ty.id(), all);
        }
    }
    found
}
