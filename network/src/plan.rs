//! What a node's pod network should be, from the Node objects. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::address::{Families, Family, Range};
use crate::flags::Config;

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
    use crate::address::Family;

    /// Set to `true` where a node takes part.
    pub const MANAGED: &str = "flannel.alpha.coreos.com/kube-subnet-manager";
    /// The kind of tunnel.
    pub const TYPE: &str = "flannel.alpha.coreos.com/backend-type";

    /// What others must know of the node's end of the tunnel.
    #[must_use]
    pub fn data(family: Family) -> &'static str {
        match family {
            Family::V4 => "flannel.alpha.coreos.com/backend-data",
            Family::V6 => "flannel.alpha.coreos.com/backend-v6-data",
        }
    }

    /// The address that the tunnel leads to.
    #[must_use]
    pub fn address(family: Family) -> &'static str {
        match family {
            Family::V4 => "flannel.alpha.coreos.com/public-ip",
            Family::V6 => "flannel.alpha.coreos.com/public-ipv6",
        }
    }
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
    pub address: IpAddr,
    /// The tunnel's own address there.
    pub mac: Mac,
}

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// What it has of each family.
    pub sides: Families<Side>,
}

/// What a Node has of one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Its pods' range, once it has one.
    pub range: Option<Range>,
    /// The address at which other nodes reach it.
    pub address: Option<IpAddr>,
    /// Its end of the tunnel, once it has one.
    pub endpoint: Option<Endpoint>,
}

impl Facts {
    /// Reads a Node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            sides: Families::from_fn(|family| Side::of(node, family)),
        }
    }
}

impl Side {
    fn of(node: &Node, family: Family) -> Self {
        let spec = node.spec.as_ref();
        let ranges = spec.and_then(|s| s.pod_cidrs.as_ref()).into_iter().flatten();
        let ranges = ranges.chain(spec.and_then(|s| s.pod_cidr.as_ref())).filter_map(|r| Range::parse(r));
        let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref()).into_iter().flatten();
        let addresses =
            addresses.filter(|a| a.type_ == "InternalIP").filter_map(|a| a.address.parse::<IpAddr>().ok());
        Self {
            range: ranges.into_iter().find(|range| range.family() == family),
            address: addresses.into_iter().find(|address| Family::of(*address) == family),
            endpoint: endpoint(node, family),
        }
    }
}

fn endpoint(node: &Node, family: Family) -> Option<Endpoint> {
    let notes = node.metadata.annotations.as_ref()?;
    if notes.get(annotations::MANAGED)? != "true" || notes.get(annotations::TYPE)? != "vxlan" {
        return None;
    }
    let data: Value = serde_json::from_str(notes.get(annotations::data(family))?).ok()?;
    let mac = parse_mac(data["VtepMAC"].as_str()?)?;
    let same_network = data["VNI"].is_null() || data["VNI"] == json!(VNI);
    let address: IpAddr = notes.get(annotations::address(family))?.parse().ok()?;
    (same_network && Family::of(address) == family).then_some(Endpoint { address, mac })
}

/// The number of the tunnel's network.
pub const VNI: u32 = 1;

/// What a tunnel adds to a packet: the outer headers, of which IPv6's is the longer.
fn overhead(family: Family) -> u32 {
    match family {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}

/// The network card that one of this node's own addresses is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its number.
    pub index: u32,
    /// The largest packet it takes.
    pub mtu: u32,
    /// This node's address.
    pub address: IpAddr,
    /// The addresses of its segment.
    pub segment: Range,
}

/// What this node should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The CNI configuration; none while this node has no range.
    pub cni: Option<Value>,
    /// The ways to other nodes' pods.
    pub ways: Families<Ways>,
    /// The largest packet of the pod network; 0 if unknown.
    pub mtu: u32,
}

/// The ways to other nodes' pods, by addresses of one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ways {
    /// This node's range.
    pub range: Option<Range>,
    /// Ranges of nodes on this segment, and the nodes they are reached through.
    pub routes: BTreeMap<Range, IpAddr>,
    /// Ranges of other nodes, and where the tunnel to them ends.
    pub tunnels: BTreeMap<Range, Endpoint>,
    /// Whether this node needs an end of the tunnel: other nodes may not have theirs yet.
    pub tunnel: bool,
}

/// Decides.
#[must_use]
pub fn plan(config: &Config, underlays: &Families<Option<Underlay>>, nodes: &[Facts]) -> Plan {
    let ways = Families::from_fn(|family| {
        let is_used = config.cluster_cidr(family).is_some();
        if is_used { ways(config, family, underlays.of(family).as_ref(), nodes) } else { Ways::default() }
    });
    let mtu = match config.mtu {
        0 => mtu(&ways, underlays),
        given => given,
    };
    // As the cluster has them: a pod's first address is of the first.
    let ranges: Vec<_> =
        config.cluster_cidrs.iter().filter_map(|cidr| ways.of(cidr.family()).range).collect();
    Plan { cni: (!ranges.is_empty()).then(|| cni(config, &ranges, mtu)), ways, mtu }
}

fn ways(config: &Config, family: Family, underlay: Option<&Underlay>, nodes: &[Facts]) -> Ways {
    let mut ways = Ways { tunnel: config.backend == Backend::Vxlan, ..Ways::default() };
    for node in nodes {
        let side = node.sides.of(family);
        if node.name == config.node_name {
            ways.range = side.range;
            continue;
        }
        let (Some(range), Some(address)) = (side.range, side.address) else { continue };
        let near = underlay.is_none_or(|underlay| underlay.segment.contains(address));
        match config.backend {
            Backend::Auto if near => _ = ways.routes.insert(range, address),
            Backend::HostGw => _ = ways.routes.insert(range, address),
            Backend::Auto | Backend::Vxlan => {
                ways.tunnel = true;
                ways.tunnels.extend(side.endpoint.map(|end| (range, end)));
            }
        }
    }
    ways
}

/// One for both families: they share the bridge.
fn mtu(ways: &Families<Ways>, underlays: &Families<Option<Underlay>>) -> u32 {
    let taken = |family| {
        let underlay = underlays.of(family).as_ref()?;
        let extra = if ways.of(family).tunnel { overhead(family) } else { 0 };
        Some(underlay.mtu.saturating_sub(extra))
    };
    Family::BOTH.into_iter().filter_map(taken).min().unwrap_or(0)
}

fn cni(config: &Config, ranges: &[Range], mtu: u32) -> Value {
    let ranges: Vec<_> = ranges.iter().map(|range| json!([{"subnet": range.to_string()}])).collect();
    let mut bridge = json!({
        "type": "bridge", "bridge": config.bridge, "isGateway": true, "isDefaultGateway": true, "ipMasq": false,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": config.ipam_dir, "ranges": ranges},
    });
    if mtu != 0 {
        bridge["mtu"] = json!(mtu);
    }
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    json!({"cniVersion": "0.4.0", "name": "coxswain", "plugins": [bridge, portmap]})
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
