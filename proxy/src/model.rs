//! Services and their endpoints, as the rules need them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// An address family; rules of the two never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The address that stands for all of a machine.
    #[must_use]
    pub fn any(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Whether the address is of this family.
    #[must_use]
    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    /// As iptables writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Which port of which service: `namespace/name:port`, or `namespace/name` for an unnamed port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName(pub String);

impl std::fmt::Display for PortName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One port of one service, with everything that leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name.
    pub name: PortName,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The service's address.
    pub cluster_ip: IpAddr,
    /// The service's port.
    pub port: u16,
    /// Port on every node.
    pub node_port: Option<u16>,
    /// Further addresses that lead to it.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that keep the destination address.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer addresses; everybody if empty.
    pub source_ranges: Vec<String>,
    /// For how many seconds a client stays with its endpoint; none without affinity.
    pub affinity_seconds: Option<u32>,
    /// External traffic only to endpoints on this node.
    pub external_local: bool,
    /// Internal traffic only to endpoints on this node.
    pub internal_local: bool,
    /// Port where the node says whether it has endpoints.
    pub health_check_port: Option<u16>,
    /// Its endpoints, ordered by address.
    pub endpoints: Vec<Endpoint>,
}

/// One place that serves a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Whether new connections should go there.
    pub ready: bool,
    /// Whether it can still serve.
    pub serving: bool,
    /// Whether it is shutting down.
    pub terminating: bool,
    /// Whether it is on this node.
    pub local: bool,
    /// The zones that should use it; empty if not said.
    pub zone_hints: BTreeSet<String>,
    /// The nodes that should use it; empty if not said.
    pub node_hints: BTreeSet<String>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// Where this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the Node.
    pub node: String,
    /// Its zone; empty if unknown.
    pub zone: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The address ranges of its pods.
    pub pod_cidrs: Vec<String>,
}

/// All service ports of a family, by name, from the objects as they are now.
#[must_use]
pub fn build(
    family: Family,
    place: &Place,
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) -> BTreeMap<PortName, ServicePort> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|l| l.get(SERVICE_NAME)) else { continue };
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        by_service.entry((namespace, service)).or_default().push(slice);
    }
    let mut ports = BTreeMap::new();
    for service in services {
        let (namespace, name) = (
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default(),
        );
        let slices = by_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        for mut port in service_ports(family, service) {
            let wanted = port.1;
            port.0.endpoints = endpoints(family, place, slices, wanted);
            ports.insert(port.0.name.clone(), port.0);
        }
    }
    ports
}

/// The ports of a service, without endpoints; none if this proxy is not responsible for it.
fn service_ports(family: Family, service: &Service) -> Vec<(ServicePort, &ApiPort)> {
    let Some(spec) = &service.spec else { return vec![] };
    let labels = service.metadata.labels.as_ref();
    if labels.is_some_and(|l| l.contains_key(PROXY_NAME) || l.contains_key(HEADLESS)) {
        return vec![];
    }
    if spec.type_.as_deref() == Some("ExternalName") {
        return vec![];
    }
    let ips = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter());
    let Some(cluster_ip) = ips.filter_map(|ip| ip.parse().ok()).find(|ip| family.has(ip)) else {
        return vec![];
    };
    let of_family = |texts: &mut dyn Iterator<Item = &String>| -> Vec<IpAddr> {
        texts.filter_map(|t| t.parse().ok()).filter(|ip| family.has(ip)).collect()
    };
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|s| s.ingress.as_ref()).into_iter().flatten();
    let load_balancer_ips = of_family(
        &mut ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_ref()),
    );
    let source_ranges = spec.load_balancer_source_ranges.iter().flatten().map(|r| r.trim().to_owned());
    let source_ranges: Vec<_> = source_ranges.filter(|r| r.contains(':') == (family == Family::V6)).collect();
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
    });
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let key = format!(
        "{}/{}",
        service.metadata.namespace.as_deref().unwrap_or_default(),
        service.metadata.name.as_deref().unwrap_or_default()
    );
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let name = match port.name.as_deref() {
            None | Some("") => key.clone(),
            Some(name) => format!("{key}:{name}"),
        };
        let built = ServicePort {
            name: PortName(name),
            protocol: Protocol::parse(port.protocol.as_deref()),
            cluster_ip,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
            external_ips: of_family(&mut spec.external_ips.iter().flatten()),
            load_balancer_ips: load_balancer_ips.clone(),
            source_ranges: source_ranges.clone(),
            affinity_seconds: affinity,
            external_local,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            health_check_port: spec
                .health_check_node_port
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| *p != 0 && external_local),
            endpoints: vec![],
        };
        Some((built, port))
    });
    ports.collect()
}

