//! The way of a request through the server: panic guard, time limit, request info, authentication, audit,
//! impersonation, authorization, handler; then the headers every answer carries (upstream `DefaultBuildHandlerChain`).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::status::ApiError;
use client::serving::for_method;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::audited;
use super::context::Context;
use super::counted;
use super::listener::Peer;
use super::protected::Classified;
use super::websocket::Socket;
use super::{Server, response};
use crate::audit::Record;
use crate::authn::{Credentials, User};
use crate::authz::{self, Authorizer};
use crate::body::Body;
use crate::flowcontrol;
use crate::handlers;
use crate::query::{Query, parse_duration, percent_decode};
use crate::request::RequestInfo;

/// An identity that needs no proof: the request was made inside the process. An extension of the request.
#[derive(Clone, Debug)]
pub struct Insider(pub Arc<User>);

/// The id that the answer and the audit log share. An extension of the request.
#[derive(Clone, Debug)]
pub(super) struct AuditId(pub HeaderValue);

type Answer = Result<Response<Body>, ApiError>;

static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Answers a request. Never fails: whatever goes wrong becomes an answer.
pub async fn serve(server: Arc<Server>, mut request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = percent_decode(request.uri().path(), false);
    let audit_id = audit_id(request.headers());
    if server.audit.is_some() {
        request.extensions_mut().insert(AuditId(audit_id.clone()));
    }
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let asked = method.clone();
    let info = match RequestInfo::parse(&method, &path, &query) {
        Ok(info) => info,
        Err(error) => {
            let error = ApiError::internal(format!("failed to create RequestInfo: {error}"));
            let refusal = response::error(&error, &headers, &query);
            return for_method(&asked, refusal, crate::body::empty());
        }
    };
    let record = server.metrics.begin(&info, &method);
    // Boxed: the handlers' states are large, and most of them are not in use.
    let classified = Classified::new();
    let work: BoxFuture<'_, Answer> =
        Box::pin(limited(server, request, info, query.clone(), method, &classified));
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => response::error(&error, &headers, &query),
        Err(_) => {
            tracing::error!(path, "a handler panicked");
            let error =
                ApiError::internal("This request caused apiserver to panic. Look in the logs for details.");
            response::error(&error, &headers, &query)
        }
    };
    let own = response.headers_mut();
    own.insert(AUDIT_ID.clone(), audit_id);
    if let Some(flow) = classified.get() {
        flowcontrol::mark(own, flow);
    }
    own.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    record.end(response.status(), started.elapsed());
    for_method(&asked, response, crate::body::empty())
}

fn audit_id(headers: &HeaderMap) -> HeaderValue {
    headers.get(&AUDIT_ID).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a uuid is a header value")
    })
}

/// Applies the time limit, which long-running requests do not have.
async fn limited(
    server: Arc<Server>,
    request: Request<Body>,
    info: RequestInfo,
    query: Query,
    method: Method,
    classified: &Classified,
) -> Result<Response<Body>, ApiError> {
    let long_running = info.is_long_running();
    let limit = if long_running { server.config.request_timeout } else { time_limit(&server, &query)? };
    let terms = Terms { long_running, limit, classified };
    let work = filtered(server, request, info, query, method, terms);
    if long_running {
        return work.await;
    }
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let message = "request did not complete within requested timeout - context deadline exceeded";
            let mut error = ApiError::timeout(message, 0);
            if let Some(details) = &mut error.status.details {
                details.retry_after_seconds = None;
            }
            Err(error)
        }
    }
}

fn time_limit(server: &Server, query: &Query) -> Result<Duration, ApiError> {
    let most = server.config.request_timeout;
    let Some(text) = query.first("timeout").filter(|text| !text.is_empty()) else { return Ok(most) };
    let asked = parse_duration(text).map_err(|why| {
        ApiError::bad_request(format!("invalid timeout specified in the request URL - {why}"))
    })?;
    Ok(if asked.is_zero() { most } else { asked.min(most) })
}

async fn filtered(
    server: Arc<Server>,
    mut request: Request<Body>,
    info: RequestInfo,
    query: Query,
    method: Method,
    terms: Terms<'_>,
) -> Result<Response<Body>, ApiError> {
    let requestor = match authenticate(&server, &mut request).await {
        Ok(requestor) => requestor,
        Err(error) => {
            let written = audited::unauthenticated(&server, &request, &info, &error);
            written.ok().await;
            return Err(error);
        }
    };
    let record = audited::begin(&server, &request, &info, &requestor);
    let record = audited::begun(record).await?;
    let deletes = info.verb.starts_with("delete");
    let long_running = terms.long_running;
    let passage = Passage { server, info: Arc::new(info), query, method, terms, record: record.clone() };
    let outcome = passage.admit(request, requestor).await;
    match record {
        Some(record) => audited::end(&record, outcome, long_running, deletes).await,
        None => outcome,
    }
}

/// On what terms a request is served.
#[derive(Clone, Copy)]
struct Terms<'a> {
    long_running: bool,
    /// How long it may take; of a long-running one, how long it may take to begin.
    limit: Duration,
    /// Where its classification is noted.
    classified: &'a Classified,
}

/// A request whose sender is known.
struct Passage<'a> {
    server: Arc<Server>,
    info: Arc<RequestInfo>,
    query: Query,
    method: Method,
    terms: Terms<'a>,
    record: Option<Arc<Record>>,
}

