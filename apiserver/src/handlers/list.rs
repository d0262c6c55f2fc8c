//! LIST: pieces of shared bytes, a header in front (upstream `endpoints/handlers/get.go` `ListResource`, and
//! `storage/continue.go` for the tokens).

use std::sync::Arc;

use api::selector::{FieldSelector, LabelSelector};
use api::status::ApiError;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use store::Revision;

use super::options::ListOptions;
use super::render::{self, IncludeObject, ListMeta, ListPiece};
use crate::body::{self, Body, Piece};
use crate::cacher::{self, CachedObject, Filter, MatchFn, Page, ReadAt};
use crate::negotiate::{self, Accepted, Transform};
use crate::registry::Resource;
use crate::registry::storage::cache_error;
use crate::server::response::GZIP_FROM;
use crate::server::{Context, response};

/// Lists objects.
pub async fn list(cx: &Context, resource: &Resource, _: Request<Body>) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_collection(resource)?;
    if let Some((Transform::PartialObjectMetadata, _)) = accepted.transform {
        let message = format!(
            "you requested PartialObjectMetadata, but the requested object is a list (*{}.{}List)",
            super::read::internal_package(&resource.stored_as.group),
            resource.gvk.kind
        );
        return Err(ApiError::new(406, "NotAcceptable", message));
    }
    if resource.cache.is_none() && resource.gvr.resource == "componentstatuses" {
        return super::subresources::component_statuses(cx).await;
    }
    let options = ListOptions::parse(cx, resource, false)?;
    let (page, meta) = page(cx, resource, &options).await?;
    answer(cx, resource, page.items, &meta, accepted)
}

/// Reads the objects wanted, with the metadata of the list.
pub async fn page(
    cx: &Context,
    resource: &Resource,
    options: &ListOptions,
) -> Result<(Page, ListMeta), ApiError> {
    let Some(cache) = &resource.cache else { return Err(super::method_not_allowed()) };
    let namespace = if resource.namespaced { cx.info.namespace.as_str() } else { "" };
    let (at, start) = read_at(options)?;
    // A list from whatever the cache has is given whole, as upstream does.
    let limit = if matches!(at, ReadAt::Any) { 0 } else { usize::try_from(options.limit).unwrap_or(0) };
    let filter = filter(resource, namespace, options);
    let read = cacher::ListOptions { at, filter, limit, start: start.clone() };
    let page = match resource.list(cache, read).await {
        Err(cacher::Error::Expired { .. }) if start.is_some() => return Err(expired(start.as_deref())),
        other => other.map_err(|error| cache_error(&error))?,
    };
    let token = page.next.as_deref().map(|next| encode_token(next, page.revision)).unwrap_or_default();
    let remaining = page.remaining.filter(|_| !token.is_empty());
    let meta = ListMeta { resource_version: page.revision.to_string(), token, remaining };
    Ok((page, meta))
}

/// The state to read, and where to begin.
fn read_at(options: &ListOptions) -> Result<(ReadAt, Option<String>), ApiError> {
    if !options.token.is_empty() {
        let token = decode_token(&options.token)?;
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let at = u64::try_from(token.rv).map_or(ReadAt::Latest, |rv| ReadAt::Exact(Revision(rv)));
        return Ok((at, Some(token.start)));
    }
    let at = match options.revision()? {
        None => ReadAt::Latest,
        Some(Revision(0)) => ReadAt::Any,
        Some(revision) if options.version_match == "Exact" => ReadAt::Exact(revision),
        // As upstream: a limit without a match means exactly this version.
        Some(revision) if options.version_match.is_empty() && options.limit > 0 => ReadAt::Exact(revision),
        Some(revision) => ReadAt::AtLeast(revision),
    };
    Ok((at, None))
}

/// What of the resource is wanted.
#[must_use]
pub fn filter(resource: &Resource, namespace: &str, options: &ListOptions) -> Filter {
    let in_namespace = if namespace.is_empty() {
        options.fields.requires_exact_match("metadata.namespace").filter(|_| resource.namespaced)
    } else {
        Some(namespace)
    };
    Filter {
        namespace: in_namespace.map(str::to_owned),
        name: options.name(),
        node_name: options
            .fields
            .requires_exact_match("spec.nodeName")
            .filter(|n| !n.is_empty())
            .map(str::to_owned),
        matches: matcher(&options.labels, &options.fields),
    }
}

