//! From a path to what answers it.

use std::sync::Arc;

use client::serving::for_method;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use tracing::debug;

use super::auth::Refusal;
use super::query::{Query, decode};
use super::respond::{Body, full, text};
use super::target::Target;
use super::{Server, checkpoint, inspect, log_handler, metrics, streaming};

/// Answers a request, if its sender may ask it.
pub async fn handle(
    server: &Arc<Server>,
    certificate: Option<&CertificateDer<'_>>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match server.auth.check(certificate, request.headers(), &method, &path).await {
        Ok(_) => route(server, request).await,
        Err(Refusal::Unauthenticated) => text(StatusCode::UNAUTHORIZED, "Unauthorized"),
        Err(Refusal::Forbidden(message)) => text(StatusCode::FORBIDDEN, message),
        Err(Refusal::Failed(message)) => text(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    debug!(%method, path, status = response.status().as_u16(), "request");
    for_method(&method, response, full(""))
}

async fn route(server: &Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parts: Vec<String> = path.trim_matches('/').split('/').map(|part| decode(part, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let get = request.method() == Method::GET;
    match parts.as_slice() {
        ["containerLogs", namespace, pod, container] if get => {
            log_handler::logs(server, namespace, pod, container, &query).await
        }
        ["exec", rest @ ..] => match Target::of_container(rest) {
            Some(target) => streaming::exec(server, target, &query, request).await,
            None => not_found(),
        },
        ["attach", rest @ ..] => match Target::of_container(rest) {
            Some(target) => streaming::attach(server, target, &query, request).await,
            None => not_found(),
        },
        ["portForward", rest @ ..] => match Target::of_pod(rest) {
            Some(target) => streaming::port_forward(server, target, &query, request).await,
            None => not_found(),
        },
        ["run", rest @ ..] if request.method() == Method::POST => match Target::of_container(rest) {
            Some(target) => streaming::run(server, target, &query).await,
            None => not_found(),
        },
        ["checkpoint", rest @ ..] if request.method() == Method::POST => match Target::of_container(rest) {
            Some(target) => checkpoint::checkpoint(server, target, &query).await,
            None => not_found(),
        },
        ["healthz" | "livez" | "readyz", ..] => health(server, &path),
        ["pods"] if get => inspect::pods(server),
        ["runningpods"] if get => inspect::running_pods(server).await,
        ["configz"] if get => inspect::configz(server),
        ["stats", "summary"] if get => metrics::summary(server).await,
        ["metrics"] if get => metrics::own(server).await,
        ["metrics", "resource"] if get => metrics::resource(server).await,
        ["metrics", "cadvisor"] if get => metrics::cadvisor(server).await,
        ["metrics", "probes"] if get => metrics::probes(),
        ["logs", rest @ ..] if get => inspect::node_logs(rest).await,
        _ => not_found(),
    }
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Health, for which nobody is asked who they are on the loopback port.
pub fn health(server: &Server, path: &str) -> Response<Body> {
    match path {
        "/healthz/ping" | "/livez" => text(StatusCode::OK, "ok"),
        "/healthz" | "/healthz/syncloop" | "/healthz/log" | "/readyz" => match (server.deps.health)() {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(why) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("[-]syncloop failed: {why}\nhealthz check failed\n"),
            ),
        },
        _ => not_found(),
    }
}
