//! A client of this server in the same process: requests go to the service by a function call, with no socket, no
//! TLS and no serialization of HTTP in between. It acts as whatever user it was made for.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use client::Client;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tower::Service;

use super::Server;
use super::service::{self, Insider};
use crate::authn::User;
use crate::body::Body;

/// The server as a tower service, for one user.
#[derive(Clone)]
pub struct Loopback {
    server: Arc<Server>,
    user: Arc<User>,
}

impl Loopback {
    /// The service as seen by `user`, who needs no credentials.
    #[must_use]
    pub fn new(server: Arc<Server>, user: User) -> Self {
        Self { server, user: Arc::new(user.authenticated()) }
    }

    /// A client on this service.
    #[must_use]
    pub fn client(self) -> Client {
        Client::new(self, "default")
    }
}

impl<B> Service<Request<B>> for Loopback
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<crate::body::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = Arc::clone(&self.server);
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let agent = HeaderValue::from_static("kube-apiserver");
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        request.extensions_mut().insert(Insider(Arc::clone(&self.user)));
        Box::pin(async move { Ok(service::serve(server, request).await) })
    }
}
