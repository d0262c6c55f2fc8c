//! Where a node's kubelet listens, and connections to it (upstream `pkg/kubelet/client`).

use std::sync::Arc;

use api::names::GroupResource;
use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey, SharedInformerFactory};
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use super::dial::{Connection, Dialer, Error};
use crate::config::KubeletClientConfig;
use crate::remote::Dialer as Way;

const DEFAULT_PORT: u16 = 10250;

/// Connects to kubelets.
pub struct Kubelets {
    client: Client,
    nodes: Informer<Node>,
    address_types: Vec<String>,
    verified: Dialer,
    unverified: Dialer,
}

/// Where one kubelet listens: its addresses in the order they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Host names or addresses.
    pub hosts: Vec<String>,
    /// Port.
    pub port: u16,
}

impl Location {
    /// The first host, in a form that fits into a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(self.hosts.first().map(String::as_str).unwrap_or_default(), self.port)
    }
}

/// `host:port`, with brackets around an IPv6 address.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Kubelets {
    pub(super) fn new(
        client: Client,
        informers: &SharedInformerFactory,
        config: &KubeletClientConfig,
        way: &Way,
    ) -> Result<Self, Error> {
        Ok(Self {
            client,
            nodes: informers.informer(),
            address_types: config.preferred_address_types.clone(),
            verified: Dialer::kubelet(config, true, way.clone())?,
            unverified: Dialer::kubelet(config, false, way.clone())?,
        })
    }

    /// Where the kubelet of a node listens. As upstream's, an absent node is reported as an absent object of the
    /// resource asked for (`pods` or `nodes`).
    pub async fn locate(&self, name: &str, resource: &'static str) -> Result<Location, ApiError> {
        if let Some(node) = self.nodes.store().get(&ObjectKey::new("", name)) {
            return self.location(&node);
        }
        let found = Api::<Node>::all(self.client.clone()).get_opt(name).await;
        match found.map_err(crate::authz::from_client)? {
            Some(node) => self.location(&Arc::new(node)),
            None => Err(ApiError::not_found(&GroupResource::new("", resource), name)),
        }
    }

    fn location(&self, node: &Node) -> Result<Location, ApiError> {
        location(node, &self.address_types).map_err(|why| ApiError::new(500, "", why))
    }

    /// Opens a TLS connection.
    pub async fn connect(&self, location: &Location, verify: bool) -> std::io::Result<Box<dyn Connection>> {
        let dialer = if verify { &self.verified } else { &self.unverified };
        let mut first = None;
        for host in &location.hosts {
            match dialer.connect(host, location.port, true).await {
                Ok(connection) => return Ok(connection),
                // The next address may do. If none does, the one that was to be used says why.
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| std::io::Error::other("no address")))
    }
}

fn location(node: &Node, types: &[String]) -> Result<Location, String> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let preferred =
        types.iter().flat_map(|wanted| addresses.iter().filter(move |address| address.type_ == *wanted));
    let mut hosts: Vec<String> = Vec::new();
    for address in preferred {
        if !hosts.contains(&address.address) {
            hosts.push(address.address.clone());
        }
    }
    if hosts.is_empty() {
        let known: Vec<_> =
            addresses.iter().map(|address| format!("{{{} {}}}", address.type_, address.address)).collect();
        return Err(format!("no preferred addresses found; known addresses: [{}]", known.join(" ")));
    }
    let endpoint = status.and_then(|status| status.daemon_endpoints.as_ref());
    let port =
        endpoint.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref()).map(|endpoint| endpoint.port);
    let port =
        port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(DEFAULT_PORT);
    // Addresses need no name service: they are tried first among equals of the list.
    hosts.sort_by_key(|host| host.parse::<std::net::IpAddr>().is_err());
    Ok(Location { hosts, port })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(status: serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": status})).expect("node")
    }

    #[test]
    fn the_node_says_where_its_kubelet_is() {
        let types = ["Hostname", "InternalIP"].map(str::to_owned);
        let status = json!({
            "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}, {"type": "Hostname", "address": "n1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}}});
        let found = location(&node(status), &types).expect("location");
        assert_eq!(found, Location { hosts: vec!["10.1.1.1".into(), "n1".into()], port: 10260 });
        let found = location(&node(json!({"addresses": [{"type": "Hostname", "address": "n1"}]})), &types);
        assert_eq!(found.expect("location").port, DEFAULT_PORT);
        let error =
            location(&node(json!({"addresses": [{"type": "ExternalIP", "address": "1.2.3.4"}]})), &types);
        assert_eq!(
            error.expect_err("none preferred"),
            "no preferred addresses found; known addresses: [{ExternalIP 1.2.3.4}]"
        );
    }

    #[test]
    fn addresses_are_written_as_in_urls() {
        assert_eq!(authority("10.1.1.1", 1), "10.1.1.1:1");
        assert_eq!(authority("fd00::1", 1), "[fd00::1]:1");
    }
}
