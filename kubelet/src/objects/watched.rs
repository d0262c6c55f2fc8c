//! Objects of one kind, each followed by a watch of its own while a pod refers to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::kube::api::{ListParams, WatchEvent, WatchParams};
use client::kube::core::NamespaceResourceScope;
use client::{Api, Client, Object, ObjectKey, Tasks};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Change, Error};

/// How long a reader waits for the first sight of an object.
const FIRST_SIGHT: Duration = Duration::from_secs(3);
const WATCH_SECONDS: u32 = 290;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Kinds that pods refer to by name.
pub trait Referenced: Object + client::kube::Resource<Scope = NamespaceResourceScope> {
    /// The object will never change again.
    fn immutable(&self) -> bool;
}

impl Referenced for ConfigMap {
    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Referenced for Secret {
    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

#[derive(Clone)]
enum Seen<K> {
    NotYet,
    Absent,
    Present(Arc<K>),
}

struct Entry<K> {
    pods: HashSet<String>,
    seen: watch::Receiver<Seen<K>>,
    stop: CancellationToken,
}

/// All referenced objects of kind `K`.
pub struct Watched<K> {
    kind: &'static str,
    client: Option<Client>,
    tasks: Tasks,
    changes: broadcast::Sender<Change>,
    entries: Mutex<HashMap<ObjectKey, Entry<K>>>,
}

impl<K: Referenced> Watched<K> {
    pub fn new(
        kind: &'static str,
        client: Option<Client>,
        tasks: Tasks,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        Self { kind, client, tasks, changes, entries: Mutex::default() }
    }

    /// Makes the references of `pod` exactly `names`.
    pub fn refer(&self, pod: &str, namespace: &str, names: BTreeSet<String>) {
        let Some(client) = &self.client else { return };
        let mut entries = self.entries.lock();
        release(&mut entries, pod, |key| key.namespace == namespace && names.contains(&key.name));
        for name in names {
            let key = ObjectKey::new(namespace, name);
            let entry = entries.entry(key.clone()).or_insert_with(|| self.follow(client, key));
            entry.pods.insert(pod.to_owned());
        }
    }

    /// Drops the references of `pod`.
    pub fn forget(&self, pod: &str) {
        release(&mut self.entries.lock(), pod, |_| false);
    }

    fn follow(&self, client: &Client, key: ObjectKey) -> Entry<K> {
        let (sender, seen) = watch::channel(Seen::NotYet);
        let stop = self.tasks.token().child_token();
        let follower = Follower {
            api: Api::namespaced(client.clone(), &key.namespace),
            kind: self.kind,
            key,
            seen: sender,
            changes: self.changes.clone(),
        };
        let token = stop.clone();
        self.tasks.spawn("watch-referenced-object", |_| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = follower.run() => {}
            }
        });
        Entry { pods: HashSet::new(), seen, stop }
    }

    /// The object, from its watch; or by a read of its own when no pod is registered for it.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, Error> {
        let Some(client) = &self.client else {
            return Err(Error::NoClient {
                kind: self.kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        };
        let seen = self.entries.lock().get(&ObjectKey::new(namespace, name)).map(|entry| entry.seen.clone());
        let Some(mut seen) = seen else {
            let api: Api<K> = Api::namespaced(client.clone(), namespace);
            return match api.get_opt(name).await {
                Ok(Some(object)) => Ok(Arc::new(object)),
                Ok(None) => Err(Error::not_found(self.kind, name)),
                Err(error) => Err(Error::Api(Box::new(error))),
            };
        };
        let sight =
            tokio::time::timeout(FIRST_SIGHT, seen.wait_for(|seen| !matches!(seen, Seen::NotYet))).await;
        match sight {
            Ok(Ok(seen)) => match &*seen {
                Seen::Present(object) => Ok(object.clone()),
                _ => Err(Error::not_found(self.kind, name)),
            },
            _ => Err(Error::NotSynced { kind: self.kind }),
        }
    }
}

fn release<K>(entries: &mut HashMap<ObjectKey, Entry<K>>, pod: &str, keep: impl Fn(&ObjectKey) -> bool) {
    entries.retain(|key, entry| {
        if !keep(key) && entry.pods.remove(pod) && entry.pods.is_empty() {
            entry.stop.cancel();
            return false;
        }
        true
    });
}

/// Follows one object.
struct Follower<K> {
    api: Api<K>,
    kind: &'static str,
    key: ObjectKey,
    seen: watch::Sender<Seen<K>>,
    changes: broadcast::Sender<Change>,
}

impl<K: Referenced> Follower<K> {
    async fn run(self) {
        let mut delay = FIRST_RETRY;
        let mut version: Option<String> = None;
        loop {
            let from = match version.take() {
                Some(version) => Ok(version),
                None => self.list().await,
            };
            let outcome = match from {
                Ok(from) => self.watch(from).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Some(reached)) => (version, delay) = (Some(reached), FIRST_RETRY),
                Ok(None) => delay = FIRST_RETRY,
                Err(error) => {
                    debug!(object = %self.key, kind = self.kind, error = %client::chain(&error), "watch ended, will retry");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(LAST_RETRY);
                    continue;
                }
            }
            if matches!(&*self.seen.borrow(), Seen::Present(object) if object.immutable()) {
                return self.seen.closed().await;
            }
        }
    }

    fn selector(&self) -> String {
        format!("metadata.name={}", self.key.name)
    }

    async fn list(&self) -> Result<String, client::kube::Error> {
        let list = self.api.list(&ListParams::default().fields(&self.selector())).await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        match list.items.into_iter().next() {
            Some(object) => self.set(Seen::Present(Arc::new(object))),
            None => self.set(Seen::Absent),
        }
        Ok(version)
    }

    /// Watches until the server ends it; the version reached, or none when the object must be listed again.
    async fn watch(&self, from: String) -> Result<Option<String>, client::kube::Error> {
        if matches!(&*self.seen.borrow(), Seen::Present(object) if object.immutable()) {
            return Ok(Some(from));
        }
        let params = WatchParams::default().fields(&self.selector()).timeout(WATCH_SECONDS);
        let mut stream = self.api.watch(&params, &from).await?.boxed();
        let mut version = from;
        while let Some(event) = stream.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.meta().resource_version.clone().unwrap_or(version);
                    let immutable = object.immutable();
                    self.set(Seen::Present(Arc::new(object)));
                    if immutable {
                        break;
                    }
                }
                WatchEvent::Deleted(object) => {
                    version = object.meta().resource_version.clone().unwrap_or(version);
                    self.set(Seen::Absent);
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(_) => return Ok(None),
            }
        }
        Ok(Some(version))
    }

    fn set(&self, seen: Seen<K>) {
        let changed = match (&*self.seen.borrow(), &seen) {
            (Seen::Present(old), Seen::Present(new)) => {
                old.meta().resource_version != new.meta().resource_version
            }
            (Seen::Absent, Seen::Absent) => false,
            _ => true,
        };
        if changed {
            self.seen.send_replace(seen);
            // No receiver is no error: nobody has a volume to refresh.
            let _ = self.changes.send(Change {
                kind: self.kind,
                namespace: self.key.namespace.clone(),
                name: self.key.name.clone(),
            });
        }
    }
}
