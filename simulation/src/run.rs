//! A simulation from its beginning to its end.

use std::time::Duration;

use anyhow::{Context, Result};
use client::controller::{Action, run_workers};
use client::{Client, ObjectKey, Selection, SharedInformerFactory, Tasks, WorkQueue};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::nodes::Nodes;
use crate::pods::Pods;
use crate::record::{NodeRecord, PodRecord};

/// How long the nodes may take to be deleted at the end.
const REMOVAL: Duration = Duration::from_secs(60);

/// Simulates nodes until `token` is cancelled; then deletes them, unless they are to be kept.
///
/// # Errors
/// A task failed, or the nodes cannot be deleted. What the API server refuses meanwhile is tried again.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> Result<()> {
    let tasks = Tasks::child_of(&token);
    let informers = SharedInformerFactory::new(client.clone(), &tasks);
    let own = Selection { labels: Some(config.names.selector()), ..Selection::default() };
    let bound = Selection { fields: Some("spec.nodeName!=".to_owned()), ..Selection::default() };
    let node_records = informers.informer_selected::<NodeRecord>(own);
    let pod_records = informers.informer_selected::<PodRecord>(bound);
    let nodes = Nodes::new(client.clone(), config.names.clone(), config.shape, node_records.clone());
    let pods = Pods::new(client, nodes.clone(), pod_records, config.durations);
    tokio::select! {
        biased;
        () = token.cancelled() => return Ok(tasks.shut_down().await?),
        // Pods that run already have addresses in the ranges of their nodes.
        () = node_records.synced() => {}
    }
    nodes.begin();
    pods.begin();
    let workers = config.concurrency;
    let of = nodes.clone();
    spawn(&tasks, "simulated-nodes", nodes.reports(), workers, move |key| {
        let nodes = of.clone();
        async move { nodes.report(key).await }
    });
    let of = nodes.clone();
    spawn(&tasks, "simulated-leases", nodes.renewals(), workers, move |key| {
        let nodes = of.clone();
        async move { Ok(nodes.renew(key).await) }
    });
    let queue = pods.queue().clone();
    spawn(&tasks, "simulated-pods", &queue, workers, move |key| {
        let pods = pods.clone();
        async move { pods.sync(key).await }
    });
    tokio::select! {
        () = token.cancelled() => {}
        () = nodes.all_registered() => info!(count = config.names.count, "all simulated nodes are registered"),
    }
    tasks.wait().await?;
    if config.keep {
        return Ok(());
    }
    info!("deleting the simulated nodes");
    tokio::time::timeout(REMOVAL, nodes.remove()).await.context("the nodes were not deleted in time")?
}

fn spawn<F, Fut>(tasks: &Tasks, name: &'static str, queue: &WorkQueue<ObjectKey>, workers: usize, work: F)
where
    F: Fn(ObjectKey) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Action>> + Send + 'static,
{
    let queue = queue.clone();
    tasks.spawn(name, move |token| run_workers(name, queue, workers, token, work));
}
