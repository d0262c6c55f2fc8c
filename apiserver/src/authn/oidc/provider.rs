//! What an issuer publishes: the discovery document, and the keys it signs with (upstream's use of `go-oidc`).
//!
//! Keys are fetched when a token comes that none of the known ones verifies, and kept; requests that need them at the
//! same time wait for one answer.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use super::distributed;
use super::signature::{Jwk, Signed, key_set};
use crate::authz::{go_list, go_quote};
use crate::body;
use crate::remote::{Dialer, Transport, Trust, describe};

/// How long an issuer may take to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Keys are fetched again a little before they become old.
const EARLY: Duration = Duration::from_secs(30);
/// Where the discovery document is below an issuer's URL.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Asks one issuer.
#[derive(Clone)]
pub struct Http(Transport);

impl Http {
    /// Believes these authorities (PEM); those of the system if empty. `dialer`: how connections are opened.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(authorities: &str, dialer: Dialer) -> Result<Self, String> {
        let tls = Trust::Bundle(authorities.as_bytes().to_vec()).client(None)?;
        Ok(Self(Transport::to_hosts(dialer, tls, None)))
    }

    /// What is at a URL: status, headers, body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, url: &str, token: &str) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
        let failed = |why: String| format!("Get {}: {why}", go_quote(url));
        let mut request = Request::get(url);
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body::empty()).map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            let response = self.0.send(request).await.map_err(|error| failed(describe(&error)))?;
            let (parts, answer) = response.into_parts();
            let collected = Limited::new(answer, MAX_ANSWER).collect().await;
            let bytes = collected.map_err(|error| format!("unable to read response body: {error}"))?;
            Ok((parts.status, parts.headers, bytes.to_bytes().to_vec()))
        };
        let late = || {
            failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
        };
        tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// An issuer whose discovery document has been read.
pub struct Provider {
    http: Http,
    issuer: String,
    jwks_url: String,
    keys: Mutex<Keys>,
    /// Held while keys are fetched.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Keys {
    known: Vec<Jwk>,
    /// When they are old; at once if the issuer does not say.
    expiry: Option<Instant>,
    /// How often they have been asked for, and how the last time failed.
    fetched: u64,
    failure: Option<String>,
}

/// What a token must be besides signed by the issuer.
#[derive(Clone, Debug)]
pub struct Demands {
    /// Algorithms that it may be signed with.
    pub algorithms: Vec<String>,
    /// Audiences of which it must have one.
    pub audiences: Vec<String>,
}

