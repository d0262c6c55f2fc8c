//! The columns and cells by which the server shows objects as a Table (upstream
//! `pkg/printers/internalversion/printers.go` and `registry/rest/table.go`).
//!
//! Cells are read from JSON: a Table of thousands of objects must not cost a typed decoding of each. Descriptions that
//! are the documentation of a field are not kept here: [`columns`] asks its caller for them.

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as MetaSelector;
use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};
use crate::kinds;
use crate::names::GroupVersionKind;
use crate::selector::LabelSelector;

pub(crate) mod core;
pub mod duration;
pub(crate) mod other;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod scaling;
pub(crate) mod storage;
pub(crate) mod workload;

/// What a column is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doc {
    /// A text of its own.
    Text(&'static str),
    /// The documentation of a field of a type, without an end that an older version of the type does not have.
    Older(&'static str, &'static str, &'static str),
    /// The documentation of a field of a type, for example `io.k8s.api.core.v1.PodStatus` and `podIP`.
    Field(&'static str, &'static str),
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type.
    pub kind: &'static str,
    /// OpenAPI format; `name` for the column that names the object.
    pub format: &'static str,
    /// 0 is always shown, 1 only when asked for more.
    pub priority: i32,
    /// What it is about.
    pub doc: Doc,
}

pub(crate) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const CREATED: Doc = Doc::Field(META, "creationTimestamp");

/// The column with the object's name.
pub(crate) const NAME: Column =
    Column { name: "Name", kind: "string", format: "name", priority: 0, doc: Doc::Field(META, "name") };
/// The column with the time since creation.
pub(crate) const AGE: Column = Column { name: "Age", kind: "string", format: "", priority: 0, doc: CREATED };

impl Column {
    pub(crate) const fn new(name: &'static str, kind: &'static str, doc: Doc) -> Self {
        Self { name, kind, format: "", priority: 0, doc }
    }

    pub(crate) const fn string(name: &'static str, doc: Doc) -> Self {
        Self::new(name, "string", doc)
    }

    pub(crate) const fn integer(name: &'static str, doc: Doc) -> Self {
        Self::new(name, "integer", doc)
    }

    pub(crate) const fn boolean(name: &'static str, doc: Doc) -> Self {
        Self::new(name, "boolean", doc)
    }

    pub(crate) const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    pub(crate) const fn format(mut self, format: &'static str) -> Self {
        self.format = format;
        self
    }
}

/// How objects of a kind are shown.
pub(crate) struct Table {
    pub(crate) columns: &'static [Column],
    pub(crate) cells: fn(&Object, Timestamp) -> Vec<Value>,
    pub(crate) conditions: fn(&Object) -> Vec<Value>,
    /// The order of rows, for the kinds that are not shown in the order of the list.
    pub(crate) order: Option<fn(&Value, &Value) -> Ordering>,
}

impl Table {
    pub(crate) const fn new(columns: &'static [Column], cells: fn(&Object, Timestamp) -> Vec<Value>) -> Self {
        Self { columns, cells, conditions: |_| Vec::new(), order: None }
    }
}

/// Kinds without columns of their own.
static DEFAULT: Table = Table::new(
    &[NAME, Column { name: "Created At", kind: "date", format: "", priority: 0, doc: CREATED }],
    |object, _| {
        let meta = object.object("metadata");
        let text = |key| meta.map(|m| m.text(key)).unwrap_or_default();
        let created = text("creationTimestamp");
        vec![json!(text("name")), json!(if created.is_empty() { "<unknown>" } else { created })]
    },
);

/// Whether a kind has columns of its own.
#[must_use]
pub fn has_columns(gvk: &GroupVersionKind) -> bool {
    kinds::find(gvk).is_some_and(|kind| kind.table.is_some())
}

fn table(gvk: &GroupVersionKind) -> &'static Table {
    kinds::find(gvk).and_then(|kind| kind.table).unwrap_or(&DEFAULT)
}

