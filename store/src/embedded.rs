//! The embedded store: one machine, no other process.
//!
//! All reads are served from memory, where every key keeps its versions back to the last compaction. Writes go
//! through one thread that decides a batch of them, appends it to a journal (one fsync for the batch), makes it visible
//! and acknowledges it, in this order: what was acknowledged is on disk. Another thread takes what is in the journal
//! into redb, thousands of changes at once. Each record carries a checksum.
//!
//! Tasks: the writer thread (ends when the store is dropped or shut down), and one task for expiry, progress and
//! retention. History is forgotten after some minutes, so memory stays bounded.

mod disk;
mod durable;
mod journal;
mod memory;
mod writer;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{Error, Event, Expect, KeyValue, Range, RangeResult, Revision, Store, WatchStream};
use durable::Durable;
use memory::Memory;
use writer::Command;

/// The largest value that is taken: what etcd takes for a whole request by default.
pub const MAX_VALUE_BYTES: usize = 1536 * 1024;

/// Keys that expire together in one commit at most.
const EXPIRY_BATCH: usize = 512;

/// How the store behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long history is kept at least for reads and watches of old revisions.
    pub retention: Duration,
    /// How many events are kept at most.
    pub max_events: usize,
    /// How many bytes of values these events may hold.
    pub max_event_bytes: usize,
    /// How many batches of events a watch may be behind before it is ended.
    pub watch_buffer: usize,
    /// How often watches are told how far they are.
    pub progress_interval: Duration,
    /// How many bytes the journal has when what is in it is taken into the file of records.
    pub journal_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(300),
            max_events: 100_000,
            max_event_bytes: 64 << 20,
            watch_buffer: 4096,
            progress_interval: Duration::from_secs(5),
            journal_bytes: 8 << 20,
        }
    }
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    /// Ends the tasks when the last clone is gone.
    _guard: Arc<tokio_util::sync::DropGuard>,
}

struct Shared {
    memory: RwLock<Memory>,
    commands: mpsc::Sender<Command>,
    /// A key with a time to live was written.
    expiry_changed: Notify,
    config: Config,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    token: CancellationToken,
    dir: Option<std::path::PathBuf>,
}

impl Embedded {
    /// Opens, or creates, the store in `dir` with the default configuration.
    ///
    /// # Errors
    /// The directory cannot be used, or its data is damaged.
    pub async fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, Config::default()).await
    }

    /// Opens, or creates, the store in `dir`.
    ///
    /// # Errors
    /// The directory cannot be used, or its data is damaged.
    pub async fn open_with(dir: &Path, config: Config) -> Result<Self, Error> {
        let (path, enough) = (dir.to_owned(), config.journal_bytes);
        let opened = tokio::task::spawn_blocking(move || {
            create_private_dir(&path).map_err(|e| disk::unusable(&path, e))?;
            Durable::open(&path, enough)
        });
        let (durable, loaded) = opened.await.map_err(|e| Error::Damaged { reason: e.to_string() })??;
        Ok(Self::start(Some(durable), loaded, config, Some(dir.to_owned())))
    }

    /// A store that keeps nothing, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::in_memory_with(Config::default())
    }

    /// As [`Embedded::in_memory`], with a configuration.
    #[must_use]
    pub fn in_memory_with(config: Config) -> Self {
        Self::start(None, disk::Loaded::default(), config, None)
    }

    fn start(
        durable: Option<Durable>,
        loaded: disk::Loaded,
        config: Config,
        dir: Option<std::path::PathBuf>,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(4096);
        let token = CancellationToken::new();
        let limits = memory::Limits { events: config.max_events, bytes: config.max_event_bytes };
        let shared = Arc::new(Shared {
            memory: RwLock::new(Memory::new(loaded, limits)),
            commands,
            expiry_changed: Notify::new(),
            config,
            writer: Mutex::new(None),
            token: token.clone(),
            dir,
        });
        let weak = Arc::downgrade(&shared);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(durable, &weak, receiver))
            .expect("the system can start a thread");
        *shared.writer.lock() = Some(writer);
        tokio::spawn(housekeeping(Arc::downgrade(&shared), token.clone()));
        Self { shared, _guard: Arc::new(token.drop_guard()) }
    }

    /// Stops the writer after what it has been given, and waits for it. Later writes fail.
    pub async fn shut_down(self) {
        let (done, wait) = oneshot::channel();
        // Both fail only if the writer has ended already.
        let _ = self.shared.commands.send(Command::Stop { done }).await;
        let _ = wait.await;
        self.shared.token.cancel();
        let handle = self.shared.writer.lock().take();
        if let Some(handle) = handle {
            let _ = tokio::task::spawn_blocking(move || handle.join()).await;
        }
    }

    async fn command<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (answer, wait) = oneshot::channel();
        let gone = || Error::Unavailable { reason: "the store is shut down".to_owned() };
        self.shared.commands.send(make(answer)).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())?
    }
}

