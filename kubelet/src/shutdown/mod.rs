//! Ends pods in order when the machine shuts down (upstream's node shutdown manager, KEP-2000 and KEP-2712).
//!
//! One task holds an inhibitor of the machine's login manager, which delays shutdowns. When one is announced, the node is
//! told not to be ready, nothing is admitted any more, and pods end group by group, the lowest priorities first; then the
//! inhibitor is let go. A shutdown that is called off is waited for anew.

mod dbus;
mod logind;
mod plan;
#[cfg(test)]
mod tests;
mod times;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use client::{EventType, Tasks};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::sync::Notify;

pub use logind::Logind;
pub use plan::{Group, Period, grace, groups, periods, whole};
pub use times::Times;

use crate::admission::Rejection;
use crate::events::Events;

/// After the login manager went away, it is asked again after this.
const RECONNECT: Duration = Duration::from_secs(1);

/// Delays shutdowns for as long as it lives.
pub type Inhibitor = Box<dyn Send>;

/// What delays and announces shutdowns. The text of an error goes to the log.
#[async_trait]
pub trait LoginManager: Send + Sync {
    /// Makes sure that shutdowns can be delayed for so long.
    async fn allow(&self, delay: Duration) -> Result<(), String>;
    /// Delays shutdowns from now on.
    async fn inhibit(&self) -> Result<Inhibitor, String>;
    /// Announcements: a shutdown begins, or was called off. Ends when the login manager goes away.
    async fn announcements(&self) -> Result<BoxStream<'static, bool>, String>;
}

/// What is done with pods when the node shuts down.
#[async_trait]
pub trait Ending: Send + Sync {
    /// Pods that run.
    fn pods(&self) -> Vec<Arc<Pod>>;
    /// Tells a pod to end.
    fn end(&self, pod: &Pod, grace: Duration);
    /// Waits until a pod has ended and its volumes are released.
    async fn ended(&self, pod: &Pod);
}

/// Whether the node shuts down; clones share it.
#[derive(Clone, Debug, Default)]
pub struct ShuttingDown(Arc<AtomicBool>);

impl ShuttingDown {
    /// Why the node is not ready.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.0.load(Ordering::SeqCst).then(|| "node is shutting down".to_owned())
    }

    /// Refuses pods while the node shuts down.
    pub fn admit(&self) -> Result<(), Rejection> {
        if self.fault().is_none() {
            return Ok(());
        }
        Err(Rejection {
            reason: "NodeShutdown".to_owned(),
            message: "Pod was rejected as the node is shutting down.".to_owned(),
        })
    }
}

/// Ends pods with their node.
pub struct Shutdown {
    /// What delays and announces shutdowns.
    pub login: Arc<dyn LoginManager>,
    /// How long pods may take, from the lowest priority on.
    pub periods: Vec<Period>,
    /// What is done with pods.
    pub ending: Arc<dyn Ending>,
    /// Where it is told that the node shuts down.
    pub state: ShuttingDown,
    /// Where it is written down when pods ended.
    pub times: Times,
    /// Events.
    pub events: Events,
    /// The node.
    pub node: ObjectReference,
    /// Told when the node's status changes.
    pub poke: Arc<Notify>,
}

impl Shutdown {
    /// Starts waiting for shutdowns.
    pub fn run(self, tasks: &Tasks) {
        self.times.tell();
        tasks.spawn("node-shutdown", |token| async move {
            let mut told = None;
            loop {
                let watched = tokio::select! {
                    () = token.cancelled() => return,
                    watched = self.watch() => watched,
                };
                // Each fault is told once: machines without a login manager are not rare.
                if let Err(error) = watched
                    && told.as_ref() != Some(&error)
                {
                    tracing::error!(error, "unable to watch the node for shutdown events");
                    told = Some(error);
                }
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(RECONNECT) => {}
                }
            }
        });
    }

    /// Waits for shutdowns until the login manager goes away.
    async fn watch(&self) -> Result<(), String> {
        self.login.allow(whole(&self.periods)).await?;
        // Listened to before it is inhibited: nothing announced in between is missed.
        let mut announcements = self.login.announcements().await?;
        let mut inhibitor = Some(self.login.inhibit().await?);
        while let Some(begins) = announcements.next().await {
            self.tell(begins);
            if begins {
                self.end_pods().await;
                inhibitor = None;
            } else if inhibitor.is_none() {
                inhibitor = Some(self.login.inhibit().await?);
            }
        }
        Ok(())
    }

    fn tell(&self, begins: bool) {
        let what = if begins { "shutdown event" } else { "shutdown cancellation" };
        let message = format!("Shutdown manager detected {what}");
        self.events.about(&self.node, EventType::Normal, "NodeShutdown", message);
        self.state.0.store(begins, Ordering::SeqCst);
        self.poke.notify_one();
    }

    /// Ends all pods, group by group; none waits longer than it may.
    async fn end_pods(&self) {
        self.times.begin(Timestamp::now());
        for group in groups(&self.periods, &self.ending.pods()) {
            for pod in &group.pods {
                self.ending.end(pod, grace(pod, group.grace));
            }
            let ended = futures::future::join_all(group.pods.iter().map(|pod| self.ending.ended(pod)));
            if tokio::time::timeout(group.grace, ended.map(drop)).await.is_err() {
                tracing::warn!(grace = ?group.grace, "some pods did not end in time with their node");
            }
        }
        self.times.end(Timestamp::now());
    }
}
