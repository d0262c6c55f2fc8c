//! The file of the configuration is looked at now and then; what is new in it comes into effect if it is good and all
//! its issuers can be reached (upstream `options.BuiltInAuthenticationOptions.ApplyTo`).

use std::path::PathBuf;
use std::time::Duration;

use api::field::{Error, Path};
use tokio_util::sync::CancellationToken;

use super::{Issuers, Jwt, JwtTokens, metrics};
use crate::authn::structured::{Anonymous, AuthenticationConfiguration, validate};
use crate::egress::Egress;

/// How long new issuers have to be reached.
const LIMIT: Duration = Duration::from_secs(60);

/// Watches the file.
pub struct Reloader {
    /// The file.
    pub path: PathBuf,
    /// How often it is looked at.
    pub every: Duration,
    /// What it held when it was last read.
    pub text: Vec<u8>,
    /// What it said of anonymous requests at first, which must not change.
    pub anonymous: Option<Anonymous>,
    /// Issuers that must not be among those of the file.
    pub disallowed: Vec<String>,
    /// Who believes the issuers.
    pub tokens: JwtTokens,
    /// How issuers are reached.
    pub egress: Egress,
}

/// What became of a file that has changed.
enum Failure {
    /// It will never be good.
    Bad(String),
    /// It may be, later.
    NotYet(String),
}

impl Reloader {
    /// Works until the token is cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = tokio::time::sleep(self.every) => {}
            }
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.look(&token) => {}
            }
        }
    }

    async fn look(&mut self, token: &CancellationToken) {
        let text = match std::fs::read(&self.path) {
            Ok(text) if text == self.text => return,
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, "failed to read authentication config file");
                return metrics::reloaded(false);
            }
        };
        match self.apply(&text, token).await {
            Ok(()) => {
                tracing::info!(file = %self.path.display(), "reloaded authentication config");
                self.text = text;
                metrics::reloaded(true);
            }
            Err(Failure::Bad(error)) => {
                tracing::warn!(error, "failed to load authentication config");
                self.text = text;
                metrics::reloaded(false);
            }
            Err(Failure::NotYet(error)) => {
                tracing::warn!(error, "failed to update authentication config");
                metrics::reloaded(false);
            }
        }
    }

    async fn apply(&self, text: &[u8], token: &CancellationToken) -> Result<(), Failure> {
        let config = AuthenticationConfiguration::parse(text).map_err(|e| Failure::Bad(e.to_string()))?;
        let checked = validate(&config, &self.disallowed);
        let mut errors = checked.as_ref().err().cloned().unwrap_or_default();
        if config.anonymous != self.anonymous {
            errors.push(Error::forbidden(&Path::new("anonymous"), "changed from initial configuration file"));
        }
        let (Ok(rules), true) = (checked, errors.is_empty()) else {
            return Err(Failure::Bad(super::super::setup::joined(&errors)));
        };
        let algorithms = super::signature::ALGORITHMS.map(str::to_owned).to_vec();
        let all = issuers(config, rules, algorithms, &self.egress);
        let issuers = Issuers::start(all.map_err(Failure::Bad)?, token);
        let reached = async {
            while !issuers.failures().is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(LIMIT, reached).await.is_err() {
            return Err(Failure::NotYet(issuers.failures().join(", ")));
        }
        self.tokens.replace(issuers);
        Ok(())
    }
}

/// The issuers of a configuration that has been checked.
///
/// # Errors
/// When one of them cannot be used.
pub fn issuers(
    config: AuthenticationConfiguration,
    rules: Vec<crate::authn::structured::Rules>,
    algorithms: Vec<String>,
    egress: &Egress,
) -> Result<Vec<Jwt>, String> {
    let pairs = config.jwt.into_iter().zip(rules);
    pairs.map(|(jwt, rules)| Jwt::new(jwt, rules, algorithms.clone(), egress)).collect()
}