fn matcher(labels: &LabelSelector, fields: &FieldSelector) -> Option<Arc<MatchFn>> {
    if labels.is_empty() && fields.is_empty() {
        return None;
    }
    let (labels, fields) = (labels.clone(), fields.clone());
    Some(Arc::new(move |object: &CachedObject| {
        labels.matches(object) && fields.matches(|name| object.field(name))
    }))
}

/// A list in whatever form the client wants.
pub fn answer(
    cx: &Context,
    resource: &Resource,
    items: Vec<Arc<CachedObject>>,
    meta: &ListMeta,
    accepted: Accepted,
) -> Result<Response<Body>, ApiError> {
    if let Some((Transform::Table, version)) = accepted.transform {
        let include = IncludeObject::parse(cx.query.first("includeObject"))?;
        let mut values =
            items.iter().map(|object| render::internal(resource, object)).collect::<Result<Vec<_>, _>>()?;
        api::printers::sort(&resource.gvk, &mut values);
        let table = render::table(&resource.into(), &values, meta.to_value(), version, include, true)?;
        return response::object(StatusCode::OK, accepted, &table, &cx.headers);
    }
    let pieces = render::list(resource, items, meta, accepted)?;
    Ok(stream(cx, accepted.encoding.media_type(), pieces))
}

/// An answer of pieces, compressed on the way if that is worth it and wanted.
fn stream(cx: &Context, content_type: &'static str, pieces: Vec<ListPiece>) -> Response<Body> {
    let size: usize = pieces.iter().map(Piece::len).sum();
    let pack = size >= GZIP_FROM && negotiate::accepts_gzip(&cx.headers);
    let body = if pack { body::gzip(pieces) } else { body::segments(pieces) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if pack {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
struct Token {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

fn encode_token(start: &str, revision: Revision) -> String {
    encode_token_at(start, i64::try_from(revision.0).unwrap_or(i64::MAX))
}

fn encode_token_at(start: &str, rv: i64) -> String {
    let token = Token { v: TOKEN_VERSION.to_owned(), rv, start: start.to_owned() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("a token is encodable"))
}

/// As Go reads base64: bits left over at the end do not matter.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

fn decode_token(text: &str) -> Result<Token, ApiError> {
    let bad = |why: String| {
        ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
    };
    let data = LENIENT.decode(text).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => text.len(),
        };
        bad(format!("illegal base64 data at input byte {at}"))
    })?;
    let token: Token =
        serde_json::from_slice(&data).map_err(|error| bad(api::codec::json::syntax_error(&data, &error)))?;
    if token.v != TOKEN_VERSION {
        return Err(bad(format!("server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(bad(format!("incorrect encoded start resourceVersion (version {TOKEN_VERSION})")));
    }
    if token.start.is_empty() {
        return Err(bad(format!("encoded start key empty (version {TOKEN_VERSION})")));
    }
    if token.start.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(bad(token.start));
    }
    Ok(token)
}

/// 410 for a token whose state is no longer kept, with one that goes on from the same place now.
fn expired(start: Option<&str>) -> ApiError {
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let token = encode_token_at(start.unwrap_or_default(), -1);
    error.status.metadata.continue_ = Some(token);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_around() {
        let token = encode_token("ns/b", Revision(7));
        assert_eq!(decode_token(&token), Ok(Token { v: TOKEN_VERSION.into(), rv: 7, start: "ns/b".into() }));
    }

    #[test]
    fn bad_tokens_are_refused_in_upstreams_words() {
        for (token, why) in [
            ("!!!", "illegal base64 data at input byte 0"),
            ("YWJj", "invalid character 'a' looking for beginning of value"),
            ("eyJ2IjoidjkiLCJydiI6NSwic3RhcnQiOiJhIn0", "server does not recognize this encoded version v9"),
            ("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NX0", "encoded start key empty (version meta.k8s.io/v1)"),
            ("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiIuLi94In0", "../x"),
        ] {
            let error = decode_token(token).expect_err("bad");
            assert_eq!(error.message(), format!("invalid continue token: continue key is not valid: {why}"));
        }
    }
}
