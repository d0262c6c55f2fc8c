//! What a node's pod network should be, from the Node objects. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::flags::Config;

/// An IPv4 address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// First address.
    pub base: Ipv4Addr,
    /// Bits that all addresses share.
    pub prefix: u8,
}

impl Range {
    /// Reads `10.244.1.0/24`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let (base, prefix) = (base.parse().ok()?, prefix.parse().ok()?);
        (prefix <= 32).then_some(Self { base, prefix })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.base) & mask
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// How packets get to the pods of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Through the node itself, which is on the same segment; else in a tunnel.
    Auto,
    /// Through the node itself: all nodes share a segment.
    HostGw,
    /// In a tunnel.
    Vxlan,
}

/// Annotations of Nodes, as flannel writes and reads them: its nodes and ours understand each other.
pub mod annotations {
    /// Set to `true` where a node takes part.
    pub const MANAGED: &str = "flannel.alpha.coreos.com/kube-subnet-manager";
    /// The kind of tunnel.
    pub const TYPE: &str = "flannel.alpha.coreos.com/backend-type";
    /// What others must know of the node's end of the tunnel.
    pub const DATA: &str = "flannel.alpha.coreos.com/backend-data";
    /// The address that the tunnel leads to.
    pub const ADDRESS: &str = "flannel.alpha.coreos.com/public-ip";
}

/// An address of a network card.
pub type Mac = [u8; 6];

/// Reads `aa:bb:cc:dd:ee:ff`.
#[must_use]
pub fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Writes it so.
#[must_use]
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A node's end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where packets in the tunnel go.
    pub address: Ipv4Addr,
    /// The tunnel's own address there.
    pub mac: Mac,
}

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its pods' range, once it has one.
    pub range: Option<Range>,
    /// The address at which other nodes reach it.
    pub address: Option<Ipv4Addr>,
    /// Its end of the tunnel, once it has one.
    pub endpoint: Option<Endpoint>,
}

impl Facts {
    /// Reads a Node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let ranges = spec.and_then(|s| s.pod_cidrs.as_ref()).into_iter().flatten();
        let range = ranges.chain(spec.and_then(|s| s.pod_cidr.as_ref())).find_map(|r| Range::parse(r));
        let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref()).into_iter().flatten();
        let address = addresses.filter(|a| a.type_ == "InternalIP").find_map(|a| match a.address.parse() {
            Ok(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        });
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            range,
            address,
            endpoint: endpoint(node),
        }
    }
}

fn endpoint(node: &Node) -> Option<Endpoint> {
    let notes = node.metadata.annotations.as_ref()?;
    if notes.get(annotations::MANAGED)? != "true" || notes.get(annotations::TYPE)? != "vxlan" {
        return None;
    }
    let data: Value = serde_json::from_str(notes.get(annotations::DATA)?).ok()?;
    let mac = parse_mac(data["VtepMAC"].as_str()?)?;
    let same_network = data["VNI"].is_null() || data["VNI"] == json!(VNI);
    same_network.then_some(Endpoint { address: notes.get(annotations::ADDRESS)?.parse().ok()?, mac })
}

/// The number of the tunnel's network.
pub const VNI: u32 = 1;
/// What a tunnel adds to a packet.
const OVERHEAD: u32 = 50;

/// The network card that this node's own address is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its number.
    pub index: u32,
    /// The largest packet it takes.
    pub mtu: u32,
    /// This node's address.
    pub address: Ipv4Addr,
    /// The addresses of its segment.
    pub segment: Range,
}

/// What this node should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The CNI configuration; none while this node has no range.
    pub cni: Option<Value>,
    /// This node's range.
    pub range: Option<Range>,
    /// Ranges of nodes on this segment, and the nodes they are reached through.
    pub routes: BTreeMap<Range, Ipv4Addr>,
    /// Ranges of other nodes, and where the tunnel to them ends.
    pub tunnels: BTreeMap<Range, Endpoint>,
    /// Whether this node needs an end of the tunnel: other nodes may not have theirs yet.
    pub tunnel: bool,
    /// The largest packet of the pod network; 0 if unknown.
    pub mtu: u32,
}

/// Decides.
#[must_use]
pub fn plan(config: &Config, underlay: Option<&Underlay>, nodes: &[Facts]) -> Plan {
    let mut plan = Plan { tunnel: config.backend == Backend::Vxlan, ..Plan::default() };
    for node in nodes.iter().filter(|node| node.name != config.node_name) {
        let (Some(range), Some(address)) = (node.range, node.address) else { continue };
        let near = underlay.is_none_or(|underlay| underlay.segment.contains(address));
        match config.backend {
            Backend::Auto if near => _ = plan.routes.insert(range, address),
            Backend::HostGw => _ = plan.routes.insert(range, address),
            Backend::Auto | Backend::Vxlan => {
                plan.tunnel = true;
                plan.tunnels.extend(node.endpoint.map(|end| (range, end)));
            }
        }
    }
    let own = nodes.iter().find(|node| node.name == config.node_name);
    plan.range = own.and_then(|node| node.range);
    plan.mtu = match underlay {
        _ if config.mtu != 0 => config.mtu,
        Some(underlay) if plan.tunnel => underlay.mtu.saturating_sub(OVERHEAD),
        Some(underlay) => underlay.mtu,
        None => 0,
    };
    plan.cni = plan.range.map(|range| cni(config, range, plan.mtu));
    plan
}

