//! Pods that wait for a node (upstream's scheduling queue).
//!
//! *Active* pods are tried next, by priority and age. A pod that failed by an error backs off. A pod that fits
//! nowhere is *unschedulable*: it waits until an event that a plugin which refused it asked for, then backs off
//! what is left of its time (1 s, doubled each attempt up to 10 s) and is active again. Pods that wait for their
//! scheduling gates are held until they change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node_info::PodInfo;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// An unschedulable pod is tried again after this time even if nothing happened.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Where a pod stands: a greater priority first, then the older.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: std::cmp::Reverse<i32>,
    since: u64,
}

/// A waiting pod.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// How often it was tried.
    pub attempts: u32,
    since: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Active,
    BackingOff { until: Instant },
    Unschedulable { plugins: Vec<&'static str>, at: Instant },
    Gated,
    InFlight,
}

/// The queue. Pure but for the clock that callers hand in.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeMap<Rank, String>,
    next: u64,
    /// Counts events; a pod that was being tried while something it waits for happened is tried again.
    events: u64,
    /// What happened of late: number and the plugins it may matter to.
    recent: Vec<(u64, Vec<&'static str>)>,
    in_flight_since: HashMap<String, u64>,
}

impl Queue {
    /// A pod is new, or has changed in a way that matters. `gated`: it must not be tried yet.
    pub fn set(&mut self, pod: Arc<PodInfo>, gated: bool) {
        let uid = pod.uid().to_owned();
        self.next += 1;
        let (since, attempts, state) = match self.pods.get(&uid) {
            Some(old) if old.state == State::InFlight => (old.since, old.attempts, State::InFlight),
            Some(old) => (old.since, old.attempts, if gated { State::Gated } else { State::Active }),
            None => (self.next, 0, if gated { State::Gated } else { State::Active }),
        };
        self.deactivate(&uid);
        self.enter(Waiting { pod, attempts, since, state });
    }

    /// A pod is gone, or needs no node any more.
    pub fn remove(&mut self, uid: &str) {
        self.deactivate(uid);
        self.pods.remove(uid);
        self.in_flight_since.remove(uid);
    }

    /// Whether the pod waits here.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The next pod to try; it stays known until [`Queue::remove`] or a `failed` call.
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        self.wake(now);
        let (_, uid) = self.active.pop_first()?;
        self.in_flight_since.insert(uid.clone(), self.events);
        let waiting = self.pods.get_mut(&uid)?;
        waiting.attempts += 1;
        waiting.state = State::InFlight;
        Some(waiting.clone())
    }

    /// The pod fits nowhere; `plugins` refused it.
    pub fn unschedulable(&mut self, uid: &str, plugins: Vec<&'static str>, now: Instant) {
        let since = self.in_flight_since.remove(uid).unwrap_or(0);
        let happened = self.recent.iter().filter(|(number, _)| *number > since);
        let missed = happened.flat_map(|(_, p)| p).any(|p| plugins.contains(p));
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.state = if missed {
            State::BackingOff { until: now + backoff(waiting.attempts) }
        } else {
            State::Unschedulable { plugins, at: now }
        };
    }

    /// Trying the pod failed by an error that is not its fault.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        self.in_flight_since.remove(uid);
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.state = State::BackingOff { until: now + backoff(waiting.attempts) };
        }
    }

    /// Something happened that may matter to pods which one of `plugins` refused.
    pub fn happened(&mut self, plugins: Vec<&'static str>, now: Instant) {
        self.events += 1;
        for waiting in self.pods.values_mut() {
            if let State::Unschedulable { plugins: refused, at } = &waiting.state
                && refused.iter().any(|p| plugins.contains(p))
            {
                waiting.state = State::BackingOff { until: *at + backoff(waiting.attempts) };
            }
        }
        if self.in_flight_since.is_empty() {
            self.recent.clear();
        } else {
            self.recent.push((self.events, plugins));
        }
        self.wake(now);
    }

    /// When the next pod becomes active by itself; none if none will.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        let times = self.pods.values().filter_map(|waiting| match &waiting.state {
            State::BackingOff { until } => Some(*until),
            State::Unschedulable { at, .. } => Some(*at + LONGEST_WAIT),
            _ => None,
        });
        times.min()
    }

    /// How many pods wait: active, backing off, unschedulable, gated.
    #[must_use]
    pub fn lengths(&self) -> [usize; 4] {
        let mut lengths = [0; 4];
        for waiting in self.pods.values() {
            match waiting.state {
                State::Active | State::InFlight => lengths[0] += 1,
                State::BackingOff { .. } => lengths[1] += 1,
                State::Unschedulable { .. } => lengths[2] += 1,
                State::Gated => lengths[3] += 1,
            }
        }
        lengths
    }

    fn wake(&mut self, now: Instant) {
        let due = |waiting: &Waiting| match &waiting.state {
            State::BackingOff { until } => *until <= now,
            State::Unschedulable { at, .. } => *at + LONGEST_WAIT <= now,
            _ => false,
        };
        let woken: Vec<_> = self.pods.values().filter(|w| due(w)).cloned().collect();
        for waiting in woken {
            self.enter(Waiting { state: State::Active, ..waiting });
        }
    }

    fn enter(&mut self, waiting: Waiting) {
        let uid = waiting.pod.uid().to_owned();
        if waiting.state == State::Active {
            self.active.insert(rank(&waiting), uid.clone());
        }
        self.pods.insert(uid, waiting);
    }

    fn deactivate(&mut self, uid: &str) {
        if let Some(old) = self.pods.get(uid) {
            self.active.remove(&rank(old));
        }
    }
}

fn rank(waiting: &Waiting) -> Rank {
    let priority = waiting.pod.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    Rank { priority: std::cmp::Reverse(priority), since: waiting.since }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF
        .saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(10)))
        .min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        let object = json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid},
                            "spec": {"priority": priority, "containers": []}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(object).expect("a pod"))))
    }

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|w| w.pod.uid().to_owned())
    }

    #[test]
    fn greater_priority_first_then_age() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (uid, priority) in [("old", 0), ("young", 0), ("important", 9)] {
            queue.set(pod(uid, priority), false);
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
        assert_eq!(order, ["important", "old", "young"]);
    }

    #[test]
    fn unschedulable_pod_wakes_only_on_an_event_its_plugin_asked_for_after_its_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0), false);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
        queue.unschedulable("a", vec!["NodeResourcesFit"], now);
        queue.happened(vec!["NodeAffinity"], now);
        assert_eq!(popped(&mut queue, now + Duration::from_secs(20)), None);
        queue.happened(vec!["NodeResourcesFit"], now);
        assert_eq!(popped(&mut queue, now), None, "it backs off first");
        assert_eq!(queue.next_wake(), Some(now + Duration::from_secs(1)));
        assert_eq!(popped(&mut queue, now + Duration::from_secs(1)).as_deref(), Some("a"));
    }

    #[test]
    fn event_during_the_attempt_is_not_missed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0), false);
        assert!(queue.pop(now).is_some());
        queue.happened(vec!["NodeResourcesFit"], now);
        queue.unschedulable("a", vec!["NodeResourcesFit"], now);
        assert_eq!(popped(&mut queue, now + Duration::from_secs(1)).as_deref(), Some("a"));
    }

    #[test]
    fn gated_pod_waits_for_its_change() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0), true);
        assert_eq!(popped(&mut queue, now), None);
        queue.set(pod("a", 0), false);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
    }

    #[test]
    fn backoff_doubles_up_to_ten_seconds() {
        let seconds: Vec<_> = (1..7).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
    }
}
