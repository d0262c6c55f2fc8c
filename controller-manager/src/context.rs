//! What every controller is given: the client, the shared caches, the tasks, the configuration.

use crate::common::{meta, pods, refs};
use crate::options::Config;
use client::controller::{Action, run_workers};
use client::events::EventRecorder;
use client::{Client, Informer, Object, ObjectKey, SharedInformerFactory, Tasks, WorkQueue};
use k8s_openapi::api::core::v1::Pod;
use std::future::Future;
use std::sync::Arc;

/// The index of pods by the node they are bound to.
pub const NODE_INDEX: &str = "node-name";

/// Handed to each controller when it starts; clones share everything.
#[derive(Clone)]
pub struct Context {
    /// Requests go through here.
    pub client: Client,
    /// One watch per type for all controllers.
    pub informers: SharedInformerFactory,
    /// Owns the tasks of all controllers.
    pub tasks: Tasks,
    /// Flags and files.
    pub config: Arc<Config>,
}

impl Context {
    /// Events of a component appear with its upstream name.
    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "", &self.tasks)
    }

    /// The cache of a type.
    pub fn informer<K: Object>(&self) -> Informer<K> {
        self.informers.informer::<K>()
    }

    /// The cache of pods, with the indexes that controllers use.
    pub fn pods(&self) -> Informer<Pod> {
        let informer = self.informer::<Pod>();
        informer.add_index(refs::CONTROLLER_INDEX, |pod| refs::controller_index(&pod.metadata));
        informer.add_index(NODE_INDEX, |pod| vec![pods::node_name(pod).to_owned()]);
        informer
    }

    /// The cache of a type that has controllers, with an index by their UID.
    pub fn controlled<K: Object>(&self) -> Informer<K> {
        let informer = self.informer::<K>();
        informer.add_index(refs::CONTROLLER_INDEX, |object| refs::controller_index(object.meta()));
        informer
    }

    /// Runs workers over a queue once the caches are filled.
    pub fn work<F, Fut>(
        &self,
        name: &'static str,
        queue: WorkQueue<ObjectKey>,
        workers: usize,
        synced: impl Future<Output = ()> + Send + 'static,
        reconcile: F,
    ) where
        F: Fn(ObjectKey) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<Action>> + Send + 'static,
    {
        self.tasks.spawn(name, move |token| async move {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = synced => {}
            }
            tracing::debug!(controller = name, "caches are filled");
            run_workers(name, queue, workers, token, reconcile).await;
        });
    }
}

/// What [`Context::work`] is to do: `reconcile`, each time with a clone of `state`.
pub fn with<T, F, Fut>(state: &T, reconcile: F) -> impl Fn(ObjectKey) -> Fut + Clone + Send + Sync + 'static
where
    T: Clone + Send + Sync + 'static,
    F: Fn(T, ObjectKey) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Action>> + Send + 'static,
{
    let state = state.clone();
    move |key| reconcile(state.clone(), key)
}

/// Adds the key of every object of a type that is added, changed or deleted.
pub fn enqueue_all<K: Object>(informer: &Informer<K>, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    informer.subscribe(move |event| queue.add(meta::key(event.object().meta())));
}

/// Every state of an object that an event carries: the old one and the new one.
pub fn states<K>(event: &client::Event<K>) -> Vec<&Arc<K>> {
    match event {
        client::Event::Added(object) | client::Event::Deleted(object) => vec![object],
        client::Event::Updated { old, new } => vec![old, new],
    }
}
