//! What time it is. Controllers compare times that objects carry with the time of day; a cluster in memory whose time
//! is simulated has a time of day that goes with it.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A source of the time of day.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The clock of this machine.
    #[default]
    System,
    /// A clock that went off at a time and goes as tokio's does: not at all while that is paused, and by leaps when
    /// everybody waits.
    Simulated {
        /// What it showed then.
        start: Timestamp,
        /// When it went off.
        since: Instant,
    },
}

impl Clock {
    /// A clock that shows this time now, and goes as tokio's does from here on.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self::Simulated { start, since: Instant::now() }
    }

    /// The time of day.
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Simulated { start, since } => {
                let passed = SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::MAX);
                start.checked_add(passed).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn simulated_time_passes_as_everybody_waits() {
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        tokio::time::sleep(Duration::from_hours(24)).await;
        assert_eq!(clock.now().as_second(), 86_400);
    }
}
