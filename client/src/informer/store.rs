//! The cache of an informer: objects by key, with indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Cached, Event};
use crate::object::{ObjectKey, resource_version};

type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// A cache of objects that only its watch writes. Reads never block on I/O.
pub struct Store<K> {
    state: RwLock<State<K>>,
    version: watch::Sender<u64>,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    values: IndexFn<K>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

/// One step of the cache.
pub(super) enum Change<K> {
    /// Everything there is, as of a version.
    Replace(Vec<K>, u64),
    /// A new or changed object.
    Put(K),
    /// A deleted object in its last state.
    Delete(K),
    /// Nothing changed up to this version.
    Progress(u64),
}

impl<K: Cached> Store<K> {
    pub(super) fn new() -> Self {
        let state = State { objects: BTreeMap::new(), indexes: HashMap::new() };
        Self { state: RwLock::new(state), version: watch::Sender::new(0) }
    }

    /// The object, if it exists.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects, ordered by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// All objects of a namespace, ordered by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = ObjectKey::new(namespace, "");
        let state = self.state.read();
        let range = state.objects.range(first..).take_while(|(key, _)| key.namespace == namespace);
        range.map(|(_, object)| object.clone()).collect()
    }

    /// The objects for which the index gives `value`, ordered by key; none if there is no such index.
    pub fn indexed(&self, index: &'static str, value: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.indexes.get(index).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The resourceVersion up to which the cache is complete.
    pub fn resource_version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Waits until the cache has seen `version` (at least). Bookmarks count, so on a quiet resource this may
    /// take as long as the server's bookmark interval when `version` belongs to another resource.
    pub async fn wait_for_version(&self, version: u64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.version.subscribe().wait_for(|seen| *seen >= version).await;
    }

    pub(super) fn add_index(&self, name: &'static str, values: IndexFn<K>) {
        let mut state = self.state.write();
        if state.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values, keys: HashMap::new() };
        for (key, object) in &state.objects {
            index.insert(key, object);
        }
        state.indexes.insert(name, index);
    }

    /// Makes the change and returns what it means to subscribers.
    pub(super) fn apply(&self, change: Change<K>) -> Vec<Event<K>> {
        let (events, version) = {
            let mut state = self.state.write();
            match change {
                Change::Replace(objects, version) => (state.replace(objects), version),
                Change::Put(object) => {
                    let version = resource_version(&object);
                    (state.put(object).into_iter().collect(), version)
                }
                Change::Delete(object) => {
                    let version = resource_version(&object);
                    (state.delete(&object).into_iter().collect(), version)
                }
                Change::Progress(version) => (Vec::new(), version),
            }
        };
        self.version.send_if_modified(|seen| {
            let forward = version > *seen;
            *seen = version.max(*seen);
            forward
        });
        events
    }
}

impl<K: Cached> State<K> {
    fn put(&mut self, object: K) -> Option<Event<K>> {
        let key = ObjectKey::of(&object);
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &new);
        }
        match old {
            None => Some(Event::Added(new)),
            Some(old) if same_version(&*old, &*new) => None,
            Some(old) => Some(Event::Updated { old, new }),
        }
    }

    fn delete(&mut self, object: &K) -> Option<Event<K>> {
        let key = ObjectKey::of(object);
        let old = self.objects.remove(&key)?;
        for index in self.indexes.values_mut() {
            index.remove(&key, &old);
        }
        Some(Event::Deleted(Arc::new(object.clone())))
    }

    /// Goes over to `objects`; one that was replaced by another of the same name counts as deleted and added.
    fn replace(&mut self, objects: Vec<K>) -> Vec<Event<K>> {
        let mut gone: BTreeSet<_> = self.objects.keys().cloned().collect();
        let mut events = Vec::new();
        for object in objects {
            let key = ObjectKey::of(&object);
            gone.remove(&key);
            let other = self.objects.get(&key).filter(|old| old.meta().uid != object.meta().uid).cloned();
            if let Some(other) = other {
                events.extend(self.delete(&other));
            }
            events.extend(self.put(object));
        }
        for key in gone {
            if let Some(old) = self.objects.get(&key).cloned() {
                events.extend(self.delete(&old));
            }
        }
        events
    }
}

fn same_version<K: Cached>(a: &K, b: &K) -> bool {
    a.meta().resource_version.is_some() && a.meta().resource_version == b.meta().resource_version
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}
