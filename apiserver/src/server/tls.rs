//! The server's side of TLS: the certificate it shows, and the client certificates it looks at.
//!
//! A client certificate never fails the handshake: possession of its key is proven by TLS, its trust is decided
//! afterwards ([`ClientCa::verify`]), so that a client with a foreign certificate and a good token still gets in. Files
//! are looked at again now and then; connections that come after a change see what is new.

mod authorities;
mod handshake;
mod serving;
mod suites;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub use authorities::ClientCa;
pub use handshake::AskForCertificate;
pub use serving::SniCert;
pub use suites::{Suites, Version};

use crate::config::ServingCert;

/// What of TLS is configured besides the certificate that is shown by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The oldest version that is spoken.
    pub min_version: Version,
    /// The suites of TLS 1.2 that are spoken.
    pub suites: Suites,
    /// Certificates for names that clients ask for.
    pub sni: Vec<SniCert>,
}

/// All that the listener's TLS is made of.
pub struct Source {
    /// The certificate that is shown by default.
    pub serving: ServingCert,
    /// The names of one that is made.
    pub names: Vec<String>,
    /// The rest.
    pub tls: TlsConfig,
    /// Authorities whose names clients are told.
    pub authorities: Vec<ClientCa>,
}

impl Source {
    /// The TLS configuration, and the text of all files that it is made of.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn read(&self) -> anyhow::Result<(ServerConfig, Vec<Vec<u8>>)> {
        let certificates = serving::Certificates::read(&self.files()?, &self.tls.sni)?;
        let builder = ServerConfig::builder_with_provider(self.tls.suites.provider())
            .with_protocol_versions(self.tls.min_version.versions())
            .context("configure TLS")?;
        let builder = if self.authorities.is_empty() {
            builder.with_no_client_auth()
        } else {
            let hints = self.authorities.iter().flat_map(ClientCa::hints).collect();
            builder.with_client_cert_verifier(Arc::new(AskForCertificate::new(hints)))
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // As Go's servers do.
        config.ignore_client_order = true;
        Ok((config, self.texts()))
    }

    /// The text of all files.
    pub fn texts(&self) -> Vec<Vec<u8>> {
        let own = self.files().into_iter().flat_map(|(cert, key)| [cert, key]);
        let named = self.tls.sni.iter().flat_map(|named| [named.cert.clone(), named.key.clone()]);
        let read = |path: PathBuf| std::fs::read(path).unwrap_or_default();
        own.chain(named).map(read).chain(self.authorities.iter().map(ClientCa::text)).collect()
    }

    /// Certificate and key that are shown by default; made if they are to be.
    fn files(&self) -> anyhow::Result<(PathBuf, PathBuf)> {
        Ok(match &self.serving {
            ServingCert::Files { cert, key } => (cert.clone(), key.clone()),
            ServingCert::Directory(directory) => {
                let (cert, key) = (directory.join("apiserver.crt"), directory.join("apiserver.key"));
                if !cert.exists() || !key.exists() {
                    make_self_signed(&cert, &key, &self.names)?;
                }
                (cert, key)
            }
        })
    }
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("read certificates from {}", path.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
    Ok(certificates)
}

fn make_self_signed(cert: &Path, key: &Path, names: &[String]) -> anyhow::Result<()> {
    let directory = cert.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let made = rcgen::generate_simple_self_signed(names.to_vec()).context("make a serving certificate")?;
    std::fs::write(cert, made.cert.pem()).with_context(|| format!("write {}", cert.display()))?;
    write_private(key, made.signing_key.serialize_pem().as_bytes())?;
    tracing::info!(certificate = %cert.display(), "made a self-signed serving certificate");
    Ok(())
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(contents))
        .with_context(|| format!("write {}", path.display()))
}
