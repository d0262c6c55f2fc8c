//! The HTTP side of published documents (upstream `kube-openapi/pkg/handler` and `handler3`): encodings, conditions,
//! and the addresses with a hash that never change.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::status::ApiError;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, LOCATION, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Map, Value, json};

use super::publisher::{Format, Packed, Subject};
use crate::aggregator::Backend;
use crate::body::{self, Body};
use crate::negotiate;
use crate::server::Context;

/// How long an address with a hash may be remembered.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The media types of one edition: asked for, answered, encoding; the first is for those who take anything.
type Media = [(&'static str, &'static str, Format)];

const V2: &Media = &[
    ("json", "application/json", Format::Json),
    (
        "com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        Format::Protobuf,
    ),
    (
        "com.github.proto-openapi.spec.v2.v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        Format::Protobuf,
    ),
];
const V3: &Media = &[
    ("json", "application/json", Format::Json),
    (
        "com.github.proto-openapi.spec.v3.v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        Format::Protobuf,
    ),
    (
        "com.github.proto-openapi.spec.v3@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
        Format::Protobuf,
    ),
];

/// Answers an OpenAPI path; `None` if it is none.
pub async fn serve(cx: &Context, path: &str) -> Result<Option<Response<Body>>, ApiError> {
    match path {
        "/openapi/v2" => document(cx, Subject::Everything, V2).await.map(Some),
        "/openapi/v3" => index(cx).await.map(Some),
        path => match path.strip_prefix("/openapi/v3/") {
            Some(part) => match backend(cx, part) {
                Some(backend) => Ok(Some(backend.document(&cx.headers).await)),
                None => document(cx, Subject::Part(part.to_owned()), V3).await.map(Some),
            },
            None => Ok(None),
        },
    }
}

/// The other server that has a document.
fn backend(cx: &Context, part: &str) -> Option<Arc<Backend>> {
    cx.server.security()?.aggregator.document_backend(part)
}

fn failed(error: &super::publisher::Error) -> ApiError {
    ApiError::internal(error.to_string())
}

/// Which encoding is answered; `None` if none is acceptable.
fn choose(headers: &HeaderMap, media: &'static Media) -> Option<(&'static str, Format)> {
    let wanted = negotiate::accept_header(headers);
    let wanted = if wanted.trim().is_empty() { "*/*" } else { wanted.as_str() };
    negotiate::media_ranges(wanted).into_iter().find_map(|(main, sub)| {
        let fits = |known: &str| (main == "application" || main == "*") && (sub == known || sub == "*");
        media.iter().find(|(known, ..)| fits(known)).map(|(_, answered, format)| (*answered, *format))
    })
}

fn status_only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

async fn document(cx: &Context, subject: Subject, media: &'static Media) -> Result<Response<Body>, ApiError> {
    let publisher = &cx.server.openapi;
    let Some((content_type, format)) = choose(&cx.headers, media) else {
        let mut response = status_only(StatusCode::NOT_ACCEPTABLE);
        vary(&mut response);
        return Ok(response);
    };
    let found = publisher.document(subject.clone(), format).await.map_err(|error| failed(&error))?;
    let Some(packed) = found else { return Ok(status_only(StatusCode::NOT_FOUND)) };
    let hash = cx.query.first("hash").filter(|hash| !hash.is_empty());
    let mut response = match (&subject, hash) {
        (Subject::Part(part), Some(hash)) if hash != &*packed.etag => redirect(&address(part, &packed.etag)),
        _ => content(cx, &packed, content_type),
    };
    if response.status() != StatusCode::MOVED_PERMANENTLY
        && matches!((&subject, hash), (Subject::Part(_), Some(_)))
    {
        insert(&mut response, CACHE_CONTROL, "public, immutable");
        insert(&mut response, EXPIRES, &expiry(SystemTime::now() + YEAR));
    }
    insert(&mut response, ETAG, &format!("\"{}\"", packed.etag));
    vary(&mut response);
    Ok(response)
}

/// The parts of version 3 and where they are.
async fn index(cx: &Context) -> Result<Response<Body>, ApiError> {
    let parts = cx.server.openapi.parts().await.map_err(|error| failed(&error))?;
    let paths: Map<String, Value> = parts
        .into_iter()
        .map(|(part, etag)| (part.clone(), json!({"serverRelativeURL": address(&part, &etag)})))
        .collect();
    let text = json!({"paths": paths}).to_string();
    // As upstream's aggregator, which leaves the type to Go's guess.
    let mut response = Response::new(body::full(text));
    insert(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    insert(&mut response, LAST_MODIFIED, &http_date(SystemTime::now()));
    Ok(response)
}

/// The address of a part in one state.
fn address(part: &str, etag: &str) -> String {
    format!("/openapi/v3/{part}?hash={etag}")
}

fn redirect(address: &str) -> Response<Body> {
    let mut response = Response::new(body::full(format!("<a href=\"{address}\">Moved Permanently</a>.\n\n")));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    insert(&mut response, LOCATION, address);
    insert(&mut response, CONTENT_TYPE, "text/html; charset=utf-8");
    response
}

fn insert(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn vary(response: &mut Response<Body>) {
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
}

/// The document, or 304 to those who have it.
fn content(cx: &Context, packed: &Packed, content_type: &'static str) -> Response<Body> {
    if !has_changed(&cx.headers, packed) {
        return status_only(StatusCode::NOT_MODIFIED);
    }
    let gzip = negotiate::accepts_gzip(&cx.headers);
    let body =
        if gzip { body::full(packed.gzip.clone()) } else { body::gunzip(packed.gzip.clone(), packed.length) };
    let mut response = Response::new(body);
    if gzip {
        insert(&mut response, CONTENT_ENCODING, "gzip");
    }
    insert(&mut response, CONTENT_TYPE, content_type);
    insert(&mut response, LAST_MODIFIED, &http_date(packed.modified));
    response
}

/// Whether the client has another state than this, by what it says (Go's `http.ServeContent`).
fn has_changed(headers: &HeaderMap, packed: &Packed) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(known) = text(IF_NONE_MATCH) {
        let same = |tag: &str| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == &*packed.etag
        };
        return !known.split(',').any(same);
    }
    let since = text(IF_MODIFIED_SINCE).and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
    let modified = Timestamp::try_from(packed.modified);
    match (since, modified) {
        (Some(since), Ok(modified)) => modified.as_second() > since.timestamp().as_second(),
        _ => true,
    }
}

/// A time as HTTP writes it.
fn http_date(time: SystemTime) -> String {
    let text = Timestamp::try_from(time)
        .ok()
        .and_then(|time| DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok());
    text.unwrap_or_default()
}

/// As upstream: the same with the name of the zone instead.
fn expiry(time: SystemTime) -> String {
    http_date(time).replace("GMT", "UTC")
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn encodings_are_chosen_as_upstream_does() {
        let json = Some(("application/json", Format::Json));
        let protobuf = Some(("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", Format::Protobuf));
        for (accept, expected) in [
            ("", json),
            ("*/*", json),
            ("application/*", json),
            ("application/json", json),
            ("application/json;q=0.5, application/com.github.proto-openapi.spec.v2.v1.0+protobuf", protobuf),
            ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", protobuf),
            ("application/vnd.kubernetes.protobuf, */*", json),
            ("text/plain", None),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, HeaderValue::from_str(accept).expect("a header"));
            }
            assert_eq!(choose(&headers, V2), expected, "{accept}");
        }
    }

    #[test]
    fn dates_are_those_of_http() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(expiry(time), "Sun, 06 Nov 1994 08:49:37 UTC");
    }
}
