//! Pods as far as packet rules need them: labels, address, ports with names. A tenth of a whole pod in memory.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use client::kube;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::address::Family;

/// A pod, reduced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Name, namespace, labels and what caches need.
    pub metadata: ObjectMeta,
    /// Where it runs; empty if nowhere yet.
    pub node: Box<str>,
    /// Its own IPv4 address; none while it has none, and for pods that have none but their node's.
    pub v4: Option<Ipv4Addr>,
    /// Its own IPv6 address, likewise.
    pub v6: Option<Ipv6Addr>,
    /// Its ports that have names.
    pub ports: Box<[NamedPort]>,
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: Box<str>,
    /// Protocol, in capital letters.
    pub protocol: Box<str>,
    /// The number.
    pub number: u16,
}

impl Pod {
    /// Its own address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// Whether two states of a pod are the same to packet rules.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.metadata.labels, &self.node, self.v4, self.v6, &self.ports)
            == (&other.metadata.labels, &other.node, other.v4, other.v6, &other.ports)
    }
}

impl kube::Resource for Pod {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire {
    metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Container {
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Address>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    ip: String,
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { mut metadata, spec, status } = Wire::deserialize(deserializer)?;
        metadata.managed_fields = None;
        metadata.annotations = None;
        metadata.owner_references = None;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let has_own = !ended && !spec.host_network;
        let listed = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
        let addresses: Vec<_> = listed.chain(status.pod_ip.as_deref()).filter(|_| has_own).collect();
        let containers = spec.containers.into_iter().chain(spec.init_containers.into_iter().flatten());
        let ports = containers.flat_map(|container| container.ports.unwrap_or_default());
        let named = ports.filter(|port| !port.name.is_empty()).map(|port| NamedPort {
            name: port.name.into(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
            number: port.container_port,
        });
        Ok(Self {
            metadata,
            node: spec.node_name.into(),
            v4: addresses.iter().find_map(|ip| ip.parse().ok()),
            v6: addresses.iter().find_map(|ip| ip.parse().ok()),
            ports: named.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_has_an_address_of_each_family_while_it_lives_on_a_network_of_its_own() {
        for (spec, status, expected) in [
            (json!({}), json!({"podIP": "10.1.0.2"}), (Some("10.1.0.2"), None)),
            (json!({}), json!({"podIP": "fd00::2", "podIPs": [{"ip": "fd00::2"}]}), (None, Some("fd00::2"))),
            (
                json!({}),
                json!({"podIP": "fd00::2", "podIPs": [{"ip": "fd00::2"}, {"ip": "10.1.0.2"}]}),
                (Some("10.1.0.2"), Some("fd00::2")),
            ),
            (json!({"hostNetwork": true}), json!({"podIP": "192.0.2.1"}), (None, None)),
            (json!({}), json!({"podIP": "10.1.0.2", "phase": "Succeeded"}), (None, None)),
        ] {
            let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
            let pod: Pod = serde_json::from_value(object).expect("a pod");
            let text = |family| pod.address(family).map(|ip| ip.to_string());
            let found = (text(Family::V4), text(Family::V6));
            assert_eq!((found.0.as_deref(), found.1.as_deref()), expected, "{status}");
        }
    }
}
