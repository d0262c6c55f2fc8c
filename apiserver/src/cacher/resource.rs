//! The cache of one resource: its objects, their recent history, and the reads of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use store::{Range, Revision};
use tokio::sync::watch;

use super::dispatcher::Core;
use super::drafts::Drafts;
use super::event::Event;
use super::filter::{Filter, Watchers};
use super::history::{History, undo};
use super::object::{CachedObject, ingest};
use super::ordered::Ordered;
use super::{Error, NODE_NAME_FIELD, ResourceSpec};

/// Snapshots that are kept for the next pages of chunked lists.
const PINS: usize = 8;
/// How long such a snapshot is kept.
const PIN_AGE: Duration = Duration::from_secs(60);

/// Which state a read wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAt {
    /// The newest (no resourceVersion): linearizable.
    Latest,
    /// Whatever is cached (resourceVersion 0).
    Any,
    /// This revision or a newer one.
    AtLeast(Revision),
    /// Exactly this one: continue tokens and `resourceVersionMatch=Exact`. For a get the same as `AtLeast`.
    Exact(Revision),
}

/// What a list asks for.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// The state to list.
    pub at: ReadAt,
    /// Which objects.
    pub filter: Filter,
    /// At most this many; 0: all.
    pub limit: usize,
    /// Begin at this key (see [`CachedObject::key`]), itself included; `None`: at the first.
    pub start: Option<String>,
}

/// The answer to a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The objects, in key order.
    pub items: Vec<Arc<CachedObject>>,
    /// The list's resourceVersion.
    pub revision: Revision,
    /// Where the next page starts, to be read with [`ReadAt::Exact`] of `revision`; `None`: this is the last one.
    pub next: Option<String>,
    /// How many objects follow this page; known only when none are filtered out by more than their namespace.
    pub remaining: Option<u64>,
}

/// Whether the cache can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first load, or the one after a gap in the store's watch, is under way.
    Loading,
    /// It can.
    Ready,
    /// The resource is gone.
    Closed,
}

/// A change as it comes from the store, decoded.
pub(super) enum Incoming {
    Put(Arc<CachedObject>),
    Delete {
        key: String,
        revision: Revision,
    },
    /// What is stored cannot be read.
    Damaged {
        key: String,
        revision: Revision,
    },
}

impl Incoming {
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Put(object) => object.revision,
            Self::Delete { revision, .. } | Self::Damaged { revision, .. } => *revision,
        }
    }
}

/// What the lock of a resource guards.
pub(super) struct State {
    pub(super) objects: Ordered,
    /// The keys of stored values that cannot be read. What was known of them before stays in `objects`.
    pub(super) damaged: BTreeSet<String>,
    by_node: HashMap<String, BTreeMap<String, Arc<CachedObject>>>,
    pub(super) history: History,
    /// The revision of the newest change (or of the load) that is in `objects`.
    pub(super) revision: Revision,
    /// The revision of the last load: changes up to it are in it.
    pub(super) loaded: Revision,
    /// Counts loads after which nothing of the past holds any more.
    pub(super) generation: u64,
    /// The number of the load that counts; those begun before it do not.
    pub(super) load: u64,
    /// While a load is under way: what came in meanwhile.
    pub(super) pending: Option<Vec<Incoming>>,
    node_index: bool,
}

impl State {
    pub(super) fn new(node_index: bool) -> Self {
        Self {
            objects: Ordered::default(),
            damaged: BTreeSet::new(),
            by_node: HashMap::new(),
            history: History::new(Revision(0)),
            revision: Revision(0),
            loaded: Revision(0),
            generation: 0,
            load: 0,
            pending: Some(Vec::new()),
            node_index,
        }
    }

    /// Starts over from a list.
    pub(super) fn reset(&mut self, objects: Vec<Arc<CachedObject>>, revision: Revision) {
        self.by_node.clear();
        self.damaged.clear();
        for object in &objects {
            self.index(None, Some(object));
        }
        self.objects = Ordered::build(objects);
        self.history = History::new(revision);
        self.revision = revision;
        self.loaded = revision;
        self.generation += 1;
    }

    /// Takes in one change; returns the event that it is, if it is any.
    pub(super) fn advance(&mut self, change: Incoming) -> Option<Arc<Event>> {
        if change.revision() <= self.loaded {
            return None;
        }
        self.revision = self.revision.max(change.revision());
        let event = match change {
            Incoming::Put(object) => {
                self.damaged.remove(object.key());
                let previous = self.objects.insert(Arc::clone(&object));
                Event::new(object.revision, Some(object), previous)
            }
            Incoming::Delete { key, revision } => {
                self.damaged.remove(&key);
                Event::new(revision, None, Some(self.objects.remove(&key)?))
            }
            Incoming::Damaged { key, .. } => {
                self.damaged.insert(key);
                return None;
            }
        };
        self.index(event.previous.as_ref(), event.current.as_ref());
        let event = Arc::new(event);
        self.history.push(Arc::clone(&event));
        Some(event)
    }

