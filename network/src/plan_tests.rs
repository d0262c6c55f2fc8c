//! Nodes in, ways to their pods out.

use super::*;

/// A node by its pods' ranges and its addresses, each with its end of a tunnel.
fn node(name: &str, ranges: &[&str], addresses: &[&str]) -> Facts {
    let mut notes = json!({annotations::MANAGED: "true", annotations::TYPE: "vxlan"});
    for address in addresses {
        let family = Family::of(address.parse().expect("an address"));
        notes[annotations::address(family)] = json!(address);
        notes[annotations::data(family)] = json!(r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:0a"}"#);
    }
    let addresses: Vec<_> = addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
    let object = json!({"metadata": {"name": name, "annotations": notes},
        "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges}, "status": {"addresses": addresses}});
    Facts::of(&serde_json::from_value(object).expect("a node"))
}

fn range(text: &str) -> Range {
    Range::parse(text).expect("a range")
}

fn config(backend: Backend, cluster: &[&str]) -> Config {
    Config {
        node_name: "a".into(),
        cluster_cidrs: cluster.iter().map(|text| range(text)).collect(),
        cni_conf_dir: "/cni".into(),
        ipam_dir: "/ipam".into(),
        bridge: "br".into(),
        mtu: 0,
        backend,
        policies: true,
    }
}

const V4: &[&str] = &["10.244.0.0/16"];
const V6: &[&str] = &["fd00:244::/56"];
const DUAL: &[&str] = &["10.244.0.0/16", "fd00:244::/56"];
const DUAL_V6_FIRST: &[&str] = &["fd00:244::/56", "10.244.0.0/16"];

fn nodes() -> Vec<Facts> {
    vec![
        node("a", &["10.244.0.0/24", "fd00:244::/64"], &["192.0.2.1", "2001:db8:1::1"]),
        node("near", &["10.244.1.0/24", "fd00:244:0:1::/64"], &["192.0.2.2", "2001:db8:1::2"]),
        node("far", &["10.244.2.0/24", "fd00:244:0:2::/64"], &["198.51.100.2", "2001:db8:2::2"]),
        node("no-range-yet", &[], &["192.0.2.3", "2001:db8:1::3"]),
        node("no-address-yet", &["10.244.3.0/24"], &[]),
        node("half", &["10.244.4.0/24", "fd00:244:0:4::/64"], &["192.0.2.4"]),
    ]
}

fn underlays() -> Families<Option<Underlay>> {
    let underlay = |address: &str, segment: &str| {
        let address = address.parse().expect("an address");
        Some(Underlay { index: 2, mtu: 1500, address, segment: range(segment) })
    };
    Families { v4: underlay("192.0.2.1", "192.0.2.1/24"), v6: underlay("2001:db8:1::1", "2001:db8:1::1/64") }
}

/// The ways of a plan, a line each; at last the largest packet.
fn shown(plan: &Plan) -> String {
    let mut lines = vec![];
    for family in Family::BOTH {
        let ways = plan.ways.of(family);
        lines.extend(ways.routes.iter().map(|(range, via)| format!("{range} via {via}")));
        let tunnels = ways.tunnels.iter();
        lines.extend(tunnels.map(|(range, end)| format!("{range} in {} {}", end.address, mac_text(end.mac))));
    }
    let mtu = plan.cni.as_ref().expect("a configuration")["plugins"][0]["mtu"].to_string();
    lines.into_iter().chain([mtu]).collect::<Vec<_>>().join("; ")
}

#[test]
fn nodes_are_reached_by_route_or_by_tunnel() {
    for (backend, cluster, expected) in [
        (
            Backend::Auto,
            V4,
            "10.244.1.0/24 via 192.0.2.2; 10.244.4.0/24 via 192.0.2.4; 10.244.2.0/24 in 198.51.100.2 02:00:00:00:00:0a; 1450",
        ),
        (
            Backend::HostGw,
            V4,
            "10.244.1.0/24 via 192.0.2.2; 10.244.2.0/24 via 198.51.100.2; 10.244.4.0/24 via 192.0.2.4; 1500",
        ),
        (
            Backend::Vxlan,
            V4,
            "10.244.1.0/24 in 192.0.2.2 02:00:00:00:00:0a; 10.244.2.0/24 in 198.51.100.2 02:00:00:00:00:0a; \
             10.244.4.0/24 in 192.0.2.4 02:00:00:00:00:0a; 1450",
        ),
        (
            Backend::Auto,
            V6,
            "fd00:244:0:1::/64 via 2001:db8:1::2; fd00:244:0:2::/64 in 2001:db8:2::2 02:00:00:00:00:0a; 1430",
        ),
        (
            Backend::HostGw,
            DUAL,
            "10.244.1.0/24 via 192.0.2.2; 10.244.2.0/24 via 198.51.100.2; 10.244.4.0/24 via 192.0.2.4; \
             fd00:244:0:1::/64 via 2001:db8:1::2; fd00:244:0:2::/64 via 2001:db8:2::2; 1500",
        ),
        (
            Backend::Auto,
            DUAL,
            "10.244.1.0/24 via 192.0.2.2; 10.244.4.0/24 via 192.0.2.4; 10.244.2.0/24 in 198.51.100.2 02:00:00:00:00:0a; \
             fd00:244:0:1::/64 via 2001:db8:1::2; fd00:244:0:2::/64 in 2001:db8:2::2 02:00:00:00:00:0a; 1430",
        ),
    ] {
        let made = plan(&config(backend, cluster), &underlays(), &nodes());
        assert_eq!(shown(&made), expected, "{backend:?} {cluster:?}");
    }
}

#[test]
fn a_family_that_the_cluster_does_not_have_is_left_alone() {
    let made = plan(&config(Backend::Vxlan, V4), &underlays(), &nodes());
    assert_eq!(made.ways.v6, Ways::default());
    assert!(made.ways.v4.tunnel);
}

#[test]
fn own_ranges_give_the_bridge_in_the_order_of_the_clusters() {
    let none = Families::default();
    for (cluster, expected) in [
        (V4, json!([[{"subnet": "10.244.0.0/24"}]])),
        (V6, json!([[{"subnet": "fd00:244::/64"}]])),
        (DUAL, json!([[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]])),
        (DUAL_V6_FIRST, json!([[{"subnet": "fd00:244::/64"}], [{"subnet": "10.244.0.0/24"}]])),
    ] {
        let made = plan(&config(Backend::Auto, cluster), &none, &nodes());
        let cni = made.cni.expect("a configuration");
        assert_eq!(cni["plugins"][0]["ipam"]["ranges"], expected, "{cluster:?}");
        assert_eq!(plan(&config(Backend::Auto, cluster), &none, &nodes()[1..]).cni, None);
    }
}

#[test]
fn other_networks_and_other_tunnels_do_not_count() {
    let (own, other) =
        (r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:0a"}"#, r#"{"VNI":2,"VtepMAC":"02:00:00:00:00:0a"}"#);
    for (kind, data, address, counts) in [
        ("vxlan", own, "192.0.2.2", true),
        ("vxlan", r#"{"VtepMAC":"02:00:00:00:00:0a"}"#, "192.0.2.2", true),
        ("vxlan", other, "192.0.2.2", false),
        ("host-gw", "null", "192.0.2.2", false),
        ("vxlan", r#"{"VNI":1,"VtepMAC":"02:00"}"#, "192.0.2.2", false),
        ("vxlan", own, "2001:db8::2", false),
    ] {
        let object = json!({"metadata": {"name": "b", "annotations": {annotations::MANAGED: "true",
            annotations::TYPE: kind, annotations::data(Family::V4): data, annotations::address(Family::V4): address}}});
        let facts = Facts::of(&serde_json::from_value(object).expect("a node"));
        assert_eq!(facts.sides.v4.endpoint.is_some(), counts, "{kind} {data} {address}");
        assert_eq!(facts.sides.v6.endpoint, None, "{kind} {data} {address}");
    }
}
