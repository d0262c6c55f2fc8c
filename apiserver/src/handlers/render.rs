//! Cached objects in the forms that clients want them in. A form is made once per object and then shared.

use std::sync::Arc;

use api::codec::ordered::{self, Ordered};
use api::codec::protobuf;
use api::crd::Columns;
use api::names::GroupVersionKind;
use api::schema;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use smallvec::SmallVec;

use crate::body::Piece;
use crate::cacher::{CachedObject, Form};
use crate::codec;
use crate::negotiate::{Accepted, Encoding, MetaVersion, Transform};
use crate::object;
use crate::openapi;
use crate::registry::Resource;

/// What becomes of one object in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// An answer of its own.
    Whole,
    /// An item of a list: without kind and version in JSON, without envelope in protobuf.
    Item,
}

/// The number of a form: encoding, shape, metadata only or not, and whether it is in another version than stored.
fn form(resource: &Resource, encoding: Encoding, shape: Shape, partial: Option<MetaVersion>) -> Form {
    let encoding = match encoding {
        Encoding::Json => 0,
        Encoding::Yaml => 1,
        Encoding::Protobuf => 2,
    };
    let partial = match partial {
        None => 0,
        Some(MetaVersion::V1) => 1,
        Some(MetaVersion::V1Beta1) => 2,
    };
    let shape = u32::from(shape == Shape::Item);
    Form(encoding | shape << 2 | partial << 3 | resource.served_form() << 5)
}

/// The object in the version that is served.
pub fn served(resource: &Resource, object: &CachedObject) -> Result<Value, ApiError> {
    let value = object.value().map_err(|error| ApiError::internal(error.to_string()))?;
    resource.shown(value)
}

/// The object that tables and metadata are made of: one of ours as it is stored, whatever version is served (upstream
/// makes them of its internal types), a custom one in the version that is served.
pub fn internal(resource: &Resource, object: &CachedObject) -> Result<Value, ApiError> {
    let value = object.value().map_err(|error| ApiError::internal(error.to_string()))?;
    Shown::from(resource).internal(value)
}

/// Whether objects are sent with the bytes that are cached.
pub fn is_as_cached(resource: &Resource, accepted: Accepted) -> bool {
    accepted.encoding == Encoding::Json
        && !accepted.pretty
        && partial_version(accepted).is_none()
        && !resource.converts()
}

/// An object as an answer of its own (not a table).
pub fn whole(resource: &Resource, object: &CachedObject, accepted: Accepted) -> Result<Bytes, ApiError> {
    let partial = partial_version(accepted);
    if accepted.encoding == Encoding::Json && accepted.pretty {
        let value = shaped(resource, object, partial)?;
        return codec::value(&value, accepted);
    }
    if is_as_cached(resource, accepted) {
        return Ok(object.json());
    }
    object.try_form(form(resource, accepted.encoding, Shape::Whole, partial), |object| {
        if accepted.encoding == Encoding::Protobuf {
            let gvk = partial.map_or_else(|| resource.gvk.clone(), partial_kind);
            let message = message(resource, object, partial)?;
            let version = gvk.group_version().to_string();
            let write = |out: &mut Vec<u8>| out.extend_from_slice(&message);
            return Ok(protobuf::enveloped(&version, &gvk.kind, write).into());
        }
        codec::value(&shaped(resource, object, partial)?, Accepted { pretty: false, ..accepted })
    })
}

/// A part of a list.
pub enum ListPiece {
    /// What stands between items.
    Between(SmallVec<[u8; 16]>),
    /// An item, encoded before.
    Encoded(Bytes),
    /// An item that is sent as it is cached, but for so many bytes at its beginning.
    Cached(Arc<CachedObject>, usize),
}

impl Piece for ListPiece {
    fn len(&self) -> usize {
        match self {
            Self::Between(bytes) => bytes.len(),
            Self::Encoded(bytes) => bytes.len(),
            Self::Cached(object, skip) => object.json_len() - skip,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Between(bytes) => out.extend_from_slice(bytes),
            Self::Encoded(bytes) => out.extend_from_slice(bytes),
            Self::Cached(object, skip) => object.write_json(*skip, out),
        }
    }

    fn whole(&self) -> Option<Bytes> {
        match self {
            Self::Encoded(bytes) => Some(bytes.clone()),
            Self::Between(_) | Self::Cached(..) => None,
        }
    }
}

impl ListPiece {
    fn between(text: impl AsRef<[u8]>) -> Self {
        Self::Between(SmallVec::from_slice(text.as_ref()))
    }
}

/// All pieces in one.
fn joined(pieces: &[ListPiece]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pieces.iter().map(Piece::len).sum());
    pieces.iter().for_each(|piece| piece.write(&mut out));
    out
}