/// The claims that every token has.
#[derive(Deserialize)]
struct Standard {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    aud: Audience,
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(default, rename = "_claim_names")]
    names: BTreeMap<String, String>,
    #[serde(default, rename = "_claim_sources")]
    sources: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Provider {
    /// Reads the discovery document of `issuer`; at `discovery_url` if that is not empty.
    ///
    /// # Errors
    /// When it cannot be read, or is that of another issuer.
    pub async fn discover(http: Http, issuer: &str, discovery_url: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            issuer: String,
            #[serde(default)]
            jwks_uri: String,
        }
        let well_known = format!("{}{WELL_KNOWN}", issuer.strip_suffix('/').unwrap_or(issuer));
        let url = if discovery_url.is_empty() { well_known.as_str() } else { discovery_url };
        let (status, _, text) = http.get(url, "").await?;
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&text)));
        }
        let document: Document = serde_json::from_slice(&text)
            .map_err(|error| format!("oidc: failed to decode provider discovery object: {error}"))?;
        if document.issuer != issuer {
            let (expected, got) = (go_quote(issuer), go_quote(&document.issuer));
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {expected} got {got}"
            ));
        }
        if document.jwks_uri.is_empty() {
            return Err("provider did not return JWKS URL".to_owned());
        }
        Ok(Self {
            http,
            issuer: issuer.to_owned(),
            jwks_url: document.jwks_uri,
            keys: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// The claims of a token (JSON), if it is the issuer's, good now, and as demanded.
    ///
    /// # Errors
    /// Why not, in upstream's words.
    pub async fn verify(&self, token: &str, demands: &Demands) -> Result<Vec<u8>, String> {
        let signed = Signed::parse(token)?;
        if !demands.algorithms.contains(&signed.algorithm) {
            return Err(format!(
                "oidc: id token signed with unsupported algorithm, expected {} got {}",
                go_list(&demands.algorithms),
                go_quote(&signed.algorithm)
            ));
        }
        let failed = |why: String| format!("failed to verify signature: {why}");
        let claims = self.verify_signature(&signed).await.map_err(failed)?;
        let standard: Standard = serde_json::from_slice(&claims)
            .map_err(|error| format!("oidc: failed to unmarshal claims: {error}"))?;
        distributed::check(&standard.names, &standard.sources)?;
        check(&standard, &self.issuer, demands, jiff::Timestamp::now().as_second())?;
        Ok(claims)
    }

    async fn verify_signature(&self, signed: &Signed<'_>) -> Result<Vec<u8>, String> {
        let wrong = || "failed to verify id token signature".to_owned();
        let seen = {
            let keys = self.keys.lock();
            // Old keys are good: the issuer may be out of reach.
            if let Some(claims) = keys.known.iter().find_map(|key| signed.verify(key)) {
                return Ok(claims.to_vec());
            }
            if keys.expiry.is_some_and(|expiry| Instant::now() + EARLY <= expiry) {
                return Err(wrong());
            }
            keys.fetched
        };
        self.refresh(seen).await.map_err(|why| format!("fetching keys {why}"))?;
        let keys = self.keys.lock();
        keys.known.iter().find_map(|key| signed.verify(key)).map(<[u8]>::to_vec).ok_or_else(wrong)
    }

    /// Fetches keys, unless that has been done since they were `seen`.
    async fn refresh(&self, seen: u64) -> Result<(), String> {
        let _guard = self.fetching.lock().await;
        {
            let keys = self.keys.lock();
            if keys.fetched != seen {
                return keys.failure.clone().map_or(Ok(()), Err);
            }
        }
        let fetched = self.fetch().await;
        let mut keys = self.keys.lock();
        keys.fetched += 1;
        match fetched {
            Ok((known, expiry)) => {
                (keys.known, keys.expiry, keys.failure) = (known, expiry, None);
                Ok(())
            }
            Err(why) => {
                keys.failure = Some(why.clone());
                Err(why)
            }
        }
    }

    async fn fetch(&self) -> Result<(Vec<Jwk>, Option<Instant>), String> {
        let answer = self.http.get(&self.jwks_url, "").await;
        let (status, headers, text) = answer.map_err(|why| format!("oidc: get keys failed {why}"))?;
        let shown = || String::from_utf8_lossy(&text).into_owned();
        if status != StatusCode::OK {
            return Err(format!("oidc: get keys failed: {status} {}", shown()));
        }
        let known =
            key_set(&text).map_err(|error| format!("oidc: failed to decode keys: {error} {}", shown()))?;
        tracing::info!(issuer = self.issuer, keys = known.len(), "fetched the keys of an issuer");
        Ok((known, max_age(&headers).map(|age| Instant::now() + age)))
    }
}

/// How long an answer may be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut age = None;
    for value in headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()) {
        for part in value.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((name, seconds)) if name.eq_ignore_ascii_case("max-age") => {
                    age = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
                }
                None if part.eq_ignore_ascii_case("no-store") || part.eq_ignore_ascii_case("no-cache") => {
                    return None;
                }
                _ => {}
            }
        }
    }
    // Nothing is kept for longer than a year.
    age.map(|age| age.min(Duration::from_secs(365 * 24 * 3600)))
}

