//! Packets through the rendered rules: a small interpreter says whether they get through. The cases are those of
//! upstream's test/e2e/network/netpol: pods a, b, c in each of the namespaces x, y, z. Each case is shown in both
//! address families.

use std::sync::Arc;

use serde_json::{Value, json};

use super::rules::ROOT;
use super::*;
use crate::address::{Family, Range};

const NODE: &str = "n1";

fn address(family: Family, namespace: &str, pod: &str) -> String {
    let place = |text: &str| text.bytes().next().map_or(0, |b| b - b'a' + 1);
    let (namespace, pod) = (place(namespace), place(pod));
    match family {
        Family::V4 => format!("10.244.{namespace}.{pod}"),
        Family::V6 => format!("fd00:244::{namespace:x}:{pod:x}"),
    }
}

/// The policies, with blocks of addresses as the family has them.
fn in_family(family: Family, policies: &[Value]) -> Vec<Value> {
    let mut text = Value::from(policies).to_string();
    if family == Family::V6 {
        for (v4, v6) in [
            ("10.244.25.0/24", "fd00:244::19:0/112"),
            ("10.244.25.2/32", "fd00:244::19:2/128"),
            ("10.244.26.0/24", "fd00:244::1a:0/112"),
            ("10.244.26.3/32", "fd00:244::1a:3/128"),
            ("2001:db8::/32", "192.0.2.0/24"),
        ] {
            text = text.replace(v4, v6);
        }
    }
    serde_json::from_str(&text).expect("policies")
}

fn world(policies: &[Value]) -> World {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (namespaces, pods) = (names(&["x", "y", "z"]), names(&["a", "b", "c"]));
    let pod = |namespace: &String, name: &String| {
        let object = json!({"metadata": {"name": name, "namespace": namespace, "labels": {"pod": name}},
            "spec": {"nodeName": NODE, "containers": [{"ports": [
                {"name": "serve-80-tcp", "containerPort": 80, "protocol": "TCP"},
                {"name": "serve-81-tcp", "containerPort": 81, "protocol": "TCP"},
                {"name": "serve-80-udp", "containerPort": 80, "protocol": "UDP"}]}]},
            "status": {"phase": "Running", "podIP": address(Family::V4, namespace, name),
                "podIPs": Family::BOTH.map(|family| json!({"ip": address(family, namespace, name)}))}});
        Arc::new(serde_json::from_value(object).expect("a pod"))
    };
    let namespace = |name: &String| {
        let object =
            json!({"metadata": {"name": name, "labels": {"ns": name, "kubernetes.io/metadata.name": name}}});
        Arc::new(serde_json::from_value(object).expect("a namespace"))
    };
    let policy = |(at, spec): (usize, &Value)| {
        let object = json!({"metadata": {"name": format!("p{at}"), "namespace": "x"}, "spec": spec});
        Arc::new(serde_json::from_value(object).expect("a policy"))
    };
    World {
        pods: namespaces.iter().flat_map(|ns| pods.iter().map(move |name| pod(ns, name))).collect(),
        namespaces: namespaces.iter().map(namespace).collect(),
        policies: policies.iter().enumerate().map(policy).collect(),
    }
}

#[derive(Clone, Copy)]
struct Packet<'a> {
    from: &'a str,
    to: &'a str,
    protocol: &'a str,
    port: u16,
    /// What it is, if it is ICMP's.
    kind: &'a str,
}

/// Whether it gets through.
fn passes(chains: &Chains, packet: Packet<'_>) -> bool {
    let mut marked = false;
    walk(chains, ROOT, packet, &mut marked)
}

/// False if the packet is dropped in the chain.
fn walk(chains: &Chains, chain: &str, packet: Packet<'_>, marked: &mut bool) -> bool {
    for rule in chains.get(chain).unwrap_or_else(|| panic!("there is no chain {chain}")) {
        if !matches(rule, packet, *marked) {
            continue;
        }
        let (_, target) = rule.split_once("-j ").expect("a target");
        match target.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["RETURN"] => return true,
            ["DROP"] => return false,
            ["MARK", "--set-xmark", value] => *marked = !value.starts_with("0x0/"),
            [next] => {
                if !walk(chains, next, packet, marked) {
                    return false;
                }
            }
            other => panic!("the interpreter does not know {other:?}"),
        }
    }
    true
}

