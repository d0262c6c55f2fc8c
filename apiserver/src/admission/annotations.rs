//! What admission has to say about a request in the audit log.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Annotations of one request, by key. What has been said under a key stays.
#[derive(Debug, Default)]
pub struct Annotations(Mutex<BTreeMap<String, String>>);

impl Annotations {
    /// Says something; false if something else has been said under the key.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) -> bool {
        let (mut said, key, value) = (self.0.lock(), key.into(), value.into());
        *said.entry(key).or_insert_with(|| value.clone()) == value
    }

    /// All that has been said.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().clone()
    }
}
