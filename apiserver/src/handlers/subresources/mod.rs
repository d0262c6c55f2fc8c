//! What stands below an object in the URL. Most subresources write the object itself, seen by a strategy of their own
//! (`status`, `finalize`, `approval`, `ephemeralcontainers`, `resize`); the others have a module here.

mod binding;
mod component_status;
mod eviction;
mod scale;
mod token;

use api::status::ApiError;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{patch, read, update};
use crate::body::Body;
use crate::negotiate::Accepted;
use crate::registry::{Resource, Subresource};
use crate::server::{Context, response};

pub use binding::create as create_binding;
pub use component_status::{component_status, component_statuses};

/// Answers a request for a subresource; `verb` is one it has.
pub async fn handle(
    cx: &Context,
    resource: &Resource,
    subresource: &Subresource,
    verb: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    match (subresource.name.as_str(), verb) {
        ("scale", "get") => scale::get(cx, resource).await,
        ("scale", "update") => scale::update(cx, resource, request).await,
        ("scale", "patch") => scale::patch(cx, resource, request).await,
        ("binding", "create") => binding::create(cx, resource, request).await,
        ("eviction", "create") => eviction::create(cx, resource, request).await,
        ("token", "create") => token::create(cx, resource, request).await,
        (_, "get") => read::get(cx, resource).await,
        (_, "update") => update::update(cx, resource, request).await,
        (_, "patch") => patch::patch(cx, resource, request).await,
        _ => Err(super::method_not_allowed()),
    }
}

/// 201 with nothing to say but that it is done.
fn done(cx: &Context, accepted: Accepted) -> Result<Response<Body>, ApiError> {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    response::object(StatusCode::CREATED, Accepted { transform: None, ..accepted }, &status, &cx.headers)
}

/// An answer of a value that is no stored object.
fn value(
    cx: &Context,
    accepted: Accepted,
    status: StatusCode,
    value: &Value,
) -> Result<Response<Body>, ApiError> {
    response::object(status, Accepted { transform: None, ..accepted }, value, &cx.headers)
}
