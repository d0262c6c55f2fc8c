//! The server: its parts put together, started and stopped.
//!
//! [`start`] opens the store, starts the caches, makes the loopback client, builds authentication, authorization and
//! admission on informers over that client, and listens. A [`Running`] server ends when its token is cancelled: first
//! the listener, then whatever looks after the default objects, last the store.

mod audited;
pub mod context;
mod counted;
pub mod listener;
pub mod loopback;
pub mod protected;
pub mod response;
pub mod security;
pub mod service;
pub mod storage;
pub mod tls;
mod websocket;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use client::{Client, SharedInformerFactory, Tasks};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::authn::User;
use crate::bootstrap::{self, Advertised, Facts, Member};
use crate::cacher::Cacher;
use crate::config::{Config, ServingCert};
use crate::egress::Egress;
use crate::encryption::reload::{Keeper, encrypted};
use crate::extensions::Definitions;
use crate::flowcontrol::conditions::FlowSchemas;
use crate::metrics::RequestMetrics;
use crate::openapi::Publisher;
use crate::registry::Registry;
use crate::remote::Resolver;
use crate::webhook::Clients;
pub use context::Context;
use listener::Listener;
use loopback::Loopback;
use protected::Protection;
use security::{Remotes, Security};
use tls::{ClientCa, Source};

/// What every request needs.
pub struct Server {
    /// How the server is configured.
    pub config: Config,
    /// The store, and the caches above it.
    pub cacher: Cacher,
    /// What is served.
    pub registry: Arc<Registry>,
    /// What looks after the keys that objects are encrypted with, if they are.
    pub encryption: Option<Arc<Keeper>>,
    /// What is counted.
    pub metrics: RequestMetrics,
    /// What is described for clients.
    pub openapi: Publisher,
    /// What keeps the server from doing too much at once.
    pub protection: Protection,
    /// What is written down of requests, if anything is.
    pub audit: Option<Arc<Audit>>,
    /// Cancelled when the server stops.
    pub token: CancellationToken,
    security: OnceLock<Security>,
    address: OnceLock<SocketAddr>,
    bootstrapped: AtomicBool,
    custom_served: Arc<AtomicBool>,
}

impl Server {
    fn new(
        config: Config,
        cacher: Cacher,
        registry: Registry,
        encryption: Option<Arc<Keeper>>,
        tasks: &Tasks,
        egress: &Egress,
    ) -> anyhow::Result<Self> {
        let registry = Arc::new(registry);
        Ok(Self {
            audit: Audit::open(&config.audit, tasks, egress.control_plane())?,
            protection: Protection::new(&config, &registry)?,
            config,
            cacher,
            registry,
            encryption,
            metrics: RequestMetrics::default(),
            openapi: Publisher::default(),
            token: tasks.token(),
            security: OnceLock::new(),
            address: OnceLock::new(),
            bootstrapped: AtomicBool::new(false),
            custom_served: Arc::default(),
        })
    }

    /// Who may do what; `None` while the server starts.
    #[must_use]
    pub fn security(&self) -> Option<&Security> {
        self.security.get()
    }

    /// Whether the caches of all built-in resources have been loaded, and custom resources are served.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.registry.is_loaded() && self.custom_served.load(Ordering::Acquire)
    }

    /// Set when the definitions of custom resources have been read.
    pub(crate) fn custom_served(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.custom_served)
    }

    /// Whether the default objects are there.
    #[must_use]
    pub fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    /// Host and port for URLs that are handed out.
    #[must_use]
    pub fn external_address(&self) -> String {
        let port = self.address.get().map_or(self.config.bind_address.port(), SocketAddr::port);
        match &self.config.external_hostname {
            Some(host) => format!("{host}:{port}"),
            None => SocketAddr::new(advertise_address(&self.config), port).to_string(),
        }
    }
}

/// A server that serves.
#[derive(Clone)]
pub struct Running {
    server: Arc<Server>,
    address: SocketAddr,
    tasks: Tasks,
}

