//! Autoscalers: the older version knows a target for CPU alone and keeps the rest in annotations, as JSON with the
//! fields in upstream's order.

use serde_json::{Map, Value, json};

use crate::field::json as text_of;
use crate::json::{Object, ObjectExt};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];
const DEFAULT_CPU: i64 = 80;

/// A JSON object as text, its fields in the order added.
#[derive(Default)]
struct Text(String);

impl Text {
    fn raw(mut self, key: &str, value: &str) -> Self {
        let separator = if self.0.is_empty() { "{" } else { "," };
        self.0.push_str(&format!("{separator}\"{key}\":{value}"));
        self
    }

    fn set(self, key: &str, value: &Value) -> Self {
        self.raw(key, &text_of(value))
    }

    /// Nothing if unset.
    fn some(self, key: &str, value: Option<&Value>) -> Self {
        match value {
            Some(value) if !value.is_null() => self.set(key, value),
            _ => self,
        }
    }

    /// An amount that is always written.
    fn amount(self, key: &str, value: Option<&Value>) -> Self {
        self.set(key, value.unwrap_or(&json!("0")))
    }

    fn selector(self, key: &str, metric: &Value) -> Self {
        match metric.get("selector") {
            Some(Value::Object(selector)) => self.raw(key, &selector_text(selector)),
            _ => self,
        }
    }

