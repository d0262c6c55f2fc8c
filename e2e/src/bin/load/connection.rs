//! One HTTP/1.1 connection, and the requests on it. Bodies are counted, not decoded: what is measured is the server.

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::target::Target;

/// A connection of its own, as a client on another machine has it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
    _driver: AbortOnDropHandle<()>,
}

/// What goes into a request beside its path.
#[derive(Clone, Copy, Default)]
pub struct Content<'a> {
    /// Value of Accept; JSON if empty.
    pub accept: &'a str,
    /// Value of Content-Type; JSON if empty.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a str,
    /// Whose request it is to be, if not the kubeconfig's.
    pub identity: Option<Identity>,
}

/// Somebody whom the client impersonates.
#[derive(Clone, Copy)]
pub struct Identity {
    /// Name.
    pub user: &'static str,
    /// Group.
    pub group: &'static str,
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// The server is not there, or one of the two is not believed.
    pub async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(target.host.clone())?;
        let stream = target.tls.connect(name, stream).await.context("TLS handshake")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // An error of the connection is an error of the request on it.
            let _ = connection.await;
        });
        Ok(Self { sender, target: target.clone(), _driver: AbortOnDropHandle::new(driver) })
    }

    /// Sends a request; returns the status and the body, unread.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn begin(
        &mut self,
        method: Method,
        path: &str,
        content: Content<'_>,
    ) -> Result<http::Response<Incoming>> {
        let or_json =
            |value: &str| if value.is_empty() { "application/json".to_owned() } else { value.to_owned() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{}:{}", self.target.host, self.target.port))
            .header("accept", or_json(content.accept))
            .header("content-type", or_json(content.content_type));
        if let Some(token) = &self.target.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(Identity { user, group }) = content.identity {
            request = request.header("impersonate-user", user).header("impersonate-group", group);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(content.body.as_bytes())))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads what comes back, piece by piece; returns the status and how many bytes came.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn count(
        &mut self,
        method: Method,
        path: &str,
        content: Content<'_>,
    ) -> Result<(StatusCode, usize)> {
        self.each(method, path, content, |_| ()).await
    }

    /// As [`Connection::count`], and shows every piece.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn each(
        &mut self,
        method: Method,
        path: &str,
        content: Content<'_>,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(StatusCode, usize)> {
        let mut response = self.begin(method, path, content).await?;
        let mut length = 0;
        while let Some(frame) = response.body_mut().frame().await {
            if let Some(piece) = frame?.data_ref() {
                length += piece.len();
                show(piece);
            }
        }
        Ok((response.status(), length))
    }

    /// Sends a request and returns what comes back.
    ///
    /// # Errors
    /// The connection broke, or the server refused.
    pub async fn text(&mut self, method: Method, path: &str, content: Content<'_>) -> Result<String> {
        let response = self.begin(method, path, content).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8(body.to_vec()).map_err(|_| anyhow!("an answer that is no text"))?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(text)
    }
}
