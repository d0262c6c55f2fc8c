//! A front proxy that has authenticated the user names it in headers (upstream `request/headerrequest`). It must show
//! a client certificate of its own CA.

use std::collections::BTreeMap;

use api::status::ApiError;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, Credentials, User};
use crate::config::RequestHeaderConfig;
use crate::server::tls::ClientCa;

/// Believes the headers of a proxy whose certificate is signed by the request header CA.
pub struct RequestHeaders {
    authorities: ClientCa,
    config: RequestHeaderConfig,
}

impl RequestHeaders {
    /// `authorities`: those of `--requestheader-client-ca-file`.
    #[must_use]
    pub fn new(authorities: ClientCa, config: RequestHeaderConfig) -> Self {
        Self { authorities, config }
    }

    /// Whether the chain leads to one of the authorities and the leaf has an allowed common name.
    fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some(leaf) = chain.first().filter(|_| self.authorities.verify(chain)) else { return false };
        let allowed = &self.config.allowed_names;
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
        let name =
            leaf.subject().iter_common_name().filter_map(|a| a.as_str().ok()).last().unwrap_or_default();
        allowed.is_empty() || allowed.iter().any(|other| other == name)
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
        let uid = first(headers, &self.config.uid_headers).unwrap_or_default();
        Some(User { name, uid, groups, extra })
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

#[async_trait::async_trait]
impl Authenticator for RequestHeaders {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, ApiError> {
        let named = first(&credentials.headers, &self.config.username_headers).is_some();
        if !named || !self.trusts(credentials.chain.certificates()) {
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
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ours.pem()).expect("written");
        let authorities = ClientCa::load(file.path()).expect("an authority");
        let authenticator = RequestHeaders::new(authorities, config());
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", "alice".parse().expect("header"));
        headers.append("x-remote-group", "dev".parse().expect("header"));
        headers.append("x-remote-group", "ops".parse().expect("header"));
        headers.insert("x-remote-extra-a%2fb", "1".parse().expect("header"));
        let ask = async |certificate: CertificateDer<'static>, headers: HeaderMap| {
            let chain = Arc::new(vec![certificate].into());
            let credentials = Credentials { chain, headers, ..Credentials::default() };
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
