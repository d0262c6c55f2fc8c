//! HTTP requests of probes and lifecycle hooks: no certificate checks, few redirects, short answers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest body that is kept.
const MAX_BODY: usize = 10 << 10;
const MAX_REDIRECTS: usize = 10;

/// A GET request.
#[derive(Clone, Debug, Default)]
pub struct Get {
    /// `http` or `https`.
    pub scheme: String,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path, with a query.
    pub path: String,
    /// Headers of the spec, in order.
    pub headers: Vec<(String, String)>,
    /// Who asks, when the headers do not say.
    pub user_agent: &'static str,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The first 10 kB of the body.
    pub body: Vec<u8>,
    location: Option<String>,
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A GET request in one call, for lifecycle hooks; the error is what an event shows.
pub async fn get(
    host: &str,
    port: u16,
    scheme: &str,
    path: &str,
    headers: &[(String, String)],
    timeout: Duration,
) -> Result<(u16, Vec<u8>), String> {
    let get = Get {
        scheme: scheme.to_lowercase(),
        host: host.to_owned(),
        port,
        path: path.to_owned(),
        headers: headers.to_vec(),
        user_agent: "kube-lifecycle/1.36",
    };
    get.send(timeout).await.map(|response| (response.status, response.body))
}

/// Connects; the error reads as Go's.
pub async fn dial(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = join(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect((host.trim_matches(['[', ']']), port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", plain(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// An error of the system without its number, as Go writes it.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

impl Get {
    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, join(&self.host, self.port), self.target())
    }

    fn target(&self) -> String {
        if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) }
    }

    /// Sends the request and follows redirects within the same host.
    pub async fn send(&self, timeout: Duration) -> Result<Response, String> {
        let failed = |error: String| format!("Get {:?}: {error}", self.url());
        match tokio::time::timeout(timeout, self.follow(timeout)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
            )),
        }
    }

    async fn follow(&self, timeout: Duration) -> Result<Response, String> {
        let mut request = self.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = request.send_once(timeout).await?;
            let next = response
                .location
                .as_deref()
                .filter(|_| matches!(response.status, 301 | 302 | 303 | 307 | 308));
            match next.and_then(|location| request.redirected(location)) {
                Some(next) if next.host == self.host => request = next,
                _ => return Ok(response),
            }
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    }

    fn redirected(&self, location: &str) -> Option<Self> {
        let uri: http::Uri = location.parse().ok()?;
        let mut next = self.clone();
        if let Some(scheme) = uri.scheme_str() {
            next.scheme = scheme.to_owned();
            next.host = uri.host()?.to_owned();
            next.port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        next.path = if path.starts_with('/') {
            path.to_owned()
        } else {
            let base = self.path.rsplit_once('/').map_or("", |(base, _)| base);
            format!("{base}/{path}")
        };
        Some(next)
    }

    async fn send_once(&self, timeout: Duration) -> Result<Response, String> {
        let request = self.request()?;
        let stream = dial(&self.host, self.port, timeout).await?;
        super::attempt::close_at_once(&stream);
        if self.scheme != "https" {
            return exchange(TokioIo::new(stream), request).await;
        }
        let name = ServerName::try_from(self.host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| error.to_string())?;
        let stream = connector().connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
        exchange(TokioIo::new(stream), request).await
    }

    fn request(&self) -> Result<http::Request<Empty<Bytes>>, String> {
        let has = |wanted: &str| {
            self.headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.as_str())
        };
        let default_host = join(&self.host, self.port);
        let mut builder = http::Request::get(self.target());
        builder =
            builder.header("Host", has("host").filter(|host| !host.is_empty()).unwrap_or(&default_host));
        if has("user-agent").is_none() {
            builder = builder.header("User-Agent", self.user_agent);
        }
        if has("accept").is_none() {
            builder = builder.header("Accept", "*/*");
        }
        for (name, value) in &self.headers {
            let dropped = name.eq_ignore_ascii_case("host")
                || (name.eq_ignore_ascii_case("accept") && value.is_empty());
            if !dropped {
                builder = builder.header(name, value);
            }
        }
        builder.header("Connection", "close").body(Empty::new()).map_err(|error| error.to_string())
    }
}

async fn exchange<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<Response, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(go_error)?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(go_error)?;
        let location =
            response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, mut incoming) = (response.status().as_u16(), response.into_body());
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame.map_err(go_error)?.into_data() {
                body.extend_from_slice(&data);
            }
            if body.len() >= MAX_BODY {
                body.truncate(MAX_BODY);
                break;
            }
        }
        Ok(Response { status, body, location })
    };
    tokio::pin!(talk, connection);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // The connection is done before the answer was read: what it delivered is still in the channel.
        ended = &mut connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(go_error(error)),
        },
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn go_error(error: hyper::Error) -> String {
    if error.is_incomplete_message() { "EOF".to_owned() } else { client::chain(&error) }
}

fn connector() -> &'static TlsConnector {
    static CONNECTOR: OnceLock<TlsConnector> = OnceLock::new();
    CONNECTOR.get_or_init(|| {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoCheck(provider)))
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    })
}

/// Probes ask whether a container answers, not who it is.
#[derive(Debug)]
struct NoCheck(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCheck {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
