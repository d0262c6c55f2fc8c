//! The state in memory: versions of every key, recent events, watches. No I/O; one lock guards it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::disk::Loaded;
use crate::{Error, Event, KeyValue, Range, RangeResult, Revision};

/// Set when a watch lost events: the revision it would have needed next, and the oldest that is kept.
pub(super) type Lagged = Arc<OnceLock<(Revision, Revision)>>;

/// One state of one key.
#[derive(Clone, Debug)]
struct Version {
    modified: Revision,
    created: Revision,
    /// Nothing: the key was deleted.
    value: Option<Bytes>,
}

struct Watcher {
    prefix: String,
    /// Nothing before this revision is wanted.
    from: Revision,
    sender: mpsc::Sender<Arc<Vec<Event>>>,
    lagged: Lagged,
}

/// A change that is on disk and about to become visible.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) revision: Revision,
    pub(super) created: Revision,
    pub(super) value: Option<Bytes>,
    /// Milliseconds since the epoch.
    pub(super) expires: Option<u64>,
}

/// How much history is kept at most, whatever its age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// The state.
pub(super) struct Memory {
    /// Oldest version first; the last is the present.
    keys: BTreeMap<String, Vec<Version>>,
    revision: Revision,
    /// Reads and watches below this are refused.
    oldest: Revision,
    /// The change of every revision from the oldest one on that a watch may begin with.
    events: VecDeque<Event>,
    /// Bytes of the values in `events`.
    history_bytes: usize,
    limits: Limits,
    watchers: Vec<Watcher>,
    expiries: BTreeSet<(u64, String)>,
    expiry_of: BTreeMap<String, u64>,
}

impl Memory {
    pub(super) fn new(loaded: Loaded, limits: Limits) -> Self {
        let mut memory = Self {
            keys: BTreeMap::new(),
            revision: loaded.revision,
            oldest: loaded.revision,
            events: VecDeque::new(),
            history_bytes: 0,
            limits,
            watchers: vec![],
            expiries: BTreeSet::new(),
            expiry_of: BTreeMap::new(),
        };
        for (kv, expires) in loaded.items {
            memory.set_expiry(&kv.key, expires);
            let version = Version { modified: kv.modified, created: kv.created, value: Some(kv.value) };
            memory.keys.insert(kv.key, vec![version]);
        }
        memory
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        let versions = self.keys.get(key)?;
        present(key, versions.last()?)
    }

    pub(super) fn range(&self, range: &Range) -> Result<RangeResult, Error> {
        let at = range.revision.unwrap_or(self.revision);
        if at > self.revision {
            return Err(Error::Future { requested: at, current: self.revision });
        }
        if at < self.oldest {
            return Err(Error::Compacted { requested: at, oldest: self.oldest });
        }
        let mut result = RangeResult { revision: at, ..RangeResult::default() };
        if range.start >= range.end {
            return Ok(result);
        }
        for (key, versions) in self.keys.range::<str, _>((
            std::ops::Bound::Included(range.start.as_str()),
            std::ops::Bound::Excluded(range.end.as_str()),
        )) {
            let Some(version) = versions.iter().rev().find(|v| v.modified <= at) else { continue };
            if version.value.is_none() {
                continue;
            }
            result.count += 1;
            if range.limit == 0 || result.items.len() < range.limit {
                result.items.extend(present(key, version));
            }
        }
        Ok(result)
    }

