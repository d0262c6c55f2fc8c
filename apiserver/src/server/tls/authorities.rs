//! The authorities that sign client certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use client::tls::provider;
use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{DistinguishedName, RootCertStore};
use x509_parser::asn1_rs::ToDer;
use x509_parser::prelude::{AlgorithmIdentifier, FromDer, X509Certificate, X509Version};

/// The authorities of a file, which may change. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct ClientCa(Arc<Inner>);

struct Inner {
    path: PathBuf,
    current: RwLock<Arc<Authorities>>,
}

struct Authorities {
    text: Vec<u8>,
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCa {
    /// Reads a PEM bundle.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let read = Authorities::read(path)?;
        Ok(Self(Arc::new(Inner { path: path.to_owned(), current: RwLock::new(Arc::new(read)) })))
    }

    /// Reads the file again; says whether it has changed. One that cannot be used changes nothing.
    pub fn refresh(&self) -> bool {
        let changed = std::fs::read(&self.0.path).is_ok_and(|text| text != self.0.current.read().text);
        if !changed {
            return false;
        }
        match Authorities::read(&self.0.path) {
            Ok(read) => {
                *self.0.current.write() = Arc::new(read);
                tracing::info!(file = %self.0.path.display(), "read new certificate authorities");
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "could not read new certificate authorities, the old ones stay");
                false
            }
        }
    }

    /// Whether a chain (leaf first) leads to one of the authorities now.
    #[must_use]
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let authorities = Arc::clone(&self.0.current.read());
        if is_old(leaf) {
            return authorities.have_signed(leaf, UnixTime::now());
        }
        match authorities.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "client certificate is not trusted");
                false
            }
        }
    }

    pub(super) fn hints(&self) -> Vec<DistinguishedName> {
        self.0.current.read().verifier.root_hint_subjects().to_vec()
    }

    pub(super) fn text(&self) -> Vec<u8> {
        self.0.current.read().text.clone()
    }
}

impl Authorities {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read(path).with_context(|| format!("read certificates from {}", path.display()))?;
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .with_context(|| format!("read certificates from {}", path.display()))?;
        anyhow::ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            let added = roots.add(certificate.clone());
            added.with_context(|| format!("use certificate authority {}", path.display()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .with_context(|| format!("use certificate authority {}", path.display()))?;
        Ok(Self { text, certificates, verifier })
    }

    /// Whether one of them has itself signed a certificate that is good now. For certificates of version 1, of which
    /// nothing else is known.
    fn have_signed(&self, leaf: &[u8], now: UnixTime) -> bool {
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = leaf.validity();
        if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
            return false;
        }
        self.certificates.iter().any(|authority| {
            X509Certificate::from_der(authority).is_ok_and(|(_, authority)| signed_by(&leaf, &authority))
        })
    }
}

fn is_old(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| certificate.version() == X509Version::V1)
}

fn signed_by(leaf: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    if leaf.issuer().as_raw() != authority.subject().as_raw() {
        return false;
    }
    let key = authority.public_key();
    let (signature, of_key) = (algorithm_id(&leaf.signature_algorithm), algorithm_id(&key.algorithm));
    let fits = |algorithm: &&&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
        *algorithm.signature_alg_id() == *signature && *algorithm.public_key_alg_id() == *of_key
    };
    let all = provider().signature_verification_algorithms.all;
    all.iter().filter(fits).any(|algorithm| {
        let (key, signed) = (&key.subject_public_key.data, &leaf.signature_value.data);
        algorithm.verify_signature(key, leaf.tbs_certificate.as_ref(), signed).is_ok()
    })
}

/// What is within an algorithm's sequence, as signature algorithms name themselves.
pub(super) fn algorithm_id(algorithm: &AlgorithmIdentifier<'_>) -> Vec<u8> {
    let oid = algorithm.algorithm.as_bytes();
    let mut id = vec![0x06, u8::try_from(oid.len()).unwrap_or(u8::MAX)];
    id.extend_from_slice(oid);
    if let Some(parameters) = &algorithm.parameters {
        id.extend(parameters.to_der_vec().unwrap_or_default());
    }
    id
}
