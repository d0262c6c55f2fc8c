//! Which fields each kind can be selected by, what upstream says of others, and the fields' values.

use serde_json::Value;

use crate::json::ObjectExt;
use crate::kinds;
use crate::names::GroupVersionKind;

use super::field::{FieldSelector, Fields, field_label_error};

/// Reads the value of a field from an object.
pub(crate) type Extract = fn(&Value) -> String;

/// How a label that is not known is refused.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// `"x" is not a known field selector: only ...`: kinds that never said which fields they have.
    Unknown,
    /// `field label not supported: x`.
    Unsupported,
    /// `field label "x" not supported for Job`.
    QuotedFor(&'static str),
    /// `field label not supported for GVK: x`.
    For(&'static str),
}

/// The selectable fields of a kind.
#[derive(Clone, Copy)]
pub(crate) struct FieldSelectors {
    /// Labels accepted besides `metadata.name` (and `metadata.namespace` if `namespace`), with the fields they mean.
    pub(crate) labels: &'static [(&'static str, &'static str)],
    /// Fields with their values.
    pub(crate) values: &'static [(&'static str, Extract)],
    pub(crate) namespace: bool,
    pub(crate) refusal: Refusal,
}

impl FieldSelectors {
    /// Name and namespace only.
    pub(crate) const META: Self =
        Self { labels: &[], values: &[], namespace: true, refusal: Refusal::Unknown };
}

/// Reads a field selector for a kind. The error is upstream's message.
pub fn parse_for_kind(gvk: &GroupVersionKind, text: &str) -> Result<FieldSelector, String> {
    FieldSelector::parse(text)?.transform(|label| canonical_label(gvk, label))
}

/// The field that a label of a selector means for a kind.
pub fn canonical_label(gvk: &GroupVersionKind, label: &str) -> Result<String, String> {
    let fields = kinds::find(gvk).map_or(FieldSelectors::META, |kind| kind.fields);
    if label == "metadata.name" || (label == "metadata.namespace" && fields.namespace) {
        return Ok(label.to_owned());
    }
    match fields.labels.iter().find(|(known, _)| *known == label) {
        Some((_, field)) => Ok((*field).to_owned()),
        None => Err(match fields.refusal {
            Refusal::Unknown => field_label_error(label),
            Refusal::Unsupported => format!("field label not supported: {label}"),
            Refusal::QuotedFor(kind) => format!("field label {label:?} not supported for {kind}"),
            Refusal::For(kind) => format!("field label not supported for {kind}: {label}"),
        }),
    }
}

/// The selectable fields of an object with their values.
#[must_use]
pub fn extract(gvk: &GroupVersionKind, object: &Value) -> Fields {
    let meta = object.get("metadata").and_then(Value::as_object);
    let text = |key| meta.map(|m| m.text(key)).unwrap_or_default().to_owned();
    let mut fields = vec![("metadata.name", text("name"))];
    if meta.is_some_and(|m| !m.text("namespace").is_empty()) {
        fields.push(("metadata.namespace", text("namespace")));
    }
    if let Some(kind) = kinds::find(gvk) {
        fields.extend(kind.fields.values.iter().map(|(name, extract)| (*name, extract(object))));
    }
    fields
}

fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