    /// Makes changes visible and tells the watches. They are in revision order and follow the present revision.
    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            self.revision = change.revision;
            self.set_expiry(&change.key, change.expires);
            let version = Version { modified: change.revision, created: change.created, value: change.value };
            let current = present(&change.key, &version);
            let key = change.key.clone();
            let versions = self.keys.entry(change.key).or_default();
            let existed = versions.last().is_some_and(|last| last.value.is_some());
            versions.push(version);
            let deleted = || Event::Delete { key, revision: change.revision };
            events.extend(current.map(Event::Put).or_else(|| existed.then(deleted)));
        }
        self.history_bytes += events.iter().map(value_bytes).sum::<usize>();
        self.events.extend(events.iter().cloned());
        self.tell(&events);
        self.limit();
    }

    fn tell(&mut self, events: &[Event]) {
        let oldest = self.oldest;
        self.watchers.retain(|watcher| {
            let wanted: Vec<_> = events.iter().filter(|e| concerns(e, watcher)).cloned().collect();
            if wanted.is_empty() {
                return !watcher.sender.is_closed();
            }
            let needed = wanted[0].revision();
            match watcher.sender.try_send(Arc::new(wanted)) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    // It ends with an error once it has read what it was sent.
                    let _ = watcher.lagged.set((needed, oldest));
                    false
                }
            }
        });
    }

    /// Tells every watch how far it is.
    pub(super) fn tell_progress(&mut self) {
        let progress = Arc::new(vec![Event::Progress { revision: self.revision }]);
        let revision = self.revision;
        self.watchers.retain(|watcher| {
            if revision.next() < watcher.from {
                return !watcher.sender.is_closed();
            }
            // A full watch has more important things to read.
            !matches!(watcher.sender.try_send(progress.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    #[expect(clippy::type_complexity, reason = "the three parts of a watch, taken apart at once")]
    pub(super) fn watch(
        &mut self,
        prefix: &str,
        from: Revision,
        buffer: usize,
    ) -> Result<(Vec<Event>, mpsc::Receiver<Arc<Vec<Event>>>, Lagged), Error> {
        let oldest = self.events.front().map_or(self.revision.next(), Event::revision);
        if from < oldest {
            return Err(Error::Compacted { requested: from, oldest });
        }
        let (sender, receiver) = mpsc::channel(buffer);
        let lagged = Lagged::default();
        let watcher = Watcher { prefix: prefix.to_owned(), from, sender, lagged: lagged.clone() };
        let begin = self.events.partition_point(|event| event.revision() < from);
        let past = self.events.range(begin..).filter(|e| concerns(e, &watcher)).cloned().collect();
        self.watchers.push(watcher);
        Ok((past, receiver, lagged))
    }

    /// Forgets history before `revision`.
    pub(super) fn compact(&mut self, revision: Revision) {
        if revision <= self.oldest {
            return;
        }
        self.oldest = revision;
        while let Some(event) = self.events.front() {
            // The change of the oldest revision stays for watches; what it replaced cannot be read any more.
            let stays = event.revision() >= revision;
            if event.revision() <= revision
                && let Some(key) = event.key().map(str::to_owned)
            {
                self.prune(&key);
            }
            if stays {
                break;
            }
            if let Some(event) = self.events.pop_front() {
                self.history_bytes -= value_bytes(&event);
            }
        }
    }

    /// Forgets the oldest events beyond the limits. The last one always stays.
    fn limit(&mut self) {
        let excess = self.history_bytes.saturating_sub(self.limits.bytes);
        let mut drop = self.events.len().saturating_sub(self.limits.events);
        let mut bytes: usize = self.events.iter().take(drop).map(value_bytes).sum();
        while bytes < excess && drop + 1 < self.events.len() {
            bytes += self.events.get(drop).map_or(0, value_bytes);
            drop += 1;
        }
        if drop > 0
            && let Some(first) = self.events.get(drop).map(Event::revision)
        {
            self.compact(first);
        }
    }

    /// Drops the versions of a key that no read at the oldest revision or later can see.
    fn prune(&mut self, key: &str) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let seen = versions.iter().rposition(|v| v.modified <= self.oldest).unwrap_or(0);
        versions.drain(..seen);
        if versions.len() == 1 && versions[0].value.is_none() && versions[0].modified <= self.oldest {
            self.keys.remove(key);
        }
    }

    fn set_expiry(&mut self, key: &str, expires: Option<u64>) {
        if let Some(old) = self.expiry_of.remove(key) {
            self.expiries.remove(&(old, key.to_owned()));
        }
        if let Some(at) = expires {
            self.expiry_of.insert(key.to_owned(), at);
            self.expiries.insert((at, key.to_owned()));
        }
    }

    /// When the next key expires, in milliseconds since the epoch.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// The keys that have expired, with the revision they must still be at to be deleted.
    pub(super) fn expired(&self, now: u64, most: usize) -> Vec<(String, Revision)> {
        let due = self.expiries.iter().take_while(|(at, _)| *at <= now).take(most);
        due.filter_map(|(_, key)| Some((key.clone(), self.get(key)?.modified))).collect()
    }
}

fn present(key: &str, version: &Version) -> Option<KeyValue> {
    let value = version.value.clone()?;
    Some(KeyValue { key: key.to_owned(), value, created: version.created, modified: version.modified })
}

fn value_bytes(event: &Event) -> usize {
    match event {
        Event::Put(current) => current.value.len(),
        Event::Delete { .. } | Event::Progress { .. } => 0,
    }
}

fn concerns(event: &Event, watcher: &Watcher) -> bool {
    event.revision() >= watcher.from && event.key().is_some_and(|key| key.starts_with(&watcher.prefix))
}
