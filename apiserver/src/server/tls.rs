//! The server's side of TLS: the certificate it shows, and the client certificates it looks at.
//!
//! A client certificate never fails the handshake: possession of its key is proven by TLS, its trust is decided
//! afterwards ([`ClientCa::verify`]), so that a client with a foreign certificate and a good token still gets in.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use client::tls::provider;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use crate::config::ServingCert;

/// The authorities that sign client certificates.
#[derive(Clone, Debug)]
pub struct ClientCa(Arc<dyn ClientCertVerifier>);

impl ClientCa {
    /// Reads a PEM bundle.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for cert in read_certificates(path)? {
            roots.add(cert).with_context(|| format!("use certificate authority {}", path.display()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .with_context(|| format!("use certificate authority {}", path.display()))?;
        Ok(Self(verifier))
    }

    /// Whether a chain (leaf first) leads to one of the authorities now.
    #[must_use]
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        match self.0.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "client certificate is not trusted");
                false
            }
        }
    }

    fn hints(&self) -> Vec<DistinguishedName> {
        self.0.root_hint_subjects().to_vec()
    }
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("read certificates from {}", path.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
    Ok(certificates)
}

/// Asks for a client certificate and accepts any whose key the client holds.
#[derive(Debug)]
pub struct AskForCertificate {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AskForCertificate {
    /// With the names of authorities that the client is told.
    #[must_use]
    pub fn new(hints: Vec<DistinguishedName>) -> Self {
        Self { hints, algorithms: provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AskForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The TLS configuration of the listener.
pub fn server_config(
    serving: &ServingCert,
    names: &[String],
    client_cas: &[ClientCa],
) -> anyhow::Result<ServerConfig> {
    let (chain, key) = load_or_make(serving, names)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .context("configure TLS")?;
    let builder = if client_cas.is_empty() {
        builder.with_no_client_auth()
    } else {
        let hints = client_cas.iter().flat_map(ClientCa::hints).collect();
        builder.with_client_cert_verifier(Arc::new(AskForCertificate::new(hints)))
    };
    let mut config =
        builder.with_single_cert(chain, key).context("the serving certificate and its key do not fit")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn load_or_make(serving: &ServingCert, names: &[String]) -> anyhow::Result<Identity> {
    let (cert, key) = match serving {
        ServingCert::Files { cert, key } => (cert.clone(), key.clone()),
        ServingCert::Directory(directory) => {
            let (cert, key) = (directory.join("apiserver.crt"), directory.join("apiserver.key"));
            if !cert.exists() || !key.exists() {
                make_self_signed(&cert, &key, names)?;
            }
            (cert, key)
        }
    };
    let key_der =
        PrivateKeyDer::from_pem_file(&key).with_context(|| format!("read private key {}", key.display()))?;
    Ok((read_certificates(&cert)?, key_der))
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