fn text(object: &Value, path: &[&str]) -> String {
    at(object, path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(object: &Value, path: &[&str]) -> String {
    at(object, path).and_then(Value::as_bool).unwrap_or_default().to_string()
}

fn int(object: &Value, path: &[&str]) -> String {
    at(object, path).and_then(Value::as_i64).unwrap_or_default().to_string()
}

pub(crate) const POD: FieldSelectors = FieldSelectors {
    labels: &[
        ("spec.nodeName", "spec.nodeName"),
        ("spec.host", "spec.nodeName"),
        ("spec.restartPolicy", "spec.restartPolicy"),
        ("spec.schedulerName", "spec.schedulerName"),
        ("spec.serviceAccountName", "spec.serviceAccountName"),
        ("spec.hostNetwork", "spec.hostNetwork"),
        ("status.phase", "status.phase"),
        ("status.podIP", "status.podIP"),
        ("status.podIPs", "status.podIPs"),
        ("status.nominatedNodeName", "status.nominatedNodeName"),
    ],
    values: &[
        ("spec.nodeName", |o| text(o, &["spec", "nodeName"])),
        ("spec.restartPolicy", |o| text(o, &["spec", "restartPolicy"])),
        ("spec.schedulerName", |o| text(o, &["spec", "schedulerName"])),
        ("spec.serviceAccountName", |o| text(o, &["spec", "serviceAccountName"])),
        ("spec.hostNetwork", |o| flag(o, &["spec", "hostNetwork"])),
        ("status.phase", |o| text(o, &["status", "phase"])),
        ("status.podIP", |o| text(o, &["status", "podIP"])),
        ("status.nominatedNodeName", |o| text(o, &["status", "nominatedNodeName"])),
    ],
    namespace: true,
    refusal: Refusal::Unsupported,
};

pub(crate) const NODE: FieldSelectors = FieldSelectors {
    labels: &[("spec.unschedulable", "spec.unschedulable")],
    values: &[("spec.unschedulable", |o| flag(o, &["spec", "unschedulable"]))],
    namespace: false,
    refusal: Refusal::Unsupported,
};

pub(crate) const REPLICATION_CONTROLLER: FieldSelectors = FieldSelectors {
    labels: &[("status.replicas", "status.replicas")],
    values: &[("status.replicas", |o| int(o, &["status", "replicas"]))],
    namespace: true,
    refusal: Refusal::Unsupported,
};

pub(crate) const JOB: FieldSelectors = FieldSelectors {
    labels: &[("status.successful", "status.successful")],
    values: &[("status.successful", |o| int(o, &["status", "succeeded"]))],
    namespace: true,
    refusal: Refusal::QuotedFor("Job"),
};

pub(crate) const NAMESPACE: FieldSelectors = FieldSelectors {
    labels: &[("status.phase", "status.phase")],
    values: &[
        ("status.phase", |o| text(o, &["status", "phase"])),
        ("name", |o| text(o, &["metadata", "name"])),
    ],
    namespace: false,
    refusal: Refusal::Unsupported,
};

pub(crate) const SECRET: FieldSelectors = FieldSelectors {
    labels: &[("type", "type")],
    values: &[("type", |o| text(o, &["type"]))],
    namespace: true,
    refusal: Refusal::Unsupported,
};

pub(crate) const SERVICE: FieldSelectors = FieldSelectors {
    labels: &[("spec.clusterIP", "spec.clusterIP"), ("spec.type", "spec.type")],
    values: &[
        ("spec.clusterIP", |o| text(o, &["spec", "clusterIP"])),
        ("spec.type", |o| text(o, &["spec", "type"])),
    ],
    namespace: true,
    refusal: Refusal::Unsupported,
};

pub(crate) const CERTIFICATE_SIGNING_REQUEST: FieldSelectors = FieldSelectors {
    labels: &[("spec.signerName", "spec.signerName")],
    values: &[("spec.signerName", |o| text(o, &["spec", "signerName"]))],
    namespace: false,
    refusal: Refusal::Unsupported,
};

pub(crate) const RESOURCE_SLICE: FieldSelectors = FieldSelectors {
    labels: &[("spec.nodeName", "spec.nodeName"), ("spec.driver", "spec.driver")],
    values: &[
        ("spec.nodeName", |o| text(o, &["spec", "nodeName"])),
        ("spec.driver", |o| text(o, &["spec", "driver"])),
    ],
    namespace: false,
    refusal: Refusal::For("resource.k8s.io/v1, Kind=ResourceSlice"),
};

/// Events are stored once and served by two groups, whose labels differ and whose fields are the core group's.
pub(crate) const EVENT: FieldSelectors = FieldSelectors {
    labels: &[
        ("involvedObject.kind", "involvedObject.kind"),
        ("involvedObject.namespace", "involvedObject.namespace"),
        ("involvedObject.name", "involvedObject.name"),
        ("involvedObject.uid", "involvedObject.uid"),
        ("involvedObject.apiVersion", "involvedObject.apiVersion"),
        ("involvedObject.resourceVersion", "involvedObject.resourceVersion"),
        ("involvedObject.fieldPath", "involvedObject.fieldPath"),
        ("reason", "reason"),
        ("reportingComponent", "reportingComponent"),
        ("source", "source"),
        ("type", "type"),
    ],
    values: EVENT_VALUES,
    namespace: true,
    refusal: Refusal::Unsupported,
};

/// The labels of `events.k8s.io`.
pub(crate) const NEW_EVENT: FieldSelectors = FieldSelectors {
    labels: &[
        ("reason", "reason"),
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
        ("type", "type"),
    ],
    values: EVENT_VALUES,
    namespace: true,
    refusal: Refusal::Unsupported,
};

/// The object an event is about, by either group's name for it.
fn about(object: &Value, key: &str) -> String {
    let subject = object.get("involvedObject").or_else(|| object.get("regarding"));
    subject.map(|s| text(s, &[key])).unwrap_or_default()
}

fn first(object: &Value, paths: &[&[&str]]) -> String {
    paths.iter().map(|path| text(object, path)).find(|value| !value.is_empty()).unwrap_or_default()
}

const EVENT_VALUES: &[(&str, Extract)] = &[
    ("involvedObject.kind", |o| about(o, "kind")),
    ("involvedObject.namespace", |o| about(o, "namespace")),
    ("involvedObject.name", |o| about(o, "name")),
    ("involvedObject.uid", |o| about(o, "uid")),
    ("involvedObject.apiVersion", |o| about(o, "apiVersion")),
    ("involvedObject.resourceVersion", |o| about(o, "resourceVersion")),
    ("involvedObject.fieldPath", |o| about(o, "fieldPath")),
    ("reason", |o| text(o, &["reason"])),
    ("reportingComponent", |o| first(o, &[&["reportingComponent"], &["reportingController"]])),
    ("source", |o| {
        first(
            o,
            &[
                &["source", "component"],
                &["deprecatedSource", "component"],
                &["reportingComponent"],
                &["reportingController"],
            ],
        )
    }),
    ("type", |o| text(o, &["type"])),
];
