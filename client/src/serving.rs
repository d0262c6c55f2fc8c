//! The HTTP endpoints every component has: `/healthz`, `/livez`, `/readyz`, each check below them, `/metrics` and
//! `/metrics/slis`.

mod health;
mod slis;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::observability;

pub use health::Health;

/// At most this many connections at a time.
const CONNECTIONS: usize = 64;

/// Listens on `address`. `0.0.0.0` stands for all addresses of this machine, those of IPv6 too where there are such: so
/// do Go's listeners read it, and upstream's defaults are meant so.
///
/// # Errors
/// The address cannot be bound.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.is_ipv4() && address.ip().is_unspecified() {
        match TcpListener::bind((Ipv6Addr::UNSPECIFIED, address.port())).await {
            // This machine may have no IPv6.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    TcpListener::bind(address).await
}

/// Serves the endpoints over plain HTTP until `token` is cancelled.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, health: Health, token: CancellationToken) -> anyhow::Result<()> {
    let listener = listen(address).await.with_context(|| format!("cannot listen on {address}"))?;
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
                let answer = for_method(request.method(), respond(&request), Full::default());
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

/// An answer as the method wants it: of HEAD it is the headers alone, those of the whole answer. (What is left of a body
/// there breaks HTTP/2 connections.)
#[must_use]
pub fn for_method<B: Body>(method: &Method, mut answer: Response<B>, empty: B) -> Response<B> {
    if method != Method::HEAD {
        return answer;
    }
    if let Some(length) = answer.body().size_hint().exact() {
        answer.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    *answer.body_mut() = empty;
    answer
}

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

fn answer(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (first, rest) = path.trim_start_matches('/').split_once('/').unzip();
    let answer = match first.unwrap_or(path.trim_start_matches('/')) {
        kind @ ("healthz" | "livez" | "readyz") => health.answer(kind, rest, request.uri().query()),
        "metrics" => metrics(health, request.method(), rest),
        _ => None,
    };
    let (status, body) = answer.unwrap_or_else(|| (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()));
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = if path.starts_with("/metrics") { METRICS } else { PLAIN };
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    response
}

/// What is measured. How the checks of health went can be forgotten, too.
fn metrics(health: &Health, method: &Method, which: Option<&str>) -> Option<(StatusCode, String)> {
    let text = match which {
        None => observability::metrics_handle().render(),
        Some("slis") if *method == Method::DELETE => {
            health.outcomes().reset();
            "metrics reset\n".to_owned()
        }
        Some("slis") => health.outcomes().render(),
        Some(_) => return None,
    };
    Some((StatusCode::OK, text))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn answers_to_head_are_headers_in_both_protocols() {
        let listener = listen((std::net::Ipv4Addr::LOCALHOST, 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let token = CancellationToken::new();
        let respond = |_: &Request<Incoming>| Response::new(Full::new(Bytes::from_static(b"all is well")));
        let server = tokio::spawn(serve_with(listener, respond, token.clone()));
        let io = || async { TokioIo::new(TcpStream::connect(address).await.expect("it listens")) };
        let (mut second, connection) =
            conn::http2::handshake(TokioExecutor::new(), io().await).await.expect("HTTP/2");
        tokio::spawn(connection);
        let (mut first, connection) = conn::http1::handshake(io().await).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        for (method, length) in [(Method::HEAD, 0), (Method::GET, 11)] {
            let ask = || {
                let request = Request::builder().method(method.clone()).uri(format!("http://{address}/"));
                request.body(Empty::<Bytes>::new()).expect("a request")
            };
            let answers = [second.send_request(ask()).await, first.send_request(ask()).await];
            for answer in answers.map(|answer| answer.expect("an answer")) {
                assert_eq!(answer.headers()[header::CONTENT_LENGTH], "11", "{method}");
                let body = answer.into_body().collect().await.expect("the whole answer");
                assert_eq!(body.to_bytes().len(), length, "{method}");
            }
        }
        token.cancel();
        server.await.expect("it does not panic").expect("it ends well");
    }
}
