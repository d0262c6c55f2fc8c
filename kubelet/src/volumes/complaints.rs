//! How often a failure is told: at once, then ever more rarely while it stays the same.

use std::collections::HashMap;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(122);

struct Complaint {
    message: String,
    next: Instant,
    delay: Duration,
}

/// The failures of one pod's volumes, by volume.
#[derive(Default)]
pub struct Complaints(HashMap<String, Complaint>);

impl Complaints {
    /// Whether to tell of this failure now.
    pub fn is_due(&mut self, volume: &str, message: &str, now: Instant) -> bool {
        match self.0.get_mut(volume).filter(|known| known.message == message) {
            Some(known) if now < known.next => false,
            Some(known) => {
                known.delay = (known.delay * 2).min(LAST);
                known.next = now + known.delay;
                true
            }
            None => {
                let new = Complaint { message: message.to_owned(), next: now + FIRST, delay: FIRST };
                self.0.insert(volume.to_owned(), new);
                true
            }
        }
    }

    /// The volume is well.
    pub fn settle(&mut self, volume: &str) {
        self.0.remove(volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_failure_is_told_ever_more_rarely() {
        let start = Instant::now();
        let mut complaints = Complaints::default();
        let told: Vec<u64> = (0..1000)
            .filter(|second| complaints.is_due("v", "no", start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [0, 1, 2, 4, 8, 16, 32, 64, 128, 250, 372, 494, 616, 738, 860, 982]);
        assert!(complaints.is_due("v", "something else", start));
        complaints.settle("v");
        assert!(complaints.is_due("v", "something else", start));
    }
}
