//! Flags of what protects the server and its data.

use std::path::PathBuf;

use clap::Args;

use crate::encryption::reload::Source;

/// How the server protects itself and what it stores.
#[derive(Clone, Debug, Args)]
pub(super) struct ProtectionFlags {
    /// Whether requests are queued by priority and fairness; otherwise those beyond the limits are refused
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(super) enable_priority_and_fairness: bool,
    /// How likely an HTTP/2 client is sent elsewhere after a request, so that connections spread over servers
    #[arg(long, default_value_t = 0.0)]
    goaway_chance: f64,
    /// File with the configuration of how resources are encrypted in the store
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
    /// Whether changes of the --encryption-provider-config are taken over
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    encryption_provider_config_automatic_reload: bool,
}

impl ProtectionFlags {
    /// Where the configuration of encryption is.
    pub(super) fn encryption(&self) -> anyhow::Result<Option<Source>> {
        let reload = self.encryption_provider_config_automatic_reload;
        anyhow::ensure!(
            !reload || self.encryption_provider_config.is_some(),
            "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
        );
        Ok(self.encryption_provider_config.clone().map(|path| Source { path, reload }))
    }

    /// As upstream, one in fifty at most.
    pub(super) fn goaway_chance(&self) -> anyhow::Result<f64> {
        anyhow::ensure!(
            (0.0..=0.02).contains(&self.goaway_chance),
            "--goaway-chance can not be less than 0 or greater than 0.02"
        );
        Ok(self.goaway_chance)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn protection_is_as_upstream_unless_it_is_said_otherwise() {
        let config = parse("").expect("valid flags");
        assert!(config.priority_and_fairness && config.encryption.is_none());
        let config = parse(
            "--enable-priority-and-fairness=false --goaway-chance=0.001 --encryption-provider-config=/e.yaml \
             --encryption-provider-config-automatic-reload",
        );
        let config = config.expect("valid flags");
        assert!(!config.priority_and_fairness && config.goaway_chance > 0.0);
        assert!(config.encryption.is_some_and(|source| source.reload));
        assert!(parse("--goaway-chance=0.5").is_err_and(|why| why.contains("greater than 0.02")));
        assert!(parse("--encryption-provider-config-automatic-reload").is_err());
    }
}
