//! What simulated nodes are, and when they report. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubelet::node_status::machine::Machine;
use kubelet::node_status::setters::{Facts, set_status};
use kubelet::node_status::{Registration, initial_node, status_patch};
use serde_json::{Value, json};

/// The label of every simulated node; its value is the prefix of its name.
pub const LABEL: &str = "coxswain.io/simulated";
const ZONE: &str = "topology.kubernetes.io/zone";
/// As many nodes as there are ranges of pod addresses for nodes that are given none.
pub const MOST_NODES: u32 = 1 << 14;
/// Where nodes have their addresses: set aside for benchmarks (RFC 2544), so no real machine is meant by them.
const NODE_ADDRESSES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The names of the nodes of one simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What all begin with.
    pub prefix: String,
    /// How many there are.
    pub count: u32,
}

impl Names {
    /// The name of the node with this number.
    #[must_use]
    pub fn name(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// The number of the node of this name, if it is one of these.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        let digits = name.strip_prefix(&self.prefix)?.strip_prefix('-')?;
        let number: u32 = digits.parse().ok().filter(|number| *number < self.count)?;
        // Not 007, nor +7.
        (number.to_string() == digits).then_some(number)
    }

    /// The label selector of these nodes.
    #[must_use]
    pub fn selector(&self) -> String {
        format!("{LABEL}={}", self.prefix)
    }
}

/// What each node is.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// CPUs.
    pub cpu: u32,
    /// Memory in bytes.
    pub memory: i64,
    /// Disk in bytes.
    pub ephemeral_storage: i64,
    /// Most pods.
    pub max_pods: u16,
    /// Further resources.
    pub resources: BTreeMap<String, Quantity>,
    /// Labels beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Over how many zones the nodes are spread; none if zero.
    pub zones: u32,
    /// Taints.
    pub taints: Vec<Taint>,
}

impl Shape {
    /// The node with this number, as it registers.
    #[must_use]
    pub fn node(&self, names: &Names, number: u32, now: Timestamp) -> Node {
        let mut labels = self.labels.clone();
        labels.insert(LABEL.to_owned(), names.prefix.clone());
        if self.zones > 0 {
            labels.entry(ZONE.to_owned()).or_insert_with(|| format!("zone-{}", number % self.zones));
        }
        let name = names.name(number);
        let mut node = initial_node(&Registration {
            hostname: name.clone(),
            name,
            labels,
            taints: self.taints.clone(),
            ..Registration::default()
        });
        // What the kubelet does not know of itself it leaves to others: here they are device plugins.
        node.status = Some(NodeStatus { capacity: Some(self.resources.clone()), ..NodeStatus::default() });
        set_status(&mut node, &self.facts(names, number), now);
        node
    }

    fn facts(&self, names: &Names, number: u32) -> Facts {
        let name = names.name(number);
        Facts {
            machine: Machine {
                cores: i64::from(self.cpu),
                memory: self.memory,
                machine_id: name.clone(),
                system_uuid: name.clone(),
                boot_id: name.clone(),
                kernel_version: "simulated".to_owned(),
                os_image: "simulated".to_owned(),
                ..Machine::default()
            },
            ephemeral_storage: u64::try_from(self.ephemeral_storage).unwrap_or_default(),
            max_pods: i32::from(self.max_pods),
            addresses: vec![address(number)],
            hostname: name,
            runtime_version: "simulated://0".to_owned(),
            ..Facts::default()
        }
    }

    /// The patch of a node's status that says everything, conditions as they follow from those it has.
    #[must_use]
    pub fn full_report(&self, names: &Names, number: u32, before: &[NodeCondition], now: Timestamp) -> Value {
        let mut node = self.node(names, number, now);
        let status = node.status.get_or_insert_default();
        status.conditions = Some(before.to_vec());
        set_status(&mut node, &self.facts(names, number), now);
        status_patch(&node.status.unwrap_or_default())
    }

    /// The patch of the status of a node whose resources somebody else changed: it offers what it has, as a kubelet
    /// does.
    #[must_use]
    pub fn offer(&self, names: &Names, number: u32, mut node: Node, now: Timestamp) -> Value {
        let before = node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
        set_status(&mut node, &self.facts(names, number), now);
        let mut patch = status_patch(&node.status.unwrap_or_default());
        let offered = &mut patch["status"]["allocatable"];
        for name in before.keys() {
            if offered.get(name).is_none() {
                offered[name] = Value::Null;
            }
        }
        patch
    }

    /// The patch of a node's status that says that the node is well. What else the status holds does not change.
    #[must_use]
    pub fn heartbeat(&self, names: &Names, number: u32, before: &[NodeCondition], now: Timestamp) -> Value {
        let patch = self.full_report(names, number, before, now);
        json!({ "status": { "conditions": patch["status"]["conditions"] } })
    }
}

/// The address of the node with this number.
#[must_use]
pub fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(NODE_ADDRESSES) + number).into()
}

