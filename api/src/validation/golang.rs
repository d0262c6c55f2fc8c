//! Objects as Go's upstream shows them in messages: JSON of its *internal* types, whose fields have Go's names and
//! order and are all there, and differences of such JSON.
//!
//! The shapes of the types are data (`data/internal.tsv`): for each field its Go name, its name in the API, and
//! whether it is a pointer (null when unset), a list or map (null when empty), a struct or a scalar.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::field::json;

mod difflib;

struct Field {
    name: &'static str,
    json: &'static str,
    kind: char,
    omit: bool,
    element: &'static str,
}

static TYPES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut types = HashMap::<_, Vec<Field>>::new();
    for line in include_str!("../../data/internal.tsv").lines().skip(1) {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let (own, name, json, kind, element) = (next(), next(), next(), next(), next());
        let omit = kind.starts_with(['?', '~']);
        let kind = kind.trim_start_matches(['?', '~']).chars().next().unwrap_or('o');
        types.entry(own).or_default().push(Field { name, json, kind, omit, element });
    }
    types
});

/// One line, as in `Invalid value: ...`.
pub(crate) fn show(kind: &str, value: &Value) -> String {
    let mut out = String::new();
    render(&shape(kind, value), None, &mut out);
    out
}

/// A list of a type, on one line.
pub(crate) fn show_list(kind: &str, values: &Value) -> String {
    match values.as_array() {
        None => "null".to_owned(),
        Some(values) => {
            let all: Vec<String> = values.iter().map(|value| show(kind, value)).collect();
            format!("[{}]", all.join(","))
        }
    }
}

/// The difference between two values of a type, as a unified diff of indented JSON.
pub(crate) fn diff(kind: &str, old: &Value, new: &Value) -> String {
    let text = |value: &Value| {
        let mut out = String::new();
        render(&shape(kind, value), Some(0), &mut out);
        out
    };
    difflib::unified(&text(old), &text(new))
}

/// A value whose objects keep their order.
enum Shaped {
    Null,
    Text(String),
    List(Vec<Shaped>),
    Object(Vec<(String, Shaped)>),
}

/// Fields that the API keeps beside the security context and the internal type inside of it.
const HOST_FIELDS: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

fn shape(kind: &str, value: &Value) -> Shaped {
    let Some(fields) = TYPES.get(kind) else { return plain(value) };
    if value.is_null() {
        return Shaped::Null;
    }
    let empty = Map::new();
    let object = value.as_object().unwrap_or(&empty);
    let mut out = Vec::new();
    let moved;
    let object = if kind == "core.PodSpec" {
        moved = with_host_fields(object);
        &moved
    } else {
        object
    };
    fields_of(fields, object, &mut out);
    Shaped::Object(out)
}

fn with_host_fields(spec: &Map<String, Value>) -> Map<String, Value> {
    let mut spec = spec.clone();
    let mut context = spec.get("securityContext").and_then(Value::as_object).cloned().unwrap_or_default();
    for key in HOST_FIELDS {
        if let Some(value) = spec.get(key) {
            context.insert(key.to_owned(), value.clone());
        }
    }
    spec.insert("securityContext".to_owned(), Value::Object(context));
    spec
}

fn fields_of(fields: &[Field], object: &Map<String, Value>, out: &mut Vec<(String, Shaped)>) {
    for field in fields {
        if field.name == "@" {
            // Metadata is embedded in the internal type, and a field of its own in the API.
            let inner = match field.element {
                "metav1.ObjectMeta" => object.get("metadata").and_then(Value::as_object),
                _ => Some(object),
            };
            if let (Some(fields), Some(inner)) = (TYPES.get(field.element), inner) {
                fields_of(fields, inner, out);
            }
            continue;
        }
        let value = object.get(field.json).unwrap_or(&Value::Null);
        if let Some(shaped) = field_value(field, value) {
            out.push((field.name.to_owned(), shaped));
        }
    }
}

fn field_value(field: &Field, value: &Value) -> Option<Shaped> {
    let zero = |text: &str| if field.omit { None } else { Some(Shaped::Text(text.to_owned())) };
    let is_empty = match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && field.kind == 'm',
        _ => false,
    };
    match (field.kind, value) {
        ('t', Value::Null) if field.omit => None,
        ('t', Value::Null) => Some(shape(field.element, &Value::Object(Map::new()))),
        ('s', Value::Null) => zero("\"\""),
        ('i' | 'o', Value::Null) => zero("0"),
        ('b', Value::Null) => zero("false"),
        ('q', Value::Null) => zero("\"0\""),
        ('p' | 'l' | 'm' | 'z' | 'y', _) if is_empty => zero("null"),
        ('t' | 'p', value) => Some(shape(field.element, value)),
        ('l', Value::Array(list)) => {
            Some(Shaped::List(list.iter().map(|v| shape(field.element, v)).collect()))
        }
        ('m', Value::Object(map)) => {
            Some(Shaped::Object(map.iter().map(|(key, v)| (key.clone(), shape(field.element, v))).collect()))
        }
        (_, value) => Some(plain(value)),
    }
}

fn plain(value: &Value) -> Shaped {
    match value {
        Value::Null => Shaped::Null,
        Value::Array(list) => Shaped::List(list.iter().map(plain).collect()),
        Value::Object(map) => Shaped::Object(map.iter().map(|(key, v)| (key.clone(), plain(v))).collect()),
        other => Shaped::Text(json(other)),
    }
}

/// Writes JSON, on one line or indented by one blank for each level.
fn render(value: &Shaped, indent: Option<usize>, out: &mut String) {
    let deeper = indent.map(|level| level + 1);
    let newline = |level: Option<usize>, out: &mut String| {
        if let Some(level) = level {
            let _ = write!(out, "\n{:level$}", "");
        }
    };
    match value {
        Shaped::Null => out.push_str("null"),
        Shaped::Text(text) => out.push_str(text),
        Shaped::List(list) if list.is_empty() => out.push_str("[]"),
        Shaped::Object(map) if map.is_empty() => out.push_str("{}"),
        Shaped::List(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                newline(deeper, out);
                render(item, deeper, out);
            }
            newline(indent, out);
            out.push(']');
        }
        Shaped::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                newline(deeper, out);
                out.push_str(&json(key));
                out.push_str(if indent.is_some() { ": " } else { ":" });
                render(item, deeper, out);
            }
            newline(indent, out);
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn internal_types_show_all_fields() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        assert_eq!(
            show("core.Taint", &taint),
            r#"{"Key":"a","Value":"","Effect":"NoSchedule","TimeAdded":null}"#
        );
        let selector = json!({"matchLabels": {"a": "b"}});
        assert_eq!(show("metav1.LabelSelector", &selector), r#"{"matchLabels":{"a":"b"}}"#);
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        let shown = show("core.PodTemplateSpec", &template);
        assert!(shown.starts_with(r#"{"labels":{"a":"b"},"Spec":{"#), "{shown}");
    }

    #[test]
    fn differences_are_unified_diffs() {
        let spec = |size: &str| json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, "volumeMode": "Filesystem"});
        let got = diff("core.PersistentVolumeClaimSpec", &spec("3Gi"), &spec("4Gi"));
        let want = "@@ -6,7 +6,7 @@\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n-   \"storage\": \"3Gi\"\n+   \"storage\": \"4Gi\"\n   }\n  },\n  \"VolumeName\": \"\",\n";
        assert_eq!(got, want);
    }
}
