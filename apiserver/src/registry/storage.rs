//! Objects of one resource in the store: read for writing, compared and swapped (upstream `storage.Interface`,
//! `GuaranteedUpdate` above all). Knows nothing of strategies.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use api::codec::ordered::{Part, entries};
use api::codec::verbatim::{self, Verbatim};
use api::schema::TypeRef;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;
use store::{Expect, KeyValue, Revision};

use super::Resource;
use crate::cacher::{self, Announced, CachedObject};
use crate::codec;
use crate::object;

/// An object as it is now, or as the cache last saw it.
#[derive(Clone, Debug)]
pub struct Current {
    /// The object, resourceVersion included.
    pub value: Value,
    /// The revision that last wrote it.
    pub revision: Revision,
    /// Whether it is stored in another form than it would be now.
    pub outdated: bool,
    /// Whether the store said so, not the cache (which may be behind).
    pub fresh: bool,
    /// Texts of its embedded objects.
    texts: Vec<Verbatim>,
}

/// What came of an update.
#[derive(Clone)]
pub struct Written {
    /// The object as it is answered.
    pub object: Arc<CachedObject>,
    /// Whether it did not exist before.
    pub created: bool,
}

/// What an update makes of the present state.
pub enum Next {
    /// Write this.
    Put(Value),
    /// Delete it; this is its last state.
    Delete(Value),
    /// Leave it; answer with this.
    Keep(Value),
}

/// A change of one object. It may be asked several times, if others write at the same time.
#[async_trait::async_trait]
pub trait Change: Send {
    /// Makes the next state of the present one; `None`: there is no such object.
    async fn next(&mut self, current: Option<&Current>) -> Result<Next, ApiError>;

    /// The outcome of the last `next`: written, or not.
    async fn finish(&mut self, _written: bool) {}
}

/// How often an update is tried before giving up on writers that are always faster.
const ATTEMPTS: usize = 64;

/// The store with the resource whose objects are meant.
#[derive(Clone, Copy)]
pub struct Storage<'a> {
    /// The store.
    pub store: &'a Arc<dyn store::Store>,
    /// The resource.
    pub resource: &'a Resource,
    /// Whether nothing is to be written.
    pub dry_run: bool,
    /// Texts of embedded objects in the body of the request.
    pub texts: &'a [Verbatim],
}

/// The outcome of [`Storage::update`].
pub enum Updated {
    /// The object was written (or was so already).
    Written(Written),
    /// The object was deleted; its last state.
    Deleted(Value, Revision),
    /// Nothing was done, as the change wished.
    Kept(Value),
}

