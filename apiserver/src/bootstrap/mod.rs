//! What is there before anybody asks for it: default roles, namespaces, priorities, the `kubernetes` Service (upstream
//! `pkg/controlplane/controller` and `registry/*/rest` post-start hooks).
//!
//! Everything is written through the API by the loopback client, and may be repeated safely. [`start`] does it once,
//! quickly; [`run`] keeps what must be kept.

pub mod endpoints;
pub mod flow_control;
pub mod objects;
pub mod policy;
pub mod reconcile;
mod trust;

use std::time::Duration;

use api::status::ApiError;
use client::Client;
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

pub use endpoints::{Advertised, Member};
pub use objects::Facts;

/// So many writes are under way at once.
const PARALLEL: usize = 16;
/// How often what must exist is looked after.
const INTERVAL: Duration = Duration::from_secs(60);

/// Writes everything a new cluster needs, in an order in which each part finds what it needs.
pub async fn start(client: &Client, config: &Config, facts: &Facts) -> Result<(), ApiError> {
    objects::namespaces(client).await?;
    let (roles, others) =
        tokio::join!(reconcile::policy(client, policy::policy()), objects::start(client, config, facts));
    roles?;
    others
}

/// Looks after the namespaces, the service ranges, flow control and the authentication facts until `token` is cancelled.
pub async fn run(client: Client, config: Config, facts: Facts, token: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval.tick().await;
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            _ = interval.tick() => {}
        }
        let kept = async {
            objects::namespaces(&client).await?;
            objects::start(&client, &config, &facts).await
        };
        if let Err(error) = kept.await {
            tracing::warn!(%error, "could not look after the default objects, will retry");
        }
    }
}

/// Runs `work` for every item, several at a time; the first error ends it.
async fn each<T, F>(items: impl IntoIterator<Item = T>, work: impl Fn(T) -> F) -> Result<(), ApiError>
where
    F: Future<Output = Result<(), ApiError>>,
{
    // Collected first: a stream that holds the closure itself is not provably Send.
    let writes: Vec<F> = items.into_iter().map(work).collect();
    stream::iter(writes).buffer_unordered(PARALLEL).try_for_each(|()| async { Ok(()) }).await
}

/// Errors that mean somebody else has done the work.
fn done_by_others(error: ApiError) -> Result<(), ApiError> {
    if matches!(error.reason(), "AlreadyExists" | "Conflict") { Ok(()) } else { Err(error) }
}
