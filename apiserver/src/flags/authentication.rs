//! Flags about who is believed (upstream `pkg/kubeapiserver/options/authentication.go`).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args};

use super::duration;
use crate::authn::oidc::signature::ALGORITHMS;
use crate::authn::structured::OidcFlags;
use crate::authn::webhook::WebhookConfig;
use crate::config::{AuthenticationConfig, RequestHeaderConfig};

/// Who is believed.
#[derive(Clone, Debug, Args)]
pub(super) struct AuthenticationFlags {
    /// CA bundle that client certificates are verified against
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Keys (PEM) that verify service account tokens; may be given more than once
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// Private key (PEM) that signs service account tokens
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Issuer of service account tokens; may be given more than once, the first one signs
    #[arg(long)]
    service_account_issuer: Vec<String>,
    /// URI of the key set in the discovery document
    #[arg(long)]
    service_account_jwks_uri: Option<String>,
    /// Whether service account tokens are checked against the objects they are bound to
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    service_account_lookup: bool,
    /// Whether tokens injected into pods live longer than asked for, for clients that do not reload them
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    service_account_extend_token_expiration: bool,
    /// Longest life a service account token may be asked for
    #[arg(long, value_parser = duration)]
    service_account_max_token_expiration: Option<Duration>,
    /// Audiences of this API; the issuer if not given
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Whether requests without credentials pass as system:anonymous (true if not given)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    anonymous_auth: Option<bool>,
    /// CSV file of static tokens: token,user,uid,"group1,group2"
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Whether bootstrap tokens authenticate
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    enable_bootstrap_token_auth: bool,
    /// File with the AuthenticationConfiguration: issuers of tokens, and where requests without credentials pass
    #[arg(long)]
    authentication_config: Option<PathBuf>,
    /// CA bundle for the client certificate of a front proxy whose --requestheader-*-headers are believed
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names a front proxy may have; any if empty
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers that hold the user name
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    requestheader_username_headers: Vec<String>,
    /// Headers that hold the uid
    #[arg(long, value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    /// Headers that hold groups
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    requestheader_group_headers: Vec<String>,
    /// Prefixes of headers that hold extra values
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    #[command(flatten)]
    oidc: Oidc,
    /// kubeconfig file that names a webhook which knows tokens
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReviews that are sent to it
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    authentication_token_webhook_version: String,
    /// How long its answers are kept
    #[arg(long, default_value = "2m", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
}

/// One issuer of tokens.
#[derive(Clone, Debug, Args)]
struct Oidc {
    /// URL of an OpenID issuer whose tokens are believed
    #[arg(long)]
    oidc_issuer_url: Option<String>,
    /// The audience of its tokens
    #[arg(long)]
    oidc_client_id: Option<String>,
    /// CA bundle for connections to it; the system's if not given
    #[arg(long)]
    oidc_ca_file: Option<PathBuf>,
    /// The claim that holds the user name (sub if not given)
    #[arg(long)]
    oidc_username_claim: Option<String>,
    /// What is put before user names; - for nothing. The issuer's URL if not given, unless the claim is email
    #[arg(long)]
    oidc_username_prefix: Option<String>,
    /// The claim that holds groups
    #[arg(long)]
    oidc_groups_claim: Option<String>,
    /// What is put before groups
    #[arg(long)]
    oidc_groups_prefix: Option<String>,
    /// Algorithms that tokens may be signed with (RS256 if not given)
    #[arg(long, value_delimiter = ',')]
    oidc_signing_algs: Vec<String>,
    /// claim=value that tokens must have; may be given more than once
    #[arg(long, value_parser = pair)]
    oidc_required_claim: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text} must be formatted as key=value"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Oidc {
    fn is_given(&self) -> bool {
        let texts = [
            &self.oidc_issuer_url,
            &self.oidc_client_id,
            &self.oidc_username_claim,
            &self.oidc_username_prefix,
            &self.oidc_groups_claim,
            &self.oidc_groups_prefix,
        ];
        texts.into_iter().any(Option::is_some)
            || self.oidc_ca_file.is_some()
            || !self.oidc_signing_algs.is_empty()
            || !self.oidc_required_claim.is_empty()
    }

    fn flags(self) -> anyhow::Result<Option<OidcFlags>> {
        if !self.is_given() {
            return Ok(None);
        }
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (Some(issuer_url), Some(client_id)) = (filled(self.oidc_issuer_url), filled(self.oidc_client_id))
        else {
            anyhow::bail!(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
            );
        };
        let mut algorithms = self.oidc_signing_algs;
        if algorithms.is_empty() {
            algorithms.push("RS256".to_owned());
        }
        if let Some(unknown) = algorithms.iter().find(|name| !ALGORITHMS.contains(&name.as_str())) {
            anyhow::bail!("oidc: unsupported signing alg: {unknown:?}");
        }
        let authorities = match &self.oidc_ca_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
            }
            None => String::new(),
        };
        Ok(Some(OidcFlags {
            issuer_url,
            client_id,
            certificate_authority: authorities,
            username_claim: self.oidc_username_claim.unwrap_or_else(|| "sub".to_owned()),
            username_prefix: self.oidc_username_prefix.unwrap_or_default(),
            groups_claim: self.oidc_groups_claim.unwrap_or_default(),
            groups_prefix: self.oidc_groups_prefix.unwrap_or_default(),
            required_claims: self.oidc_required_claim,
            signing_algorithms: algorithms,
        }))
    }
}

