//! Flags about who decides what is permitted (upstream `pkg/kubeapiserver/options/authorization.go`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::duration;
use crate::authz::go_list;
use crate::authz::setup::AuthorizationConfig;
use crate::authz::structured::{WEBHOOK, WebhookConfiguration};

const MODES: [&str; 6] = ["AlwaysAllow", "AlwaysDeny", ABAC, WEBHOOK, "RBAC", "Node"];
const ABAC: &str = "ABAC";

/// Who decides what is permitted.
#[derive(Clone, Debug, Args)]
pub(super) struct AuthorizationFlags {
    /// Authorizers, in order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny (Node,RBAC if not given)
    #[arg(long, value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// File with the policies of the mode ABAC, a JSON object on each line
    #[arg(long)]
    authorization_policy_file: Option<PathBuf>,
    /// File with the AuthorizationConfiguration, instead of the other flags
    #[arg(long)]
    authorization_config: Option<PathBuf>,
    /// kubeconfig file that names the webhook of the mode Webhook
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReviews that are sent to it (v1beta1 if not given)
    #[arg(long, value_parser = ["v1", "v1beta1"])]
    authorization_webhook_version: Option<String>,
    /// How long permissions of the webhook are kept (5m if not given)
    #[arg(long, value_parser = duration)]
    authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long refusals of the webhook are kept (30s if not given)
    #[arg(long, value_parser = duration)]
    authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

impl AuthorizationFlags {
    /// Whether everything is permitted to everybody.
    pub fn always_allow(&self) -> bool {
        self.authorization_mode.iter().any(|mode| mode == "AlwaysAllow")
    }

    /// The configuration they make.
    pub fn into_config(self) -> anyhow::Result<AuthorizationConfig> {
        let others = !self.authorization_mode.is_empty()
            || self.authorization_webhook_config_file.is_some()
            || self.authorization_webhook_version.is_some()
            || self.authorization_webhook_cache_authorized_ttl.is_some()
            || self.authorization_webhook_cache_unauthorized_ttl.is_some();
        if self.authorization_config.is_some() {
            anyhow::ensure!(
                !others,
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* \
                 flags are defined"
            );
            return Ok(AuthorizationConfig {
                configuration_file: self.authorization_config,
                policy_file: self.authorization_policy_file,
                ..AuthorizationConfig::default()
            });
        }
        let mut modes = self.authorization_mode;
        if modes.is_empty() {
            modes = AuthorizationConfig::default().modes;
        }
        for (i, mode) in modes.iter().enumerate() {
            anyhow::ensure!(
                MODES.contains(&mode.as_str()),
                "authorization-mode {mode:?} is not a valid mode"
            );
            anyhow::ensure!(
                !modes[..i].contains(mode),
                "authorization-mode {} has mode specified more than once",
                go_list(&modes)
            );
        }
        let by_policies = modes.iter().any(|mode| mode == ABAC);
        anyhow::ensure!(
            !by_policies || self.authorization_policy_file.is_some(),
            "authorization-mode ABAC's authorization policy file not passed"
        );
        anyhow::ensure!(
            by_policies || self.authorization_policy_file.is_none(),
            "cannot specify --authorization-policy-file without mode ABAC"
        );
        let by_webhook = modes.iter().any(|mode| mode == WEBHOOK);
        let webhook = match (self.authorization_webhook_config_file, by_webhook) {
            (Some(file), true) => Some(WebhookConfiguration::of_flags(
                file,
                self.authorization_webhook_version.unwrap_or_else(|| "v1beta1".to_owned()),
                self.authorization_webhook_cache_authorized_ttl.unwrap_or(Duration::from_secs(5 * 60)),
                self.authorization_webhook_cache_unauthorized_ttl.unwrap_or(Duration::from_secs(30)),
            )),
            (None, true) => {
                anyhow::bail!("authorization-mode Webhook's authorization config file not passed")
            }
            (Some(_), false) => {
                anyhow::bail!("cannot specify --authorization-webhook-config-file without mode Webhook")
            }
            (None, false) => None,
        };
        let policy_file = self.authorization_policy_file;
        Ok(AuthorizationConfig { configuration_file: None, modes, policy_file, webhook })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn modes_are_checked() {
        let modes = |line: &str| parse(line).map(|config| config.authorization.modes);
        assert_eq!(modes("").expect("valid"), ["Node", "RBAC"]);
        assert_eq!(modes("--authorization-mode=RBAC,Node").expect("valid"), ["RBAC", "Node"]);
        for (line, why) in [
            ("--authorization-mode=Nope", "authorization-mode \"Nope\" is not a valid mode"),
            ("--authorization-mode=RBAC,RBAC", "[\"RBAC\" \"RBAC\"] has mode specified more than once"),
            (
                "--authorization-mode=AlwaysDeny,ABAC",
                "authorization-mode ABAC's authorization policy file not passed",
            ),
            (
                "--authorization-policy-file=/f",
                "cannot specify --authorization-policy-file without mode ABAC",
            ),
            ("--authorization-mode=Webhook", "config file not passed"),
            ("--authorization-webhook-config-file=/f", "without mode Webhook"),
            ("--authorization-config=/f --authorization-mode=RBAC", "can not be specified when"),
            ("--authorization-config=/f --authorization-webhook-version=v1", "can not be specified when"),
        ] {
            let error = modes(line).expect_err(line);
            assert!(error.contains(why), "{error}");
        }
        let config = parse("--authorization-mode=ABAC,RBAC --authorization-policy-file=/p").expect("valid");
        assert_eq!(config.authorization.policy_file.as_deref(), Some(std::path::Path::new("/p")));
        // A configuration file may name it, too.
        let config = parse("--authorization-config=/f --authorization-policy-file=/p").expect("valid");
        assert!(config.authorization.policy_file.is_some());
        let line = "--authorization-mode=Webhook --authorization-webhook-config-file=/f \
                    --authorization-webhook-cache-unauthorized-ttl=0s";
        let webhook = parse(line).expect("valid").authorization.webhook.expect("a webhook");
        assert_eq!(webhook.ttl(true), Duration::from_secs(300));
        assert_eq!(webhook.ttl(false), Duration::ZERO);
        assert_eq!(webhook.subject_access_review_version, "v1beta1");
    }
}
