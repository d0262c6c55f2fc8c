//! How much work a request is: seats, and seats over time.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

/// Work in seats times seconds, in steps of a hundred-millionth. Wide enough never to overflow, so that the meters
/// of queues need no epochs (unlike upstream's, which count in 64 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatSeconds(i128);

/// Steps of a seat-second.
const SCALE: i128 = 100_000_000;
const NANOS: f64 = 1e9;

impl SeatSeconds {
    /// No work.
    pub const ZERO: Self = Self(0);
    /// More than any work.
    pub const MAX: Self = Self(i128::MAX);

    /// `seats` that are taken for `nanos` nanoseconds, which may be negative.
    #[must_use]
    pub fn of(seats: f64, nanos: f64) -> Self {
        Self((seats * nanos / (NANOS / SCALE as f64)).round() as i128)
    }

    /// `seats` that are taken for some time.
    #[must_use]
    pub fn taking(seats: u64, time: Duration) -> Self {
        Self::of(seats as f64, time.as_nanos() as f64)
    }

    /// How long this lasts when so many seats do it.
    #[must_use]
    pub fn spread_over(self, seats: u64) -> Duration {
        Duration::from_secs_f64((self.as_f64() / seats.max(1) as f64).max(0.0))
    }

    /// In seat-seconds.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / SCALE as f64
    }
}

impl Add for SeatSeconds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for SeatSeconds {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for SeatSeconds {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl SubAssign for SeatSeconds {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl fmt::Display for SeatSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let size = self.0.unsigned_abs();
        let scale = SCALE.unsigned_abs();
        write!(f, "{sign}{}.{:08}ss", size / scale, size % scale)
    }
}

/// What a request is expected to take, but for the time of its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkEstimate {
    /// Seats taken while the handler works.
    pub initial_seats: u64,
    /// Seats taken afterwards ...
    pub final_seats: u64,
    /// ... for so long. Whoever sent the request does not wait for that.
    pub additional_latency: Duration,
}

impl WorkEstimate {
    /// So many seats, and nothing afterwards.
    #[must_use]
    pub fn seats(initial_seats: u64) -> Self {
        Self { initial_seats, final_seats: 0, additional_latency: Duration::ZERO }
    }

    /// The seats that are set aside for the request as long as it takes any.
    #[must_use]
    pub fn max_seats(&self) -> u64 {
        self.initial_seats.max(self.final_seats)
    }

    /// What remains to be done after the handler.
    #[must_use]
    pub fn final_work(&self) -> SeatSeconds {
        SeatSeconds::taking(self.final_seats, self.additional_latency)
    }

    /// All of it, if the handler takes `service` of time.
    #[must_use]
    pub fn total_work(&self, service: Duration) -> SeatSeconds {
        SeatSeconds::taking(self.initial_seats, service) + self.final_work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // After upstream's TestSeatSecondsString and TestSeatSecondsPerSeat.
    #[test]
    fn work_is_counted_in_fixed_steps() {
        for (seats, time, shown) in [
            (0, Duration::ZERO, "0.00000000ss"),
            (1, Duration::from_nanos(100_000_000), "0.10000000ss"),
            (1, Duration::from_nanos(123_456_789), "0.12345679ss"),
            (1250, Duration::from_secs(1), "1250.00000000ss"),
            (1, Duration::from_secs(81920), "81920.00000000ss"),
        ] {
            assert_eq!(SeatSeconds::taking(seats, time).to_string(), shown);
        }
        assert_eq!(SeatSeconds::of(1.0, -1.5e9).to_string(), "-1.50000000ss");
        for (seats, millis, over, each) in [(10, 1000, 10, 1000), (10, 100, 4, 250), (2, 10, 50, 0)] {
            let work = SeatSeconds::taking(seats, Duration::from_millis(millis));
            assert_eq!(work.spread_over(over).as_millis(), each, "{work} over {over}");
        }
    }

    // After upstream's TestRequestSeats and TestRequestWork.
    #[test]
    fn an_estimate_has_two_phases() {
        for (initial, last, most) in [(3, 3, 3), (1, 3, 3), (3, 1, 3)] {
            let estimate = WorkEstimate { final_seats: last, ..WorkEstimate::seats(initial) };
            assert_eq!(estimate.max_seats(), most);
        }
        let estimate =
            WorkEstimate { initial_seats: 3, final_seats: 50, additional_latency: Duration::from_secs(70) };
        assert_eq!(estimate.total_work(Duration::from_secs(2)).as_f64(), 3.0 * 2.0 + 50.0 * 70.0);
    }
}
