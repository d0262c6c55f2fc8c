//! Whether a node still beats.
//!
//! A beat is a change that is seen here: of the heartbeat in the Ready condition, or of the Lease. Clocks of nodes
//! are not trusted, so only the time of seeing counts.

use super::time;
use crate::common::conditions;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use std::time::Duration;

/// When a node was last seen to beat.
#[derive(Clone, Debug, Default)]
pub struct Health {
    seen: Option<Timestamp>,
    heartbeat: Option<Time>,
    renewed: Option<MicroTime>,
}

/// How long silence may last.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// For a node that has reported.
    pub running: Duration,
    /// For one that has not.
    pub starting: Duration,
}

/// What silence means.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It is not too long yet.
    Beats {
        /// When it may be.
        look_after: Duration,
    },
    /// It is, and the node's status says so.
    Known,
    /// It is, and this is the status to write.
    Silent(Box<Node>),
}

impl Health {
    /// A state of the node was seen.
    pub fn observe_node(&mut self, node: &Node, now: Timestamp) {
        let Some(ready) = ready(node) else {
            self.seen = self.seen.or_else(|| node.metadata.creation_timestamp.as_ref().map(|time| time.0));
            return;
        };
        if self.seen.is_none() || self.heartbeat != ready.last_heartbeat_time {
            self.seen = Some(now);
            self.heartbeat.clone_from(&ready.last_heartbeat_time);
        }
    }

    /// A state of the node's Lease was seen. Unlike for upstream's `tryUpdateNodeHealth`, one that is renewed at an
    /// earlier time is a beat, too: the node's clock was set back, and that is no silence.
    pub fn observe_lease(&mut self, lease: &Lease, now: Timestamp) {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if renewed.is_some() && renewed != self.renewed {
            self.renewed = renewed;
            self.seen = Some(now);
        }
    }

    /// Counts silence from now on.
    pub fn restart(&mut self, now: Timestamp) {
        self.seen = Some(now);
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    conditions::find(node.status.as_ref()?.conditions.as_deref()?, "Ready")
}

/// Decides.
pub fn judge(node: &Node, health: &Health, grace: Grace, now: Timestamp) -> Verdict {
    let grace = if ready(node).is_some() { grace.running } else { grace.starting };
    let silent = now.as_millisecond() - health.seen.unwrap_or(now).as_millisecond();
    let silent = Duration::from_millis(u64::try_from(silent).unwrap_or(0));
    if silent <= grace {
        return Verdict::Beats { look_after: grace - silent + Duration::from_millis(1) };
    }
    let mut changed = node.clone();
    let list = changed.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match list.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = time(now);
            }
            Some(_) => {}
            None => list.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: time(now),
            }),
        }
    }
    if changed == *node { Verdict::Known } else { Verdict::Silent(Box::new(changed)) }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::common::pods::tests::at;
    use k8s_openapi::api::core::v1::NodeStatus;

    const GRACE: Grace = Grace { running: Duration::from_secs(50), starting: Duration::from_secs(60) };

    /// A node whose Ready condition has this status, or that has none.
    pub fn node(name: &str, ready: Option<&str>) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        node.metadata.creation_timestamp = Some(Time(at(0)));
        let condition = |status: &str| NodeCondition {
            type_: "Ready".into(),
            status: status.into(),
            last_heartbeat_time: Some(Time(at(0))),
            ..Default::default()
        };
        node.status = Some(NodeStatus {
            conditions: ready.map(|status| vec![condition(status)]),
            ..Default::default()
        });
        node
    }

    #[test]
    fn silence_beyond_the_grace_makes_conditions_unknown() {
        let node = node("n", Some("True"));
        let mut health = Health::default();
        health.observe_node(&node, at(100));
        assert!(matches!(judge(&node, &health, GRACE, at(150)), Verdict::Beats { .. }));
        let Verdict::Silent(changed) = judge(&node, &health, GRACE, at(151)) else { panic!("it is silent") };
        assert_eq!(crate::common::nodes::condition(&changed, "Ready"), Some("Unknown"));
        assert_eq!(changed.status.as_ref().and_then(|s| s.conditions.as_ref()).map(Vec::len), Some(4));
        assert_eq!(judge(&changed, &health, GRACE, at(152)), Verdict::Known);
    }

    #[test]
    fn lease_counts_as_a_beat_and_an_unchanged_one_does_not() {
        let node = node("n", Some("True"));
        let mut health = Health::default();
        health.observe_node(&node, at(100));
        let mut lease = Lease::default();
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(at(7)));
        health.observe_lease(&lease, at(140));
        assert!(matches!(judge(&node, &health, GRACE, at(190)), Verdict::Beats { .. }));
        health.observe_lease(&lease, at(185));
        assert!(matches!(judge(&node, &health, GRACE, at(191)), Verdict::Silent(_)));
    }

    #[test]
    fn node_whose_clock_is_set_back_still_beats() {
        let node = node("n", Some("True"));
        let mut health = Health::default();
        health.observe_node(&node, at(10_000));
        let mut lease = Lease::default();
        for (renewed, now) in [(10_000, 10_000), (6_400, 10_040), (6_410, 10_080)] {
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(at(renewed)));
            health.observe_lease(&lease, at(now));
            let verdict = judge(&node, &health, GRACE, at(now + 50));
            assert!(matches!(verdict, Verdict::Beats { .. }), "renewed at {renewed}");
        }
    }

    #[test]
    fn starting_node_has_longer() {
        let node = node("n", None);
        let mut health = Health::default();
        health.observe_node(&node, at(10));
        assert!(matches!(judge(&node, &health, GRACE, at(60)), Verdict::Beats { .. }));
        let Verdict::Silent(changed) = judge(&node, &health, GRACE, at(61)) else { panic!("it is silent") };
        let ready = ready(&changed).expect("it was added");
        assert_eq!(ready.reason.as_deref(), Some("NodeStatusNeverUpdated"));
    }
}
