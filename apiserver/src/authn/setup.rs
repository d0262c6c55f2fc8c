//! Puts the authenticators together as the configuration says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::{Client, SharedInformerFactory};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::discovery::Documents;
use super::keys::{self, SigningKey, VerifyingKey};
use super::service_account::{Cached, ServiceAccountTokens};
use super::token_request::Issuer;
use super::union::Tokens;
use super::{Authenticator, TokenAuthenticator, Union, bootstrap_token, request_header, token_file, x509};
use crate::config::AuthenticationConfig;

/// What the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A key file holds no usable key.
    #[error("service account key {path}")]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: keys::Error,
    },
    /// The token file is malformed.
    #[error("token file")]
    TokenFile(#[from] token_file::Error),
    /// The CA of the front proxy cannot be read.
    #[error("read {path}")]
    Certificates {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The CA of the front proxy cannot be used.
    #[error(transparent)]
    RequestHeader(#[from] request_header::Error),
    /// Tokens are verified, but nobody is named as their issuer.
    #[error("--service-account-issuer is required with service account keys")]
    NoIssuer,
}

/// Everything about who asks.
pub struct Authentication {
    /// Decides who a request is from.
    pub authenticator: Arc<Union>,
    /// The token authenticators, for reviews.
    pub tokens: Tokens,
    /// Audiences of this server.
    pub audiences: Vec<String>,
    /// Makes service account tokens, if there is a key to sign with.
    pub issuer: Option<Arc<Issuer>>,
    /// The discovery documents, if the issuer's URL allows them.
    pub documents: Option<Documents>,
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Reads the files and builds the authenticators. `external`: host and port clients reach the server at.
pub fn setup(
    config: &AuthenticationConfig,
    client: &Client,
    informers: &SharedInformerFactory,
    external: &str,
) -> Result<Authentication, Error> {
    let keys = verifying_keys(config)?;
    let audiences = if config.api_audiences.is_empty() {
        config.service_account_issuers.first().cloned().into_iter().collect()
    } else {
        config.api_audiences.clone()
    };
    let tokens = tokens(config, &keys, &audiences, client, informers)?;
    let authenticator = Union {
        requests: requests(config)?,
        tokens: tokens.clone(),
        audiences: audiences.clone(),
        loopback_token: None,
        anonymous: config.anonymous,
    };
    let issuer = issuer(config, &audiences, client)?;
    let documents = config.service_account_issuers.first().and_then(|issuer| {
        let keys_url = config.service_account_jwks_uri.as_deref();
        match Documents::new(issuer, keys_url, external, &keys) {
            Ok(documents) => Some(documents),
            Err(error) => {
                tracing::warn!(%error, "no discovery documents for service account tokens");
                None
            }
        }
    });
    Ok(Authentication { authenticator: Arc::new(authenticator), tokens, audiences, issuer, documents })
}

/// The keys of `--service-account-key-file`; the public half of the signing key if there are none.
fn verifying_keys(config: &AuthenticationConfig) -> Result<Vec<VerifyingKey>, Error> {
    let mut files: Vec<&PathBuf> = config.service_account_key_files.iter().collect();
    if files.is_empty() {
        files.extend(&config.service_account_signing_key_file);
    }
    let mut keys: Vec<VerifyingKey> = Vec::new();
    for path in files {
        let found = VerifyingKey::all_from_pem(&read(path)?)
            .map_err(|source| Error::Key { path: path.clone(), source })?;
        for key in found {
            if !keys.iter().any(|known| known.id == key.id) {
                keys.push(key);
            }
        }
    }
    Ok(keys)
}

fn requests(config: &AuthenticationConfig) -> Result<Vec<Arc<dyn Authenticator>>, Error> {
    let mut requests: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some(path) = &config.request_header.client_ca_file {
        let error = |source| Error::Certificates { path: path.clone(), source };
        let authorities = CertificateDer::pem_file_iter(path).map_err(error)?;
        let authorities = authorities.collect::<Result<Vec<_>, _>>().map_err(error)?;
        requests
            .push(Arc::new(request_header::RequestHeaders::new(authorities, config.request_header.clone())?));
    }
    requests.push(Arc::new(x509::ClientCertificates));
    Ok(requests)
}

fn tokens(
    config: &AuthenticationConfig,
    keys: &[VerifyingKey],
    audiences: &[String],
    client: &Client,
    informers: &SharedInformerFactory,
) -> Result<Tokens, Error> {
    let mut tokens: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(path) = &config.token_auth_file {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        tokens.push(Arc::new(token_file::TokenFile::parse(&text)?));
    }
    if !keys.is_empty() {
        if config.service_account_issuers.is_empty() {
            return Err(Error::NoIssuer);
        }
        let lookup = Arc::new(Cached::new(client.clone(), informers));
        let issuers = &config.service_account_issuers;
        tokens.push(Arc::new(ServiceAccountTokens::new(issuers, keys.to_vec(), audiences.to_vec(), lookup)));
    }
    if config.bootstrap_tokens {
        tokens.push(Arc::new(bootstrap_token::BootstrapTokens::new(informers)));
    }
    Ok(Tokens::new(tokens))
}

fn issuer(
    config: &AuthenticationConfig,
    audiences: &[String],
    client: &Client,
) -> Result<Option<Arc<Issuer>>, Error> {
    let Some(path) = &config.service_account_signing_key_file else { return Ok(None) };
    let key =
        SigningKey::from_pem(&read(path)?).map_err(|source| Error::Key { path: path.clone(), source })?;
    let issuer = config.service_account_issuers.first().cloned().ok_or(Error::NoIssuer)?;
    let longest = config.service_account_max_token_expiration;
    let extend = config.service_account_extend_token_expiration;
    Ok(Some(Arc::new(Issuer::new(key, issuer, audiences.to_vec(), longest, extend, client.clone()))))
}
