//! All configured authenticators as one (upstream `pkg/kubeapiserver/authenticator`).

use std::sync::Arc;

use api::status::ApiError;

use super::structured::Anonymous;
use super::{Authenticator, Credentials, TokenAuthenticator, TokenError, TokenUser, User};
use crate::query::percent_decode;

/// Bearer tokens of every kind: the first authenticator that knows the token decides.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Arc<dyn TokenAuthenticator>>);

impl Tokens {
    /// The authenticators in the order they are asked.
    #[must_use]
    pub fn new(authenticators: Vec<Arc<dyn TokenAuthenticator>>) -> Self {
        Self(authenticators)
    }
}

#[async_trait::async_trait]
impl TokenAuthenticator for Tokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, TokenError> {
        let mut errors = Vec::new();
        for authenticator in &self.0 {
            match authenticator.authenticate_token(token, audiences).await {
                Ok(Some(mut found)) => {
                    found.user = found.user.authenticated();
                    return Ok(Some(found));
                }
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        match errors.as_slice() {
            [] => Ok(None),
            [one] => Err(TokenError(one.clone())),
            many => Err(TokenError(format!("[{}]", many.join(", ")))),
        }
    }
}

/// Front proxy, client certificate, bearer token, and last of all nobody in particular.
pub struct Union {
    /// Authenticators that look at the connection and the headers, in order.
    pub requests: Vec<Arc<dyn Authenticator>>,
    /// Bearer tokens.
    pub tokens: Tokens,
    /// Audiences that bearer tokens of requests must be meant for.
    pub audiences: Vec<String>,
    /// The token of the server's own loopback client.
    pub loopback_token: Option<String>,
    /// Whether requests without credentials pass as `system:anonymous`, and where.
    pub anonymous: Anonymous,
}

impl Union {
    /// Whether a request without credentials passes.
    fn is_open(&self, uri: &http::Uri) -> bool {
        let conditions = &self.anonymous.conditions;
        if !self.anonymous.enabled || conditions.is_empty() {
            return self.anonymous.enabled;
        }
        let path = percent_decode(uri.path(), false);
        conditions.iter().any(|condition| condition.path == path)
    }
}

#[async_trait::async_trait]
impl Authenticator for Union {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, ApiError> {
        let mut bad = false;
        for authenticator in &self.requests {
            match authenticator.authenticate(credentials).await {
                Ok(Some(user)) => return Ok(Some(user.authenticated())),
                Ok(None) => {}
                Err(_) => bad = true,
            }
        }
        if let Some(token) = &credentials.bearer_token {
            if let Some(own) = &self.loopback_token
                && super::service_account::same_bytes(own.as_bytes(), token.as_bytes())
            {
                return Ok(Some(User::loopback()));
            }
            return match self.tokens.authenticate_token(token, &self.audiences).await {
                Ok(Some(found)) => Ok(Some(found.user)),
                Ok(None) => Err(ApiError::unauthorized()),
                Err(error) => {
                    tracing::debug!(%error, "bearer token refused");
                    Err(ApiError::unauthorized())
                }
            };
        }
        if bad || !self.is_open(&credentials.uri) {
            return Err(ApiError::unauthorized());
        }
        Ok(Some(User::anonymous()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::structured::AnonymousCondition;
    use crate::authn::token_file::TokenFile;

    fn union(enabled: bool) -> Union {
        let file = TokenFile::parse("good,alice,1,dev").expect("valid");
        Union {
            requests: Vec::new(),
            tokens: Tokens::new(vec![Arc::new(file)]),
            audiences: Vec::new(),
            loopback_token: Some("own".to_owned()),
            anonymous: Anonymous { enabled, conditions: Vec::new() },
        }
    }

    fn with_token(token: &str) -> Credentials {
        Credentials { bearer_token: Some(token.to_owned()), ..Credentials::default() }
    }

    #[tokio::test]
    async fn a_token_decides_and_a_bad_one_is_not_anonymous() {
        let union = union(true);
        let alice = union.authenticate(&with_token("good")).await.expect("good").expect("alice");
        assert_eq!(alice.groups, ["dev", "system:authenticated"]);
        assert_eq!(union.authenticate(&with_token("bad")).await.expect_err("bad").code(), 401);
        let own = union.authenticate(&with_token("own")).await.expect("own").expect("loopback");
        assert!(own.in_group(super::super::MASTERS));
    }

    #[tokio::test]
    async fn nobody_is_anonymous_only_if_allowed() {
        let nobody = Credentials::default();
        assert_eq!(union(true).authenticate(&nobody).await, Ok(Some(User::anonymous())));
        assert_eq!(union(false).authenticate(&nobody).await.expect_err("refused").code(), 401);
    }

    #[tokio::test]
    async fn nobody_is_anonymous_only_where_the_configuration_says() {
        let mut union = union(true);
        union.anonymous.conditions = vec![AnonymousCondition { path: "/livez".to_owned() }];
        for (uri, passes) in [
            ("/livez", true),
            ("/livez?verbose", true),
            ("/%6civez", true),
            ("/livez/", false),
            ("/livez/ping", false),
            ("//livez", false),
            ("/api", false),
        ] {
            let asked = Credentials { uri: uri.parse().expect("a URI"), ..Credentials::default() };
            assert_eq!(union.authenticate(&asked).await.is_ok(), passes, "{uri}");
        }
        let token = Credentials { uri: "/livez".parse().expect("a URI"), ..with_token("bad") };
        assert!(union.authenticate(&token).await.is_err(), "a bad token is not nobody");
    }
}
