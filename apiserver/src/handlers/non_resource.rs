//! Paths that are no resources: discovery, health, version, metrics, OpenAPI, the keys of service account tokens.

use api::status::ApiError;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::health::{self, Probe};
use super::{discovery, method_not_allowed};
use crate::authn::discovery::{CONFIGURATION_PATH, KEYS_PATH, MAX_AGE};
use crate::body::Body;
use crate::metrics;
use crate::server::protected::Protection;
use crate::server::service::page_not_found;
use crate::server::{Context, response};

/// The version of Kubernetes that is served.
pub const VERSION: (&str, &str) = ("1", "36");

/// Answers a request that is for no resource.
pub async fn handle(cx: &Context) -> Result<Response<Body>, ApiError> {
    let path = cx.info.path.as_str();
    if !matches!(cx.method, Method::GET | Method::HEAD) {
        let known = path.starts_with("/api") || path.starts_with("/version");
        return if known { Err(method_not_allowed()) } else { Ok(page_not_found()) };
    }
    if let Some((probe, check)) = Probe::of(path) {
        return Ok(health::serve(cx, probe, check).await);
    }
    if let Some(answer) = discovery::serve(cx, path)? {
        return Ok(answer);
    }
    if let Some(answer) = crate::openapi::serve(cx, path).await? {
        return Ok(answer);
    }
    match path.trim_end_matches('/') {
        "" => Ok(json_answer(&index(cx))),
        "/version" => Ok(json_answer(&version())),
        "/metrics" => Ok(metrics_answer(cx)),
        CONFIGURATION_PATH => Ok(document(cx, "application/json", |d| d.configuration.clone())),
        KEYS_PATH => Ok(document(cx, "application/jwk-set+json", |d| d.keys.clone())),
        path => Ok(flow_control(cx, path).unwrap_or_else(page_not_found)),
    }
}

fn json_answer(value: &Value) -> Response<Body> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    response::bytes(StatusCode::OK, "application/json", text)
}

fn metrics_answer(cx: &Context) -> Response<Body> {
    let mut text = client::observability::metrics_handle().render() + &metrics::process();
    if let Protection::Fair(control) = &cx.server.protection {
        text += &control.render_metrics();
    }
    response::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn flow_control(cx: &Context, path: &str) -> Option<Response<Body>> {
    let Protection::Fair(control) = &cx.server.protection else { return None };
    let details = cx.query.first("includeRequestDetails").is_some_and(|text| !text.is_empty());
    let text = control.dump(path, details)?;
    Some(response::bytes(StatusCode::OK, "text/plain; charset=utf-8", text))
}

fn document(
    cx: &Context,
    content_type: &'static str,
    pick: impl Fn(&crate::authn::discovery::Documents) -> String,
) -> Response<Body> {
    let Some(documents) = cx.server.security().and_then(|security| security.documents.as_ref()) else {
        return page_not_found();
    };
    let mut answer = response::bytes(StatusCode::OK, content_type, pick(documents));
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={MAX_AGE}")) {
        answer.headers_mut().insert(CACHE_CONTROL, value);
    }
    answer
}

/// What `/version` says.
#[must_use]
pub fn version() -> Value {
    let (major, minor) = VERSION;
    json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": "35",
        "gitVersion": format!("v{major}.{minor}.2+coxswain-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}

/// What `/` says: the paths there are.
fn index(cx: &Context) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for group in cx.server.registry.table().groups.iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
    }
    for path in [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths.sort();
    json!({"paths": paths})
}
