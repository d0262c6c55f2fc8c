//! Histograms of a ratio over time: each bucket holds how long the ratio was that high (upstream
//! `flowcontrol/metrics/timing_ratio_histogram.go`, whose unit is a nanosecond as well).

use std::time::Duration;

/// A histogram over time.
#[derive(Clone, Debug)]
pub struct Timed {
    bounds: &'static [f64],
    nanos: Vec<u64>,
    sum: f64,
    last: Duration,
    value: f64,
}

impl Timed {
    fn new(now: Duration, bounds: &'static [f64]) -> Self {
        Self { bounds, nanos: vec![0; bounds.len() + 1], sum: 0.0, last: now, value: 0.0 }
    }

    fn set(&mut self, now: Duration, value: f64) {
        let nanos = now.saturating_sub(self.last).as_nanos() as u64;
        if nanos > 0 {
            let bucket = self.bounds.iter().position(|bound| self.value <= *bound);
            self.nanos[bucket.unwrap_or(self.bounds.len())] += nanos;
            self.sum += self.value * nanos as f64;
            self.last = now;
        }
        self.value = value;
    }

    /// The upper bounds of the buckets with the nanoseconds up to each, all nanoseconds, and the ratio's sum over them.
    pub fn buckets(&self) -> (impl Iterator<Item = (f64, u64)>, u64, f64) {
        let mut so_far = 0;
        let buckets = self.bounds.iter().zip(&self.nanos).map(move |(bound, nanos)| {
            so_far += nanos;
            (*bound, so_far)
        });
        (buckets, self.nanos.iter().sum(), self.sum)
    }
}

const SEATS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const REQUESTS: &[f64] = &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
const DEMAND: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

/// How busy a level was.
#[derive(Clone, Debug)]
pub struct Ratios {
    /// Seats in use, of those there are.
    pub seats: Timed,
    /// Requests served, of the seats there are.
    pub executing: Timed,
    /// Requests waiting, of the places there are.
    pub waiting: Timed,
    /// Seats wanted, of those there are.
    pub demand: Timed,
}

/// How busy a level is.
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    /// Seats there are.
    pub limit: u64,
    /// Places to wait there are.
    pub places: u64,
    /// Seats in use.
    pub seats: u64,
    /// Requests served.
    pub executing: u64,
    /// Requests waiting.
    pub waiting: u64,
    /// Seats wanted.
    pub demand: u64,
}

impl Ratios {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            seats: Timed::new(now, SEATS),
            executing: Timed::new(now, REQUESTS),
            waiting: Timed::new(now, REQUESTS),
            demand: Timed::new(now, DEMAND),
        }
    }

    pub(super) fn set(&mut self, now: Duration, readings: Readings) {
        let of = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        self.seats.set(now, of(readings.seats, readings.limit));
        self.executing.set(now, of(readings.executing, readings.limit));
        self.waiting.set(now, of(readings.waiting, readings.places));
        self.demand.set(now, of(readings.demand, readings.limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_what_is_counted() {
        let at = Duration::from_nanos;
        let mut timed = Timed::new(at(0), &[0.0, 0.5, 1.0]);
        timed.set(at(3), 0.5);
        timed.set(at(3), 0.25);
        timed.set(at(13), 2.0);
        timed.set(at(14), 0.0);
        let (buckets, all, sum) = timed.buckets();
        assert_eq!(buckets.collect::<Vec<_>>(), [(0.0, 3), (0.5, 13), (1.0, 13)]);
        assert_eq!((all, sum), (14, 0.25 * 10.0 + 2.0));
    }
}
