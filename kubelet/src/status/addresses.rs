//! Addresses of a pod and of its node, as the pod's status has them: one of each family at most, that of the node's
//! own family first.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};

use super::generate::StatusInput;
use crate::types;

/// Of the addresses that the runtime shows the first of each family, the node's own family first (upstream's
/// `sortPodIPs`). What is no address is left out.
#[must_use]
pub fn in_order(shown: &[String], node: &[IpAddr]) -> Vec<String> {
    let shown: Vec<IpAddr> = shown.iter().filter_map(|ip| ip.parse().ok()).collect();
    let first_is_v6 = node.first().is_some_and(IpAddr::is_ipv6);
    let of_family = |v6: bool| shown.iter().find(|ip| ip.is_ipv6() == v6);
    [first_is_v6, !first_is_v6].into_iter().filter_map(of_family).map(ToString::to_string).collect()
}

/// Writes them into a status.
pub(super) fn set(input: &StatusInput<'_>, old: &PodStatus, status: &mut PodStatus) {
    let host: Vec<String> = input.host_ips.iter().take(2).map(ToString::to_string).collect();
    status.host_ip = host.first().cloned();
    status.host_ips = some(host.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let published: Vec<_> = old.pod_ips.iter().flatten().map(|i| i.ip.clone()).collect();
    let ips = if types::host_network(input.pod) {
        on_the_node(published, host)
    } else if input.observed.ips.is_empty() && input.observed.sandboxes.iter().all(|s| !s.ready) {
        // Its addresses are what an ended pod is still known by.
        published
    } else {
        in_order(&input.observed.ips, input.host_ips)
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips = some(ips.into_iter().map(|ip| PodIP { ip }).collect());
}

/// Once published they do not change, though the node's may; only an address of the other family may come to them.
fn on_the_node(published: Vec<String>, host: Vec<String>) -> Vec<String> {
    let is_v6 = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    match (published.as_slice(), host.as_slice()) {
        ([], _) => host,
        ([one], [_, second]) if is_v6(one) != is_v6(second) => vec![one.clone(), second.clone()],
        _ => published,
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_first_of_each_family_and_the_nodes_own_family_first() {
        let (v4, v6) = ("10.0.0.1", "fd01::1234");
        for (what, node, shown, expected) in [
            ("one", "", vec![v4], vec![v4]),
            ("two", "", vec![v4, v6], vec![v4, v6]),
            ("two, and a node of IPv4", "192.168.1.1", vec![v4, v6], vec![v4, v6]),
            ("the other first", "", vec![v6, v4], vec![v4, v6]),
            ("the other first, and a node of IPv4", "192.168.1.1", vec![v6, v4], vec![v4, v6]),
            ("a node of IPv6", "fd00::5678", vec![v4, v6], vec![v6, v4]),
            ("a node of IPv6, the other first", "fd00::5678", vec![v6, v4], vec![v6, v4]),
            ("none of the node's family", "fd00::5678", vec![v4], vec![v4]),
            ("none of IPv4", "", vec![v6], vec![v6]),
            ("many of one family", "", vec![v4, "10.0.0.2", "10.0.0.3"], vec![v4]),
            ("many of both", "", vec![v4, "10.0.0.2", v6, "10.0.0.3", "fd01::5678"], vec![v4, v6]),
            ("in long form", "", vec!["fd01:0:0:0:0:0:0:1234"], vec![v6]),
            ("no address", "", vec!["", v6], vec![v6]),
        ] {
            let node: Vec<IpAddr> = node.parse().into_iter().collect();
            assert_eq!(in_order(&owned(&shown), &node), owned(&expected), "{what}");
        }
    }

    #[test]
    fn on_the_nodes_network_addresses_stay_but_for_one_of_the_other_family() {
        for (published, host, expected) in [
            (vec![], vec!["192.0.2.1"], vec!["192.0.2.1"]),
            (vec![], vec!["192.0.2.1", "fd00::1"], vec!["192.0.2.1", "fd00::1"]),
            (vec!["192.0.2.1"], vec!["192.0.2.9"], vec!["192.0.2.1"]),
            (vec!["192.0.2.1"], vec!["192.0.2.1", "fd00::1"], vec!["192.0.2.1", "fd00::1"]),
            (vec!["192.0.2.1"], vec!["fd00::1", "192.0.2.1"], vec!["192.0.2.1"]),
            (vec!["192.0.2.1", "fd00::1"], vec!["192.0.2.9", "fd00::9"], vec!["192.0.2.1", "fd00::1"]),
        ] {
            assert_eq!(
                on_the_node(owned(&published), owned(&host)),
                owned(&expected),
                "{published:?} on {host:?}"
            );
        }
    }
}
