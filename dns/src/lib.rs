//! The cluster's DNS server: the Kubernetes DNS specification over Services and EndpointSlices, everything else
//! forwarded.
//!
//! [`zone`] answers for the cluster's domain (pure), [`source`] is where its facts come from, [`forward`] asks the
//! servers of `resolv.conf` and remembers their answers, [`server`] speaks UDP and TCP.

pub mod flags;
pub mod forward;
pub mod server;
pub mod source;
pub mod zone;

pub use flags::{Config, Flags};

use std::sync::Arc;

use std::path::PathBuf;
use std::time::Duration;

use client::serving::{self, Health};
use client::{Client, SharedInformerFactory, Tasks};
use tokio_util::sync::CancellationToken;

/// How often the file that names the servers to forward to is read again.
const RELOAD: Duration = Duration::from_secs(30);

/// Follows changes of the file that names the servers to forward to.
async fn reload(forwarder: Arc<forward::Forwarder>, resolv_conf: PathBuf, token: CancellationToken) {
    loop {
        tokio::select! { () = token.cancelled() => return, () = tokio::time::sleep(RELOAD) => {} }
        if forwarder.set_upstreams(flags::upstreams(&resolv_conf)) {
            tracing::info!("other names are asked of other servers from now on");
        }
    }
}

/// Runs until `token` is cancelled.
///
/// # Errors
/// An address cannot be bound.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    let factory = SharedInformerFactory::new(client, &tasks);
    let source = Arc::new(source::Informers::new(&factory));
    if let Some(address) = config.health {
        let ready = source.clone();
        let live = Health::new();
        let check = live
            .with("informers", move || if ready.has_synced() { Ok(()) } else { Err("not synced".into()) });
        tasks.spawn_critical("serving", |token| serving::serve(address, check, token));
    }
    let zone = zone::Zone::new(&config.domain, config.ttl)?;
    let forwarder = Arc::new(forward::Forwarder::new(flags::upstreams(&config.resolv_conf)));
    let (reloaded, file) = (forwarder.clone(), config.resolv_conf.clone());
    tasks.spawn("reload", |token| reload(reloaded, file, token));
    let server = Arc::new(server::Server::new(zone, source, forwarder));
    tasks.spawn_critical("dns", |token| async move {
        // Before the caches are full, every name would seem not to exist.
        if factory.wait_for_sync(&token).await { server.run(config.listen, token).await } else { Ok(()) }
    });
    Ok(tasks.wait().await?)
}
