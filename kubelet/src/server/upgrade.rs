//! Joins a client that upgrades its connection to a server that does the same, without a look at what they say.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use super::Server;
use super::respond::{Body, text};

/// What a streaming server answered.
pub enum Answer {
    /// It has upgraded: its headers and the connection.
    Upgraded(HeaderMap, TokioIo<Upgraded>),
    /// It has not.
    Refused(Response<Incoming>),
}

/// Asks the server at `url` to upgrade.
pub async fn connect(server: &Server, url: &str, method: Method, headers: HeaderMap) -> io::Result<Answer> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let authority = uri.authority().ok_or_else(|| io::Error::other("streaming URL has no host"))?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    server.tasks.spawn("streaming-server", |token| async move {
        tokio::select! {
            () = token.cancelled() => {}
            ended = connection.with_upgrades() => if let Err(error) = ended {
                debug!(%error, "connection to the streaming server ended");
            },
        }
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri.path_and_query().map(|path| Uri::from(path.clone())).unwrap_or_default();
    *request.headers_mut() = headers;
    let host = http::HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Refused(response));
    }
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await.map_err(io::Error::other)?;
    Ok(Answer::Upgraded(headers, TokioIo::new(upgraded)))
}

/// Passes on an answer that is no upgrade.
pub fn pass_on(response: Response<Incoming>) -> Response<Body> {
    response.map(|body| body.map_err(io::Error::other).boxed_unsync())
}

/// An answer that upgrades, with these headers.
pub fn switching(headers: HeaderMap) -> Response<Body> {
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    *response.headers_mut() = headers;
    response
}

/// Joins the client of `request` to the server at `url`.
pub async fn proxy(server: &Arc<Server>, url: &str, mut request: Request<Incoming>) -> Response<Body> {
    if !request.headers().contains_key(UPGRADE) || !request.headers().contains_key(CONNECTION) {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let mut headers = request.headers().clone();
    headers.remove(http::header::AUTHORIZATION);
    headers.remove(http::header::CONTENT_LENGTH);
    let client = hyper::upgrade::on(&mut request);
    let (answer, backend) = match connect(server, url, request.method().clone(), headers).await {
        Ok(Answer::Upgraded(headers, backend)) => (headers, backend),
        Ok(Answer::Refused(response)) => return pass_on(response),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("streaming server: {error}")),
    };
    server.tasks.spawn("stream", |token| async move {
        match client.await {
            Ok(client) => tokio::select! {
                () = token.cancelled() => {}
                () = copy_both(TokioIo::new(client), backend) => {}
            },
            Err(error) => debug!(%error, "client did not upgrade"),
        }
    });
    switching(answer)
}

/// Copies until either side ends, as the protocols' own ends come before that of the connection.
async fn copy_both(client: impl AsyncRead + AsyncWrite, backend: impl AsyncRead + AsyncWrite) {
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut backend_read, mut backend_write) = tokio::io::split(backend);
    let ended = tokio::select! {
        ended = tokio::io::copy(&mut client_read, &mut backend_write) => ended,
        ended = tokio::io::copy(&mut backend_read, &mut client_write) => ended,
    };
    if let Err(error) = ended {
        debug!(%error, "stream ended");
    }
    // Both are done with; one of them knows it already.
    let _ = client_write.shutdown().await;
    let _ = backend_write.shutdown().await;
}
