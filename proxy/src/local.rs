//! What is told apart by configuration: traffic of this node's pods from other, and addresses that node ports are on
//! from others.

use std::net::IpAddr;

use crate::model::{Family, Place, range_has};

/// How traffic of pods is told from other, as configured (upstream's detect-local modes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalMode {
    /// It comes from these ranges, at most one of each family: those of all pods of the cluster.
    ClusterCidr(Vec<String>),
    /// It comes from the ranges of this node's pods.
    NodeCidr,
    /// It comes through this bridge.
    Bridge(String),
    /// It comes through network cards whose names begin so.
    Prefix(String),
}

/// How it is told in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// It cannot be told.
    Unknown,
    /// By the range it comes from.
    From(String),
    /// By the network card it comes through.
    Through(String),
    /// By the beginning of that card's name.
    ThroughAny(String),
}

impl LocalMode {
    /// How it is told in a family, at a place.
    #[must_use]
    pub fn of(&self, family: Family, place: &Place) -> Local {
        let range = |ranges: &[String]| {
            let own = ranges.iter().find(|range| range.contains(':') == (family == Family::V6));
            own.cloned().map_or(Local::Unknown, Local::From)
        };
        match self {
            Self::ClusterCidr(ranges) => range(ranges),
            Self::NodeCidr => range(&place.pod_cidrs),
            Self::Bridge(name) => Local::Through(name.clone()),
            Self::Prefix(prefix) => Local::ThroughAny(prefix.clone()),
        }
    }
}

impl Local {
    /// What matches it in a rule of iptables, or what matches all else; none if it cannot be told.
    #[must_use]
    pub fn iptables(&self, is_local: bool) -> Option<String> {
        let condition = match self {
            Self::Unknown => return None,
            Self::From(range) => format!("-s {range}"),
            Self::Through(name) => format!("-i {name}"),
            Self::ThroughAny(prefix) => format!("-i {prefix}+"),
        };
        Some(if is_local { condition } else { format!("! {condition}") })
    }

    /// The same in a rule of nftables.
    #[must_use]
    pub fn nftables(&self, is_local: bool) -> Option<String> {
        let (what, value) = match self {
            Self::Unknown => return None,
            Self::From(range) if range.contains(':') => ("ip6 saddr", range.clone()),
            Self::From(range) => ("ip saddr", range.clone()),
            Self::Through(name) => ("iifname", name.clone()),
            Self::ThroughAny(prefix) => ("iifname", format!("{prefix}*")),
        };
        Some(if is_local { format!("{what} {value}") } else { format!("{what} != {value}") })
    }
}

/// Which of the node's addresses node ports are on, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All.
    Everywhere,
    /// Those that the Node shows.
    Primary,
    /// Those in these ranges.
    Ranges(Vec<String>),
}

/// Which they are in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePorts {
    /// All.
    Everywhere,
    /// These.
    At(Vec<IpAddr>),
}

impl NodePortAddresses {
    /// Which they are in a family, at a place; `own` are all addresses of this machine. As upstream: a family of which
    /// nothing is said has them on all.
    #[must_use]
    pub fn of(&self, family: Family, place: &Place, own: &[IpAddr]) -> NodePorts {
        match self {
            Self::Everywhere => NodePorts::Everywhere,
            Self::Primary => {
                let primary = place.addresses.iter().copied().find(|ip| family.has(ip) && !ip.is_loopback());
                primary.map_or(NodePorts::Everywhere, |ip| NodePorts::At(vec![ip]))
            }
            Self::Ranges(ranges) => {
                let ranges = of_family(ranges, family);
                if ranges.is_empty() || ranges.iter().any(|range| range.ends_with("/0")) {
                    return NodePorts::Everywhere;
                }
                let is_in = |ip: &IpAddr| ranges.iter().any(|range| range_has(range, *ip));
                NodePorts::At(own.iter().copied().filter(is_in).collect())
            }
        }
    }

