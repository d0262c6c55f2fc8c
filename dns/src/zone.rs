//! Answers for the cluster's domain, after the Kubernetes DNS-Based Service Discovery specification 1.1.0. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::source::{SERVICE_NAME, Source};

const SPECIFICATION: &str = "1.1.0";

/// The zone of the cluster.
pub struct Zone {
    origin: Name,
    ttl: u32,
}

/// What to answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the name exists.
    pub code: ResponseCode,
    /// The records asked for.
    pub answers: Vec<Record>,
    /// The start of authority, where there are no answers.
    pub authorities: Vec<Record>,
    /// Addresses of the names in the answers.
    pub additionals: Vec<Record>,
}

/// What a name stands for.
enum Found {
    /// Nothing, and nothing below it.
    Nothing,
    /// A name without records of its own, with others below it.
    Empty,
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// Another name.
    Alias(Name),
    /// Ports and the names that serve them with their addresses.
    Ports(Vec<(u16, Name, Vec<IpAddr>)>),
    /// Text.
    Text(&'static str),
}

impl Zone {
    /// The zone of `domain`.
    ///
    /// # Errors
    /// It is not a domain name.
    pub fn new(domain: &str, ttl: u32) -> Result<Self> {
        let mut origin =
            Name::from_ascii(domain).with_context(|| format!("{domain:?} is not a domain name"))?;
        origin.set_fqdn(true);
        Ok(Self { origin: origin.to_lowercase(), ttl })
    }

    /// The domain, as metrics name it.
    #[must_use]
    pub fn origin(&self) -> String {
        self.origin.to_ascii()
    }

    /// Whether a name is of the domain.
    #[must_use]
    pub fn is_ours(&self, name: &Name) -> bool {
        self.origin.zone_of(&name.to_lowercase())
    }

    /// Answers a question; none if the name is not ours to answer for.
    #[must_use]
    pub fn answer(&self, source: &dyn Source, name: &Name, kind: RecordType) -> Option<Answer> {
        let lower = name.to_lowercase();
        if !self.origin.zone_of(&lower) {
            return self.reverse(source, name, &lower, kind);
        }
        if lower == self.origin {
            return Some(self.apex(name, kind));
        }
        let count = usize::from(lower.num_labels() - self.origin.num_labels());
        let labels: Vec<_> =
            lower.iter().take(count).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        let found = self.find(source, &labels);
        Some(self.render(name, kind, found))
    }

    fn find(&self, source: &dyn Source, labels: &[&str]) -> Found {
        match labels {
            ["dns-version"] => Found::Text(SPECIFICATION),
            ["svc"] | ["pod"] => Found::Empty,
            [namespace, "svc" | "pod"] if source.has_namespace(namespace) => Found::Empty,
            [ip, namespace, "pod"] => pod_address(ip)
                .filter(|_| source.has_namespace(namespace))
                .map_or(Found::Nothing, |ip| Found::Addresses(vec![ip])),
            [service, namespace, "svc"] => self.service(source, namespace, service),
            [protocol @ ("_tcp" | "_udp" | "_sctp"), service, namespace, "svc"] => {
                let _ = protocol;
                source.service(namespace, service).map_or(Found::Nothing, |_| Found::Empty)
            }
            [host, service, namespace, "svc"] => self.host(source, namespace, service, host),
            [port, protocol, service, namespace, "svc"] => {
                match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                    (Some(port), Some(protocol)) => self.ports(source, namespace, service, port, protocol),
                    _ => Found::Nothing,
                }
            }
            _ => Found::Nothing,
        }
    }

