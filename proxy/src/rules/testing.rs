//! What tests of both modes share: a service, its endpoints, packets, and a table of where each must end. Whatever is in
//! the table holds in either mode and in either address family.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::Settings;
use crate::local::{Local, NodePorts};
use crate::model::{self, Family, Place, PortName, ServicePort, range_has};

/// A node of a cluster with one range of pods.
#[must_use]
pub fn settings() -> Settings {
    settings_in(Family::V4)
}

/// The same in a family.
#[must_use]
pub fn settings_in(family: Family) -> Settings {
    Settings {
        family,
        place: Place {
            node: "n1".into(),
            addresses: vec![in_family(family, NODE).parse().expect("an address")],
            ..Place::default()
        },
        local: Local::From(in_family(family, "10.244.0.0/16")),
        node_ports: NodePorts::Everywhere,
        masquerade_all: false,
        mark: 0x4000,
        localhost_node_ports: true,
        liberal: false,
    }
}

/// The service `ns/web`.
#[must_use]
pub fn service(spec: &Value) -> Arc<Service> {
    service_with(spec, &json!({}))
}

fn service_with(spec: &Value, status: &Value) -> Arc<Service> {
    let object = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec, "status": status});
    Arc::new(serde_json::from_value(object).expect("a service"))
}

/// An endpoint: address, node, and state: `ready`, `draining` or `down`.
pub type EndpointAt = (&'static str, &'static str, &'static str);

/// A slice of it.
#[must_use]
pub fn slice(port: u16, endpoints: &[EndpointAt]) -> Arc<EndpointSlice> {
    slice_in(Family::V4, port, endpoints)
}

fn slice_in(family: Family, port: u16, endpoints: &[EndpointAt]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node, state)| {
            json!({"addresses": [in_family(family, ip)], "nodeName": node, "conditions":
                   {"ready": *state == "ready", "serving": *state != "down", "terminating": *state == "draining"}})
        })
        .collect();
    let kind = if family == Family::V4 { "IPv4" } else { "IPv6" };
    let object = json!({"metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
                        "addressType": kind, "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                        "endpoints": endpoints});
    Arc::new(serde_json::from_value(object).expect("a slice"))
}

/// The first packet of a connection.
pub struct Packet<'a> {
    /// Who sends it.
    pub from: &'a str,
    /// To whom.
    pub to: &'a str,
    /// To which port.
    pub port: u16,
}

/// A pod's address.
pub const POD: &str = "10.244.0.9";
/// An address outside of the cluster.
pub const OUTSIDE: &str = "198.51.100.7";
/// The node's address.
pub const NODE: &str = "192.0.2.1";
/// The address of the service.
pub const SERVICE: &str = "10.96.0.5";
const BALANCER: &str = "192.0.2.60";
const OTHER_BALANCER: &str = "192.0.2.61";
const FRIEND: &str = "203.0.113.9";

/// The table's addresses, and what stands for them in IPv6.
const IN_V6: [(&str, &str); 16] = [
    ("10.244.0.0/16", "fd00:244::/32"),
    ("203.0.113.0/24", "2001:db8:113::/48"),
    ("192.0.2.1/32", "2001:db8::1/128"),
    ("10.244.0.5", "fd00:244::5"),
    ("10.244.0.9", "fd00:244::9"),
    ("10.244.1.6", "fd00:244:0:1::6"),
    ("10.244.1.7", "fd00:244:0:1::7"),
    ("10.96.0.5", "fd00:96::5"),
    ("198.51.100.7", "2001:db8:51::7"),
    ("203.0.113.9", "2001:db8:113::9"),
    ("192.0.2.1", "2001:db8::1"),
    ("192.0.2.50", "2001:db8::50"),
    ("192.0.2.60", "2001:db8::60"),
    ("192.0.2.61", "2001:db8::61"),
    ("192.0.2.2", "2001:db8::2"),
    ("10.244.0.6", "fd00:244::6"),
];

/// An address of the table, or a range, as a family has it.
fn in_family(family: Family, v4: &str) -> String {
    match family {
        Family::V4 => v4.to_owned(),
        Family::V6 => {
            let found = IN_V6.iter().find(|(known, _)| *known == v4);
            found.unwrap_or_else(|| panic!("{v4} has nothing that stands for it")).1.to_owned()
        }
    }
}

