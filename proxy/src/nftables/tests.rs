//! Packets through the rendered table: a small interpreter of the rules answers where a packet ends up.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::apply::{difference, full};
use super::render::hashed;
use super::*;
use crate::model::{self, Family};
use crate::rules::testing::{
    self, NODE, POD, Packet, destination, in_range, is_local, node_port_spec, service, settings, slice,
};

fn rendered(
    spec: &Value,
    slices: &[std::sync::Arc<k8s_openapi::api::discovery::v1::EndpointSlice>],
) -> Table {
    let ports = model::build(Family::V4, &settings().place, &[service(spec)], slices);
    render(&settings(), &ports)
}

/// Where packets of this kind can end, each outcome once.
fn outcomes(table: &Table, packet: &Packet<'_>) -> Vec<String> {
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
        let place_of: std::net::SocketAddr = place.trim_end_matches(" masq").parse().expect("a place");
        let hairpin = format!("{} . {} . tcp . {}", packet.from, place_of.ip(), place_of.port());
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

/// Follows every branch that a packet can take; false if it does not come back out of the chain.
fn walk(table: &Table, chain: &str, packet: &Packet<'_>, masq: &mut bool, found: &mut Vec<String>) -> bool {
    for rule in &table.chains[chain] {
        // The rules of both families are the same but for this word.
        let rule = rule.replace("ip6 ", "ip ");
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
    packet: &Packet<'_>,
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
    if let Some(after) = rest.strip_prefix("ip daddr @nodeport-ips ") {
        return when(table.collections["nodeport-ips"].elements.contains_key(packet.to), after);
    }
    if let Some((range, after)) = condition(rest, "ip daddr != ") {
        return when(!in_range(packet.to, range), after);
    }
    if let Some(ranges) = rest.strip_prefix("ip saddr != { ") {
        let (ranges, after) = ranges.split_once(" } ").expect("the end of a set");
        return when(!ranges.split(", ").any(|range| in_range(packet.from, range)), after);
    }
    if let Some((range, after)) = condition(rest, "ip saddr != ") {
        return when(!in_range(packet.from, range), after);
    }
    if let Some((range, after)) = condition(rest, "ip saddr ") {
        return when(in_range(packet.from, range), after);
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
            let (ip, port) = place.split_once(" . ").expect("a port");
            found.push(destination(ip, port) + if *masq { " masq" } else { "" });
        }
        return Step::Ended;
    }
    let word = rest.split_whitespace().next().unwrap_or_default();
    match word {
        "jump" | "goto" | "reject" | "drop" => verdict(table, Some(&rest.to_owned()), packet, masq, found),
        _ => panic!("the interpreter does not know {rest:?}"),
    }
}

/// The range that a rule compares with, and what comes behind.
fn condition<'a>(rest: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    rest.strip_prefix(what)?.split_once(' ')
}

fn verdict(
    table: &Table,
    verdict: Option<&String>,
    packet: &Packet<'_>,
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
fn packets_end_where_both_modes_send_them() {
    testing::check(|settings, ports, packet| outcomes(&render(settings, ports), packet));
    testing::check_node_ports(|settings, ports, packet| outcomes(&render(settings, ports), packet));
}

#[test]
fn what_no_service_listens_on_is_refused_and_loopback_has_no_node_ports() {
    let table = rendered(&node_port_spec(), &[slice(8080, &[("10.244.0.5", "n1", "ready")])]);
    for (from, to, port, expected) in
        [(POD, testing::SERVICE, 81, vec!["REJECT".to_owned()]), (NODE, "127.0.0.1", 30080, vec![])]
    {
        assert_eq!(outcomes(&table, &Packet { from, to, port }), expected, "{from} -> {to}:{port}");
    }
}

#[test]
fn strangers_to_a_balancer_without_endpoints_are_dropped_before_they_are_refused() {
    let mut spec = node_port_spec();
    spec["type"] = json!("LoadBalancer");
    spec["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
    let mut ports = model::build(Family::V4, &settings().place, &[service(&spec)], &[]);
    for port in ports.values_mut() {
        port.load_balancer_ips = vec!["192.0.2.60".parse().expect("an address")];
    }
    let table = render(&settings(), &ports);
    let packet = Packet { from: testing::OUTSIDE, to: "192.0.2.60", port: 80 };
    assert_eq!(outcomes(&table, &packet), ["DROP"]);
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
