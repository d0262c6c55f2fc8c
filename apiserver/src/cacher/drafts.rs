//! Objects on their way into the store. What was worked out of an object before it is written (labels, selectable
//! fields, the place of its version) is used again when the store's watch brings it back, so that a write is not
//! followed by reading what has just been made.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use store::{KeyValue, Revision};

use super::object::{CachedObject, ingest_known};
use super::resource::Resource;

/// The objects that are being written now, by their keys in the store.
#[derive(Default)]
pub(super) struct Drafts(Mutex<HashMap<String, Draft>>);

#[derive(Clone)]
struct Draft {
    value: Bytes,
    object: Arc<CachedObject>,
}

impl Drafts {
    /// The object that these bytes are, if they are on their way; of the revision that they got.
    pub(super) fn finish(&self, kv: &KeyValue) -> Option<Arc<CachedObject>> {
        let draft = self.0.lock().get(&kv.key).filter(|draft| draft.value == kv.value).cloned()?;
        Some(Arc::new(draft.object.at(kv.modified)))
    }
}

/// A write that the cache knows of. When it is dropped, the cache forgets it.
pub struct Announced {
    cache: Arc<Resource>,
    key: String,
    object: Arc<CachedObject>,
}

impl Announced {
    /// The object as it was written: the cache's if it has got it already.
    #[must_use]
    pub fn written(&self, revision: Revision) -> Arc<CachedObject> {
        let cached = self.cache.peek(self.object.namespace(), self.object.name());
        cached
            .filter(|cached| cached.revision == revision)
            .unwrap_or_else(|| Arc::new(self.object.at(revision)))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let mut drafts = self.cache.drafts.0.lock();
        if drafts.get(&self.key).is_some_and(|draft| Arc::ptr_eq(&draft.object, &self.object)) {
            drafts.remove(&self.key);
        }
    }
}

impl Resource {
    /// Tells the cache that `value`, which `bytes` are the encoding of, is about to be written. `None` if the cache
    /// would make something else of the bytes than what they say.
    #[must_use]
    pub fn announce(self: &Arc<Self>, key: &str, bytes: &Bytes, value: &Value) -> Option<Announced> {
        if self.spec.decode.is_some() {
            return None;
        }
        let kv = KeyValue {
            key: key.to_owned(),
            value: bytes.clone(),
            created: Revision(0),
            modified: Revision(0),
        };
        let object = Arc::new(ingest_known(&self.spec, kv, value).ok()?);
        let draft = Draft { value: bytes.clone(), object: Arc::clone(&object) };
        // Of several writers of one object the last one is remembered; the others' bytes are read again.
        self.drafts.0.lock().insert(key.to_owned(), draft);
        Some(Announced { cache: Arc::clone(self), key: key.to_owned(), object })
    }
}
