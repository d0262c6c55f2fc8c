//! Workers over a queue: the loop that every controller has.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use crate::object::ObjectKey;
use crate::tasks::panic_text;
use crate::workqueue::WorkQueue;

/// What to do with a key that was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until it is added again.
    Done,
    /// Look at it again after this time even if nothing changes.
    RequeueAfter(Duration),
}

/// Runs `workers` loops that take keys from `queue` and reconcile them, until `token` is cancelled. A failed key
/// (an error or a panic) is logged and retried with its backoff; one key is never reconciled twice at once.
pub async fn run_workers<F, Fut>(
    name: &'static str,
    queue: WorkQueue<ObjectKey>,
    workers: usize,
    token: CancellationToken,
    reconcile: F,
) where
    F: Fn(ObjectKey) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Action>> + Send,
{
    let mut set = JoinSet::new();
    for _ in 0..workers.max(1) {
        let (queue, reconcile, token) = (queue.clone(), reconcile.clone(), token.clone());
        set.spawn(async move {
            loop {
                let key = tokio::select! {
                    biased;
                    () = token.cancelled() => return,
                    key = queue.get() => key,
                };
                let Some(key) = key else { return };
                let span = info_span!("reconcile", controller = name, object = %key);
                reconcile_one(&queue, key, &reconcile).instrument(span).await;
            }
        });
    }
    token.cancelled().await;
    queue.shut_down();
    while let Some(ended) = set.join_next().await {
        if let Err(error) = ended {
            warn!(controller = name, %error, "worker ended abnormally");
        }
    }
}

async fn reconcile_one<F, Fut>(queue: &WorkQueue<ObjectKey>, key: ObjectKey, reconcile: &F)
where
    F: Fn(ObjectKey) -> Fut,
    Fut: Future<Output = anyhow::Result<Action>> + Send,
{
    let outcome = AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", panic_text(&*panic))));
    match outcome {
        Ok(Action::Done) => queue.forget(&key),
        Ok(Action::RequeueAfter(delay)) => {
            queue.forget(&key);
            queue.add_after(key.clone(), delay);
        }
        Err(error) => {
            let attempt = queue.retries(&key) + 1;
            if is_conflict(&error) {
                debug!(error = %format!("{error:#}"), attempt, "object changed meanwhile, will retry");
            } else {
                warn!(error = %format!("{error:#}"), attempt, "reconcile failed, will retry");
            }
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(&key);
}

/// A conflict is the ordinary outcome of a race, not a fault.
fn is_conflict(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.downcast_ref::<kube::Error>().is_some_and(crate::is_conflict))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failed_and_panicked_keys_are_retried() {
        let queue = WorkQueue::new("test");
        queue.add(ObjectKey::new("", "a"));
        let attempts = Arc::new(AtomicU32::new(0));
        let token = CancellationToken::new();
        let (count, stop) = (attempts.clone(), token.clone());
        run_workers("test", queue, 2, token, move |_| {
            let (count, stop) = (count.clone(), stop.clone());
            async move {
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 => anyhow::bail!("first"),
                    1 => panic!("second"),
                    _ => stop.cancel(),
                }
                Ok(Action::Done)
            }
        })
        .await;
        assert_eq!(attempts.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_keys_as_there_are_workers_are_worked_on_at_once() {
        for workers in [1, 3] {
            let queue = WorkQueue::new("test");
            for name in ["a", "b", "c", "d", "e"] {
                queue.add(ObjectKey::new("", name));
            }
            let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let (done, token) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
            let (count, peak, stop) = (now.clone(), most.clone(), token.clone());
            run_workers("test", queue, workers, token, move |_| {
                let (count, peak, done, stop) = (count.clone(), peak.clone(), done.clone(), stop.clone());
                async move {
                    peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                    if done.fetch_add(1, Ordering::SeqCst) == 4 {
                        stop.cancel();
                    }
                    Ok(Action::Done)
                }
            })
            .await;
            assert_eq!(most.load(Ordering::SeqCst), u32::try_from(workers).expect("a few"));
        }
    }
}