/// Makes objects items of a list (not of a table).
struct Items<'a> {
    resource: &'a Resource,
    accepted: Accepted,
    /// What is left out at the beginning of objects that are sent as they are cached; `None`: none are.
    prefix: Option<String>,
}

impl<'a> Items<'a> {
    fn new(resource: &'a Resource, accepted: Accepted) -> Self {
        let as_cached = is_as_cached(resource, Accepted { pretty: false, ..accepted });
        // Custom objects say what they are in lists, too.
        let prefix = || if resource.custom.is_some() { "{".to_owned() } else { resource.json_prefix() };
        Self { resource, accepted, prefix: as_cached.then(prefix) }
    }

    fn piece(&self, object: Arc<CachedObject>) -> Result<ListPiece, ApiError> {
        match &self.prefix {
            Some(prefix) if object.json_starts_with(prefix) => Ok(ListPiece::Cached(object, prefix.len())),
            _ => item(self.resource, &object, self.accepted).map(ListPiece::Encoded),
        }
    }
}

/// An object as an item of a list, encoded.
fn item(resource: &Resource, object: &CachedObject, accepted: Accepted) -> Result<Bytes, ApiError> {
    let partial = partial_version(accepted);
    match accepted.encoding {
        Encoding::Json | Encoding::Yaml => {
            object.try_form(form(resource, Encoding::Json, Shape::Item, partial), |object| {
                let mut value = shaped(resource, object, partial)?;
                if let (None, None, Some(map)) = (partial, &resource.custom, value.as_object_mut()) {
                    map.remove("kind");
                    map.remove("apiVersion");
                }
                // What follows the opening brace, as above.
                let mut bytes = Vec::with_capacity(512);
                let ty =
                    if partial.is_none() { schema::type_for(&resource.gvk) } else { codec::built_in(&value) };
                ordered::write(&mut bytes, &Ordered { value: &value, ty });
                Ok(Bytes::from(bytes).slice(1..))
            })
        }
        Encoding::Protobuf => object
            .try_form(form(resource, accepted.encoding, Shape::Item, partial), |object| {
                message(resource, object, partial).map(Bytes::from)
            }),
    }
}

/// The bare protobuf message of an object.
fn message(
    resource: &Resource,
    object: &CachedObject,
    partial: Option<MetaVersion>,
) -> Result<Vec<u8>, ApiError> {
    let value = shaped(resource, object, partial)?;
    match partial {
        Some(version) => codec::protobuf_message(&value, &partial_kind(version), &[]),
        None => {
            let texts = codec::texts(&resource.stored_as, || object.json());
            codec::protobuf_message(&value, &resource.gvk, &texts)
        }
    }
}

fn partial_version(accepted: Accepted) -> Option<MetaVersion> {
    match accepted.transform {
        Some((Transform::PartialObjectMetadata | Transform::PartialObjectMetadataList, version)) => {
            Some(version)
        }
        _ => None,
    }
}

fn partial_kind(version: MetaVersion) -> GroupVersionKind {
    let version = match version {
        MetaVersion::V1 => "v1",
        MetaVersion::V1Beta1 => "v1beta1",
    };
    GroupVersionKind::new("meta.k8s.io", version, "PartialObjectMetadata")
}

fn shaped(
    resource: &Resource,
    object: &CachedObject,
    partial: Option<MetaVersion>,
) -> Result<Value, ApiError> {
    match partial {
        None => served(resource, object),
        Some(version) => Ok(metadata_only(&internal(resource, object)?, version)),
    }
}

/// Metadata without the rest.
#[must_use]
pub fn metadata_only(value: &Value, version: MetaVersion) -> Value {
    let metadata = value.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata})
}

/// The metadata of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// `resourceVersion`
    pub resource_version: String,
    /// `continue`
    pub token: String,
    /// `remainingItemCount`
    pub remaining: Option<u64>,
}

impl ListMeta {
    /// As JSON.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("resourceVersion".into(), self.resource_version.clone().into());
        if !self.token.is_empty() {
            map.insert("continue".into(), self.token.clone().into());
        }
        if let Some(remaining) = self.remaining {
            map.insert("remainingItemCount".into(), remaining.into());
        }
        Value::Object(map)
    }
}

/// Kind and version of a list.
#[must_use]
pub fn list_kind(resource: &Resource, accepted: Accepted) -> (String, String) {
    match partial_version(accepted) {
        Some(version) => (version.api_version().to_owned(), "PartialObjectMetadataList".to_owned()),
        None => (resource.api_version(), resource.list_kind()),
    }
}