    fn index(&mut self, before: Option<&Arc<CachedObject>>, after: Option<&Arc<CachedObject>>) {
        if !self.node_index {
            return;
        }
        let node = |object: &Arc<CachedObject>| object.field(NODE_NAME_FIELD).map(str::to_owned);
        if let Some(object) = before
            && let Some(node) = node(object)
            && let Some(objects) = self.by_node.get_mut(&node)
        {
            objects.remove(object.key());
            if objects.is_empty() {
                self.by_node.remove(&node);
            }
        }
        if let Some(object) = after
            && let Some(node) = node(object)
        {
            self.by_node.entry(node).or_default().insert(object.key().to_owned(), Arc::clone(object));
        }
    }

    /// The objects of one node, in key order, if there is an index.
    pub(super) fn of_node(&self, node: &str) -> Option<Vec<Arc<CachedObject>>> {
        self.node_index.then(|| {
            self.by_node.get(node).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
        })
    }
}

/// The cache of one resource.
pub struct Resource {
    pub(super) spec: ResourceSpec,
    pub(super) core: Arc<Core>,
    /// Held by whoever brings changes in, until they are with the watchers: so these see them in order.
    /// Taken before `state`, which is taken before `watchers`.
    pub(super) feed: Mutex<()>,
    pub(super) state: RwLock<State>,
    pub(super) watchers: Mutex<Watchers>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) drafts: Drafts,
    pins: Mutex<Vec<(Instant, Revision, Ordered)>>,
}

impl Resource {
    pub(super) fn new(spec: ResourceSpec, core: Arc<Core>) -> Self {
        Self {
            state: RwLock::new(State::new(spec.node_index)),
            spec,
            core,
            feed: Mutex::default(),
            watchers: Mutex::default(),
            phase: watch::Sender::new(Phase::Loading),
            drafts: Drafts::default(),
            pins: Mutex::default(),
        }
    }

