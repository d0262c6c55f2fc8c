//! Connections to one server, kept for the next request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

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
    client: Client<HttpsConnector<Connector>, Body>,
}

impl Transport {
    /// No connection is opened yet.
    #[must_use]
    pub fn new(target: Target, resolver: Resolver, tls: ClientConfig) -> Self {
        match target {
            Target::Host => Self::to_hosts(tls),
            Target::Service(service) => Self::over(Connector { service: Some((service, resolver)) }, tls),
        }
    }

    /// To whatever hosts the requests' URLs name. No connection is opened yet.
    #[must_use]
    pub fn to_hosts(tls: ClientConfig) -> Self {
        Self::over(Connector { service: None }, tls)
    }

    fn over(connector: Connector, tls: ClientConfig) -> Self {
        let connector = HttpsConnector::from((connector, Arc::new(tls)));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client }
    }

    /// Sends a request; its URI is absolute.
    ///
    /// # Errors
    /// Whatever goes wrong before the head of the answer is there; [`super::describe`] says what.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        self.client.request(request).await
    }
}

/// Connects to the first address of a host that answers.
async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let unknown = |_| DialError::Lookup { host: host.to_owned() };
    let mut first = None;
    for address in tokio::net::lookup_host((host, port)).await.map_err(unknown)? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            // As Go: the first failure is told.
            Err(error) => first = first.or(Some(DialError::connect(address.to_string(), error))),
        }
    }
    Err(first.unwrap_or_else(|| DialError::Lookup { host: host.to_owned() }))
}

/// Opens TCP connections.
#[derive(Clone)]
struct Connector {
    /// The Service that is connected to, and who knows where it is; else the host that the URL names.
    service: Option<(ServicePort, Resolver)>,
}

impl Connector {
    async fn dial(self, uri: Uri) -> Result<TokioIo<TcpStream>, DialError> {
        let (host, port) = match &self.service {
            Some((service, resolver)) => resolver.resolve(service).await.map_err(DialError::Resolve)?,
            None => {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
                (host.to_owned(), uri.port_u16().unwrap_or(usual))
            }
        };
        let dialled = tokio::time::timeout(DIAL, connect(&host, port)).await;
        let late = || DialError::connect(authority(&host, port), std::io::ErrorKind::TimedOut.into());
        let stream = dialled.unwrap_or_else(|_| Err(late()))?;
        let failed = |source| DialError::connect(authority(&host, port), source);
        stream.set_nodelay(true).map_err(failed)?;
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}
