//! Whose certificates are believed, and what certificate is shown.

use std::path::Path;
use std::sync::Arc;

use client::tls::{anybody, builder, provider};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Files of system authorities, of which the first that exists is read (as Go's `crypto/x509`).
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who is believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Everybody.
    Anybody,
    /// The authorities of this bundle (PEM); those of the system if it is empty.
    Bundle(Vec<u8>),
}

/// A client certificate with its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads PEM files.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, rustls::pki_types::pem::Error> {
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_file(key)? })
    }

    /// Reads PEM text.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parse(certificate: &[u8], key: &[u8]) -> Result<Self, rustls::pki_types::pem::Error> {
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>()?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_slice(key)? })
    }
}

impl Trust {
    /// The TLS configuration of a client that believes these.
    ///
    /// # Errors
    /// What is wrong with the bundle or the identity.
    pub fn client(&self, identity: Option<&Identity>) -> Result<ClientConfig, String> {
        let builder = builder().map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.verifier()?);
        let mut config = match identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| error.to_string())?,
            None => builder.with_no_client_auth(),
        };
        // As upstream: clients that speak HTTP/2 would keep to one of several backends.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let bundle = match self {
            Self::Anybody => return Ok(anybody()),
            Self::Bundle(bundle) if bundle.is_empty() => system()?,
            Self::Bundle(bundle) => bundle.clone(),
        };
        let known: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bundle)
            .collect::<Result<_, _>>()
            .map_err(|_| "unable to load root certificates: unable to parse bytes as PEM block".to_owned())?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(known.iter().cloned());
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        // Nobody is believed if there is nobody.
        let verifier = verifier.map_err(|error| format!("unable to load root certificates: {error}"))?;
        Ok(Arc::new(Verifier { verifier, known }))
    }
}

fn system() -> Result<Vec<u8>, String> {
    let found = SYSTEM.iter().find_map(|path| std::fs::read(path).ok());
    found.ok_or_else(|| "x509: failed to load system roots and no roots provided".to_owned())
}

/// Believes authorities, and certificates that are themselves in the bundle, as Go does.
#[derive(Debug)]
struct Verifier {
    verifier: Arc<WebPkiServerVerifier>,
    known: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// A certificate that is in the bundle needs no authority; its name and its time still count.
    fn verify_known(
        &self,
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let malformed = |_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(malformed)?;
        let (validity, now) = (certificate.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.known.iter().any(|known| known == end_entity) {
            return self.verify_known(end_entity, server_name, now);
        }
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
