//! How fast nodes are given up: slowly when many of a zone fail, not at all when all of all zones do.

use super::taints::{self, Evict};
use crate::common::{meta, nodes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Rates and bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes per second.
    pub rate: f32,
    /// Nodes per second in a large zone of which many fail.
    pub secondary_rate: f32,
    /// Up to this size, a zone of which many fail loses none.
    pub large_cluster: usize,
    /// From this part on, many fail.
    pub unhealthy: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    Partial,
    Full,
}

#[derive(Debug)]
struct Zone {
    state: State,
    size: usize,
    next: Option<Timestamp>,
}

/// All zones.
pub struct Zones {
    limits: Limits,
    zones: HashMap<String, Zone>,
    all_down: bool,
    recovered: bool,
}

/// Whether a node may be given up now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Permit {
    /// It may, or there is nothing to permit.
    Granted,
    /// Not before this time.
    Wait(Duration),
    /// Not while the zone is as it is.
    Refused,
    /// Everything is down.
    AllDown,
}

impl Permit {
    /// What that means for taints.
    pub fn evict(self) -> Evict {
        match self {
            Self::Granted => Evict::Yes,
            Self::Wait(_) | Self::Refused => Evict::Later,
            Self::AllDown => Evict::Never,
        }
    }

    /// When to ask again.
    pub fn wait(self) -> Option<Duration> {
        match self {
            Self::Wait(wait) => Some(wait),
            _ => None,
        }
    }
}

fn key(node: &Node) -> String {
    let label = |name| meta::label(&node.metadata, name).unwrap_or_default();
    format!("{}:\0:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

impl Zones {
    /// Nothing is known yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, zones: HashMap::new(), all_down: false, recovered: false }
    }

    /// Looks at all nodes. `true` when the rules change for all of them.
    pub fn update(&mut self, all: &[Arc<Node>]) -> bool {
        let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
        for node in all {
            if meta::label(&node.metadata, "node.kubernetes.io/exclude-disruption").is_some() {
                continue;
            }
            let (ready, total) = counts.entry(key(node)).or_default();
            *ready += usize::from(nodes::condition(node, "Ready") == Some("True"));
            *total += 1;
        }
        self.zones.retain(|zone, _| counts.contains_key(zone));
        let mut changed = false;
        for (zone, (ready, total)) in counts {
            let state = self.state(ready, total);
            let known =
                self.zones.entry(zone).or_insert(Zone { state: State::Normal, size: total, next: None });
            changed |= known.state != state;
            known.state = state;
            known.size = total;
        }
        let all_down = !self.zones.is_empty() && self.zones.values().all(|zone| zone.state == State::Full);
        self.recovered = self.all_down && !all_down;
        changed |= self.all_down != all_down;
        self.all_down = all_down;
        changed
    }

    /// Whether the last update found the first node ready again after all were down.
    pub fn recovered(&self) -> bool {
        self.recovered
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of nodes are small")]
    fn state(&self, ready: usize, total: usize) -> State {
        let unready = total - ready;
        if ready == 0 && unready > 0 {
            State::Full
        } else if unready > 2 && unready as f32 / total as f32 >= self.limits.unhealthy {
            State::Partial
        } else {
            State::Normal
        }
    }

    /// Asks for a permit to give up the node; a granted one delays the next of the zone.
    pub fn permit(&mut self, node: &Node, now: Timestamp) -> Permit {
        if self.all_down {
            return Permit::AllDown;
        }
        if !taints::wants_eviction(node) {
            return Permit::Granted;
        }
        let limits = self.limits;
        let zone = self.zones.entry(key(node)).or_insert(Zone { state: State::Normal, size: 1, next: None });
        let rate = match zone.state {
            State::Normal | State::Full => limits.rate,
            State::Partial if zone.size > limits.large_cluster => limits.secondary_rate,
            State::Partial => 0.0,
        };
        if rate <= 0.0 {
            return Permit::Refused;
        }
        if let Some(next) = zone.next.filter(|next| *next > now) {
            let wait = next.as_millisecond() - now.as_millisecond();
            return Permit::Wait(Duration::from_millis(u64::try_from(wait).unwrap_or(0) + 1));
        }
        zone.next = now.checked_add(Duration::from_secs_f32(1.0 / rate)).ok();
        Permit::Granted
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::tests::node;
    use super::*;
    use crate::common::pods::tests::at;

    const LIMITS: Limits = Limits { rate: 0.1, secondary_rate: 0.01, large_cluster: 5, unhealthy: 0.55 };

    fn cluster(ready: usize, unready: usize) -> Vec<Arc<Node>> {
        let named =
            |status: &'static str| move |i: usize| Arc::new(node(&format!("{status}{i}"), Some(status)));
        (0..ready).map(named("True")).chain((0..unready).map(named("Unknown"))).collect()
    }

    #[test]
    fn rate_depends_on_how_much_fails() {
        for (ready, unready, expected) in [
            (3, 1, vec![Permit::Granted, Permit::Wait(Duration::from_millis(10_001))]),
            (1, 4, vec![Permit::Refused]),
            (3, 6, vec![Permit::Granted, Permit::Wait(Duration::from_millis(100_001))]),
            (0, 3, vec![Permit::AllDown]),
        ] {
            let mut zones = Zones::new(LIMITS);
            zones.update(&cluster(ready, unready));
            for permit in expected {
                assert_eq!(
                    zones.permit(&node("x", Some("Unknown")), at(100)),
                    permit,
                    "{ready} of {unready}"
                );
            }
        }
    }

    #[test]
    fn change_of_the_rules_is_noticed_once() {
        let mut zones = Zones::new(LIMITS);
        assert!(!zones.update(&cluster(3, 0)));
        assert!(zones.update(&cluster(0, 3)));
        assert!(!zones.update(&cluster(0, 3)));
        assert!(zones.update(&cluster(1, 2)) && zones.recovered());
        assert!(!zones.update(&cluster(1, 2)) && !zones.recovered());
    }

    #[test]
    fn healthy_nodes_need_no_permit() {
        let mut zones = Zones::new(LIMITS);
        zones.update(&cluster(1, 4));
        assert_eq!(zones.permit(&node("x", Some("True")), at(1)), Permit::Granted);
    }
}