/// A whole list as pieces: shared bytes of items with little in between.
pub fn list(
    resource: &Resource,
    items: Vec<Arc<CachedObject>>,
    meta: &ListMeta,
    accepted: Accepted,
) -> Result<Vec<ListPiece>, ApiError> {
    match accepted.encoding {
        Encoding::Protobuf => protobuf_list(resource, items, meta, accepted),
        Encoding::Json => json_list(resource, items, meta, accepted),
        Encoding::Yaml => {
            let pieces = json_list(resource, items, meta, Accepted { pretty: false, ..accepted })?;
            let value: Value = serde_json::from_slice(&joined(&pieces)).map_err(ApiError::internal)?;
            Ok(vec![ListPiece::Encoded(codec::value(&value, accepted)?)])
        }
    }
}

fn json_list(
    resource: &Resource,
    items: Vec<Arc<CachedObject>>,
    meta: &ListMeta,
    accepted: Accepted,
) -> Result<Vec<ListPiece>, ApiError> {
    let (api_version, kind) = list_kind(resource, accepted);
    let (kind, api_version) = (Value::from(kind), Value::from(api_version));
    // Lists of custom objects are written as upstream writes what has no type: in alphabetical order, nothing left out.
    let untyped = resource.custom.is_some() && partial_version(accepted).is_none();
    let (head, tail) = if untyped {
        let mut meta = meta.to_value();
        if meta.get("continue").is_none() {
            meta["continue"] = "".into();
        }
        (
            format!("{{\"apiVersion\":{api_version},\"items\":["),
            format!("],\"kind\":{kind},\"metadata\":{meta}}}\n"),
        )
    } else {
        let meta = meta.to_value();
        let head = format!("{{\"kind\":{kind},\"apiVersion\":{api_version},\"metadata\":{meta},\"items\":[");
        (head, "]}\n".to_owned())
    };
    let (empty, maker) = (items.is_empty(), Items::new(resource, accepted));
    let mut pieces = Vec::with_capacity(2 * items.len() + 2);
    pieces.push(ListPiece::between(head));
    for (index, object) in items.into_iter().enumerate() {
        pieces.push(ListPiece::between(if index == 0 { "{" } else { ",{" }));
        pieces.push(maker.piece(object)?);
    }
    pieces.push(ListPiece::between(tail));
    if empty && partial_version(accepted).is_some() {
        // As upstream: a list of nothing but metadata is null when empty.
        let text = joined(&pieces);
        let text = String::from_utf8_lossy(&text).replace("\"items\":[]", "\"items\":null");
        pieces = vec![ListPiece::between(text)];
    }
    if accepted.pretty {
        let value: Value = serde_json::from_slice(&joined(&pieces)).map_err(ApiError::internal)?;
        return Ok(vec![ListPiece::Encoded(codec::value(&value, accepted)?)]);
    }
    Ok(pieces)
}

/// `k8s\0`, then `runtime.Unknown` with the list in its raw field: metadata is field 1, items are field 2.
fn protobuf_list(
    resource: &Resource,
    items: Vec<Arc<CachedObject>>,
    meta: &ListMeta,
    accepted: Accepted,
) -> Result<Vec<ListPiece>, ApiError> {
    let (api_version, kind) = list_kind(resource, accepted);
    let list_meta = {
        let mut out = Vec::new();
        field(&mut out, 1, b"");
        field(&mut out, 2, meta.resource_version.as_bytes());
        field(&mut out, 3, meta.token.as_bytes());
        if let Some(remaining) = meta.remaining {
            out.push(4 << 3);
            varint(&mut out, remaining);
        }
        out
    };
    let mut first = Vec::new();
    field(&mut first, 1, &list_meta);
    let mut body = Vec::with_capacity(2 * items.len() + 3);
    // The head, once the length is known.
    body.push(ListPiece::between([]));
    body.push(ListPiece::between(first));
    let maker = Items::new(resource, accepted);
    for object in items {
        let item = maker.piece(object)?;
        let mut tag = SmallVec::new();
        tag.push(2 << 3 | 2);
        varint(&mut tag, item.len() as u64);
        body.push(ListPiece::Between(tag));
        body.push(item);
    }
    let length: usize = body.iter().map(Piece::len).sum();
    let mut head = b"k8s\0".to_vec();
    let mut type_meta = Vec::new();
    field(&mut type_meta, 1, api_version.as_bytes());
    field(&mut type_meta, 2, kind.as_bytes());
    field(&mut head, 1, &type_meta);
    head.push(2 << 3 | 2);
    varint(&mut head, length as u64);
    body[0] = ListPiece::between(head);
    body.push(ListPiece::between([3 << 3 | 2, 0, 4 << 3 | 2, 0]));
    Ok(body)
}

