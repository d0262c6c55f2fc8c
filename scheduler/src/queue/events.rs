//! How pods come back: after they failed, when they change, and when something happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::{Place, Queue, Waiting};
use crate::framework::{ClusterEvent, Diagnosis, Resource, events};
use crate::pod_info::PodInfo;

/// What to do with a pod that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strategy {
    /// It goes on waiting.
    Skip,
    /// It is tried when its backoff is over.
    AfterBackoff,
    /// What it waited for is there: it is tried at once.
    Immediately,
}

impl Queue {
    /// A pod that was tried comes back: refused, as the diagnosis says, or because something went wrong.
    pub fn give_back(&mut self, mut waiting: Waiting, diagnosis: Option<&Diagnosis>, now: Instant) {
        let uid = waiting.pod.uid().to_owned();
        if self.pods.contains_key(&uid) {
            return self.done(&uid);
        }
        waiting.plugins = diagnosis.map(|d| d.plugins.clone()).unwrap_or_default();
        waiting.pending = diagnosis.map(|d| d.pending.clone()).unwrap_or_default();
        let refused = !waiting.plugins.is_empty() || !waiting.pending.is_empty();
        if refused {
            waiting.refusals += 1;
            waiting.errors = 0;
        } else {
            waiting.errors += 1;
        }
        waiting.since = now;
        waiting.backs_off_until = None;
        waiting.flushed = false;
        waiting.measure(1.0);
        let strategy = if refused { self.missed(&waiting) } else { Strategy::AfterBackoff };
        self.requeue(waiting, strategy, "ScheduleAttemptFailure", now);
        self.done(&uid);
    }

    /// What the events that happened while the pod was tried mean to it.
    fn missed(&self, waiting: &Waiting) -> Strategy {
        let Some(seen) = self.in_flight.get(waiting.pod.uid()) else { return Strategy::AfterBackoff };
        let from = usize::try_from(seen - self.forgotten.min(*seen)).unwrap_or(usize::MAX);
        let missed = self.happened.iter().skip(from);
        missed.map(|event| self.strategy(waiting, event)).max().unwrap_or(Strategy::Skip)
    }

    /// Something happened. Pods that are tried meanwhile will hear of it.
    pub fn happened(&mut self, event: ClusterEvent, now: Instant) {
        self.happened_to(event, |_| true, now);
    }

    /// As [`Queue::happened`], for some of the unschedulable pods only.
    pub fn happened_to(&mut self, event: ClusterEvent, to: impl Fn(&PodInfo) -> bool, now: Instant) {
        let plugins = if event.resource == Resource::All {
            self.refused_by.keys().copied().collect()
        } else {
            self.profiles.asked_for(&event)
        };
        if plugins.is_empty() {
            return;
        }
        let event = Arc::new(event);
        if !self.in_flight.is_empty() {
            self.happened.push_back(event.clone());
        }
        let refused = plugins.iter().filter_map(|plugin| self.refused_by.get(plugin)).flatten();
        let uids: BTreeSet<_> = refused.cloned().collect();
        for uid in uids {
            let Some(entry) = self.pods.get(&uid).filter(|entry| to(&entry.waiting.pod)) else { continue };
            if entry.waiting.gated_by.is_some_and(|gate| !plugins.contains(&gate)) {
                continue;
            }
            let strategy = self.strategy(&entry.waiting, &event);
            if strategy > Strategy::Skip
                && let Some(waiting) = self.take_unschedulable(&uid)
            {
                self.requeue(waiting, strategy, &event.label(), now);
            }
        }
    }

