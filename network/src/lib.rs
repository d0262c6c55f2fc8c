//! The pod network between nodes.
//!
//! Each node has a range of pod addresses (`Node.spec.podCIDR`). [`plan`] decides from the Node objects what this
//! node needs: the CNI configuration of a bridge for its own range, and a route through every other node to that
//! node's range (host-gw: nodes share a segment). [`apply`] makes it so. Pods reach the world behind the node's
//! address; among each other they see their own addresses.

pub mod apply;
pub mod flags;
pub mod plan;

pub use flags::{Config, Flags};

use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::Node;
use client::{Client, Event, SharedInformerFactory, Tasks};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const RETRY: Duration = Duration::from_secs(2);

/// Runs until `token` is cancelled. What was configured stays, so that pods keep their network.
///
/// # Errors
/// The kernel's routes cannot be reached.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    let factory = SharedInformerFactory::new(client, &tasks);
    let nodes = factory.informer::<Node>();
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    nodes.subscribe(move |event| {
        let matters = match event {
            Event::Updated { old, new } => plan::Facts::of(old) != plan::Facts::of(new),
            _ => true,
        };
        if matters {
            wake.notify_one();
        }
    });
    apply::prepare_kernel().await;
    let mut applier = apply::Applier::new(&config)?;
    tasks.spawn("network", |token| async move {
        if !factory.wait_for_sync(&token).await {
            return;
        }
        changed.notify_one();
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = changed.notified() => {}
            }
            let facts: Vec<_> = nodes.store().list().iter().map(|node| plan::Facts::of(node)).collect();
            let plan = plan::plan(&config, &facts);
            if let Err(error) = applier.apply(&plan).await {
                warn!(error = %format!("{error:#}"), "pod network could not be configured, will retry");
                tokio::select! { () = token.cancelled() => return, () = tokio::time::sleep(RETRY) => {} }
                changed.notify_one();
            } else if plan.cni.is_some() {
                info!(routes = plan.routes.len(), "pod network is in step");
            }
        }
    });
    token.cancelled().await;
    Ok(tasks.shut_down().await?)
}
