//! Growing waits, one per key: 10 s, doubled up to a maximum, forgotten after twice the maximum without use.
//!
//! Pure over the times it is given. They are a clock's that may be set: of an event that is still to come nobody knows
//! how long ago it was, and its wait is over, rather than as long as the clock was set back.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Waits by key.
#[derive(Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: Mutex<HashMap<String, Entry>>,
}

/// By so much times may differ that are read one after the other.
const SLIP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    updated: Timestamp,
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

impl Backoff {
    /// Waits that start at `initial` and grow to `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, entries: Mutex::default() }
    }

    /// How long is still to be waited after the event at `since`; `None` when the wait is over or there is none.
    #[must_use]
    pub fn remaining(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<Duration> {
        let entry = *self.entries.lock().get(key)?;
        if self.expired(entry, since) || between(now, since) > SLIP {
            return None;
        }
        let waited = between(since, now);
        (waited < entry.wait).then(|| entry.wait - waited)
    }

    /// The wait that holds for `key` now.
    #[must_use]
    pub fn wait(&self, key: &str) -> Duration {
        self.entries.lock().get(key).map_or(Duration::ZERO, |e| e.wait)
    }

    /// When the wait for `key` last changed.
    #[must_use]
    pub fn updated(&self, key: &str) -> Option<Timestamp> {
        self.entries.lock().get(key).map(|e| e.updated)
    }

    /// Notes another failure, seen at `event`: the next wait is longer, or the first again after a long good time.
    pub fn next(&self, key: &str, event: Timestamp, now: Timestamp) {
        let mut entries = self.entries.lock();
        let wait = match entries.get(key) {
            Some(entry) if !self.expired(*entry, event) => (entry.wait * 2).min(self.max),
            _ => self.initial,
        };
        entries.insert(key.to_owned(), Entry { wait, updated: now });
    }

    /// Forgets one key.
    pub fn forget(&self, key: &str) {
        self.entries.lock().remove(key);
    }

    /// Forgets what was not used for twice the maximum.
    pub fn collect(&self, now: Timestamp) {
        self.entries.lock().retain(|_, e| between(e.updated, now) <= self.max * 2);
    }

    fn expired(&self, entry: Entry, event: Timestamp) -> bool {
        between(entry.updated, event) > self.max * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn waits_double_and_are_forgotten() {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert_eq!(backoff.remaining("a", at(0), at(0)), None, "the first failure waits not at all");
        let mut now = 0;
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next("a", at(now), at(now));
            assert_eq!(backoff.wait("a"), Duration::from_secs(wait));
            let failed = now + 1;
            assert_eq!(
                backoff.remaining("a", at(failed), at(failed + 4)),
                Some(Duration::from_secs(wait - 4))
            );
            now = failed + i64::try_from(wait).expect("small");
            assert_eq!(backoff.remaining("a", at(failed), at(now)), None);
        }
        // Ran well for more than ten minutes, then failed.
        assert_eq!(backoff.remaining("a", at(now + 601), at(now + 601)), None);
        backoff.next("a", at(now + 601), at(now + 601));
        assert_eq!(backoff.wait("a"), Duration::from_secs(10));
        backoff.collect(at(now + 601 + 601));
        assert_eq!(backoff.wait("a"), Duration::ZERO);
    }

    #[test]
    fn nobody_waits_for_a_clock_that_was_set_back() {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        backoff.next("a", at(7200), at(7200));
        assert_eq!(backoff.remaining("a", at(7205), at(7206)), Some(Duration::from_secs(9)));
        assert_eq!(backoff.remaining("a", at(7205), at(3600)), None, "an hour back");
        backoff.next("a", at(3600), at(3600));
        assert_eq!(
            backoff.remaining("a", at(3601), at(3603)),
            Some(Duration::from_secs(18)),
            "as ever from then on"
        );
        assert_eq!(backoff.remaining("a", at(3601), at(9000)), None, "forward it is over too");
    }
}
