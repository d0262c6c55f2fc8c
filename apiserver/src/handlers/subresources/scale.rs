//! `scale`: the number of replicas of a workload, as an object of `autoscaling/v1` (upstream `ScaleREST`).

use api::field;
use api::managed_fields::scale::{Mappings, ScaleHandler};
use api::managed_fields::{Invalid, Managed};
use api::names::GroupVersionKind;
use api::selector::LabelSelector;
use api::status::ApiError;
use api::structured::Path;
use http::{Request, Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Map, Value, json};

use super::value;
use crate::body::Body;
use crate::cacher::ReadAt;
use crate::handlers::create::read;
use crate::handlers::patch::{self, Patch};
use crate::handlers::render::IncludeObject;
use crate::handlers::{render, update};
use crate::negotiate::Accepted;
use crate::object::{self, meta_text};
use crate::registry::Resource;
use crate::registry::managed_fields;
use crate::registry::storage::{Updated, cache_error};
use crate::registry::write::{Source, Write, match_namespace};
use crate::server::Context;

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// Reads the scale of an object.
pub async fn get(cx: &Context, resource: &Resource) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept()?;
    let name = cx.info.name.as_str();
    let cache = resource.cache.as_ref().ok_or_else(ApiError::no_such_resource)?;
    let found = resource.read(cache, ReadAt::Latest, &cx.info.namespace, name).await;
    let found = found.map_err(|error| cache_error(&error))?;
    let Some(found) = found else { return Err(ApiError::not_found(&resource.group_resource(), name)) };
    let scale = Scaling::of(resource).read(&render::served(resource, &found)?)?;
    answer(cx, accepted, scale.whole()?)
}

/// Writes the scale of an object.
pub async fn update(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let (mut scale, options) = read(cx, request, &kind(), "UpdateOptions").await?;
    match_namespace(&cx.info.namespace, true, &mut scale)?;
    update::check_name(cx, &scale)?;
    write(cx, resource, options, New::Scale(scale)).await
}

/// Patches the scale of an object.
pub async fn patch(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let versions = managed_fields::versions_of(&kind());
    let (patch, options) = patch::read(cx, request, resource, &kind(), versions).await?;
    write(cx, resource, options, New::Patch(patch)).await
}

async fn write(
    cx: &Context,
    resource: &Resource,
    options: Value,
    new: New<'_>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept()?;
    let write = Write { options, part: "", kind: kind(), ..Write::new(cx, resource) };
    let scaling = Scaling::of(resource);
    let mut source = ScaleSource { cx, new, scaling, version: resource.api_version() };
    let object = match write.update(&cx.info.name, &mut source).await? {
        Updated::Written(written) => render::served(resource, &written.object)?,
        Updated::Deleted(last, _) | Updated::Kept(last) => write.to_served(last).await?,
    };
    answer(cx, accepted, scaling.read(&object)?.whole()?)
}

/// A scale in whatever form the client wants.
fn answer(cx: &Context, accepted: Accepted, scale: Value) -> Result<Response<Body>, ApiError> {
    let include = IncludeObject::parse(cx.query.first("includeObject"))?;
    let scale = render::transformed(&(&kind()).into(), scale, accepted, include)?;
    value(cx, accepted, StatusCode::OK, &scale)
}

enum New<'a> {
    Scale(Value),
    Patch(Patch<'a>),
}

struct ScaleSource<'a> {
    cx: &'a Context,
    new: New<'a>,
    scaling: Scaling<'a>,
    /// The `apiVersion` of the workload in this request.
    version: String,
}

impl ScaleSource<'_> {
    /// The new scale, with its managers.
    async fn scale(&self, old: Value) -> Result<Value, ApiError> {
        match &self.new {
            New::Scale(scale) => {
                let mut scale = scale.clone();
                let versions = managed_fields::versions_of(&kind());
                managed_fields::record(self.cx, &versions, &kind(), "scale", &mut scale, Some(&old)).await;
                Ok(scale)
            }
            New::Patch(patch) => patch.apply(Some(&old)).await,
        }
    }
}