/// All addresses in a value.
fn value_in(family: Family, value: &Value) -> Value {
    match value {
        Value::String(text) if family == Family::V6 => {
            json!(IN_V6.iter().find(|(known, _)| known == text).map_or(text.as_str(), |(_, v6)| *v6))
        }
        Value::Array(list) => list.iter().map(|item| value_in(family, item)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, item)| (name.clone(), value_in(family, item))).collect()
        }
        other => other.clone(),
    }
}

/// `DNAT 10.244.0.5:8080 masq`, as a family has it.
fn outcome_in(family: Family, outcome: &str) -> String {
    let Some(place) = outcome.strip_prefix("DNAT ") else { return outcome.to_owned() };
    let (place, masquerade) = place.split_once(' ').map_or((place, ""), |(place, _)| (place, " masq"));
    let (ip, port) = place.split_once(':').expect("a port");
    destination(&in_family(family, ip), port) + masquerade
}

/// The outcome of a packet that goes to an endpoint.
#[must_use]
pub fn destination(ip: &str, port: &str) -> String {
    let (ip, port) = (ip.parse().expect("an address"), port.parse().expect("a port"));
    format!("DNAT {}", SocketAddr::new(ip, port))
}

/// Whether an address is in a range, or is the one that stands for it.
#[must_use]
pub fn in_range(address: &str, range: &str) -> bool {
    range_has(range, address.parse().expect("an address"))
}