fn cni(config: &Config, range: Range, mtu: u32) -> Value {
    let mut bridge = json!({
        "type": "bridge", "bridge": config.bridge, "isGateway": true, "isDefaultGateway": true, "ipMasq": false,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": config.ipam_dir, "ranges": [[{"subnet": range.to_string()}]]},
    });
    if mtu != 0 {
        bridge["mtu"] = json!(mtu);
    }
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    json!({"cniVersion": "0.4.0", "name": "coxswain", "plugins": [bridge, portmap]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, range: Option<&str>, address: Option<&str>) -> Facts {
        let notes = json!({annotations::MANAGED: "true", annotations::TYPE: "vxlan", annotations::ADDRESS: address,
                           annotations::DATA: r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:0a"}"#});
        let object = json!({"metadata": {"name": name, "annotations": address.map(|_| notes)},
            "spec": {"podCIDR": range},
            "status": {"addresses": address.map(|a| vec![json!({"type": "InternalIP", "address": a})])}});
        Facts::of(&serde_json::from_value(object).expect("a node"))
    }

    fn config(backend: Backend) -> Config {
        Config {
            node_name: "a".into(),
            cluster_cidr: Range::parse("10.244.0.0/16").expect("a range"),
            cni_conf_dir: "/cni".into(),
            ipam_dir: "/ipam".into(),
            bridge: "br".into(),
            mtu: 0,
            backend,
            policies: true,
        }
    }

    fn nodes() -> Vec<Facts> {
        vec![
            node("a", Some("10.244.0.0/24"), Some("192.0.2.1")),
            node("near", Some("10.244.1.0/24"), Some("192.0.2.2")),
            node("far", Some("10.244.2.0/24"), Some("198.51.100.2")),
            node("no-range-yet", None, Some("192.0.2.3")),
            node("no-address-yet", Some("10.244.3.0/24"), None),
        ]
    }

    #[test]
    fn nodes_are_reached_by_route_or_by_tunnel() {
        let underlay = Underlay {
            index: 2,
            mtu: 1500,
            address: "192.0.2.1".parse().expect("an address"),
            segment: Range::parse("192.0.2.0/24").expect("a range"),
        };
        for (backend, expected) in [
            (
                Backend::Auto,
                "10.244.1.0/24 via 192.0.2.2; 10.244.2.0/24 in 198.51.100.2 02:00:00:00:00:0a; 1450",
            ),
            (Backend::HostGw, "10.244.1.0/24 via 192.0.2.2; 10.244.2.0/24 via 198.51.100.2; 1500"),
            (
                Backend::Vxlan,
                "10.244.1.0/24 in 192.0.2.2 02:00:00:00:00:0a; 10.244.2.0/24 in 198.51.100.2 02:00:00:00:00:0a; 1450",
            ),
        ] {
            let made = plan(&config(backend), Some(&underlay), &nodes());
            let routes = made.routes.iter().map(|(range, via)| format!("{range} via {via}"));
            let tunnels = made
                .tunnels
                .iter()
                .map(|(range, end)| format!("{range} in {} {}", end.address, mac_text(end.mac)));
            let mtu = made.cni.expect("a configuration")["plugins"][0]["mtu"].to_string();
            let all: Vec<_> = routes.chain(tunnels).chain([mtu]).collect();
            assert_eq!(all.join("; "), expected, "{backend:?}");
        }
    }

    #[test]
    fn own_range_gives_the_bridge() {
        let made = plan(&config(Backend::Auto), None, &nodes());
        let subnet = &made.cni.expect("a configuration")["plugins"][0]["ipam"]["ranges"][0][0]["subnet"];
        assert_eq!(subnet, "10.244.0.0/24");
        assert_eq!(plan(&config(Backend::Auto), None, &nodes()[1..]).cni, None);
    }

    #[test]
    fn other_networks_and_other_tunnels_do_not_count() {
        for (kind, data, counts) in [
            ("vxlan", r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:0a"}"#, true),
            ("vxlan", r#"{"VtepMAC":"02:00:00:00:00:0a"}"#, true),
            ("vxlan", r#"{"VNI":2,"VtepMAC":"02:00:00:00:00:0a"}"#, false),
            ("host-gw", "null", false),
            ("vxlan", r#"{"VNI":1,"VtepMAC":"02:00"}"#, false),
        ] {
            let object = json!({"metadata": {"name": "b", "annotations": {annotations::MANAGED: "true",
                annotations::TYPE: kind, annotations::DATA: data, annotations::ADDRESS: "192.0.2.2"}}});
            let facts = Facts::of(&serde_json::from_value(object).expect("a node"));
            assert_eq!(facts.endpoint.is_some(), counts, "{kind} {data}");
        }
    }
}
