//! The recent events of one resource: what watches resume from, and what takes a snapshot back in time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use store::Revision;

use super::Config;
use super::event::Event;
use super::ordered::Ordered;

/// So many events keep what was rendered of them: the whole history would be as large once more.
const FRAMES: usize = 512;

/// Takes back `events`, which led to `objects`.
pub(super) fn undo(mut objects: Ordered, events: &[Arc<Event>]) -> Ordered {
    for event in events.iter().rev() {
        match &event.previous {
            Some(previous) => drop(objects.insert(Arc::clone(previous))),
            None => drop(objects.remove(event.key())),
        }
    }
    objects
}

/// Events in revision order, all those after `floor`.
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    /// A watch can resume after this revision or a later one.
    floor: Revision,
    /// The state can be taken back to this revision; above `floor` when events in between were missed.
    exact: Revision,
    bytes: usize,
}

impl History {
    /// Nothing has happened since `floor`.
    pub(super) fn new(floor: Revision) -> Self {
        Self { events: VecDeque::new(), floor, exact: floor, bytes: 0 }
    }

    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    /// Events before `revision` may have been missed: only the states since then are known exactly.
    pub(super) fn mark_gap(&mut self, revision: Revision) {
        self.exact = revision;
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        if let Some(old) = self.events.len().checked_sub(FRAMES).and_then(|at| self.events.get(at)) {
            old.forget_frames();
        }
    }

    /// The events after `revision`, oldest first; `None` if some of them are forgotten.
    pub(super) fn after(&self, revision: Revision) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if revision < self.floor {
            return None;
        }
        let skip = self.events.partition_point(|event| event.revision <= revision);
        Some(self.events.iter().skip(skip))
    }

    /// What must be undone to get from the present state to that of `revision`; `None` if that is forgotten.
    pub(super) fn since(&self, revision: Revision) -> Option<Vec<Arc<Event>>> {
        if revision < self.exact {
            return None;
        }
        self.after(revision).map(|events| events.cloned().collect())
    }

    /// All events, oldest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// Forgets what is beyond the bounds.
    pub(super) fn trim(&mut self, config: &Config, now: Instant) {
        while self.events.len() > config.history_min {
            let Some(oldest) = self.events.front() else { return };
            let over = self.events.len() > config.history_max || self.bytes > config.history_bytes;
            if !over && now.duration_since(oldest.at) <= config.history_age {
                return;
            }
            self.floor = oldest.revision;
            self.bytes -= oldest.bytes();
            self.events.pop_front();
        }
    }
}