fn check(claims: &Standard, issuer: &str, demands: &Demands, now: i64) -> Result<(), String> {
    const GOOGLE: &str = "https://accounts.google.com";
    let google = issuer == GOOGLE && claims.iss == "accounts.google.com";
    if claims.iss != issuer && !google {
        let (expected, got) = (go_quote(issuer), go_quote(&claims.iss));
        return Err(format!("oidc: id token issued by a different provider, expected {expected} got {got}"));
    }
    let audiences = match &claims.aud {
        Audience::One(one) => std::slice::from_ref(one),
        Audience::Many(many) => many,
    };
    if !demands.audiences.iter().any(|wanted| audiences.contains(wanted)) {
        let got = go_list(audiences);
        return Err(match demands.audiences.as_slice() {
            [one] => format!("oidc: expected audience {} got {got}", go_quote(one)),
            many => {
                let mut sorted = many.to_vec();
                sorted.sort();
                format!("oidc: expected audience in {} got {got}", go_list(&sorted))
            }
        });
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds since 1970")]
    let whole = |seconds: f64| seconds as i64;
    let time = |seconds: i64| match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => seconds.to_string(),
    };
    let expiry = claims.exp.map_or(0, whole);
    if expiry < now || claims.exp.is_none() {
        return Err(format!("oidc: token is expired (Token Expiry: {})", time(expiry)));
    }
    // Clocks may differ a little.
    if let Some(begin) = claims.nbf.map(whole).filter(|begin| now + 60 < *begin) {
        return Err(format!(
            "oidc: current time {} before the nbf (not before) time: {}",
            time(now),
            time(begin)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn tokens_are_for_us_and_for_now() {
        let demand = |audiences: &[&str]| Demands {
            algorithms: Vec::new(),
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        };
        let verdict = |claims: Value, issuer: &str, audiences: &[&str]| {
            let claims: Standard = serde_json::from_value(claims).map_err(|error| error.to_string())?;
            check(&claims, issuer, &demand(audiences), 1000)
        };
        let a = "https://a";
        for (claims, audiences, expected) in [
            (json!({"iss": a, "aud": "x", "exp": 1000}), vec!["x"], None),
            (json!({"iss": a, "aud": ["y", "x"], "exp": 1e3, "nbf": 1060}), vec!["x"], None),
            (json!({"iss": a, "aud": ["y"], "exp": 1000}), vec!["x", "y"], None),
            (
                json!({"iss": "https://b", "aud": "x", "exp": 1000}),
                vec!["x"],
                Some(
                    r#"oidc: id token issued by a different provider, expected "https://a" got "https://b""#,
                ),
            ),
            (
                json!({"iss": a, "aud": "y", "exp": 1000}),
                vec!["x"],
                Some(r#"oidc: expected audience "x" got ["y"]"#),
            ),
            (
                json!({"iss": a, "exp": 1000}),
                vec!["z", "x"],
                Some(r#"oidc: expected audience in ["x" "z"] got []"#),
            ),
            (
                json!({"iss": a, "aud": "x", "exp": 999}),
                vec!["x"],
                Some("oidc: token is expired (Token Expiry: 1970-01-01 00:16:39 +0000 UTC)"),
            ),
            (
                json!({"iss": a, "aud": "x"}),
                vec!["x"],
                Some("oidc: token is expired (Token Expiry: 1970-01-01 00:00:00 +0000 UTC)"),
            ),
            (
                json!({"iss": a, "aud": "x", "exp": 2000, "nbf": 1061}),
                vec!["x"],
                Some(
                    "oidc: current time 1970-01-01 00:16:40 +0000 UTC before the nbf (not before) time: \
                     1970-01-01 00:17:41 +0000 UTC",
                ),
            ),
        ] {
            assert_eq!(verdict(claims.clone(), a, &audiences).err().as_deref(), expected, "{claims}");
        }
        let google = json!({"iss": "accounts.google.com", "aud": "x", "exp": 2000});
        assert_eq!(verdict(google, "https://accounts.google.com", &["x"]), Ok(()));
    }

    #[test]
    fn keys_are_kept_as_long_as_the_issuer_says() {
        let age = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().expect("a header"));
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=300, must-revalidate"), Some(300));
        assert_eq!(age("max-age=\"5\""), Some(5));
        assert_eq!(age("no-store, max-age=300"), None);
        assert_eq!(age("private"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
