//! Connections to one server, kept for the next request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tower::Service;

use super::dialer::{Dialer, Stream};
use super::failure::DialError;
use super::resolve::{Resolver, ServicePort};
use crate::body::Body;
use crate::streaming::authority;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(90);
/// How long opening one may take.
const DIAL: Duration = Duration::from_secs(30);

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The one that the request's URL names.
    Host,
    /// A Service, whatever the URL says.
    Service(ServicePort),
}

/// Sends requests to one server over TLS. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Transport {
    client: Arc<Client<HttpsConnector<Connector>, Body>>,
}

impl Transport {
    /// No connection is opened yet.
    #[must_use]
    pub fn new(target: Target, resolver: Resolver, dialer: Dialer, tls: ClientConfig) -> Self {
        match target {
            Target::Host => Self::to_hosts(dialer, tls, None),
            Target::Service(service) => {
                Self::over(Connector { service: Some((service, resolver)), dialer }, tls, None)
            }
        }
    }

    /// To whatever hosts the requests' URLs name; their certificates may have to be for another name. No connection is
    /// opened yet.
    #[must_use]
    pub fn to_hosts(dialer: Dialer, tls: ClientConfig, name: Option<ServerName<'static>>) -> Self {
        Self::over(Connector { service: None, dialer }, tls, name)
    }

    fn over(connector: Connector, tls: ClientConfig, name: Option<ServerName<'static>>) -> Self {
        let connector = match name {
            Some(name) => {
                HttpsConnector::new(connector, tls, false, Arc::new(FixedServerNameResolver::new(name)))
            }
            None => HttpsConnector::from((connector, Arc::new(tls))),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client: Arc::new(client) }
    }

    /// Sends a request; its URI is absolute.
    ///
    /// # Errors
    /// Whatever goes wrong before the head of the answer is there; [`super::describe`] says what.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        self.client.request(request).await
    }
}

/// Opens connections for requests.
#[derive(Clone)]
struct Connector {
    /// The Service that is connected to, and who knows where it is; else the host that the URL names.
    service: Option<(ServicePort, Resolver)>,
    dialer: Dialer,
}

/// A connection that requests are sent over.
pub struct Opened(TokioIo<Stream>);

impl Connection for Opened {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }
}

impl Connector {
    async fn dial(self, uri: Uri) -> Result<Opened, DialError> {
        let (host, port) = match &self.service {
            Some((service, resolver)) => resolver.resolve(service).await.map_err(DialError::Resolve)?,
            None => {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
                (host.to_owned(), uri.port_u16().unwrap_or(usual))
            }
        };
        let dialled = tokio::time::timeout(DIAL, self.dialer.dial(&host, port)).await;
        let late = || DialError::connect(authority(&host, port), std::io::ErrorKind::TimedOut.into());
        Ok(Opened(TokioIo::new(dialled.unwrap_or_else(|_| Err(late()))?)))
    }
}

impl Service<Uri> for Connector {
    type Response = Opened;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}
