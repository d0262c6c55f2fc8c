//! The HTTP endpoints every component has: `/healthz`, `/livez`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::observability;

/// At most this many connections at a time.
const CONNECTIONS: usize = 64;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Named checks that decide whether a component is healthy.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<Vec<(&'static str, Check)>>,
}

impl Health {
    /// A component that is healthy while it runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check. Before the health is shared.
    #[must_use]
    pub fn with(
        self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let mut checks = Arc::into_inner(self.checks).unwrap_or_default();
        checks.push((name, Box::new(check)));
        Self { checks: Arc::new(checks) }
    }

    /// What to answer: 200 and `ok`, or 500 and the checks with their outcome.
    fn answer(&self, verbose: bool) -> (StatusCode, String) {
        let mut failed = false;
        let mut lines = String::from("[+]ping ok\n");
        for (name, check) in self.checks.iter() {
            match check() {
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => {
                    failed = true;
                    lines.push_str(&format!("[-]{name} failed: {reason}\n"));
                }
            }
        }
        match (failed, verbose) {
            (true, _) => (StatusCode::INTERNAL_SERVER_ERROR, lines + "healthz check failed\n"),
            (false, true) => (StatusCode::OK, lines + "healthz check passed\n"),
            (false, false) => (StatusCode::OK, "ok".to_owned()),
        }
    }
}

/// Serves the endpoints over plain HTTP until `token` is cancelled.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, health: Health, token: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    serve_with(listener, move |request| answer(&health, request), token).await
}

/// Answers requests of plain HTTP until `token` is cancelled. Answers are made on the spot.
///
/// # Errors
/// None that is known.
pub async fn serve_with<F>(listener: TcpListener, respond: F, token: CancellationToken) -> anyhow::Result<()>
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let respond = Arc::new(respond);
    let (tracker, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let slot = tokio::select! {
            () = token.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot.context("semaphore closed")?,
        };
        let stream = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        let (respond, token) = (respond.clone(), token.clone());
        tracker.spawn(async move {
            let service = service_fn(move |request| {
                let answer = respond(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! { _ = connection => {} () = token.cancelled() => {} }
            drop(slot);
        });
    }
    tracker.close();
    tracker.wait().await;
    Ok(())
}

fn answer(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let verbose = request.uri().query().is_some_and(|q| q.split('&').any(|p| p.starts_with("verbose")));
    let (status, body) = match request.uri().path() {
        "/healthz" | "/livez" | "/readyz" => health.answer(verbose),
        "/metrics" => (StatusCode::OK, observability::metrics_handle().render()),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_check_is_named() {
        let health = Health::new().with("cache", || Ok(())).with("lease", || Err("lost".to_owned()));
        let (status, body) = health.answer(false);
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("[+]cache ok\n[-]lease failed: lost\n"), "{body}");
        assert_eq!(Health::new().answer(false), (StatusCode::OK, "ok".to_owned()));
    }
}
