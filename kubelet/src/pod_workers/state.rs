//! State of one worker. Transitions only; no tasks, no clock.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::KillOptions;
use crate::status::Verdict;

/// Where a pod is in its life. It only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Expected to run.
    Syncing,
    /// Being stopped; nothing is started any more.
    Terminating,
    /// Stopped; may still hold volumes and the like.
    Terminated,
    /// All is released.
    Finished,
}

/// One step of work.
pub(super) struct Step {
    pub stage: Stage,
    pub pod: Option<Arc<Pod>>,
    pub grace: Option<Duration>,
    pub verdict: Option<Verdict>,
    pub interrupt: CancellationToken,
}

/// What others may see of a worker.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// Stage.
    pub stage: Stage,
    /// The pod, unless only the runtime knows it.
    pub pod: Option<Arc<Pod>>,
    /// Nothing of the pod is wanted any more.
    pub removed: bool,
}

pub(super) struct Worker {
    pod: Option<Arc<Pod>>,
    stage: Stage,
    started: bool,
    deleted: bool,
    evicted: bool,
    removed: bool,
    grace: Option<Duration>,
    verdict: Option<Verdict>,
    wake: Arc<Notify>,
    interrupt: CancellationToken,
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"))
}

impl Worker {
    pub(super) fn for_pod(pod: Arc<Pod>) -> Self {
        let mut worker = Self::new(None, Stage::Syncing);
        worker.update(pod);
        worker
    }

    pub(super) fn for_runtime_pod(_uid: String) -> Self {
        let mut worker = Self::new(None, Stage::Terminating);
        worker.deleted = true;
        worker.removed = true;
        worker
    }

    fn new(pod: Option<Arc<Pod>>, stage: Stage) -> Self {
        Self {
            pod,
            stage,
            started: false,
            deleted: false,
            evicted: false,
            removed: false,
            grace: None,
            verdict: None,
            wake: Arc::new(Notify::new()),
            interrupt: CancellationToken::new(),
        }
    }

    pub(super) fn update(&mut self, pod: Arc<Pod>) {
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let grace = pod.metadata.deletion_grace_period_seconds.filter(|_| deleting);
        let over = is_over(&pod);
        self.pod = Some(pod);
        if deleting {
            self.deleted = true;
            let grace = grace.and_then(|g| u64::try_from(g).ok()).map(Duration::from_secs);
            self.terminate(grace);
        } else if over {
            self.terminate(None);
        }
    }

    pub(super) fn kill(&mut self, options: &KillOptions) {
        self.evicted |= options.evict;
        if self.verdict.is_none() {
            self.verdict.clone_from(&options.verdict);
        }
        self.terminate(options.grace);
    }

    pub(super) fn removed(&mut self) {
        self.removed = true;
        self.deleted = true;
        self.terminate(None);
    }

    fn terminate(&mut self, grace: Option<Duration>) {
        // As upstream: grace never grows, and nobody gets less than a second.
        let grace = grace.map(|g| g.max(Duration::from_secs(1)));
        let shorter = match (self.grace, grace) {
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new < old,
            _ => false,
        };
        if shorter {
            self.grace = grace;
        }
        match self.stage {
            Stage::Syncing => {
                self.stage = Stage::Terminating;
                self.interrupt.cancel();
            }
            Stage::Terminating if shorter => self.interrupt.cancel(),
            _ => {}
        }
    }

    pub(super) fn begin(&mut self) -> Step {
        self.started = true;
        self.interrupt = CancellationToken::new();
        Step {
            stage: self.stage,
            pod: self.pod.clone(),
            grace: self.grace,
            verdict: self.verdict.clone(),
            interrupt: self.interrupt.clone(),
        }
    }

    /// A step succeeded.
    pub(super) fn complete(&mut self, step: &Step, terminal: bool) {
        let orphan = step.pod.is_none();
        match step.stage {
            Stage::Syncing if terminal => self.terminate(None),
            Stage::Syncing => {}
            Stage::Terminating if orphan => self.stage = Stage::Finished,
            Stage::Terminating => self.stage = Stage::Terminated,
            Stage::Terminated | Stage::Finished => self.stage = Stage::Finished,
        }
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn notify(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn started(&self) -> bool {
        self.started
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    pub(super) fn pod(&self) -> Option<&Arc<Pod>> {
        self.pod.as_ref()
    }

    pub(super) fn content_may_go(&self) -> bool {
        (self.evicted || self.deleted) && self.stage >= Stage::Terminated
    }

    pub(super) fn view(&self) -> WorkerView {
        WorkerView { stage: self.stage, pod: self.pod.clone(), removed: self.removed }
    }
}