#[async_trait::async_trait]
impl Source for ScaleSource<'_> {
    async fn object(&mut self, old: Option<&Value>) -> Result<Value, ApiError> {
        let Some(old) = old else { return Err(ApiError::internal("a scale needs an object")) };
        let path = Path::of_fields(&self.scaling.path());
        let mappings = Mappings::from([(self.version.clone(), Some(path))]);
        let failed = |why: Invalid| ApiError::new(500, "", why.to_string());
        let managers = ScaleHandler::new(old, &self.version, &mappings).map_err(failed)?;
        let mut old_scale = self.scaling.read(old)?.value;
        managers.to_subresource().write(&mut old_scale);
        let scale = self.scale(old_scale).await?;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let path = field::Path::new("spec").child("replicas");
            let error = field::Error::invalid(&path, replicas, "must be greater than or equal to 0");
            return Err(ApiError::invalid(&kind(), &self.cx.info.name, &[error]));
        }
        let mut object = old.clone();
        self.scaling.write(&mut object, replicas)?;
        let version = Some(meta_text(&scale, "resourceVersion")).filter(|v| !v.is_empty());
        object::set_meta(&mut object, "resourceVersion", version.map(Into::into));
        if let Some(uid) = Some(meta_text(&scale, "uid")).filter(|uid| !uid.is_empty()) {
            object::set_meta(&mut object, "uid", Some(uid.into()));
        }
        managers.to_parent(Managed::of(&scale).map_err(failed)?).write(&mut object);
        Ok(object)
    }

    fn needs_object(&self) -> bool {
        true
    }

    fn records_managers(&self) -> bool {
        true
    }

    fn seen(&self, object: &Value) -> Result<Option<Value>, ApiError> {
        self.scaling.read(object).map(|scale| Some(scale.value))
    }

    fn put_back(&self, object: &mut Value, seen: &Value) -> Result<(), ApiError> {
        self.scaling.write(object, seen["spec"]["replicas"].as_i64().unwrap_or(0))
    }
}

/// A scale that was read.
struct Scale {
    value: Value,
    /// Where the replicas that are wished for should stand, and do not.
    missing: Option<String>,
}

impl Scale {
    /// The scale, if there is one.
    fn whole(self) -> Result<Value, ApiError> {
        match self.missing {
            Some(path) => Err(ApiError::internal(format!("the spec replicas field {path:?} does not exist"))),
            None => Ok(self.value),
        }
    }
}

/// Where the scale of objects stands.
#[derive(Clone, Copy)]
enum Scaling<'a> {
    /// Where all workloads have it.
    Workload,
    /// Where a definition says.
    Custom(&'a api::crd::Scale),
}

impl<'a> Scaling<'a> {
    fn of(resource: &'a Resource) -> Self {
        let custom = resource.custom.as_ref().and_then(|custom| custom.version.scale.as_ref());
        custom.map_or(Self::Workload, Self::Custom)
    }

    /// The fields that lead to the replicas that are wished for.
    fn path(&self) -> Vec<&'a str> {
        match self {
            Self::Workload => vec!["spec", "replicas"],
            Self::Custom(scale) => scale.spec_path(),
        }
    }

    fn read(&self, object: &Value) -> Result<Scale, ApiError> {
        let Self::Custom(at) = self else {
            return Ok(Scale { value: scale_of(object)?, missing: None });
        };
        let (wished, there, selector) = at.read(object).map_err(ApiError::internal)?;
        let missing = wished.is_none().then(|| at.spec_replicas.clone());
        Ok(Scale { value: make(object, wished.unwrap_or_default(), there, selector), missing })
    }

    fn write(&self, object: &mut Value, replicas: i64) -> Result<(), ApiError> {
        match self {
            Self::Workload => object["spec"]["replicas"] = replicas.into(),
            Self::Custom(scale) => scale.write(object, replicas).map_err(ApiError::internal)?,
        }
        Ok(())
    }
}

/// The scale of a workload.
fn scale_of(object: &Value) -> Result<Value, ApiError> {
    let wished = object["spec"]["replicas"].as_i64().unwrap_or(0);
    let there = object["status"]["replicas"].as_i64().unwrap_or(0);
    Ok(make(object, wished, there, selector_text(&object["spec"]["selector"])?))
}

/// The scale of an object.
fn make(object: &Value, wished: i64, there: i64, selector: String) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object::meta(object, field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let spec = if wished == 0 { json!({}) } else { json!({"replicas": wished}) };
    let mut status = json!({"replicas": there});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A selector as text: of a workload, or the plain labels of a ReplicationController.
fn selector_text(selector: &Value) -> Result<String, ApiError> {
    let is_plain = selector.as_object().is_some_and(|map| map.values().all(Value::is_string));
    if is_plain {
        let labels: std::collections::BTreeMap<String, String> =
            serde_json::from_value(selector.clone()).map_err(ApiError::internal)?;
        return Ok(LabelSelector::from_set(&labels).to_string());
    }
    if selector.is_null() {
        return Ok(String::new());
    }
    let selector: meta::LabelSelector =
        serde_json::from_value(selector.clone()).map_err(ApiError::internal)?;
    LabelSelector::from_meta(Some(&selector)).map(|s| s.to_string()).map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_selectors_become_text() {
        let plain = json!({"b": "2", "a": "1"});
        assert_eq!(selector_text(&plain).expect("text"), "a=1,b=2");
        let labels = json!({"matchLabels": {"app": "web"}});
        assert_eq!(selector_text(&labels).expect("text"), "app=web");
    }
}
