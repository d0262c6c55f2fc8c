//! One request over one HTTP/1.1 connection, with the bytes of an upgrade pumped both ways.

use std::pin::Pin;

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::dial::Connection;
use crate::body::{self, Body, BoxError};

/// Headers that belong to one connection and are not passed on.
const HOP_BY_HOP: [HeaderName; 5] = [
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether the client asks to upgrade its connection.
#[must_use]
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Says when the stream has ended that a connection was upgraded to. An extension of the answer.
#[derive(Clone, Debug)]
pub struct Upgraded(CancellationToken);

impl Upgraded {
    /// Waits for the end.
    pub async fn ended(&self) {
        self.0.cancelled().await;
    }
}

/// Sends `request` (its URI being path and query) and gives the answer back. If both sides agree to upgrade, their
/// bytes are pumped until one of them closes.
pub async fn relay(
    connection: Box<dyn Connection>,
    host: &str,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    let send = |request| async move {
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(Pin::new(connection))).await?;
        tokio::spawn(
            async move {
                if let Err(error) = driver.with_upgrades().await {
                    tracing::debug!(%error, "connection to the backend ended");
                }
            }
            .in_current_span(),
        );
        sender.send_request(request).await
    };
    exchange(host, request, send).await
}

/// As [`relay`], over whatever connection `send` uses.
pub async fn exchange<F, E>(
    host: &str,
    mut request: Request<Body>,
    send: impl FnOnce(Request<Body>) -> F,
) -> Result<Response<Body>, BoxError>
where
    F: Future<Output = Result<Response<Incoming>, E>>,
    E: Into<BoxError>,
{
    let upgrade = wants_upgrade(request.headers());
    let client_side = upgrade.then(|| hyper::upgrade::on(&mut request));
    prepare(&mut request, host, upgrade)?;
    let mut response = send(request).await.map_err(Into::into)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let backend_side = hyper::upgrade::on(&mut response);
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        tokio::spawn(
            async move {
                let _guard = guard;
                match tokio::try_join!(client_side, backend_side) {
                    Ok((client, backend)) => pump(client, backend).await,
                    Err(error) => tracing::debug!(%error, "upgrade failed"),
                }
            }
            .in_current_span(),
        );
        let (mut parts, _) = response.into_parts();
        parts.extensions.insert(Upgraded(ended));
        return Ok(Response::from_parts(parts, body::empty()));
    }
    let (mut parts, incoming) = response.into_parts();
    for name in HOP_BY_HOP.iter().chain([&CONNECTION, &UPGRADE]) {
        parts.headers.remove(name);
    }
    parts.version = Version::default();
    Ok(Response::from_parts(parts, incoming.map_err(|error| Box::new(error) as BoxError).boxed_unsync()))
}

/// Copies until both directions are done. A side that closes one direction may go on with the other.
async fn pump(client: hyper::upgrade::Upgraded, backend: hyper::upgrade::Upgraded) {
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    match tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        Ok((up, down)) => tracing::debug!(up, down, "upgraded connection ended"),
        Err(error) => tracing::debug!(%error, "upgraded connection broke"),
    }
}

/// Makes the headers fit the connection to the backend.
fn prepare(request: &mut Request<Body>, host: &str, upgrade: bool) -> Result<(), BoxError> {
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name| *name != UPGRADE)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
    // Who the user is concerns this server alone.
    headers.remove(http::header::AUTHORIZATION);
    headers.insert(HOST, HeaderValue::from_str(host)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn upgrades_need_both_headers() {
        assert!(wants_upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")])));
        assert!(!wants_upgrade(&headers(&[("upgrade", "SPDY/3.1")])));
        assert!(!wants_upgrade(&headers(&[("connection", "upgrade")])));
    }

    /// A backend that upgrades and echoes, reached through a relay in front of it.
    async fn backend(connection: tokio::io::DuplexStream) {
        let service = service_fn(|mut request: Request<hyper::body::Incoming>| async move {
            let on = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(on.await.expect("upgraded"));
                let mut buffer = [0; 4];
                io.read_exact(&mut buffer).await.expect("read");
                io.write_all(&buffer).await.expect("write");
                io.shutdown().await.expect("shut down");
            });
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            Ok::<_, Infallible>(response)
        });
        let served =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service);
        served.with_upgrades().await.expect("served");
    }

    #[tokio::test]
    async fn upgraded_bytes_pass_both_ways() {
        let (client, front) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let (near, far) = tokio::io::duplex(1024);
                tokio::spawn(backend(far));
                let request =
                    request.map(|body| body.map_err(|error| Box::new(error) as BoxError).boxed_unsync());
                relay(Box::new(near), "backend", request).await.map_err(std::io::Error::other)
            });
            let builder = hyper::server::conn::http1::Builder::new();
            builder.serve_connection(TokioIo::new(front), service).with_upgrades().await.expect("served");
        });
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.expect("handshake");
        tokio::spawn(driver.with_upgrades());
        let request = Request::builder()
            .uri("/exec")
            .header("host", "front")
            .header("connection", "Upgrade")
            .header("upgrade", "echo")
            .body(body::empty())
            .expect("request");
        let mut response = sender.send_request(request).await.expect("response");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("upgraded"));
        io.write_all(b"ping").await.expect("write");
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"ping");
    }
}