    /// Whether node ports may be on loopback addresses of IPv4.
    #[must_use]
    pub fn have_loopback(&self) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Primary => false,
            Self::Ranges(ranges) => {
                let ranges = of_family(ranges, Family::V4);
                let loopback =
                    |range: &&String| range.starts_with("127.") || range_has(range, [127, 0, 0, 0].into());
                ranges.is_empty() || ranges.iter().any(loopback)
            }
        }
    }
}

fn of_family(ranges: &[String], family: Family) -> Vec<&String> {
    ranges.iter().filter(|range| range.contains(':') == (family == Family::V6)).collect()
}

/// All addresses of this machine, as `ip -o addr` prints them.
#[must_use]
pub fn read_addresses(text: &str) -> Vec<IpAddr> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let addresses = words.filter_map(|words| match words.as_slice() {
        [_, _, "inet" | "inet6", address, ..] => address.split('/').next()?.parse().ok(),
        _ => None,
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address")).into();
        Place { addresses, pod_cidrs: vec!["10.244.7.0/24".into()], ..Place::default() }
    }

    #[test]
    fn pods_are_known_by_where_they_come_from() {
        let both = || vec!["10.244.0.0/16".to_owned(), "fd00:244::/56".to_owned()];
        for (mode, family, is_local, iptables, nftables) in [
            (LocalMode::ClusterCidr(both()), Family::V4, true, "-s 10.244.0.0/16", "ip saddr 10.244.0.0/16"),
            (
                LocalMode::ClusterCidr(both()),
                Family::V6,
                false,
                "! -s fd00:244::/56",
                "ip6 saddr != fd00:244::/56",
            ),
            (LocalMode::NodeCidr, Family::V4, true, "-s 10.244.7.0/24", "ip saddr 10.244.7.0/24"),
            (LocalMode::NodeCidr, Family::V6, true, "", ""),
            (LocalMode::ClusterCidr(vec![]), Family::V4, true, "", ""),
            (LocalMode::Bridge("br0".into()), Family::V6, false, "! -i br0", "iifname != br0"),
            (LocalMode::Prefix("veth".into()), Family::V4, true, "-i veth+", "iifname veth*"),
        ] {
            let local = mode.of(family, &place());
            assert_eq!(local.iptables(is_local).unwrap_or_default(), iptables, "{mode:?}");
            assert_eq!(local.nftables(is_local).unwrap_or_default(), nftables, "{mode:?}");
        }
    }

    #[test]
    fn node_ports_are_on_the_addresses_that_were_named() {
        let own = read_addresses(
            "1: lo    inet 127.0.0.1/8 scope host lo\n2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\n\
             2: eth0    inet6 2001:db8::1/64 scope global\n3: eth1    inet 198.51.100.1/24 scope global eth1\n",
        );
        assert_eq!(own.len(), 4);
        let ranges =
            |list: &[&str]| NodePortAddresses::Ranges(list.iter().map(|r| (*r).to_owned()).collect());
        for (configured, v4, v6, loopback) in [
            (NodePortAddresses::Everywhere, "all", "all", true),
            (NodePortAddresses::Primary, "192.0.2.1", "2001:db8::1", false),
            (ranges(&["192.0.2.0/24"]), "192.0.2.1", "all", false),
            (ranges(&["192.0.2.0/24", "127.0.0.0/8"]), "127.0.0.1 192.0.2.1", "all", true),
            (ranges(&["0.0.0.0/0"]), "all", "all", true),
            (ranges(&["2001:db8::/32"]), "all", "2001:db8::1", true),
            (ranges(&["203.0.113.0/24"]), "", "all", false),
        ] {
            let shown = |family| match configured.of(family, &place(), &own) {
                NodePorts::Everywhere => "all".to_owned(),
                NodePorts::At(ips) => ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            };
            assert_eq!((shown(Family::V4).as_str(), shown(Family::V6).as_str()), (v4, v6), "{configured:?}");
            assert_eq!(configured.have_loopback(), loopback, "{configured:?}");
        }
    }
}
