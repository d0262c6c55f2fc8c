//! The metadata of custom objects and of objects embedded in them: brought into form on the way in, and checked
//! (upstream `apiserver/schema/objectmeta`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::props::{Props, PropsExt};
use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::gofmt::type_name;
use crate::names::GroupVersion;
use crate::schema::type_named;
use crate::validation::meta;

const TYPE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What became of the metadata of an object.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    /// In the form that the server keeps.
    pub(super) value: Value,
    /// Fields that metadata does not have, as paths below it.
    pub(super) unknown: Vec<String>,
}

/// Reads metadata as the type it is. `drop_malformed`: leaves out fields of a wrong type rather than failing.
pub(super) fn read(value: &Value, drop_malformed: bool) -> Result<Read, String> {
    let Some(ty) = type_named(TYPE) else { return Err("metadata has no type".to_owned()) };
    match ty.decode_value(value.clone()) {
        Ok(decoded) => Ok(Read { value: decoded.value, unknown: unknown(&decoded.strict_errors) }),
        Err(error) if !drop_malformed => Err(error.to_string()),
        Err(_) => {
            let Value::Object(fields) = value else {
                return Err(format!("invalid metadata: expected object, got {}", type_name(value)));
            };
            let (mut kept, mut names) = (Map::new(), Vec::new());
            for (name, field) in fields {
                let one = Value::Object([(name.clone(), field.clone())].into_iter().collect());
                let Ok(decoded) = ty.decode_value(one) else { continue };
                names.extend(unknown(&decoded.strict_errors));
                if let Value::Object(decoded) = decoded.value {
                    kept.extend(decoded);
                }
            }
            Ok(Read { value: Value::Object(kept), unknown: names })
        }
    }
}

/// The fields that a strict decoder did not know.
fn unknown(strict_errors: &[String]) -> Vec<String> {
    let path = |error: &String| Some(error.strip_prefix("unknown field \"")?.strip_suffix('"')?.to_owned());
    strict_errors.iter().filter_map(path).collect()
}

/// Brings the metadata of embedded objects into form, and that of the object itself if the value is one. Returns the
/// paths of unknown fields. `drop_invalid`: what is of a wrong type goes.
pub(super) fn coerce(
    value: &mut Value,
    schema: Option<&Props>,
    is_resource: bool,
    drop_invalid: bool,
) -> Result<Vec<String>, Box<Error>> {
    let mut coercer = Coercer { drop_invalid, unknown: Vec::new() };
    if is_resource || schema.is_some_and(|schema| schema.embedded()) {
        coercer.object(value, &Path::root())?;
    }
    coercer.below(value, schema, &Path::root())?;
    coercer.unknown.sort();
    Ok(coercer.unknown)
}

/// As [`coerce`], for a value at `path`.
pub(super) fn coerce_at(value: &mut Value, schema: &Props, path: &Path) -> Result<(), Box<Error>> {
    let mut coercer = Coercer { drop_invalid: false, unknown: Vec::new() };
    if schema.embedded() {
        coercer.object(value, path)?;
    }
    coercer.below(value, Some(schema), path)
}

struct Coercer {
    drop_invalid: bool,
    unknown: Vec<String>,
}

impl Coercer {
    fn value(&mut self, value: &mut Value, schema: Option<&Props>, path: &Path) -> Result<(), Box<Error>> {
        if schema.is_some_and(|schema| schema.embedded()) {
            self.object(value, path)?;
        }
        self.below(value, schema, path)
    }

