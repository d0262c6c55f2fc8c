//! One cached object: its encoded bytes, and what can be asked of it without decoding them.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use store::{KeyValue, Revision};

use super::text::{Text, glance, glance_known};
use super::{Error, ResourceSpec};

/// An encoding of an object (or of a watch event); the numbers are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form(pub u32);

/// The same object in other versions, by their number.
type Versions = Vec<(u32, Arc<CachedObject>)>;

/// An object as of one revision. Shared by all readers.
pub struct CachedObject {
    /// The revision that last wrote it: its `metadata.resourceVersion`.
    pub revision: Revision,
    facts: Arc<Facts>,
    forms: Renderings,
    /// The object in other versions, by the caller's numbers, where conversion is costly.
    versions: OnceLock<Box<Mutex<Versions>>>,
}

/// What does not depend on the revision.
struct Facts {
    text: Text,
    uid: Box<str>,
    key: Box<str>,
    /// Length of the namespace at the head of `key`; 0 for none.
    namespace: usize,
    labels: Vec<(Box<str>, Box<str>)>,
    fields: Vec<(Arc<str>, Box<str>)>,
}

impl CachedObject {
    /// `metadata.uid`; empty if it has none.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.facts.uid
    }

    /// The key below the resource's prefix: `namespace/name`, or `name`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.facts.key
    }

    /// The namespace; empty for none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.facts.key[..self.facts.namespace]
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        let Facts { key, namespace, .. } = &*self.facts;
        if *namespace == 0 { key } else { &key[namespace + 1..] }
    }

    /// The object as JSON, `metadata.resourceVersion` included; put together anew by each call.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let mut json = Vec::with_capacity(self.json_len());
        self.write_json(0, &mut json);
        json.into()
    }

    /// The length of [`CachedObject::json`].
    #[must_use]
    pub fn json_len(&self) -> usize {
        self.facts.text.len(self.revision)
    }

    /// Writes [`CachedObject::json`] behind its first `skip` bytes, which are such as
    /// [`CachedObject::json_starts_with`] has found.
    pub fn write_json(&self, skip: usize, out: &mut Vec<u8>) {
        self.facts.text.write(self.revision, skip, out);
    }

    /// Whether [`CachedObject::json`] begins with something that is not as long as to reach the version.
    #[must_use]
    pub fn json_starts_with(&self, prefix: &str) -> bool {
        self.facts.text.starts_with(prefix)
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.facts.labels.binary_search_by(|(name, _)| (**name).cmp(key)).ok()?;
        Some(&self.facts.labels[found].1)
    }

    /// All labels, ordered by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.facts.labels.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The value of a selectable field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => self.facts.fields.iter().find(|(field, _)| **field == *name).map(|(_, value)| &**value),
        }
    }

    /// The decoded object; decoded anew by each call.
    pub fn value(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.json())
            .map_err(|error| Error::Malformed { key: self.key().to_owned(), reason: error.to_string() })
    }

    /// The object in another encoding: made once, then shared.
    pub fn form(&self, form: Form, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.forms.get(u64::from(form.0), || make(self))
    }

    /// As [`CachedObject::form`]; a failure is not remembered.
    pub fn try_form<E>(&self, form: Form, make: impl FnOnce(&Self) -> Result<Bytes, E>) -> Result<Bytes, E> {
        self.forms.try_get(u64::from(form.0), || make(self))
    }

    /// Forgets the other encodings if none was asked for since the last call; they are made again when needed.
    pub(super) fn age(&self) {
        self.forms.age();
    }

    /// The object in another version, if that is known.
    #[must_use]
    pub fn version(&self, number: u32) -> Option<Arc<CachedObject>> {
        let versions = self.versions.get()?.lock();
        versions.iter().find(|(known, _)| *known == number).map(|(_, object)| Arc::clone(object))
    }

    /// Keeps the object in another version; the one that was first is returned.
    pub fn keep_version(&self, number: u32, object: Arc<CachedObject>) -> Arc<CachedObject> {
        let mut versions = self.versions.get_or_init(Box::default).lock();
        if let Some((_, known)) = versions.iter().find(|(known, _)| *known == number) {
            return Arc::clone(known);
        }
        versions.push((number, Arc::clone(&object)));
        object
    }

    /// The same state under another revision: how a delete shows the object it removed.
    #[must_use]
    pub(crate) fn at(&self, revision: Revision) -> Self {
        Self::new(revision, Arc::clone(&self.facts))
    }

    fn new(revision: Revision, facts: Arc<Facts>) -> Self {
        Self { revision, facts, forms: Renderings::default(), versions: OnceLock::new() }
    }
}

