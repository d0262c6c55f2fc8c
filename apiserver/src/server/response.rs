//! Answers: objects and errors in the encoding that was negotiated (upstream `handlers/responsewriters`).

use api::status::ApiError;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;
use std::io::Write;

use super::service::{RETRY, retry_after};
use crate::body::{Body, full};
use crate::codec;
use crate::negotiate::{self, Accepted, Encoding};
use crate::query::Query;

/// Bodies from this size on are compressed for clients that take it.
pub const GZIP_FROM: usize = 128 * 1024;

/// An answer of bytes.
#[must_use]
pub fn bytes(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer of bytes, compressed if that is worth it and wanted.
#[must_use]
pub fn compressed(
    status: StatusCode,
    content_type: &'static str,
    data: Bytes,
    headers: &HeaderMap,
) -> Response<Body> {
    if data.len() < GZIP_FROM || !negotiate::accepts_gzip(headers) {
        return bytes(status, content_type, data);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 4), Compression::fast());
    let packed = encoder.write_all(&data).and_then(|()| encoder.finish());
    let Ok(packed) = packed else { return bytes(status, content_type, data) };
    let mut response = bytes(status, content_type, packed);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// An answer of one object, as it is.
pub fn object(
    status: StatusCode,
    accepted: Accepted,
    value: &Value,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let data = codec::value(value, accepted)?;
    Ok(compressed(status, accepted.encoding.media_type(), data, headers))
}

/// An error as a Status object.
#[must_use]
pub fn error(error: &ApiError, headers: &HeaderMap, query: &Query) -> Response<Body> {
    let accepted = negotiate::accept_for_error(headers, query);
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status.is_server_error() {
        tracing::debug!(code = status.as_u16(), message = error.message(), "request failed");
    }
    let value = codec::status(error);
    let (data, encoding) = match codec::value(&value, accepted) {
        Ok(data) => (data, accepted.encoding),
        Err(_) => (Bytes::from(value.to_string()), Encoding::Json),
    };
    let mut response = bytes(status, encoding.media_type(), data);
    if let Some(seconds) = retry_after(error) {
        response.headers_mut().insert(RETRY, seconds);
    }
    response
}