    fn below(&mut self, value: &mut Value, schema: Option<&Props>, path: &Path) -> Result<(), Box<Error>> {
        let Some(schema) = schema else { return Ok(()) };
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    if let Some(field) = schema.field(name) {
                        self.value(value, Some(field), &path.child(name))?;
                    } else if schema.has_additional() {
                        self.value(value, schema.additional(), &path.key(name))?;
                    }
                }
            }
            Value::Array(items) => {
                for (i, value) in items.iter_mut().enumerate() {
                    self.value(value, schema.item(), &path.index(i))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `apiVersion`, `kind` and `metadata` of an object.
    fn object(&mut self, value: &mut Value, path: &Path) -> Result<(), Box<Error>> {
        let Value::Object(fields) = value else { return Ok(()) };
        for name in ["apiVersion", "kind"] {
            match fields.get(name) {
                None | Some(Value::String(_)) => {}
                Some(_) if self.drop_invalid => drop(fields.remove(name)),
                Some(other) => {
                    return Err(Box::new(Error::invalid(
                        &path.child(name),
                        other.clone(),
                        "must be a string",
                    )));
                }
            }
        }
        let Some(given) = fields.get("metadata") else { return Ok(()) };
        let at = path.child("metadata");
        match read(given, self.drop_invalid) {
            Ok(read) => {
                self.unknown.extend(read.unknown.iter().map(|name| format!("{at}.{name}")));
                fields.insert("metadata".to_owned(), read.value);
            }
            Err(_) if self.drop_invalid => {}
            Err(why) => return Err(Box::new(Error::invalid(&at, given.clone(), why))),
        }
        Ok(())
    }
}

/// What is wrong with embedded objects, and with the object itself if the value is one.
pub(super) fn validate(value: &Value, schema: Option<&Props>, is_resource: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if is_resource && !schema.is_some_and(|schema| schema.embedded()) {
        object(value, path, &mut errors);
    }
    if let Some(schema) = schema {
        walk(value, schema, path, &mut errors);
    }
    errors
}

fn walk(value: &Value, schema: &Props, path: &Path, errors: &mut ErrorList) {
    if schema.embedded() {
        object(value, path, errors);
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(field) = schema.field(name) {
                    walk(value, field, &path.child(name), errors);
                } else if let Some(additional) = schema.additional() {
                    walk(value, additional, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = schema.item() {
                items.iter().enumerate().for_each(|(i, value)| walk(value, item, &path.index(i), errors));
            }
        }
        _ => {}
    }
}

fn object(value: &Value, path: &Path, errors: &mut ErrorList) {
    let Value::Object(fields) = value else { return };
    for name in ["apiVersion", "kind"] {
        if !fields.contains_key(name) {
            errors.required(&path.child(name), "");
        }
    }
    if let Some(version) = fields.get("apiVersion") {
        api_version(version, &path.child("apiVersion"), errors);
    }
    if let Some(name) = fields.get("kind") {
        kind(name, &path.child("kind"), errors);
    }
    if let Some(metadata) = fields.get("metadata") {
        let at = path.child("metadata");
        match read(metadata, false)
            .and_then(|read| ObjectMeta::deserialize(read.value).map_err(|error| error.to_string()))
        {
            Ok(mut meta) => {
                // Embedded objects need no name.
                if meta.name.as_deref().is_none_or(str::is_empty) {
                    meta.name = Some("fakename".to_owned());
                }
                let namespaced = meta.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty());
                errors.extend(meta::validate(&meta, namespaced, format::name_is_path_segment, &at));
            }
            Err(why) => errors.invalid(&at, metadata.clone(), why),
        }
    }
}

fn api_version(value: &Value, path: &Path, errors: &mut ErrorList) {
    match value.as_str() {
        None => errors.invalid(path, value.clone(), "must be a string"),
        Some("") => errors.invalid(path, "", "must not be empty"),
        Some(text) if GroupVersion::parse(text).is_none() => {
            errors.invalid(path, text, format!("unexpected GroupVersion string: {text}"));
        }
        Some(_) => {}
    }
}

fn kind(value: &Value, path: &Path, errors: &mut ErrorList) {
    match value.as_str() {
        None => errors.invalid(path, value.clone(), "must be a string"),
        Some("") => errors.invalid(path, "", "must not be empty"),
        Some(text) => {
            let wrong = format::dns1035_label(&text.to_lowercase());
            if !wrong.is_empty() {
                let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                errors.invalid(path, text, detail);
            }
        }
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
