//! The one watch of the store, and the revision that it has brought into the caches.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use store::{Revision, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::resource::{Phase, Resource};
use super::{Config, Error, ResourceSpec};

/// A reader that waits this long asks the store for progress, and again after the same time.
const PROGRESS_PATIENCE: Duration = Duration::from_millis(100);
/// Old history is dropped this often.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);

/// What all resources share.
pub(super) struct Core {
    pub(super) store: Arc<dyn Store>,
    pub(super) config: Config,
    pub(super) token: CancellationToken,
    seen: watch::Sender<Revision>,
    progress_asked: Mutex<Option<Instant>>,
    /// States before this revision are not shown any more, even if they could be.
    compacted: AtomicU64,
}

impl Core {
    /// Everything up to here is in the caches.
    pub(super) fn seen(&self) -> Revision {
        *self.seen.borrow()
    }

    /// The oldest revision whose state may be read.
    pub(super) fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Relaxed))
    }

    /// The revision of the store, once it has been seen.
    pub(super) async fn current(&self) -> Result<Revision, Error> {
        let current = self.store.current_revision().await?;
        self.wait_for(current).await?;
        Ok(current)
    }

    pub(super) async fn wait_for(&self, revision: Revision) -> Result<(), Error> {
        if self.seen() >= revision {
            return Ok(());
        }
        let mut seen = self.seen.subscribe();
        let deadline = tokio::time::Instant::now() + self.config.wait;
        loop {
            let patience = deadline.min(tokio::time::Instant::now() + PROGRESS_PATIENCE);
            if tokio::time::timeout_at(patience, seen.wait_for(|seen| *seen >= revision)).await.is_ok() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::Future { requested: revision, current: self.seen() });
            }
            self.ask_for_progress().await;
        }
    }

    /// The revision waited for may be one of a key that is not watched: only progress tells. All who wait ask once.
    async fn ask_for_progress(&self) {
        {
            let mut asked = self.progress_asked.lock();
            if asked.is_some_and(|asked| asked.elapsed() < PROGRESS_PATIENCE) {
                return;
            }
            *asked = Some(Instant::now());
        }
        if let Err(error) = self.store.request_progress().await {
            warn!(%error, "could not ask the store for progress");
        }
    }
}

/// Where keys belong: prefix -> resource.
type Routes = Arc<RwLock<HashMap<String, Arc<Resource>>>>;

/// The caches of all resources. Cheap to clone.
#[derive(Clone)]
pub struct Cacher {
    core: Arc<Core>,
    routes: Routes,
}

impl Cacher {
    /// Starts the watch of the store. It ends with `token`.
    pub async fn start(
        store: Arc<dyn Store>,
        config: Config,
        token: CancellationToken,
    ) -> Result<Self, Error> {
        let revision = store.current_revision().await?;
        let seen = watch::Sender::new(revision);
        let (progress_asked, compacted) = (Mutex::default(), AtomicU64::default());
        let core = Arc::new(Core { store, config, token, seen, progress_asked, compacted });
        let routes = Routes::default();
        let dispatcher =
            Dispatcher { core: Arc::clone(&core), routes: Arc::clone(&routes), next: revision.next() };
        tokio::spawn(dispatcher.run());
        Ok(Self { core, routes })
    }

    /// The store behind the caches.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core.store
    }

    /// Forgets history before `revision`, in the store and here: lists that were begun at an older one cannot go on,
    /// whether or not their state is cached still (upstream `watchCache.Compact`).
    ///
    /// # Errors
    /// The store refuses.
    pub async fn compact(&self, revision: Revision) -> Result<(), store::Error> {
        let outcome = self.core.store.compact(revision).await;
        if matches!(outcome, Ok(()) | Err(store::Error::Compacted { .. })) {
            self.core.compacted.fetch_max(revision.0, Ordering::Relaxed);
        }
        outcome
    }

    /// Starts to cache a resource, at once or while others are served. A prefix that is cached already is left as
    /// it is.
    pub fn register(&self, spec: ResourceSpec) -> Arc<Resource> {
        let mut routes = self.routes.write();
        if let Some(known) = routes.get(&spec.prefix) {
            return Arc::clone(known);
        }
        let prefix = spec.prefix.clone();
        let resource = Arc::new(Resource::new(spec, Arc::clone(&self.core)));
        let load = resource.begin_load();
        routes.insert(prefix, Arc::clone(&resource));
        drop(routes);
        // The load reads the store after the route is there: no change falls in between.
        spawn_load(Arc::clone(&resource), load);
        resource
    }

    /// Ends the cache of a prefix; its watches end with [`Error::Expired`], its reads with [`Error::NotReady`].
    pub fn unregister(&self, prefix: &str) {
        let removed = self.routes.write().remove(prefix);
        if let Some(resource) = removed {
            resource.close();
        }
    }

    /// The cache of a prefix.
    #[must_use]
    pub fn resource(&self, prefix: &str) -> Option<Arc<Resource>> {
        self.routes.read().get(prefix).cloned()
    }

    /// All caches.
    #[must_use]
    pub fn resources(&self) -> Vec<Arc<Resource>> {
        self.routes.read().values().cloned().collect()
    }

    /// Everything up to this revision is in the caches.
    #[must_use]
    pub fn seen(&self) -> Revision {
        self.core.seen()
    }

    /// Waits until all resources that are registered now have been loaded.
    pub async fn ready(&self) -> Result<(), Error> {
        for resource in self.resources() {
            let mut phase = resource.phase.subscribe();
            tokio::select! {
                () = self.core.token.cancelled() => return Err(Error::NotReady),
                settled = phase.wait_for(|phase| *phase != Phase::Loading) => {
                    settled.map_err(|_| Error::NotReady)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until the caches have seen `revision`; [`Error::Future`] if they do not in time.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), Error> {
        self.core.wait_for(revision).await
    }

    /// The revision of the store, once the caches have seen it: reads of the caches after this are linearizable.
    pub async fn current(&self) -> Result<Revision, Error> {
        self.core.current().await
    }
}

impl std::fmt::Debug for Cacher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cacher").field("seen", &self.seen()).finish_non_exhaustive()
    }
}

