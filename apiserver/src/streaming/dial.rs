//! Connections to where requests are passed on: plain or TLS, HTTP/1.1 (which can be upgraded).

use std::io::{Error as IoError, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::tls::{anybody, builder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::kubelet::authority;
use crate::config::KubeletClientConfig;
use crate::remote::{DialError, Dialer as Way};

/// How long a connection may take to open ...
const DIAL: Duration = Duration::from_secs(30);
/// ... and then the handshake. Both as upstream, which leaves `--kubelet-timeout` unused as well.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the client side cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {path}")]
    File {
        /// Which.
        path: String,
        /// What the system or the parser said.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not work together.
    #[error("TLS configuration")]
    Tls(#[from] rustls::Error),
}

/// Any connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Opens connections with one TLS configuration.
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
    way: Way,
}

impl Dialer {
    /// Believes every certificate.
    pub fn unverified(way: Way) -> Result<Self, Error> {
        let builder = builder()?.dangerous().with_custom_certificate_verifier(anybody());
        Ok(Self::with(builder.with_no_client_auth(), way))
    }

    /// As the configuration of the kubelet client says. `verify`: check certificates if there is a CA to check with.
    pub fn kubelet(config: &KubeletClientConfig, verify: bool, way: Way) -> Result<Self, Error> {
        let builder = match config.certificate_authority.as_deref().filter(|_| verify) {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
                builder()?.with_root_certificates(roots)
            }
            None => builder()?.dangerous().with_custom_certificate_verifier(anybody()),
        };
        let tls = match (&config.client_certificate, &config.client_key) {
            (Some(certificate), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|source| Error::File { path: key.display().to_string(), source })?;
                builder.with_client_auth_cert(certificates(certificate)?, private)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Self::with(tls, way))
    }

    fn with(mut tls: ClientConfig, way: Way) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(tls)), way }
    }

    /// Connects to a host (name or address) and port.
    pub async fn connect(&self, host: &str, port: u16, tls: bool) -> std::io::Result<Box<dyn Connection>> {
        let dialled = timeout(DIAL, self.way.dial(host, port)).await;
        let late = |_| DialError::connect(authority(host, port), ErrorKind::TimedOut.into());
        let stream = dialled.map_err(late)??;
        if !tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(IoError::other)?;
        let shaken = timeout(HANDSHAKE, self.tls.connect(name, stream)).await;
        let late = || IoError::new(ErrorKind::TimedOut, "net/http: TLS handshake timeout");
        Ok(Box::new(shaken.unwrap_or_else(|_| Err(late()))?))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let error = |source| Error::File { path: path.display().to_string(), source };
    CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)
}