impl api::selector::Labels for CachedObject {
    fn label(&self, key: &str) -> Option<&str> {
        CachedObject::label(self, key)
    }
}

impl fmt::Debug for CachedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key(), self.revision)
    }
}

/// Makes the cached form of a value that was just read or written.
pub fn ingest(spec: &ResourceSpec, kv: KeyValue) -> Result<CachedObject, Error> {
    make(spec, kv, None)
}

/// As [`ingest`], of an object that is there decoded as well.
pub(super) fn ingest_known(spec: &ResourceSpec, kv: KeyValue, value: &Value) -> Result<CachedObject, Error> {
    make(spec, kv, Some(value))
}

fn make(spec: &ResourceSpec, kv: KeyValue, known: Option<&Value>) -> Result<CachedObject, Error> {
    let KeyValue { key, value, modified, .. } = kv;
    let malformed = |reason: String| Error::Malformed { key: key.clone(), reason };
    let relative = key
        .strip_prefix(&spec.prefix)
        .filter(|relative| !relative.is_empty())
        .ok_or_else(|| malformed(format!("its key is not below {}", spec.prefix)))?;
    let namespace = match (spec.namespaced, relative.split_once('/')) {
        (true, Some((namespace, name))) if !namespace.is_empty() && !name.is_empty() => namespace.len(),
        (true, _) => return Err(malformed("its key lacks a namespace".into())),
        (false, _) => 0,
    };
    let stored = match &spec.decode {
        Some(decode) => decode(&key, value).map_err(malformed)?,
        None => value,
    };
    let fields = match &spec.fields {
        Some(fields) => {
            let found = match known {
                Some(value) => fields(value),
                None => {
                    fields(&serde_json::from_slice(&stored).map_err(|error| malformed(error.to_string()))?)
                }
            };
            found.into_iter().map(|(name, value)| (interned(&name), value.into())).collect()
        }
        None => Vec::new(),
    };
    let glance = match known {
        Some(value) => glance_known(stored, value),
        None => glance(stored),
    };
    let glance = glance.map_err(|error| malformed(error.to_string()))?;
    let facts = Facts {
        text: glance.text,
        uid: glance.uid.into(),
        key: relative.into(),
        namespace,
        labels: glance.labels,
        fields,
    };
    Ok(CachedObject::new(modified, Arc::new(facts)))
}

/// One shared copy of each name of a selectable field; there are few of them.
fn interned(name: &str) -> Arc<str> {
    static NAMES: OnceLock<Mutex<HashSet<Arc<str>>>> = OnceLock::new();
    let mut names = NAMES.get_or_init(Mutex::default).lock();
    if let Some(known) = names.get(name) {
        return Arc::clone(known);
    }
    let name: Arc<str> = name.into();
    names.insert(Arc::clone(&name));
    name
}

/// One encoding, once it has been made. Its lock is held while it is made, so that it is made once.
type Slot = Arc<Mutex<Option<Bytes>>>;

/// Encodings that are made on first use and then shared, for as long as somebody asks for them.
#[derive(Default)]
pub(super) struct Renderings {
    slots: Mutex<Vec<(u64, Slot)>>,
    /// Asked for since [`Renderings::age`] last looked.
    used: AtomicBool,
}

impl Renderings {
    /// The encoding `id`, made by `make` if this is its first use.
    pub(super) fn get(&self, id: u64, make: impl FnOnce() -> Bytes) -> Bytes {
        let made: Result<_, std::convert::Infallible> = self.try_get(id, || Ok(make()));
        match made {
            Ok(bytes) => bytes,
            Err(never) => match never {},
        }
    }

