//! The node on which making room does the least harm.

use jiff::Timestamp;

use super::victims::{Candidate, start_time};

/// The best candidate, by upstream's order: the fewest disruption budgets hurt, the least important victims, the
/// least sum of their priorities, the fewest of them, the latest start among the most important; else the first.
#[must_use]
pub fn pick(candidates: Vec<Candidate>, now: Timestamp) -> Option<Candidate> {
    // Of equal ones `min_by_key` takes the first.
    candidates.into_iter().min_by_key(|candidate| harm(candidate, now))
}

fn harm(candidate: &Candidate, now: Timestamp) -> (usize, i32, i64, usize, std::cmp::Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
    // Priorities count from zero on, so that few pods of a negative one are not worse than many.
    let sum = victims.iter().map(|pod| i64::from(pod.priority) - i64::from(i32::MIN)).sum();
    let most_important = victims.iter().filter(|pod| pod.priority == highest);
    let started = most_important.map(|pod| start_time(pod, now)).min().unwrap_or(Timestamp::MIN);
    (candidate.violations, highest, sum, victims.len(), std::cmp::Reverse(started))
}