    fn service(&self, source: &dyn Source, namespace: &str, name: &str) -> Found {
        let Some(service) = source.service(namespace, name) else { return Found::Nothing };
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = Name::from_ascii(spec.external_name.unwrap_or_default());
            return target.map_or(Found::Empty, |mut target| {
                target.set_fqdn(true);
                Found::Alias(target)
            });
        }
        if is_headless(&service) {
            let ready = ready_endpoints(&source.slices(namespace, name)).into_iter().map(|(ip, _)| ip);
            let addresses: BTreeSet<_> = ready.collect();
            return if addresses.is_empty() {
                Found::Nothing
            } else {
                Found::Addresses(addresses.into_iter().collect())
            };
        }
        Found::Addresses(cluster_ips(&service))
    }

    /// An endpoint of a headless service by its host name, or by its address with dashes.
    fn host(&self, source: &dyn Source, namespace: &str, service: &str, host: &str) -> Found {
        let Some(object) = source.service(namespace, service) else { return Found::Nothing };
        if !is_headless(&object) {
            return Found::Nothing;
        }
        let slices = source.slices(namespace, service);
        let matching = ready_endpoints(&slices).into_iter().filter(|(ip, e)| endpoint_host(*ip, e) == host);
        let addresses: BTreeSet<_> = matching.map(|(ip, _)| ip).collect();
        if addresses.is_empty() { Found::Nothing } else { Found::Addresses(addresses.into_iter().collect()) }
    }

    fn ports(
        &self,
        source: &dyn Source,
        namespace: &str,
        service: &str,
        port: &str,
        protocol: &str,
    ) -> Found {
        let Some(object) = source.service(namespace, service) else { return Found::Nothing };
        let spec = object.spec.clone().unwrap_or_default();
        let same = |name: Option<&str>, proto: Option<&str>| {
            name == Some(port) && proto.unwrap_or("TCP").eq_ignore_ascii_case(protocol)
        };
        let Some(service_name) = self.below(&[service, namespace, "svc"]) else { return Found::Nothing };
        if !is_headless(&object) {
            let ports =
                spec.ports.iter().flatten().filter(|p| same(p.name.as_deref(), p.protocol.as_deref()));
            let number = ports.filter_map(|p| u16::try_from(p.port).ok()).next();
            let found = number.map(|n| vec![(n, service_name, cluster_ips(&object))]);
            return found.map_or(Found::Nothing, Found::Ports);
        }
        // A pod with an address of each family is in two slices under one name.
        let mut found: BTreeMap<(Name, u16), Vec<IpAddr>> = BTreeMap::new();
        for slice in source.slices(namespace, service) {
            let ports =
                slice.ports.iter().flatten().filter(|p| same(p.name.as_deref(), p.protocol.as_deref()));
            let numbers: Vec<_> =
                ports.filter_map(|p| p.port).filter_map(|p| u16::try_from(p).ok()).collect();
            for (ip, endpoint) in ready_endpoints(std::slice::from_ref(&slice)) {
                let Some(name) = self.below(&[&endpoint_host(ip, &endpoint), service, namespace, "svc"])
                else {
                    continue;
                };
                for number in &numbers {
                    found.entry((name.clone(), *number)).or_default().push(ip);
                }
            }
        }
        if found.is_empty() {
            return Found::Nothing;
        }
        Found::Ports(found.into_iter().map(|((name, number), ips)| (number, name, ips)).collect())
    }

    fn below(&self, labels: &[&str]) -> Option<Name> {
        Name::from_labels(labels.iter().map(|l| l.as_bytes())).ok()?.append_domain(&self.origin).ok()
    }

    /// Names of addresses: of services, and of endpoints that have a host name. An address of neither is not ours.
    fn reverse(&self, source: &dyn Source, name: &Name, lower: &Name, kind: RecordType) -> Option<Answer> {
        let ip = address_of(lower)?;
        let mut targets = vec![];
        for service in source.services_at(ip) {
            let meta = &service.metadata;
            let (Some(service), Some(namespace)) = (&meta.name, &meta.namespace) else { continue };
            targets.extend(self.below(&[service, namespace, "svc"]));
        }
        for slice in source.slices_at(ip) {
            targets.extend(self.endpoint_name(source, &slice, ip));
        }
        if targets.is_empty() {
            return None;
        }
        let records = targets.into_iter().map(|target| self.record(name, RData::PTR(PTR(target)))).collect();
        Some(if kind == RecordType::PTR || kind == RecordType::ANY { ok(records) } else { self.no_data() })
    }

    fn endpoint_name(&self, source: &dyn Source, slice: &EndpointSlice, ip: IpAddr) -> Option<Name> {
        let namespace = slice.metadata.namespace.as_deref()?;
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        let object = source.service(namespace, service)?;
        let text = ip.to_string();
        let endpoint = slice.endpoints.iter().flatten().find(|e| e.addresses.contains(&text))?;
        if !is_headless(&object) || endpoint.hostname.is_none() {
            return None;
        }
        self.below(&[&endpoint_host(ip, endpoint), service, namespace, "svc"])
    }

    fn render(&self, name: &Name, kind: RecordType, found: Found) -> Answer {
        match found {
            Found::Nothing => Answer { code: ResponseCode::NXDomain, ..self.no_data() },
            Found::Empty => self.no_data(),
            Found::Alias(target) => ok(vec![self.record(name, RData::CNAME(CNAME(target)))]),
            Found::Addresses(ips) => {
                let records =
                    ips.into_iter().filter(|ip| wants(kind, *ip)).map(|ip| self.address(name, ip)).collect();
                self.some_or_no_data(records)
            }
            Found::Text(text) if kind == RecordType::TXT => {
                ok(vec![self.record(name, RData::TXT(TXT::new(vec![text.to_owned()])))])
            }
            Found::Text(_) => self.no_data(),
            Found::Ports(ports) => {
                if kind == RecordType::SRV || kind == RecordType::ANY {
                    return self.render_ports(name, ports);
                }
                let ips = ports.into_iter().flat_map(|(_, _, ips)| ips).filter(|ip| wants(kind, *ip));
                let records = ips.map(|ip| self.address(name, ip)).collect();
                self.some_or_no_data(records)
            }
        }
    }

    fn render_ports(&self, name: &Name, ports: Vec<(u16, Name, Vec<IpAddr>)>) -> Answer {
        let weight = u16::try_from(100 / ports.len().max(1)).unwrap_or(1).max(1);
        let mut answer = Answer::default();
        for (port, target, ips) in ports {
            answer.answers.push(self.record(name, RData::SRV(SRV::new(0, weight, port, target.clone()))));
            answer.additionals.extend(ips.into_iter().map(|ip| self.address(&target, ip)));
        }
        answer
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => ok(vec![self.record(name, self.start_of_authority())]),
            RecordType::NS => match self.below(&["ns", "dns"]) {
                Some(server) => ok(vec![self.record(name, RData::NS(NS(server)))]),
                None => self.no_data(),
            },
            _ => self.no_data(),
        }
    }

    fn start_of_authority(&self) -> RData {
        let server = self.below(&["ns", "dns"]).unwrap_or_else(|| self.origin.clone());
        let person = self.below(&["hostmaster"]).unwrap_or_else(|| self.origin.clone());
        RData::SOA(SOA::new(server, person, 1, 7200, 1800, 86_400, self.ttl))
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttl, data)
    }

    fn address(&self, name: &Name, ip: IpAddr) -> Record {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.record(name, data)
    }

    fn some_or_no_data(&self, records: Vec<Record>) -> Answer {
        if records.is_empty() { self.no_data() } else { ok(records) }
    }

    /// The name exists, but has no such records.
    fn no_data(&self) -> Answer {
        let soa = self.record(&self.origin, self.start_of_authority());
        Answer { authorities: vec![soa], ..Answer::default() }
    }
}

