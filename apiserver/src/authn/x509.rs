//! Client certificates: the common name is the user, every organization is a group (upstream
//! `authentication/request/x509`).
//!
//! Only chains that were verified against the client CA (with their validity period) count; what is left is the
//! intended use and the names.

use std::sync::OnceLock;

use api::status::ApiError;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, Credentials, User};

/// Reads users from verified client certificates.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates;

/// What a client showed in the handshake: a chain of certificates, leaf first, whose leaf it has the key of.
#[derive(Debug, Default)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// Whom the leaf names, once somebody has asked: a connection has many requests.
    user: OnceLock<Result<Option<User>, String>>,
}

impl Chain {
    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The user that the leaf names; `None` if there is no leaf, or it has no common name.
    fn user(&self) -> Result<Option<User>, String> {
        let Some(leaf) = self.certificates.first() else { return Ok(None) };
        self.user.get_or_init(|| ClientCertificates::user(leaf)).clone()
    }
}

impl From<Vec<CertificateDer<'static>>> for Chain {
    fn from(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self { certificates, user: OnceLock::new() }
    }
}

/// The OID in a certificate's subject under which a UID may be given (upstream `kubernetes.io` arc).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

impl ClientCertificates {
    /// The user a leaf certificate names; `None` if it has no common name.
    pub fn user(der: &[u8]) -> Result<Option<User>, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        let usage = certificate.extended_key_usage().map_err(|e| e.to_string())?;
        if usage.is_some_and(|usage| !(usage.value.client_auth || usage.value.any)) {
            return Err("x509: certificate specifies an incompatible key usage".to_owned());
        }
        let subject = certificate.subject();
        // As Go's pkix.Name: of several common names the last one counts.
        let name = subject.iter_common_name().filter_map(|a| a.as_str().ok()).last().unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let groups = subject.iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_owned).collect();
        let uid = subject.iter_attributes().filter(|a| a.attr_type().to_id_string() == UID_OID);
        let uid = uid.filter_map(|a| a.as_str().ok()).last().unwrap_or_default().to_owned();
        let mut user = User { name: name.to_owned(), uid, groups, ..User::default() };
        let fingerprint: String =
            <sha2::Sha256 as sha2::Digest>::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
        user.extra.insert(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={fingerprint}")],
        );
        Ok(Some(user))
    }
}

#[async_trait::async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, ApiError> {
        if credentials.chain.certificates().is_empty() {
            return Ok(None);
        }
        // Nobody here has signed it. (A front proxy's certificate has been looked at before.)
        if !credentials.trusted {
            return Err(ApiError::unauthorized());
        }
        credentials.chain.user().map_err(|error| {
            tracing::debug!(%error, "client certificate refused");
            ApiError::unauthorized()
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

    use super::*;

    fn certificate(name: &str, usage: Option<ExtendedKeyUsagePurpose>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.extended_key_usages = usage.into_iter().collect();
        let key = KeyPair::generate().expect("key");
        params.self_signed(&key).expect("certificate").der().to_vec()
    }

    #[test]
    fn names_and_groups_come_from_the_subject() {
        let der = certificate("jane", Some(ExtendedKeyUsagePurpose::ClientAuth));
        let user = ClientCertificates::user(&der).expect("valid").expect("a user");
        assert_eq!((user.name.as_str(), user.groups.as_slice()), ("jane", &["dev".to_owned()][..]));
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        assert_eq!(ClientCertificates::user(&certificate("", None)), Ok(None));
    }

    #[tokio::test]
    async fn certificates_of_others_are_refused() {
        let leaf = certificate("jane", Some(ExtendedKeyUsagePurpose::ClientAuth)).into();
        let chain = std::sync::Arc::new(Chain::from(vec![leaf]));
        let shown = |trusted| Credentials { chain: chain.clone(), trusted, ..Credentials::default() };
        let user = ClientCertificates.authenticate(&shown(true)).await.expect("our own certificate");
        assert_eq!(user.expect("a user").name, "jane");
        let refused =
            ClientCertificates.authenticate(&shown(false)).await.expect_err("nobody here signed it");
        assert_eq!(refused.status.code, Some(401));
        let none =
            ClientCertificates.authenticate(&Credentials::default()).await.expect("no certificate, no error");
        assert!(none.is_none());
    }

    #[test]
    fn server_certificates_are_no_client_credentials() {
        let der = certificate("jane", Some(ExtendedKeyUsagePurpose::ServerAuth));
        assert!(ClientCertificates::user(&der).is_err());
    }
}
