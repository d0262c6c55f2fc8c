//! From an authorized request to its answer: finds what is asked for and calls the handler of the verb (upstream
//! `endpoints/installer.go` and `endpoints/handlers`).

pub mod connect;
pub mod create;
pub mod delete;
pub mod discovery;
pub mod health;
pub mod list;
pub mod non_resource;
pub mod options;
pub mod patch;
pub mod read;
pub mod render;
pub mod reviews;
pub mod subresources;
pub mod update;
pub mod watch;

use std::sync::Arc;

use api::status::ApiError;
use futures::future::BoxFuture;
use http::{Method, Request, Response};

use crate::body::Body;
use crate::registry::Resource;
use crate::server::Context;
use crate::server::service::page_not_found;
use crate::streaming::Streaming;

/// Answers a request. Boxed: the states of the handlers are large, and a request is in one of them only.
pub fn handle<'a>(
    cx: &'a Context,
    request: Request<Body>,
) -> BoxFuture<'a, Result<Response<Body>, ApiError>> {
    Box::pin(dispatch(cx, request))
}

async fn dispatch(cx: &Context, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let aggregator = cx.server.security().map(|security| &security.aggregator);
    if let Some(backend) = aggregator.and_then(|aggregator| aggregator.backend(&cx.info.path)) {
        return Ok(backend.pass(cx, request).await);
    }
    if !cx.info.is_resource {
        return non_resource::handle(cx).await;
    }
    let table = cx.server.registry.table();
    let info = &cx.info;
    if info.api_prefix == "apis" && table.group(&info.group).is_none() {
        return Ok(page_not_found());
    }
    let Some(resource) = cx.server.registry.find(&info.group, &info.version, &info.resource) else {
        // What no built-in group has is looked for among the custom resources, which answer as no API at all.
        let built_in = info.api_prefix == "api" || cx.server.registry.has_built_in_group(&info.group);
        return if built_in { Err(ApiError::no_such_resource()) } else { Ok(page_not_found()) };
    };
    check_place(cx, &resource)?;
    check_names(cx)?;
    if info.subresource.is_empty() {
        whole(cx, &resource, request).await
    } else {
        part(cx, &resource, request).await
    }
}

/// What is said to everybody who uses a resource that is on its way out.
fn deprecation(resource: &Resource) -> Option<&str> {
    if let Some(custom) = &resource.custom {
        return custom.version.warning.as_deref();
    }
    match (&*resource.gvr.group, &*resource.gvr.resource) {
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// Whether such a path exists for the resource: with or without namespace, not too deep.
fn check_place(cx: &Context, resource: &Resource) -> Result<(), ApiError> {
    let info = &cx.info;
    let own_namespace = resource.gvr.group.is_empty() && resource.gvr.resource == "namespaces";
    let has_name = info.parts.len() > 1;
    if !resource.namespaced && !info.namespace.is_empty() && !own_namespace {
        return Err(ApiError::no_such_resource());
    }
    if resource.namespaced && info.namespace.is_empty() {
        // Upstream's router takes an empty namespace in its place for one.
        if info.path.contains("/namespaces//") && (has_name || cx.method == Method::POST) {
            return Err(ApiError::bad_request("Namespace parameter required."));
        }
        if has_name {
            return Err(ApiError::no_such_resource());
        }
        if !matches!(cx.method, Method::GET | Method::HEAD) {
            return Err(method_not_allowed());
        }
    }
    if info.parts.len() > 3 && info.subresource != "proxy" {
        return Err(ApiError::no_such_resource());
    }
    Ok(())
}

/// Names that could not be part of a path (upstream `NameFunc` of the request scope).
fn check_names(cx: &Context) -> Result<(), ApiError> {
    for (what, text) in [("Name", cx.info.parts.get(1)), ("Namespace", Some(&cx.info.namespace))] {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let messages = api::format::path_segment_name(text);
        if let Some(message) = messages.first() {
            return Err(ApiError::bad_request(format!("{what} parameter invalid: {text:?}: {message}")));
        }
    }
    Ok(())
}

/// The resource itself.
async fn whole(
    cx: &Context,
    resource: &Arc<Resource>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let named = cx.info.parts.len() > 1;
    let verb = match (&cx.method, named) {
        (&Method::GET | &Method::HEAD, _) if cx.info.verb == "watch" => "watch",
        (&Method::GET | &Method::HEAD, false) => "list",
        (&Method::GET | &Method::HEAD, true) => "get",
        (&Method::POST, false) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => return Err(method_not_allowed()),
    };
    // A definition that is being deleted hides some of what its resource can do, but does it.
    let unwatchable = verb == "watch" && resource.has_verb("list") && !resource.has_verb("watch");
    if !resource.has_verb(verb) && resource.custom.is_none() && !unwatchable {
        return Err(method_not_allowed());
    }
    if let Some(warning) = deprecation(resource) {
        cx.warn(warning);
    }
    if unwatchable {
        return Err(not_supported(resource, verb));
    }
    match verb {
        "get" => read::get(cx, resource).await,
        "list" => list::list(cx, resource, request).await,
        "watch" => watch::watch(cx, resource).await,
        "create" if resource.cache.is_none() => reviews::create(cx, resource, request).await,
        "create" => create::create(cx, resource, request).await,
        "update" => update::update(cx, resource, request).await,
        "patch" => patch::patch(cx, resource, request).await,
        "delete" => delete::delete(cx, resource, request).await,
        _ => delete::collection(cx, resource, request).await,
    }
}

/// A subresource.
async fn part(
    cx: &Context,
    resource: &Arc<Resource>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let Some(subresource) = resource.subresource(&cx.info.subresource) else {
        return Err(match resource.custom {
            Some(_) => ApiError::not_found(&resource.group_resource(), &cx.info.name),
            None => ApiError::no_such_resource(),
        });
    };
    let verb = match cx.method {
        Method::OPTIONS if cx.info.subresource == "proxy" => "get",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return Err(method_not_allowed()),
    };
    if !subresource.verbs.iter().any(|own| own == verb) {
        return Err(method_not_allowed());
    }
    if Streaming::concerns(&cx.info) {
        let Some(security) = cx.server.security() else {
            return Err(ApiError::unavailable("the server is still starting"));
        };
        let changed = connect::admit(cx, resource, subresource).await?;
        let query = changed.as_ref().unwrap_or(&cx.query);
        return security.streaming.serve(&cx.user, &cx.info, query, request).await;
    }
    subresources::handle(cx, resource, subresource, verb, request).await
}

/// 405 of a resource that could be asked for this, if only it could do it (upstream `NewMethodNotSupported`).
fn not_supported(resource: &Resource, verb: &str) -> ApiError {
    let message = format!("{verb} is not supported on resources of kind \"{}\"", resource.group_resource());
    let (group, plural) = (&resource.gvr.group, &resource.gvr.resource);
    ApiError::new(405, "MethodNotAllowed", message).with_details(group, plural, "")
}

/// 405.
#[must_use]
pub fn method_not_allowed() -> ApiError {
    let message = "the server does not allow this method on the requested resource";
    let mut error = ApiError::new(405, "MethodNotAllowed", message);
    error.status.details = Some(Default::default());
    error
}
