//! Tokens that others sign: JSON Web Tokens of OpenID Connect issuers (upstream
//! `plugin/pkg/authenticator/token/oidc`).
//!
//! Each issuer has a task that reads its discovery document, and tries again until it can; until then its tokens are
//! refused. A change of the configuration takes effect when all issuers of the new one have been reached.

mod claims;
mod distributed;
pub mod expressions;
mod metrics;
mod provider;
pub mod reload;
pub mod signature;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::claims::{Claims, user_of};
use self::provider::{Demands, Http, Provider};
use super::structured::{JwtAuthenticator, Rules};
use super::{TokenAuthenticator, TokenError, TokenUser};
use crate::egress::Egress;

/// How long it takes until an issuer that was out of reach is asked again.
const AGAIN: Duration = Duration::from_secs(10);

/// One issuer.
pub struct Jwt {
    config: JwtAuthenticator,
    rules: Rules,
    demands: Demands,
    http: Http,
    provider: OnceLock<Provider>,
    /// Why there is no provider yet.
    failure: Mutex<String>,
    resolver: Option<distributed::Resolver>,
}

impl Jwt {
    /// Of a configuration that has been checked; `algorithms` may sign.
    ///
    /// # Errors
    /// When its authorities cannot be used, or it is to be reached in a way that there is not.
    pub fn new(
        config: JwtAuthenticator,
        rules: Rules,
        algorithms: Vec<String>,
        egress: &Egress,
    ) -> Result<Self, String> {
        let issuer = &config.issuer;
        let dialer = egress.of_issuer(&issuer.egress_selector_type)?;
        let http = Http::new(&issuer.certificate_authority, dialer)?;
        let groups = &config.claim_mappings.groups.claim;
        let resolver = (!groups.is_empty()).then(|| distributed::Resolver::new(groups.clone(), http.clone()));
        let demands = Demands { algorithms, audiences: issuer.audiences.clone() };
        let failure =
            Mutex::new(format!("oidc: authenticator for issuer {:?} is not initialized", issuer.url));
        Ok(Self { rules, demands, http, provider: OnceLock::new(), failure, resolver, config })
    }

    /// Reads the discovery document, as often as it takes.
    async fn initialize(&self) {
        let issuer = &self.config.issuer;
        loop {
            match Provider::discover(self.http.clone(), &issuer.url, &issuer.discovery_url).await {
                Ok(provider) => {
                    let _ = self.provider.set(provider);
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        issuer = issuer.url,
                        error,
                        "could not reach an issuer of tokens, will retry"
                    );
                    *self.failure.lock() = error;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Why tokens of this issuer are refused, if they are.
    fn failure(&self) -> Option<String> {
        if self.provider.get().is_some() {
            return None;
        }
        let (url, why) = (&self.config.issuer.url, self.failure.lock());
        Some(format!("oidc: authenticator for issuer {url:?} is not healthy: {why}"))
    }

    async fn authenticate(&self, token: &str) -> Result<super::User, String> {
        let provider = self.provider.get().ok_or("oidc: authenticator not initialized")?;
        let verified = provider.verify(token, &self.demands).await;
        let verified = verified.map_err(|why| format!("oidc: verify token: {why}"))?;
        let mut claims: Claims =
            serde_json::from_slice(&verified).map_err(|error| format!("oidc: parse claims: {error}"))?;
        if let Some(resolver) = &self.resolver {
            let expanded = resolver.expand(&mut claims, &self.demands).await;
            expanded.map_err(|why| format!("oidc: could not expand distributed claims: {why}"))?;
        }
        user_of(&claims, &self.config, &self.rules)
    }
}

/// The issuers of one configuration, and the tasks that reach them.
pub struct Issuers {
    all: Vec<Arc<Jwt>>,
    stop: CancellationToken,
}

impl Issuers {
    /// Begins to reach them. The tasks end with `token`, or when this is dropped.
    #[must_use]
    pub fn start(all: Vec<Jwt>, token: &CancellationToken) -> Self {
        let stop = token.child_token();
        let all: Vec<Arc<Jwt>> = all.into_iter().map(Arc::new).collect();
        for jwt in &all {
            let (jwt, stop) = (Arc::clone(jwt), stop.clone());
            tokio::spawn(async move {
                tokio::select! { () = stop.cancelled() => {}, () = jwt.initialize() => {} }
            });
        }
        Self { all, stop }
    }

    /// Whom a token is not believed because an issuer has not been reached.
    fn failures(&self) -> Vec<String> {
        self.all.iter().filter_map(|jwt| jwt.failure()).collect()
    }
}

impl Drop for Issuers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Believes the tokens of all configured issuers. Cheap to clone; clones share the issuers.
#[derive(Clone)]
pub struct JwtTokens {
    issuers: Arc<RwLock<Arc<Issuers>>>,
    /// Audiences of the server, for which every token that is believed is good.
    audiences: Arc<[String]>,
}

impl JwtTokens {
    /// Believes these.
    #[must_use]
    pub fn new(issuers: Issuers, audiences: &[String]) -> Self {
        Self { issuers: Arc::new(RwLock::new(Arc::new(issuers))), audiences: audiences.into() }
    }

    fn replace(&self, issuers: Issuers) {
        *self.issuers.write() = Arc::new(issuers);
    }
}

#[async_trait::async_trait]
impl TokenAuthenticator for JwtTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, TokenError> {
        let issuers = Arc::clone(&self.issuers.read());
        if issuers.all.is_empty() {
            return Ok(None);
        }
        // A token names one issuer: that one decides.
        let Some(issuer) = signature::unverified_issuer(token) else { return Ok(None) };
        let Some(jwt) = issuers.all.iter().find(|jwt| jwt.config.issuer.url == issuer) else {
            return Ok(None);
        };
        let common: Vec<String> =
            audiences.iter().filter(|audience| self.audiences.contains(audience)).cloned().collect();
        if common.is_empty() && !audiences.is_empty() {
            return Ok(None);
        }
        let begin = Instant::now();
        let outcome = jwt.authenticate(token).await;
        metrics::authenticated(&issuer, outcome.is_ok(), begin.elapsed());
        outcome.map(|user| Some(TokenUser { user, audiences: common })).map_err(TokenError)
    }
}