fn in_range(address: &str, range: &str) -> bool {
    let address = address.parse().expect("an address");
    let range = Range::parse(range).unwrap_or_else(|| {
        Range::parse(&format!("{range}/{}", Family::of(address).bits())).expect("a range")
    });
    assert_eq!(range.family(), Family::of(address), "a rule of the other family");
    range.contains(address)
}

fn matches(rule: &str, packet: Packet<'_>, marked: bool) -> bool {
    let rule = rule.split_once("\" ").map_or(rule, |(_, rest)| rest);
    let words: Vec<_> = rule.split_whitespace().collect();
    words.iter().enumerate().all(|(at, word)| {
        let value = words.get(at + 1).copied().unwrap_or_default();
        let negated = at > 0 && words[at - 1] == "!";
        let holds = match *word {
            "-s" => in_range(packet.from, value),
            "-d" => in_range(packet.to, value),
            "-p" => value == packet.protocol,
            "--icmpv6-type" => value == packet.kind,
            // The interpreter looks at first packets alone.
            "--ctstate" => false,
            "--mark" => marked,
            "--dport" | "--dports" => {
                let (first, last) = value.split_once(':').unwrap_or((value, value));
                let numbers = |text: &str| text.parse::<u16>().expect("a port");
                (numbers(first)..=numbers(last)).contains(&packet.port)
            }
            _ => return true,
        };
        holds != negated
    })
}

/// Which of the nine pods reach `x/a` at a port, or are reached by it: the same in both families.
fn reaching(policies: &[Value], direction: Direction, protocol: &str, port: u16) -> String {
    let [v4, v6] = Family::BOTH.map(|family| reaching_in(family, policies, direction, protocol, port));
    assert_eq!(v4, v6, "the families differ: {policies:?}");
    v4
}

fn reaching_in(
    family: Family,
    policies: &[Value],
    direction: Direction,
    protocol: &str,
    port: u16,
) -> String {
    let chains = render(NODE, &world(&in_family(family, policies)), family);
    let own = address(family, "x", "a");
    let mut found = vec![];
    for namespace in ["x", "y", "z"] {
        for pod in ["a", "b", "c"] {
            let other = address(family, namespace, pod);
            let (from, to) = match direction {
                Direction::Ingress => (&other, &own),
                Direction::Egress => (&own, &other),
            };
            if passes(&chains, Packet { from, to, protocol, port, kind: "" }) {
                found.push(format!("{namespace}{pod}"));
            }
        }
    }
    found.join(" ")
}

const ALL: &str = "xa xb xc ya yb yc za zb zc";

