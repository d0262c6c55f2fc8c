//! The kubelet's own API: logs, exec, attach and port-forward for the API server, statistics and health for others.
//!
//! HTTPS on the kubelet's port with authentication and authorization by the API; health alone, without either, on a
//! loopback port. One task per connection, and one per stream that outlives its request.

mod auth;
mod checkpoint;
mod inspect;
mod listen;
mod log_handler;
mod metrics;
mod query;
mod respond;
mod routes;
pub mod spdy;
mod stats;
mod streaming;
mod target;
mod translate;
mod upgrade;
mod volume_stats;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use client::{Client, Tasks};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::agent::volumes::PodVolumes;
use crate::allocation::Record;
use crate::certificates::ServingConfig;
use crate::cgroups::Cgroups;
use crate::config::KubeletConfiguration;
use crate::layout::Layout;
use crate::pods::PodRegistry;
use crate::runtime::Runtime;
use crate::status::StatusManager;

/// Whether the kubelet is well, and else why not.
pub type Health = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the server shows and uses.
pub struct ServerDeps {
    /// The container runtime.
    pub runtime: Runtime,
    /// The pods of this node.
    pub pods: PodRegistry,
    /// What they were allocated.
    pub allocated: Record,
    /// Their statuses.
    pub status: StatusManager,
    /// The API, for authentication and authorization.
    pub client: Option<Client>,
    /// Configuration.
    pub config: Arc<KubeletConfiguration>,
    /// Paths.
    pub layout: Layout,
    /// Name of this node.
    pub node_name: String,
    /// Control groups, for statistics.
    pub cgroups: Cgroups,
    /// Volumes, for statistics.
    pub volumes: Arc<dyn PodVolumes>,
    /// Whether all is well.
    pub health: Health,
    /// Serving certificate.
    pub tls: ServingConfig,
}

/// Everything a request may need.
struct Server {
    deps: ServerDeps,
    auth: auth::Auth,
    stats: stats::Stats,
    looks: volume_stats::Looks,
    tasks: Tasks,
}

/// Serves until cancelled.
pub async fn serve(deps: ServerDeps, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    let config = deps.config.clone();
    let tls = listen::tls_config(&deps.tls, &config.authentication.x509.client_ca_file)?;
    let auth = auth::Auth::new(deps.client.clone(), &config, deps.node_name.clone());
    let looks = volume_stats::Looks::default();
    let server = Arc::new(Server { deps, auth, stats: stats::Stats::default(), looks, tasks: tasks.clone() });
    if config.healthz_port != 0 {
        let listener = bind(&config.healthz_bind_address, config.healthz_port).await?;
        let health = server.clone();
        tasks.spawn("healthz", |token| listen::accept_plain(listener, health, token));
    }
    if config.enable_server {
        let listener = bind(&config.address, config.port).await?;
        info!(address = %listener.local_addr()?, "serving the kubelet API");
        let secure = server.clone();
        tasks.spawn("kubelet-api", |token| listen::accept_tls(listener, tls, secure, token));
    }
    token.cancelled().await;
    tasks.shut_down().await.context("kubelet server")
}

async fn bind(address: &str, port: u16) -> anyhow::Result<TcpListener> {
    let ip = address.parse().with_context(|| format!("{address:?} is not an address"))?;
    let address = SocketAddr::new(ip, port);
    client::serving::listen(address).await.with_context(|| format!("listen on {address}"))
}