/// Whether a node's conditions say that it is well: what a kubelet says otherwise was said by somebody else, who had
/// not heard of it for too long.
#[must_use]
pub fn is_well(conditions: &[NodeCondition]) -> bool {
    let known = conditions.iter().filter(|c| c.status != "Unknown").count();
    known == conditions.len() && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// How long until the next of the times that come every `interval`, for one of `count` nodes whose times are spread
/// evenly over it; `elapsed` is counted from a start that they have in common.
#[must_use]
pub fn until_next(number: u32, count: u32, interval: Duration, elapsed: Duration) -> Duration {
    let interval = interval.as_nanos().max(1);
    let place = interval * u128::from(number) / u128::from(count.max(1));
    let since_last = (elapsed.as_nanos() + interval - place % interval) % interval;
    Duration::from_nanos(u64::try_from(interval - since_last).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { prefix: "sim".to_owned(), count: 10 }
    }

    fn shape() -> Shape {
        Shape {
            cpu: 4,
            memory: 8 << 30,
            ephemeral_storage: 100 << 30,
            max_pods: 20,
            resources: BTreeMap::from([("example.com/gpu".to_owned(), Quantity("2".to_owned()))]),
            labels: BTreeMap::from([("pool".to_owned(), "big".to_owned())]),
            zones: 3,
            taints: vec![Taint { key: "k".into(), effect: "NoSchedule".into(), ..Taint::default() }],
        }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn names_are_read_back() {
        for (name, number) in [
            ("sim-0", Some(0)),
            ("sim-9", Some(9)),
            ("sim-10", None),
            ("sim-07", None),
            ("sim-", None),
            ("sim", None),
            ("other-1", None),
            ("sim--1", None),
            ("simsim-1", None),
        ] {
            assert_eq!(names().number(name), number, "{name}");
        }
        assert!((0..10).all(|number| names().number(&names().name(number)) == Some(number)));
    }

    #[test]
    fn a_node_says_what_it_is() {
        let node = shape().node(&names(), 5, time("2026-01-01T00:00:00Z"));
        let labels = node.metadata.labels.expect("labels");
        for (key, value) in [
            ("kubernetes.io/hostname", "sim-5"),
            ("kubernetes.io/os", "linux"),
            ("topology.kubernetes.io/zone", "zone-2"),
            ("coxswain.io/simulated", "sim"),
            ("pool", "big"),
        ] {
            assert_eq!(labels[key], value, "{key}");
        }
        assert_eq!(node.spec.and_then(|s| s.taints).map(|t| t.len()), Some(1));
        let status = node.status.expect("a status");
        for amounts in [status.capacity.expect("capacity"), status.allocatable.expect("allocatable")] {
            let shown = ["cpu", "memory", "pods", "example.com/gpu"].map(|name| amounts[name].0.clone());
            assert_eq!(shown, ["4", "8388608Ki", "20", "2"]);
        }
        assert!(is_well(&status.conditions.expect("conditions")));
        let addresses: Vec<_> = status.addresses.into_iter().flatten().map(|a| a.address).collect();
        assert_eq!(addresses, ["198.18.0.6", "sim-5"]);
    }

    #[test]
    fn a_node_offers_what_others_say_that_it_has() {
        let now = time("2026-01-01T00:00:00Z");
        let mut node = shape().node(&names(), 0, now);
        let status = node.status.get_or_insert_default();
        status
            .capacity
            .get_or_insert_default()
            .insert("example.com/fake".to_owned(), Quantity("10".to_owned()));
        status
            .allocatable
            .get_or_insert_default()
            .insert("example.com/gone".to_owned(), Quantity("1".to_owned()));
        let offered = shape().offer(&names(), 0, node, now)["status"]["allocatable"].clone();
        assert_eq!(offered["example.com/fake"], "10");
        assert_eq!(offered["example.com/gone"], Value::Null);
        assert_eq!(offered["example.com/gpu"], "2");
    }

    #[test]
    fn a_heartbeat_keeps_when_things_began_and_contradicts_who_says_otherwise() {
        let (first, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:05:00Z"));
        let mut conditions =
            shape().node(&names(), 0, first).status.and_then(|s| s.conditions).expect("conditions");
        let ready = |patch: &Value| {
            let all = patch["status"]["conditions"].as_array().expect("conditions").clone();
            all.into_iter().find(|c| c["type"] == "Ready").expect("Ready")
        };
        let beat = shape().heartbeat(&names(), 0, &conditions, later);
        assert_eq!(beat["status"].as_object().expect("an object").len(), 1, "nothing else is said: {beat}");
        assert_eq!(ready(&beat)["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(ready(&beat)["lastHeartbeatTime"], "2026-01-01T00:05:00Z");
        for condition in &mut conditions {
            condition.status = "Unknown".to_owned();
        }
        assert!(!is_well(&conditions));
        let beat = shape().heartbeat(&names(), 0, &conditions, later);
        assert_eq!(ready(&beat)["status"], "True");
        assert_eq!(ready(&beat)["lastTransitionTime"], "2026-01-01T00:05:00Z");
    }

    #[test]
    fn nodes_take_turns() {
        let seconds = Duration::from_secs;
        // number of ten, elapsed, until the next
        for (number, elapsed, expected) in
            [(0, 0, 10), (1, 0, 1), (9, 0, 9), (1, 1, 10), (1, 2, 9), (0, 25, 5)]
        {
            let next = until_next(number, 10, seconds(10), seconds(elapsed));
            assert_eq!(next, seconds(expected), "node {number} after {elapsed} s");
        }
        // In any second of an interval one of ten nodes has its turn.
        let turns: std::collections::BTreeSet<_> =
            (0..10).map(|number| until_next(number, 10, seconds(10), seconds(3))).collect();
        assert_eq!(turns.len(), 10);
    }
}
