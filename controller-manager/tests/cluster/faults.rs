//! What goes wrong in a network, and how long things take, as a seed has it.

use super::store::{Change, Refused};
use http::Method;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// A source of faults.
pub struct Faults(Mutex<StdRng>);

impl Faults {
    /// The same seed gives the same faults, if things happen in the same order.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Whether something of this likelihood happens now.
    pub fn happens(&self, likelihood: f64) -> bool {
        self.0.lock().random_bool(likelihood)
    }

    /// Some time, of at most so many milliseconds.
    pub fn delay(&self, most: u64) -> Duration {
        Duration::from_millis(self.0.lock().random_range(0..=most))
    }

    /// One of several choices.
    pub fn pick<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.0.lock().random_range(0..choices.len())]
    }

    /// Why a write is refused, if it is. Only changes can conflict with those of others.
    pub fn refusal(&self, method: &Method) -> Option<Refused> {
        if !self.happens(0.1) {
            return None;
        }
        let conflict = (409, "Conflict", "somebody else was faster".to_owned());
        let broken = (500, "InternalError", "something broke".to_owned());
        let changes = *method == Method::PUT || *method == Method::PATCH;
        Some(if changes && self.happens(0.5) { conflict } else { broken })
    }

    /// Changes as they arrive: some twice, and those of different objects in another order. The last stays the last, as
    /// it says from where to go on.
    pub fn delivered(&self, changes: &[Change]) -> Vec<Change> {
        let mut order: Vec<Change> = Vec::new();
        for change in changes {
            order.push(change.clone());
            if self.happens(0.1) {
                order.push(change.clone());
            }
        }
        for at in (1..order.len().saturating_sub(1)).rev() {
            if order[at].key != order[at - 1].key && self.happens(0.3) {
                order.swap(at, at - 1);
            }
        }
        order
    }
}