fn labels(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

#[test]
fn whoever_is_isolated_hears_only_whom_policies_name() {
    let policy =
        |peers: Value| json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]});
    let in_list = |key: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]});
    for (what, policies, expected) in [
        ("no policy", vec![], ALL),
        ("default deny", vec![json!({"podSelector": {}, "policyTypes": ["Ingress"]})], "xa"),
        ("deny without types", vec![json!({"podSelector": {}})], "xa"),
        ("about another pod", vec![json!({"podSelector": labels("pod", "b")})], ALL),
        ("egress alone", vec![json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})], ALL),
        ("allow all", vec![json!({"podSelector": {}, "ingress": [{}]})], ALL),
        ("empty list of peers", vec![policy(json!([]))], ALL),
        ("pod selector", vec![policy(json!([{"podSelector": labels("pod", "b")}]))], "xa xb"),
        ("all namespaces", vec![policy(json!([{"namespaceSelector": {}}]))], ALL),
        ("a namespace", vec![policy(json!([{"namespaceSelector": labels("ns", "y")}]))], "xa ya yb yc"),
        (
            "a namespace by its own label",
            vec![policy(json!([{"namespaceSelector": labels("kubernetes.io/metadata.name", "z")}]))],
            "xa za zb zc",
        ),
        ("expression on pods", vec![policy(json!([{"podSelector": in_list("pod", &["b"])}]))], "xa xb"),
        (
            "expression on namespaces",
            vec![policy(json!([{"namespaceSelector": {"matchExpressions": [
                {"key": "ns", "operator": "NotIn", "values": ["x"]}]}}]))],
            "xa ya yb yc za zb zc",
        ),
        (
            "either",
            vec![policy(
                json!([{"namespaceSelector": labels("ns", "y")}, {"podSelector": labels("pod", "b")}]),
            )],
            "xa xb ya yb yc",
        ),
        (
            "both",
            vec![policy(
                json!([{"namespaceSelector": labels("ns", "y"), "podSelector": labels("pod", "b")}]),
            )],
            "xa yb",
        ),
        (
            "many of both",
            vec![policy(
                json!([{"namespaceSelector": in_list("ns", &["y", "z"]), "podSelector": in_list("pod", &["b", "c"])}]),
            )],
            "xa yb yc zb zc",
        ),
        ("a block", vec![policy(json!([{"ipBlock": {"cidr": "10.244.25.0/24"}}]))], "xa ya yb yc"),
        (
            "a block with an exception",
            vec![policy(json!([{"ipBlock": {"cidr": "10.244.25.0/24", "except": ["10.244.25.2/32"]}}]))],
            "xa ya yc",
        ),
        (
            "an exception that another block takes back",
            vec![policy(json!([{"ipBlock": {"cidr": "10.244.25.0/24", "except": ["10.244.25.2/32"]}},
                               {"ipBlock": {"cidr": "10.244.25.2/32"}}]))],
            "xa ya yb yc",
        ),
        ("a block of the other family", vec![policy(json!([{"ipBlock": {"cidr": "2001:db8::/32"}}]))], "xa"),
        (
            "policies add up",
            vec![
                policy(json!([{"podSelector": labels("pod", "b")}])),
                policy(json!([{"podSelector": labels("pod", "c")}])),
            ],
            "xa xb xc",
        ),
        (
            "deny and allow all",
            vec![json!({"podSelector": {}}), json!({"podSelector": {}, "ingress": [{}]})],
            ALL,
        ),
        (
            "a selector that cannot be read",
            vec![policy(json!([{"podSelector": {"matchExpressions": [{"key": "pod", "operator": "Odd"}]}}]))],
            "xa",
        ),
    ] {
        assert_eq!(reaching(&policies, Direction::Ingress, "tcp", 80), expected, "{what}");
    }
}

#[test]
fn ports_are_told_apart() {
    let ingress = |ports: Value| {
        vec![json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]})]
    };
    for (what, ports, protocol, port, passes) in [
        ("the port", json!([{"port": 80}]), "tcp", 80, true),
        ("another port", json!([{"port": 80}]), "tcp", 81, false),
        ("another protocol", json!([{"port": 80}]), "udp", 80, false),
        ("UDP alone", json!([{"port": 80, "protocol": "UDP"}]), "udp", 80, true),
        ("UDP alone, by TCP", json!([{"port": 80, "protocol": "UDP"}]), "tcp", 80, false),
        ("SCTP is not TCP", json!([{"port": 80, "protocol": "SCTP"}]), "tcp", 80, false),
        ("SCTP", json!([{"port": 80, "protocol": "SCTP"}]), "sctp", 80, true),
        ("any port of a protocol", json!([{"protocol": "UDP"}]), "udp", 4711, true),
        ("any port of another protocol", json!([{"protocol": "UDP"}]), "tcp", 4711, false),
        ("the first of a range", json!([{"port": 80, "endPort": 90}]), "tcp", 80, true),
        ("the last of a range", json!([{"port": 80, "endPort": 90}]), "tcp", 90, true),
        ("behind a range", json!([{"port": 80, "endPort": 90}]), "tcp", 91, false),
        ("a name", json!([{"port": "serve-81-tcp"}]), "tcp", 81, true),
        ("another name's port", json!([{"port": "serve-81-tcp"}]), "tcp", 80, false),
        ("a name of another protocol", json!([{"port": "serve-80-udp"}]), "udp", 80, false),
        ("a name and its protocol", json!([{"port": "serve-80-udp", "protocol": "UDP"}]), "udp", 80, true),
        ("a name that nobody has", json!([{"port": "nobody"}]), "tcp", 80, false),
        ("one of two", json!([{"port": 79}, {"port": 80}]), "tcp", 80, true),
    ] {
        let expected = if passes { ALL } else { "xa" };
        assert_eq!(reaching(&ingress(ports.clone()), Direction::Ingress, protocol, port), expected, "{what}");
        let egress =
            vec![json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": ports}]})];
        assert_eq!(reaching(&egress, Direction::Egress, protocol, port), expected, "{what}, going out");
    }
}

