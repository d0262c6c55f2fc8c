//! Defaults of a schema (upstream `apiserver/schema/defaulting`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::props::{Props, PropsExt};
use super::{metadata, prune};

/// Fills in defaults for what is absent, and for nulls where none are allowed.
pub fn apply(value: &mut Value, schema: &Props) {
    match value {
        Value::Object(fields) => {
            for (name, field) in schema.fields() {
                let Some(default) = field.default_value() else { continue };
                if fields.get(name).is_none_or(|value| value.is_null() && !field.is_nullable()) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                match schema.field(name).or_else(|| schema.additional()) {
                    Some(field) if schema.field(name).is_some() => apply(value, field),
                    Some(additional) => replace_and_apply(value, additional),
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = schema.item() {
                items.iter_mut().for_each(|value| replace_and_apply(value, item));
            }
        }
        _ => {}
    }
}

fn replace_and_apply(value: &mut Value, schema: &Props) {
    if value.is_null() && !schema.is_nullable() {
        *value = schema.default_value().cloned().unwrap_or_default();
    }
    apply(value, schema);
}

/// A step from a whole object to a value inside of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Child(String),
    Index,
}

/// An object with nothing in it but `value` at the end of `steps`.
pub(super) fn surround(value: Value, steps: &[Step]) -> Value {
    steps.iter().rev().fold(value, |value, step| match step {
        Step::Child(name) => Value::Object([(name.clone(), value)].into_iter().collect()),
        Step::Index => Value::Array(vec![value]),
    })
}

fn unwrap(object: Value, steps: &[Step]) -> Option<Value> {
    steps.iter().try_fold(object, |value, step| match (step, value) {
        (Step::Child(name), Value::Object(mut fields)) => fields.remove(name),
        (Step::Index, Value::Array(items)) => items.into_iter().next(),
        _ => None,
    })
}

/// Drops from the defaults of a schema what the schema itself would drop.
pub(crate) fn prune_defaults(schema: &mut Props) {
    let whole = schema.clone();
    prune_within(schema, &whole, &mut Vec::new());
}

fn prune_within(schema: &mut Props, whole: &Props, steps: &mut Vec<Step>) {
    if let Some(default) = schema.default_value().cloned() {
        let mut object = surround(default, steps);
        if object.is_object() {
            // Metadata that does not decode is left for validation to complain about.
            let _ = metadata::coerce(&mut object, Some(whole), true, true);
            prune::prune(&mut object, Some(whole), true);
            schema.default = unwrap(object, steps).map(JSON);
        }
    }
    if let Some(JSONSchemaPropsOrBool::Schema(additional)) = &mut schema.additional_properties {
        within(additional, whole, steps, Step::Child("*".to_owned()));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        within(item, whole, steps, Step::Index);
    }
    for (name, field) in schema.properties.iter_mut().flatten() {
        within(field, whole, steps, Step::Child(name.clone()));
    }
}

fn within(schema: &mut Props, whole: &Props, steps: &mut Vec<Step>, step: Step) {
    steps.push(step);
    prune_within(schema, whole, steps);
    steps.pop();
}

#[cfg(test)]
#[path = "defaulting_tests.rs"]
mod tests;
