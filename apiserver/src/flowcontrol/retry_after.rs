//! When those who were refused are asked to come back: later, the more of them there are (upstream
//! `dropped_requests_tracker.go`).

use std::collections::VecDeque;

/// The longest wait, in seconds.
const LONGEST: u64 = 32;

/// What was refused of one level lately. Times are in seconds.
#[derive(Clone, Debug)]
pub struct RetryAfter {
    history: VecDeque<(u64, u64)>,
    second: u64,
    count: u64,
    wait: u64,
    raised: u64,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self { history: VecDeque::new(), second: 0, count: 0, wait: 1, raised: 0 }
    }
}

impl RetryAfter {
    /// One more was refused; says how long it shall wait.
    pub fn refused(&mut self, now: u64) -> u64 {
        if self.second == now {
            self.count += 1;
            return self.wait;
        }
        self.history.push_back((self.second, self.count));
        let oldest = (2 * self.wait).min(LONGEST);
        while self.history.front().is_some_and(|(second, _)| self.second - second > oldest) {
            self.history.pop_front();
        }
        self.second = now;
        self.count = 1;
        self.adjust(now);
        self.wait
    }

    /// The wait is doubled if many were refused since that much time, and shortened if few were.
    fn adjust(&mut self, now: u64) {
        let lately = self.history.iter().rev().take_while(|(second, _)| now - second <= self.wait);
        let refused: u64 = lately.map(|(_, count)| count).sum();
        if now - self.raised >= self.wait && refused >= 3 * self.wait {
            self.wait = (2 * self.wait).min(LONGEST);
            self.raised = now;
        } else if refused < self.wait && self.wait > 1 {
            self.wait -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // After upstream's TestDroppedRequestsTracker.
    #[test]
    fn the_wait_follows_the_number_of_refusals() {
        // The second, refusals in it, and the wait after them.
        let steps = [
            (0, 5, 1),
            (1, 11, 2),
            // Not raised again at once.
            (2, 1, 2),
            (3, 11, 4),
            (4, 1, 4),
            (7, 1, 8),
            (11, 1, 8),
            (15, 1, 7),
            (17, 1, 6),
            (21, 14, 5),
            (22, 1, 10),
        ];
        let mut tracker = RetryAfter::default();
        let mut now = 1_000_000;
        for (second, refusals, expected) in steps {
            let wait = (0..refusals).map(|_| tracker.refused(now + second)).last();
            assert_eq!(wait, Some(expected), "second {second}");
        }
        now += 22;
        for _ in 0..20 {
            now += LONGEST;
            tracker.refused(now - 1);
            assert!((0..1000).map(|_| tracker.refused(now)).all(|wait| wait <= LONGEST));
        }
        assert!(tracker.refused(now + 1) <= LONGEST && tracker.history.len() <= LONGEST as usize);
    }
}
