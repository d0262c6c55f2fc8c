//! Metadata-only caches of every resource that can be listed, watched and deleted.
//!
//! The set follows discovery, which is asked again when a CustomResourceDefinition or an APIService changes. Each
//! resource has tasks of its own, so that the watch of a resource that is gone ends with it.

use super::Shared;
use super::graph::Identity;
use crate::common::discovery::{self, Resource};
use crate::common::meta;
use client::informer::PartialObject;
use client::{Client, Event, Informer, SharedInformerFactory, Tasks};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The kinds there are: where owners of a kind are found.
#[derive(Clone, Default)]
pub struct Kinds(Arc<RwLock<Vec<Resource>>>);

impl Kinds {
    /// The resource of a kind; another version of the same group serves as well.
    pub fn resource(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let kinds = self.0.read();
        let of_kind = |resource: &&Resource| resource.api.kind == kind && resource.api.group == group;
        let exact =
            kinds.iter().find(|resource| of_kind(resource) && resource.api.api_version == api_version);
        exact.or_else(|| kinds.iter().find(of_kind)).cloned()
    }
}

struct Monitor {
    informer: Informer<PartialObject>,
    tasks: Tasks,
}

/// Runs the caches.
pub struct Monitors {
    client: Client,
    shared: Shared,
    kinds: Kinds,
    running: Mutex<HashMap<(String, String), Monitor>>,
    changed: Arc<Notify>,
    synced: watch::Sender<bool>,
}

/// Discovery follows a definition with some delay, and is asked again even if nothing was noticed.
const SETTLE: Duration = Duration::from_secs(1);
const RESYNC: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(5);

impl Monitors {
    /// Nothing runs yet.
    pub fn new(client: Client, shared: Shared) -> Self {
        Self {
            client,
            shared,
            kinds: Kinds::default(),
            running: Mutex::default(),
            changed: Arc::default(),
            synced: watch::Sender::new(false),
        }
    }

    /// The kinds that discovery has shown.
    pub fn kinds(&self) -> Kinds {
        self.kinds.clone()
    }

    /// Waits until every resource that was first discovered is listed.
    pub async fn first_sync(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Keeps the caches in step with discovery until `token` is cancelled.
    pub async fn run(&self, token: CancellationToken) {
        loop {
            let wait = match self.sync(&token).await {
                Ok(()) => RESYNC,
                Err(error) => {
                    tracing::warn!(%error, "discovery failed, will retry");
                    RETRY
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = self.changed.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn sync(&self, token: &CancellationToken) -> Result<(), client::kube::Error> {
        let discovered = discovery::discover(&self.client).await?;
        let complete = discovered.failures.is_empty();
        let wanted: Vec<_> =
            discovered.resources.iter().filter(|resource| is_collected(resource)).cloned().collect();
        *self.kinds.0.write() = discovered.resources;
        let first = !*self.synced.borrow();
        let mut informers = Vec::new();
        for resource in &wanted {
            informers.extend(self.start(resource, token));
        }
        // What is missing because its group did not answer is still there.
        if complete {
            self.stop_others(&wanted).await;
        }
        if first {
            let synced = futures::future::join_all(informers.iter().map(Informer::synced));
            tokio::select! { _ = synced => {} () = token.cancelled() => {} }
            self.synced.send_replace(true);
        }
        Ok(())
    }

    fn start(&self, resource: &Resource, token: &CancellationToken) -> Option<Informer<PartialObject>> {
        let mut running = self.running.lock();
        let key = (resource.api.api_version.clone(), resource.api.plural.clone());
        if running.contains_key(&key) {
            return None;
        }
        let tasks = Tasks::child_of(token);
        let informer =
            SharedInformerFactory::new(self.client.clone(), &tasks).dynamic_informer(&resource.api);
        let (shared, changed) = (self.shared.clone(), self.changed.clone());
        let (api_version, kind) = (resource.api.api_version.clone(), resource.api.kind.clone());
        let defines = matches!(resource.api.plural.as_str(), "customresourcedefinitions" | "apiservices");
        informer.subscribe(move |event| {
            if defines {
                changed.notify_one();
            }
            observe(&shared, &api_version, &kind, event);
        });
        running.insert(key, Monitor { informer: informer.clone(), tasks });
        Some(informer)
    }

    async fn stop_others(&self, wanted: &[Resource]) {
        let stopped: Vec<_> = {
            let mut running = self.running.lock();
            let wanted = |key: &(String, String)| {
                wanted
                    .iter()
                    .any(|resource| resource.api.api_version == key.0 && resource.api.plural == key.1)
            };
            let gone: Vec<_> = running.keys().filter(|key| !wanted(key)).cloned().collect();
            gone.iter().filter_map(|key| running.remove(key)).collect()
        };
        for monitor in stopped {
            let _ = monitor.tasks.shut_down().await;
            for object in monitor.informer.store().list() {
                let uid = meta::uid(&object.metadata).to_owned();
                self.shared.change(|graph| graph.forget(&uid));
            }
        }
    }
}

fn is_collected(resource: &Resource) -> bool {
    let ignored =
        resource.api.plural == "events" && matches!(resource.api.group.as_str(), "" | "events.k8s.io");
    !ignored && resource.supports(&["delete", "list", "watch"])
}

fn observe(shared: &Shared, api_version: &str, kind: &str, event: &Event<PartialObject>) {
    match event {
        Event::Added(object) | Event::Updated { new: object, .. } => {
            if let Event::Updated { old, .. } = event {
                if old.metadata.uid != object.metadata.uid {
                    let uid = meta::uid(&old.metadata).to_owned();
                    shared.change(|graph| graph.forget(&uid));
                } else if old.metadata.owner_references == object.metadata.owner_references
                    && !meta::is_deleting(&object.metadata)
                {
                    return;
                }
            }
            let identity = Identity {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                namespace: meta::namespace(&object.metadata).to_owned(),
                name: meta::name(&object.metadata).to_owned(),
                uid: meta::uid(&object.metadata).to_owned(),
            };
            shared.change(|graph| graph.observe(identity, &object.metadata));
        }
        Event::Deleted(object) => {
            let uid = meta::uid(&object.metadata).to_owned();
            shared.change(|graph| graph.forget(&uid));
        }
    }
}
