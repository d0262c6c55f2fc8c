//! One worker per pod UID: it drives the pod through syncing, terminating and terminated, one step at a time.
//!
//! Once terminating, a pod never syncs again under its UID. Only the worker touches the pod at the runtime. Updates
//! are coalesced: a worker always acts on the newest pod it was told of. A deletion, or a shorter grace, interrupts
//! the step in progress.

mod state;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::Tasks;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::pods::is_static;
use crate::status::Verdict;
use crate::types;
use state::Worker;
pub use state::{Stage, WorkerView};

/// What came of one sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// The pod is over and is to be terminated.
    pub terminal: bool,
    /// When to sync again; `None` for the ordinary interval.
    pub again: Option<Duration>,
}

/// A step failed and is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyncError {
    /// Why.
    pub message: String,
    /// When to try again; `None` for the ordinary backoff.
    pub retry: Option<Duration>,
}

impl From<String> for SyncError {
    fn from(message: String) -> Self {
        Self { message, retry: None }
    }
}

/// The steps of a pod's life; implemented by the kubelet and by tests.
#[async_trait]
pub trait PodSyncer: Send + Sync + 'static {
    /// Brings the pod nearer to its spec. `stop` ends early what can be ended early.
    async fn sync_pod(&self, pod: &Arc<Pod>, stop: &CancellationToken) -> Result<Synced, SyncError>;
    /// Stops everything of the pod. `interrupt` means: begin again, with less grace.
    async fn sync_terminating_pod(
        &self,
        pod: &Arc<Pod>,
        grace: Option<Duration>,
        verdict: Option<Verdict>,
        interrupt: &CancellationToken,
    ) -> Result<(), SyncError>;
    /// Stops a pod of which only the runtime knows.
    async fn sync_terminating_runtime_pod(&self, uid: &str) -> Result<(), SyncError>;
    /// Releases what a stopped pod used.
    async fn sync_terminated_pod(&self, pod: &Arc<Pod>) -> Result<(), SyncError>;
}

/// How a pod is to be stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillOptions {
    /// Less time than the pod's own grace.
    pub grace: Option<Duration>,
    /// Fail the pod with this reason.
    pub verdict: Option<Verdict>,
    /// Its content may go though the API still has it.
    pub evict: bool,
}

/// Intervals of all workers.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// Between two syncs when nothing happens.
    pub resync: Duration,
    /// After a failure.
    pub backoff: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { resync: Duration::from_secs(60), backoff: Duration::from_secs(10) }
    }
}

/// All workers; clones share them.
#[derive(Clone)]
pub struct PodWorkers {
    inner: Arc<Inner>,
}

struct Inner {
    workers: Mutex<Workers>,
    syncer: Arc<dyn PodSyncer>,
    intervals: Intervals,
    tasks: Tasks,
    /// Told when a worker has finished.
    finished: tokio::sync::Notify,
}

#[derive(Default)]
struct Workers {
    by_uid: HashMap<String, Worker>,
    /// Which static pod of a name runs; another of the same name waits for its end.
    static_running: HashMap<String, String>,
    /// All pods that should be here have been heard of.
    synced: bool,
}

impl PodWorkers {
    /// Workers that do their steps with `syncer`.
    #[must_use]
    pub fn new(syncer: Arc<dyn PodSyncer>, intervals: Intervals, tasks: Tasks) -> Self {
        let (workers, finished) = (Mutex::default(), tokio::sync::Notify::new());
        Self { inner: Arc::new(Inner { workers, syncer, intervals, tasks, finished }) }
    }

    /// Tells of a pod, new or changed.
    pub fn update(&self, pod: &Arc<Pod>) {
        self.change(types::uid(pod), |worker| worker.update(pod.clone()), || Worker::for_pod(pod.clone()));
    }

    /// Tells of a pod that changed in nothing that needs work.
    pub fn refresh(&self, pod: &Arc<Pod>) {
        if let Some(worker) = self.inner.workers.lock().by_uid.get_mut(types::uid(pod)) {
            worker.update(pod.clone());
        }
    }

    /// Stops a pod that a worker knows.
    pub fn kill(&self, uid: &str, options: &KillOptions) {
        let mut workers = self.inner.workers.lock();
        if let Some(worker) = workers.by_uid.get_mut(uid) {
            worker.kill(options);
            worker.wake();
        }
    }

    /// Waits until a pod has ended and everything it used is released.
    pub async fn finished(&self, uid: &str) {
        loop {
            let told = self.inner.finished.notified();
            if self.view(uid).is_none_or(|view| view.stage == Stage::Finished) {
                return;
            }
            told.await;
        }
    }

    /// The pod is no longer wanted here: it is stopped, whatever the API said of it.
    pub fn remove(&self, uid: &str) {
        let mut workers = self.inner.workers.lock();
        if let Some(worker) = workers.by_uid.get_mut(uid) {
            worker.removed();
            worker.wake();
        }
    }

    /// Stops a pod of which only the runtime knows.
    pub fn kill_runtime_pod(&self, uid: &str) {
        self.change(uid, |worker| worker.wake(), || Worker::for_runtime_pod(uid.to_owned()));
    }

