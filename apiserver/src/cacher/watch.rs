//! A watch of one resource through a filter.
//!
//! Changes come through a bounded channel. When that is full the dispatcher lets go of the watcher, which then
//! reads on from the history and joins the channel anew; only when the history does not reach back that far does
//! the watch end with [`Error::Expired`]. So a slow client costs nothing but its channel, and loses nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use store::Revision;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Interval, MissedTickBehavior};

use super::Error;
use super::event::WatchEvent;
use super::filter::{Delivery, Filter};
use super::object::CachedObject;
use super::resource::{ReadAt, Resource, State};

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With the objects that are there, then changes (resourceVersion unset or 0).
    Initial(ReadAt),
    /// The same with a bookmark after the objects (`sendInitialEvents=true`).
    InitialWithBookmark(ReadAt),
    /// With the changes later than this revision.
    After(Revision),
    /// With the changes later than the state that is read so (`sendInitialEvents=false`).
    Now(ReadAt),
}

/// What a watch asks for.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Where it begins.
    pub start: WatchStart,
    /// Which objects.
    pub filter: Filter,
    /// Send bookmarks this often (`allowWatchBookmarks`).
    pub bookmarks: Option<Duration>,
}

/// The objects that were there when the watch began.
type Initial = Box<dyn Iterator<Item = Arc<CachedObject>> + Send + Sync>;

/// An open watch. Dropping it ends it.
pub struct Watcher {
    resource: Arc<Resource>,
    filter: Filter,
    initial: Option<Initial>,
    /// The revision of the bookmark that ends the initial objects.
    initial_end: Option<Revision>,
    /// Events of the history, still to be delivered before those of the channel.
    backlog: VecDeque<Delivery>,
    receiver: mpsc::Receiver<Delivery>,
    id: u64,
    generation: u64,
    /// Everything before this revision has been delivered, and so many events of this revision.
    reached: (Revision, usize),
    bookmarks: Option<Interval>,
    ended: bool,
}

impl Resource {
    /// Opens a watch.
    pub async fn watch(self: &Arc<Self>, options: WatchOptions) -> Result<Watcher, Error> {
        let WatchOptions { start, filter, bookmarks } = options;
        let fresh = match start {
            WatchStart::Initial(at) | WatchStart::InitialWithBookmark(at) | WatchStart::Now(at) => {
                self.reach(at).await?
            }
            WatchStart::After(revision) => revision,
        };
        let open = |state: &State| -> Result<Result<Watcher, String>, Error> {
            let joined = match start {
                WatchStart::After(revision) => revision,
                _ => fresh.max(state.revision),
            };
            let wants_all = matches!(start, WatchStart::Initial(_) | WatchStart::InitialWithBookmark(_));
            if let Some(key) = self.first_damaged(state, &filter).filter(|_| wants_all) {
                return Ok(Err(key));
            }
            let (backlog, receiver, id) = self.join(state, &filter, joined, 0)?;
            let initial = wants_all.then(|| self.initial(state, &filter));
            let with_end = matches!(start, WatchStart::InitialWithBookmark(_));
            Ok(Ok(Watcher {
                resource: Arc::clone(self),
                filter: filter.clone(),
                initial,
                initial_end: with_end.then_some(joined),
                backlog,
                receiver,
                id,
                generation: state.generation,
                reached: (joined, 0),
                bookmarks: bookmarks.map(interval),
                ended: false,
            }))
        };
        match self.view(open).await?? {
            Ok(watcher) => Ok(watcher),
            Err(damaged) => Err(self.damage(&damaged).await),
        }
    }

    /// Joins the events after `after`, of which `skip` at `after` plus one have been delivered before: those of the
    /// past are returned, those to come go into the channel. Called with the state locked, so that none is lost
    /// in between.
    fn join(
        &self,
        state: &State,
        filter: &Filter,
        after: Revision,
        skip: usize,
    ) -> Result<(VecDeque<Delivery>, mpsc::Receiver<Delivery>, u64), Error> {
        let expired = || Error::Expired { requested: after, oldest: state.history.floor() };
        let past = state.history.after(after).ok_or_else(expired)?;
        let seen = past.filter_map(|event| Some((filter.sees(event)?, Arc::clone(event))));
        let backlog = seen.skip(skip).collect();
        let (sender, receiver) = mpsc::channel(self.core.config.watch_buffer);
        let after = after.max(state.revision);
        let id = self.watchers.lock().add(self.spec.namespaced, filter.clone(), after, sender);
        Ok((backlog, receiver, id))
    }

