//! POST of a new object (upstream `endpoints/handlers/create.go`).

use api::names::GroupVersionKind;
use api::status::ApiError;
use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::options::write_options;
use super::read::one;
use crate::body::{self, Body};
use crate::codec;
use crate::negotiate;
use crate::registry::Resource;
use crate::registry::write::Write;
use crate::server::Context;

/// Makes an object.
pub async fn create(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_for(resource)?;
    let (object, options) = read_object(cx, request, resource, "CreateOptions").await?;
    let write = Write { options, ..Write::new(cx, resource) };
    let written = write.create(object).await?;
    one(cx, resource, &written.object, accepted, StatusCode::CREATED)
}

/// Reads a body as an object of a resource, with the options of the request.
pub async fn read_object(
    cx: &Context,
    request: Request<Body>,
    resource: &Resource,
    options: &'static str,
) -> Result<(Value, Value), ApiError> {
    let encoding = negotiate::content_encoding(&cx.headers)?;
    let bytes = body::read(request.into_body()).await?;
    let (validation, options) = write_options(cx, options)?;
    let decoded = codec::decode_for(resource, &bytes, encoding)?;
    codec::enforce(cx, validation, &resource.gvk, &decoded.strict_errors)?;
    cx.record_body(&decoded.value);
    cx.keep_texts(decoded.verbatim);
    Ok((decoded.value, options))
}

/// Reads a body as an object of a kind, with the options of the request.
pub async fn read(
    cx: &Context,
    request: Request<Body>,
    gvk: &GroupVersionKind,
    options: &'static str,
) -> Result<(Value, Value), ApiError> {
    read_one_of(cx, request, std::slice::from_ref(gvk), options).await
}

/// As [`read`], of any of several kinds.
pub async fn read_one_of(
    cx: &Context,
    request: Request<Body>,
    kinds: &[GroupVersionKind],
    options: &'static str,
) -> Result<(Value, Value), ApiError> {
    let encoding = negotiate::content_encoding(&cx.headers)?;
    let bytes = body::read(request.into_body()).await?;
    let (validation, options) = write_options(cx, options)?;
    let decoded = codec::decode_one_of(&bytes, encoding, kinds)?;
    if let Some(gvk) = kinds.first() {
        codec::enforce(cx, validation, gvk, &decoded.strict_errors)?;
    }
    cx.record_body(&decoded.value);
    Ok((decoded.value, options))
}
