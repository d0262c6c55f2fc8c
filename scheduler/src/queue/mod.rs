//! Pods that wait for a node (upstream's scheduling queue). Pure but for the clock that callers hand in.
//!
//! *Active* pods are tried next, by priority and then by the time they came. A pod that failed *backs off* (1 s,
//! doubled each attempt up to 10 s) once there is a reason to try it again: an error on our side is one at once, a
//! refusal needs an event that a plugin which refused it finds worth it ([`events`]). Until then it is
//! *unschedulable*; after five minutes it is tried anyway. A pod that a `PreEnqueue` plugin holds back is *gated*.
//! When no pod is active, one that backs off after a refusal is taken early: there is nothing better to do.
//!
//! While a pod is being tried, events are kept for it, so that none is missed between the look at the cluster and
//! the refusal.

mod events;
mod nominator;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use self::nominator::Nominator;
use crate::framework::{ClusterEvent, Rejection};
use crate::measure;
use crate::pod_info::PodInfo;
use crate::profiles::{Profiles, wanted};

/// How long pods wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The first backoff.
    pub initial_backoff: Duration,
    /// The longest backoff.
    pub max_backoff: Duration,
    /// An unschedulable pod is tried again after this time even if nothing happened.
    pub max_unschedulable: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            max_unschedulable: Duration::from_secs(300),
        }
    }
}

/// A waiting pod.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was to be tried for the first time.
    pub first_attempt: Option<Instant>,
    /// Whether it is tried only because it waited so long.
    pub flushed: bool,
    /// The plugins that refused it.
    pub plugins: BTreeSet<&'static str>,
    /// The plugins that wait for something outside.
    pub pending: BTreeSet<&'static str>,
    since: Instant,
    number: u64,
    refusals: u32,
    errors: u32,
    backs_off_until: Option<Instant>,
    gated_by: Option<&'static str>,
}

/// Where a pod stands: a greater priority first, then the one that came first.
type Rank = (std::cmp::Reverse<i32>, Instant, u64);

impl Waiting {
    fn rank(&self) -> Rank {
        (std::cmp::Reverse(self.pod.priority), self.since, self.number)
    }

    fn refused_by(&self) -> BTreeSet<&'static str> {
        self.plugins.union(&self.pending).copied().collect()
    }

    /// Counts the plugins that refuse this pod in (1) or out (-1) of the metric.
    fn measure(&self, by: f64) {
        let profile = wanted(&self.pod.pod);
        self.plugins.union(&self.pending).for_each(|plugin| measure::refused(plugin, profile, by));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// After a refusal, or after an error (true).
    Backoff(bool),
    Unschedulable,
}

struct Entry {
    waiting: Waiting,
    place: Place,
}

/// The queue.
pub struct Queue {
    profiles: Arc<Profiles>,
    waits: Waits,
    pods: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    /// By the end of their backoff; those after an error come second.
    backoff: [BTreeMap<(Instant, Rank), String>; 2],
    /// Unschedulable pods by the plugins that refused them.
    refused_by: BTreeMap<&'static str, BTreeSet<String>>,
    /// Unschedulable pods by the time they were refused.
    unschedulable: BTreeSet<(Instant, String)>,
    gated: usize,
    next_number: u64,
    /// Pods that are being tried, with the number of the first event that they have not seen.
    in_flight: HashMap<String, u64>,
    happened: VecDeque<Arc<ClusterEvent>>,
    /// How many events there were before the first kept.
    forgotten: u64,
    /// The pods nominated to nodes.
    pub nominator: Nominator,
}

impl Queue {
    /// An empty queue for the pods of these profiles.
    #[must_use]
    pub fn new(profiles: Arc<Profiles>, waits: Waits) -> Self {
        Self {
            profiles,
            waits,
            pods: HashMap::new(),
            active: BTreeMap::new(),
            backoff: [BTreeMap::new(), BTreeMap::new()],
            refused_by: BTreeMap::new(),
            unschedulable: BTreeSet::new(),
            gated: 0,
            next_number: 0,
            in_flight: HashMap::new(),
            happened: VecDeque::new(),
            forgotten: 0,
            nominator: Nominator::default(),
        }
    }

