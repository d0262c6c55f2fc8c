//! Where objects live: an ordered key-value store with revisions, behind one trait.
//!
//! Two backends serve it: [`etcd`] (several apiservers may share it) and [`embedded`] (one machine, no other
//! process). Both pass the contract suite in `tests/contract.rs`. What every backend promises:
//!
//! * a revision is one counter for the whole store; it grows by one with every acknowledged change;
//! * a write is a compare-and-swap on the revision that last changed the key;
//! * what was acknowledged survives a crash at any moment;
//! * a watch from revision `r` yields every change with a revision of `r` or later, once, in order, or ends with
//!   [`Error::Compacted`].
//!
//! The upstream concept is `k8s.io/apiserver/pkg/storage` over etcd3's KV, Watch and Lease services.

pub mod embedded;
pub mod etcd;

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

/// A point in the history of the store. The `resourceVersion` of an object is the revision that last wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One stored key with its value and its place in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key, for example `/registry/pods/default/web`.
    pub key: String,
    /// The value as it was written.
    pub value: Bytes,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision that last changed the key.
    pub modified: Revision,
}

/// What a write demands of the key's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist and have been changed last at this revision.
    At(Revision),
}

/// A request for the keys in `start..end`, in key order.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// First key wanted (inclusive).
    pub start: String,
    /// First key not wanted (exclusive).
    pub end: String,
    /// At most this many items; 0 means all.
    pub limit: usize,
    /// Read as of this revision; `None` means now (linearizable).
    pub revision: Option<Revision>,
}

impl Range {
    /// All keys that begin with `prefix`, now.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        Self { start: prefix.to_owned(), end: prefix_end(prefix), ..Self::default() }
    }
}

/// The smallest key that is greater than every key beginning with `prefix`.
#[must_use]
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0x7f {
            end.push(last + 1);
            return String::from_utf8(end).expect("an ASCII byte that grows below 0x80 stays ASCII");
        }
    }
    "\u{10ffff}".to_owned()
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    /// The items, in key order.
    pub items: Vec<KeyValue>,
    /// The revision the range was read at.
    pub revision: Revision,
    /// How many keys the range holds in all, the returned ones included.
    pub count: u64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was created or changed; this is its new state.
    Put(KeyValue),
    /// The key was deleted (or its time to live ran out) at `revision`.
    Delete {
        /// Which.
        key: String,
        /// The revision of the delete.
        revision: Revision,
    },
    /// No change: everything up to `revision` has been delivered.
    Progress {
        /// The revision reached.
        revision: Revision,
    },
}

impl Event {
    /// The key that was changed, if one was.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Put(current) => Some(&current.key),
            Self::Delete { key, .. } => Some(key),
            Self::Progress { .. } => None,
        }
    }

    /// The revision of this event.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(current) => current.modified,
            Self::Delete { revision, .. } | Self::Progress { revision } => *revision,
        }
    }
}

/// Batches of events in revision order; all events of one revision are in one batch. It ends after an error.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Vec<Event>, Error>> + Send>>;

/// Why the store could not do what was asked. One variant per thing the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is not in the expected state; `current` is what it holds (`None`: it does not exist). Re-read.
    #[error("{key} is not in the expected state")]
    Conflict {
        /// The key of the refused write.
        key: String,
        /// What the key holds now.
        current: Option<KeyValue>,
    },
    /// The revision asked for is no longer kept. Start over from a fresh list.
    #[error("revision {requested} has been compacted (oldest kept: {oldest})")]
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The revision asked for has not been reached yet.
    #[error("revision {requested} is in the future (current: {current})")]
    Future {
        /// The revision that was asked for.
        requested: Revision,
        /// The revision of the store now.
        current: Revision,
    },
    /// The value is larger than the backend takes.
    #[error("value of {key} is too large: {size} bytes")]
    TooLarge {
        /// The key of the refused write.
        key: String,
        /// Size of the value in bytes.
        size: usize,
    },
    /// The backend cannot be reached or did not answer in time. Retry with backoff.
    #[error("store is unavailable: {reason}")]
    Unavailable {
        /// What the backend or the transport said.
        reason: String,
    },
    /// The value is there, but it cannot be decrypted with the keys that are known. A person must act.
    #[error("unable to transform key {key:?}: {reason}")]
    Undecryptable {
        /// The key of the value.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The data on disk is damaged, or the backend broke its contract. A person must act.
    #[error("store is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
}

/// An ordered, revisioned, watchable key-value store.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key, now (linearizable). The revision is the store's at the time of the read.
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), Error>;

    /// Reads a range of keys.
    async fn range(&self, range: Range) -> Result<RangeResult, Error>;

    /// Writes `value` if the key is as `expect` says. With `ttl` the key deletes itself when that time is over
    /// (a later put without `ttl` makes it permanent).
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, Error>;

    /// Deletes the key if it was changed last at `expect` (`None`: whatever it holds). Returns the last state and
    /// the revision of the delete; a missing key is [`Error::Conflict`] with no current state.
    async fn delete(&self, key: &str, expect: Option<Revision>) -> Result<(KeyValue, Revision), Error>;

    /// Whether the key's value is stored in another form than it would be if it were written today. A store that has
    /// but one form never says so.
    async fn is_outdated(&self, _key: &str) -> Result<bool, Error> {
        Ok(false)
    }

    /// Streams all changes of keys beginning with `prefix`, from revision `from` on (inclusive). Progress events
    /// arrive when nothing else does, at least every few seconds and after [`Store::request_progress`].
    async fn watch(&self, prefix: &str, from: Revision) -> Result<WatchStream, Error>;

    /// Asks running watches to report how far they are. A hint; may do nothing where watches are never behind.
    async fn request_progress(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The revision of the store now (linearizable).
    async fn current_revision(&self) -> Result<Revision, Error>;

    /// Forgets history before `revision`: older reads and watches answer [`Error::Compacted`].
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Size of the data in bytes, as the backend accounts for it (for metrics).
    async fn size(&self) -> Result<u64, Error>;
}
