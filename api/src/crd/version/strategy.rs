//! What the server does to custom objects of its own accord, and how it checks them (upstream
//! `registry/customresource/{strategy,status_strategy,validator}.go`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::correlate::Correlated;
use super::super::props::Props;
use super::super::rules::Verdict;
use super::super::{list_types, metadata};
use super::{Scale, Version, path};
use crate::field::{Error, ErrorList, ErrorType, Path, Report, quote};
use crate::format;
use crate::json::Object;
use crate::validation::meta;

impl Version {
    /// What the server does to a new object.
    pub fn prepare_for_create(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        if self.has_status {
            fields.remove("status");
        }
        set_generation(fields, 1);
    }

    /// What the server does to a changed object.
    pub fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        let (Some(fields), Some(before)) = (new.as_object_mut(), old.as_object()) else { return };
        if self.has_status {
            match before.get("status") {
                Some(status) => drop(fields.insert("status".to_owned(), status.clone())),
                None => drop(fields.remove("status")),
            }
        }
        let generation = generation(before);
        set_generation(fields, generation);
        let same = |name: &String| fields.get(name) == before.get(name);
        if !fields.keys().chain(before.keys()).filter(|name| *name != "metadata").all(same) {
            set_generation(fields, generation + 1);
        }
    }

    /// What the server does to an object changed by its status subresource: only the status is the caller's.
    pub fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        let Some(fields) = new.as_object_mut() else { return };
        let status = fields.remove("status");
        let managed = fields.get("metadata").and_then(|meta| meta.get("managedFields")).cloned();
        *new = old.clone();
        let Some(fields) = new.as_object_mut() else { return };
        match status {
            Some(status) => drop(fields.insert("status".to_owned(), status)),
            None => drop(fields.remove("status")),
        }
        if let Some(meta) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            match managed {
                Some(managed) => drop(meta.insert("managedFields".to_owned(), managed)),
                None => drop(meta.remove("managedFields")),
            }
        }
    }

    /// What is wrong with a new object.
    #[must_use]
    pub fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = self.type_meta(object);
        if errors.is_empty() {
            let own = read_meta(object);
            let at = Path::new("metadata");
            errors.extend(meta::validate(&own, self.namespaced, format::name_is_subdomain, &at));
            errors.extend(self.checker.check(object, &Path::root()));
            errors.extend(self.scale.iter().flat_map(|scale| scale.validate_spec(object)));
            errors.extend(self.scale.iter().flat_map(|scale| scale.validate_status(object)));
        }
        if let Some(schema) = &self.schema {
            errors.extend(metadata::validate(object, Some(schema), false, &Path::root()));
            errors.extend(list_types::validate(object, schema, &Path::root()));
        }
        errors
    }

    /// What is wrong with a changed object.
    #[must_use]
    pub fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.type_meta(new);
        let schema = self.schema.as_ref();
        let correlated = schema.map(|schema| Correlated::new(new, old, schema));
        if errors.is_empty() {
            let at = Path::new("metadata");
            errors.extend(meta::validate_update(&read_meta(new), &read_meta(old), &at));
            errors.extend(self.checker.check_update(new, correlated.as_ref(), &Path::root()));
            errors.extend(self.scale.iter().flat_map(|scale| scale.validate_spec(new)));
            errors.extend(self.scale.iter().flat_map(|scale| scale.validate_status(new)));
        }
        if let Some(schema) = schema {
            errors.extend(metadata::validate(new, Some(schema), false, &Path::root()));
            errors.extend(new_repetitions(new, old, schema));
        }
        errors
    }

    /// What is wrong with an object changed by its status subresource.
    #[must_use]
    pub fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.type_meta(new);
        let correlated = self.schema.as_ref().map(|schema| Correlated::new(new, old, schema));
        if errors.is_empty() {
            let at = Path::new("metadata");
            errors.extend(meta::validate_update(&read_meta(new), &read_meta(old), &at));
            if let (Some(status), Some(checker)) = (new.get("status"), self.checker.field("status")) {
                let before = correlated.as_ref().and_then(|correlated| correlated.key("status"));
                errors.extend(checker.check_update(status, before.as_ref(), &Path::new("status")));
            }
            errors.extend(self.scale.iter().flat_map(|scale| scale.validate_status(new)));
        }
        if let Some(schema) = &self.schema {
            errors.extend(new_repetitions(new, old, schema));
        }
        errors
    }

    /// What the rules of the schema say of an object, when the other checks have found this.
    #[must_use]
    pub fn validate_rules(&self, new: &Value, old: Option<&Value>, found: &ErrorList) -> Verdict {
        let (Some(rules), Some(schema)) = (&self.rules, &self.schema) else { return Verdict::default() };
        let blocks = |error: &Error| {
            matches!(
                error.kind,
                ErrorType::NotSupported
                    | ErrorType::Required
                    | ErrorType::TooLong
                    | ErrorType::TooMany
                    | ErrorType::TypeInvalid
            )
        };
        if found.iter().any(blocks) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            let error = Error::invalid(&Path::root(), Value::Null, detail);
            return Verdict { errors: vec![error], warnings: Vec::new() };
        }
        rules.check(new, old, schema)
    }

    fn type_meta(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let api_version = self.api_version();
        for (name, wanted) in [("kind", self.gvk.kind.as_ref()), ("apiVersion", api_version.as_str())] {
            let found = object.get(name).and_then(Value::as_str).unwrap_or_default();
            if found != wanted {
                errors.invalid(&Path::new(name), found, format!("must be {wanted}"));
            }
        }
        errors
    }

    /// Warnings for a new object, or for a changed one.
    #[must_use]
    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut added = finalizers(new);
        let known = old.map(finalizers).unwrap_or_default();
        added.retain(|finalizer| !known.contains(finalizer));
        added.sort();
        added.dedup();
        added.iter().flat_map(|finalizer| finalizer_warnings(finalizer)).collect()
    }
}

