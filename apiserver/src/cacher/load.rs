//! How objects come into the cache of a resource: by a load, then by changes; after a gap by another load that is
//! compared with what was there.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{KeyValue, Range, Revision};
use tracing::{error, warn};

use super::event::Event;
use super::object::{CachedObject, ingest};
use super::resource::{Incoming, Phase, Resource, State};

impl Resource {
    /// From now on changes are set aside until [`Resource::load`] is done with the number that is returned.
    pub(super) fn begin_load(&self) -> u64 {
        let mut state = self.state.write();
        state.pending = Some(Vec::new());
        state.load += 1;
        let load = state.load;
        drop(state);
        self.phase.send_if_modified(|phase| {
            let was_ready = *phase == Phase::Ready;
            if was_ready {
                *phase = Phase::Loading;
            }
            was_ready
        });
        load
    }

    /// Lists the store until that succeeds, and takes the result in.
    pub(super) async fn load(&self, load: u64) {
        let mut pause = Duration::from_millis(50);
        let found = loop {
            match self.core.store.range(Range::prefix(&self.spec.prefix)).await {
                Ok(found) => break found,
                Err(error) => warn!(%error, prefix = self.spec.prefix, "could not load, will retry"),
            }
            tokio::select! {
                () = self.core.token.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
            }
        };
        let mut listed = Listed { revision: found.revision, ..Listed::default() };
        for kv in found.items {
            match self.decoded(kv) {
                Some(Incoming::Put(object)) => listed.objects.push(object),
                Some(Incoming::Damaged { key, .. }) => {
                    listed.damaged.insert(key);
                }
                Some(Incoming::Delete { .. }) | None => {}
            }
        }
        self.finish_load(load, listed);
    }

    /// What is now under a key. Of an object that cannot be decoded only that is known; a person must act.
    fn decoded(&self, kv: KeyValue) -> Option<Incoming> {
        let key = kv.key.strip_prefix(&self.spec.prefix)?.to_owned();
        if self.spec.namespaced && !key.contains('/') {
            error!(key = kv.key, "a key of no object");
            return None;
        }
        let revision = kv.modified;
        Some(match ingest(&self.spec, kv) {
            Ok(object) => Incoming::Put(Arc::new(object)),
            Err(error) => {
                error!(%error, "cannot be read");
                Incoming::Damaged { key, revision }
            }
        })
    }

    fn finish_load(&self, load: u64, listed: Listed) {
        let feed = self.feed.lock();
        let mut state = self.state.write();
        if state.load != load {
            return;
        }
        let first = state.generation == 0;
        let mut events = Vec::new();
        if first || listed.revision < state.revision {
            // A store that went back (restored from a backup) has another history: nobody can go on from here.
            state.reset(listed.objects, listed.revision);
            state.damaged = listed.damaged;
            self.watchers.lock().clear();
        } else {
            events = close_gap(&mut state, listed);
        }
        for change in state.pending.take().unwrap_or_default() {
            events.extend(state.advance(change));
        }
        drop(state);
        self.dispatch(&events);
        drop(feed);
        self.phase.send_if_modified(|phase| {
            let loading = *phase == Phase::Loading;
            if loading {
                *phase = Phase::Ready;
            }
            loading
        });
    }

    /// Takes in changes from the store's watch, in their order.
    pub(super) fn take_in(&self, changes: Vec<store::Event>) {
        let changes: Vec<_> = changes.into_iter().filter_map(|change| self.incoming(change)).collect();
        let _feed = self.feed.lock();
        let mut state = self.state.write();
        if let Some(pending) = &mut state.pending {
            pending.extend(changes);
            return;
        }
        let events: Vec<_> = changes.into_iter().filter_map(|change| state.advance(change)).collect();
        state.history.trim(&self.core.config, Instant::now());
        drop(state);
        self.dispatch(&events);
    }

    fn incoming(&self, change: store::Event) -> Option<Incoming> {
        match change {
            store::Event::Put(current) => {
                let known = self.drafts.finish(&current).map(Incoming::Put);
                known.or_else(|| self.decoded(current))
            }
            store::Event::Delete { key, revision } => {
                let key = key.strip_prefix(&self.spec.prefix)?.to_owned();
                Some(Incoming::Delete { key, revision })
            }
            store::Event::Progress { .. } => None,
        }
    }

    fn dispatch(&self, events: &[Arc<Event>]) {
        let mut watchers = self.watchers.lock();
        for event in events {
            watchers.dispatch(event);
        }
    }

    /// Ends the cache: watches are cut off, reads are refused.
    pub(super) fn close(&self) {
        self.phase.send_replace(Phase::Closed);
        let mut state = self.state.write();
        let end = state.revision.next();
        state.reset(Vec::new(), end);
        state.load += 1;
        self.watchers.lock().clear();
    }
}

/// What the store held at a revision.
#[derive(Default)]
struct Listed {
    objects: Vec<Arc<CachedObject>>,
    /// Keys whose values cannot be read.
    damaged: BTreeSet<String>,
    revision: Revision,
}

/// Compares what is cached with a list; the differences become events, as far as they can be told:
/// what happened in between is not known. Ordered by revision; deletes count as having happened at the list.
fn close_gap(state: &mut State, listed: Listed) -> Vec<Arc<Event>> {
    let Listed { objects, damaged, revision } = listed;
    let listed: HashSet<&str> =
        objects.iter().map(|object| object.key()).chain(damaged.iter().map(String::as_str)).collect();
    let cached = state.objects.cursor("", None);
    let gone: Vec<_> = cached.filter(|object| !listed.contains(object.key())).collect();
    let mut changed: Vec<_> = objects
        .into_iter()
        .filter(|object| {
            state.objects.get(object.key()).is_none_or(|known| known.revision != object.revision)
        })
        .collect();
    changed.sort_by_key(|object| object.revision);
    let mut events = Vec::new();
    for object in changed {
        let replaced = state.objects.get(object.key()).filter(|known| known.uid() != object.uid());
        if let Some(key) = replaced.map(|known| known.key().to_owned()) {
            events.extend(state.advance(Incoming::Delete { key, revision: object.revision }));
        }
        events.extend(state.advance(Incoming::Put(object)));
    }
    for object in gone {
        events.extend(state.advance(Incoming::Delete { key: object.key().to_owned(), revision }));
    }
    state.damaged = damaged;
    state.revision = state.revision.max(revision);
    state.loaded = revision;
    state.history.mark_gap(revision);
    events
}
