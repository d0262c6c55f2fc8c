//! Packets through the rendered table: a small interpreter of the rules answers where a packet ends up.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::apply::{difference, full};
use super::render::hashed;
use super::*;
use crate::model::{self, Family};
use crate::rules::testing::{NODE, OUTSIDE, POD, Packet, node_port_spec, service, settings, slice};

fn rendered(
    spec: &Value,
    slices: &[std::sync::Arc<k8s_openapi::api::discovery::v1::EndpointSlice>],
) -> Table {
    let ports = model::build(Family::V4, &settings().place, &[service(spec)], slices);
    render(&settings(), &ports)
}

/// Where packets of this kind can end, each outcome once.
fn outcomes(table: &Table, packet: &Packet) -> Vec<String> {
    let mut found = vec![];
    walk(table, "filter-prerouting-pre-dnat", packet, &mut false, &mut found);
    if found.is_empty() {
        walk(table, "nat-prerouting", packet, &mut false, &mut found);
    }
    if found.is_empty() {
        let here = if is_local(packet.to) { "filter-input" } else { "filter-forward" };
        walk(table, here, packet, &mut false, &mut found);
    }
    for outcome in &mut found {
        let Some(place) = outcome.strip_prefix("DNAT ") else { continue };
        let (ip, port) = place.trim_end_matches(" masq").split_once(':').expect("a place");
        let hairpin = format!("{} . {ip} . tcp . {port}", packet.from);
        if table.collections["hairpin-connections"].elements.contains_key(&hairpin)
            && !place.ends_with(" masq")
        {
            outcome.push_str(" masq");
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_local(address: &str) -> bool {
    address == NODE || address.starts_with("127.")
}

/// Follows every branch that a packet can take; false if it does not come back out of the chain.
fn walk(table: &Table, chain: &str, packet: &Packet, masq: &mut bool, found: &mut Vec<String>) -> bool {
    for rule in &table.chains[chain] {
        let mut rest = rule.as_str();
        loop {
            match step(table, rest, packet, masq, found) {
                Step::Next(after) => rest = after,
                Step::NoMatch => break,
                Step::Ended => return false,
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    true
}

enum Step<'a> {
    Next(&'a str),
    NoMatch,
    Ended,
}

fn step<'a>(
    table: &Table,
    rest: &'a str,
    packet: &Packet,
    masq: &mut bool,
    found: &mut Vec<String>,
) -> Step<'a> {
    let port = packet.port;
    let service_key = format!("{} . tcp . {port}", packet.to);
    let node_key = format!("tcp . {port}");
    let when = |holds: bool, after: &'a str| if holds { Step::Next(after) } else { Step::NoMatch };
    if let Some(after) = rest.strip_prefix("ct state new ") {
        return Step::Next(after);
    }
    if let Some(map) = rest.strip_prefix("ip daddr . meta l4proto . th dport vmap @") {
        return verdict(table, table.collections[map].elements.get(&service_key), packet, masq, found);
    }
    if let Some(map) = rest.strip_prefix("meta l4proto . th dport vmap @") {
        return verdict(table, table.collections[map].elements.get(&node_key), packet, masq, found);
    }
    if let Some(after) = rest.strip_prefix("ip daddr @cluster-ips ") {
        return when(table.collections["cluster-ips"].elements.contains_key(packet.to), after);
    }
    if let Some(after) = rest.strip_prefix("ip daddr != 127.0.0.0/8 ") {
        return when(!packet.to.starts_with("127."), after);
    }
    if let Some(after) = rest.strip_prefix("ip saddr != 10.244.0.0/16 ") {
        return when(!packet.from.starts_with("10.244."), after);
    }
    if let Some(after) = rest.strip_prefix("ip saddr 10.244.0.0/16 ") {
        return when(packet.from.starts_with("10.244."), after);
    }
    if let Some(after) = rest.strip_prefix("ip saddr != { 203.0.113.0/24 } ") {
        return when(!packet.from.starts_with("203.0.113."), after);
    }
    if let Some(after) = rest.strip_prefix("fib daddr type local ") {
        return when(is_local(packet.to), after);
    }
    if let Some(after) = rest.strip_prefix("fib saddr type local ") {
        return when(is_local(packet.from), after);
    }
    if let Some(after) = rest.strip_prefix("mark set mark or 0x4000") {
        *masq = true;
        return Step::Next(after.trim_start());
    }
    if let Some(all) = rest.strip_prefix("meta l4proto tcp dnat ip addr . port to numgen random mod ") {
        let (_, places) = all.split_once("{ ").expect("places");
        for place in places.trim_end_matches(" }").split(" , ") {
            let (_, place) = place.split_once(" : ").expect("a number");
            found.push(format!("DNAT {}{}", place.replace(" . ", ":"), if *masq { " masq" } else { "" }));
        }
        return Step::Ended;
    }
    let word = rest.split_whitespace().next().unwrap_or_default();
    match word {
        "jump" | "goto" | "reject" | "drop" => verdict(table, Some(&rest.to_owned()), packet, masq, found),
        _ => panic!("the interpreter does not know {rest:?}"),
    }
}

fn verdict(
    table: &Table,
    verdict: Option<&String>,
    packet: &Packet,
    masq: &mut bool,
    found: &mut Vec<String>,
) -> Step<'static> {
    let Some(verdict) = verdict else { return Step::NoMatch };
    match verdict.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["jump", chain] if walk(table, chain, packet, masq, found) => Step::NoMatch,
        ["jump" | "goto", chain] => {
            if verdict.starts_with("goto") {
                walk(table, chain, packet, masq, found);
            }
            Step::Ended
        }
        ["reject"] => {
            found.push("REJECT".to_owned());
            Step::Ended
        }
        ["drop"] => {
            found.push("DROP".to_owned());
            Step::Ended
        }
        other => panic!("the interpreter does not know {other:?}"),
    }
}

#[test]
fn addresses_and_node_ports_lead_to_every_ready_endpoint() {
    let slices = [slice(
        8080,
        &[("10.244.0.5", "n1", "ready"), ("10.244.1.6", "n2", "ready"), ("10.244.1.7", "n2", "down")],
    )];
    let table = rendered(&node_port_spec(), &slices);
    let both =
        |suffix: &str| vec![format!("DNAT 10.244.0.5:8080{suffix}"), format!("DNAT 10.244.1.6:8080{suffix}")];
    for (from, to, port, expected) in [
        (POD, "10.96.0.5", 80, both("")),
        (OUTSIDE, "10.96.0.5", 80, both(" masq")),
        (OUTSIDE, NODE, 30080, both(" masq")),
        (POD, "10.96.0.5", 81, vec!["REJECT".to_owned()]),
        (OUTSIDE, OUTSIDE, 30080, vec![]),
        (NODE, "127.0.0.1", 30080, vec![]),
    ] {
        assert_eq!(outcomes(&table, &Packet { from, to, port }), expected, "{from} -> {to}:{port}");
    }
    let hairpin = outcomes(&table, &Packet { from: "10.244.0.5", to: "10.96.0.5", port: 80 });
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
fn local_policies_keep_traffic_on_the_node() {
    let mut spec = node_port_spec();
    spec["externalTrafficPolicy"] = json!("Local");
    let here = [slice(8080, &[("10.244.0.5", "n1", "ready"), ("10.244.1.6", "n2", "ready")])];
    let elsewhere = [slice(8080, &[("10.244.1.6", "n2", "ready")])];
    let outside = Packet { from: OUTSIDE, to: NODE, port: 30080 };
    let table = rendered(&spec, &here);
    assert_eq!(outcomes(&table, &outside), ["DNAT 10.244.0.5:8080"]);
    let own = outcomes(&table, &Packet { from: NODE, to: NODE, port: 30080 });
    assert_eq!(own, ["DNAT 10.244.0.5:8080 masq", "DNAT 10.244.1.6:8080 masq"]);
    assert_eq!(outcomes(&rendered(&spec, &elsewhere), &outside), ["DROP"]);
    let mut spec = node_port_spec();
    spec["internalTrafficPolicy"] = json!("Local");
    let inside = Packet { from: POD, to: "10.96.0.5", port: 80 };
    assert_eq!(outcomes(&rendered(&spec, &here), &inside), ["DNAT 10.244.0.5:8080"]);
    assert_eq!(outcomes(&rendered(&spec, &elsewhere), &inside), ["DROP"]);
    assert_eq!(outcomes(&rendered(&spec, &elsewhere), &outside), ["DNAT 10.244.1.6:8080 masq"]);
}

#[test]
fn load_balancer_addresses_are_guarded_and_external_ones_are_not() {
    let mut spec = node_port_spec();
    spec["type"] = json!("LoadBalancer");
    spec["externalIPs"] = json!(["192.0.2.50"]);
    spec["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
    let slices = [slice(8080, &[("10.244.0.5", "n1", "ready")])];
    let mut ports = model::build(Family::V4, &settings().place, &[service(&spec)], &slices);
    for port in ports.values_mut() {
        port.load_balancer_ips = vec!["192.0.2.60".parse().expect("an address")];
    }
    let table = render(&settings(), &ports);
    for (from, to, expected) in [
        ("203.0.113.9", "192.0.2.60", "DNAT 10.244.0.5:8080 masq"),
        (OUTSIDE, "192.0.2.60", "DROP"),
        (OUTSIDE, "192.0.2.50", "DNAT 10.244.0.5:8080 masq"),
    ] {
        assert_eq!(outcomes(&table, &Packet { from, to, port: 80 }), [expected], "{from} -> {to}");
    }
}

#[test]
fn affinity_has_a_set_for_each_endpoint() {
    let mut spec = node_port_spec();
    spec["sessionAffinity"] = json!("ClientIP");
    let table = rendered(&spec, &[slice(8080, &[("10.244.0.5", "n1", "ready")])]);
    let sets: Vec<_> = table.collections.iter().filter(|(name, _)| name.starts_with("affinity-")).collect();
    let [(name, set)] = sets.as_slice() else { panic!("{sets:?}") };
    assert_eq!(set.declaration, "type ipv4_addr ; flags dynamic,timeout ; timeout 10800s ;");
    let (_, rules) = table
        .chains
        .iter()
        .find(|(name, _)| name.starts_with("service-") && name.contains('/'))
        .expect("a chain");
    assert!(rules[0].starts_with(&format!("ip saddr @{name} goto endpoint-")), "{rules:?}");
    let (_, rules) = table.chains.iter().find(|(name, _)| name.starts_with("endpoint-")).expect("a chain");
    assert_eq!(
        *rules,
        [format!("update @{name} {{ ip saddr }}"), "meta l4proto tcp dnat to 10.244.0.5:8080".to_owned()]
    );
}

#[test]
fn names_are_those_of_upstream() {
    assert_eq!(hashed("ns1/svc1/tcp/p80"), "ULMVA6XW-ns1/svc1/tcp/p80");
    assert_eq!(hashed("ns1/svc1/tcp/p80__10.180.0.1/80"), "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80");
    assert_eq!(hashed(&"x".repeat(300)).len(), 240);
}

#[test]
fn only_what_changed_is_written() {
    let table = |chains: &[(&str, &[&str])], elements: &[(&str, &str)]| {
        let own = |text: &str| text.to_owned();
        let elements = elements.iter().map(|(key, value)| (own(key), own(value))).collect();
        let map = Collection { kind: "map", declaration: "type x : verdict ;".to_owned(), elements };
        Table {
            collections: BTreeMap::from([(own("m"), map)]),
            hooks: BTreeMap::new(),
            chains: chains
                .iter()
                .map(|(name, rules)| (own(name), rules.iter().map(|r| own(r)).collect()))
                .collect(),
        }
    };
    let before = table(&[("a", &["1"]), ("b", &["1"])], &[("k", "goto a"), ("l", "goto b")]);
    let after = table(&[("a", &["2"]), ("c", &["1"])], &[("k", "goto a"), ("l", "goto c")]);
    let expected = "add chain ip kube-proxy c\nflush chain ip kube-proxy a\nadd rule ip kube-proxy a 2\n\
        flush chain ip kube-proxy c\nadd rule ip kube-proxy c 1\ndelete element ip kube-proxy m { l }\n\
        add element ip kube-proxy m { l : goto c }\nflush chain ip kube-proxy b\n";
    assert_eq!(difference("ip", &before, &after), expected);
    assert_eq!(difference("ip", &after, &after), "");
    assert!(
        full("ip", &after)
            .starts_with("add table ip kube-proxy\ndelete table ip kube-proxy\nadd table ip kube-proxy {")
    );
}