impl Storage<'_> {
    /// Reads an object from the store.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Option<Current>, ApiError> {
        let (found, _) =
            self.store.get(&self.resource.key(namespace, name)).await.map_err(|e| self.error(name, e))?;
        found.map(|kv| self.current(kv)).transpose()
    }

    fn current(&self, kv: KeyValue) -> Result<Current, ApiError> {
        let mut value: Value = serde_json::from_slice(&kv.value)
            .map_err(|error| ApiError::internal(format!("stored object {} is damaged: {error}", kv.key)))?;
        let mut outdated = false;
        if let Some(custom) = &self.resource.custom {
            let version = value.get("apiVersion").cloned();
            value = custom.definition.from_storage(value).map_err(ApiError::internal)?;
            if custom.view.is_none() {
                value = custom.definition.to_storage(value).map_err(ApiError::internal)?;
            }
            outdated = version.as_ref().and_then(Value::as_str) != Some(&self.resource.storage_version());
        }
        object::set_meta(&mut value, "resourceVersion", Some(kv.modified.to_string().into()));
        let texts = self.texts_of(|| kv.value.clone());
        Ok(Current { value, revision: kv.modified, outdated, fresh: true, texts })
    }

    /// What the cache knows; a first guess for an update.
    fn guess(&self, namespace: &str, name: &str) -> Option<Current> {
        let cached = self.resource.cache.as_ref()?.peek(namespace, name)?;
        let value = cached.value().ok()?;
        let converted = self.resource.view().is_some();
        let outdated = converted && object_version(&value) != self.resource.storage_version();
        let texts = self.texts_of(|| cached.json());
        Some(Current { value, revision: cached.revision, outdated, fresh: false, texts })
    }

    /// The texts of embedded objects in what is stored.
    fn texts_of(&self, json: impl FnOnce() -> Bytes) -> Vec<Verbatim> {
        codec::texts(&self.resource.stored_as, json)
    }

    fn encoded(&self, value: &Value) -> Bytes {
        match self.texts {
            [] => encode(value),
            texts => verbatim::restore(encode(value).into(), texts).into(),
        }
    }

    /// Stores a new object.
    pub async fn create(&self, namespace: &str, name: &str, value: &Value) -> Result<Written, ApiError> {
        let key = self.resource.key(namespace, name);
        let stored = self.stored(value).await?;
        let bytes = self.encoded(&stored);
        if self.dry_run {
            return match self.read(namespace, name).await? {
                Some(current) => Err(self.taken(name, Some(&current))),
                None => self.written(key, bytes, Revision(0), true).await,
            };
        }
        let announced = self.announce(&key, &bytes, &stored);
        match self.store.put(&key, bytes.clone(), Expect::Absent, self.resource.ttl).await {
            Ok(revision) => self.wrote(announced, key, bytes, revision, true).await,
            Err(store::Error::Conflict { .. }) => {
                let current = self.read(namespace, name).await.ok().flatten();
                Err(self.taken(name, current.as_ref()))
            }
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// The name of a new object is that of another, which perhaps is on its way out.
    fn taken(&self, name: &str, current: Option<&Current>) -> ApiError {
        let mut error = ApiError::already_exists(&self.resource.group_resource(), name);
        if current.is_some_and(|current| object::is_being_deleted(&current.value)) {
            error.status.message = Some(format!("object is being deleted: {}", error.message()));
        }
        error
    }

    /// What was written, in the version that is served.
    async fn written(
        &self,
        key: String,
        bytes: Bytes,
        revision: Revision,
        created: bool,
    ) -> Result<Written, ApiError> {
        let kv = KeyValue { key, value: bytes, created: revision, modified: revision };
        let object = cacher::ingest(&self.resource.cache_spec(), kv).map_err(|error| cache_error(&error))?;
        Ok(Written { object: self.resource.seen(Arc::new(object)).await?, created })
    }

    /// Tells the cache what is about to be written.
    fn announce(&self, key: &str, bytes: &Bytes, value: &Value) -> Option<Announced> {
        self.resource.cache.as_ref()?.announce(key, bytes, value)
    }

    /// As [`Storage::written`], of a write that the cache may know of.
    async fn wrote(
        &self,
        announced: Option<Announced>,
        key: String,
        bytes: Bytes,
        revision: Revision,
        created: bool,
    ) -> Result<Written, ApiError> {
        match announced {
            Some(known) => {
                Ok(Written { object: self.resource.seen(known.written(revision)).await?, created })
            }
            None => self.written(key, bytes, revision, created).await,
        }
    }

    /// Applies a change until it meets the state it was made for. An unchanged object is not written.
    pub async fn update(
        &self,
        namespace: &str,
        name: &str,
        change: &mut (dyn Change + '_),
    ) -> Result<Updated, ApiError> {
        let mut current = match self.guess(namespace, name) {
            Some(guess) => Some(guess),
            None => self.read(namespace, name).await?,
        };
        for _ in 0..ATTEMPTS {
            let fresh = current.as_ref().is_none_or(|c| c.fresh);
            let next = match change.next(current.as_ref()).await {
                Ok(next) => next,
                // The cache may have been behind: only what the store says is a reason to refuse.
                Err(error) if fresh => return Err(error),
                Err(_) => {
                    current = self.read(namespace, name).await?;
                    continue;
                }
            };
            let outcome = self.attempt(namespace, name, current.as_ref(), next).await;
            change.finish(matches!(outcome, Ok(Some(_)))).await;
            if let Some(updated) = outcome? {
                return Ok(updated);
            }
            current = self.read(namespace, name).await?;
        }
        Err(ApiError::modified(&self.resource.group_resource(), name))
    }

    /// One attempt; `None`: the state was another, read again.
    async fn attempt(
        &self,
        namespace: &str,
        name: &str,
        current: Option<&Current>,
        next: Next,
    ) -> Result<Option<Updated>, ApiError> {
        let key = self.resource.key(namespace, name);
        match next {
            Next::Keep(value) => match current {
                Some(current) if !current.fresh => Ok(None),
                _ => Ok(Some(Updated::Kept(value))),
            },
            Next::Delete(last) => {
                let Some(current) = current else { return Ok(Some(Updated::Kept(last))) };
                if self.dry_run {
                    return Ok(current.fresh.then_some(Updated::Deleted(last, current.revision)));
                }
                match self.store.delete(&key, Some(current.revision)).await {
                    Ok((_, revision)) => Ok(Some(Updated::Deleted(last, revision))),
                    Err(store::Error::Conflict { .. }) => Ok(None),
                    Err(error) => Err(self.error(name, error)),
                }
            }
            Next::Put(value) => self.put(name, key, current, &value).await,
        }
    }

    async fn put(
        &self,
        name: &str,
        key: String,
        current: Option<&Current>,
        value: &Value,
    ) -> Result<Option<Updated>, ApiError> {
        let value = &*self.stored(value).await?;
        let bytes = match current {
            Some(current) if !current.texts.is_empty() => {
                let texts = [self.texts, &current.texts].concat();
                verbatim::restore(encode(value).into(), &texts).into()
            }
            _ => self.encoded(value),
        };
        let expect = match current {
            Some(current) => {
                if same_object(&current.value, value) && !self.is_outdated(&key, current).await? {
                    if !current.fresh {
                        return Ok(None);
                    }
                    let same = self.written(key, bytes, current.revision, false).await?;
                    return Ok(Some(Updated::Written(same)));
                }
                Expect::At(current.revision)
            }
            None => Expect::Absent,
        };
        let created = current.is_none();
        if self.dry_run {
            if current.is_some_and(|c| !c.fresh) {
                return Ok(None);
            }
            let revision = current.map_or(Revision(0), |c| c.revision);
            return Ok(Some(Updated::Written(self.written(key, bytes, revision, created).await?)));
        }
        let announced = self.announce(&key, &bytes, value);
        match self.store.put(&key, bytes.clone(), expect, self.ttl(created)).await {
            Ok(revision) => {
                Ok(Some(Updated::Written(self.wrote(announced, key, bytes, revision, created).await?)))
            }
            Err(store::Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// Whether an object would be stored in another way today, and so is written though it does not change.
    async fn is_outdated(&self, key: &str, current: &Current) -> Result<bool, ApiError> {
        Ok(current.outdated || self.store.is_outdated(key).await.map_err(|error| store_error(&error))?)
    }

    /// An object as it is stored: custom ones come here in the version of the request.
    async fn stored<'v>(&self, value: &'v Value) -> Result<Cow<'v, Value>, ApiError> {
        match &self.resource.custom {
            Some(custom) => self.resource.custom_to_stored(custom, value.clone()).await.map(Cow::Owned),
            None if keeps_empty_lists(&self.resource.gvr.group) || !TypeRef::may_have_empty_lists(value) => {
                Ok(Cow::Borrowed(value))
            }
            None => {
                let mut value = value.clone();
                if let Some(ty) = api::schema::type_for(&self.resource.stored_as) {
                    ty.forget_empty_lists(&mut value);
                }
                Ok(Cow::Owned(value))
            }
        }
    }

    fn ttl(&self, _created: bool) -> Option<Duration> {
        self.resource.ttl
    }

    /// A store error as the client sees it.
    fn error(&self, name: &str, error: store::Error) -> ApiError {
        match error {
            store::Error::Conflict { .. } => ApiError::modified(&self.resource.group_resource(), name),
            other => store_error(&other),
        }
    }
}

/// A buffer for encoding is kept up to this size.
const MOST_SCRATCH: usize = 64 << 10;

/// The groups whose objects upstream stores as JSON.
fn keeps_empty_lists(group: &str) -> bool {
    matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io")
}

fn object_version(value: &Value) -> &str {
    value.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// The bytes that are stored: compact JSON without a resourceVersion.
pub(super) fn encode(value: &Value) -> Bytes {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        api::codec::ordered::write(scratch, &WithoutVersion(value));
        // Of the right size: a buffer that has grown would be kept with the object.
        let stored = Bytes::copy_from_slice(scratch);
        scratch.shrink_to(MOST_SCRATCH);
        stored
    })
}

/// Whether two objects are the same but for their resourceVersion. The order of keys does not count.
fn same_object(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let same_meta = |a: &Value, b: &Value| match (a.as_object(), b.as_object()) {
        (Some(a), Some(b)) => {
            let other = |map: &serde_json::Map<String, Value>| map.keys().filter(|k| !unstored(k)).count();
            other(a) == other(b) && a.iter().all(|(key, value)| unstored(key) || b.get(key) == Some(value))
        }
        _ => a == b,
    };
    a.len() == b.len()
        && a.iter().all(|(key, value)| {
            b.get(key)
                .is_some_and(|other| if key == "metadata" { same_meta(value, other) } else { value == other })
        })
}

/// Metadata that is not stored.
fn unstored(key: &str) -> bool {
    matches!(key, "resourceVersion" | "selfLink")
}

/// Serializes an object without `metadata.resourceVersion`, so that nothing has to be cloned to leave it out.
struct WithoutVersion<'a>(&'a Value);

impl serde::Serialize for WithoutVersion<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(object) = self.0.as_object() else { return self.0.serialize(serializer) };
        // Kind and version come first, as upstream writes them: lists cut them off (`Resource::json_prefix`).
        let entries = entries(object, crate::codec::built_in(self.0));
        serializer.collect_map(entries.map(|(key, part)| (key, Top { key, part })))
    }
}