#[test]
fn whoever_may_not_send_does_not_even_to_those_who_would_hear() {
    let egress =
        |peers: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": peers}]});
    let deny = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    for (what, policies, expected) in [
        ("default deny", vec![deny.clone()], "xa"),
        (
            "egress without types",
            vec![
                json!({"podSelector": {}, "ingress": [{}], "egress": [{"to": [{"podSelector": labels("pod", "b")}]}]}),
            ],
            "xa xb",
        ),
        ("both ways", vec![deny.clone(), json!({"podSelector": {}, "ingress": [{}]})], "xa"),
        (
            "a pod of a namespace",
            vec![egress(
                json!([{"namespaceSelector": labels("ns", "y"), "podSelector": labels("pod", "a")}]),
            )],
            "xa ya",
        ),
        (
            "a block",
            vec![egress(json!([{"ipBlock": {"cidr": "10.244.26.0/24", "except": ["10.244.26.3/32"]}}]))],
            "xa za zb",
        ),
        (
            "a name, at a pod",
            vec![json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
                {"to": [{"namespaceSelector": labels("ns", "z")}], "ports": [{"port": "serve-80-tcp"}]}]})],
            "xa za zb zc",
        ),
        (
            "the receiver refuses",
            vec![egress(json!([])), json!({"podSelector": labels("pod", "b"), "policyTypes": ["Ingress"]})],
            "xa xc ya yb yc za zb zc",
        ),
    ] {
        assert_eq!(reaching(&policies, Direction::Egress, "tcp", 80), expected, "{what}");
    }
}

#[test]
fn only_isolated_pods_of_this_node_are_mentioned() {
    let deny = json!({"podSelector": {}});
    for (family, always) in [(Family::V4, 1), (Family::V6, 3)] {
        let elsewhere = render("n2", &world(std::slice::from_ref(&deny)), family);
        assert_eq!(elsewhere, Chains::from([(ROOT.to_owned(), vec![])]));
        let chains = render(NODE, &world(std::slice::from_ref(&deny)), family);
        assert_eq!(chains[ROOT].len(), always + 3, "what is let through, and three pods: {:?}", chains[ROOT]);
        for (chain, rules) in &chains {
            assert!(chain.len() <= 28, "iptables takes no longer names than {chain}");
            assert!(rules.iter().all(|rule| rule.len() < 400), "{rules:?}");
        }
    }
}

#[test]
fn neighbours_find_each_other_whatever_policies_say() {
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let chains = render(NODE, &world(&[deny]), Family::V6);
    let (from, to) = (&address(Family::V6, "x", "a"), &address(Family::V6, "x", "b"));
    for (kind, expected) in
        [("neighbour-solicitation", true), ("neighbour-advertisement", true), ("echo-request", false)]
    {
        let packet = Packet { from, to, protocol: "icmpv6", port: 0, kind };
        assert_eq!(passes(&chains, packet), expected, "{kind}");
    }
}
