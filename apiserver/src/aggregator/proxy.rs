//! Passing requests on (upstream `handler_proxy.go`).

use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};

use super::Backend;
use super::backend::set_user;
use crate::body::{self, Body};
use crate::remote::describe;
use crate::server::Context;
use crate::server::listener::Peer;
use crate::streaming::relay;

/// How long a server may take to say what it serves.
const DISCOVERY: Duration = Duration::from_secs(5);

impl Backend {
    /// Passes a request on, and the answer back; upgraded connections are joined.
    pub async fn pass(&self, cx: &Context, request: Request<Body>) -> Response<Body> {
        if !self.available {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
        let transport = match &self.transport {
            Ok(transport) => transport.clone(),
            Err(why) => return failure(StatusCode::INTERNAL_SERVER_ERROR, why),
        };
        let request = match self.prepare(cx, request) {
            Ok(request) => request,
            Err(why) => return failure(StatusCode::INTERNAL_SERVER_ERROR, &why),
        };
        let host = format!("{}:{}", self.service.host(), self.service.port);
        let send = |request| async move { transport.send(request).await };
        let passed = relay::exchange(&host, request, send);
        let is_discovery = !cx.info.is_resource && cx.info.path.trim_matches('/').split('/').count() == 3;
        let outcome =
            if is_discovery { tokio::time::timeout(DISCOVERY, passed).await } else { Ok(passed.await) };
        match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let why = describe(error.as_ref());
                tracing::debug!(api_service = self.name, why, "could not pass a request on");
                failure(StatusCode::SERVICE_UNAVAILABLE, &why)
            }
            Err(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "context deadline exceeded"),
        }
    }

    fn prepare(&self, cx: &Context, mut request: Request<Body>) -> Result<Request<Body>, String> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let url: Uri = self.url(path).parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let forwarded_uri = HeaderValue::from_str(url.path()).map_err(|error| error.to_string())?;
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.address);
        *request.uri_mut() = url;
        let headers = request.headers_mut();
        // Who the client is acting as has been decided here.
        let impersonation: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
        for name in impersonation {
            headers.remove(name);
        }
        let host = headers.get(HOST).cloned();
        let mut forwarded = |name: &'static str, value: Option<HeaderValue>| {
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        forwarded("x-forwarded-uri", Some(forwarded_uri));
        forwarded("x-forwarded-host", host);
        forwarded("x-forwarded-proto", Some(HeaderValue::from_static("https")));
        let from = peer.and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok());
        if let Some(from) = from {
            request.headers_mut().append("x-forwarded-for", from);
        }
        set_user(request.headers_mut(), &cx.user);
        Ok(request)
    }
}

/// An error as Go's `http.Error` writes it.
fn failure(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(body::full(format!("{message}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
