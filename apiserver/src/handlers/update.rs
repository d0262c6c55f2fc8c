//! PUT of an object (upstream `endpoints/handlers/update.go`).

use api::status::ApiError;
use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::create::read_object;
use super::read::one;
use super::render::{IncludeObject, transformed};
use crate::body::Body;
use crate::negotiate::Accepted;
use crate::object::meta_text;
use crate::registry::Resource;
use crate::registry::storage::Updated;
use crate::registry::write::{Source, Write, match_namespace};
use crate::server::{Context, response};

/// Replaces an object, or the part of it that a subresource stands for.
pub async fn update(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_for(resource)?;
    let (mut object, options) = read_object(cx, request, resource, "UpdateOptions").await?;
    let namespace = if resource.namespaced { cx.info.namespace.as_str() } else { "" };
    match_namespace(namespace, resource.namespaced, &mut object)?;
    check_name(cx, &object)?;
    let write = Write { options, ..Write::new(cx, resource) };
    let updated = write.update(&cx.info.name, &mut Body1(object)).await?;
    answer(cx, resource, updated, accepted).await
}

/// The body of an update as the new state.
struct Body1(Value);

#[async_trait::async_trait]
impl Source for Body1 {
    async fn object(&mut self, _: Option<&Value>) -> Result<Value, ApiError> {
        Ok(self.0.clone())
    }
}

/// The name in the body is the one in the URL (upstream `checkName`).
pub fn check_name(cx: &Context, object: &Value) -> Result<(), ApiError> {
    let (name, namespace) = (cx.info.name.as_str(), cx.info.namespace.as_str());
    let (own, own_namespace) = (meta_text(object, "name"), meta_text(object, "namespace"));
    if own.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if own != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    if cx.info.resource != "namespaces"
        && !namespace.is_empty()
        && !own_namespace.is_empty()
        && own_namespace != namespace
    {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({own_namespace}) does not match the namespace on the request ({namespace})"
        )));
    }
    Ok(())
}

/// The answer to an update or a patch.
pub async fn answer(
    cx: &Context,
    resource: &Resource,
    updated: Updated,
    accepted: Accepted,
) -> Result<Response<Body>, ApiError> {
    match updated {
        Updated::Written(written) => {
            let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
            one(cx, resource, &written.object, accepted, status)
        }
        Updated::Deleted(value, _) | Updated::Kept(value) => {
            let value = resource.to_internal(value).await?;
            let include = IncludeObject::parse(cx.query.first("includeObject"))?;
            let value = transformed(&resource.into(), value, accepted, include)?;
            response::object(StatusCode::OK, accepted, &value, &cx.headers)
        }
    }
}