/// The endpoints for a port: the slices say its number under the port's *name*; `targetPort` plays no part.
fn endpoints(family: Family, place: &Place, slices: &[&EndpointSlice], port: &ApiPort) -> Vec<Endpoint> {
    let wanted_name = port.name.as_deref().unwrap_or_default();
    let wanted_protocol = Protocol::parse(port.protocol.as_deref());
    let mut found = BTreeMap::new();
    for slice in slices {
        let numbers = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == wanted_name
                && Protocol::parse(p.protocol.as_deref()) == wanted_protocol
        });
        for number in numbers.filter_map(|p| p.port).filter_map(|p| u16::try_from(p).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                let ip = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
                let Some(ip) = ip.filter(|ip| family.has(ip)) else { continue };
                found.insert((ip, number), one_endpoint(place, endpoint, ip, number));
            }
        }
    }
    found.into_values().collect()
}

fn one_endpoint(place: &Place, endpoint: &ApiEndpoint, ip: IpAddr, port: u16) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.clone().unwrap_or_default();
    Endpoint {
        ip,
        port,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(place.node.as_str()),
        zone_hints: hints.for_zones.into_iter().flatten().map(|z| z.name).collect(),
        node_hints: hints.for_nodes.into_iter().flatten().map(|n| n.name).collect(),
    }
}

/// Whether a range, such as `203.0.113.0/24`, has an address.
pub(crate) fn range_has(range: &str, address: IpAddr) -> bool {
    let (base, prefix) = range.split_once('/').unwrap_or((range, "128"));
    let (Ok(base), Ok(prefix)) = (base.parse::<IpAddr>(), prefix.parse::<u32>()) else { return false };
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    base.is_ipv4() == address.is_ipv4() && (bits(base) ^ bits(address)).leading_zeros() >= prefix
}

/// Which endpoints of a port traffic may go to from this node (upstream `CategorizeEndpoints`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usable<'a> {
    /// For traffic that may go to any node.
    pub cluster: Vec<&'a Endpoint>,
    /// For traffic that must stay on this node.
    pub local: Vec<&'a Endpoint>,
    /// Both, each once.
    pub all: Vec<&'a Endpoint>,
    /// Whether any endpoint anywhere can be used.
    pub any: bool,
}

impl ServicePort {
    /// Where it can be reached, node ports aside.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let others = self.external_ips.iter().chain(&self.load_balancer_ips);
        std::iter::once(&self.cluster_ip).chain(others).map(|ip| SocketAddr::new(*ip, self.port))
    }

    /// Sources that are this node, beside those that the service names. Where a load balancer's address is one of the
    /// node's too, what the node sends to it does not leave, and comes from that address: if the node itself is among
    /// the sources, that must count as the node.
    #[must_use]
    pub fn own_sources(&self, place: &Place) -> &[IpAddr] {
        let holds = |range: &str| place.addresses.iter().any(|ip| range_has(range, *ip));
        if self.source_ranges.iter().any(|range| holds(range)) { &self.load_balancer_ips } else { &[] }
    }

    /// Whether anything but the cluster address leads here.
    #[must_use]
    pub fn externally_accessible(&self) -> bool {
        self.node_port.is_some() || !self.load_balancer_ips.is_empty() || !self.external_ips.is_empty()
    }

    /// Whether some traffic may go to any node.
    #[must_use]
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }

    /// Whether some traffic must stay on this node.
    #[must_use]
    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || (self.external_local && self.externally_accessible())
    }

    /// Sorts the endpoints out for a node at `place`.
    #[must_use]
    pub fn usable(&self, place: &Place) -> Usable<'_> {
        let pick = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<&Endpoint> {
            self.endpoints.iter().filter(|e| wanted(e)).collect()
        };
        let draining = |e: &Endpoint| e.serving && e.terminating;
        let mut usable = Usable::default();
        if self.uses_cluster_endpoints() {
            let near = self.near(place);
            usable.cluster = pick(&|e| e.ready && near(e));
            if usable.cluster.is_empty() {
                usable.cluster = pick(&draining);
            }
        }
        if self.uses_local_endpoints() {
            usable.local = pick(&|e| e.local && e.ready);
            if usable.local.is_empty() {
                usable.local = pick(&|e| e.local && draining(e));
            }
        }
        usable.any = self.endpoints.iter().any(|e| e.ready || draining(e));
        usable.all = usable.cluster.iter().chain(&usable.local).copied().collect();
        usable.all.sort();
        usable.all.dedup();
        usable
    }

    /// Whether an endpoint is near enough, by the hints that *all* ready endpoints must carry to count at all.
    fn near<'a>(&self, place: &'a Place) -> Box<dyn Fn(&Endpoint) -> bool + 'a> {
        let ready = || self.endpoints.iter().filter(|e| e.ready);
        if ready().next().is_none() {
            return Box::new(|_| true);
        }
        if ready().all(|e| !e.node_hints.is_empty()) && ready().any(|e| e.node_hints.contains(&place.node)) {
            return Box::new(|e| e.node_hints.contains(&place.node));
        }
        let zoned = !place.zone.is_empty() && ready().all(|e| !e.zone_hints.is_empty());
        if zoned && ready().any(|e| e.zone_hints.contains(&place.zone)) {
            return Box::new(|e| e.zone_hints.contains(&place.zone));
        }
        Box::new(|_| true)
    }
}
