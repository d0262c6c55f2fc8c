//! Who asks, and whether they may.
//!
//! By client certificate, or by a token that the API judges (TokenReview); what they may do is the API's decision too
//! (SubjectAccessReview on `nodes` and its subresources). Answers of the API are kept for as long as configured.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use client::{Api, Client};
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::config::KubeletConfiguration;

/// Most answers that are kept of either kind.
const CACHED: usize = 4096;

/// Somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Identifier.
    pub uid: Option<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// More.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody known.
    Unauthenticated,
    /// Known, but may not; with the text of the answer.
    Forbidden(String),
    /// The API did not answer.
    Failed(String),
}

struct Cache<K, V> {
    held: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self { held: Mutex::default() }
    }

    fn get(&self, key: &K) -> Option<V> {
        let held = self.held.lock();
        held.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, life: Duration) {
        let mut held = self.held.lock();
        let now = Instant::now();
        if held.len() >= CACHED {
            held.retain(|_, (until, _)| *until > now);
        }
        if held.len() < CACHED {
            held.insert(key, (now + life, value));
        }
    }
}

/// Decides about requests.
pub struct Auth {
    client: Option<Client>,
    node: String,
    anonymous: bool,
    webhook: bool,
    always_allow: bool,
    token_life: Duration,
    allowed_life: Duration,
    denied_life: Duration,
    tokens: Cache<[u8; 32], User>,
    decisions: Cache<(String, Vec<String>, &'static str, &'static str), bool>,
}

impl Auth {
    /// As configured.
    #[must_use]
    pub fn new(client: Option<Client>, config: &KubeletConfiguration, node: String) -> Self {
        Self {
            client,
            node,
            anonymous: config.authentication.anonymous.enabled,
            webhook: config.authentication.webhook.enabled,
            always_allow: config.authorization.mode == "AlwaysAllow",
            token_life: config.authentication.webhook.cache_ttl.0,
            allowed_life: config.authorization.webhook.cache_authorized_ttl.0,
            denied_life: config.authorization.webhook.cache_unauthorized_ttl.0,
            tokens: Cache::new(),
            decisions: Cache::new(),
        }
    }

    /// Lets a request pass or not.
    pub async fn check(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<User, Refusal> {
        let user = self.authenticate(certificate, headers).await?;
        self.authorize(&user, method, path).await?;
        Ok(user)
    }

    async fn authenticate(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        headers: &HeaderMap,
    ) -> Result<User, Refusal> {
        if let Some(user) = certificate.and_then(|certificate| user_of(certificate)) {
            return Ok(user);
        }
        if let Some(token) = bearer(headers) {
            return self.review_token(token).await;
        }
        if self.anonymous {
            let groups = vec!["system:unauthenticated".to_owned()];
            return Ok(User { name: "system:anonymous".to_owned(), groups, ..User::default() });
        }
        Err(Refusal::Unauthenticated)
    }

    async fn review_token(&self, token: &str) -> Result<User, Refusal> {
        let Some(client) = self.client.as_ref().filter(|_| self.webhook) else {
            return Err(Refusal::Unauthenticated);
        };
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(user) = self.tokens.get(&key) {
            return Ok(user);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::<TokenReview>::all(client.clone()).create(&Default::default(), &review).await;
        let status = match answer {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) => {
                warn!(error = client::chain(&error), "could not have a token reviewed");
                return Err(Refusal::Unauthenticated);
            }
        };
        let Some(info) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Err(Refusal::Unauthenticated);
        };
        let user = User {
            name: info.username.unwrap_or_default(),
            uid: info.uid,
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        };
        self.tokens.put(key, user.clone(), self.token_life);
        Ok(user)
    }

    async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), Refusal> {
        if self.always_allow {
            return Ok(());
        }
        let verb = verb(method);
        let subresources = subresources(path);
        for subresource in subresources {
            if self.may(user, verb, subresource).await? {
                return Ok(());
            }
        }
        Err(Refusal::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            subresources.join(" ")
        )))
    }

    async fn may(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, Refusal> {
        let Some(client) = &self.client else { return Ok(false) };
        let key = (user.name.clone(), user.groups.clone(), verb, subresource);
        if let Some(allowed) = self.decisions.get(&key) {
            return Ok(allowed);
        }
        let review = SubjectAccessReview {
            spec: self.question(user, verb, subresource),
            ..SubjectAccessReview::default()
        };
        let answer =
            Api::<SubjectAccessReview>::all(client.clone()).create(&Default::default(), &review).await;
        let answer = answer.map_err(|error| {
            Refusal::Failed(format!(
                "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})\n{}",
                user.name,
                client::chain(&error)
            ))
        })?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.decisions.put(key, allowed, if allowed { self.allowed_life } else { self.denied_life });
        Ok(allowed)
    }

    fn question(&self, user: &User, verb: &str, subresource: &str) -> SubjectAccessReviewSpec {
        SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

/// The user a certificate names: common name and organizations.
fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups, ..User::default() })
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// Subresources of a node one of which must be allowed for a path.
fn subresources(path: &str) -> &'static [&'static str] {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "flagz" => &["configz"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_need_their_subresources() {
        for (path, want) in [
            ("/exec/ns/pod/c", &["proxy"][..]),
            ("/containerLogs/ns/p/c", &["proxy"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/podsandmore", &["proxy"]),
            ("/stats/summary", &["stats"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/logs/", &["log"]),
            ("/healthz/ping", &["healthz", "proxy"]),
        ] {
            assert_eq!(subresources(path), want, "{path}");
        }
    }

    #[test]
    fn bearer_tokens_are_found() {
        for (value, want) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            assert_eq!(bearer(&headers), want, "{value}");
        }
    }

    #[test]
    fn certificate_names_user_and_groups() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
        let certificate = params.self_signed(&key).unwrap();
        let user = user_of(certificate.der()).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("admin", vec!["system:masters".to_owned(), "system:authenticated".to_owned()])
        );
    }

    fn auth(text: &str) -> Auth {
        Auth::new(None, &KubeletConfiguration::parse(text).unwrap(), "n".to_owned())
    }

    #[tokio::test]
    async fn strangers_are_refused_unless_configured_otherwise() {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        for (config, want) in [
            ("", Err(Refusal::Unauthenticated)),
            ("authentication: {anonymous: {enabled: true}}\n", Err(Refusal::Forbidden("Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[pods proxy])\n".to_owned()))),
            ("authentication: {anonymous: {enabled: true}}\nauthorization: {mode: AlwaysAllow}\n", Ok("system:anonymous".to_owned())),
        ] {
            let got = auth(&format!("{head}{config}")).check(None, &HeaderMap::new(), &Method::GET, "/pods").await;
            assert_eq!(got.map(|user| user.name), want, "{config}");
        }
    }
}
