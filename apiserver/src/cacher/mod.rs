//! The watch cache: every read of the API is served from here (upstream `k8s.io/apiserver/pkg/storage/cacher`).
//!
//! One watch of the whole store feeds one dispatcher ([`Cacher`]), which updates the cache of each resource
//! ([`Resource`]) in revision order and then moves the *seen* revision. A linearizable read asks the store for its
//! revision and waits until that has been seen. Objects are decoded once, when they come in, and kept as encoded
//! bytes with their labels and selectable fields ([`CachedObject`]); other encodings are made on first use.
//!
//! Tasks: the dispatcher, and one short task per resource that is being loaded. Both end with the token given to
//! [`Cacher::start`]. What must stay true:
//!
//! * the dispatcher never waits for a reader or a watcher;
//! * a watcher sees every matching change after its start, once and in order, or [`Error::Expired`];
//! * `seen` moves only after all events up to it are in the caches and on their way to the watchers;
//! * a list's revision is not older than any of its items, and all of them are as of that revision.

mod dispatcher;
mod drafts;
mod event;
mod filter;
mod history;
mod load;
mod object;
mod ordered;
mod resource;
mod text;
mod watch;

#[cfg(test)]
mod gap_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use store::Revision;

pub use self::dispatcher::Cacher;
pub use self::drafts::Announced;
pub use self::event::{Event, Kind, WatchEvent};
pub use self::filter::{Filter, MatchFn};
pub use self::object::{CachedObject, Form, ingest};
pub use self::resource::{ListOptions, Page, ReadAt, Resource};
pub use self::watch::{WatchOptions, WatchStart, Watcher};

/// Reads the selectable fields (beyond `metadata.name` and `metadata.namespace`) of a decoded object.
pub type FieldsFn = dyn Fn(&Value) -> Vec<(String, String)> + Send + Sync;

/// Turns a stored value into JSON; gets the key as well, which authenticates encrypted values.
pub type DecodeFn = dyn Fn(&str, Bytes) -> Result<Bytes, String> + Send + Sync;

/// The field that pods are indexed by.
pub(crate) const NODE_NAME_FIELD: &str = "spec.nodeName";

/// What is cached under one prefix of the store.
#[derive(Clone)]
pub struct ResourceSpec {
    /// Begins and ends with a slash: `/registry/pods/`.
    pub prefix: String,
    /// Whether the keys below the prefix are `namespace/name` rather than `name`.
    pub namespaced: bool,
    /// Selectable fields. Without it objects are not decoded; only their metadata is scanned.
    pub fields: Option<Arc<FieldsFn>>,
    /// Keeps an index by the field `spec.nodeName`.
    pub node_index: bool,
    /// How stored values become JSON; without it they are JSON.
    pub decode: Option<Arc<DecodeFn>>,
}

impl std::fmt::Debug for ResourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceSpec").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// How the cache behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The prefix of all keys; begins and ends with a slash.
    pub prefix: String,
    /// How long a read waits for a revision to be seen (upstream's `blockTimeout`).
    pub wait: Duration,
    /// Events are kept this long for watches that resume ...
    pub history_age: Duration,
    /// ... but at least this many per resource, however old they are,
    pub history_min: usize,
    /// at most this many,
    pub history_max: usize,
    /// and at most this many bytes of objects.
    pub history_bytes: usize,
    /// Events that may wait for one watcher; one that is further behind reads from the history.
    pub watch_buffer: usize,
    /// Without a word from the store for this long its watch is started anew.
    pub stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "/registry/".to_owned(),
            wait: Duration::from_secs(3),
            history_age: Duration::from_secs(120),
            history_min: 128,
            history_max: 100_000,
            history_bytes: 64 << 20,
            watch_buffer: 256,
            stall: Duration::from_secs(30),
        }
    }
}

/// Why the cache could not answer. One variant per thing the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The history asked for is gone (410): the client lists anew.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired {
        /// The revision asked for.
        requested: Revision,
        /// The oldest one that would have been possible.
        oldest: Revision,
    },
    /// The revision asked for has not been seen in time (504): the client waits and retries.
    #[error("Too large resource version: {requested}, current: {current}")]
    Future {
        /// The revision asked for.
        requested: Revision,
        /// What has been seen.
        current: Revision,
    },
    /// The cache is still being loaded, or the resource is gone.
    #[error("storage is (re)initializing")]
    NotReady,
    /// The store failed.
    #[error(transparent)]
    Store(store::Error),
    /// A stored value cannot be understood.
    #[error("stored object {key} cannot be decoded: {reason}")]
    Malformed {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// An object cannot be had in the version that is asked for.
    #[error("{0}")]
    Conversion(String),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Compacted { requested, oldest } => Self::Expired { requested, oldest },
            store::Error::Future { requested, current } => Self::Future { requested, current },
            other => Self::Store(other),
        }
    }
}
