//! The versions of built-in kinds.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{Versions, go_kind};
use crate::names::{GroupVersion, GroupVersionKind};
use crate::schema::{self, TypeRef};
use crate::strategy::TEMPLATE_GENERATION;
use crate::structured::{Converter, Duplicates, Filter, Shape, check};
use crate::{convert, defaults, registry};

/// A built-in kind.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    kind: GroupVersionKind,
    filter: Option<Filter>,
}

impl BuiltIn {
    /// The kind of a request; `filter` says what of the changes counts, in every version.
    #[must_use]
    pub fn new(kind: GroupVersionKind, filter: Option<Filter>) -> Self {
        Self { kind, filter }
    }

    /// The kind in another version that is served.
    fn in_version(&self, version: &str) -> Option<GroupVersionKind> {
        let version = GroupVersion::parse(version)?;
        if version == self.kind.group_version() {
            return Some(self.kind.clone());
        }
        let kind = version.with_kind(self.kind.kind.clone());
        (kind.group == self.kind.group && registry::by_kind(&kind).is_some()).then_some(kind)
    }

    fn ty(&self, version: &str) -> Option<TypeRef<'static>> {
        schema::type_for(&self.in_version(version)?)
    }

    /// An object in its normal form.
    fn normal(kind: &GroupVersionKind, object: Value) -> Result<Value, String> {
        let shown = go_kind(kind);
        let ty = schema::type_for(kind).ok_or_else(|| format!("no kind {shown} is registered"))?;
        let failed = |why: String| format!("unable to convert unstructured object to {shown}: {why}");
        if let Some(why) = ty.unconvertible(&object) {
            return Err(failed(why));
        }
        let mut value = ty.decode_value(object).map_err(|error| failed(error.to_string()))?.value;
        set_kind(&mut value, kind);
        Ok(value)
    }
}

fn set_kind(object: &mut Value, kind: &GroupVersionKind) {
    object["apiVersion"] = kind.group_version().to_string().into();
    object["kind"] = kind.kind.to_string().into();
}

impl Converter for BuiltIn {
    fn shape(&self, version: &str) -> Option<Shape<'_>> {
        self.ty(version).map(Shape::of_type)
    }

    fn convert(&self, object: &Value, version: &str) -> Result<Value, String> {
        let from = object["apiVersion"].as_str().unwrap_or_default();
        let kind = &self.kind.kind;
        let unknown = |version: &str| format!("no kind {kind:?} is registered for version {version:?}");
        let from = self.in_version(from).ok_or_else(|| unknown(from))?;
        let to = self.in_version(version).ok_or_else(|| unknown(version))?;
        let converted = convert::convert(&from, &to, Self::normal(&from, object.clone())?);
        let shape = self.shape(version).ok_or_else(|| unknown(version))?;
        check(shape, &converted, Duplicates::Refused).map_err(|found| found.to_string())?;
        Ok(converted)
    }

    fn filter(&self, _: &str) -> Option<&Filter> {
        self.filter.as_ref()
    }
}

impl Versions for BuiltIn {
    fn zero(&self) -> Value {
        let zero = schema::type_for(&self.kind).map(TypeRef::zero).unwrap_or_default();
        let mut zero = Value::Object(zero);
        set_kind(&mut zero, &self.kind);
        zero
    }

    fn converted<'v>(&self, object: &'v Value) -> Cow<'v, Value> {
        match (&*self.kind.group, &*self.kind.version, &*self.kind.kind) {
            // Its counter of templates is a field in the stored version, and zero there unless given.
            ("apps", _, "DaemonSet") if object["metadata"]["annotations"][TEMPLATE_GENERATION].is_null() => {
                let mut object = object.clone();
                if object["metadata"]["annotations"].is_null() {
                    object["metadata"]["annotations"] = json!({});
                }
                object["metadata"]["annotations"][TEMPLATE_GENERATION] = "0".into();
                Cow::Owned(object)
            }
            // The target that is meant when there is none stands only in the stored version.
            ("autoscaling", "v1", "HorizontalPodAutoscaler") => {
                let stored = GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler");
                let there = convert::convert(&self.kind, &stored, object.clone());
                Cow::Owned(convert::convert(&stored, &self.kind, there))
            }
            _ => Cow::Borrowed(object),
        }
    }

    fn settle(&self, object: Value) -> Result<Value, String> {
        let mut value = Self::normal(&self.kind, object)?;
        defaults::apply(&self.kind, &mut value);
        Ok(value)
    }
}
