//! Turns pods into endpoints.

use crate::common::{meta, pods, services};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use std::net::IpAddr;

/// The zone of a node.
pub fn zone(node: &Node) -> Option<&str> {
    meta::label(&node.metadata, "topology.kubernetes.io/zone").filter(|zone| !zone.is_empty())
}

/// The kinds of addresses that a Service has: `IPv4`, `IPv6` or both.
pub fn address_types(service: &Service) -> Vec<&'static str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut types: Vec<_> = families.iter().filter_map(|family| known(family)).collect();
    if types.is_empty() {
        types = match services::cluster_ip(service) {
            ip if services::has_cluster_ip(service) => vec![if ip.contains(':') { "IPv6" } else { "IPv4" }],
            _ => vec!["IPv4", "IPv6"],
        };
    }
    types.sort_unstable();
    types.dedup();
    types
}

fn known(family: &str) -> Option<&'static str> {
    ["IPv4", "IPv6"].into_iter().find(|known| *known == family)
}

/// The pod as an endpoint; `None` when it has no address of that type.
pub fn endpoint(pod: &Pod, node: Option<&Node>, service: &Service, address_type: &str) -> Option<Endpoint> {
    let addresses: Vec<_> = services::pod_ips(pod)
        .into_iter()
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
        .filter(|ip| ip.is_ipv6() == (address_type == "IPv6"))
        .map(|ip| ip.to_string())
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let serving = pods::is_ready(pod);
    let terminating = meta::is_deleting(&pod.metadata);
    let ready = services::publishes_not_ready(service) || (serving && !terminating);
    let mut endpoint = Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: services::hostname(pod, service).map(str::to_owned),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        zone: node.and_then(zone).map(str::to_owned),
        ..Default::default()
    };
    endpoint.hints = hints(&endpoint, service, ready);
    Some(endpoint)
}

/// Which clients should prefer the endpoint, by the Service's traffic distribution.
fn hints(endpoint: &Endpoint, service: &Service, ready: bool) -> Option<EndpointHints> {
    let wish = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let by_node = match wish {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let zone = endpoint.zone.as_ref().map(|name| vec![ForZone { name: name.clone() }]);
    let node =
        endpoint.node_name.as_ref().filter(|_| by_node).map(|name| vec![ForNode { name: name.clone() }]);
    (ready && (zone.is_some() || node.is_some()))
        .then_some(EndpointHints { for_zones: zone, for_nodes: node })
}

/// The ports of the Service as this pod has them; a named port that the pod lacks is left out.
pub fn ports(pod: &Pod, service: &Service) -> Vec<EndpointPort> {
    let resolved = services::ports(service).iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(services::target_port(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    resolved.collect()
}