fn ok(answers: Vec<Record>) -> Answer {
    Answer { answers, ..Answer::default() }
}

fn wants(kind: RecordType, ip: IpAddr) -> bool {
    match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let ips = spec.and_then(|s| s.cluster_ips.clone()).unwrap_or_default();
    ips.iter().filter_map(|ip| ip.parse().ok()).collect()
}

/// The addresses whose endpoint is ready (unknown counts as ready; slices of services that publish not-ready
/// addresses say ready).
fn ready_endpoints<S: AsRef<EndpointSlice>>(slices: &[S]) -> Vec<(IpAddr, Endpoint)> {
    let endpoints = slices.iter().flat_map(|slice| slice.as_ref().endpoints.iter().flatten());
    let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    ready.flat_map(|e| e.addresses.iter().filter_map(|a| a.parse().ok()).map(|ip| (ip, e.clone()))).collect()
}

/// The name of an endpoint within its service.
fn endpoint_host(ip: IpAddr, endpoint: &Endpoint) -> String {
    match endpoint.hostname.as_deref() {
        Some(name) if !name.is_empty() => name.to_lowercase(),
        _ => ip.to_string().replace(['.', ':'], "-"),
    }
}

/// `10-244-0-5` is 10.244.0.5; `2001-db8--5` is 2001:db8::5.
fn pod_address(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address that a whole `in-addr.arpa` or `ip6.arpa` name stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let labels: Vec<_> = name.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}").parse().ok(),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let digits: String = nibbles.iter().rev().copied().collect();
            let value = u128::from_str_radix(&digits, 16).ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(value)))
        }
        _ => None,
    }
}

#[cfg(test)]
pub mod tests;