    /// A pod is new.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if let Some(known) = self.remove_entry(pod.uid()) {
            known.measure(-1.0);
        }
        self.next_number += 1;
        let waiting = Waiting {
            pod: pod.clone(),
            attempts: 0,
            first_attempt: None,
            flushed: false,
            plugins: BTreeSet::new(),
            pending: BTreeSet::new(),
            since: now,
            number: self.next_number,
            refusals: 0,
            errors: 0,
            backs_off_until: None,
            gated_by: None,
        };
        if self.activate(waiting, "UnscheduledPodAdd", now) {
            self.nominator.set(&pod, None);
        }
    }

    /// A pod is gone, or needs no node any more.
    pub fn remove(&mut self, uid: &str) {
        self.nominator.remove(uid);
        if let Some(waiting) = self.remove_entry(uid) {
            waiting.measure(-1.0);
        }
    }

    /// Whether the pod waits here or is being tried.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid) || self.in_flight.contains_key(uid)
    }

    /// The next pod to try. It is in flight until [`Queue::done`], or until it comes back.
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        self.wake(now);
        let uid = match self.active.pop_first() {
            Some((_, uid)) => uid,
            None => {
                let (_, uid) = self.backoff[0].pop_first()?;
                measure::incoming("active", "PopFromBackoffQ");
                uid
            }
        };
        let mut waiting = self.pods.remove(&uid)?.waiting;
        waiting.measure(-1.0);
        waiting.attempts += 1;
        waiting.first_attempt.get_or_insert(now);
        self.in_flight.insert(uid, self.forgotten + self.happened.len() as u64);
        Some(waiting)
    }

    /// The pod is no longer being tried.
    pub fn done(&mut self, uid: &str) {
        if self.in_flight.remove(uid).is_none() {
            return;
        }
        let needed = self.in_flight.values().copied().min().unwrap_or(u64::MAX);
        while self.forgotten < needed && self.happened.pop_front().is_some() {
            self.forgotten += 1;
        }
    }

    /// When the next pod becomes active by itself; none if none will.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        let backoffs = self.backoff.iter().filter_map(|queue| queue.keys().next().map(|(until, _)| *until));
        let flush = self.unschedulable.first().map(|(since, _)| *since + self.waits.max_unschedulable);
        backoffs.chain(flush).min()
    }

    /// How many pods wait: active, backing off, unschedulable, gated.
    #[must_use]
    pub fn lengths(&self) -> [usize; 4] {
        let unschedulable = self.unschedulable.len() - self.gated.min(self.unschedulable.len());
        let backoff = self.backoff.iter().map(BTreeMap::len).sum();
        [self.active.len(), backoff, unschedulable, self.gated]
    }

    /// How many events are kept for the pods being tried.
    #[must_use]
    pub fn kept_events(&self) -> usize {
        self.happened.len()
    }

    /// Backoffs that are over, and pods that waited long enough.
    fn wake(&mut self, now: Instant) {
        for which in 0..2 {
            while let Some(entry) = self.backoff[which].first_entry() {
                if entry.key().0 > now {
                    break;
                }
                let uid = entry.remove();
                if let Some(entry) = self.pods.remove(&uid) {
                    self.enter_active(entry.waiting, "BackoffComplete", now);
                }
            }
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned() {
            if since + self.waits.max_unschedulable > now {
                break;
            }
            let Some(mut waiting) = self.take_unschedulable(&uid) else { break };
            waiting.flushed = true;
            if waiting.gated_by.is_some() {
                // It starts to wait anew, lest it be looked at again and again.
                waiting.since = now;
            }
            self.requeue(waiting, events::Strategy::AfterBackoff, "UnschedulableTimeout", now);
        }
    }

    /// Puts the pod among the active ones unless a plugin holds it back; whether it is active now.
    fn activate(&mut self, mut waiting: Waiting, event: &str, now: Instant) -> bool {
        match self.pre_enqueue(&waiting.pod) {
            Ok(()) => {
                waiting.gated_by = None;
                self.enter_active(waiting, event, now);
                true
            }
            Err(rejection) => {
                self.gate(waiting, &rejection, event);
                false
            }
        }
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        self.profiles.of(&pod.pod).map_or(Ok(()), |framework| framework.run_pre_enqueue(pod))
    }

    fn gate(&mut self, mut waiting: Waiting, rejection: &Rejection, event: &str) {
        waiting.gated_by = Some(rejection.plugin);
        if waiting.plugins.insert(rejection.plugin) {
            measure::refused(rejection.plugin, wanted(&waiting.pod.pod), 1.0);
        }
        self.enter_unschedulable(waiting, event);
    }

    fn enter_active(&mut self, mut waiting: Waiting, event: &str, now: Instant) {
        measure::incoming("active", event);
        waiting.first_attempt.get_or_insert(now);
        self.reenter_active(waiting);
    }

    fn reenter_active(&mut self, waiting: Waiting) {
        let uid = waiting.pod.uid().to_owned();
        self.active.insert(waiting.rank(), uid.clone());
        self.pods.insert(uid, Entry { waiting, place: Place::Active });
    }

    fn enter_backoff(&mut self, mut waiting: Waiting, until: Instant, event: &str) {
        match self.pre_enqueue(&waiting.pod) {
            Ok(()) => waiting.gated_by = None,
            Err(rejection) => return self.gate(waiting, &rejection, event),
        }
        measure::incoming("backoff", event);
        waiting.backs_off_until = Some(until);
        self.reenter_backoff(waiting);
    }

    fn reenter_backoff(&mut self, waiting: Waiting) {
        let Some(until) = waiting.backs_off_until else { return };
        let after_error = waiting.plugins.is_empty() && waiting.pending.is_empty();
        let uid = waiting.pod.uid().to_owned();
        self.backoff[usize::from(after_error)].insert((until, waiting.rank()), uid.clone());
        self.pods.insert(uid, Entry { waiting, place: Place::Backoff(after_error) });
    }

    fn enter_unschedulable(&mut self, waiting: Waiting, event: &str) {
        measure::incoming(if waiting.gated_by.is_some() { "gated" } else { "unschedulable" }, event);
        self.reenter_unschedulable(waiting);
    }

    fn reenter_unschedulable(&mut self, waiting: Waiting) {
        let uid = waiting.pod.uid().to_owned();
        for plugin in waiting.refused_by() {
            self.refused_by.entry(plugin).or_default().insert(uid.clone());
        }
        self.gated += usize::from(waiting.gated_by.is_some());
        self.unschedulable.insert((waiting.since, uid.clone()));
        self.pods.insert(uid, Entry { waiting, place: Place::Unschedulable });
    }

    fn take_unschedulable(&mut self, uid: &str) -> Option<Waiting> {
        self.pods.get(uid).filter(|entry| entry.place == Place::Unschedulable)?;
        let waiting = self.pods.remove(uid)?.waiting;
        self.unschedulable.remove(&(waiting.since, uid.to_owned()));
        self.gated -= usize::from(waiting.gated_by.is_some()).min(self.gated);
        for plugin in waiting.refused_by() {
            if let Some(uids) = self.refused_by.get_mut(plugin) {
                uids.remove(uid);
            }
        }
        Some(waiting)
    }

    fn remove_entry(&mut self, uid: &str) -> Option<Waiting> {
        match self.pods.get(uid)?.place {
            Place::Unschedulable => return self.take_unschedulable(uid),
            Place::Active => drop(self.active.remove(&self.pods.get(uid)?.waiting.rank())),
            Place::Backoff(after_error) => {
                let waiting = &self.pods.get(uid)?.waiting;
                let key = (waiting.backs_off_until?, waiting.rank());
                self.backoff[usize::from(after_error)].remove(&key);
            }
        }
        Some(self.pods.remove(uid)?.waiting)
    }
}
