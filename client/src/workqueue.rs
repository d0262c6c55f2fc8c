//! A queue of keys to look at, with client-go's promises: a key waits at most once, is never worked on twice at
//! the same time, and one that is added while it is worked on is handed out once more afterwards.

pub(crate) mod metrics;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use metrics::{Metrics, Running};

const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1000);

/// The queue; clones share it.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    name: &'static str,
    state: Mutex<State<T>>,
    wake: Notify,
    metrics: Metrics,
}

impl<T: Send> Running for Shared<T> {
    fn running(&self, now: Instant) -> Vec<Duration> {
        self.state.lock().processing.values().map(|since| now - *since).collect()
    }
}

struct State<T> {
    ready: VecDeque<T>,
    /// Keys to be worked on, and since when.
    dirty: HashMap<T, Instant>,
    /// Keys that are worked on, and since when.
    processing: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, T>,
    /// The earliest time a key is due; a later entry of the same key is dropped.
    due: HashMap<T, (Instant, u64)>,
    next_id: u64,
    shut_down: bool,
}

impl<T: Clone + Eq + Hash + Send + 'static> WorkQueue<T> {
    /// An empty queue; the name labels its metrics.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashMap::new(),
            failures: HashMap::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            next_id: 0,
            shut_down: false,
        };
        let metrics = Metrics::new(name);
        let shared = Arc::new(Shared { name, state: Mutex::new(state), wake: Notify::new(), metrics });
        let running: Arc<dyn Running> = shared.clone();
        metrics::register(name, &running);
        Self { shared }
    }

    /// The queue's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// Adds a key to be worked on now.
    pub fn add(&self, key: T) {
        let mut state = self.shared.state.lock();
        if state.add(key, Instant::now(), &self.shared.metrics) {
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Adds a key to be worked on after `delay`; of several delays for one key the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.shared.state.lock();
        if state.shut_down {
            return;
        }
        let at = Instant::now() + delay;
        if state.due.get(&key).is_some_and(|(earlier, _)| *earlier <= at) {
            return;
        }
        let id = state.next_id;
        state.next_id += 1;
        if let Some((_, superseded)) = state.due.insert(key.clone(), (at, id)) {
            state.delayed_keys.remove(&superseded);
        }
        state.delayed_keys.insert(id, key);
        state.delayed.push(Reverse((at, id)));
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Adds a key after its backoff: 5 ms, doubled with each call since the last [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let delay = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = backoff(*failures);
            *failures += 1;
            delay
        };
        self.shared.metrics.retried();
        self.add_after(key, delay);
    }

    /// The key succeeded: its backoff starts over.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often the key has been added rate-limited since it was last forgotten.
    #[must_use]
    pub fn retries(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to work on; `None` once the queue is shut down and empty. Call [`WorkQueue::done`] after.
    pub async fn get(&self) -> Option<T> {
        loop {
            let notified = self.shared.wake.notified();
            let next_due = {
                let mut state = self.shared.state.lock();
                let now = Instant::now();
                state.release_due(now, &self.shared.metrics);
                if let Some(key) = state.take(now, &self.shared.metrics) {
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                if state.shut_down {
                    self.shared.wake.notify_waiters();
                    self.shared.wake.notify_one();
                    return None;
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            match next_due {
                None => notified.await,
                Some(at) => {
                    tokio::select! { () = notified => {} () = tokio::time::sleep_until(at) => {} }
                }
            }
        }
    }

    /// Work on the key has ended; if it was added meanwhile it is handed out again.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        if let Some(since) = state.processing.remove(key) {
            self.shared.metrics.done(since.elapsed());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// How many keys wait to be worked on now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more keys, and lets [`WorkQueue::get`] end once what waits has been handed out.
    pub fn shut_down(&self) {
        self.shared.state.lock().shut_down = true;
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Marks the key; true if it became ready.
    fn add(&mut self, key: T, now: Instant, metrics: &Metrics) -> bool {
        if self.shut_down || self.dirty.contains_key(&key) {
            return false;
        }
        metrics.added();
        self.dirty.insert(key.clone(), now);
        if self.processing.contains_key(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn take(&mut self, now: Instant, metrics: &Metrics) -> Option<T> {
        let key = self.ready.pop_front()?;
        let since = self.dirty.remove(&key).unwrap_or(now);
        metrics.taken(now - since);
        self.processing.insert(key.clone(), now);
        Some(key)
    }

    /// Moves the delayed keys whose time has come.
    fn release_due(&mut self, now: Instant, metrics: &Metrics) {
        while let Some(Reverse((at, id))) = self.delayed.peek().copied() {
            let superseded = !self.delayed_keys.contains_key(&id);
            if at > now && !superseded {
                return;
            }
            self.delayed.pop();
            if let Some(key) = self.delayed_keys.remove(&id) {
                self.due.remove(&key);
                self.add(key, now, metrics);
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BASE_DELAY.saturating_mul(2_u32.saturating_pow(failures.min(30))).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn key_added_twice_is_handed_out_once() {
        let queue = WorkQueue::new("test");
        queue.add("a");
        queue.add("a");
        queue.shut_down();
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        assert_eq!(queue.get().await, None);
    }

    #[tokio::test]
    async fn key_added_during_work_runs_once_more() {
        let queue = WorkQueue::new("test");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        queue.add("a");
        assert!(queue.is_empty(), "a key is not worked on twice at once");
        queue.done(&"a");
        assert_eq!(queue.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn earliest_delay_counts() {
        let queue = WorkQueue::new("test");
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        queue.done(&"a");
        queue.shut_down();
        assert_eq!(queue.get().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_until_forgotten() {
        let queue = WorkQueue::new("test");
        for expected in [5, 10, 20] {
            let start = Instant::now();
            queue.add_rate_limited("a");
            assert_eq!(queue.get().await, Some("a"));
            assert_eq!(start.elapsed(), Duration::from_millis(expected));
            queue.done(&"a");
        }
        queue.forget(&"a");
        assert_eq!(queue.retries(&"a"), 0);
        assert_eq!(backoff(40), MAX_DELAY);
    }

    #[tokio::test]
    async fn every_worker_ends_at_shut_down() {
        let queue = WorkQueue::<u32>::new("test");
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.get().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.shut_down();
        for worker in workers {
            assert_eq!(worker.await.expect("worker ends"), None);
        }
    }
}
