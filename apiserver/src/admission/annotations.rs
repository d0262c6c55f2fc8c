//! What admission has to say about a request in the audit log.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Annotations of one request, by key. What has been said under a key stays.
#[derive(Debug)]
pub struct Annotations {
    said: Mutex<BTreeMap<String, String>>,
    heard: bool,
}

impl Annotations {
    /// None yet. Where nobody keeps a record of the request, `heard` is false, and none need be made.
    #[must_use]
    pub const fn new(heard: bool) -> Self {
        Self { said: Mutex::new(BTreeMap::new()), heard }
    }

    /// Whether somebody keeps a record of the request.
    #[must_use]
    pub const fn are_heard(&self) -> bool {
        self.heard
    }

    /// Says something; false if something else has been said under the key.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) -> bool {
        if !self.heard {
            return true;
        }
        let (mut said, key, value) = (self.said.lock(), key.into(), value.into());
        *said.entry(key).or_insert_with(|| value.clone()) == value
    }

    /// All that has been said, which is then no longer there.
    #[must_use]
    pub fn take(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.said.lock())
    }
}
