//! Horizontal pod autoscalers, disruption budgets and scales.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{AGE, Column, Doc, NAME, Table, age, name};

const SPEC: &str = "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec";

pub(crate) static AUTOSCALER: Table = Table::new(
    &[
        NAME,
        Column::string("Reference", Doc::Field(SPEC, "scaleTargetRef")),
        Column::string("Targets", Doc::Field(SPEC, "metrics")),
        Column::string("MinPods", Doc::Field(SPEC, "minReplicas")),
        Column::string("MaxPods", Doc::Field(SPEC, "maxReplicas")),
        Column::string(
            "Replicas",
            Doc::Field("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus", "currentReplicas"),
        ),
        AGE,
    ],
    autoscaler,
);

/// Either version; the first is shown as the second it would be converted to.
fn autoscaler(object: &Object, now: jiff::Timestamp) -> Vec<Value> {
    let empty = Object::new();
    let (spec, status) = (object.object("spec").unwrap_or(&empty), object.object("status").unwrap_or(&empty));
    let target = spec.object("scaleTargetRef").unwrap_or(&empty);
    let min = spec.get("minReplicas").and_then(Value::as_i64).map_or("<unset>".to_owned(), |m| m.to_string());
    vec![
        name(object),
        json!(format!("{}/{}", target.text("kind"), target.text("name"))),
        json!(metrics(spec, status)),
        json!(min),
        json!(spec.int("maxReplicas")),
        json!(status.int("currentReplicas")),
        age(object, now),
    ]
}

fn metrics(spec: &Object, status: &Object) -> String {
    if spec.list("metrics").is_empty() {
        return "<none>".to_owned();
    }
    let current: Vec<&Object> = status.each("currentMetrics").collect();
    let all: Vec<String> =
        spec.each("metrics").enumerate().map(|(i, m)| metric(m, current.get(i).copied())).collect();
    let shown = all.iter().take(2).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > 2 { format!("{shown} + {} more...", all.len() - 2) } else { shown }
}

fn metric(spec: &Object, status: Option<&Object>) -> String {
    let key = match spec.text("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let empty = Object::new();
    let source = spec.object(key).unwrap_or(&empty);
    let target = source.object("target").unwrap_or(&empty);
    let current = status.and_then(|s| s.object(key)).and_then(|s| s.object("current"));
    let now = |field: &str| match current.and_then(|c| c.get(field)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => format!("{number}%"),
        _ => "<unknown>".to_owned(),
    };
    let by_average = !target.is_unset("averageValue");
    match (key, by_average) {
        ("external" | "object", true) => {
            format!("{}/{} (avg)", now("averageValue"), target.text("averageValue"))
        }
        ("external" | "object", false) => format!("{}/{}", now("value"), target.text("value")),
        ("pods", _) => format!("{}/{}", now("averageValue"), target.text("averageValue")),
        (_, true) => {
            format!("{}: {}/{}", source.text("name"), now("averageValue"), target.text("averageValue"))
        }
        (_, false) => {
            let wanted = target.get("averageUtilization").and_then(Value::as_i64);
            let wanted = wanted.map_or("<auto>".to_owned(), |w| format!("{w}%"));
            format!("{}: {}/{wanted}", source.text("name"), now("averageUtilization"))
        }
    }
}

pub(crate) static DISRUPTION_BUDGET: Table = Table::new(
    &[
        NAME,
        Column::string("Min Available", Doc::Text("The minimum number of pods that must be available.")),
        Column::string("Max Unavailable", Doc::Text("The maximum number of pods that may be unavailable.")),
        Column::integer(
            "Allowed Disruptions",
            Doc::Text("Calculated number of pods that may be disrupted at this time."),
        ),
        AGE,
    ],
    |object, now| {
        let spec = object.object("spec");
        let bound = |key: &str| match spec.and_then(|s| s.get(key)) {
            Some(Value::String(text)) => json!(text),
            Some(Value::Number(number)) => json!(number.to_string()),
            _ => json!("N/A"),
        };
        let allowed = object.object("status").map_or(0, |s| s.int("disruptionsAllowed"));
        vec![name(object), bound("minAvailable"), bound("maxUnavailable"), json!(allowed), age(object, now)]
    },
);

pub(crate) static SCALE: Table = Table::new(
    &[
        NAME.format(""),
        Column::integer("Desired", Doc::Field("io.k8s.api.autoscaling.v1.ScaleSpec", "replicas")),
        Column::integer("Available", Doc::Field("io.k8s.api.autoscaling.v1.ScaleStatus", "replicas")),
        AGE,
    ],
    |object, now| {
        let count = |key: &str| json!(object.object(key).map_or(0, |s| s.int("replicas")));
        vec![name(object), count("spec"), count("status"), age(object, now)]
    },
);
