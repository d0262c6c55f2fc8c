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
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
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
        Self { name: node.metadata.name.clone().unwrap_or_default(), range, address }
    }
}

/// What this node should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The CNI configuration; none while this node has no range.
    pub cni: Option<Value>,
    /// Other nodes' ranges and the nodes they are reached through.
    pub routes: BTreeMap<Range, Ipv4Addr>,
}

/// Decides.
#[must_use]
pub fn plan(config: &Config, nodes: &[Facts]) -> Plan {
    let mut plan = Plan::default();
    for node in nodes {
        let Some(range) = node.range else { continue };
        if node.name == config.node_name {
            plan.cni = Some(cni(config, range));
        } else if let Some(address) = node.address {
            plan.routes.insert(range, address);
        }
    }
    plan
}

fn cni(config: &Config, range: Range) -> Value {
    let mut bridge = json!({
        "type": "bridge", "bridge": config.bridge, "isGateway": true, "isDefaultGateway": true, "ipMasq": false,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": config.ipam_dir, "ranges": [[{"subnet": range.to_string()}]]},
    });
    if config.mtu != 0 {
        bridge["mtu"] = json!(config.mtu);
    }
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    json!({"cniVersion": "0.4.0", "name": "coxswain", "plugins": [bridge, portmap]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, range: Option<&str>, address: Option<&str>) -> Facts {
        let object = json!({"metadata": {"name": name}, "spec": {"podCIDR": range},
            "status": {"addresses": address.map(|a| vec![json!({"type": "InternalIP", "address": a})])}});
        Facts::of(&serde_json::from_value(object).expect("a node"))
    }

    #[test]
    fn own_range_gives_the_bridge_and_other_nodes_give_routes() {
        let config = Config {
            node_name: "a".into(),
            cluster_cidr: Range::parse("10.244.0.0/16").expect("a range"),
            cni_conf_dir: "/cni".into(),
            ipam_dir: "/ipam".into(),
            bridge: "br".into(),
            mtu: 0,
        };
        let nodes = [
            node("a", Some("10.244.0.0/24"), Some("192.0.2.1")),
            node("b", Some("10.244.1.0/24"), Some("192.0.2.2")),
            node("no-range-yet", None, Some("192.0.2.3")),
            node("no-address-yet", Some("10.244.3.0/24"), None),
        ];
        let made = plan(&config, &nodes);
        let routes: Vec<_> = made.routes.iter().map(|(r, a)| format!("{r} via {a}")).collect();
        assert_eq!(routes, ["10.244.1.0/24 via 192.0.2.2"]);
        let subnet = &made.cni.expect("a configuration")["plugins"][0]["ipam"]["ranges"][0][0]["subnet"];
        assert_eq!(subnet, "10.244.0.0/24");
        assert_eq!(plan(&config, &nodes[1..]).cni, None);
    }
}
