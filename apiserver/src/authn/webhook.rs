//! Tokens that a webhook knows (upstream `plugin/pkg/authenticator/token/webhook`): it is sent a TokenReview; what it
//! answers is kept for a while.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{TokenAuthenticator, TokenError, TokenUser, User};
use crate::ttl_cache::TtlCache;
use crate::webhook::Client;

/// How many answers are kept.
const KEPT: usize = 32 * 1024;

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The kubeconfig file that names the webhook.
    pub file: PathBuf,
    /// The version of the reviews: `v1` or `v1beta1`.
    pub version: String,
    /// How long answers are kept.
    pub ttl: Duration,
}

/// Asks a webhook.
pub struct TokenWebhook {
    client: Client,
    version: String,
    /// Audiences of this server, for which tokens are good of which the webhook says no audience.
    audiences: Vec<String>,
    ttl: Duration,
    kept: TtlCache<[u8; 32], Option<TokenUser>>,
    /// Nobody can know under which key an answer is kept.
    salt: [u8; 32],
}

impl TokenWebhook {
    /// Asks through `client`.
    #[must_use]
    pub fn new(client: Client, config: &WebhookConfig, audiences: Vec<String>) -> Self {
        Self {
            client,
            version: config.version.clone(),
            audiences,
            ttl: config.ttl,
            kept: TtlCache::new(KEPT),
            salt: rand::random(),
        }
    }

    fn key(&self, token: &str, audiences: &[String]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        add(token);
        audiences.iter().for_each(|audience| add(audience));
        hash.finalize().into()
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Option<TokenUser>, TokenError> {
        let mut spec = json!({"token": token});
        if !audiences.is_empty() {
            spec["audiences"] = json!(audiences);
        }
        let review = json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {},
            "spec": spec,
            "status": {"user": {}},
        });
        let body = Bytes::from(review.to_string());
        let answer = self.client.post_again(body, |_, _| {}).await.map_err(|error| {
            tracing::warn!(%error, "failed to make webhook authenticator request");
            TokenError(error.to_string())
        })?;
        verdict(answer, &self.version, audiences, &self.audiences).map_err(TokenError)
    }
}

/// What an answer says of a token. `wanted`: the audiences it must be for; `own`: those of this server.
fn verdict(
    answer: Value,
    version: &str,
    wanted: &[String],
    own: &[String],
) -> Result<Option<TokenUser>, String> {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    if kind != "TokenReview" || api_version != format!("authentication.k8s.io/{version}") {
        return Err(format!("no kind {kind:?} is registered for version {api_version:?}"));
    }
    let status = answer.get("status").cloned().unwrap_or_default();
    let review: TokenReview = serde_json::from_value(json!({"spec": {}, "status": status}))
        .map_err(|error| format!("unable to decode the answer of the webhook: {error}"))?;
    let status: TokenReviewStatus = review.status.unwrap_or_default();
    let mut common = Vec::new();
    if !wanted.is_empty() {
        let said = status.audiences.filter(|audiences| !audiences.is_empty());
        let good = said.unwrap_or_else(|| own.to_vec());
        common = wanted.iter().filter(|audience| good.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Ok(None);
        }
    }
    if status.authenticated != Some(true) {
        return match status.error.filter(|error| !error.is_empty()) {
            Some(error) => Err(error),
            None => Ok(None),
        };
    }
    let user = status.user.unwrap_or_default();
    let user = User {
        name: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    };
    Ok(Some(TokenUser { user, audiences: common }))
}

#[async_trait::async_trait]
impl TokenAuthenticator for TokenWebhook {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, TokenError> {
        let key = self.key(token, audiences);
        let ask = || async { Ok((self.ask(token, audiences).await?, self.ttl)) };
        self.kept.get_or_make(key, ask).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn answer(status: Value) -> Value {
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
    }

    // After upstream's TestWebhookTokenAuthenticator.
    #[test]
    fn audiences_are_those_of_webhook_and_server() {
        let yes = |audiences: Value| {
            answer(json!({"authenticated": true, "user": {"username": "u"}, "audiences": audiences}))
        };
        for (said, wanted, own, expected) in [
            (json!(null), vec![], vec![], Some(vec![])),
            (json!(["a", "b"]), vec!["a"], vec!["x"], Some(vec!["a"])),
            (json!(["a"]), vec!["a", "b"], vec!["b"], Some(vec!["a"])),
            (json!(["c"]), vec!["a", "b"], vec!["a"], None),
            (json!(null), vec!["a", "b"], vec!["b"], Some(vec!["b"])),
            (json!(null), vec!["a"], vec!["b"], None),
        ] {
            let found = verdict(yes(said.clone()), "v1", &list(&wanted), &list(&own)).expect("an answer");
            let found = found.map(|user| user.audiences);
            assert_eq!(found, expected.map(|expected| list(&expected)), "{said} {wanted:?} {own:?}");
        }
    }

    #[test]
    fn users_are_what_the_webhook_says() {
        let user = json!({"username": "u", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}});
        let found = verdict(answer(json!({"authenticated": true, "user": user})), "v1", &[], &[]);
        let user = found.expect("an answer").expect("a user").user;
        assert_eq!((user.name.as_str(), user.uid.as_str(), user.groups.len()), ("u", "1", 1));
        assert_eq!(user.extra["k"], ["v"]);
        let refused = |status: Value| verdict(answer(status), "v1", &[], &[]);
        assert_eq!(refused(json!({"authenticated": false})), Ok(None));
        assert_eq!(refused(json!({})), Ok(None));
        assert_eq!(refused(json!({"error": "unknown token"})), Err("unknown token".to_owned()));
        let other = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1beta1"});
        assert!(verdict(other, "v1", &[], &[]).is_err());
        assert!(verdict(json!({}), "v1", &[], &[]).is_err());
    }
}
