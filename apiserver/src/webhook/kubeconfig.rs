//! Webhooks that a kubeconfig file names: the cluster is the webhook, the user is this server (upstream
//! `webhook.LoadKubeconfig`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use secrecy::ExposeSecret as _;

use super::{CallError, Client, LIMIT, cleaned};
use crate::remote::{Identity, Transport, Trust};

/// What this server shows of itself besides a certificate.
#[derive(Clone)]
pub(super) enum Credential {
    /// A header that stays the same.
    Fixed(String),
    /// A token in a file, which may change.
    File(PathBuf),
}

impl Credential {
    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let text = match self {
            Self::Fixed(text) => text.clone(),
            Self::File(path) => {
                let token = std::fs::read_to_string(path)
                    .map_err(|error| format!("failed to read token file {:?}: {error}", path.display()))?;
                format!("Bearer {}", token.trim())
            }
        };
        let mut value = HeaderValue::from_str(&text).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Client {
    /// The client of the webhook that the current context of a kubeconfig file names. `limit`: how long a call may
    /// take.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn from_kubeconfig(path: &Path, limit: Option<Duration>) -> Result<Self, CallError> {
        let failed = |why: String| CallError::new(format!("{}: {why}", path.display()));
        let config = Kubeconfig::read_from(path).map_err(|error| failed(error.to_string()))?;
        let (cluster, user) = current(&config).map_err(failed)?;
        let server = cluster.server.clone().unwrap_or_default();
        if server.is_empty() {
            return Err(failed("no server found for cluster".to_owned()));
        }
        let trust = trust(&cluster).map_err(failed)?;
        let identity = identity(&user).map_err(failed)?;
        let tls = trust.client(identity.as_ref()).map_err(failed)?;
        let url = if server.contains("://") { server } else { format!("http://{server}") };
        Ok(Self {
            url: cleaned(&url),
            transport: Transport::to_hosts(tls),
            agent: "kube-apiserver",
            authorization: credential(&user).map_err(failed)?,
            limit: limit.unwrap_or(LIMIT),
        })
    }
}

/// Cluster and user of the current context.
fn current(config: &Kubeconfig) -> Result<(Cluster, AuthInfo), String> {
    let name = config.current_context.clone().unwrap_or_default();
    // With one cluster and no context there is no doubt.
    let context = config.contexts.iter().find(|context| context.name == name);
    let Some(context) = context.and_then(|context| context.context.clone()) else {
        return Err(format!("context was not found for specified context: {name}"));
    };
    let cluster = config.clusters.iter().find(|cluster| cluster.name == context.cluster);
    let Some(cluster) = cluster.and_then(|cluster| cluster.cluster.clone()) else {
        return Err(format!("cluster {:?} does not exist", context.cluster));
    };
    let user = context.user.unwrap_or_default();
    let found = config.auth_infos.iter().find(|info| info.name == user);
    let user = found.and_then(|info| info.auth_info.clone()).unwrap_or_default();
    Ok((cluster, user))
}

fn trust(cluster: &Cluster) -> Result<Trust, String> {
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Ok(Trust::Anybody);
    }
    if cluster.tls_server_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err("tls-server-name is not supported for webhooks".to_owned());
    }
    let data = pem(cluster.certificate_authority_data.as_deref(), cluster.certificate_authority.as_deref())?;
    Ok(Trust::Bundle(data.unwrap_or_default()))
}

fn identity(user: &AuthInfo) -> Result<Option<Identity>, String> {
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err("credentials of other programs are not supported for webhooks".to_owned());
    }
    let certificate = pem(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
    let key_data = user.client_key_data.as_ref().map(|data| data.expose_secret().to_owned());
    let key = pem(key_data.as_deref(), user.client_key.as_deref())?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Identity::parse(&certificate, &key).map(Some).map_err(|error| error.to_string())
        }
        (None, None) => Ok(None),
        _ => Err("a client certificate and its key belong together".to_owned()),
    }
}

fn credential(user: &AuthInfo) -> Result<Option<Credential>, String> {
    if let Some(path) = user.token_file.as_ref().filter(|path| !path.is_empty()) {
        let credential = Credential::File(PathBuf::from(path));
        credential.header()?;
        return Ok(Some(credential));
    }
    if let Some(token) = &user.token {
        return Ok(Some(Credential::Fixed(format!("Bearer {}", token.expose_secret()))));
    }
    let Some(name) = user.username.as_ref().filter(|name| !name.is_empty()) else { return Ok(None) };
    let password = user.password.as_ref().map(|password| password.expose_secret()).unwrap_or_default();
    Ok(Some(Credential::Fixed(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))))
}

/// Data in base64, or what is in a file.
fn pem(data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        return STANDARD.decode(data.trim()).map(Some).map_err(|error| error.to_string());
    }
    let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(None) };
    std::fs::read(file).map(Some).map_err(|error| format!("unable to read {file}: {error}"))
}
