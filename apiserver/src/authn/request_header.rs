//! A front proxy that has authenticated the user names it in headers (upstream `request/headerrequest`). It must show
//! a client certificate of its own CA.

use std::collections::BTreeMap;

use api::status::ApiError;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, Credentials, User};
use crate::config::RequestHeaderConfig;

/// Believes the headers of a proxy whose certificate is signed by the request header CA.
pub struct RequestHeaders {
    authorities: Vec<CertificateDer<'static>>,
    config: RequestHeaderConfig,
}

impl RequestHeaders {
    /// `authorities`: the certificates of `--requestheader-client-ca-file`.
    #[must_use]
    pub fn new(authorities: Vec<CertificateDer<'static>>, config: RequestHeaderConfig) -> Self {
        Self { authorities, config }
    }

    /// Whether the leaf is signed by one of the authorities (directly, as proxies' certificates are) and has an
    /// allowed common name.
    fn trusts(&self, leaf: &CertificateDer<'_>) -> bool {
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
        let signed = self.authorities.iter().any(|authority| {
            let Ok((_, authority)) = X509Certificate::from_der(authority) else { return false };
            leaf.issuer() == authority.subject() && verify_signature(&leaf, &authority)
        });
        let name =
            leaf.subject().iter_common_name().filter_map(|a| a.as_str().ok()).last().unwrap_or_default();
        let allowed = &self.config.allowed_names;
        signed && leaf.validity().is_valid() && (allowed.is_empty() || allowed.iter().any(|a| a == name))
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let name = first(headers, &self.config.username_headers)?;
        let groups = self.config.group_headers.iter().flat_map(|header| all(headers, header)).collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &self.config.extra_headers_prefix {
            for (header, value) in headers {
                let prefix = prefix.to_ascii_lowercase();
                let (Some(key), Ok(value)) = (header.as_str().strip_prefix(&prefix), value.to_str()) else {
                    continue;
                };
                let key = crate::query::percent_decode(key, false);
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        Some(User { name, groups, extra, ..User::default() })
    }
}

fn all<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = String> + 'a {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter(|v| !v.is_empty())
        .map(str::to_owned)
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().find_map(|name| all(headers, name).next())
}

/// Whether `authority` signed `leaf`.
fn verify_signature(leaf: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    use rustls::pki_types::AlgorithmIdentifier;
    let oid = leaf.signature_algorithm.oid().to_id_string();
    // DER of the algorithm identifiers certificates are signed with.
    let wanted: &[AlgorithmIdentifier] = match oid.as_str() {
        "1.2.840.113549.1.1.11" => &[rustls::pki_types::alg_id::RSA_PKCS1_SHA256],
        "1.2.840.113549.1.1.12" => &[rustls::pki_types::alg_id::RSA_PKCS1_SHA384],
        "1.2.840.113549.1.1.13" => &[rustls::pki_types::alg_id::RSA_PKCS1_SHA512],
        "1.2.840.10045.4.3.2" => &[rustls::pki_types::alg_id::ECDSA_SHA256],
        "1.2.840.10045.4.3.3" => &[rustls::pki_types::alg_id::ECDSA_SHA384],
        "1.3.101.112" => &[rustls::pki_types::alg_id::ED25519],
        _ => return false,
    };
    let key = authority.public_key();
    let Ok(key_algorithm) = x509_algorithm(key.raw) else { return false };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let fits = algorithms.all.iter().filter(|a| {
        wanted.contains(&a.signature_alg_id()) && a.public_key_alg_id().as_ref() == key_algorithm.as_slice()
    });
    let signed = leaf.tbs_certificate.as_ref();
    fits.into_iter().any(|algorithm| {
        algorithm.verify_signature(&key.subject_public_key.data, signed, &leaf.signature_value.data).is_ok()
    })
}

/// The contents of the algorithm identifier inside of a SubjectPublicKeyInfo.
fn x509_algorithm(spki: &[u8]) -> Result<Vec<u8>, ()> {
    // SEQUENCE { SEQUENCE { algorithm }, BIT STRING }
    let (outer, _) = der_body(spki)?;
    let (inner, _) = der_body(outer)?;
    Ok(inner.to_vec())
}

/// The contents of the first DER value and what follows it.
fn der_body(der: &[u8]) -> Result<(&[u8], &[u8]), ()> {
    let (&first, rest) = der.get(1..).and_then(<[u8]>::split_first).ok_or(())?;
    let (size, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let count = usize::from(first & 0x0f);
            let bytes = rest.get(..count).ok_or(())?;
            (bytes.iter().fold(0, |size, byte| size << 8 | usize::from(*byte)), &rest[count..])
        }
        _ => return Err(()),
    };
    Ok((rest.get(..size).ok_or(())?, &rest[size..]))
}

#[async_trait::async_trait]
impl Authenticator for RequestHeaders {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, ApiError> {
        let Some(leaf) = credentials.certificates.first() else { return Ok(None) };
        if first(&credentials.headers, &self.config.username_headers).is_none() || !self.trusts(leaf) {
            return Ok(None);
        }
        Ok(self.user(&credentials.headers))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority")
    }

    fn leaf(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("key");
        params.signed_by(&key, authority).expect("certificate").der().clone()
    }

    fn config() -> RequestHeaderConfig {
        let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect();
        RequestHeaderConfig {
            allowed_names: list(&["proxy"]),
            username_headers: list(&["X-Remote-User"]),
            group_headers: list(&["X-Remote-Group"]),
            extra_headers_prefix: list(&["X-Remote-Extra-"]),
            ..RequestHeaderConfig::default()
        }
    }

    #[tokio::test]
    async fn only_the_proxy_may_name_users() {
        let (ours, other) = (authority("front"), authority("front"));
        let authenticator = RequestHeaders::new(vec![ours.der().clone()], config());
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", "alice".parse().expect("header"));
        headers.append("x-remote-group", "dev".parse().expect("header"));
        headers.append("x-remote-group", "ops".parse().expect("header"));
        headers.insert("x-remote-extra-a%2fb", "1".parse().expect("header"));
        let ask = async |certificate: CertificateDer<'static>, headers: HeaderMap| {
            let certificates = Arc::new(vec![certificate]);
            let credentials = Credentials { certificates, headers, ..Credentials::default() };
            authenticator.authenticate(&credentials).await.expect("no error")
        };
        let user = ask(leaf(&ours, "proxy"), headers.clone()).await.expect("believed");
        assert_eq!((user.name.as_str(), user.groups.len()), ("alice", 2));
        assert_eq!(user.extra["a/b"], ["1"]);
        assert_eq!(ask(leaf(&ours, "else"), headers.clone()).await, None, "name not allowed");
        assert_eq!(ask(leaf(&other, "proxy"), headers).await, None, "another authority of the same name");
        assert_eq!(ask(leaf(&ours, "proxy"), HeaderMap::new()).await, None, "no user named");
    }
}