/// The columns of a kind.
#[must_use]
pub fn columns(gvk: &GroupVersionKind) -> &'static [Column] {
    table(gvk).columns
}

/// The columns of a kind as they stand in a Table. `describe` gives the documentation of a field of a type.
pub fn column_definitions(
    gvk: &GroupVersionKind,
    describe: impl Fn(&str, &str) -> Option<String>,
) -> Vec<Value> {
    let definition = |column: &Column| {
        let description = match column.doc {
            Doc::Text(text) => text.to_owned(),
            Doc::Field(kind, field) => describe(kind, field).unwrap_or_default(),
            Doc::Older(kind, field, end) => {
                let text = describe(kind, field).unwrap_or_default();
                text.strip_suffix(end).map(str::to_owned).unwrap_or(text)
            }
        };
        json!({
            "name": column.name, "type": column.kind, "format": column.format, "priority": column.priority,
            "description": description,
        })
    };
    columns(gvk).iter().map(definition).collect()
}

/// The cells of an object, one for each column.
#[must_use]
pub fn cells(gvk: &GroupVersionKind, object: &Value, now: Timestamp) -> Vec<Value> {
    object.as_object().map(|object| (table(gvk).cells)(object, now)).unwrap_or_default()
}

/// The conditions of an object's row: pods that have ended are marked so.
#[must_use]
pub fn row_conditions(gvk: &GroupVersionKind, object: &Value) -> Vec<Value> {
    object.as_object().map(|object| (table(gvk).conditions)(object)).unwrap_or_default()
}

/// Puts the objects of a list into the order of its rows.
pub fn sort(gvk: &GroupVersionKind, objects: &mut [Value]) {
    if let Some(order) = table(gvk).order {
        objects.sort_by(order);
    }
}

/// The object's name.
pub(crate) fn name(object: &Object) -> Value {
    json!(object.object("metadata").map(|m| m.text("name")).unwrap_or_default())
}

/// The time since the object's creation.
pub(crate) fn age(object: &Object, now: Timestamp) -> Value {
    json!(since(object.object("metadata").map(|m| m.text("creationTimestamp")).unwrap_or_default(), now))
}

/// The time since a timestamp, `<unknown>` for none.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    time.parse::<Timestamp>()
        .map_or_else(|_| "<unknown>".to_owned(), |t| duration::human(now.duration_since(t)))
}

pub(crate) fn deleted(object: &Object) -> bool {
    object.object("metadata").is_some_and(|m| !m.is_unset("deletionTimestamp"))
}

/// `k=v,k=v`, or `<none>`.
pub(crate) fn labels(labels: Option<&Object>) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    let pairs: Vec<String> = labels.into_iter().flatten().map(pair).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A label selector as text, `<none>` if it is empty.
pub(crate) fn selector(selector: Option<&Value>) -> String {
    match selector_text(selector) {
        Ok(text) if text.is_empty() => "<none>".to_owned(),
        Ok(text) => text,
        Err(_) => "<error>".to_owned(),
    }
}

/// A label selector as text.
pub(crate) fn selector_text(selector: Option<&Value>) -> Result<String, String> {
    let typed = match selector {
        None | Some(Value::Null) => None,
        Some(value) => {
            Some(serde_json::from_value::<MetaSelector>(value.clone()).map_err(|error| error.to_string())?)
        }
    };
    LabelSelector::from_meta(typed.as_ref()).map(|s| s.to_string())
}

/// At most three of a list, and how many more there are.
pub(crate) fn some_of(all: &[String], max: usize) -> String {
    let shown = all.iter().take(max).cloned().collect::<Vec<_>>().join(",");
    if all.len() > max { format!("{shown} + {} more...", all.len() - max) } else { shown }
}

/// The text, or a stand-in for an empty one.
pub(crate) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

#[cfg(test)]
mod tests;
