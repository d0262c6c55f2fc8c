//! Finding and reaching the API server: kubeconfig, `--master`, or the pod's own service account.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::Client;

/// Where the API server is and who we are.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Path of a kubeconfig file; without it and without `master` the in-cluster configuration is used.
    pub kubeconfig: Option<PathBuf>,
    /// Address of the API server; overrides the one in the kubeconfig.
    pub master: Option<String>,
    /// Value of the User-Agent header.
    pub user_agent: String,
}

/// Why no client could be made. The API server itself has not been asked yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig file is missing or wrong.
    #[error("kubeconfig {path:?} cannot be used")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a kubeconfig nor a service account is there.
    #[error("no --kubeconfig given and not running in a pod")]
    InCluster(#[source] kube::config::InClusterError),
    /// `--master` is not a URL.
    #[error("--master {master:?} is not a URL")]
    Master {
        /// The value of the flag.
        master: String,
        /// What is wrong with it.
        #[source]
        source: http::uri::InvalidUri,
    },
    /// The credentials cannot be used.
    #[error("client cannot be set up")]
    Client(#[source] Box<kube::Error>),
}

/// The flags by which every component is told where the API server is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClientFlags {
    /// Path to a kubeconfig file with authorization and API server location.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Address of the Kubernetes API server; overrides any value in the kubeconfig.
    #[arg(long)]
    pub master: Option<String>,
}

impl ClientFlags {
    /// The options these flags stand for.
    #[must_use]
    pub fn options(&self, user_agent: &str) -> ConnectOptions {
        ConnectOptions {
            kubeconfig: self.kubeconfig.clone(),
            master: self.master.clone().filter(|m| !m.is_empty()),
            user_agent: user_agent.to_owned(),
        }
    }
}

/// Makes a client. Does not yet talk to the API server.
///
/// # Errors
/// The configuration is missing or cannot be used.
pub async fn connect(options: &ConnectOptions) -> Result<Client, Error> {
    install_crypto_provider();
    build(load(options).await?, options)
}

/// Makes a client of the same server that shows no credentials: whoever uses it brings its own with each request.
///
/// # Errors
/// The configuration is missing or cannot be used.
pub async fn connect_anonymous(options: &ConnectOptions) -> Result<Client, Error> {
    install_crypto_provider();
    let mut config = load(options).await?;
    config.auth_info = kube::config::AuthInfo::default();
    build(config, options)
}

fn build(mut config: kube::Config, options: &ConnectOptions) -> Result<Client, Error> {
    if let Ok(agent) = http::HeaderValue::from_str(&options.user_agent) {
        config.headers.retain(|(name, _)| name != http::header::USER_AGENT);
        config.headers.push((http::header::USER_AGENT, agent));
    }
    config.disable_compression = true;
    Client::try_from(config).map_err(|source| Error::Client(Box::new(source)))
}

async fn load(options: &ConnectOptions) -> Result<kube::Config, Error> {
    let master = match &options.master {
        None => None,
        Some(master) => {
            let url = if master.contains("://") { master.clone() } else { format!("http://{master}") };
            let uri = url.parse::<http::Uri>();
            Some(uri.map_err(|source| Error::Master { master: master.clone(), source })?)
        }
    };
    let Some(path) = &options.kubeconfig else {
        return match master {
            Some(url) => Ok(kube::Config::new(url)),
            None => kube::Config::incluster().map_err(Error::InCluster),
        };
    };
    let wrong = |source| Error::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(wrong)?;
    if let Some(url) = master {
        config.cluster_url = url;
    }
    Ok(config)
}

/// Makes aws-lc-rs the process's TLS provider; further calls change nothing.
pub fn install_crypto_provider() {
    // An error only says that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::CryptoProvider::clone(&crate::tls::provider()).install_default();
}
