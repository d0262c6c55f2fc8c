//! The versions of a custom resource, as structured merge sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::crd::{Definition, Version};
use api::managed_fields::Versions;
use api::structured::{Converter, Duplicates, Filter, Set, Shape, check};
use serde_json::{Value, json};

use super::Custom;

/// A custom resource.
pub struct CustomVersions {
    definition: Arc<Definition>,
    version: Arc<Version>,
    /// What of the changes in a version does not count: what the strategies put back.
    filters: BTreeMap<String, Filter>,
}

impl CustomVersions {
    /// The versions of a resource, with what a request for a part of it (empty: all of it) can change.
    #[must_use]
    pub fn new(custom: &Custom, part: &str) -> Self {
        let excluded: &[&[&str]] = match part {
            "" => &[&["status"]],
            "status" => &[&["metadata"], &["spec"]],
            _ => &[],
        };
        let concerned = |version: &&Arc<Version>| version.has_status && !excluded.is_empty();
        let filter = || Filter::Exclude(Set::of_fields(excluded));
        let versions = custom.definition.versions.iter().filter(concerned);
        Self {
            definition: Arc::clone(&custom.definition),
            version: Arc::clone(&custom.version),
            filters: versions.map(|version| (version.api_version(), filter())).collect(),
        }
    }

    fn find(&self, api_version: &str) -> Option<&Version> {
        self.definition.versions.iter().find(|version| version.api_version() == api_version).map(Arc::as_ref)
    }
}

impl Converter for CustomVersions {
    fn shape(&self, version: &str) -> Option<Shape<'_>> {
        self.find(version).map(|version| Shape::of_type(version.ty()))
    }

    fn convert(&self, object: &Value, version: &str) -> Result<Value, String> {
        let unknown = || format!("no kind {:?} is registered for version {version:?}", self.definition.kind);
        let to = self.find(version).ok_or_else(unknown)?;
        let converted = self.definition.convert(object.clone(), to)?;
        check(Shape::of_type(to.ty()), &converted, Duplicates::Refused).map_err(|found| found.to_string())?;
        Ok(converted)
    }

    fn filter(&self, version: &str) -> Option<&Filter> {
        self.filters.get(version)
    }
}

impl Versions for CustomVersions {
    fn zero(&self) -> Value {
        json!({"apiVersion": self.version.api_version(), "kind": self.version.gvk.kind})
    }

    fn settle(&self, mut object: Value) -> Result<Value, String> {
        self.version.default(&mut object);
        Ok(object)
    }
}