/// Deletes what expired, tells watches how far they are, forgets old history; until the store is gone.
async fn housekeeping(shared: std::sync::Weak<Shared>, token: CancellationToken) {
    let Some(config) = shared.upgrade().map(|s| s.config.clone()) else { return };
    // The first report is due after an interval, not at once.
    let first = tokio::time::Instant::now() + config.progress_interval;
    let mut progress = tokio::time::interval_at(first, config.progress_interval);
    let mut retention = tokio::time::interval(config.retention / 2);
    let mut old = Revision(0);
    loop {
        let Some(store) = shared.upgrade() else { return };
        let due = store.memory.read().next_expiry();
        let expired = async {
            match due {
                Some(at) => tokio::time::sleep(until(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = store.expiry_changed.notified() => {}
            () = expired => {
                if !delete_expired(&store).await {
                    return;
                }
            }
            _ = progress.tick() => store.memory.write().tell_progress(),
            _ = retention.tick() => {
                let mut memory = store.memory.write();
                let now = memory.revision();
                memory.compact(old);
                old = now;
            }
        }
    }
}

/// Deletes the keys whose time is over. False: nothing can be written any more.
async fn delete_expired(store: &Shared) -> bool {
    let keys = store.memory.read().expired(writer::now(), EXPIRY_BATCH);
    let mut answers = Vec::with_capacity(keys.len());
    for (key, revision) in keys {
        let (answer, wait) = oneshot::channel();
        if store.commands.send(Command::Delete { key, expect: Some(revision), answer }).await.is_err() {
            return false;
        }
        answers.push(wait);
    }
    for answer in answers {
        // A key that was written meanwhile is not expired: that refusal is as good as a delete.
        if matches!(answer.await, Err(_) | Ok(Err(Error::Unavailable { .. }))) {
            return false;
        }
    }
    true
}

/// Creates the directory for its owner alone: what is stored includes Secrets.
fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn until(at_millis: u64) -> Duration {
    Duration::from_millis(at_millis.saturating_sub(writer::now()))
}

#[async_trait::async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), Error> {
        let memory = self.shared.memory.read();
        Ok((memory.get(key), memory.revision()))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.shared.memory.read().range(&range)
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, Error> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(Error::TooLarge { key: key.to_owned(), size: value.len() });
        }
        let expires = ttl.map(|ttl| writer::now() + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2));
        let key = key.to_owned();
        let revision = self.command(|answer| Command::Put { key, value, expect, expires, answer }).await?;
        if expires.is_some() {
            self.shared.expiry_changed.notify_one();
        }
        Ok(revision)
    }

    async fn delete(&self, key: &str, expect: Option<Revision>) -> Result<(KeyValue, Revision), Error> {
        let key = key.to_owned();
        self.command(|answer| Command::Delete { key, expect, answer }).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        let buffer = self.shared.config.watch_buffer;
        let (past, receiver, lagged) = self.shared.memory.write().watch(prefix, from, buffer)?;
        Ok(Box::pin(Watch { past: Some(past).filter(|p| !p.is_empty()), receiver, lagged, ended: false }))
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.shared.memory.write().tell_progress();
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision, Error> {
        Ok(self.shared.memory.read().revision())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut memory = self.shared.memory.write();
        if revision > memory.revision() {
            return Err(Error::Future { requested: revision, current: memory.revision() });
        }
        memory.compact(revision);
        Ok(())
    }

    async fn size(&self) -> Result<u64, Error> {
        let Some(dir) = &self.shared.dir else { return Ok(0) };
        let mut size = 0;
        for path in durable::files(dir) {
            size += tokio::fs::metadata(&path).await.map_err(|e| disk::unusable(&path, e))?.len();
        }
        Ok(size)
    }
}

/// Events of the past, then those that come.
struct Watch {
    past: Option<Vec<Event>>,
    receiver: mpsc::Receiver<Arc<Vec<Event>>>,
    /// Set when this watch was too slow and events were lost: the oldest revision still kept then.
    lagged: memory::Lagged,
    ended: bool,
}

impl Stream for Watch {
    type Item = Result<Vec<Event>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(past) = self.past.take() {
            return Poll::Ready(Some(Ok(past)));
        }
        match self.receiver.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(events)) => Poll::Ready(Some(Ok(Arc::unwrap_or_clone(events)))),
            Poll::Ready(None) => {
                self.ended = true;
                let lost = self.lagged.get();
                Poll::Ready(lost.map(|&(requested, oldest)| Err(Error::Compacted { requested, oldest })))
            }
        }
    }
}

#[cfg(test)]
mod tests;