/// Whether an address is this node's.
#[must_use]
pub fn is_local(address: &str) -> bool {
    let own = [Family::V4, Family::V6].map(|family| in_family(family, NODE));
    own.iter().any(|own| own == address) || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A service with a node port.
#[must_use]
pub fn node_port_spec() -> Value {
    json!({"type": "NodePort", "clusterIP": SERVICE, "clusterIPs": [SERVICE],
           "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]})
}

/// What else the service is, its endpoints, and where packets end: from, to, port, outcomes.
type Case =
    (&'static str, Value, Vec<EndpointAt>, Vec<(&'static str, &'static str, u16, &'static [&'static str])>);

const HERE: EndpointAt = ("10.244.0.5", "n1", "ready");
const THERE: EndpointAt = ("10.244.1.6", "n2", "ready");
const DOWN: EndpointAt = ("10.244.1.7", "n2", "down");
const TO_HERE: &str = "DNAT 10.244.0.5:8080";
const TO_THERE: &str = "DNAT 10.244.1.6:8080";
const TO_HERE_MASQ: &str = "DNAT 10.244.0.5:8080 masq";
const TO_THERE_MASQ: &str = "DNAT 10.244.1.6:8080 masq";

/// Shows every case of the table, in each family.
///
/// # Panics
/// A packet ends elsewhere.
pub fn check(outcomes: impl Fn(&Settings, &BTreeMap<PortName, ServicePort>, &Packet<'_>) -> Vec<String>) {
    let all = internal().into_iter().chain(external()).chain(balanced());
    for (what, changes, endpoints, packets) in all {
        for family in [Family::V4, Family::V6] {
            let settings = settings_in(family);
            let mut spec = node_port_spec();
            let mut status = json!({});
            for (field, value) in changes.as_object().expect("fields") {
                if field == "status" {
                    status = value_in(family, value);
                } else {
                    spec[field] = value.clone();
                }
            }
            let service = service_with(&value_in(family, &spec), &status);
            let slices = [slice_in(family, 8080, &endpoints)];
            let ports = model::build(family, &settings.place, &[service], &slices);
            for (from, to, port, expected) in &packets {
                let (from, to) = (in_family(family, from), in_family(family, to));
                let mut expected: Vec<_> = expected.iter().map(|e| outcome_in(family, e)).collect();
                expected.sort();
                let found = outcomes(&settings, &ports, &Packet { from: &from, to: &to, port: *port });
                assert_eq!(found, expected, "{what}: {from} -> {to}:{port}");
            }
        }
    }
}

/// Shows that node ports are on the addresses that were named, and on no others of the node.
///
/// # Panics
/// A packet ends elsewhere.
pub fn check_node_ports(
    outcomes: impl Fn(&Settings, &BTreeMap<PortName, ServicePort>, &Packet<'_>) -> Vec<String>,
) {
    for family in [Family::V4, Family::V6] {
        let own = in_family(family, NODE);
        let spec = value_in(family, &node_port_spec());
        for (endpoints, expected) in [(vec![HERE], TO_HERE_MASQ), (vec![], "REJECT")] {
            for (addresses, on) in [(vec![own.parse().expect("an address")], true), (vec![], false)] {
                let settings = Settings { node_ports: NodePorts::At(addresses), ..settings_in(family) };
                let slices = [slice_in(family, 8080, &endpoints)];
                let ports = model::build(family, &settings.place, &[service(&spec)], &slices);
                let from = in_family(family, OUTSIDE);
                let packet = Packet { from: &from, to: &own, port: 30080 };
                let found = outcomes(&settings, &ports, &packet);
                if expected == "REJECT" && !on {
                    // Whether what is on no port is refused is each mode's own.
                    continue;
                }
                let expected: Vec<_> = on.then(|| outcome_in(family, expected)).into_iter().collect();
                assert_eq!(found, expected, "{family:?}");
            }
        }
    }
}

/// By the cluster address.
fn internal() -> Vec<Case> {
    let local = || json!({"internalTrafficPolicy": "Local"});
    let draining = |(ip, node, _): EndpointAt| (ip, node, "draining");
    vec![
        (
            "every ready endpoint",
            json!({}),
            vec![HERE, THERE, DOWN],
            vec![
                (POD, SERVICE, 80, &[TO_HERE, TO_THERE]),
                (OUTSIDE, SERVICE, 80, &[TO_HERE_MASQ, TO_THERE_MASQ]),
                ("10.244.0.5", SERVICE, 80, &[TO_HERE_MASQ, TO_THERE]),
                (OUTSIDE, NODE, 30080, &[TO_HERE_MASQ, TO_THERE_MASQ]),
                (OUTSIDE, "192.0.2.2", 30080, &[]),
            ],
        ),
        (
            "no endpoint",
            json!({}),
            vec![DOWN],
            vec![(POD, SERVICE, 80, &["REJECT"]), (OUTSIDE, NODE, 30080, &["REJECT"])],
        ),
        (
            "draining endpoints are the last resort",
            json!({}),
            vec![draining(HERE), DOWN],
            vec![(POD, SERVICE, 80, &[TO_HERE])],
        ),
        (
            "draining ones are left alone while others are ready",
            json!({}),
            vec![draining(HERE), THERE],
            vec![(POD, SERVICE, 80, &[TO_THERE])],
        ),
        ("one here", local(), vec![HERE, THERE], vec![(POD, SERVICE, 80, &[TO_HERE])]),
        (
            "several here",
            local(),
            vec![HERE, ("10.244.0.6", "n1", "ready"), THERE],
            vec![(POD, SERVICE, 80, &[TO_HERE, "DNAT 10.244.0.6:8080"])],
        ),
        ("one here, draining", local(), vec![draining(HERE), THERE], vec![(POD, SERVICE, 80, &[TO_HERE])]),
        (
            "none here; node ports have a policy of their own",
            local(),
            vec![THERE],
            vec![(POD, SERVICE, 80, &["DROP"]), (OUTSIDE, NODE, 30080, &[TO_THERE_MASQ])],
        ),
        ("none anywhere", local(), vec![], vec![(POD, SERVICE, 80, &["REJECT"])]),
    ]
}

/// By a node port or an external address.
fn external() -> Vec<Case> {
    let local = || json!({"externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.50"]});
    vec![
        (
            "the source is kept, and what begins here goes anywhere",
            local(),
            vec![HERE, THERE],
            vec![
                (OUTSIDE, NODE, 30080, &[TO_HERE]),
                (OUTSIDE, "192.0.2.50", 80, &[TO_HERE]),
                (NODE, NODE, 30080, &[TO_HERE_MASQ, TO_THERE_MASQ]),
                (POD, NODE, 30080, &[TO_HERE, TO_THERE]),
            ],
        ),
        (
            "none here",
            local(),
            vec![THERE],
            vec![
                (OUTSIDE, NODE, 30080, &["DROP"]),
                (OUTSIDE, "192.0.2.50", 80, &["DROP"]),
                (NODE, NODE, 30080, &[TO_THERE_MASQ]),
                (POD, SERVICE, 80, &[TO_THERE]),
            ],
        ),
        (
            "none anywhere",
            local(),
            vec![],
            vec![(OUTSIDE, NODE, 30080, &["REJECT"]), (OUTSIDE, "192.0.2.50", 80, &["REJECT"])],
        ),
    ]
}

/// By a load balancer's address.
fn balanced() -> Vec<Case> {
    let balancer = |ranges: Value, policy: &str, mode: &str| {
        let ingress = [BALANCER, OTHER_BALANCER].map(|ip| json!({"ip": ip, "ipMode": mode}));
        json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges, "externalTrafficPolicy": policy,
               "externalIPs": ["192.0.2.50"], "status": {"loadBalancer": {"ingress": ingress}}})
    };
    let friends = || balancer(json!(["203.0.113.0/24"]), "Cluster", "VIP");
    let with_node = || balancer(json!(["203.0.113.0/24", "192.0.2.1/32"]), "Cluster", "VIP");
    vec![
        (
            "sources are guarded, by no other way",
            friends(),
            vec![HERE],
            vec![
                (FRIEND, BALANCER, 80, &[TO_HERE_MASQ]),
                (FRIEND, OTHER_BALANCER, 80, &[TO_HERE_MASQ]),
                (OUTSIDE, BALANCER, 80, &["DROP"]),
                (OUTSIDE, OTHER_BALANCER, 80, &["DROP"]),
                (POD, BALANCER, 80, &["DROP"]),
                (NODE, BALANCER, 80, &["DROP"]),
                (BALANCER, BALANCER, 80, &["DROP"]),
                (OUTSIDE, "192.0.2.50", 80, &[TO_HERE_MASQ]),
                (OUTSIDE, NODE, 30080, &[TO_HERE_MASQ]),
                (POD, SERVICE, 80, &[TO_HERE]),
            ],
        ),
        (
            "the node is among the sources, also where the balancer's address is its own",
            with_node(),
            vec![HERE],
            vec![
                (NODE, BALANCER, 80, &[TO_HERE_MASQ]),
                (BALANCER, BALANCER, 80, &[TO_HERE_MASQ]),
                (BALANCER, OTHER_BALANCER, 80, &[TO_HERE_MASQ]),
                (POD, BALANCER, 80, &["DROP"]),
            ],
        ),
        ("sources, and no endpoint", friends(), vec![], vec![(FRIEND, BALANCER, 80, &["REJECT"])]),
        (
            "no sources are named",
            balancer(json!([]), "Cluster", "VIP"),
            vec![HERE, THERE],
            vec![
                (OUTSIDE, BALANCER, 80, &[TO_HERE_MASQ, TO_THERE_MASQ]),
                (POD, BALANCER, 80, &[TO_HERE_MASQ, TO_THERE_MASQ]),
            ],
        ),
        (
            "stays here",
            balancer(json!([]), "Local", "VIP"),
            vec![HERE, THERE],
            vec![
                (OUTSIDE, BALANCER, 80, &[TO_HERE]),
                (POD, BALANCER, 80, &[TO_HERE, TO_THERE]),
                (NODE, BALANCER, 80, &[TO_HERE_MASQ, TO_THERE_MASQ]),
            ],
        ),
        (
            "would stay here",
            balancer(json!([]), "Local", "VIP"),
            vec![THERE],
            vec![(OUTSIDE, BALANCER, 80, &["DROP"]), (POD, BALANCER, 80, &[TO_THERE])],
        ),
        (
            "a balancer that sends to nodes itself",
            balancer(json!([]), "Cluster", "Proxy"),
            vec![HERE],
            vec![(POD, BALANCER, 80, &[]), (OUTSIDE, NODE, 30080, &[TO_HERE_MASQ])],
        ),
    ]
}
