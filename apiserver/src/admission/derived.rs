//! What plugins work out of configurations. Informers only say that something has changed; what follows from it is
//! worked out by the next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::status::ApiError;
use client::informer::{Cached, Informer};
use parking_lot::Mutex;
use serde_json::Value;

use super::Attributes;

/// How long a request waits for the first list of configurations.
const FIRST_LIST: Duration = Duration::from_secs(10);

/// A state that is made anew after changes.
pub(super) struct Derived<S> {
    dirty: Arc<AtomicBool>,
    state: Mutex<S>,
}

impl<S: Default> Default for Derived<S> {
    fn default() -> Self {
        Self { dirty: Arc::new(AtomicBool::new(true)), state: Mutex::default() }
    }
}

impl<S> Derived<S> {
    /// Whatever changes in the cache changes the state.
    pub fn follow<K: Cached>(&self, informer: &Informer<K>) {
        let dirty = Arc::clone(&self.dirty);
        informer.subscribe(move |_| dirty.store(true, Ordering::Release));
    }

    /// Reads the state, after `refresh` if something has changed.
    pub fn read<R>(&self, refresh: impl FnOnce(&mut S), read: impl FnOnce(&S) -> R) -> R {
        let mut state = self.state.lock();
        if self.dirty.swap(false, Ordering::AcqRel) {
            refresh(&mut state);
        }
        read(&state)
    }
}

/// Waits a while for caches to be filled.
///
/// # Errors
/// When they are not in time.
pub(super) async fn loaded(
    synced: impl Future<Output = ()>,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<(), ApiError> {
    let in_time = tokio::time::timeout(FIRST_LIST, synced).await;
    in_time.map_err(|_| attributes.forbidden(object, "not yet ready to handle request"))
}
