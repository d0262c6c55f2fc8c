//! Shared informers: one watch per type and selection in the process, one copy of each object, indexes, and
//! notifications in order with deletes included (upstream `client-go/tools/cache`).
//!
//! Each informer has one task. It lists, then watches; on a broken watch it resumes from the last version seen,
//! and on 410 it lists again and reports the difference. Subscribers are called on that task and must not block;
//! they are told which object changed, usually to add its key to a queue.

mod factory;
mod lenient;
mod reflector;
mod store;

use std::fmt::Debug;
use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub use factory::SharedInformerFactory;
pub use store::Store;

/// The metadata of an object of any type (upstream `PartialObjectMetadata`).
pub type PartialObject = PartialObjectMeta<DynamicObject>;

/// Which objects an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only objects this label selector matches.
    pub labels: Option<String>,
    /// Only objects this field selector matches, for example `spec.nodeName=n1`.
    pub fields: Option<String>,
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// The object is new to the cache.
    Added(Arc<K>),
    /// The object changed.
    Updated {
        /// The state before.
        old: Arc<K>,
        /// The state now.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Event<K> {
    /// The newest state the event knows.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Deleted(object) => object,
        }
    }
}

/// What an informer can hold: a built-in type, or [`PartialObject`].
pub trait Cached: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Cached for K {}

type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

/// One shared cache with its notifications; clones share it.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    store: Store<K>,
    /// Locked while a change is applied and told, so that a new subscriber misses and repeats nothing.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Cached> Informer<K> {
    fn new() -> Self {
        let shared =
            Shared { store: Store::new(), handlers: Mutex::default(), synced: watch::Sender::new(false) };
        Self { shared: Arc::new(shared) }
    }

    /// The cache.
    #[must_use]
    pub fn store(&self) -> &Store<K> {
        &self.shared.store
    }

    /// Calls `handler` for every change from now on, in order, after it was told of every object already in the
    /// cache as [`Event::Added`]. It runs on the informer's task: it must be quick, and must not subscribe.
    pub fn subscribe(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        for object in self.shared.store.list() {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Adds an index: afterwards [`Store::indexed`] finds objects by the values `f` gives for them. Adding an
    /// index of the same name again changes nothing.
    pub fn add_index(&self, name: &'static str, f: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.shared.store.add_index(name, Box::new(f));
    }

    /// Whether the cache holds at least one full list.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the cache holds a full list.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn apply(&self, change: store::Change<K>) {
        let handlers = self.shared.handlers.lock();
        for event in self.shared.store.apply(change) {
            for handler in handlers.iter() {
                handler(&event);
            }
        }
    }
}

/// How requests for a type are made.
#[derive(Clone)]
struct Target {
    url: String,
    metadata_only: bool,
    what: String,
    selection: Selection,
}

impl Target {
    fn of<K: kube::Resource>(dynamic: &K::DynamicType, selection: &Selection, metadata_only: bool) -> Self {
        Self {
            url: K::url_path(dynamic, selection.namespace.as_deref()),
            metadata_only,
            what: K::plural(dynamic).into_owned(),
            selection: selection.clone(),
        }
    }

    fn of_resource(resource: &ApiResource) -> Self {
        Self::of::<DynamicObject>(resource, &Selection::default(), true)
    }
}

#[cfg(test)]
mod tests;
