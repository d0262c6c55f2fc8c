//! The audit log's part in the way of a request.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use api::codec::{protobuf, yaml};
use api::status::ApiError;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use metrics::counter;
use serde_json::Value;

use super::Server;
use super::listener::Peer;
use super::service::AuditId;
use crate::audit::backend::Written;
use crate::audit::{Facts, Record, Stage};
use crate::authn::User;
use crate::body::{self, Body, BoxError};
use crate::codec;
use crate::request::RequestInfo;
use crate::streaming::relay::Upgraded;

/// Begins the record of a request, and says that it has come in.
pub(super) fn begin(
    server: &Server,
    request: &Request<Body>,
    info: &RequestInfo,
    user: &User,
) -> Option<(Record, Written)> {
    let record = open(server, request, info, user)?;
    let written = record.stage(Stage::RequestReceived);
    Some((record, written))
}

/// The record of a request that may go on.
///
/// # Errors
/// When it must be written down that it has come in, but cannot be.
pub(super) async fn begun(begun: Option<(Record, Written)>) -> Result<Option<Arc<Record>>, ApiError> {
    let Some((record, written)) = begun else { return Ok(None) };
    if !written.ok().await {
        record.close();
        counter!("apiserver_audit_requests_rejected_total").increment(1);
        return Err(ApiError::internal("failed to store audit event"));
    }
    Ok(Some(Arc::new(record)))
}

fn open(server: &Server, request: &Request<Body>, info: &RequestInfo, user: &User) -> Option<Record> {
    let audit = server.audit.as_ref()?;
    let id = request.extensions().get::<AuditId>().and_then(|id| id.0.to_str().ok()).unwrap_or_default();
    let peer = request.extensions().get::<Peer>();
    audit.begin(user, info, &Facts { uri: request.uri(), headers: request.headers(), peer, audit_id: id })
}

/// Writes down a request whose sender is not known (upstream `WithFailedAuthenticationAudit`).
pub(super) fn unauthenticated(
    server: &Server,
    request: &Request<Body>,
    info: &RequestInfo,
    error: &ApiError,
) -> Written {
    let Some(record) = open(server, request, info, &User::default()) else { return Written::default() };
    record.answered(error.code(), Some(&error.status));
    let written = record.stage(Stage::ResponseStarted);
    record.close();
    written
}

/// Writes down how a request was answered, at once or when a long answer has ended.
pub(super) async fn end(
    record: &Arc<Record>,
    outcome: Result<Response<Body>, ApiError>,
    long_running: bool,
    deletes: bool,
) -> Result<Response<Body>, ApiError> {
    let mut response = match outcome {
        Ok(response) => response,
        Err(error) => {
            note_object(record, error.code(), &codec::status(&error));
            record.stage(Stage::ResponseComplete).ok().await;
            return Err(error);
        }
    };
    record.answered(response.status().as_u16(), None);
    if long_running && response.status().is_success() || response.status().is_informational() {
        record.stage(Stage::ResponseStarted).ok().await;
        let record = Arc::clone(record);
        if let Some(upgraded) = response.extensions_mut().remove::<Upgraded>() {
            tokio::spawn(async move {
                upgraded.ended().await;
                record.stage(Stage::ResponseComplete).ok().await;
            });
            return Ok(response);
        }
        return Ok(response.map(|inner| Watched { inner, record }.boxed_unsync()));
    }
    if record.wants_answers() || deletes {
        let object;
        (response, object) = read(response).await;
        if let Some(object) = object {
            note_object(record, response.status().as_u16(), &object);
        }
    }
    record.stage(Stage::ResponseComplete).ok().await;
    Ok(response)
}

fn note_object(record: &Record, code: u16, object: &Value) {
    if object["kind"] == "Status"
        && let Ok(status) = serde_json::from_value::<Status>(object.clone())
    {
        record.answered(code, Some(&status));
    }
    if record.wants_answers() {
        record.response_object(object);
    }
}

/// The answer again, and the object in it if it is one.
async fn read(response: Response<Body>) -> (Response<Body>, Option<Value>) {
    let (parts, stream) = response.into_parts();
    let Ok(collected) = stream.collect().await else {
        return (Response::from_parts(parts, body::empty()), None);
    };
    let bytes = collected.to_bytes();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let object = decode(&bytes, header(CONTENT_TYPE), header(CONTENT_ENCODING) == "gzip");
    (Response::from_parts(parts, body::full(bytes)), object)
}

fn decode(bytes: &Bytes, content_type: &str, packed: bool) -> Option<Value> {
    let mut plain = bytes.to_vec();
    if packed {
        plain.clear();
        GzDecoder::new(&bytes[..]).read_to_end(&mut plain).ok()?;
    }
    match content_type.split(';').next().unwrap_or_default() {
        "application/json" => serde_json::from_slice(&plain).ok(),
        "application/yaml" => yaml::decode(&plain).ok(),
        "application/vnd.kubernetes.protobuf" => protobuf::decode(&plain).ok(),
        _ => None,
    }
}

/// The body of a long answer; when it has been sent, or the client has gone, that is written down.
struct Watched {
    inner: Body,
    record: Arc<Record>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.record.stage(Stage::ResponseComplete));
    }
}
