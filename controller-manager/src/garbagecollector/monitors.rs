//! Caches of every resource that can be listed, watched and deleted: those that other controllers have anyway, and
//! metadata alone of all others.
//!
//! The set follows discovery, which is asked again when a CustomResourceDefinition or an APIService changes. Each
//! resource has tasks of its own, so that the watch of a resource that is gone ends with it.

use super::Shared;
use super::graph::Identity;
use crate::common::discovery::{self, Resource};
use crate::common::meta;
use client::kube;
use client::{Client, Event, Informer, Object, SharedInformerFactory, Tasks};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::{apps, batch, core, discovery as slices, policy};
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
    /// These.
    #[cfg(test)]
    pub fn of(resources: Vec<Resource>) -> Self {
        Self(Arc::new(RwLock::new(resources)))
    }

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
    /// Ends the watch; `None` when the cache is shared.
    tasks: Option<Tasks>,
    uids: Box<dyn Fn() -> Vec<String> + Send>,
}

type Synced = BoxFuture<'static, ()>;
type Attach = fn(&SharedInformerFactory, &Shared) -> (Monitor, Synced);

/// Kinds that other controllers cache, with many objects: a second copy of these would cost the most.
static CACHED: &[(&str, &str, Attach)] = &[
    ("v1", "Pod", attach::<core::v1::Pod>),
    ("v1", "Service", attach::<core::v1::Service>),
    ("v1", "Endpoints", attach::<core::v1::Endpoints>),
    ("v1", "Namespace", attach::<core::v1::Namespace>),
    ("v1", "Node", attach::<core::v1::Node>),
    ("v1", "ServiceAccount", attach::<core::v1::ServiceAccount>),
    ("v1", "PersistentVolumeClaim", attach::<core::v1::PersistentVolumeClaim>),
    ("v1", "ReplicationController", attach::<core::v1::ReplicationController>),
    ("apps/v1", "Deployment", attach::<apps::v1::Deployment>),
    ("apps/v1", "ReplicaSet", attach::<apps::v1::ReplicaSet>),
    ("apps/v1", "StatefulSet", attach::<apps::v1::StatefulSet>),
    ("apps/v1", "DaemonSet", attach::<apps::v1::DaemonSet>),
    ("apps/v1", "ControllerRevision", attach::<apps::v1::ControllerRevision>),
    ("batch/v1", "Job", attach::<batch::v1::Job>),
    ("batch/v1", "CronJob", attach::<batch::v1::CronJob>),
    ("discovery.k8s.io/v1", "EndpointSlice", attach::<slices::v1::EndpointSlice>),
    ("policy/v1", "PodDisruptionBudget", attach::<policy::v1::PodDisruptionBudget>),
];

fn attach<K: Object>(informers: &SharedInformerFactory, shared: &Shared) -> (Monitor, Synced) {
    let informer = informers.informer::<K>();
    let shared = shared.clone();
    informer.subscribe(move |event| observe(&shared, &K::api_version(&()), &K::kind(&()), event));
    monitor(informer, None)
}

fn monitor<K>(informer: Informer<K>, tasks: Option<Tasks>) -> (Monitor, Synced)
where
    K: client::informer::Cached,
{
    let cache = informer.clone();
    let uids =
        move || cache.store().list().iter().map(|object| meta::uid(object.meta()).to_owned()).collect();
    (Monitor { tasks, uids: Box::new(uids) }, async move { informer.synced().await }.boxed())
}

/// Runs the caches.
pub struct Monitors {
    client: Client,
    informers: SharedInformerFactory,
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
    pub fn new(client: Client, informers: SharedInformerFactory, shared: Shared) -> Self {
        Self {
            client,
            informers,
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
        let synced: Vec<_> = wanted.iter().filter_map(|resource| self.start(resource, token)).collect();
        // What is missing because its group did not answer is still there.
        if complete {
            self.stop_others(&wanted).await;
        }
        if first {
            let synced = futures::future::join_all(synced);
            tokio::select! { _ = synced => {} () = token.cancelled() => {} }
            self.synced.send_replace(true);
        }
        Ok(())
    }

    fn start(&self, resource: &Resource, token: &CancellationToken) -> Option<Synced> {
        let mut running = self.running.lock();
        let key = (resource.api.api_version.clone(), resource.api.plural.clone());
        if running.contains_key(&key) {
            return None;
        }
        let cached = |(api_version, kind, _): &&(&str, &str, Attach)| {
            *api_version == resource.api.api_version && *kind == resource.api.kind
        };
        let (monitor, synced) = match CACHED.iter().find(cached) {
            Some((_, _, attach)) => attach(&self.informers, &self.shared),
            None => self.start_own(resource, token),
        };
        running.insert(key, monitor);
        Some(synced)
    }

    fn start_own(&self, resource: &Resource, token: &CancellationToken) -> (Monitor, Synced) {
        let tasks = Tasks::child_of(token);
        let client = self.informers.client().clone();
        let informer = SharedInformerFactory::new(client, &tasks).dynamic_informer(&resource.api);
        let (shared, changed) = (self.shared.clone(), self.changed.clone());
        let (api_version, kind) = (resource.api.api_version.clone(), resource.api.kind.clone());
        let defines = matches!(resource.api.plural.as_str(), "customresourcedefinitions" | "apiservices");
        informer.subscribe(move |event| {
            if defines {
                changed.notify_one();
            }
            observe(&shared, &api_version, &kind, event);
        });
        monitor(informer, Some(tasks))
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
            if let Some(tasks) = &monitor.tasks {
                let _ = tasks.shut_down().await;
            }
            for uid in (monitor.uids)() {
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

fn observe<K: kube::Resource>(shared: &Shared, api_version: &str, kind: &str, event: &Event<K>) {
    let (Event::Added(object) | Event::Updated { new: object, .. }) = event else {
        let uid = meta::uid(event.object().meta()).to_owned();
        return shared.change(|graph| graph.forget(&uid));
    };
    let metadata = object.meta();
    if let Event::Updated { old, .. } = event {
        let old = old.meta();
        if old.uid != metadata.uid {
            let uid = meta::uid(old).to_owned();
            shared.change(|graph| graph.forget(&uid));
        } else if old.owner_references == metadata.owner_references && !meta::is_deleting(metadata) {
            return;
        }
    }
    let identity = Identity {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: meta::namespace(metadata).to_owned(),
        name: meta::name(metadata).to_owned(),
        uid: meta::uid(metadata).to_owned(),
    };
    shared.change(|graph| graph.observe(identity, metadata));
}
