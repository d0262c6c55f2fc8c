//! Packets through the rendered rules: a small interpreter of the rules answers where a packet ends up.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;
use crate::model;

fn settings() -> Settings {
    Settings {
        family: Family::V4,
        place: Place { node: "n1".into(), zone: String::new() },
        cluster_cidr: Some("10.244.0.0/16".into()),
        masquerade_all: false,
        mark: 0x4000,
        localhost_node_ports: true,
    }
}

fn service(spec: &Value) -> Arc<Service> {
    let object = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec});
    Arc::new(serde_json::from_value(object).expect("a service"))
}

/// Endpoints as (address, node, state); state is `ready`, `draining` or `down`.
fn slice(port: u16, endpoints: &[(&str, &str, &str)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node, state)| {
            json!({"addresses": [ip], "nodeName": node, "conditions":
                   {"ready": *state == "ready", "serving": *state != "down", "terminating": *state == "draining"}})
        })
        .collect();
    let object = json!({"metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
                        "addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                        "endpoints": endpoints});
    Arc::new(serde_json::from_value(object).expect("a slice"))
}

fn rendered(spec: &Value, slices: &[Arc<EndpointSlice>]) -> Rules {
    let ports = model::build(Family::V4, &settings().place, &[service(spec)], slices);
    render(&settings(), &ports)
}

struct Packet {
    from: &'static str,
    to: &'static str,
    port: u16,
}

/// Where packets of this kind can end, each outcome once: `DNAT 10.244.0.5:8080`, with ` masq` if the source is
/// rewritten; `REJECT`, `DROP`; nothing if no rule cares.
fn outcomes(rules: &Rules, packet: &Packet) -> Vec<String> {
    let mut found = vec![];
    walk(&rules.nat, "KUBE-SERVICES", packet, false, &mut found);
    for chain in ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"] {
        if found.is_empty() {
            walk(&rules.filter, chain, packet, false, &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Follows every branch that a packet can take; true if it can come back out of the chain.
fn walk(
    table: &Table,
    chain: &str,
    packet: &Packet,
    mut masq: bool,
    found: &mut Vec<String>,
) -> (bool, bool) {
    for rule in table.get(chain).map(Vec::as_slice).unwrap_or_default() {
        if !matches(rule, packet) {
            continue;
        }
        let sometimes = rule.contains("--mode random") || rule.contains("--rcheck");
        let padded = format!(" {rule}");
        let Some((_, target)) = padded.split_once(" -j ") else { continue };
        let words: Vec<_> = target.split_whitespace().collect();
        match words.as_slice() {
            ["KUBE-MARK-MASQ"] => masq = true,
            ["DNAT", "--to-destination", to] => {
                found.push(format!("DNAT {to}{}", if masq { " masq" } else { "" }));
                return (false, masq);
            }
            [verdict @ ("REJECT" | "DROP")] => {
                found.push((*verdict).to_owned());
                return (false, masq);
            }
            [next] => {
                let (comes_back, marked) = walk(table, next, packet, masq, found);
                masq = marked && comes_back || masq;
                if !comes_back && !sometimes {
                    return (false, masq);
                }
            }
            other => panic!("the interpreter does not know {other:?}"),
        }
    }
    (true, masq)
}

fn matches(rule: &str, packet: &Packet) -> bool {
    let rule = rule.split_once("\" ").map_or(rule, |(_, rest)| rest);
    let words: Vec<_> = rule.split_whitespace().collect();
    let in_range = |address: &str, range: &str| match range.split_once('/') {
        None => address == range,
        Some(("10.244.0.0", "16")) => address.starts_with("10.244."),
        Some(("127.0.0.0", "8")) => address.starts_with("127."),
        Some((base, _)) => panic!("the interpreter does not know the range of {base}"),
    };
    let is_local = |address: &str| address == "192.0.2.1" || address.starts_with("127.");
    words.iter().enumerate().all(|(i, word)| {
        let value = words.get(i + 1).copied().unwrap_or_default();
        let negated = i > 0 && words[i - 1] == "!";
        let holds = match *word {
            "-d" => in_range(packet.to, value),
            "-s" => in_range(packet.from, value),
            "--dport" => value == packet.port.to_string(),
            "--dst-type" => is_local(packet.to),
            "--src-type" => is_local(packet.from),
            _ => return true,
        };
        holds != negated
    })
}

const POD: &str = "10.244.0.9";
const OUTSIDE: &str = "198.51.100.7";
const NODE: &str = "192.0.2.1";

fn node_port_spec() -> Value {
    json!({"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
           "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]})
}

#[test]
fn cluster_address_leads_to_every_ready_endpoint() {
    let slices = [slice(
        8080,
        &[("10.244.0.5", "n1", "ready"), ("10.244.1.6", "n2", "ready"), ("10.244.1.7", "n2", "down")],
    )];
    let rules = rendered(&node_port_spec(), &slices);
    let both =
        |suffix: &str| vec![format!("DNAT 10.244.0.5:8080{suffix}"), format!("DNAT 10.244.1.6:8080{suffix}")];
    for (from, to, port, expected) in [
        (POD, "10.96.0.5", 80, both("")),
        (OUTSIDE, "10.96.0.5", 80, both(" masq")),
        (OUTSIDE, NODE, 30080, both(" masq")),
        (POD, "10.96.0.5", 81, vec![]),
        (OUTSIDE, OUTSIDE, 30080, vec![]),
    ] {
        assert_eq!(outcomes(&rules, &Packet { from, to, port }), expected, "{from} -> {to}:{port}");
    }
    let hairpin = outcomes(&rules, &Packet { from: "10.244.0.5", to: "10.96.0.5", port: 80 });
    assert_eq!(hairpin, ["DNAT 10.244.0.5:8080 masq", "DNAT 10.244.1.6:8080"]);
}

#[test]
fn service_without_endpoints_refuses_and_draining_ones_are_the_last_resort() {
    let packet = Packet { from: POD, to: "10.96.0.5", port: 80 };
    assert_eq!(outcomes(&rendered(&node_port_spec(), &[]), &packet), ["REJECT"]);
    let node_packet = Packet { from: OUTSIDE, to: NODE, port: 30080 };
    assert_eq!(outcomes(&rendered(&node_port_spec(), &[]), &node_packet), ["REJECT"]);
    let draining = [slice(8080, &[("10.244.0.5", "n1", "draining"), ("10.244.1.6", "n2", "down")])];
    assert_eq!(outcomes(&rendered(&node_port_spec(), &draining), &packet), ["DNAT 10.244.0.5:8080"]);
}

#[test]
fn local_external_policy_keeps_the_source_and_stays_on_the_node() {
    let mut spec = node_port_spec();
    spec["externalTrafficPolicy"] = json!("Local");
    let here = [slice(8080, &[("10.244.0.5", "n1", "ready"), ("10.244.1.6", "n2", "ready")])];
    let rules = rendered(&spec, &here);
    let outside = Packet { from: OUTSIDE, to: NODE, port: 30080 };
    assert_eq!(outcomes(&rules, &outside), ["DNAT 10.244.0.5:8080"]);
    let from_node = outcomes(&rules, &Packet { from: NODE, to: NODE, port: 30080 });
    assert_eq!(from_node, ["DNAT 10.244.0.5:8080 masq", "DNAT 10.244.1.6:8080 masq"]);
    let elsewhere = [slice(8080, &[("10.244.1.6", "n2", "ready")])];
    let rules = rendered(&spec, &elsewhere);
    assert_eq!(outcomes(&rules, &outside), ["DROP"]);
    assert_eq!(outcomes(&rules, &Packet { from: POD, to: "10.96.0.5", port: 80 }), ["DNAT 10.244.1.6:8080"]);
}

#[test]
fn affinity_remembers_and_prefers_the_endpoint() {
    let mut spec = node_port_spec();
    spec["sessionAffinity"] = json!("ClientIP");
    let slices = [slice(8080, &[("10.244.0.5", "n1", "ready"), ("10.244.1.6", "n2", "ready")])];
    let rules = rendered(&spec, &slices);
    let chain = rules.nat.iter().find(|(name, _)| name.starts_with("KUBE-SVC-")).expect("a service chain").1;
    let checks: Vec<_> = chain.iter().map(|r| r.contains("--rcheck --seconds 10800 --reap")).collect();
    assert_eq!(
        checks,
        [false, true, true, false, false],
        "after the masquerade rule the affinity rules come first"
    );
    let endpoint =
        rules.nat.iter().find(|(name, _)| name.starts_with("KUBE-SEP-")).expect("an endpoint chain");
    assert!(endpoint.1[1].contains(&format!("--name {} --set", endpoint.0)));
}

#[test]
fn chain_names_are_those_of_upstream() {
    // Known from upstream's own test expectations for ns1/svc1:p80 over TCP.
    assert_eq!(chain_name("KUBE-SVC-", &["ns1/svc1:p80", "tcp"]), "KUBE-SVC-XPGD46QRK7WJZT7O");
    assert_eq!(
        chain_name("KUBE-SEP-", &["ns1/svc1:p80", "tcp", "10.180.0.1:80"]),
        "KUBE-SEP-SXIVWICOYRO3J4NJ"
    );
}
