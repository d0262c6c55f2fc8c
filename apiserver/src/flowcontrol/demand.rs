//! How many seats a level has wanted lately (upstream `fairqueuing/integrator.go` and `seatDemandStats`).

use std::time::Duration;

/// Observes a number over time.
#[derive(Clone, Debug, Default)]
pub struct Integrator {
    last: Duration,
    now: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
    max: f64,
}

/// What an [`Integrator`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// For so many seconds.
    pub seconds: f64,
    /// Average over time; 0 if no time has passed.
    pub average: f64,
    /// Standard deviation over time.
    pub deviation: f64,
    /// The highest value.
    pub max: f64,
}

impl Integrator {
    /// Begins at a time.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { last: now, ..Self::default() }
    }

    /// The number is `value` from now on.
    pub fn set(&mut self, now: Duration, value: f64) {
        self.pass(now);
        self.now = value;
        self.max = self.max.max(value);
    }

    fn pass(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.last).as_secs_f64();
        self.last = now;
        self.seconds += seconds;
        self.sum += self.now * seconds;
        self.squares += self.now * self.now * seconds;
    }

    /// What was seen, until now.
    pub fn observed(&mut self, now: Duration) -> Observed {
        self.pass(now);
        if self.seconds <= 0.0 {
            return Observed { max: self.max, ..Observed::default() };
        }
        let average = self.sum / self.seconds;
        let variance = self.squares / self.seconds - average * average;
        Observed { seconds: self.seconds, average, deviation: variance.max(0.0).sqrt(), max: self.max }
    }

    /// As [`Integrator::observed`]; what follows is counted anew.
    pub fn reset(&mut self, now: Duration) -> Observed {
        let observed = self.observed(now);
        *self = Self { last: now, now: self.now, max: self.now, ..Self::default() };
        observed
    }
}

/// How much of the old is kept each time; at a look every ten seconds it halves in five minutes.
const SMOOTHING: f64 = 0.977;

/// The demand of a level, smoothed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Average over the last period.
    pub average: f64,
    /// Standard deviation over the last period.
    pub deviation: f64,
    /// The most over the last period.
    pub high_watermark: u64,
    /// Goes up with the demand at once, and down slowly.
    pub smoothed: f64,
}

impl Demand {
    /// Takes in what was seen over one more period.
    pub fn update(&mut self, seen: Observed) {
        self.high_watermark = seen.max.round().max(0.0) as u64;
        if seen.seconds <= 0.0 {
            return;
        }
        self.average = seen.average;
        self.deviation = seen.deviation;
        let envelope = seen.average + seen.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    // After upstream's TestIntegrator.
    #[test]
    fn averages_are_over_time() {
        let mut integrator = Integrator::new(seconds(100));
        integrator.set(seconds(100), 3.0);
        assert_eq!(integrator.observed(seconds(100)), Observed { max: 3.0, ..Observed::default() });
        let seen = integrator.observed(seconds(101));
        assert_eq!(seen, Observed { seconds: 1.0, average: 3.0, deviation: 0.0, max: 3.0 });
        integrator.set(seconds(101), 1.0);
        let seen = integrator.observed(seconds(102));
        assert_eq!(seen, Observed { seconds: 2.0, average: 2.0, deviation: 1.0, max: 3.0 });
        integrator.reset(seconds(102));
        let seen = integrator.reset(seconds(104));
        assert_eq!(seen, Observed { seconds: 2.0, average: 1.0, deviation: 0.0, max: 1.0 });
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        demand.update(Observed { seconds: 10.0, average: 8.0, deviation: 2.0, max: 12.4 });
        assert_eq!((demand.high_watermark, demand.smoothed), (12, 10.0));
        demand.update(Observed { seconds: 10.0, average: 0.0, deviation: 0.0, max: 0.0 });
        assert_eq!((demand.high_watermark, demand.smoothed), (0, 9.77));
        demand.update(Observed { seconds: 0.0, average: 9.0, deviation: 9.0, max: 4.0 });
        assert_eq!((demand.high_watermark, demand.smoothed), (4, 9.77), "no time has passed");
    }
}
