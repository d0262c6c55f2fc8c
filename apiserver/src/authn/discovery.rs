//! What others need to verify service account tokens themselves: the OpenID configuration and the key set (upstream
//! `pkg/serviceaccount/openidmetadata.go`).

use super::keys::VerifyingKey;

/// Path of the configuration document.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// Path of the key set.
pub const KEYS_PATH: &str = "/openid/v1/jwks";
/// How long clients may keep both, in seconds.
pub const MAX_AGE: u32 = 3600;

/// The two documents, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// `application/json`.
    pub configuration: String,
    /// `application/jwk-set+json`.
    pub keys: String,
}

/// Why there are no documents. The server runs without them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The issuer is no https URL without query and fragment.
    #[error("issuer URL must use https scheme, got: {0}")]
    Issuer(String),
    /// The URL of the key set is no https URL.
    #[error("jwksURI requires https scheme, parsed as: {0}")]
    KeysUrl(String),
}

impl Documents {
    /// Renders the documents. `external`: host and port for the URL of the key set if `keys_url` is empty.
    pub fn new(
        issuer: &str,
        keys_url: Option<&str>,
        external: &str,
        keys: &[VerifyingKey],
    ) -> Result<Self, Error> {
        if !issuer.starts_with("https://") || issuer.contains(['?', '#']) {
            return Err(Error::Issuer(issuer.to_owned()));
        }
        let keys_url = match keys_url.filter(|url| !url.is_empty()) {
            Some(url) if url.starts_with("https://") => url.to_owned(),
            Some(url) => return Err(Error::KeysUrl(url.to_owned())),
            None => format!("https://{external}{KEYS_PATH}"),
        };
        let mut algorithms: Vec<&str> = keys.iter().filter_map(|key| key.jwk["alg"].as_str()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        let configuration = serde_json::json!({
            "issuer": issuer,
            "jwks_uri": keys_url,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        });
        let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
        Ok(Self {
            configuration: configuration.to_string(),
            keys: serde_json::json!({ "keys": keys }).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::keys::tests::ec_pem;

    #[test]
    fn documents_name_issuer_and_keys() {
        let keys = VerifyingKey::all_from_pem(ec_pem().as_bytes()).expect("key");
        let documents = Documents::new("https://issuer", None, "10.0.0.1:6443", &keys).expect("documents");
        let configuration: serde_json::Value = serde_json::from_str(&documents.configuration).expect("json");
        assert_eq!(configuration["jwks_uri"], "https://10.0.0.1:6443/openid/v1/jwks");
        assert_eq!(configuration["id_token_signing_alg_values_supported"], serde_json::json!(["ES256"]));
        let set: serde_json::Value = serde_json::from_str(&documents.keys).expect("json");
        assert_eq!(set["keys"][0]["kid"], keys[0].id.as_str());
    }

    #[test]
    fn plain_names_are_no_issuers() {
        assert!(Documents::new("kubernetes/serviceaccount", None, "h", &[]).is_err());
        assert!(Documents::new("https://i", Some("http://x"), "h", &[]).is_err());
    }
}