    /// Asks the plugins that refused the pod what the event means to it.
    fn strategy(&self, waiting: &Waiting, event: &ClusterEvent) -> Strategy {
        if event.resource == Resource::All {
            let (_, target) = event.pods();
            let other = target.is_some_and(|pod| crate::pod_info::uid(pod) != waiting.pod.uid());
            return if other { Strategy::Skip } else { Strategy::AfterBackoff };
        }
        let Some(framework) = self.profiles.of(&waiting.pod.pod) else { return Strategy::AfterBackoff };
        let asked = self.profiles.asked_for(event);
        let mut strategy = Strategy::Skip;
        for plugin in waiting.refused_by().into_iter().filter(|plugin| asked.contains(plugin)) {
            let worth = framework.plugin(plugin).is_none_or(|p| p.is_worth_retrying(&waiting.pod, event));
            if worth {
                let pending = waiting.pending.contains(plugin);
                strategy = strategy.max(if pending { Strategy::Immediately } else { Strategy::AfterBackoff });
            }
        }
        strategy
    }

    pub(super) fn requeue(&mut self, waiting: Waiting, strategy: Strategy, event: &str, now: Instant) {
        match strategy {
            Strategy::Skip => self.enter_unschedulable(waiting, event),
            Strategy::AfterBackoff if self.backs_off_until(&waiting).is_some_and(|until| until > now) => {
                let until = self.backs_off_until(&waiting).unwrap_or(now);
                self.enter_backoff(waiting, until, event);
            }
            Strategy::AfterBackoff | Strategy::Immediately => drop(self.activate(waiting, event, now)),
        }
    }

    fn backs_off_until(&self, waiting: &Waiting) -> Option<Instant> {
        let times = if waiting.errors > 0 { waiting.errors } else { waiting.refusals };
        (times > 0).then(|| waiting.since + self.backoff_after(times))
    }

    fn backoff_after(&self, times: u32) -> Duration {
        let factor = 2_u32.saturating_pow(times.saturating_sub(1));
        self.waits.initial_backoff.saturating_mul(factor).min(self.waits.max_backoff)
    }

    /// A waiting pod changed.
    pub fn update(&mut self, old: &Arc<Pod>, new: Arc<PodInfo>, now: Instant) {
        let uid = new.uid().to_owned();
        let changes = || {
            let object = |pod: &Arc<Pod>| Some(events::Object::Pod(pod.clone()));
            let event =
                |action| ClusterEvent::new(Resource::UnscheduledPod, action, object(old), object(&new.pod));
            events::pod_changes(old, &new.pod).into_iter().map(event).collect::<Vec<_>>()
        };
        if self.in_flight.contains_key(&uid) {
            // It comes back in its newest state; until then the change is an event like others.
            let changes = changes().into_iter().filter(|event| !self.profiles.asked_for(event).is_empty());
            let changes: Vec<_> = changes.map(Arc::new).collect();
            self.happened.extend(changes);
            return;
        }
        let Some(place) = self.pods.get(&uid).map(|entry| entry.place) else {
            return self.add(new, now);
        };
        self.nominator.update(old, &new);
        if place != Place::Unschedulable {
            if let Some(mut waiting) = self.remove_entry(&uid) {
                waiting.pod = new;
                match place {
                    Place::Active => self.reenter_active(waiting),
                    _ => self.reenter_backoff(waiting),
                }
            }
            return;
        }
        let Some(mut waiting) = self.take_unschedulable(&uid) else { return };
        let changes = changes();
        waiting.pod = new.clone();
        let strategies = changes.iter().map(|event| (self.strategy(&waiting, event), event.label()));
        match strategies.max_by_key(|(strategy, _)| *strategy) {
            None | Some((Strategy::Skip, _)) => self.reenter_unschedulable(waiting),
            Some((strategy, label)) => self.requeue(waiting, strategy, &label, now),
        }
    }

    /// Tries the pod without delay; if it is being tried now, once more.
    pub fn activate_pod(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        if self.in_flight.contains_key(pod.uid()) {
            let mut event = ClusterEvent::everything("ForceActivate");
            event.new = Some(events::Object::Pod(pod.pod.clone()));
            self.happened.push_back(Arc::new(event));
            return;
        }
        let waits = self.pods.get(pod.uid()).is_some_and(|entry| entry.place != Place::Active);
        if let Some(waiting) = self.remove_entry(pod.uid()).filter(|_| waits) {
            self.activate(waiting, "ForceActivate", now);
        }
    }
}