impl Running {
    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client that acts as the server itself, with no socket in between.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_as(User::loopback())
    }

    /// A client that acts as `user`, with no socket in between. The user needs no credentials here, and is authorized
    /// as anybody is.
    #[must_use]
    pub fn client_as(&self, user: User) -> Client {
        Loopback::new(Arc::clone(&self.server), user).client()
    }

    /// The tower service that [`Running::client_as`] is a client of.
    #[must_use]
    pub fn service_as(&self, user: User) -> Loopback {
        Loopback::new(Arc::clone(&self.server), user)
    }

    /// Waits until caches are loaded and the default objects exist; what `/readyz` says.
    pub async fn ready(&self) {
        let done = || self.server.is_bootstrapped() && self.server.is_loaded();
        while !done() && !self.server.token.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the token was cancelled and everything has stopped.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.tasks.wait().await.context("the server stopped")
    }
}

/// Starts a server and runs it until `token` is cancelled.
pub async fn run(config: Config, token: CancellationToken) -> anyhow::Result<()> {
    start(config, token).await?.wait().await
}

/// Starts a server. It serves when this returns; [`Running::ready`] says when the default objects are there.
pub async fn start(config: Config, token: CancellationToken) -> anyhow::Result<Running> {
    let tasks = Tasks::child_of(&token);
    let prefix = config.storage_prefix.trim_end_matches('/').to_owned();
    let egress = Egress::load(config.egress_file.as_deref())?;
    let (store, encryption) = open_store(&config, &prefix, &tasks, &egress).await?;
    let cache_config =
        crate::cacher::Config { prefix: format!("{prefix}/"), ..crate::cacher::Config::default() };
    let cacher = Cacher::start(Arc::clone(&store), cache_config, tasks.token())
        .await
        .context("start the watch cache")?;
    let registry = Registry::built_in(&cacher, &prefix, config.event_ttl);
    let server = Arc::new(Server::new(config, cacher, registry, encryption, &tasks, &egress)?);
    let own = Loopback::new(Arc::clone(&server), User::loopback()).client();
    let informers = SharedInformerFactory::new(own.clone(), &tasks);
    let resolver = Resolver::new(&informers);
    let webhooks = Clients::new(own.clone(), resolver.clone(), egress.clone());
    let remotes = Remotes { resolver: &resolver, webhooks: &webhooks, egress: &egress };
    let (security, repair) = Security::build(&server, own.clone(), &informers, &remotes, &tasks)?;
    let definitions = Definitions::new(Arc::clone(&server), own.clone(), &informers, webhooks);
    security.aggregator.spawn(&tasks);
    if server.security.set(security).is_err() {
        anyhow::bail!("a server is started once");
    }
    let listener = bind(&server).await?;
    let address = listener.address()?;
    let _ = server.address.set(address);
    let running = Running { server: Arc::clone(&server), address, tasks: tasks.clone() };
    spawn(&running, listener, own.clone(), store, repair)?;
    tasks.spawn("custom-resources", |token| definitions.run(token));
    protect(&server, own, &informers, &tasks);
    tracing::info!(%address, "serving");
    Ok(running)
}

/// The store, which keeps some resources encrypted if it is said how.
async fn open_store(
    config: &Config,
    prefix: &str,
    tasks: &Tasks,
    egress: &Egress,
) -> anyhow::Result<(Arc<dyn store::Store>, Option<Arc<Keeper>>)> {
    let store = storage::open(&config.storage, egress.etcd()).await?;
    let Some(source) = &config.encryption else { return Ok((store, None)) };
    let (store, keeper) = encrypted(store, prefix, source).await?;
    let watched = Arc::clone(&keeper);
    tasks.spawn("encryption", |token| watched.run(token));
    Ok((store, Some(keeper)))
}

/// Keeps flow control as its objects say, if there is any.
fn protect(server: &Server, own: Client, informers: &SharedInformerFactory, tasks: &Tasks) {
    let Protection::Fair(control) = &server.protection else { return };
    let (controller, conditions) = (control.controller(informers), FlowSchemas::new(own, informers));
    tasks.spawn("flow-control", |token| controller.run(token));
    tasks.spawn("flow-schemas", |token| conditions.run(token));
}

