//! Ownership of tasks: who started them, how they stop, what happens when one dies.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span};

/// Owns every task of one component; nothing else in a component spawns. Clones share the same tasks.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    failure: Arc<Mutex<Option<TaskFailed>>>,
}

/// A critical task ended although nobody had asked it to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task {name} failed: {reason}")]
pub struct TaskFailed {
    /// The task.
    pub name: &'static str,
    /// The error or panic it ended with.
    pub reason: String,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet, with a cancellation of their own.
    #[must_use]
    pub fn new() -> Self {
        Self::with_token(CancellationToken::new())
    }

    /// No tasks yet; they stop when `parent` is cancelled.
    #[must_use]
    pub fn child_of(parent: &CancellationToken) -> Self {
        Self::with_token(parent.child_token())
    }

    fn with_token(token: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), token, failure: Arc::default() }
    }

    /// Starts a task. It is expected to end soon after its token is cancelled; a panic is logged and ends only it.
    pub fn spawn<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = AssertUnwindSafe(task(self.token.child_token())).catch_unwind();
        self.tracker.spawn(
            async move {
                if let Err(panic) = future.await {
                    error!(task = name, panic = %panic_text(&*panic), "task panicked");
                }
            }
            .instrument(info_span!("task", name)),
        );
    }

    /// Starts a task without which the component cannot go on: its error or panic stops all tasks and is what
    /// [`Tasks::wait`] returns.
    pub fn spawn_critical<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let future = AssertUnwindSafe(task(self.token.child_token())).catch_unwind();
        let (token, failure) = (self.token.clone(), self.failure.clone());
        self.tracker.spawn(
            async move {
                let reason = match future.await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => format!("{error:#}"),
                    Err(panic) => format!("panicked: {}", panic_text(&*panic)),
                };
                error!(task = name, reason, "critical task failed");
                failure.lock().get_or_insert(TaskFailed { name, reason });
                token.cancel();
            }
            .instrument(info_span!("task", name)),
        );
    }

    /// Cancelled when these tasks are to stop.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits until the tasks have been told to stop and all have ended; the error is the first critical failure.
    ///
    /// # Errors
    /// A critical task failed.
    pub async fn wait(&self) -> Result<(), TaskFailed> {
        self.token.cancelled().await;
        self.tracker.close();
        self.tracker.wait().await;
        self.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Tells all tasks to stop and waits for them.
    ///
    /// # Errors
    /// A critical task failed before.
    pub async fn shut_down(&self) -> Result<(), TaskFailed> {
        self.token.cancel();
        self.wait().await
    }
}

/// What a panic said.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn critical_failure_stops_the_others_and_is_returned() {
        let tasks = Tasks::new();
        tasks.spawn("waits", |token| async move { token.cancelled().await });
        tasks.spawn_critical("fails", |_| async { anyhow::bail!("boom") });
        let failed = tasks.wait().await.expect_err("a critical task failed");
        assert_eq!((failed.name, failed.reason.as_str()), ("fails", "boom"));
    }

    #[tokio::test]
    async fn panic_of_an_ordinary_task_ends_only_that_task() {
        let tasks = Tasks::new();
        tasks.spawn("panics", |_| async { panic!("oh") });
        tasks.spawn("waits", |token| async move { token.cancelled().await });
        assert!(tasks.shut_down().await.is_ok());
    }
}