    /// Lets a pod's worker look again. Unknown pods are none of its business.
    pub fn wake(&self, uid: &str) {
        if let Some(worker) = self.inner.workers.lock().by_uid.get(uid) {
            worker.wake();
        }
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Worker), new: impl FnOnce() -> Worker) {
        let mut workers = self.inner.workers.lock();
        if let Some(worker) = workers.by_uid.get_mut(uid) {
            change(worker);
            worker.wake();
            return;
        }
        workers.by_uid.insert(uid.to_owned(), new());
        drop(workers);
        let (this, uid) = (self.clone(), uid.to_owned());
        self.inner.tasks.spawn("pod", |token| async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = this.work(&uid) => {}
            }
        });
    }

    /// What is known of a pod's worker.
    #[must_use]
    pub fn view(&self, uid: &str) -> Option<WorkerView> {
        self.inner.workers.lock().by_uid.get(uid).map(Worker::view)
    }

    /// UIDs of all workers.
    #[must_use]
    pub fn uids(&self) -> Vec<String> {
        self.inner.workers.lock().by_uid.keys().cloned().collect()
    }

    /// Whether containers of the pod may be running, or may be started.
    #[must_use]
    pub fn could_run(&self, uid: &str) -> bool {
        let workers = self.inner.workers.lock();
        workers.by_uid.get(uid).map_or(!workers.synced, |w| w.stage() < Stage::Terminated)
    }

    /// Whether what the pod left on disk may be removed.
    #[must_use]
    pub fn content_may_go(&self, uid: &str) -> bool {
        let workers = self.inner.workers.lock();
        workers.by_uid.get(uid).map_or(workers.synced, Worker::content_may_go)
    }

    /// All pods that should be here have been told of: what is unknown from now on is an orphan. Workers of pods
    /// that are wanted no longer are stopped or, when finished, forgotten; answers the UIDs forgotten.
    pub fn sync_known(&self, wanted: &HashSet<String>) -> Vec<String> {
        let mut workers = self.inner.workers.lock();
        workers.synced = true;
        let mut forgotten = Vec::new();
        for (uid, worker) in &mut workers.by_uid {
            if wanted.contains(uid) {
                continue;
            }
            if worker.stage() == Stage::Finished {
                forgotten.push(uid.clone());
            } else if !worker.is_removed() {
                worker.removed();
                worker.wake();
            }
        }
        for uid in &forgotten {
            workers.by_uid.remove(uid);
        }
        forgotten
    }

    /// The life of one worker.
    async fn work(&self, uid: &str) {
        loop {
            let Some((step, wake)) = self.begin(uid) else { return };
            let wait = match step {
                None => None,
                Some(step) => {
                    let result = self.perform(uid, &step).await;
                    match self.end(uid, &step, result) {
                        After::Finished => return,
                        After::Now => continue,
                        After::Wait(wait) => Some(wait),
                    }
                }
            };
            match wait {
                // The timeout is the point: nothing woke the worker, so it looks by itself.
                Some(wait) => drop(tokio::time::timeout(wait, wake.notified()).await),
                None => wake.notified().await,
            }
        }
    }

    /// Takes the next step; no step while another static pod of the same name is in the way.
    fn begin(&self, uid: &str) -> Option<(Option<state::Step>, Arc<tokio::sync::Notify>)> {
        let mut workers = self.inner.workers.lock();
        let Workers { by_uid, static_running, .. } = &mut *workers;
        let worker = by_uid.get_mut(uid)?;
        let wake = worker.notify();
        if !worker.started()
            && let Some(pod) = worker.pod().filter(|p| is_static(p))
        {
            let holder = static_running.entry(types::full_name(pod)).or_insert_with(|| uid.to_owned());
            if holder != uid && worker.stage() == Stage::Syncing {
                return Some((None, wake));
            }
        }
        Some((Some(worker.begin()), wake))
    }

    async fn perform(&self, uid: &str, step: &state::Step) -> Result<Synced, SyncError> {
        let syncer = &self.inner.syncer;
        let done = Synced::default();
        match (&step.pod, step.stage) {
            (None, _) => syncer.sync_terminating_runtime_pod(uid).await.map(|()| done),
            (Some(pod), Stage::Syncing) => syncer.sync_pod(pod, &step.interrupt).await,
            (Some(pod), Stage::Terminating) => syncer
                .sync_terminating_pod(pod, step.grace, step.verdict.clone(), &step.interrupt)
                .await
                .map(|()| done),
            (Some(pod), Stage::Terminated | Stage::Finished) => {
                syncer.sync_terminated_pod(pod).await.map(|()| done)
            }
        }
    }

    fn end(&self, uid: &str, step: &state::Step, result: Result<Synced, SyncError>) -> After {
        let mut workers = self.inner.workers.lock();
        let Some(worker) = workers.by_uid.get_mut(uid) else { return After::Finished };
        let synced = match result {
            Ok(synced) => synced,
            Err(_) if step.interrupt.is_cancelled() => return After::Now,
            Err(error) => {
                let pod = worker.pod().map_or_else(|| uid.to_owned(), |p| types::format_pod(p));
                tracing::error!(pod, error = error.message, "error syncing pod, skipping");
                return After::Wait(error.retry.unwrap_or(self.inner.intervals.backoff));
            }
        };
        let before = worker.stage();
        worker.complete(step, synced.terminal);
        match worker.stage() {
            Stage::Finished => {
                let name = worker.pod().filter(|p| is_static(p)).map(|p| types::full_name(p));
                if let Some(name) = name {
                    release(&mut workers, &name, uid);
                }
                drop(workers);
                self.inner.finished.notify_waiters();
                After::Finished
            }
            stage if stage != before || step.interrupt.is_cancelled() || stage != step.stage => After::Now,
            _ => After::Wait(synced.again.unwrap_or(self.inner.intervals.resync)),
        }
    }
}

enum After {
    Finished,
    Now,
    Wait(Duration),
}

/// Lets the next static pod of this name start.
fn release(workers: &mut Workers, name: &str, uid: &str) {
    if workers.static_running.get(name).is_some_and(|holder| holder == uid) {
        workers.static_running.remove(name);
        for worker in workers.by_uid.values() {
            if worker.pod().is_some_and(|p| types::full_name(p) == name) {
                worker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests;
