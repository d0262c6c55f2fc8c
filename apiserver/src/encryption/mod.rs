//! Encryption at rest: a store that keeps values encrypted, as `--encryption-provider-config` says (upstream
//! `server/options/encryptionconfig` and `storage/value`).
//!
//! [`Encrypted`] stands between the server and its store. What is written is transformed by the first provider of the
//! resource, what is read by whichever provider has written it; everything above sees plain values. The key of a value
//! is authenticated with it, so that values cannot be moved. Prefixes and forms are upstream's: either can read what
//! the other has written.
//!
//! A value that cannot be decrypted is an error where it is asked for. In ranges and watches it is passed on as it is
//! stored, and the cache, which finds that it is no object, asks for it when it is read; but when a key service does not answer, these end with an
//! error that makes their reader try again, so that nothing is missed for long.

pub mod ciphers;
pub mod config;
pub mod kms;
pub mod providers;
pub mod reload;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use store::{Error, Event, Expect, KeyValue, Range, RangeResult, Revision, Store, WatchStream};

use crate::registry::resource::storage_name;
use config::GroupResource;
use providers::{Failure, Providers, Transformed};

/// A store with encrypted values.
pub struct Encrypted {
    inner: Arc<dyn Store>,
    keys: Keys,
    providers: Arc<RwLock<Arc<Providers>>>,
}

impl Encrypted {
    /// Over `inner`, whose keys begin with `prefix` (`/registry`).
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, prefix: &str, providers: Arc<RwLock<Arc<Providers>>>) -> Self {
        Self { inner, keys: Keys::new(prefix), providers }
    }

    async fn open(&self, key: &str, value: Bytes) -> Result<Transformed, Failure> {
        let Some(resource) = self.keys.resource(key) else {
            return Ok(Transformed { value, outdated: false });
        };
        let providers = Arc::clone(&self.providers.read());
        providers.open(&resource, key, value).await
    }

    async fn plain(&self, kv: KeyValue) -> Result<KeyValue, Error> {
        let opened = self.open(&kv.key, kv.value.clone()).await.map_err(|why| failed(&kv.key, why))?;
        Ok(KeyValue { value: opened.value, ..kv })
    }

    /// As [`Encrypted::plain`], but what can never be read stays as it is.
    async fn plain_if_possible(&self, kv: KeyValue) -> Result<KeyValue, Error> {
        match self.open(&kv.key, kv.value.clone()).await {
            Ok(opened) => Ok(KeyValue { value: opened.value, ..kv }),
            Err(why @ Failure::Unavailable(_)) => Err(failed(&kv.key, why)),
            Err(why) => {
                tracing::error!(key = kv.key, error = %why, "a stored value cannot be decrypted");
                Ok(kv)
            }
        }
    }

    async fn event(&self, event: Event) -> Result<Event, Error> {
        Ok(match event {
            Event::Put(current) => Event::Put(self.plain_if_possible(current).await?),
            other => other,
        })
    }

    async fn events(&self, batch: Vec<Event>) -> Result<Vec<Event>, Error> {
        let mut plain = Vec::with_capacity(batch.len());
        for event in batch {
            plain.push(self.event(event).await?);
        }
        Ok(plain)
    }
}

fn failed(key: &str, why: Failure) -> Error {
    match why {
        Failure::Unavailable(_) => {
            Error::Unavailable { reason: format!("unable to transform key {key:?}: {why}") }
        }
        Failure::Undecryptable(reason) => Error::Undecryptable { key: key.to_owned(), reason },
    }
}

/// What a watch needs of the store to go on by itself.
impl Clone for Encrypted {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            keys: self.keys.clone(),
            providers: Arc::clone(&self.providers),
        }
    }
}

#[async_trait::async_trait]
impl Store for Encrypted {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), Error> {
        let (found, revision) = self.inner.get(key).await?;
        match found {
            Some(kv) => Ok((Some(self.plain(kv).await?), revision)),
            None => Ok((None, revision)),
        }
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let mut found = self.inner.range(range).await?;
        for kv in &mut found.items {
            *kv = self.plain_if_possible(kv.clone()).await?;
        }
        Ok(found)
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, Error> {
        let stored = match self.keys.resource(key) {
            Some(resource) => {
                let providers = Arc::clone(&self.providers.read());
                providers.seal(&resource, key, value).await.map_err(|why| failed(key, why))?
            }
            None => value,
        };
        match self.inner.put(key, stored, expect, ttl).await {
            Err(Error::Conflict { key, current: Some(current) }) => {
                let current = self.plain_if_possible(current).await.ok();
                Err(Error::Conflict { key, current })
            }
            other => other,
        }
    }

    async fn delete(&self, key: &str, expect: Option<Revision>) -> Result<(KeyValue, Revision), Error> {
        match self.inner.delete(key, expect).await {
            Ok((last, revision)) => {
                let plain = self.plain_if_possible(last.clone()).await;
                Ok((plain.unwrap_or(last), revision))
            }
            Err(Error::Conflict { key, current: Some(current) }) => {
                let current = self.plain_if_possible(current).await.ok();
                Err(Error::Conflict { key, current })
            }
            Err(error) => Err(error),
        }
    }

    async fn is_outdated(&self, key: &str) -> Result<bool, Error> {
        let (Some(kv), _) = self.inner.get(key).await? else { return Ok(false) };
        let opened = self.open(key, kv.value).await.map_err(|why| failed(key, why))?;
        Ok(opened.outdated)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        let inner = self.inner.watch(prefix, from).await?;
        let this = self.clone();
        let plain = inner.then(move |batch| {
            let this = this.clone();
            async move {
                match batch {
                    Ok(batch) => this.events(batch).await,
                    Err(error) => Err(error),
                }
            }
        });
        // Nothing follows an error.
        let ended = plain.scan(false, |over, batch| {
            let before = std::mem::replace(over, batch.is_err());
            std::future::ready((!before).then_some(batch))
        });
        Ok(Box::pin(ended))
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.inner.request_progress().await
    }

    async fn current_revision(&self) -> Result<Revision, Error> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn size(&self) -> Result<u64, Error> {
        self.inner.size().await
    }
}

/// From keys to the resources whose objects they hold.
#[derive(Clone)]
struct Keys {
    prefix: Arc<str>,
    built_in: Arc<HashMap<String, GroupResource>>,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let mut built_in = HashMap::new();
        for row in api::registry::resources() {
            let resource = GroupResource { group: row.group.to_owned(), resource: row.plural.to_owned() };
            let name = storage_name(row.group, row.plural);
            // Events are stored as those of the core group.
            if row.group != "events.k8s.io" {
                built_in.insert(name, resource);
            }
        }
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')).into(), built_in: Arc::new(built_in) }
    }

    /// The resource of a key: one or two parts after the prefix say it; `None` of keys that are no objects.
    fn resource(&self, key: &str) -> Option<GroupResource> {
        let rest = key.strip_prefix(&*self.prefix)?;
        let (first, after) = rest.split_once('/')?;
        if let Some(resource) = self.built_in.get(first) {
            return Some(resource.clone());
        }
        let (second, _) = after.split_once('/')?;
        if let Some(resource) = self.built_in.get(&rest[..first.len() + 1 + second.len()]) {
            return Some(resource.clone());
        }
        // Custom resources are below their group, which has a dot.
        let custom = || GroupResource { group: first.to_owned(), resource: second.to_owned() };
        first.contains('.').then(custom)
    }
}

#[cfg(test)]
mod tests;
