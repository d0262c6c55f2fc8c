//! Who asks: from a client certificate or a bearer token to a user (upstream `authentication/request`).
//!
//! [`Union`] asks the authenticators in upstream's order: front proxy, client certificate, bearer token, anonymous.
//! Objects (service accounts, secrets, pods, nodes) are looked up in informers; no request reads the store.

pub mod bootstrap_token;
pub mod discovery;
pub mod impersonation;
pub mod keys;
pub mod oidc;
pub mod request_header;
pub mod reviews;
pub mod service_account;
pub mod setup;
pub mod structured;
pub mod token_file;
pub mod token_request;
pub mod union;
pub mod webhook;
pub mod x509;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::status::ApiError;

pub use union::Union;
pub use x509::Chain;

/// Everybody who has shown who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of those who have not shown who they are.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of kubelets.
pub const NODES: &str = "system:nodes";
/// What the names of kubelets begin with.
pub const NODE_PREFIX: &str = "system:node:";

/// An authenticated identity (upstream `user.Info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User name, for example `system:serviceaccount:default:web`.
    pub name: String,
    /// Unique id; empty if unknown.
    pub uid: String,
    /// Groups, `system:authenticated` or `system:unauthenticated` included.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The identity of a request without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// The identity of the server's own requests over its loopback client.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            name: "system:apiserver".into(),
            groups: vec![AUTHENTICATED.into(), MASTERS.into()],
            ..Self::default()
        }
    }

    /// Whether the user is in `group`.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node a kubelet speaks for (upstream `NodeIdentity`): needs the name and the group.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|_| self.in_group(NODES))
    }

    /// Namespace and name of a service account, if the user is one.
    #[must_use]
    pub fn service_account(&self) -> Option<(&str, &str)> {
        split_service_account(&self.name)
    }

    /// Adds `system:authenticated`, unless the user has one of the two groups or is anonymous.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        let marked = self.in_group(AUTHENTICATED) || self.in_group(UNAUTHENTICATED);
        if self.name != ANONYMOUS && !marked {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

/// What the names of service accounts begin with.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Splits `system:serviceaccount:NAMESPACE:NAME`.
#[must_use]
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (is_label(namespace) && is_subdomain(name)).then_some((namespace, name))
}

/// The groups every service account of a namespace is in.
#[must_use]
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// Whether `text` is a DNS label (RFC 1123).
pub(crate) fn is_label(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
        && alphanumeric(bytes[0])
        && alphanumeric(bytes[bytes.len() - 1])
}

/// Whether `text` is a DNS subdomain (RFC 1123): dot-separated parts of label characters.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
            && alphanumeric(bytes[0])
            && alphanumeric(bytes[bytes.len() - 1])
    };
    text.len() <= 253 && text.split('.').all(part)
}

/// The credentials that came with a request.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The certificates of the client; who signed them is for `trusted` to say.
    pub chain: Arc<Chain>,
    /// Whether the chain was verified against the client CA. Others may be a front proxy's.
    pub trusted: bool,
    /// The token of an `Authorization: Bearer` header (or of a WebSocket subprotocol
    /// `base64url.bearer.authorization.k8s.io.*`).
    pub bearer_token: Option<String>,
    /// What is asked for.
    pub uri: http::Uri,
    /// The request's headers, where a front proxy names the user. May stay empty if no front proxy is configured.
    pub headers: http::HeaderMap,
}

impl Credentials {
    /// Takes the credentials out of a request. `trusted`: the certificates were verified against the client CA.
    /// `keep_headers`: a front proxy is configured.
    #[must_use]
    pub fn of(
        chain: Arc<Chain>,
        trusted: bool,
        uri: &http::Uri,
        headers: &http::HeaderMap,
        keep_headers: bool,
    ) -> Self {
        let bearer_token = bearer_token(headers).or_else(|| websocket_token(headers));
        let headers = if keep_headers { headers.clone() } else { http::HeaderMap::new() };
        Self { chain, trusted, bearer_token, uri: uri.clone(), headers }
    }
}

/// The token of `Authorization: Bearer TOKEN`; the scheme is matched without case.
fn bearer_token(headers: &http::HeaderMap) -> Option<String> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The prefix of the WebSocket subprotocol that carries a token.
pub const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token a browser sends as a WebSocket subprotocol, since it cannot set headers.
fn websocket_token(headers: &http::HeaderMap) -> Option<String> {
    use base64::Engine as _;
    let protocols = headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL);
    let mut all = protocols.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    let encoded = all.find_map(|protocol| protocol.strip_prefix(WEBSOCKET_TOKEN_PREFIX))?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok().filter(|token| !token.is_empty())
}

/// Turns credentials into a user.
#[async_trait::async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `Ok(None)`: these credentials are not of my kind; `Err`: they are, and they are bad (401).
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, ApiError>;
}

/// A user found by a token, and the audiences the token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    /// The user.
    pub user: User,
    /// Audiences of the token that were asked for; empty if the authenticator knows no audiences.
    pub audiences: Vec<String>,
}

/// Why a token that was of the right kind is bad. The text is shown in token reviews and logs, not in a 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub String);

/// Turns a bearer token into a user.
#[async_trait::async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// `Ok(None)`: not a token of my kind. `audiences`: the token must be meant for one of these.
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, TokenError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_from_both_headers() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(bearer_token(&headers), None);
        headers.insert("authorization", "bearer abc".parse().expect("header"));
        assert_eq!(bearer_token(&headers).as_deref(), Some("abc"));
        headers.insert("authorization", "Basic abc".parse().expect("header"));
        assert_eq!(bearer_token(&headers), None);
        let protocol = format!("{WEBSOCKET_TOKEN_PREFIX}YWJj, v5.channel.k8s.io");
        headers.insert("sec-websocket-protocol", protocol.parse().expect("header"));
        assert_eq!(websocket_token(&headers).as_deref(), Some("abc"));
    }

    #[test]
    fn service_account_names_are_split_only_if_well_formed() {
        for (name, expected) in [
            ("system:serviceaccount:default:web", Some(("default", "web"))),
            ("system:serviceaccount:default:a.b", Some(("default", "a.b"))),
            ("system:serviceaccount:default:", None),
            ("system:serviceaccount::x", None),
            ("system:serviceaccount:a.b:x", None),
            ("system:serviceaccount:a:b:c", None),
            ("alice", None),
        ] {
            assert_eq!(split_service_account(name), expected, "{name}");
        }
    }

    #[test]
    fn kubelets_need_name_and_group() {
        let user = |groups: &[&str]| User {
            name: "system:node:n1".into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        };
        assert_eq!(user(&[NODES]).node_name(), Some("n1"));
        assert_eq!(user(&[]).node_name(), None);
    }
}