impl AuthenticationFlags {
    /// The configuration they make. `always_allow`: whether everything is permitted to everybody, who then must not be
    /// nobody.
    pub fn into_config(self, always_allow: bool) -> anyhow::Result<AuthenticationConfig> {
        if self.authentication_config.is_some() && self.oidc.is_given() {
            anyhow::bail!("authentication-config file and oidc-* flags are mutually exclusive");
        }
        let mut anonymous = self.anonymous_auth.unwrap_or(true);
        if anonymous && always_allow {
            tracing::warn!(
                "requests without credentials are refused, since everything would be permitted to them"
            );
            anonymous = false;
        }
        Ok(AuthenticationConfig {
            client_ca_file: self.client_ca_file,
            anonymous,
            anonymous_given: self.anonymous_auth.is_some(),
            configuration_file: self.authentication_config,
            oidc: self.oidc.flags()?,
            webhook: self.authentication_token_webhook_config_file.map(|file| WebhookConfig {
                file,
                version: self.authentication_token_webhook_version,
                ttl: self.authentication_token_webhook_cache_ttl,
            }),
            token_auth_file: self.token_auth_file,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            service_account_key_files: self.service_account_key_file,
            service_account_signing_key_file: self.service_account_signing_key_file,
            service_account_issuers: self.service_account_issuer,
            service_account_jwks_uri: self.service_account_jwks_uri,
            api_audiences: self.api_audiences,
            service_account_lookup: self.service_account_lookup,
            service_account_extend_token_expiration: self.service_account_extend_token_expiration,
            service_account_max_token_expiration: self.service_account_max_token_expiration,
            request_header: RequestHeaderConfig {
                client_ca_file: self.requestheader_client_ca_file,
                allowed_names: self.requestheader_allowed_names,
                username_headers: self.requestheader_username_headers,
                uid_headers: self.requestheader_uid_headers,
                group_headers: self.requestheader_group_headers,
                extra_headers_prefix: self.requestheader_extra_headers_prefix,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn an_issuer_is_named_whole() {
        let config = parse(
            "--oidc-issuer-url=https://a --oidc-client-id=b --oidc-required-claim=hd=x=y --oidc-required-claim=a=b \
             --oidc-signing-algs=RS256,ES512",
        )
        .expect("valid flags");
        let oidc = config.authentication.oidc.expect("an issuer");
        assert_eq!(oidc.username_claim, "sub");
        assert_eq!(oidc.signing_algorithms, ["RS256", "ES512"]);
        let claims: Vec<_> =
            oidc.required_claims.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(claims, ["hd x=y", "a b"]);
        for (line, why) in [
            ("--oidc-issuer-url=https://a", "must be specified together"),
            ("--oidc-username-claim=sub", "must be specified together"),
            (
                "--oidc-issuer-url=https://a --oidc-client-id=b --oidc-signing-algs=HS256",
                "unsupported signing alg",
            ),
            ("--oidc-client-id=b --authentication-config=/f", "mutually exclusive"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn nobody_may_not_do_everything() {
        assert!(parse("").expect("valid").authentication.anonymous);
        assert!(!parse("--authorization-mode=AlwaysAllow").expect("valid").authentication.anonymous);
        assert!(!parse("--anonymous-auth=false").expect("valid").authentication.anonymous);
    }
}
