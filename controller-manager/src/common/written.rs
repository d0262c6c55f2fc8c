//! Read-your-writes: a key is not reconciled on caches older than its own last write.
//!
//! This replaces counted expectations. A write's answer carries a resource version that grows across all resources,
//! so "the cache has come as far as this" is one comparison. Deletions are remembered by UID, because their answer
//! need not carry a version: they are seen when the object is gone, replaced, or marked for deletion.
//! As upstream's pkg/controller/util/consistency.

use super::meta;
use client::informer::Informer;
use client::kube::Resource;
use client::{Object, ObjectKey};
use parking_lot::Mutex;
use std::any::TypeId;
use std::collections::HashMap;

/// What keys have written, and the caches in which that has to show up.
pub struct Written {
    caches: HashMap<TypeId, Cache>,
    keys: Mutex<HashMap<ObjectKey, Pending>>,
}

type Version = Box<dyn Fn() -> u64 + Send + Sync>;
type Holds = Box<dyn Fn(&ObjectKey, &str) -> bool + Send + Sync>;

struct Cache {
    version: Version,
    holds: Holds,
}

#[derive(Default)]
struct Pending {
    versions: HashMap<TypeId, u64>,
    deletions: Vec<(TypeId, ObjectKey, String)>,
}

impl Written {
    /// Remembers nothing yet and follows no cache.
    pub fn new() -> Self {
        Self { caches: HashMap::new(), keys: Mutex::new(HashMap::new()) }
    }

    /// Follows the cache of one type that the controller writes.
    #[must_use]
    pub fn follow<K: Object>(self, informer: &Informer<K>) -> Self {
        let (versions, objects) = (informer.clone(), informer.clone());
        self.with_cache::<K>(
            move || versions.store().resource_version(),
            move |key, uid| {
                objects.store().get(key).is_some_and(|object| {
                    meta::uid(object.meta()) == uid && !meta::is_deleting(object.meta())
                })
            },
        )
    }

    fn with_cache<K: 'static>(
        mut self,
        version: impl Fn() -> u64 + Send + Sync + 'static,
        holds: impl Fn(&ObjectKey, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.caches.insert(TypeId::of::<K>(), Cache { version: Box::new(version), holds: Box::new(holds) });
        self
    }

    /// `key` wrote `object`, which the server answered.
    pub fn wrote<K: Resource + 'static>(&self, key: &ObjectKey, object: &K) {
        let version = meta::resource_version(object.meta());
        let mut keys = self.keys.lock();
        let newest = keys.entry(key.clone()).or_default().versions.entry(TypeId::of::<K>()).or_default();
        *newest = version.max(*newest);
    }

    /// `key` deleted this object.
    pub fn deleted<K: Resource + 'static>(&self, key: &ObjectKey, object: &K) {
        let of = (TypeId::of::<K>(), meta::key(object.meta()), meta::uid(object.meta()).to_owned());
        self.keys.lock().entry(key.clone()).or_default().deletions.push(of);
    }

    /// Whether the caches show everything that `key` wrote. Forgets the writes when they do.
    pub fn caught_up(&self, key: &ObjectKey) -> bool {
        let mut keys = self.keys.lock();
        let Some(pending) = keys.get_mut(key) else { return true };
        pending
            .versions
            .retain(|of, wrote| self.caches.get(of).is_some_and(|cache| (cache.version)() < *wrote));
        pending
            .deletions
            .retain(|(of, object, uid)| self.caches.get(of).is_some_and(|cache| (cache.holds)(object, uid)));
        let done = pending.versions.is_empty() && pending.deletions.is_empty();
        if done {
            keys.remove(key);
        }
        done
    }

    /// The object behind `key` is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.keys.lock().remove(key);
    }
}

impl Default for Written {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    fn pod(version: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some("p".into()),
                uid: Some("u".into()),
                resource_version: Some(version.into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn key_waits_until_the_cache_has_its_last_write() {
        let seen = Arc::new(AtomicU64::new(5));
        let cache = seen.clone();
        let written = Written::new().with_cache::<Pod>(move || cache.load(Ordering::SeqCst), |_, _| false);
        let key = ObjectKey::new("ns", "web");
        assert!(written.caught_up(&key));
        written.wrote(&key, &pod("9"));
        written.wrote(&key, &pod("7"));
        assert!(!written.caught_up(&key));
        assert!(written.caught_up(&ObjectKey::new("ns", "other")));
        seen.store(8, Ordering::SeqCst);
        assert!(!written.caught_up(&key));
        seen.store(9, Ordering::SeqCst);
        assert!(written.caught_up(&key));
    }

    #[test]
    fn key_waits_until_what_it_deleted_is_gone() {
        let there = Arc::new(AtomicBool::new(true));
        let cache = there.clone();
        let written = Written::new().with_cache::<Pod>(|| 0, move |_, _| cache.load(Ordering::SeqCst));
        let key = ObjectKey::new("ns", "web");
        written.deleted(&key, &pod("3"));
        assert!(!written.caught_up(&key));
        there.store(false, Ordering::SeqCst);
        assert!(written.caught_up(&key));
    }
}
