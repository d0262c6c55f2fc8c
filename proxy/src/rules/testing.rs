//! What tests of both modes begin with: a service, its endpoints, and packets.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::Settings;
use crate::model::{Family, Place};

/// A node of a cluster with one range of pods.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        family: Family::V4,
        place: Place { node: "n1".into(), zone: String::new() },
        cluster_cidr: Some("10.244.0.0/16".into()),
        masquerade_all: false,
        mark: 0x4000,
        localhost_node_ports: true,
    }
}

/// The service `ns/web`.
#[must_use]
pub fn service(spec: &Value) -> Arc<Service> {
    let object = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec});
    Arc::new(serde_json::from_value(object).expect("a service"))
}

/// A slice of it. Endpoints as (address, node, state); state is `ready`, `draining` or `down`.
#[must_use]
pub fn slice(port: u16, endpoints: &[(&str, &str, &str)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node, state)| {
            json!({"addresses": [ip], "nodeName": node, "conditions":
                   {"ready": *state == "ready", "serving": *state != "down", "terminating": *state == "draining"}})
        })
        .collect();
    let object = json!({"metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
                        "addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                        "endpoints": endpoints});
    Arc::new(serde_json::from_value(object).expect("a slice"))
}

/// The first packet of a connection.
pub struct Packet {
    /// Who sends it.
    pub from: &'static str,
    /// To whom.
    pub to: &'static str,
    /// To which port.
    pub port: u16,
}

/// A pod's address.
pub const POD: &str = "10.244.0.9";
/// An address outside of the cluster.
pub const OUTSIDE: &str = "198.51.100.7";
/// The node's address.
pub const NODE: &str = "192.0.2.1";

/// A service with a node port.
#[must_use]
pub fn node_port_spec() -> Value {
    json!({"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
           "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]})
}