fn spawn(
    running: &Running,
    listener: Listener,
    own: Client,
    store: Arc<dyn store::Store>,
    repair: crate::registry::service_repair::ServiceRepair,
) -> anyhow::Result<()> {
    let (server, tasks) = (Arc::clone(&running.server), &running.tasks);
    let config = server.config.clone();
    let facts = facts(&config, running.address)?;
    let own_address = Advertised { address: advertise_address(&config), port: running.address.port() };
    let member = Member::new(Arc::clone(&store), own.clone(), &config.storage_prefix, own_address);
    let serving = Arc::clone(&server);
    tasks.spawn("listener", move |token| async move {
        listener.serve(Arc::clone(&serving), config.shutdown_grace, token).await;
        serving.audit.iter().for_each(|audit| audit.finish());
    });
    let (cacher, interval) = (server.cacher.clone(), server.config.compaction_interval);
    tasks.spawn("compaction", move |token| storage::compact(cacher, interval, token));
    tasks.spawn("service-repair", |token| repair.run(token));
    tasks.spawn("bootstrap", move |token| look_after(server, own, facts, member, token));
    Ok(())
}

async fn bind(server: &Server) -> anyhow::Result<Listener> {
    let config = &server.config;
    let load = |path: &Option<std::path::PathBuf>| path.as_deref().map(ClientCa::load).transpose();
    let client_ca = load(&config.authentication.client_ca_file)?;
    let proxy_ca = load(&config.authentication.request_header.client_ca_file)?;
    let source = Source {
        serving: config.serving_cert.clone(),
        names: serving_names(config),
        tls: config.tls.clone(),
        authorities: client_ca.iter().chain(&proxy_ca).cloned().collect(),
    };
    Listener::bind(config.bind_address, source, client_ca).await
}

/// The names and addresses of a self-signed certificate.
fn serving_names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .map(str::to_owned)
        .to_vec();
    names.push("kubernetes.default.svc.cluster.local".to_owned());
    names.extend(["127.0.0.1".to_owned(), advertise_address(config).to_string()]);
    names.extend(config.service_cluster_ip_ranges.iter().map(|range| range.nth(1).to_string()));
    names.extend(config.external_hostname.clone());
    names.dedup();
    names
}

fn facts(config: &Config, address: SocketAddr) -> anyhow::Result<Facts> {
    let range =
        config.service_cluster_ip_ranges.first().context("no block of Service addresses is configured")?;
    Ok(Facts { service_ip: range.nth(1), port: address.port() })
}

/// Makes the default objects, then keeps them until the token is cancelled.
async fn look_after(
    server: Arc<Server>,
    own: Client,
    facts: Facts,
    member: Member,
    token: CancellationToken,
) {
    let mut wait = Duration::from_millis(50);
    loop {
        let made = tokio::select! {
            biased;
            () = token.cancelled() => return,
            made = bootstrap::start(&own, &server.config, &facts) => made,
        };
        match made {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, "could not make the default objects, will retry"),
        }
        tokio::select! { () = token.cancelled() => return, () = tokio::time::sleep(wait) => {} }
        wait = (wait * 2).min(Duration::from_secs(5));
    }
    if let Err(error) = member.join().await {
        tracing::warn!(error = %client::chain(&error), "could not write the kubernetes endpoints, will retry");
    }
    server.bootstrapped.store(true, Ordering::Release);
    let config = server.config.clone();
    tokio::join!(member.run(token.clone()), bootstrap::run(own, config, facts, token));
}

/// The address others reach this server at: configured, or bound (unless only this machine reaches it), or the one
/// towards the rest of the world (upstream `ResolveBindAddress`).
#[must_use]
pub fn advertise_address(config: &Config) -> IpAddr {
    let bound = config.bind_address.ip();
    config
        .advertise_address
        .or_else(|| (!bound.is_unspecified() && !bound.is_loopback()).then_some(bound))
        .unwrap_or_else(outward_address)
}

/// The address of the interface with the default route. No packet is sent.
fn outward_address() -> IpAddr {
    let ask = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Where files are kept that the server makes for itself.
pub(crate) fn own_directory(config: &Config) -> std::path::PathBuf {
    match (&config.storage, &config.serving_cert) {
        (crate::config::StorageConfig::Embedded { data_dir }, _) => data_dir.clone(),
        (_, ServingCert::Directory(directory)) => directory.clone(),
        (_, ServingCert::Files { cert, .. }) => cert.parent().map(Into::into).unwrap_or_default(),
    }
}