fn read_meta(object: &Value) -> ObjectMeta {
    object.get("metadata").and_then(|meta| ObjectMeta::deserialize(meta).ok()).unwrap_or_default()
}

fn generation(object: &Object) -> i64 {
    object.get("metadata").and_then(|meta| meta.get("generation")).and_then(Value::as_i64).unwrap_or_default()
}

fn set_generation(object: &mut Object, generation: i64) {
    let meta = object.entry("metadata").or_insert_with(|| json!({}));
    if let Some(meta) = meta.as_object_mut() {
        meta.insert("generation".to_owned(), generation.into());
    }
}

/// Items that stand twice, unless there were such before.
fn new_repetitions(new: &Value, old: &Value, schema: &Props) -> ErrorList {
    let found = list_types::validate(new, schema, &Path::root());
    if found.is_empty() || !list_types::validate(old, schema, &Path::root()).is_empty() {
        return ErrorList::new();
    }
    found
}

fn finalizers(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    let prefix = format!("metadata.finalizers: {}: ", quote(finalizer));
    let mut warnings: Vec<String> =
        format::label_key(finalizer).into_iter().map(|message| format!("{prefix}{message}")).collect();
    let standard = ["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer);
    if !finalizer.contains('/') && !standard {
        let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
        warnings.push(format!(
            "{prefix}prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    warnings
}

impl Scale {
    /// The replicas that are wished for, those that are there, and the selector.
    ///
    /// # Errors
    /// Upstream's message when one of them is of another type.
    pub fn read(&self, object: &Value) -> Result<(Option<i64>, i64, String), String> {
        let wished = path::int(object, &self.spec_replicas)?;
        let there = path::int(object, &self.status_replicas)?.unwrap_or_default();
        let selector = match &self.selector {
            Some(at) => path::text(object, at)?.unwrap_or_default().to_owned(),
            None => String::new(),
        };
        Ok((wished, there, selector))
    }

    /// Sets the replicas that are wished for.
    ///
    /// # Errors
    /// When something on the way is no object.
    pub fn write(&self, object: &mut Value, replicas: i64) -> Result<(), String> {
        path::set(object, &self.spec_replicas, replicas.into())
    }

    /// Where the replicas that are wished for stand.
    #[must_use]
    pub fn spec_path(&self) -> Vec<&str> {
        path::names(&self.spec_replicas)
    }

    fn validate_spec(&self, object: &Value) -> ErrorList {
        replicas(object, &self.spec_replicas)
    }

    fn validate_status(&self, object: &Value) -> ErrorList {
        let mut errors = replicas(object, &self.status_replicas);
        if let Some(at) = &self.selector
            && let Err(why) = path::text(object, at)
        {
            errors.invalid(&Path::new(at), "", why);
        }
        errors
    }
}

fn replicas(object: &Value, at: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let field = Path::new(at);
    match path::int(object, at) {
        Err(why) => errors.invalid(&field, 0, why),
        Ok(Some(number)) if number < 0 => errors.invalid(&field, number, "should be a non-negative integer"),
        Ok(Some(number)) if number > i64::from(i32::MAX) => {
            errors.invalid(&field, number, "should be less than or equal to 2147483647");
        }
        Ok(_) => {}
    }
    errors
}
