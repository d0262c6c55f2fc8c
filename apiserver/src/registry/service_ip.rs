//! Cluster IPs (upstream `registry/core/service/ipallocator`): an IPAddress object for each, named by the address, so
//! that the store itself keeps them unique. The ranges are those of the ServiceCIDR objects that are ready.

use std::net::{IpAddr, Ipv4Addr};

use client::informer::Informer;
use client::{Client, ObjectKey, SharedInformerFactory};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use rand::Rng as _;

use crate::config::Cidr;

/// Who manages the IPAddress objects made here.
pub(super) const MANAGER: &str = "ipallocator.k8s.io";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
pub(super) const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None is free.
    #[error("range is full")]
    Full,
    /// Somebody has it.
    #[error("provided IP is already allocated")]
    Allocated,
    /// It is in a range, but is its network or broadcast address.
    #[error("the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}")]
    NotInRange {
        /// The address.
        address: IpAddr,
        /// The range.
        range: String,
    },
    /// It is in none of the ranges.
    #[error("the provided network does not match the current range")]
    Mismatched,
    /// The API does not take the object.
    #[error("{0}")]
    Api(#[source] Box<kube::Error>),
}

/// The addresses of one range that may be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u128,
    last: u128,
    /// Where the band for automatic addresses begins.
    dynamic: u128,
    v6: bool,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl Span {
    fn of(cidr: &Cidr) -> Option<Self> {
        let v6 = cidr.address.is_ipv6();
        let bits = if v6 { 128 } else { 32 };
        let host_bits = bits - u32::from(cidr.prefix);
        // As upstream: no range of addresses is larger than 2^64.
        if host_bits > 64 {
            return None;
        }
        let size = 1u128 << host_bits;
        let base = number(cidr.address);
        let first = base + 1;
        let last = (base + size - 1).checked_sub(u128::from(!v6))?;
        let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        (first <= last).then_some(Self { first, last, dynamic: first + band, v6 })
    }

    fn address(&self, number: u128) -> Option<IpAddr> {
        if self.v6 {
            return Some(IpAddr::V6(number.into()));
        }
        u32::try_from(number).ok().map(|number| IpAddr::V4(Ipv4Addr::from(number)))
    }

    /// The addresses in the order they are tried: from a random one of the dynamic band on, then the static band.
    fn candidates(self) -> impl Iterator<Item = IpAddr> {
        let around = |first: u128, last: u128| {
            let count = if last < first { 0 } else { last - first + 1 };
            let start = if count == 0 { 0 } else { rand::rng().random_range(0..count) };
            (0..count).map(move |i| first + (start + i) % count)
        };
        let dynamic = around(self.dynamic, self.last);
        let fixed = around(self.first, self.last.min(self.dynamic.saturating_sub(1)));
        dynamic.chain(fixed).filter_map(move |number| self.address(number))
    }
}

/// Gives out cluster IPs.
pub struct ServiceIps {
    client: Client,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
    configured: Vec<Cidr>,
}

impl ServiceIps {
    /// `configured`: the ranges of `--service-cluster-ip-range`, until the default ServiceCIDR is known.
    #[must_use]
    pub fn new(client: Client, informers: &SharedInformerFactory, configured: Vec<Cidr>) -> Self {
        Self { client, ranges: informers.informer(), addresses: informers.informer(), configured }
    }