    fn initial(&self, state: &State, filter: &Filter) -> Initial {
        if let Some(objects) = filter.node_name.as_deref().and_then(|node| state.of_node(node)) {
            let filter = filter.clone();
            return Box::new(objects.into_iter().filter(move |object| filter.wants(object)));
        }
        let (start, end) = self.bounds(filter);
        let filter = filter.clone();
        Box::new(state.objects.cursor(&start, end).filter(move |object| filter.wants(object)))
    }
}

fn interval(every: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Watcher {
    /// The next event. After an error, which is sent once, there is none. May be dropped while it waits without
    /// losing anything.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        loop {
            if let Some(ready) = self.try_next() {
                return Some(ready);
            }
            if self.ended {
                return None;
            }
            let due = async {
                match &mut self.bookmarks {
                    Some(interval) => interval.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                delivery = self.receiver.recv() => match delivery {
                    Some(delivery) => return Some(Ok(self.deliver(delivery))),
                    None => if let Err(error) = self.rejoin() { return self.end(error) },
                },
                _ = due => if let Some(bookmark) = self.bookmark() { return Some(Ok(bookmark)) },
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Result<WatchEvent, Error>> {
        if self.ended {
            return None;
        }
        if let Some(object) = self.initial.as_mut().and_then(Iterator::next) {
            return Some(Ok(WatchEvent::Initial(object)));
        }
        self.initial = None;
        if let Some(revision) = self.initial_end.take() {
            return Some(Ok(WatchEvent::Bookmark { revision, initial_events_end: true }));
        }
        loop {
            if let Some(delivery) = self.backlog.pop_front() {
                return Some(Ok(self.deliver(delivery)));
            }
            match self.receiver.try_recv() {
                Ok(delivery) => return Some(Ok(self.deliver(delivery))),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    if let Err(error) = self.rejoin() {
                        return self.end(error);
                    }
                    if self.backlog.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    /// A bookmark of how far the watch is, unless an event is waiting to be delivered.
    pub fn bookmark(&mut self) -> Option<WatchEvent> {
        // Read first: what the dispatcher had to send up to here is in the channel by now.
        let seen = self.resource.core.seen();
        // While the resource is loaded again, the seen revision is ahead of what has been sent.
        let waiting = !self.resource.is_ready()
            || self.initial.is_some()
            || self.initial_end.is_some()
            || !self.backlog.is_empty();
        if self.ended || waiting || !self.receiver.is_empty() || self.receiver.is_closed() {
            return None;
        }
        if seen > self.reached.0 {
            self.reached = (seen, 0);
        }
        Some(WatchEvent::Bookmark { revision: self.reached.0, initial_events_end: false })
    }

    fn deliver(&mut self, (kind, event): Delivery) -> WatchEvent {
        if event.revision == self.reached.0 {
            self.reached.1 += 1;
        } else {
            self.reached = (event.revision, 1);
        }
        WatchEvent::Change { kind, event }
    }

    /// The dispatcher has let go of this watcher: goes on from the history.
    fn rejoin(&mut self) -> Result<(), Error> {
        let resource = Arc::clone(&self.resource);
        let state = resource.state.read();
        let (revision, delivered) = self.reached;
        if state.generation != self.generation {
            return Err(Error::Expired { requested: revision, oldest: state.history.floor() });
        }
        // Several changes may bear one revision, and the channel may have ended in the middle of them.
        let after = if delivered == 0 { revision } else { Revision(revision.0 - 1) };
        let (backlog, receiver, id) = resource.join(&state, &self.filter, after, delivered)?;
        (self.backlog, self.receiver, self.id) = (backlog, receiver, id);
        Ok(())
    }

    fn end(&mut self, error: Error) -> Option<Result<WatchEvent, Error>> {
        self.ended = true;
        Some(Err(error))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.resource.watchers.lock().remove(self.resource.spec.namespaced, &self.filter, self.id);
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("resource", &self.resource).field("filter", &self.filter).finish()
    }
}
