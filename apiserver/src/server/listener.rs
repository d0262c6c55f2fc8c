//! Accepting connections: TCP, TLS, then HTTP/1.1 or HTTP/2 with upgrades. One task per connection; on shutdown
//! each finishes its requests within the grace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::header::{CONNECTION, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::{Mutex, RwLock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Server;
use super::service;
use super::tls::{ClientCa, Source};
use crate::authn::Chain;
use crate::body::{self, Body};

/// Who is at the other end of a connection. An extension of every request that came over the network.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Its certificate chain, leaf first; empty if it showed none.
    pub chain: Arc<Chain>,
    /// Whether the chain leads to the client CA.
    pub trusted: bool,
}

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The headers of a request have no more bytes than this; those of more get 431. Go's default, and what it adds.
const HEADERS: u32 = (1 << 20) + 4096;
/// How long a client may take to send the headers of a request (upstream's `ReadHeaderTimeout`), and to send anything
/// at all on a new connection.
const HEADER_TIME: Duration = Duration::from_secs(32);
/// Streams a client may open on one connection.
const STREAMS: u32 = 2000;
/// Flow control windows: a LIST of many megabytes must not wait for the client's acknowledgements.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How often files of certificates are looked at.
const RELOAD: Duration = Duration::from_secs(1);

/// A listening socket with its TLS configuration.
pub struct Listener {
    socket: TcpListener,
    source: Source,
    /// What the files of the source held when they were last read.
    texts: Mutex<Vec<Vec<u8>>>,
    tls: RwLock<TlsAcceptor>,
    client_ca: Option<ClientCa>,
}

impl Listener {
    /// Binds the address.
    pub async fn bind(
        address: SocketAddr,
        source: Source,
        client_ca: Option<ClientCa>,
    ) -> anyhow::Result<Self> {
        let (tls, texts) = source.read()?;
        let socket =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let tls = RwLock::new(TlsAcceptor::from(Arc::new(tls)));
        Ok(Self { socket, source, texts: Mutex::new(texts), tls, client_ca })
    }

    /// The address that was bound (the port may have been 0).
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr().context("read the bound address")
    }

    /// Serves connections until `token` is cancelled, then waits up to `grace` for requests to end.
    pub async fn serve(self, server: Arc<Server>, grace: Duration, token: CancellationToken) {
        let connections = TaskTracker::new();
        let this = Arc::new(self);
        let mut look = tokio::time::interval(RELOAD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                biased;
                () = token.cancelled() => break,
                _ = look.tick() => {
                    this.refresh();
                    continue;
                }
                accepted = this.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (this, server, token) = (Arc::clone(&this), Arc::clone(&server), token.clone());
                    connections.spawn(async move { this.connection(server, stream, address, token).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: leave time for some to be closed.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        connections.close();
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            tracing::info!("connections still open after the shutdown grace are cut");
        }
    }

    /// Reads files again that have changed.
    fn refresh(&self) {
        for authorities in self.source.authorities.iter().chain(&self.client_ca) {
            authorities.refresh();
        }
        let texts = self.source.texts();
        if texts == *self.texts.lock() {
            return;
        }
        match self.source.read() {
            Ok((tls, _)) => {
                *self.tls.write() = TlsAcceptor::from(Arc::new(tls));
                tracing::info!("read new certificates");
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "could not read new certificates, the old ones stay"
                );
            }
        }
        *self.texts.lock() = texts;
    }

    async fn connection(
        &self,
        server: Arc<Server>,
        stream: TcpStream,
        address: SocketAddr,
        token: CancellationToken,
    ) {
        let _ = stream.set_nodelay(true);
        let tls = self.tls.read().clone();
        let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let trusted = !chain.is_empty() && self.client_ca.as_ref().is_some_and(|ca| ca.verify(chain));
        let chain: Vec<_> = chain.iter().map(|c| c.clone().into_owned()).collect();
        let peer = Peer { address: Some(canonical(address)), chain: Arc::new(chain.into()), trusted };
        serve_http(TokioIo::new(stream), server, peer, token).await;
    }
}

/// Serves one connection, of whatever transport, until it ends or the server stops.
pub async fn serve_http<I>(io: I, server: Arc<Server>, peer: Peer, token: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let known = Arc::new(Known::default());
    let (noted, chance) = (Arc::clone(&known), server.config.goaway_chance);
    let service = service_fn(move |mut request: Request<Incoming>| {
        noted.request(&request, chance);
        let server = Arc::clone(&server);
        request.extensions_mut().insert(peer.clone());
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        async move {
            // What is read at once may be more than what is read at most.
            let allowed = size(request.headers()) <= HEADERS as usize;
            Ok::<_, Infallible>(if allowed { service::serve(server, request).await } else { too_large() })
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADERS as usize)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(1 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(io, service);
    tokio::pin!(connection);
    let patience = tokio::time::sleep(HEADER_TIME);
    tokio::pin!(patience);
    let (mut closing, mut waiting) = (false, true);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = token.cancelled(), if !closing => closing = true,
            () = known.goaway.notified(), if !closing => closing = true,
            () = patience.as_mut(), if waiting => {
                waiting = false;
                if known.asked.load(Ordering::Relaxed) || closing {
                    continue;
                }
                tracing::debug!("a connection on which nothing is asked is closed");
                closing = true;
            }
        }
        connection.as_mut().graceful_shutdown();
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
}

/// A socket of both families shows IPv4 clients as IPv6 addresses that stand for theirs.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

fn too_large() -> Response<Body> {
    let mut response = Response::new(body::full("431 Request Header Fields Too Large"));
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What is known of a connection.
#[derive(Default)]
struct Known {
    /// Whether there was a request.
    asked: AtomicBool,
    /// Told when the client is to go on elsewhere.
    goaway: Notify,
}

impl Known {
    /// Notes a request. With some luck it is the last one here, so that clients spread over all servers (upstream
    /// `WithProbabilisticGoaway`).
    fn request(&self, request: &Request<Incoming>, chance: f64) {
        self.asked.store(true, Ordering::Relaxed);
        if chance > 0.0 && request.version() == Version::HTTP_2 && rand::random::<f64>() < chance {
            self.goaway.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_the_addresses_they_have() {
        for (seen, meant) in [
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(canonical(seen.parse().expect("an address")).to_string(), meant);
        }
    }
}
