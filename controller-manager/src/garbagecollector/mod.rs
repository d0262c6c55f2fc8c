//! Garbage collection: objects go when all their owners are gone.
//!
//! `graph.rs` knows who owns whom, by the names in `identity.rs`, fed by caches of every resource (`monitors.rs`). What
//! the graph suggests is only a suspicion: `collect.rs` reads the object and its owners live, by UID, before it deletes
//! anything. As upstream's pkg/controller/garbagecollector.

mod collect;
mod graph;
mod identity;
mod monitors;

use crate::context::Context;
use client::controller::{Action, run_workers};
use client::events::{EventRecorder, EventType};
use client::{ObjectKey, WorkQueue};
use collect::Collector;
use graph::{Graph, Misplaced, Work};
use identity::Identity;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Deletion waits for the dependents that block it.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Deletion lets go of the dependents first.
pub const ORPHAN: &str = "orphan";

/// Until when the first lists have to be there; a resource that cannot be listed must not stop all collection.
const FIRST_SYNC: Duration = Duration::from_secs(30);

/// The graph and the queues it fills. Keys are UIDs.
#[derive(Clone)]
pub struct Shared {
    graph: Arc<Mutex<Graph>>,
    to_delete: WorkQueue<ObjectKey>,
    to_orphan: WorkQueue<ObjectKey>,
    recorder: EventRecorder,
}

impl Shared {
    fn new(recorder: EventRecorder) -> Self {
        Self {
            recorder,
            graph: Arc::default(),
            to_delete: WorkQueue::new("garbage_collector_attempt_to_delete"),
            to_orphan: WorkQueue::new("garbage_collector_attempt_to_orphan"),
        }
    }

    /// Changes the graph and queues what follows.
    fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<Work>) {
        let work = change(&mut self.graph.lock());
        for work in work {
            match work {
                Work::Delete(uid) => self.to_delete.add(ObjectKey::new("", uid)),
                Work::Orphan(uid) => self.to_orphan.add(ObjectKey::new("", uid)),
                Work::Misplaced(misplaced) => self.tell(&misplaced),
            }
        }
    }

    fn tell(&self, Misplaced { dependent, owner }: &Misplaced) {
        let about = ObjectReference {
            api_version: Some(dependent.api_version.clone()),
            kind: Some(dependent.kind.clone()),
            namespace: Some(dependent.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(dependent.name.clone()),
            uid: Some(dependent.uid.clone()),
            ..Default::default()
        };
        let Identity { api_version, kind, namespace, name, uid } = owner;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace {namespace:?}"
        );
        self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }
}

/// Starts the controller.
pub fn start(cx: &Context) {
    if !cx.config.flags.enable_garbage_collector {
        return;
    }
    let shared = Shared::new(cx.recorder("garbage-collector-controller"));
    let monitors = monitors::Monitors::new(cx.client.clone(), cx.informers.clone(), shared.clone());
    let collector = Arc::new(Collector::new(cx.client.clone(), shared.clone(), monitors.kinds()));
    let workers = cx.config.concurrent.gc;
    cx.tasks.spawn("garbage-collector-controller", move |token| async move {
        let watching = monitors.run(token.clone());
        let collecting = async {
            tokio::select! {
                () = token.cancelled() => return,
                () = monitors.first_sync() => {}
                () = tokio::time::sleep(FIRST_SYNC) => {
                    tracing::warn!("not every resource could be listed; collecting what is known");
                }
            }
            let (deleting, orphaning) = (collector.clone(), collector);
            let name = "garbage-collector-controller";
            tokio::join!(
                run_workers(name, shared.to_delete.clone(), workers, token.clone(), move |key| {
                    let collector = deleting.clone();
                    async move { collector.attempt_to_delete(&key.name).await }
                }),
                run_workers(name, shared.to_orphan.clone(), workers, token.clone(), move |key| {
                    let collector = orphaning.clone();
                    async move { collector.attempt_to_orphan(&key.name).await.map(|()| Action::Done) }
                }),
            );
        };
        tokio::join!(watching, collecting);
    });
}