    /// The families of the cluster; the first one is the default.
    #[must_use]
    pub fn families(&self) -> Vec<&'static str> {
        let mut families: Vec<_> = self.configured.iter().map(|cidr| family(cidr.address)).collect();
        families.dedup();
        families
    }

    /// The ranges addresses may come from now.
    fn ranges(&self) -> Vec<Cidr> {
        let default_key = ObjectKey::new("", crate::bootstrap::objects::DEFAULT_SERVICE_CIDR);
        let objects = self.ranges.store().list();
        let mut ranges: Vec<Cidr> = Vec::new();
        if self.ranges.store().get(&default_key).is_none_or(|default| !has_condition(&default)) {
            ranges.extend(&self.configured);
        }
        for object in objects.iter().filter(|object| is_ready(object)) {
            let cidrs = object.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
            for cidr in cidrs.iter().filter_map(|text| text.parse::<Cidr>().ok()) {
                if !ranges.contains(&cidr) {
                    ranges.push(cidr);
                }
            }
        }
        ranges
    }

    /// Takes a certain address for a Service.
    pub async fn allocate(
        &self,
        namespace: &str,
        name: &str,
        address: IpAddr,
        dry_run: bool,
    ) -> Result<(), Error> {
        let ranges = self.ranges();
        let range = ranges.iter().find(|cidr| cidr.contains(address)).ok_or(Error::Mismatched)?;
        let inside = Span::of(range).is_some_and(|span| (span.first..=span.last).contains(&number(address)));
        if !inside {
            return Err(Error::NotInRange { address, range: range.to_string() });
        }
        if dry_run {
            return Ok(());
        }
        self.create(namespace, name, address).await
    }

    /// Takes any address of a family (`IPv4` or `IPv6`) for a Service.
    pub async fn allocate_next(
        &self,
        namespace: &str,
        name: &str,
        wanted: &str,
        dry_run: bool,
    ) -> Result<IpAddr, Error> {
        for range in self.ranges().iter().filter(|cidr| family(cidr.address) == wanted) {
            if dry_run {
                return Ok(range.address);
            }
            let Some(span) = Span::of(range) else { continue };
            for address in span.candidates() {
                if self.addresses.store().get(&ObjectKey::new("", address.to_string())).is_some() {
                    continue;
                }
                match self.create(namespace, name, address).await {
                    Ok(()) => return Ok(address),
                    // The cache did not know yet.
                    Err(Error::Allocated) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(Error::Full)
    }

    async fn create(&self, namespace: &str, name: &str, address: IpAddr) -> Result<(), Error> {
        let api = Api::<IPAddress>::all(self.client.clone());
        match api.create(&PostParams::default(), &object(namespace, name, address)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Err(Error::Allocated),
            Err(error) => Err(Error::Api(Box::new(error))),
        }
    }

    /// Gives addresses back. Errors are logged: what leaks is repaired later.
    pub async fn release(&self, addresses: &[IpAddr]) {
        let api = Api::<IPAddress>::all(self.client.clone());
        for address in addresses {
            match api.delete(&address.to_string(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => tracing::warn!(%error, %address, "could not release a cluster IP"),
            }
        }
    }
}

fn object(namespace: &str, name: &str, address: IpAddr) -> IPAddress {
    let labels = [(FAMILY_LABEL, family(address)), (MANAGED_BY_LABEL, MANAGER)];
    let parent = ParentReference {
        group: Some(String::new()),
        resource: "services".to_owned(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    IPAddress {
        metadata: ObjectMeta {
            name: Some(address.to_string()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec { parent_ref: parent },
    }
}

/// `IPv4` or `IPv6`.
#[must_use]
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn has_condition(range: &ServiceCIDR) -> bool {
    let conditions = range.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|condition| condition.type_ == "Ready")
}

fn is_ready(range: &ServiceCIDR) -> bool {
    let conditions =
        range.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    range.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        Span::of(&text.parse().expect("cidr")).expect("span")
    }

    #[test]
    fn network_and_broadcast_are_not_given_out() {
        for (cidr, first, last, dynamic) in [
            ("10.0.0.0/24", "10.0.0.1", "10.0.0.254", "10.0.0.17"),
            ("10.0.0.0/28", "10.0.0.1", "10.0.0.14", "10.0.0.1"),
            ("10.96.0.0/12", "10.96.0.1", "10.111.255.254", "10.96.1.1"),
            ("fd00::/120", "fd00::1", "fd00::ff", "fd00::11"),
        ] {
            let span = span(cidr);
            let shown =
                [span.first, span.last, span.dynamic].map(|n| span.address(n).expect("address").to_string());
            assert_eq!(shown, [first, last, dynamic], "{cidr}");
        }
        assert_eq!(Span::of(&"fd00::/56".parse().expect("cidr")), None);
    }

    #[test]
    fn every_address_is_tried_once_the_dynamic_ones_first() {
        let span = span("10.0.0.0/26");
        let all: Vec<IpAddr> = span.candidates().collect();
        assert_eq!(all.len(), 62);
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 62);
        let limit: IpAddr = "10.0.0.17".parse().expect("address");
        assert!(all[..46].iter().all(|a| *a >= limit) && all[46..].iter().all(|a| *a < limit));
    }

    #[test]
    fn objects_name_their_service() {
        let object = object("ns", "web", "10.0.0.5".parse().expect("address"));
        assert_eq!(object.metadata.name.as_deref(), Some("10.0.0.5"));
        let parent = object.spec.parent_ref;
        assert_eq!((parent.resource.as_str(), parent.name.as_str()), ("services", "web"));
    }
}