    fn end(self) -> String {
        if self.0.is_empty() { "{}".to_owned() } else { self.0 + "}" }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn selector_text(selector: &Object) -> String {
    let mut out = Text::default().some("matchLabels", selector.get("matchLabels"));
    let expressions = selector.list("matchExpressions");
    if !expressions.is_empty() {
        let one = |e: &Value| {
            Text::default()
                .set("key", &e["key"])
                .set("operator", &e["operator"])
                .some("values", e.get("values"))
                .end()
        };
        out = out.raw("matchExpressions", &list(expressions.iter().map(one)));
    }
    out.end()
}

fn object_text(reference: &Value) -> String {
    Text::default()
        .set("kind", &reference["kind"])
        .set("name", &reference["name"])
        .some("apiVersion", reference.get("apiVersion"))
        .end()
}

/// A metric (`part` is `target`) or its state (`part` is `current`) in the older version's words.
fn metric_text(metric: &Value, part: &str) -> String {
    let field = |what: &str| format!("{part}{what}");
    let is_target = part == "target";
    let mut out = Text::default().set("type", &metric["type"]);
    if let Some(object) = metric.get("object") {
        let (value, name) = (&object[part], &object["metric"]);
        let inner = Text::default()
            .raw("target", &object_text(&object["describedObject"]))
            .set("metricName", &name["name"])
            .amount(&field("Value"), value.get("value"))
            .selector("selector", name)
            .some("averageValue", value.get("averageValue"));
        out = out.raw("object", &inner.end());
    }
    if let Some(pods) = metric.get("pods") {
        let inner = Text::default()
            .set("metricName", &pods["metric"]["name"])
            .amount(&field("AverageValue"), pods[part].get("averageValue"))
            .selector("selector", &pods["metric"]);
        out = out.raw("pods", &inner.end());
    }
    for key in ["resource", "containerResource"] {
        let Some(resource) = metric.get(key) else { continue };
        let value = &resource[part];
        let mut inner = Text::default()
            .set("name", &resource["name"])
            .some(&field("AverageUtilization"), value.get("averageUtilization"));
        inner = if is_target {
            inner.some(&field("AverageValue"), value.get("averageValue"))
        } else {
            inner.amount(&field("AverageValue"), value.get("averageValue"))
        };
        if key == "containerResource" {
            inner = inner.set("container", &resource["container"]);
        }
        out = out.raw(key, &inner.end());
    }
    if let Some(external) = metric.get("external") {
        let value = &external[part];
        let mut inner = Text::default()
            .set("metricName", &external["metric"]["name"])
            .selector("metricSelector", &external["metric"]);
        inner = if is_target {
            inner.some(&field("Value"), value.get("value"))
        } else {
            inner.amount(&field("Value"), value.get("value"))
        };
        out = out.raw("external", &inner.some(&field("AverageValue"), value.get("averageValue")).end());
    }
    out.end()
}

/// A scaling rule with the names of Go's fields.
fn rules_text(rules: Option<&Value>) -> String {
    let Some(rules) = rules.filter(|r| !r.is_null()) else { return "null".to_owned() };
    let unset = Value::Null;
    let get = |key: &str| rules.get(key).unwrap_or(&unset);
    let policy = |p: &Value| {
        Text::default()
            .set("Type", &p["type"])
            .set("Value", &p["value"])
            .set("PeriodSeconds", &p["periodSeconds"])
            .end()
    };
    let policies = match get("policies").as_array() {
        Some(policies) => list(policies.iter().map(policy)),
        None => "null".to_owned(),
    };
    Text::default()
        .set("StabilizationWindowSeconds", get("stabilizationWindowSeconds"))
        .set("SelectPolicy", get("selectPolicy"))
        .raw("Policies", &policies)
        .set("Tolerance", get("tolerance"))
        .end()
}

fn is_cpu(metric: &Value, part: &str) -> Option<Value> {
    let resource = metric.get("resource").filter(|_| metric["type"] == "Resource")?;
    if resource["name"] != "cpu" {
        return None;
    }
    resource[part].get("averageUtilization").filter(|v| !v.is_null()).cloned()
}

pub(super) fn v2_to_v1(object: &mut Object) {
    let mut annotations = Vec::new();
    if let Some(spec) = object.object_mut("spec") {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let metrics = metrics.as_array().map_or(&[][..], Vec::as_slice);
        let others: Vec<String> = metrics
            .iter()
            .filter(|m| is_cpu(m, "target").is_none())
            .map(|m| metric_text(m, "target"))
            .collect();
        if !others.is_empty() {
            annotations.push((METRICS, format!("[{}]", others.join(","))));
        }
        if let Some(percent) = metrics.iter().find_map(|m| is_cpu(m, "target")) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        if let Some(behavior) = spec.remove("behavior").filter(|b| !b.is_null()) {
            let text = Text::default()
                .raw("ScaleUp", &rules_text(behavior.get("scaleUp")))
                .raw("ScaleDown", &rules_text(behavior.get("scaleDown")));
            annotations.push((BEHAVIOR, text.end()));
        }
    }
    if let Some(status) = object.object_mut("status") {
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        let metrics = metrics.as_array().map_or(&[][..], Vec::as_slice);
        if !metrics.is_empty() {
            annotations.push((CURRENT_METRICS, list(metrics.iter().map(|m| metric_text(m, "current")))));
        }
        if let Some(percent) = metrics.iter().filter_map(|m| is_cpu(m, "current")).next_back() {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        let conditions = status.remove("conditions").unwrap_or_default();
        let conditions = conditions.as_array().map_or(&[][..], Vec::as_slice);
        if !conditions.is_empty() {
            let one = |c: &Value| {
                Text::default()
                    .set("type", &c["type"])
                    .set("status", &c["status"])
                    .set("lastTransitionTime", &c["lastTransitionTime"])
                    .some("reason", c.get("reason").filter(|r| *r != ""))
                    .some("message", c.get("message").filter(|m| *m != ""))
                    .end()
            };
            annotations.push((CONDITIONS, list(conditions.iter().map(one))));
        }
        status.or_default("currentReplicas", 0);
        status.or_default("desiredReplicas", 0);
    }
    drop_annotations(object);
    if annotations.is_empty() {
        return;
    }
    if let Some(kept) = object.ensure("metadata").and_then(|meta| meta.ensure("annotations")) {
        kept.extend(annotations.into_iter().map(|(key, text)| (key.to_owned(), text.into())));
    }
}

fn drop_annotations(object: &mut Object) {
    let Some(meta) = object.object_mut("metadata") else { return };
    if let Some(annotations) = meta.object_mut("annotations") {
        annotations.retain(|key, _| !ANNOTATIONS.contains(&key.as_str()));
        if annotations.is_empty() {
            meta.remove("annotations");
        }
    }
}

/// A JSON object made of the fields that are set.
fn fields(pairs: &[(&str, Option<&Value>)]) -> Value {
    let set = pairs
        .iter()
        .filter_map(|(key, value)| Some(((*key).to_owned(), value.filter(|v| !v.is_null())?.clone())));
    Value::Object(set.collect::<Map<_, _>>())
}

fn is_zero(amount: Option<&Value>) -> bool {
    let text = amount.and_then(Value::as_str).unwrap_or("0");
    crate::quantity::Quantity::parse(text).is_ok_and(|amount| amount.is_zero())
}

/// A metric or its state from the older version's words.
fn metric_from(old: &Value, part: &str) -> Value {
    let is_target = part == "target";
    let field = |source: &Value, what: &str| source.get(format!("{part}{what}")).cloned();
    let zero = json!("0");
    let part_of = |kind: &str, value: Option<Value>, average: Option<Value>, utilization: Option<Value>| {
        let kind = json!(kind);
        fields(&[
            ("type", Some(&kind).filter(|_| is_target)),
            ("value", value.as_ref()),
            ("averageValue", average.as_ref()),
            ("averageUtilization", utilization.as_ref()),
        ])
    };
    let metric_of = |source: &Value, selector: &str| {
        fields(&[("name", source.get("metricName")), ("selector", source.get(selector))])
    };
    let mut out = Map::new();
    out.insert("type".to_owned(), old["type"].clone());
    if let Some(source) = old.get("object").filter(|s| !s.is_null()) {
        let (value, average) =
            (field(source, "Value"), source.get("averageValue").filter(|v| !v.is_null()).cloned());
        let always = !is_target || average.is_none();
        let kind = if average.is_none() { "Value" } else { "AverageValue" };
        let value = if always || !is_zero(value.as_ref()) { value.or(Some(zero.clone())) } else { None };
        out.insert(
            "object".to_owned(),
            json!({
                "describedObject": source["target"], "metric": metric_of(source, "selector"),
                part: part_of(kind, value, average, None),
            }),
        );
    }
    if let Some(source) = old.get("pods").filter(|s| !s.is_null()) {
        let average = field(source, "AverageValue").or(Some(zero.clone()));
        let part_value = part_of("AverageValue", None, average, None);
        out.insert("pods".to_owned(), json!({"metric": metric_of(source, "selector"), part: part_value}));
    }
    for key in ["resource", "containerResource"] {
        let Some(source) = old.get(key).filter(|s| !s.is_null()) else { continue };
        let utilization = field(source, "AverageUtilization").filter(|v| !v.is_null());
        let average = field(source, "AverageValue").or_else(|| (!is_target).then(|| zero.clone()));
        let kind = if utilization.is_none() { "AverageValue" } else { "Utilization" };
        let mut made = json!({"name": source["name"], part: part_of(kind, None, average, utilization)});
        if key == "containerResource" {
            made["container"] = source["container"].clone();
        }
        out.insert(key.to_owned(), made);
    }
    if let Some(source) = old.get("external").filter(|s| !s.is_null()) {
        let value =
            field(source, "Value").or_else(|| (!is_target).then(|| zero.clone())).filter(|v| !v.is_null());
        let kind = if value.is_none() { "AverageValue" } else { "Value" };
        let part_value = part_of(kind, value, field(source, "AverageValue"), None);
        out.insert(
            "external".to_owned(),
            json!({"metric": metric_of(source, "metricSelector"), part: part_value}),
        );
    }
    Value::Object(out)
}

/// A field by its name in any case: the annotation has Go's names or the API's.
fn any_case<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let found = value.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?.1;
    (!found.is_null()).then_some(found)
}

fn rules_from(rules: &Value) -> Value {
    let policy = |p: &Value| {
        json!({
            "type": any_case(p, "type").cloned().unwrap_or_else(|| json!("")),
            "value": any_case(p, "value").cloned().unwrap_or_else(|| json!(0)),
            "periodSeconds": any_case(p, "periodSeconds").cloned().unwrap_or_else(|| json!(0)),
        })
    };
    let policies: Option<Value> =
        any_case(rules, "policies").and_then(Value::as_array).map(|list| list.iter().map(policy).collect());
    fields(&[
        ("stabilizationWindowSeconds", any_case(rules, "stabilizationWindowSeconds")),
        ("selectPolicy", any_case(rules, "selectPolicy")),
        ("policies", policies.as_ref()),
        ("tolerance", any_case(rules, "tolerance")),
    ])
}

pub(super) fn v1_to_v2(object: &mut Object) {
    let annotation = |object: &Object, key: &str| {
        let text = object.object("metadata")?.object("annotations")?.text(key).to_owned();
        serde_json::from_str::<Value>(&text).ok()
    };
    let many = |value: Option<Value>| match value {
        Some(Value::Array(items)) => Some(items),
        _ => None,
    };
    let metrics = many(annotation(object, METRICS));
    let behavior = annotation(object, BEHAVIOR);
    let current = many(annotation(object, CURRENT_METRICS));
    let conditions = many(annotation(object, CONDITIONS));
    if let Some(spec) = object.object_mut("spec") {
        let mut all: Vec<Value> =
            metrics.unwrap_or_default().iter().map(|m| metric_from(m, "target")).collect();
        let percent = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null());
        if percent.is_some() || all.is_empty() {
            let percent = percent.unwrap_or_else(|| json!(DEFAULT_CPU));
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        spec.insert("metrics".to_owned(), all.into());
        if let Some(behavior) = behavior.as_ref() {
            let (up, down) = (
                any_case(behavior, "scaleUp").map(rules_from),
                any_case(behavior, "scaleDown").map(rules_from),
            );
            if up.is_some() || down.is_some() {
                let behavior = fields(&[("scaleUp", up.as_ref()), ("scaleDown", down.as_ref())]);
                spec.insert("behavior".to_owned(), behavior);
            }
        }
    }
    if let Some(status) = object.ensure("status") {
        let percent = status.remove("currentCPUUtilizationPercentage").filter(|p| !p.is_null());
        let metrics = match (current, percent) {
            (Some(current), _) => Some(current.iter().map(|m| metric_from(m, "current")).collect::<Value>()),
            (None, Some(percent)) => Some(json!([
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}
            ])),
            (None, None) => None,
        };
        // The newer version always writes its metrics, null for none.
        status.insert("currentMetrics".to_owned(), metrics.unwrap_or_default());
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions.into());
        }
        status.or_default("desiredReplicas", 0);
    }
    drop_annotations(object);
}