    /// The prefix of its keys in the store.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.spec.prefix
    }

    /// What was registered.
    #[must_use]
    pub fn spec(&self) -> &ResourceSpec {
        &self.spec
    }

    /// How many objects are cached.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// The size of an object in bytes, on average over some of them.
    #[must_use]
    pub fn average_size(&self) -> usize {
        self.state.read().objects.average_size()
    }

    /// Whether no object is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many watches are open.
    #[must_use]
    pub fn watcher_count(&self) -> usize {
        self.watchers.lock().len()
    }

    /// Whether reads are answered at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Ready
    }

    /// The object as it is cached now, without waiting for anything.
    #[must_use]
    pub fn peek(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        self.state.read().objects.get(&key).cloned()
    }

    /// Reads one object; also the revision of the state that it was read from.
    pub async fn get(
        &self,
        at: ReadAt,
        namespace: &str,
        name: &str,
    ) -> Result<(Option<Arc<CachedObject>>, Revision), Error> {
        let fresh = self.reach(at).await?;
        let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        let look = |state: &State| {
            let found = state.objects.get(&key).cloned();
            (!state.damaged.contains(&key)).then(|| (found, fresh.max(state.revision)))
        };
        match self.view(look).await? {
            Some(found) => Ok(found),
            None => Err(self.damage(&key).await),
        }
    }

    /// Why what is stored under `key` cannot be read, as the store says it now.
    pub(super) async fn damage(&self, key: &str) -> Error {
        match self.core.store.get(&format!("{}{key}", self.spec.prefix)).await {
            Err(error) => Error::Store(error),
            // It has been mended meanwhile: that is on its way here.
            Ok((found, _)) => found.and_then(|kv| ingest(&self.spec, kv).err()).unwrap_or(Error::NotReady),
        }
    }

    /// The first key in the reach of a filter whose value cannot be read.
    pub(super) fn first_damaged(&self, state: &State, filter: &Filter) -> Option<String> {
        if state.damaged.is_empty() {
            return None;
        }
        let (start, end) = self.bounds(filter);
        let mut damaged = state.damaged.range(start..);
        damaged.next().filter(|key| end.is_none_or(|end| **key < end)).cloned()
    }

    /// Lists objects.
    pub async fn list(&self, options: ListOptions) -> Result<Page, Error> {
        let fresh = self.reach(options.at).await?;
        if let Some(key) = self.view(|state| self.first_damaged(state, &options.filter)).await? {
            return Err(self.damage(&key).await);
        }
        if let ReadAt::Exact(revision) = options.at {
            let objects = self.objects_at(revision).await?;
            return Ok(self.page(&objects, &options, revision));
        }
        let node = options.filter.node_name.as_deref();
        let (objects, of_node, revision) = self
            .view(|state| {
                let of_node = node.and_then(|node| state.of_node(node));
                (state.objects.clone(), of_node, fresh.max(state.revision))
            })
            .await?;
        if let Some(of_node) = of_node {
            return Ok(self.page(&Ordered::build(of_node), &options, revision));
        }
        let page = self.page(&objects, &options, revision);
        if page.next.is_some() {
            self.pin(revision, objects);
        }
        Ok(page)
    }

    /// Waits until the state that `at` demands is in the cache; returns a revision that it is complete for.
    pub(super) async fn reach(&self, at: ReadAt) -> Result<Revision, Error> {
        match at {
            ReadAt::Latest => self.core.current().await,
            ReadAt::Any => Ok(self.core.seen()),
            ReadAt::AtLeast(revision) | ReadAt::Exact(revision) => {
                self.core.wait_for(revision).await?;
                Ok(self.core.seen().max(revision))
            }
        }
    }

    /// Looks at the state once it is loaded.
    pub(super) async fn view<T>(&self, look: impl Fn(&State) -> T) -> Result<T, Error> {
        let mut phase = self.phase.subscribe();
        loop {
            let settled = phase.wait_for(|phase| *phase != Phase::Loading);
            match tokio::time::timeout(self.core.config.wait, settled).await {
                Ok(Ok(phase)) if *phase == Phase::Ready => {}
                _ => return Err(Error::NotReady),
            }
            let state = self.state.read();
            // A load may have begun since; the phase tells when it is over.
            if state.pending.is_none() {
                return Ok(look(&state));
            }
        }
    }

    /// The objects as of a revision of the past: from a snapshot, by undoing the history, or from the store.
    async fn objects_at(&self, revision: Revision) -> Result<Ordered, Error> {
        let oldest = self.core.compacted();
        if revision < oldest {
            return Err(Error::Expired { requested: revision, oldest });
        }
        let pinned = self.pins.lock().iter().find(|(_, pinned, _)| *pinned == revision).cloned();
        if let Some((_, _, objects)) = pinned {
            return Ok(objects);
        }
        let (present, since) =
            self.view(|state| (state.objects.clone(), state.history.since(revision))).await?;
        let objects = match since {
            Some(events) => undo(present, &events),
            None => self.read_store_at(revision).await?,
        };
        self.pin(revision, objects.clone());
        Ok(objects)
    }

    async fn read_store_at(&self, revision: Revision) -> Result<Ordered, Error> {
        let range = Range { revision: Some(revision), ..Range::prefix(&self.spec.prefix) };
        let found = self.core.store.range(range).await?;
        let objects: Result<Vec<_>, Error> =
            found.items.into_iter().map(|kv| ingest(&self.spec, kv).map(Arc::new)).collect();
        Ok(Ordered::build(objects?))
    }

    fn pin(&self, revision: Revision, objects: Ordered) {
        let mut pins = self.pins.lock();
        if pins.iter().any(|(_, pinned, _)| *pinned == revision) {
            return;
        }
        if pins.len() >= PINS {
            pins.remove(0);
        }
        pins.push((Instant::now(), revision, objects));
    }

    fn page(&self, objects: &Ordered, options: &ListOptions, revision: Revision) -> Page {
        let (first, end) = self.bounds(&options.filter);
        let start = options.start.as_deref().map_or(first.as_str(), |start| start.max(&first));
        let mut page = Page { revision, ..Page::default() };
        let wanted = |object: &Arc<CachedObject>| options.filter.wants(object);
        for object in objects.cursor(start, end.clone()).filter(wanted) {
            if options.limit != 0 && page.items.len() == options.limit {
                page.next = Some(object.key().to_owned());
                break;
            }
            page.items.push(object);
        }
        if options.filter.is_range() {
            let total = end.as_deref().map_or(objects.len(), |end| objects.rank(end));
            let until = page.next.as_deref().map_or(total, |next| objects.rank(next));
            page.remaining = Some((total - until) as u64);
        }
        page
    }

    /// The keys between which all objects lie that the filter can want.
    pub(super) fn bounds(&self, filter: &Filter) -> (String, Option<String>) {
        if let Some(key) = filter.single_key(self.spec.namespaced) {
            let end = format!("{key}\0");
            return (key, Some(end));
        }
        match &filter.namespace {
            // "0" is what follows "/".
            Some(namespace) if self.spec.namespaced => {
                (format!("{namespace}/"), Some(format!("{namespace}0")))
            }
            _ => (String::new(), None),
        }
    }

    /// Forgets what has become old.
    pub(super) fn tidy(&self, now: Instant) {
        self.state.write().history.trim(&self.core.config, now);
        let state = self.state.read();
        state.history.events().for_each(|event| event.age());
        state.objects.iter().for_each(|object| object.age());
        drop(state);
        self.pins.lock().retain(|(made, _, _)| now.duration_since(*made) < PIN_AGE);
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resource").field("prefix", &self.spec.prefix).finish_non_exhaustive()
    }
}
