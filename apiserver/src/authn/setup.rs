//! Puts the authenticators together as the configuration says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, SharedInformerFactory, Tasks};
use tokio_util::sync::CancellationToken;

use super::discovery::Documents;
use super::keys::{self, SigningKey, VerifyingKey};
use super::oidc::reload::{Reloader, issuers};
use super::oidc::{Issuers, JwtTokens, signature};
use super::service_account::{Cached, ServiceAccountTokens};
use super::structured::{Anonymous, AuthenticationConfiguration, validate};
use super::token_request::Issuer;
use super::union::Tokens;
use super::webhook::TokenWebhook;
use super::{Authenticator, TokenAuthenticator, Union, bootstrap_token, request_header, token_file, x509};
use crate::config::AuthenticationConfig;
use crate::config_file;
use crate::egress::Egress;
use crate::server::tls::ClientCa;
use crate::webhook::{self, CallError};

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
    /// The CA of the front proxy cannot be used.
    #[error("front proxy CA: {0}")]
    RequestHeader(String),
    /// Tokens are verified, but nobody is named as their issuer.
    #[error("--service-account-issuer is required with service account keys")]
    NoIssuer,
    /// The file with the authentication configuration is no such file.
    #[error("failed to load authentication configuration from file {path:?}")]
    Configuration {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: config_file::Error,
    },
    /// The authentication configuration makes no sense.
    #[error("invalid authentication configuration: {0}")]
    Invalid(String),
    /// The webhook cannot be used.
    #[error("authentication webhook")]
    Webhook(#[from] CallError),
    /// The authentication configuration and the flags say different things.
    #[error(
        "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in \
         authentication configuration file"
    )]
    AnonymousTwice,
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

/// What is needed besides the configuration.
pub struct Deps<'a> {
    /// Asks this server.
    pub client: &'a Client,
    /// Knows its objects.
    pub informers: &'a SharedInformerFactory,
    /// Owns what goes on in the background.
    pub tasks: &'a Tasks,
    /// Host and port clients reach the server at.
    pub external: &'a str,
    /// How others are reached.
    pub egress: &'a Egress,
}

