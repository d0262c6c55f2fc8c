//! The columns by which custom objects are shown (upstream `registry/customresource/tableconvertor`).

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use serde_json::{Value, json};

use super::props::text;
use crate::jsonpath::{Template, show};
use crate::printers::{META, duration};

/// How objects of one version are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq)]
struct Column {
    name: String,
    kind: String,
    format: String,
    description: Option<String>,
    path: String,
    priority: i32,
    template: Template,
}

impl Columns {
    /// The columns of a version; its age for one that names none. Upstream stops at the first path that it cannot read.
    #[must_use]
    pub fn new(definitions: &[CustomResourceColumnDefinition]) -> Self {
        let age = CustomResourceColumnDefinition {
            name: "Age".to_owned(),
            type_: "date".to_owned(),
            json_path: ".metadata.creationTimestamp".to_owned(),
            ..CustomResourceColumnDefinition::default()
        };
        let default = definitions.is_empty();
        let definitions = if default { std::slice::from_ref(&age) } else { definitions };
        let column = |definition: &CustomResourceColumnDefinition| {
            let template = Template::parse(&format!("{{{}}}", definition.json_path)).ok()?;
            let path = definition.json_path.clone();
            let own = Some(text(&definition.description).to_owned()).filter(|text| !text.is_empty());
            let general = format!("Custom resource definition column (in JSONPath format): {path}");
            Some(Column {
                name: definition.name.clone(),
                kind: definition.type_.clone(),
                format: text(&definition.format).to_owned(),
                description: if default { None } else { Some(own.unwrap_or(general)) },
                path,
                priority: definition.priority.unwrap_or_default(),
                template,
            })
        };
        Self { columns: definitions.iter().map_while(column).collect() }
    }

    /// The columns as they stand in a Table. `describe` gives the documentation of a field of a type.
    pub fn definitions(&self, describe: impl Fn(&str, &str) -> Option<String>) -> Vec<Value> {
        let documented = |field: &str| describe(META, field).unwrap_or_default();
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0, "description": documented("name"),
        });
        let others = self.columns.iter().map(|column| {
            let description = column.description.clone();
            json!({
                "name": column.name, "type": column.kind, "format": column.format, "priority": column.priority,
                "description": description.unwrap_or_else(|| documented("creationTimestamp")),
            })
        });
        std::iter::once(name).chain(others).collect()
    }

    /// The cells of an object.
    #[must_use]
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object.pointer("/metadata/name").cloned().unwrap_or_else(|| json!(""));
        let cell = |column: &Column| {
            let found = column.template.find(object).unwrap_or_default().into_iter().next();
            found.map_or(Value::Null, |value| cell(&column.kind, value, now))
        };
        std::iter::once(name).chain(self.columns.iter().map(cell)).collect()
    }
}

fn cell(kind: &str, value: Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::Null) => json!("<no value>"),
        ("string", value) => json!(show(&value)),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(number) => json!(number),
            None => json!(number.as_f64().unwrap_or_default() as i64),
        },
        ("number", value @ Value::Number(_)) | ("boolean", value @ Value::Bool(_)) => value,
        ("date", Value::String(text)) => json!(since(&text, now)),
        _ => Value::Null,
    }
}

/// The time since a moment, for people.
fn since(text: &str, now: Timestamp) -> String {
    if matches!(text, "" | "null") {
        return "<unknown>".to_owned();
    }
    match crate::schema::parse_time(text) {
        Ok((seconds, _)) => match Timestamp::from_second(seconds) {
            Ok(time) => duration::human(now.duration_since(time)),
            Err(_) => "<unknown>".to_owned(),
        },
        Err(_) => "<invalid>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(list: Value) -> Columns {
        let definitions: Vec<CustomResourceColumnDefinition> = serde_json::from_value(list).expect("columns");
        Columns::new(&definitions)
    }

    fn now() -> Timestamp {
        "2024-01-01T01:00:00Z".parse().expect("a time")
    }

    #[test]
    fn cells_have_the_type_of_their_column() {
        let columns = columns(json!([
            {"name": "S", "type": "string", "jsonPath": ".spec.s"},
            {"name": "I", "type": "integer", "jsonPath": ".spec.i"},
            {"name": "N", "type": "number", "jsonPath": ".spec.n"},
            {"name": "B", "type": "boolean", "jsonPath": ".spec.b"},
            {"name": "D", "type": "date", "jsonPath": ".spec.d"},
            {"name": "L", "type": "string", "jsonPath": ".spec.list[1]"},
        ]));
        let cells = |spec: Value| columns.cells(&json!({"metadata": {"name": "x"}, "spec": spec}), now());
        let right =
            json!({"s": "t", "i": 5, "n": 1.5, "b": true, "d": "2024-01-01T00:00:00Z", "list": ["p", "q"]});
        assert_eq!(
            cells(right),
            [json!("x"), json!("t"), json!(5), json!(1.5), json!(true), json!("60m"), json!("q")]
        );
        let wrong = json!({"s": 7, "i": "five", "n": 3, "b": "yes", "d": "never", "list": ["p"]});
        let null = Value::Null;
        assert_eq!(
            cells(wrong),
            [json!("x"), json!("7"), null.clone(), json!(3), null.clone(), json!("<invalid>"), null.clone()]
        );
        assert_eq!(
            cells(json!({}))[1..],
            [null.clone(), null.clone(), null.clone(), null.clone(), null.clone(), null]
        );
    }

    #[test]
    fn columns_end_at_a_path_that_is_none() {
        let columns = columns(json!([
            {"name": "A", "type": "string", "jsonPath": ".a"},
            {"name": "B", "type": "string", "jsonPath": ".b["},
            {"name": "C", "type": "string", "jsonPath": ".c"},
        ]));
        let names: Vec<Value> =
            columns.definitions(|_, _| None).into_iter().map(|mut c| c["name"].take()).collect();
        assert_eq!(names, [json!("Name"), json!("A")]);
    }
}