impl Passage<'_> {
    /// Lets the request through to its handler if it may pass.
    async fn admit(self, mut request: Request<Body>, requestor: Arc<User>) -> Answer {
        let Self { server, info, query, method, terms, record } = self;
        let security = server.security();
        let user = match security {
            Some(security) => {
                let authorizer = security.authorizer.as_ref();
                match security.impersonation.apply(request.headers(), &requestor, &info, authorizer).await? {
                    Some(user) => Arc::new(user),
                    None => requestor,
                }
            }
            None => requestor,
        };
        if let Some(record) = record.as_ref().filter(|_| request.headers().contains_key("impersonate-user")) {
            record.impersonated(&user);
        }
        let asked = flowcontrol::Request { user: &user, info: &info, query: &query };
        let held = match server.protection.enter(asked, terms.limit, terms.classified).await {
            Ok(held) => held,
            Err(refusal) => return Ok(refusal),
        };
        let begin = Instant::now();
        let decision = match security {
            Some(security) => security.authorizer.decide(&user, &info).get().await,
            None => authz::Superusers.authorize(&user, &info),
        };
        counted::authorized(&decision, begin.elapsed());
        if let Some(record) = &record {
            record.decided(&decision);
        }
        authz::permit(decision, &user, &info)?;
        let socket = Socket::wanted(&mut request, &info);
        let headers = request.headers().clone();
        let mut context = Context::new(Arc::clone(&server), info, user, method, query, headers);
        context.record = record;
        let outcome = handlers::handle(&context, request).await;
        if let Some(record) = &context.record {
            record.annotate(context.annotations());
        }
        let mut response = match outcome {
            Ok(response) => response,
            Err(error) => {
                if let Some(record) = &context.record {
                    record.refused(&error.status);
                }
                response::error(&error, &context.headers, &context.query)
            }
        };
        if let Some(socket) = socket {
            response = socket.carry(response, context.server.token.clone());
        }
        add_warnings(response.headers_mut(), &context.take_warnings());
        Ok(held.answer(response, context.info.verb == "watch"))
    }
}

async fn authenticate(server: &Server, request: &mut Request<Body>) -> Result<Arc<User>, ApiError> {
    if let Some(Insider(user)) = request.extensions_mut().remove::<Insider>() {
        return Ok(user);
    }
    let Some(security) = server.security() else {
        return Err(ApiError::unavailable("the server is still starting"));
    };
    let peer = request.extensions().get::<Peer>();
    let (chain, trusted) = peer.map(|peer| (Arc::clone(&peer.chain), peer.trusted)).unwrap_or_default();
    let proxied = server.config.authentication.request_header.client_ca_file.is_some();
    let credentials = Credentials::of(chain, trusted, request.uri(), request.headers(), proxied);
    let begin = Instant::now();
    let outcome = security.authenticator.authenticate(&credentials).await;
    let user = outcome.and_then(|user| user.ok_or_else(ApiError::unauthorized));
    counted::authenticated(user.as_ref().ok().map(|user| user.name.as_str()), begin.elapsed());
    user.map(Arc::new)
}

/// So many characters of warnings are sent ...
const WARNINGS: usize = 4 * 1024;
/// ... and if there are more, so many of each.
const WARNING: usize = 256;

/// As upstream: `299 - "text"`; when all are too long together, each is cut, and what comes late is left out.
fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    let length = |text: &str| text.chars().count();
    let cut = warnings.iter().map(|text| length(text)).sum::<usize>() > WARNINGS;
    let mut written = 0;
    for warning in warnings.iter().filter(|text| !text.is_empty()) {
        let shown: String = if cut { warning.chars().take(WARNING).collect() } else { warning.clone() };
        if written >= WARNINGS {
            break;
        }
        written += length(&shown);
        let escaped: String = shown
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            headers.append(http::header::WARNING, value);
        }
    }
}

/// The `Retry-After` header of an error that says when to come back.
pub(super) fn retry_after(error: &ApiError) -> Option<HeaderValue> {
    let seconds = error.status.details.as_ref()?.retry_after_seconds.filter(|seconds| *seconds > 0)?;
    HeaderValue::from_str(&seconds.to_string()).ok()
}

/// The plain 404 of paths that belong to no API.
#[must_use]
pub fn page_not_found() -> Response<Body> {
    let mut response = Response::new(crate::body::full("404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

pub(super) const RETRY: HeaderName = RETRY_AFTER;

#[cfg(test)]
mod tests {
    use super::*;

    // After upstream's TestRecorder_AddWarning.
    #[test]
    fn warnings_are_cut_when_they_are_too_long_together() {
        let sent = |warnings: &[String]| -> Vec<usize> {
            let mut headers = HeaderMap::new();
            add_warnings(&mut headers, warnings);
            let values = headers.get_all(http::header::WARNING).iter();
            values.map(|value| value.len() - "299 - \"\"".len()).collect()
        };
        assert_eq!(sent(&["a".repeat(4096)]), [4096]);
        assert_eq!(sent(&["a".repeat(4097)]), [256]);
        assert_eq!(sent(&["a".repeat(4000), "b".repeat(100)]), [256, 100]);
        assert_eq!(sent(&vec!["c".repeat(300); 20]), vec![256; 16]);
        assert_eq!(sent(&[String::new(), "say \"x\"".to_owned()]), [9]);
    }
}
