//! What is counted of the requests of one flow schema at one level.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::queueset::Rejection;

/// A histogram with fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// In millionths.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts one more value, which is not negative.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// Each upper bound with the count up to it, the count of all, and the sum.
    pub fn buckets(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut all = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (i, count) in self.counts.iter().enumerate() {
            all += count.load(Ordering::Relaxed);
            if let Some(bound) = self.bounds.get(i) {
                buckets.push((*bound, all));
            }
        }
        (buckets, all, self.sum.load(Ordering::Relaxed) as f64 / 1e6)
    }
}

const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];

/// The numbers.
#[derive(Debug)]
pub struct Statistics {
    /// Requests that wait.
    pub waiting: AtomicI64,
    /// The seats that they want.
    pub seats_waiting: AtomicI64,
    /// Requests that are served.
    pub executing: AtomicI64,
    /// The seats that are taken.
    pub seats: AtomicI64,
    /// Requests that were served, ever.
    pub dispatched: AtomicU64,
    /// Requests that were refused, ever: because the queue was full, there was no seat, or time was over.
    pub rejected: [AtomicU64; 3],
    /// How often a request would have been next but was too wide.
    pub not_accommodated: AtomicU64,
    /// Length of the queue that a request has come into.
    pub queue_length: Histogram,
    /// Time until a request was served.
    pub waited: Histogram,
    /// Time until a request was refused.
    pub waited_in_vain: Histogram,
    /// Time of handlers.
    pub regular: Histogram,
    /// Time until watches had begun.
    pub watch: Histogram,
    /// Seats that requests were expected to take.
    pub estimated: Histogram,
    /// Watches that writes were expected to concern.
    pub watches: Histogram,
}

/// The reasons in the order of [`Statistics::rejected`].
pub const REASONS: [Rejection; 3] = [Rejection::QueueFull, Rejection::ConcurrencyLimit, Rejection::TimeOut];

impl Default for Statistics {
    fn default() -> Self {
        Self {
            waiting: AtomicI64::default(),
            seats_waiting: AtomicI64::default(),
            executing: AtomicI64::default(),
            seats: AtomicI64::default(),
            dispatched: AtomicU64::default(),
            rejected: Default::default(),
            not_accommodated: AtomicU64::default(),
            queue_length: Histogram::new(LENGTHS),
            waited: Histogram::new(SECONDS),
            waited_in_vain: Histogram::new(SECONDS),
            regular: Histogram::new(SECONDS),
            watch: Histogram::new(SECONDS),
            estimated: Histogram::new(SEATS),
            watches: Histogram::new(WATCHES),
        }
    }
}

impl Statistics {
    /// Counts a refusal.
    pub fn reject(&self, why: Rejection) {
        let place = REASONS.iter().position(|reason| *reason == why).unwrap_or_default();
        self.rejected[place].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a handler that has ended, or a watch that has begun.
    pub fn executed(&self, took: Duration, watch: bool) {
        let histogram = if watch { &self.watch } else { &self.regular };
        histogram.observe(took.as_secs_f64());
    }
}

/// Adds to a gauge.
pub fn add(gauge: &AtomicI64, delta: i64) {
    gauge.fetch_add(delta, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 9.0].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.buckets(), (vec![(1.0, 2), (2.0, 3)], 4, 12.0));
    }
}