/// A length-delimited field.
pub fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut impl Extend<u8>, mut value: u64) {
    while value >= 0x80 {
        out.extend([(value as u8 & 0x7f) | 0x80]);
        value >>= 7;
    }
    out.extend([value as u8]);
}

/// What rows of a table carry of their objects (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Metadata.
    #[default]
    Metadata,
    /// All.
    Object,
}

impl IncludeObject {
    /// From the query; 400 for other values.
    pub fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text.unwrap_or_default() {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// What says how objects are shown: their kind, or the definition of a custom resource.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    kind: &'a GroupVersionKind,
    resource: Option<&'a Resource>,
}

impl<'a> From<&'a Resource> for Shown<'a> {
    fn from(resource: &'a Resource) -> Self {
        let kind = if resource.custom.is_some() { &resource.gvk } else { &resource.stored_as };
        Self { kind, resource: Some(resource) }
    }
}

impl<'a> From<&'a GroupVersionKind> for Shown<'a> {
    fn from(kind: &'a GroupVersionKind) -> Self {
        Self { kind, resource: None }
    }
}

impl<'a> Shown<'a> {
    fn custom(&self) -> Option<&'a Columns> {
        Some(&self.resource?.custom.as_ref()?.version.columns)
    }

    /// What tables and metadata are made of, from an object in any version.
    fn internal(&self, value: Value) -> Result<Value, ApiError> {
        match self.resource.filter(|resource| resource.custom.is_some()) {
            Some(resource) => resource.shown(value),
            None => Ok(value),
        }
    }

    /// The object as it is served.
    fn served(&self, value: Value) -> Result<Value, ApiError> {
        match self.resource {
            Some(resource) => resource.shown(value),
            None => Ok(value),
        }
    }

    fn cells(&self, value: &Value, now: jiff::Timestamp) -> Vec<Value> {
        match self.custom() {
            Some(columns) => columns.cells(value, now),
            None => api::printers::cells(self.kind, value, now),
        }
    }

    fn definitions(&self) -> Vec<Value> {
        let describe = openapi::descriptions::of_column;
        match self.custom() {
            Some(columns) => columns.definitions(describe),
            None => api::printers::column_definitions(self.kind, describe),
        }
    }

    fn has_columns(&self) -> bool {
        self.custom().is_some() || api::printers::has_columns(self.kind)
    }
}

/// A table of objects (see [`internal`]). `columns`: whether the column definitions are in it.
pub fn table(
    shown: &Shown<'_>,
    values: &[Value],
    meta: Value,
    version: MetaVersion,
    include: IncludeObject,
    columns: bool,
) -> Result<Value, ApiError> {
    let now = jiff::Timestamp::now();
    let row = |value: &Value| {
        let mut row = Map::new();
        row.insert("cells".into(), shown.cells(value, now).into());
        let conditions = api::printers::row_conditions(shown.kind, value);
        if !conditions.is_empty() {
            row.insert("conditions".into(), conditions.into());
        }
        let object = match include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => metadata_only(value, version),
            IncludeObject::Object => shown.served(value.clone())?,
        };
        row.insert("object".into(), object);
        Ok(Value::Object(row))
    };
    let rows = values.iter().map(row).collect::<Result<Vec<Value>, ApiError>>()?;
    let definitions = if columns { shown.definitions().into() } else { Value::Null };
    // As upstream, whose general table of a list begins with no rows at all.
    let none = rows.is_empty() && !shown.has_columns();
    let rows = if none { Value::Null } else { Value::Array(rows) };
    Ok(json!({
        "kind": "Table", "apiVersion": version.api_version(), "metadata": meta,
        "columnDefinitions": definitions, "rows": rows,
    }))
}

/// One object that comes from no cache, turned into what the client wants. Outcomes stay what they are.
pub fn transformed(
    shown: &Shown<'_>,
    value: Value,
    accepted: Accepted,
    include: IncludeObject,
) -> Result<Value, ApiError> {
    match accepted.transform {
        _ if value["kind"] == "Status" => Ok(value),
        Some((Transform::Table, version)) => {
            let value = shown.internal(value)?;
            let meta = table_meta(&value);
            table(shown, &[value], meta, version, include, true)
        }
        Some((Transform::PartialObjectMetadata, version)) => {
            Ok(metadata_only(&shown.internal(value)?, version))
        }
        _ => shown.served(value),
    }
}

/// The metadata of a table of one object.
#[must_use]
pub fn table_meta(value: &Value) -> Value {
    json!({"resourceVersion": object::meta_text(value, "resourceVersion")})
}
