//! GET of one object (upstream `endpoints/handlers/get.go`).

use api::status::ApiError;
use http::{Response, StatusCode};

use super::options::parse_version;
use super::render::{self, IncludeObject};
use crate::body::Body;
use crate::cacher::{CachedObject, ReadAt};
use crate::codec;
use crate::negotiate::{Accepted, Encoding, Transform};
use crate::object;
use crate::registry::Resource;
use crate::registry::storage::cache_error;
use crate::server::{Context, response};

/// Reads one object.
pub async fn get(cx: &Context, resource: &Resource) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_for(resource)?;
    let at = match cx.query.first("resourceVersion").unwrap_or_default() {
        "" => ReadAt::Latest,
        "0" => ReadAt::Any,
        text => ReadAt::AtLeast(parse_version(text).map_err(unreadable_version)?),
    };
    if cx.query.bool("export").unwrap_or(false) {
        let message = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(ApiError::bad_request(message));
    }
    let name = cx.info.name.as_str();
    if resource.cache.is_none() && resource.gvr.resource == "componentstatuses" {
        return super::subresources::component_status(cx, name).await;
    }
    let Some(cache) = &resource.cache else { return Err(super::method_not_allowed()) };
    let namespace = if resource.namespaced { cx.info.namespace.as_str() } else { "" };
    let found = resource.read(cache, at, namespace, name).await.map_err(|error| cache_error(&error))?;
    let Some(object) = found else { return Err(ApiError::not_found(&resource.group_resource(), name)) };
    one(cx, resource, &object, accepted, StatusCode::OK)
}

/// The Go package of the internal types of a group, which some messages name.
#[must_use]
pub fn internal_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    }
}

/// As upstream, whose GET does not expect this error.
pub(super) fn unreadable_version(error: ApiError) -> ApiError {
    ApiError::new(500, "", error.message().trim_start_matches("invalid resource version: "))
}

/// An answer of one object in whatever form the client wants.
pub fn one(
    cx: &Context,
    resource: &Resource,
    object: &CachedObject,
    accepted: Accepted,
    status: StatusCode,
) -> Result<Response<Body>, ApiError> {
    if let Some((Transform::PartialObjectMetadataList, _)) = accepted.transform {
        let message = format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list (*{}.{})",
            internal_package(&resource.stored_as.group),
            resource.gvk.kind
        );
        return Err(ApiError::new(406, "NotAcceptable", message));
    }
    if object.revision == store::Revision(0) {
        // A dry run of a create: there is no version.
        let mut value = render::served(resource, object)?;
        object::set_meta(&mut value, "resourceVersion", None);
        return response::object(status, Accepted { transform: None, ..accepted }, &value, &cx.headers);
    }
    let bytes = match accepted.transform {
        Some((Transform::Table, version)) => {
            let include = IncludeObject::parse(cx.query.first("includeObject"))?;
            let value = render::internal(resource, object)?;
            let meta = render::table_meta(&value);
            let table = render::table(&resource.into(), &[value], meta, version, include, true)?;
            codec::value(&table, accepted)?
        }
        _ => render::whole(resource, object, accepted)?,
    };
    // What is kept is one of many in lists; alone it ends a line, as upstream's encoder writes it.
    let ends_line = accepted.encoding != Encoding::Json || accepted.pretty || bytes.ends_with(b"\n");
    let bytes = if ends_line { bytes } else { [&bytes[..], b"\n"].concat().into() };
    Ok(response::compressed(status, accepted.encoding.media_type(), bytes, &cx.headers))
}
