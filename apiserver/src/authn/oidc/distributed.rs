//! Claims that are not in the token but at another place that it names (OpenID Connect Core 1.0, 5.6.2).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use super::claims::Claims;
use super::provider::{Demands, Http, Provider};
use super::signature::unverified_issuer;

/// The most other issuers whose keys are kept.
const ISSUERS: usize = 64;

/// Where a claim is.
#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    access_token: String,
}

/// Finds one claim, wherever it is.
pub(super) struct Resolver {
    claim: String,
    http: Http,
    providers: Mutex<HashMap<String, Arc<Provider>>>,
}

impl Resolver {
    pub(super) fn new(claim: String, http: Http) -> Self {
        Self { claim, http, providers: Mutex::default() }
    }

    /// Puts the claim among the others, if it is somewhere else.
    pub(super) async fn expand(&self, claims: &mut Claims, demands: &Demands) -> Result<(), String> {
        let Some(endpoint) = self.endpoint(claims)? else { return Ok(()) };
        let claim = &self.claim;
        let failed = |why: String| format!("while getting distributed claim {claim:?}: {why}");
        let (url, secret) = (&endpoint.endpoint, &endpoint.access_token);
        let (status, _, text) = self.http.get(url, secret).await.map_err(failed)?;
        if !(200..=226).contains(&status.as_u16()) {
            return Err(failed(format!("error while getting distributed claim JWT: {status}")));
        }
        let token = String::from_utf8_lossy(&text).into_owned();
        let issuer = unverified_issuer(&token).ok_or_else(|| {
            format!(
                "getting untrusted issuer from endpoint {url} failed for claim {claim:?}: malformed token"
            )
        })?;
        let provider = self.provider(&issuer).await;
        let provider =
            provider.map_err(|why| format!("verifying untrusted issuer {issuer} failed: {why}"))?;
        let found = provider.verify(&token, demands).await;
        let found = found.map_err(|why| format!("verify distributed claim token: {why}"))?;
        let mut found: Claims = serde_json::from_slice(&found)
            .map_err(|error| format!("could not parse distributed claims for claim {claim}: {error}"))?;
        let value = found.remove(claim).ok_or_else(|| {
            format!("jwt returned by distributed claim endpoint {url:?} did not contain claim: {claim}")
        })?;
        claims.insert(claim.clone(), value);
        Ok(())
    }

    /// Where the claim is; `None` if it is in the token or nowhere.
    fn endpoint(&self, claims: &Claims) -> Result<Option<Endpoint>, String> {
        let Some(names) = claims.get("_claim_names").filter(|_| !claims.contains_key(&self.claim)) else {
            return Ok(None);
        };
        let names: BTreeMap<String, String> = serde_json::from_value(names.clone())
            .map_err(|error| format!("oidc: error parsing distributed claim names: {error}"))?;
        let sources = claims.get("_claim_sources").ok_or("oidc: no claim sources")?;
        let mut sources: BTreeMap<String, Endpoint> = serde_json::from_value(sources.clone())
            .map_err(|error| format!("oidc: could not parse claim sources: {error}"))?;
        let Some(source) = names.get(&self.claim) else { return Ok(None) };
        let endpoint = sources.remove(source).ok_or_else(|| {
            format!("id token _claim_names contained a source {source} missing in _claims_sources")
        })?;
        // Without an endpoint it would be in the source itself, which is not supported.
        Ok(Some(endpoint).filter(|endpoint| !endpoint.endpoint.is_empty()))
    }

    async fn provider(&self, issuer: &str) -> Result<Arc<Provider>, String> {
        if let Some(known) = self.providers.lock().get(issuer) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(Provider::discover(self.http.clone(), issuer, "").await?);
        let mut known = self.providers.lock();
        if known.len() >= ISSUERS {
            known.clear();
        }
        known.insert(issuer.to_owned(), Arc::clone(&found));
        Ok(found)
    }
}

/// Whether every name of a claim that is elsewhere has a source (as `go-oidc` checks in every token).
pub(super) fn check(
    names: &BTreeMap<String, String>,
    sources: &BTreeMap<String, Value>,
) -> Result<(), String> {
    for source in names.values() {
        if source.is_empty() {
            return Err("oidc: failed to obtain source from claim name".to_owned());
        }
        if !sources.contains_key(source) {
            return Err("oidc: source does not exist".to_owned());
        }
    }
    Ok(())
}
