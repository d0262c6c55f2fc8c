//! Puts right what broken-off writes of Services leave behind: ports and addresses that nobody has, or that a Service
//! has without owning them (upstream `registry/core/service/{portallocator,ipallocator}/controller`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::informer::Informer;
use client::{ObjectKey, SharedInformerFactory};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use tokio_util::sync::CancellationToken;

use super::node_port::NodePorts;
use super::service_ip::{Error, ServiceIps};

/// How often everything is compared.
const INTERVAL: Duration = Duration::from_secs(180);
/// A port must be found without owner so often before it is released.
const ROUNDS: u32 = 3;
/// An address object must be so old before it counts as left behind: its Service may be about to be written.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Compares Services with what is allocated.
pub struct ServiceRepair {
    services: Informer<Service>,
    addresses: Informer<IPAddress>,
    ips: Arc<ServiceIps>,
    ports: Arc<NodePorts>,
}

impl ServiceRepair {
    /// Watches Services and addresses.
    #[must_use]
    pub fn new(informers: &SharedInformerFactory, ips: Arc<ServiceIps>, ports: Arc<NodePorts>) -> Self {
        Self { services: informers.informer(), addresses: informers.informer(), ips, ports }
    }

    /// Compares at once, and then now and again until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leaked: HashMap<i32, u32> = HashMap::new();
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = async { tokio::join!(self.services.synced(), self.addresses.synced()); } => {}
        }
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                _ = interval.tick() => {}
            }
            if let Err(error) = self.repair_ports(&mut leaked).await {
                tracing::warn!(%error, "could not repair node ports, will retry");
            }
            self.repair_ips().await;
        }
    }

    async fn repair_ports(&self, leaked: &mut HashMap<i32, u32>) -> Result<(), super::node_port::Error> {
        let services = self.services.store().list();
        let in_use: Vec<i32> = services.iter().flat_map(|service| ports_of(service)).collect();
        let stray = self.ports.repair(&in_use).await?;
        let release = plan_release(leaked, &stray);
        if !release.is_empty() {
            tracing::info!(ports = ?release, "node ports without a service are released");
            self.ports.release(&release).await?;
        }
        Ok(())
    }

    async fn repair_ips(&self) {
        let services = self.services.store().list();
        let addresses = self.addresses.store().list();
        let plan = plan_ips(&services, &addresses, Timestamp::now());
        for (key, address) in plan.missing {
            match self.ips.allocate(&key.namespace, &key.name, address, false).await {
                Ok(()) => tracing::info!(service = %key, %address, "cluster IP was not allocated, repaired"),
                Err(Error::Allocated) => {}
                Err(error) => {
                    tracing::warn!(service = %key, %address, %error, "cluster IP cannot be allocated")
                }
            }
        }
        self.ips.release(&plan.orphans).await;
    }
}

fn ports_of(service: &Service) -> Vec<i32> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    ports.chain(spec.health_check_node_port).filter(|port| *port != 0).collect()
}

/// Which stray ports are released now; the others are counted.
fn plan_release(leaked: &mut HashMap<i32, u32>, stray: &[i32]) -> Vec<i32> {
    leaked.retain(|port, _| stray.contains(port));
    for port in stray {
        *leaked.entry(*port).or_default() += 1;
    }
    let mut release: Vec<i32> =
        leaked.iter().filter(|(_, rounds)| **rounds >= ROUNDS).map(|(port, _)| *port).collect();
    release.sort_unstable();
    leaked.retain(|port, _| !release.contains(port));
    release
}

#[derive(Debug, Default, PartialEq, Eq)]
struct IpPlan {
    /// Addresses that Services have without an object.
    missing: Vec<(ObjectKey, IpAddr)>,
    /// Objects whose Service does not exist or has other addresses.
    orphans: Vec<IpAddr>,
}

fn plan_ips(services: &[Arc<Service>], addresses: &[Arc<IPAddress>], now: Timestamp) -> IpPlan {
    let known: HashSet<IpAddr> =
        addresses.iter().filter_map(|object| object.metadata.name.as_deref()?.parse().ok()).collect();
    let mut plan = IpPlan::default();
    let mut owned: HashMap<IpAddr, ObjectKey> = HashMap::new();
    for service in services {
        let ips = service.spec.as_ref().and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
        for ip in ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
            let key = ObjectKey::of(&**service);
            if !known.contains(&ip) {
                plan.missing.push((key.clone(), ip));
            }
            owned.insert(ip, key);
        }
    }
    for object in addresses {
        let Some(ip) = object.metadata.name.as_deref().and_then(|name| name.parse::<IpAddr>().ok()) else {
            continue;
        };
        let labels = object.metadata.labels.as_ref();
        let ours = labels.and_then(|labels| labels.get(super::service_ip::MANAGED_BY_LABEL));
        let young = object.metadata.creation_timestamp.as_ref().is_none_or(|made| made.0 + GRACE > now);
        let parent = &object.spec.parent_ref;
        let key = ObjectKey::new(parent.namespace.clone().unwrap_or_default(), parent.name.clone());
        let ours = ours.is_some_and(|manager| manager == super::service_ip::MANAGER);
        if ours && !young && owned.get(&ip) != Some(&key) {
            plan.orphans.push(ip);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, ip: &str) -> Arc<Service> {
        let value = json!({
            "metadata": {"namespace": "ns", "name": name},
            "spec": {"clusterIPs": [ip], "healthCheckNodePort": 30009, "ports": [{"port": 1, "nodePort": 30001}, {"port": 2}]}});
        Arc::new(serde_json::from_value(value).expect("service"))
    }

    fn address(ip: &str, parent: &str, made: &str) -> Arc<IPAddress> {
        let value = json!({
            "metadata": {
                "name": ip, "creationTimestamp": made,
                "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
            "spec": {"parentRef": {"resource": "services", "namespace": "ns", "name": parent}}});
        Arc::new(serde_json::from_value(value).expect("address"))
    }

    #[test]
    fn ports_are_released_after_some_rounds() {
        assert_eq!(ports_of(&service("a", "10.0.0.1")), [30001, 30009]);
        let mut leaked = HashMap::new();
        assert!(plan_release(&mut leaked, &[1, 2]).is_empty());
        assert!(plan_release(&mut leaked, &[1]).is_empty());
        assert_eq!(plan_release(&mut leaked, &[1, 2]), [1], "2 had an owner in between");
        assert!(plan_release(&mut leaked, &[2]).is_empty());
    }

    #[test]
    fn addresses_and_services_are_compared() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("time");
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:59:30Z");
        let services = [service("a", "10.0.0.1"), service("b", "10.0.0.2"), service("headless", "None")];
        let addresses = [
            address("10.0.0.1", "a", old),
            address("10.0.0.3", "gone", old),
            address("10.0.0.4", "soon", new),
        ];
        let plan = plan_ips(&services, &addresses, now);
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        assert_eq!(plan.missing, [(ObjectKey::new("ns", "b"), ip("10.0.0.2"))]);
        assert_eq!(plan.orphans, [ip("10.0.0.3")]);
    }
}