struct Top<'a> {
    key: &'a str,
    part: Part<'a>,
}

impl serde::Serialize for Top<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.key, self.part.value) {
            ("metadata", Value::Object(meta)) => {
                serializer.collect_map(entries(meta, self.part.ty()).filter(|(key, _)| !unstored(key)))
            }
            _ => self.part.serialize(serializer),
        }
    }
}

/// A store error as the client sees it.
#[must_use]
pub fn store_error(error: &store::Error) -> ApiError {
    match error {
        store::Error::TooLarge { .. } => {
            ApiError::new(500, "", format!("etcdserver: request is too large: {error}"))
        }
        store::Error::Unavailable { .. } => ApiError::unavailable(error.to_string()),
        store::Error::Compacted { .. } => ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. \
             You must start a new list without the continue parameter.",
        ),
        store::Error::Future { requested, current } => too_large_version(requested.0, current.0),
        other => ApiError::internal(other),
    }
}

/// A cache error as the client sees it.
#[must_use]
pub fn cache_error(error: &cacher::Error) -> ApiError {
    match error {
        cacher::Error::Expired { requested, oldest } => {
            ApiError::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        cacher::Error::Future { requested, current } => too_large_version(requested.0, current.0),
        cacher::Error::NotReady => ApiError::too_many_requests("storage is (re)initializing", 1),
        cacher::Error::Store(error) => store_error(error),
        cacher::Error::Conversion(why) => ApiError::new(500, "", why.as_str()),
        other => ApiError::internal(other),
    }
}

/// 504 for a version that has not been reached.
#[must_use]
pub fn too_large_version(requested: u64, current: u64) -> ApiError {
    let message = format!("Too large resource version: {requested}, current: {current}");
    let cause = k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause {
        reason: Some("ResourceVersionTooLarge".to_owned()),
        message: Some("Too large resource version".to_owned()),
        field: None,
    };
    ApiError::timeout(message, 1).with_causes(vec![cause])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_bytes_carry_no_version() {
        let object =
            json!({"kind": "A", "metadata": {"name": "x", "resourceVersion": "7"}, "spec": {"a": [1]}});
        assert_eq!(encode(&object), r#"{"kind":"A","metadata":{"name":"x"},"spec":{"a":[1]}}"#);
    }
}
