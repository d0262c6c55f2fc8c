//! The versions of a custom resource, as structured merge sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::crd::{Definition, Version};
use api::managed_fields::Versions;
use api::structured::{Converter, Duplicates, Filter, Set, Shape, check};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Custom;
use super::view::View;

/// A custom resource.
pub struct CustomVersions {
    definition: Arc<Definition>,
    version: Arc<Version>,
    /// What of the changes in a version does not count: what the strategies put back.
    filters: BTreeMap<String, Filter>,
    /// Who converts, if a webhook does.
    view: Option<Arc<View>>,
    conversions: Mutex<Conversions>,
}

/// What a webhook has made, and is to make, of objects.
#[derive(Default)]
struct Conversions {
    known: Vec<(Question, Result<Value, String>)>,
    lacking: Option<Question>,
}

/// An object, and the version it is wanted in.
type Question = (Value, String);

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
            view: custom.view.clone(),
            conversions: Mutex::default(),
        }
    }

    /// Has the webhook convert what was lacking; whether anything was.
    pub async fn supply(&self) -> bool {
        let lacking = self.conversions.lock().lacking.take();
        let (Some(question), Some(view)) = (lacking, &self.view) else { return false };
        let converted = match self.find(&question.1) {
            Some(to) => view.converter().convert(vec![question.0.clone()], to).await,
            None => Err(self.unknown(&question.1)),
        };
        let converted =
            converted.and_then(|mut objects| objects.pop().ok_or_else(|| "nothing was converted".to_owned()));
        self.conversions.lock().known.push((question, converted));
        true
    }

    fn unknown(&self, version: &str) -> String {
        format!("no kind {:?} is registered for version {version:?}", self.definition.kind)
    }

    fn in_version(&self, object: &Value, to: &Version) -> Result<Value, String> {
        let version = to.api_version();
        if self.view.is_none() || object.get("apiVersion").and_then(Value::as_str) == Some(&version) {
            return self.definition.convert(object.clone(), to);
        }
        let mut conversions = self.conversions.lock();
        let mut known = conversions.known.iter();
        if let Some((_, converted)) = known.find(|((from, to), _)| from == object && *to == version) {
            return converted.clone();
        }
        conversions.lacking.get_or_insert_with(|| (object.clone(), version));
        Err("the webhook has to be asked first".to_owned())
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
        let to = self.find(version).ok_or_else(|| self.unknown(version))?;
        let converted = self.in_version(object, to)?;
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
