//! All informers of one process.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kube::core::ApiResource;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Cached, Informer, PartialObject, Selection, Target, reflector};
use crate::Client;
use crate::object::Object;
use crate::tasks::Tasks;

/// Gives out informers, each type and selection once; clones share them.
#[derive(Clone)]
pub struct SharedInformerFactory {
    client: Client,
    tasks: Tasks,
    informers: Arc<Mutex<Informers>>,
}

#[derive(Default)]
struct Informers {
    by_type: HashMap<(TypeId, String, Selection), Box<dyn Any + Send>>,
    synced: Vec<watch::Receiver<bool>>,
}

impl SharedInformerFactory {
    /// No informers yet. Their tasks will belong to `tasks`.
    #[must_use]
    pub fn new(client: Client, tasks: &Tasks) -> Self {
        Self { client, tasks: tasks.clone(), informers: Arc::default() }
    }

    /// The client the informers use.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of all objects of a type. The first call starts it.
    pub fn informer<K: Object>(&self) -> Informer<K> {
        self.informer_selected(Selection::default())
    }

    /// The informer of some objects of a type. The first call with a selection starts it.
    pub fn informer_selected<K: Object>(&self, selection: Selection) -> Informer<K> {
        let target = Target::of::<K>(&(), &selection, false);
        self.get_or_start((TypeId::of::<K>(), String::new(), selection), target)
    }

    /// The informer of the metadata of all objects of any resource. The first call starts it.
    pub fn dynamic_informer(&self, resource: &ApiResource) -> Informer<PartialObject> {
        let target = Target::of_resource(resource);
        self.get_or_start((TypeId::of::<PartialObject>(), target.url.clone(), Selection::default()), target)
    }

    fn get_or_start<K: Cached>(&self, key: (TypeId, String, Selection), target: Target) -> Informer<K> {
        let mut informers = self.informers.lock();
        if let Some(informer) = informers.by_type.get(&key).and_then(|any| any.downcast_ref::<Informer<K>>())
        {
            return informer.clone();
        }
        let informer = Informer::<K>::new();
        informers.by_type.insert(key, Box::new(informer.clone()));
        informers.synced.push(informer.shared.synced.subscribe());
        let (client, running) = (self.client.clone(), informer.clone());
        self.tasks.spawn("informer", |token| reflector::run(client, target, running, token));
        informer
    }

    /// Waits until every informer asked for so far holds a full list; false if `token` was cancelled before.
    pub async fn wait_for_sync(&self, token: &CancellationToken) -> bool {
        let waiting = self.informers.lock().synced.clone();
        for mut synced in waiting {
            tokio::select! {
                biased;
                () = token.cancelled() => return false,
                result = synced.wait_for(|synced| *synced) => {
                    if result.is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }
}