    /// As [`Renderings::get`]; a failure is not remembered.
    pub(super) fn try_get<E>(&self, id: u64, make: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        let slot = self.slot(id);
        let mut slot = slot.lock();
        if let Some(bytes) = &*slot {
            return Ok(bytes.clone());
        }
        let bytes = make()?;
        *slot = Some(bytes.clone());
        Ok(bytes)
    }

    /// Forgets all encodings.
    pub(super) fn forget(&self) {
        *self.slots.lock() = Vec::new();
    }

    /// Forgets all encodings if none was asked for since the last call.
    pub(super) fn age(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            self.forget();
        }
    }

    fn slot(&self, id: u64) -> Slot {
        // Many readers ask, and mostly it is true already: a write would take the cache line from all others.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let mut slots = self.slots.lock();
        if let Some((_, slot)) = slots.iter().find(|(known, _)| *known == id) {
            return Arc::clone(slot);
        }
        let slot = Slot::default();
        slots.push((id, Arc::clone(&slot)));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaced: bool) -> ResourceSpec {
        ResourceSpec {
            prefix: "/registry/pods/".into(),
            namespaced,
            fields: Some(Arc::new(|value: &Value| {
                vec![("spec.nodeName".into(), value["spec"]["nodeName"].as_str().unwrap_or_default().into())]
            })),
            node_index: false,
            decode: None,
        }
    }

    fn key_value(key: &str, value: &str) -> KeyValue {
        let value = Bytes::copy_from_slice(value.as_bytes());
        KeyValue { key: key.into(), value, created: Revision(1), modified: Revision(9) }
    }

    #[test]
    fn an_object_answers_without_being_decoded() {
        let json =
            r#"{"metadata":{"labels":{"b":"2","a":"1"},"name":"web","uid":"u-1"},"spec":{"nodeName":"n1"}}"#;
        let object = ingest(&spec(true), key_value("/registry/pods/default/web", json)).expect("valid");
        assert_eq!((object.namespace(), object.name(), object.key()), ("default", "web", "default/web"));
        assert_eq!(object.uid(), "u-1");
        assert_eq!(object.labels().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!((object.label("b"), object.label("c")), (Some("2"), None));
        assert_eq!(object.field("spec.nodeName"), Some("n1"));
        assert_eq!(object.field("metadata.namespace"), Some("default"));
        assert_eq!(object.field("status.phase"), None);
        assert_eq!(object.value().expect("JSON")["metadata"]["resourceVersion"], "9");
        let later = object.at(Revision(1234));
        assert_eq!(later.value().expect("JSON")["metadata"]["resourceVersion"], "1234");
        assert_eq!(later.value().expect("JSON")["spec"]["nodeName"], "n1");
    }

    #[test]
    fn keys_must_fit_the_scope() {
        for (key, namespaced, fits) in [
            ("/registry/pods/default/web", true, true),
            ("/registry/pods/web", true, false),
            ("/registry/pods//web", true, false),
            ("/registry/pods/web", false, true),
            ("/registry/pods/", false, false),
            ("/registry/nodes/web", false, false),
        ] {
            let made = ingest(&spec(namespaced), key_value(key, r#"{"metadata":{}}"#));
            assert_eq!(made.is_ok(), fits, "{key}");
        }
    }

    #[test]
    fn a_form_is_made_once_and_a_failure_is_not_kept() {
        let object =
            ingest(&spec(false), key_value("/registry/pods/a", r#"{"metadata":{}}"#)).expect("valid");
        assert_eq!(object.try_form(Form(1), |_| Err::<Bytes, _>("no")), Err("no"));
        assert_eq!(object.form(Form(1), |_| Bytes::from_static(b"one")), "one");
        assert_eq!(object.form(Form(1), |_| unreachable!("made twice")), "one");
        assert_eq!(object.form(Form(2), |_| Bytes::from_static(b"two")), "two");
    }

    #[test]
    fn forms_that_nobody_asks_for_are_forgotten() {
        let object =
            ingest(&spec(false), key_value("/registry/pods/a", r#"{"metadata":{}}"#)).expect("valid");
        object.form(Form(1), |_| Bytes::from_static(b"one"));
        object.age();
        assert_eq!(object.form(Form(1), |_| unreachable!("was used")), "one");
        object.age();
        object.age();
        assert_eq!(object.form(Form(1), |_| Bytes::from_static(b"again")), "again");
    }
}