/// Loads in a task of its own; ends early with the token.
fn spawn_load(resource: Arc<Resource>, load: u64) {
    tokio::spawn(async move {
        let token = resource.core.token.clone();
        tokio::select! {
            () = token.cancelled() => {}
            () = resource.load(load) => {}
        }
    });
}

/// Why the dispatcher must do something about its watch.
enum Broken {
    /// Changes have been missed: all must be loaded again.
    Gap(String),
    /// It can go on where it was.
    Lost(String),
}

struct Dispatcher {
    core: Arc<Core>,
    routes: Routes,
    /// The first revision that has not been dispatched.
    next: Revision,
}

impl Dispatcher {
    async fn run(mut self) {
        let token = self.core.token.clone();
        let mut pause = Duration::from_millis(20);
        loop {
            let before = self.next;
            let broken = tokio::select! {
                () = token.cancelled() => return,
                broken = self.follow() => broken,
            };
            if self.next != before {
                pause = Duration::from_millis(20);
            }
            let recovered = match &broken {
                Broken::Lost(reason) => {
                    warn!(reason, next = %self.next, "the watch of the store broke, resuming");
                    false
                }
                Broken::Gap(reason) => {
                    warn!(reason, next = %self.next, "changes were missed, loading everything again");
                    self.reload().await
                }
            };
            if !recovered {
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
                }
            }
        }
    }

    /// Dispatches until the watch of the store breaks.
    async fn follow(&mut self) -> Broken {
        let store = Arc::clone(&self.core.store);
        match store.current_revision().await {
            Ok(current) if current.next() < self.next => {
                return Broken::Gap(format!("the store went back to revision {current}"));
            }
            Ok(_) => {}
            Err(error) => return Broken::Lost(error.to_string()),
        }
        let mut changes = match store.watch(&self.core.config.prefix, self.next).await {
            Ok(changes) => changes,
            Err(error) => return broken(&error),
        };
        let mut tidy = tokio::time::interval(TIDY_INTERVAL);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = tokio::time::Instant::now();
        loop {
            let stalled = tokio::time::sleep_until(heard + self.core.config.stall);
            tokio::select! {
                biased;
                batch = changes.next() => match batch {
                    Some(Ok(batch)) => {
                        heard = tokio::time::Instant::now();
                        self.dispatch(batch);
                    }
                    Some(Err(error)) => return broken(&error),
                    None => return Broken::Lost("it ended".into()),
                },
                _ = tidy.tick() => self.tidy(),
                () = stalled => return Broken::Lost("it is silent".into()),
            }
        }
    }

    /// Brings a batch into the caches, each resource's share in order, and then moves the seen revision.
    fn dispatch(&mut self, batch: Vec<store::Event>) {
        let Some(last) = batch.last().map(store::Event::revision) else { return };
        let mut shares: Vec<(Arc<Resource>, Vec<store::Event>)> = Vec::new();
        for change in batch {
            let Some(key) = change.key() else { continue };
            // Most often the share of the change before.
            let share = shares.iter_mut().rev().find(|(known, _)| key.starts_with(known.prefix()));
            if let Some((_, share)) = share {
                share.push(change);
            } else if let Some(resource) = self.route(key) {
                shares.push((resource, vec![change]));
            }
        }
        for (resource, share) in shares {
            resource.take_in(share);
        }
        self.next = self.next.max(last.next());
        self.core.seen.send_if_modified(|seen| {
            let moved = last > *seen;
            *seen = last.max(*seen);
            moved
        });
    }

    /// The resource that a key belongs to: the one with the longest prefix.
    fn route(&self, key: &str) -> Option<Arc<Resource>> {
        let routes = self.routes.read();
        let slashes = key.char_indices().rev().filter(|(_, c)| *c == '/');
        slashes.map(|(at, _)| &key[..=at]).find_map(|prefix| routes.get(prefix).cloned())
    }

    fn tidy(&self) {
        let now = Instant::now();
        let resources: Vec<_> = self.routes.read().values().cloned().collect();
        for resource in resources {
            resource.tidy(now);
        }
    }

    /// Starts all caches over from the present revision. False: the store does not answer.
    async fn reload(&mut self) -> bool {
        let current = match self.core.store.current_revision().await {
            Ok(current) => current,
            Err(error) => {
                warn!(%error, "the store does not answer");
                return false;
            }
        };
        let resources: Vec<_> = self.routes.read().values().cloned().collect();
        // First set changes aside everywhere, then move on, then load: so nothing is missed or shown too early.
        let loads: Vec<_> = resources.iter().map(|resource| resource.begin_load()).collect();
        self.next = current.next();
        self.core.seen.send_replace(current);
        info!(revision = %current, resources = resources.len(), "loading again");
        for (resource, load) in resources.into_iter().zip(loads) {
            spawn_load(resource, load);
        }
        true
    }
}

fn broken(error: &store::Error) -> Broken {
    match error {
        store::Error::Compacted { .. } => Broken::Gap(error.to_string()),
        other => Broken::Lost(other.to_string()),
    }
}