/// Reads the files and builds the authenticators.
pub fn setup(config: &AuthenticationConfig, deps: &Deps<'_>) -> Result<Authentication, Error> {
    let keys = verifying_keys(config)?;
    let audiences = if config.api_audiences.is_empty() {
        config.service_account_issuers.first().cloned().into_iter().collect()
    } else {
        config.api_audiences.clone()
    };
    let (structured, anonymous) = structured(config)?;
    let mut authenticators = tokens(config, &keys, &audiences, deps)?;
    authenticators.push(Arc::new(jwt_tokens(config, structured, &audiences, deps)?));
    if let Some(given) = &config.webhook {
        let client = webhook::Client::from_kubeconfig(&given.file, None, deps.egress.control_plane())?;
        authenticators.push(Arc::new(TokenWebhook::new(client, given, audiences.clone())));
    }
    let tokens = Tokens::new(authenticators);
    let authenticator = Union {
        requests: requests(config, deps)?,
        tokens: tokens.clone(),
        audiences: audiences.clone(),
        loopback_token: None,
        anonymous,
    };
    let issuer = issuer(config, &audiences, deps.client)?;
    let documents = config.service_account_issuers.first().and_then(|issuer| {
        let keys_url = config.service_account_jwks_uri.as_deref();
        match Documents::new(issuer, keys_url, deps.external, &keys) {
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

fn requests(config: &AuthenticationConfig, deps: &Deps<'_>) -> Result<Vec<Arc<dyn Authenticator>>, Error> {
    let mut requests: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some(path) = &config.request_header.client_ca_file {
        let loaded = ClientCa::load(path).map_err(|error| Error::RequestHeader(format!("{error:#}")))?;
        let authorities = loaded.clone();
        deps.tasks.spawn("front-proxy-ca", |token| refresh(authorities, token));
        requests.push(Arc::new(request_header::RequestHeaders::new(loaded, config.request_header.clone())));
    }
    requests.push(Arc::new(x509::ClientCertificates));
    Ok(requests)
}

/// Reads authorities again when their file has changed.
async fn refresh(authorities: ClientCa, token: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = tokio::time::sleep(RELOAD) => authorities.refresh(),
        };
    }
}

fn tokens(
    config: &AuthenticationConfig,
    keys: &[VerifyingKey],
    audiences: &[String],
    deps: &Deps<'_>,
) -> Result<Vec<Arc<dyn TokenAuthenticator>>, Error> {
    let mut tokens: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(path) = &config.token_auth_file {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        tokens.push(Arc::new(token_file::TokenFile::parse(&text)?));
    }
    if !keys.is_empty() {
        if config.service_account_issuers.is_empty() {
            return Err(Error::NoIssuer);
        }
        let lookup = Arc::new(Cached::new(deps.client.clone(), deps.informers));
        let issuers = &config.service_account_issuers;
        tokens.push(Arc::new(ServiceAccountTokens::new(issuers, keys.to_vec(), audiences.to_vec(), lookup)));
    }
    if config.bootstrap_tokens {
        tokens.push(Arc::new(bootstrap_token::BootstrapTokens::new(deps.informers)));
    }
    Ok(tokens)
}

/// The configuration of a file, with its text, or the one that flags make.
struct Structured {
    config: AuthenticationConfiguration,
    file: Option<(PathBuf, Vec<u8>)>,
}

/// Reads the configuration; says who passes without credentials.
fn structured(config: &AuthenticationConfig) -> Result<(Structured, Anonymous), Error> {
    let by_flag = Anonymous { enabled: config.anonymous, conditions: Vec::new() };
    let Some(path) = &config.configuration_file else {
        let jwt = config.oidc.iter().map(super::structured::OidcFlags::authenticator).collect();
        let made = AuthenticationConfiguration { jwt, anonymous: None };
        return Ok((Structured { config: made, file: None }, by_flag));
    };
    let text = read(path)?;
    let found = AuthenticationConfiguration::parse(&text)
        .map_err(|source| Error::Configuration { path: path.clone(), source })?;
    if found.anonymous.is_some() && config.anonymous_given {
        return Err(Error::AnonymousTwice);
    }
    let anonymous = found.anonymous.clone().unwrap_or(by_flag);
    Ok((Structured { config: found, file: Some((path.clone(), text)) }, anonymous))
}

/// Those who believe the tokens of others; a file that says whose is watched.
fn jwt_tokens(
    config: &AuthenticationConfig,
    structured: Structured,
    audiences: &[String],
    deps: &Deps<'_>,
) -> Result<JwtTokens, Error> {
    let disallowed = config.service_account_issuers.clone();
    let rules =
        validate(&structured.config, &disallowed).map_err(|errors| Error::Invalid(joined(&errors)))?;
    let algorithms = match &config.oidc {
        Some(flags) if structured.file.is_none() => flags.signing_algorithms.clone(),
        _ => signature::ALGORITHMS.map(str::to_owned).to_vec(),
    };
    let anonymous = structured.config.anonymous.clone();
    let all = issuers(structured.config, rules, algorithms, deps.egress).map_err(Error::Invalid)?;
    let tokens = JwtTokens::new(Issuers::start(all, &deps.tasks.token()), audiences);
    if let Some((path, text)) = structured.file {
        let (tokens, egress) = (tokens.clone(), deps.egress.clone());
        let reloader = Reloader { path, every: RELOAD, text, anonymous, disallowed, tokens, egress };
        deps.tasks.spawn("authentication-config", |token| reloader.run(token));
    }
    Ok(tokens)
}

/// How often files are looked at that may change.
const RELOAD: Duration = Duration::from_secs(1);

/// All that is wrong, in one line (upstream `ErrorList.ToAggregate`).
pub(crate) fn joined(errors: &[api::field::Error]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors.iter().map(ToString::to_string) {
        if !texts.contains(&error) {
            texts.push(error);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
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
