//! What a queue tells about itself, by upstream's names (component-base's workqueue metrics).
//!
//! How long work has been going on changes without anybody doing anything, so those gauges are brought up to date
//! when metrics are read ([`observe`]), not by a timer for each queue. Queues of the same name count as one.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The histograms, whose buckets are [`BUCKETS`].
pub(crate) const HISTOGRAMS: [&str; 2] =
    ["workqueue_queue_duration_seconds", "workqueue_work_duration_seconds"];

/// Upper bounds, in seconds: ten steps from 10 ns, each ten times the one before.
pub(crate) const BUCKETS: [f64; 10] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];

const UNFINISHED: &str = "workqueue_unfinished_work_seconds";
const LONGEST: &str = "workqueue_longest_running_processor_seconds";

static QUEUES: Mutex<Vec<(&'static str, Weak<dyn Running>)>> = Mutex::new(Vec::new());

/// A queue whose keys are being worked on.
pub(super) trait Running: Send + Sync {
    /// For how long each of them has been.
    fn running(&self, now: Instant) -> Vec<Duration>;
}

/// The handles of one queue's metrics.
pub(super) struct Metrics {
    depth: Gauge,
    adds: Counter,
    waited: Histogram,
    worked: Histogram,
    retries: Counter,
}

impl Metrics {
    pub(super) fn new(name: &'static str) -> Self {
        let metrics = Self {
            depth: gauge!("workqueue_depth", "name" => name),
            adds: counter!("workqueue_adds_total", "name" => name),
            waited: histogram!(HISTOGRAMS[0], "name" => name),
            worked: histogram!(HISTOGRAMS[1], "name" => name),
            retries: counter!("workqueue_retries_total", "name" => name),
        };
        // A queue is seen from its start, not from its first key.
        metrics.depth.increment(0.0);
        metrics.adds.increment(0);
        metrics.retries.increment(0);
        metrics
    }

    /// A key waits.
    pub(super) fn added(&self) {
        self.adds.increment(1);
        self.depth.increment(1.0);
    }

    /// A key that waited so long is worked on.
    pub(super) fn taken(&self, waited: Duration) {
        self.depth.decrement(1.0);
        self.waited.record(waited.as_secs_f64());
    }

    /// Work of that length has ended.
    pub(super) fn done(&self, worked: Duration) {
        self.worked.record(worked.as_secs_f64());
    }

    pub(super) fn retried(&self) {
        self.retries.increment(1);
    }
}

/// Has the work of a queue measured for as long as the queue exists.
pub(super) fn register(name: &'static str, queue: &Arc<dyn Running>) {
    QUEUES.lock().push((name, Arc::downgrade(queue)));
}

/// Brings up to date what says how long work has been going on.
pub(crate) fn observe() {
    for (name, (total, longest)) in measure(Instant::now()) {
        gauge!(UNFINISHED, "name" => name).set(total.as_secs_f64());
        gauge!(LONGEST, "name" => name).set(longest.as_secs_f64());
    }
}

/// By name: all time spent on what is not done yet, and the longest of it.
fn measure(now: Instant) -> BTreeMap<&'static str, (Duration, Duration)> {
    let mut found = BTreeMap::<_, (Duration, Duration)>::new();
    QUEUES.lock().retain(|(name, queue)| {
        // A queue that is gone is reported once more, as having nothing to do.
        let (total, longest) = found.entry(*name).or_default();
        let Some(queue) = queue.upgrade() else { return false };
        for time in queue.running(now) {
            *total += time;
            *longest = time.max(*longest);
        }
        true
    });
    found
}

/// Says what each metric means.
pub(crate) fn describe() {
    metrics::describe_gauge!("workqueue_depth", "Keys that wait to be worked on.");
    metrics::describe_counter!("workqueue_adds_total", "Keys that were added.");
    metrics::describe_histogram!(HISTOGRAMS[0], "Seconds a key waited before it was worked on.");
    metrics::describe_histogram!(HISTOGRAMS[1], "Seconds the work on a key took.");
    metrics::describe_counter!("workqueue_retries_total", "Keys that were added again after a failure.");
    metrics::describe_gauge!(
        UNFINISHED,
        "Seconds of work on keys that are not done yet. Grows by one a second for each worker that is stuck."
    );
    metrics::describe_gauge!(LONGEST, "Seconds that the longest work on a key has been going on.");
}

#[cfg(test)]
mod tests {
    use super::super::WorkQueue;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_goes_on_is_measured_until_it_is_done() {
        const NAME: &str = "measured";
        let of = || measure(Instant::now()).get(NAME).copied();
        let (queue, second) = (WorkQueue::new(NAME), WorkQueue::new(NAME));
        for key in ["a", "b"] {
            queue.add(key);
        }
        second.add("c");
        assert_eq!(of(), Some((Duration::ZERO, Duration::ZERO)), "nobody works yet");
        queue.get().await;
        tokio::time::advance(Duration::from_secs(3)).await;
        queue.get().await;
        second.get().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(of(), Some((Duration::from_secs(9), Duration::from_secs(5))), "5 + 2 + 2");
        queue.done(&"a");
        assert_eq!(of(), Some((Duration::from_secs(4), Duration::from_secs(2))));
        drop((queue, second));
        assert_eq!(of(), Some((Duration::ZERO, Duration::ZERO)), "seen once more, as idle");
        assert_eq!(of(), None);
    }
}
