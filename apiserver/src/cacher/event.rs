//! One change of one object, shared by all watchers that see it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use store::Revision;

use super::object::{CachedObject, Form, Renderings};

/// The type of a watch event, as one watcher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The object is new to the watcher.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone, or no longer matches what is watched.
    Deleted,
}

impl Kind {
    /// As it is written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change. At least one of `current` and `previous` is there.
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// The state after it; `None`: deleted.
    pub current: Option<Arc<CachedObject>>,
    /// The state before it; `None`: created.
    pub previous: Option<Arc<CachedObject>>,
    /// When it came in.
    pub(super) at: Instant,
    tombstone: OnceLock<Arc<CachedObject>>,
    frames: Renderings,
}

impl Event {
    /// A change that has come in just now.
    pub(crate) fn new(
        revision: Revision,
        current: Option<Arc<CachedObject>>,
        previous: Option<Arc<CachedObject>>,
    ) -> Self {
        debug_assert!(current.is_some() || previous.is_some());
        let at = Instant::now();
        Self { revision, current, previous, at, tombstone: OnceLock::new(), frames: Renderings::default() }
    }

    /// The key of the object, below the resource's prefix.
    #[must_use]
    pub fn key(&self) -> &str {
        self.any().key()
    }

    /// A state of the object, for what all states have in common.
    pub(super) fn any(&self) -> &Arc<CachedObject> {
        self.current.as_ref().or(self.previous.as_ref()).expect("an event has a state")
    }

    /// The object as a watcher that sees the event as `kind` is shown it: a deleted one in its last state, but at
    /// the revision of the event.
    #[must_use]
    pub fn object(&self, kind: Kind) -> &Arc<CachedObject> {
        match (kind, &self.previous) {
            (Kind::Deleted, Some(previous)) => {
                self.tombstone.get_or_init(|| Arc::new(previous.at(self.revision)))
            }
            _ => self.any(),
        }
    }

    /// Forgets what was rendered for watchers, once they have it.
    pub(super) fn age(&self) {
        self.frames.age();
    }

    /// Forgets what was rendered for watchers, whether or not all have it: the last ones render it again.
    pub(super) fn forget_frames(&self) {
        self.frames.forget();
    }

    /// Bytes of the new state, for the bounds of the history.
    pub(super) fn bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |object| object.json_len())
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} -> {:?} ({})", self.previous, self.current, self.revision)
    }
}

/// What a watcher is given.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A change.
    Change {
        /// What it is to this watcher.
        kind: Kind,
        /// The change.
        event: Arc<Event>,
    },
    /// An object that was there when the watch began, to be shown as ADDED.
    Initial(Arc<CachedObject>),
    /// No change: everything up to `revision` has been delivered.
    Bookmark {
        /// The revision reached.
        revision: Revision,
        /// Whether this ends the initial objects (`k8s.io/initial-events-end`).
        initial_events_end: bool,
    },
}

impl WatchEvent {
    /// What kind of event it is on the wire; `None` for a bookmark.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Change { kind, .. } => Some(*kind),
            Self::Initial(_) => Some(Kind::Added),
            Self::Bookmark { .. } => None,
        }
    }

    /// The object as it must be shown; `None` for a bookmark.
    #[must_use]
    pub fn object(&self) -> Option<&Arc<CachedObject>> {
        match self {
            Self::Change { kind, event } => Some(event.object(*kind)),
            Self::Initial(object) => Some(object),
            Self::Bookmark { .. } => None,
        }
    }

    /// The revision a client has reached with this event.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Change { event, .. } => event.revision,
            Self::Initial(object) => object.revision,
            Self::Bookmark { revision, .. } => *revision,
        }
    }

    /// The whole frame of the event in one encoding. That of a change is rendered once and shared by all watchers;
    /// `None` for a bookmark.
    pub fn frame(&self, form: Form, render: impl FnOnce(Kind, &CachedObject) -> Bytes) -> Option<Bytes> {
        match self {
            Self::Change { kind, event } => {
                let id = (u64::from(form.0) << 2) | *kind as u64;
                Some(event.frames.get(id, || render(*kind, event.object(*kind))))
            }
            Self::Initial(object) => Some(render(Kind::Added, object)),
            Self::Bookmark { .. } => None,
        }
    }
}
