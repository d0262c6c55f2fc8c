//! Packets through the rendered rules: a small interpreter of the rules answers where a packet ends up.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::testing::{
    self, POD, Packet, destination, in_range, is_local, node_port_spec, service, settings, slice,
};
use super::*;
use crate::model;

fn rendered(spec: &Value, slices: &[Arc<EndpointSlice>]) -> Rules {
    let ports = model::build(Family::V4, &settings().place, &[service(spec)], slices);
    render(&settings(), &ports)
}

/// Where packets of this kind can end, each outcome once: `DNAT 10.244.0.5:8080`, with ` masq` if the source is
/// rewritten; `REJECT`, `DROP`; nothing if no rule cares.
fn outcomes(rules: &Rules, packet: &Packet<'_>) -> Vec<String> {
    let mut found = vec![];
    walk(&rules.nat, "KUBE-SERVICES", packet, false, &mut found);
    for chain in ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"] {
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
    packet: &Packet<'_>,
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
                let (ip, port) = to.rsplit_once(':').expect("a port");
                let to = destination(ip.trim_matches(['[', ']']), port);
                found.push(format!("{to}{}", if masq { " masq" } else { "" }));
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

fn matches(rule: &str, packet: &Packet<'_>) -> bool {
    let rule = rule.split_once("\" ").map_or(rule, |(_, rest)| rest);
    let words: Vec<_> = rule.split_whitespace().collect();
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

#[test]
fn packets_end_where_both_modes_send_them() {
    testing::check(|settings, ports, packet| outcomes(&render(settings, ports), packet));
    testing::check_node_ports(|settings, ports, packet| outcomes(&render(settings, ports), packet));
}

#[test]
fn what_no_service_listens_on_is_left_alone() {
    let rules = rendered(&node_port_spec(), &[slice(8080, &[("10.244.0.5", "n1", "ready")])]);
    assert!(outcomes(&rules, &Packet { from: POD, to: testing::SERVICE, port: 81 }).is_empty());
}

#[test]
fn node_ports_on_loopback_are_a_choice() {
    let slices = [slice(8080, &[("10.244.0.5", "n1", "ready")])];
    let ports = model::build(Family::V4, &settings().place, &[service(&node_port_spec())], &slices);
    let packet = Packet { from: "127.0.0.1", to: "127.0.0.1", port: 30080 };
    assert_eq!(outcomes(&render(&settings(), &ports), &packet), ["DNAT 10.244.0.5:8080 masq"]);
    let without = Settings { localhost_node_ports: false, ..settings() };
    assert!(outcomes(&render(&without, &ports), &packet).is_empty());
}

#[test]
fn hints_are_heeded_when_every_ready_endpoint_has_some() {
    let hinted = |hints: &[Value]| {
        let endpoint = |(at, hints): (usize, &Value)| json!({"addresses": [format!("10.244.{at}.5")], "nodeName": format!("n{at}"), "hints": hints});
        let endpoints: Vec<_> = hints.iter().enumerate().map(endpoint).collect();
        let object = json!({"metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
        let slice: Arc<EndpointSlice> = Arc::new(serde_json::from_value(object).expect("a slice"));
        let settings =
            Settings { place: model::Place { zone: "z1".into(), ..settings().place }, ..settings() };
        let ports = model::build(Family::V4, &settings.place, &[service(&node_port_spec())], &[slice]);
        outcomes(&render(&settings, &ports), &Packet { from: POD, to: "10.96.0.5", port: 80 }).join(" ")
    };
    let (zone, node) =
        (|z: &str| json!({"forZones": [{"name": z}]}), |n: &str| json!({"forNodes": [{"name": n}]}));
    let all = "DNAT 10.244.0.5:8080 DNAT 10.244.1.5:8080";
    for (what, hints, expected) in [
        ("none", [json!(null), json!(null)], all),
        ("zones", [zone("z0"), zone("z1")], "DNAT 10.244.1.5:8080"),
        ("a zone is missing", [json!(null), zone("z1")], all),
        ("nobody is for this zone", [zone("z0"), zone("z2")], all),
        ("nodes", [node("n0"), node("n1")], "DNAT 10.244.1.5:8080"),
        ("nobody is for this node", [node("n0"), node("n2")], all),
    ] {
        assert_eq!(hinted(&hints), expected, "{what}");
    }
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
