//! Objects on their way in and out (upstream `unstructuredSchemaCoercer` and `unstructuredDefaulter` in
//! `customresource_handler.go`).

use serde_json::Value;

use super::super::{defaulting, metadata, prune};
use super::{Definition, Version};
use crate::field::Error;

impl Version {
    /// A body as an object of this version: pruned, its metadata in form, defaulted. Also the paths of what it has and
    /// the schema does not know.
    ///
    /// # Errors
    /// Upstream's message for metadata that is none.
    pub fn read(&self, object: Value) -> Result<(Value, Vec<String>), String> {
        let (mut object, unknown) = self.coerce(object, false)?;
        self.default(&mut object);
        Ok((object, unknown))
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        if let Some(schema) = &self.schema {
            defaulting::apply(object, schema);
        }
    }

    /// Drops what the schema does not know, and brings metadata into form. `stored`: what is malformed is dropped too.
    fn coerce(&self, mut object: Value, stored: bool) -> Result<(Value, Vec<String>), String> {
        let given = object.get("metadata");
        let meta = given.map(|given| metadata::read(given, stored)).transpose()?;
        let mut unknown: Vec<String> = Vec::new();
        if let Some(meta) = &meta {
            unknown.extend(meta.unknown.iter().map(|name| format!("metadata.{name}")));
        }
        if !self.preserve_unknown {
            unknown.extend(prune::prune(&mut object, self.schema.as_ref(), true));
            prune::prune_nulls(&mut object, self.schema.as_ref());
        }
        let text = |error: Box<Error>| error.to_string();
        unknown.extend(metadata::coerce(&mut object, self.schema.as_ref(), false, stored).map_err(text)?);
        if let (Some(meta), Some(fields)) = (meta, object.as_object_mut()) {
            fields.insert("metadata".to_owned(), meta.value);
        }
        Ok((object, unknown))
    }

    /// What a webhook made of an object, in the form that the schema says.
    ///
    /// # Errors
    /// Upstream's message for metadata that is none.
    pub fn adopt(&self, object: Value) -> Result<Value, String> {
        Ok(self.coerce(object, false)?.0)
    }

    /// An object of another version as one of this.
    fn convert_from(&self, mut object: Value) -> Result<Value, String> {
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), self.api_version().into());
        }
        Ok(self.coerce(object, false)?.0)
    }
}

impl Definition {
    /// A stored object in its own version, in the form that its present schema gives it.
    ///
    /// # Errors
    /// Why that is impossible.
    pub fn from_storage(&self, object: Value) -> Result<Value, String> {
        let Some(version) = self.version_of(&object) else {
            let found = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            return Err(format!("request to convert CR from an invalid group/version: {found}"));
        };
        let (mut object, _) = version.coerce(object, true)?;
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut)
            && meta.get("generation").and_then(Value::as_i64).unwrap_or_default() == 0
        {
            meta.insert("generation".to_owned(), 1.into());
        }
        version.default(&mut object);
        Ok(object)
    }

    /// An object in another version, if no webhook is needed for that.
    ///
    /// # Errors
    /// Why that is impossible.
    pub fn convert(&self, object: Value, to: &Version) -> Result<Value, String> {
        let from = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if from == to.api_version() {
            return Ok(object);
        }
        if self.webhook.is_some() {
            return Err(format!("conversion webhook for {} failed: it has not been asked", to.gvk));
        }
        to.convert_from(object)
    }

    /// An object as it is stored.
    ///
    /// # Errors
    /// Why that is impossible.
    pub fn to_storage(&self, object: Value) -> Result<Value, String> {
        match self.storage_version() {
            Some(storage) => self.convert(object, storage),
            None => Err("there is no storage version".to_owned()),
        }
    }
}
