//! `AuthorizationConfiguration`: who decides, in order (upstream `apiserver/pkg/apis/apiserver`).

mod validation;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use validation::{validate, validate_names};

use crate::config_file;
use crate::query::parse_duration;

/// Who decides, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthorizationConfiguration {
    /// The authorizers.
    pub authorizers: Vec<AuthorizerConfiguration>,
}

/// One who decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthorizerConfiguration {
    /// What decides: `Node`, `RBAC`, `ABAC`, `Webhook`, `AlwaysAllow`, `AlwaysDeny`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name in metrics.
    pub name: String,
    /// The webhook, if it is one.
    pub webhook: Option<WebhookConfiguration>,
}

/// A webhook that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WebhookConfiguration {
    /// How long permissions are kept.
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: Span,
    /// Whether they are.
    pub cache_authorized_requests: Option<bool>,
    /// How long refusals are kept.
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: Span,
    /// Whether they are.
    pub cache_unauthorized_requests: Option<bool>,
    /// How long the webhook may take.
    pub timeout: Span,
    /// The version of the reviews that it is sent.
    pub subject_access_review_version: String,
    /// The version of the reviews that conditions see.
    pub match_condition_subject_access_review_version: String,
    /// What is decided if the webhook fails: `NoOpinion` or `Deny`.
    pub failure_policy: String,
    /// Where it is.
    pub connection_info: ConnectionInfo,
    /// What must hold of requests about which it is asked.
    pub match_conditions: Vec<MatchCondition>,
}

/// Where a webhook is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConnectionInfo {
    /// How that is said: `KubeConfigFile` or `InClusterConfig`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The file that says it.
    pub kube_config_file: Option<PathBuf>,
}

/// What must hold of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MatchCondition {
    /// The expression.
    pub expression: String,
}

/// A span of time as it is written, which may be negative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// As it is written; empty if it is not.
    pub text: String,
    /// How long it is; zero if it is negative.
    pub length: Duration,
    /// Whether it is less than nothing.
    pub negative: bool,
}

impl From<Duration> for Span {
    fn from(length: Duration) -> Self {
        Self { text: format!("{length:?}"), length, negative: false }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let positive = text.strip_prefix('-').unwrap_or(&text);
        let length = parse_duration(positive).map_err(serde::de::Error::custom)?;
        let negative = text.starts_with('-') && !length.is_zero();
        Ok(Self { length: if negative { Duration::ZERO } else { length }, negative, text })
    }
}

impl Span {
    /// Whether it is nothing at all.
    fn is_zero(&self) -> bool {
        self.length.is_zero() && !self.negative
    }
}

impl AuthorizationConfiguration {
    /// Reads a file's text, and says what it does not say. Whether its values make sense is for [`validate`] to say.
    ///
    /// # Errors
    /// When it is no such configuration.
    pub fn parse(text: &[u8]) -> Result<Self, config_file::Error> {
        let versions = ["v1", "v1beta1", "v1alpha1"];
        let (_, mut read): (_, Self) = config_file::decode(text, "AuthorizationConfiguration", &versions)?;
        for webhook in read.authorizers.iter_mut().filter_map(|authorizer| authorizer.webhook.as_mut()) {
            webhook.fill();
        }
        Ok(read)
    }

    /// The authorizers that flags name. `webhook`: the one of the mode `Webhook`.
    #[must_use]
    pub fn of_modes(modes: &[String], webhook: Option<&WebhookConfiguration>) -> Self {
        let authorizer = |mode: &String| {
            let is_webhook = mode == WEBHOOK;
            AuthorizerConfiguration {
                kind: mode.clone(),
                name: if is_webhook { "default".to_owned() } else { mode.to_lowercase() },
                webhook: webhook.filter(|_| is_webhook).cloned(),
            }
        };
        Self { authorizers: modes.iter().map(authorizer).collect() }
    }
}

/// The type of webhooks.
pub const WEBHOOK: &str = "Webhook";

impl WebhookConfiguration {
    /// The defaults of what may be left out.
    fn fill(&mut self) {
        if self.authorized_ttl.is_zero() {
            self.authorized_ttl = Duration::from_secs(5 * 60).into();
        }
        if self.unauthorized_ttl.is_zero() {
            self.unauthorized_ttl = Duration::from_secs(30).into();
        }
        self.cache_authorized_requests.get_or_insert(true);
        self.cache_unauthorized_requests.get_or_insert(true);
    }

    /// The webhook that the `--authorization-webhook-*` flags name.
    #[must_use]
    pub fn of_flags(file: PathBuf, version: String, authorized: Duration, unauthorized: Duration) -> Self {
        Self {
            authorized_ttl: authorized.into(),
            cache_authorized_requests: Some(!authorized.is_zero()),
            unauthorized_ttl: unauthorized.into(),
            cache_unauthorized_requests: Some(!unauthorized.is_zero()),
            timeout: Duration::from_secs(30).into(),
            subject_access_review_version: version,
            failure_policy: "NoOpinion".to_owned(),
            connection_info: ConnectionInfo {
                kind: "KubeConfigFile".to_owned(),
                kube_config_file: Some(file),
            },
            ..Self::default()
        }
    }

    /// For how long an answer is kept.
    #[must_use]
    pub fn ttl(&self, allowed: bool) -> Duration {
        let (ttl, kept) = match allowed {
            true => (self.authorized_ttl.length, self.cache_authorized_requests),
            false => (self.unauthorized_ttl.length, self.cache_unauthorized_requests),
        };
        if kept == Some(false) { Duration::ZERO } else { ttl }
    }
}
