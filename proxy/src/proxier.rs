//! The proxy at work: one task owns the rules, woken by changes of Services, EndpointSlices and its own Node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Node, Service};
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::serving::{self, Health as Endpoints};
use client::{Client, Informer, Selection, SharedInformerFactory, Tasks};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::health::{self, ProxyHealth, ServiceHealth};
use crate::kernel::{self, Kernel};
use crate::local::{self, NodePortAddresses};
use crate::model::{self, Family, Place, PortName, Protocol, ServicePort};
use crate::{conntrack, rules, sysctl};

const RETRY: Duration = Duration::from_secs(2);
/// Says that a node is to be removed by whoever scales the cluster.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Runs until `token` is cancelled. The rules stay behind, so that traffic goes on.
///
/// # Errors
/// An endpoint cannot be bound.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    let factory = SharedInformerFactory::new(client, &tasks);
    let sources = Sources::new(&factory, &config.node_name);
    let health = ProxyHealth::default();
    if let Some(address) = config.health {
        let health = health.clone();
        tasks.spawn_critical("health", move |token| health.serve(address, token));
    }
    if let Some(address) = config.metrics {
        let checked = health.clone();
        let late =
            move || if checked.is_healthy() { Ok(()) } else { Err("rules are out of date".to_owned()) };
        let endpoints = Endpoints::new().with("rules", late);
        tasks.spawn_critical("metrics", |token| serving::serve(address, endpoints, token));
    }
    sysctl::prepare(&config);
    tasks.spawn("proxier", |token| async move {
        if factory.wait_for_sync(&token).await {
            Proxier::new(config, sources, health, &token).run(token).await;
        }
    });
    token.cancelled().await;
    Ok(tasks.shut_down().await?)
}

/// The caches the rules come from.
struct Sources {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    node: Informer<Node>,
    changed: Arc<Notify>,
}

impl Sources {
    fn new(factory: &SharedInformerFactory, node_name: &str) -> Self {
        let changed = Arc::new(Notify::new());
        let services = factory.informer::<Service>();
        let slices = factory.informer::<EndpointSlice>();
        let this_node =
            Selection { fields: Some(format!("metadata.name={node_name}")), ..Selection::default() };
        let node = factory.informer_selected::<Node>(this_node);
        let wake = changed.clone();
        services.subscribe(move |_| {
            metrics::counter!("kubeproxy_sync_proxy_rules_service_changes_total").increment(1);
            wake.notify_one();
        });
        let wake = changed.clone();
        slices.subscribe(move |_| {
            metrics::counter!("kubeproxy_sync_proxy_rules_endpoint_changes_total").increment(1);
            wake.notify_one();
        });
        let wake = changed.clone();
        node.subscribe(move |event| {
            // A node's status changes all the time; only where it is and whether it stays matters.
            let moved = match event {
                client::Event::Updated { old, new } => {
                    let facts = |node| (zone(node), addresses(node), pod_cidrs(node), is_eligible(node));
                    facts(old) != facts(new)
                }
                _ => true,
            };
            if moved {
                wake.notify_one();
            }
        });
        Self { services, slices, node, changed }
    }

    fn place(&self, node: &str) -> Place {
        let found = self.node.store().list().into_iter().next().unwrap_or_default();
        Place {
            node: node.to_owned(),
            zone: zone(&found),
            addresses: addresses(&found),
            pod_cidrs: pod_cidrs(&found),
        }
    }
}

fn zone(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    labels.and_then(|l| l.get("topology.kubernetes.io/zone")).cloned().unwrap_or_default()
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    all.filter(|address| address.type_ == "InternalIP").filter_map(|a| a.address.parse().ok()).collect()
}

fn pod_cidrs(node: &Node) -> Vec<String> {
    node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default()
}

/// Whether load balancers may send anything here.
fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let leaves = taints.into_iter().flatten().any(|taint| taint.key == TO_BE_DELETED);
    node.metadata.deletion_timestamp.is_none() && !leaves
}

struct Proxier {
    config: Config,
    sources: Sources,
    v4: Kernel,
    v6: Kernel,
    udp_v4: BTreeMap<PortName, ServicePort>,
    udp_v6: BTreeMap<PortName, ServicePort>,
    /// Where TCP services of either family can be reached.
    tcp: BTreeMap<Family, BTreeSet<SocketAddr>>,
    health: ProxyHealth,
    service_health: BTreeMap<Family, ServiceHealth>,
}

impl Proxier {
    fn new(config: Config, sources: Sources, health: ProxyHealth, token: &CancellationToken) -> Self {
        let kernel = |family| Kernel::new(config.mode, family);
        let (v4, v6) = (kernel(Family::V4), kernel(Family::V6));
        let (udp_v4, udp_v6, tcp) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let service_health = [Family::V4, Family::V6]
            .into_iter()
            .map(|family| (family, ServiceHealth::new(family, health.clone(), token)))
            .collect();
        Self { config, sources, v4, v6, udp_v4, udp_v6, tcp, health, service_health }
    }

    async fn run(mut self, token: CancellationToken) {
        info!(node = self.config.node_name, mode = ?self.config.mode, "programming service rules");
        kernel::remove_other(self.config.mode).await;
        let mut check = tokio::time::interval(self.config.sync_period);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        check.tick().await;
        self.sources.changed.notify_one();
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                () = self.sources.changed.notified() => self.sync().await,
                _ = check.tick() => self.check().await,
            }
            // Changes that come meanwhile are gathered into the next write.
            tokio::select! {
                () = token.cancelled() => break,
                () = tokio::time::sleep(self.config.min_sync_period) => {}
            }
        }
        for (_, health) in self.service_health {
            health.close().await;
        }
    }

    async fn check(&mut self) {
        for applier in [&mut self.v4, &mut self.v6] {
            if !applier.is_in_step() {
                continue;
            }
            match applier.check().await {
                Ok(()) if applier.is_in_step() => {}
                Ok(()) => {
                    info!("rules are gone, writing them again");
                    self.sources.changed.notify_one();
                }
                Err(error) => warn!(%error, "rules cannot be checked"),
            }
        }
    }

    async fn sync(&mut self) {
        let (services, slices) = (self.sources.services.store().list(), self.sources.slices.store().list());
        let place = self.sources.place(&self.config.node_name);
        self.health.set_eligible(self.sources.node.store().list().iter().any(|node| is_eligible(node)));
        let (mut all_well, own, liberal) = (true, self.own_addresses().await, sysctl::is_liberal());
        for family in [Family::V4, Family::V6] {
            let ports = model::build(family, &place, &services, &slices);
            let applier = if family == Family::V4 { &mut self.v4 } else { &mut self.v6 };
            if family == Family::V6 && ports.is_empty() && !applier.is_in_step() {
                continue;
            }
            self.health.queued(family);
            let settings = settings(&self.config, family, &place, &own, liberal);
            if let Some(health) = self.service_health.get_mut(&family) {
                health.sync(health::checks(ports.values()), &settings.node_ports).await;
            }
            match applier.apply(&settings, &ports).await {
                Ok(()) => {
                    debug!(?family, ports = ports.len(), "rules are in step");
                    self.health.updated(family);
                    self.end_stale_flows(family, &ports).await;
                    self.end_early_flows(family, &place, &ports).await;
                }
                Err(error) => {
                    error!(error = %format!("{error:#}"), ?family, "rules could not be written, will retry");
                    all_well = false;
                }
            }
        }
        if all_well {
            return;
        }
        tokio::time::sleep(RETRY).await;
        self.sources.changed.notify_one();
    }
}

impl Proxier {
    /// All addresses of this machine, where they matter.
    async fn own_addresses(&self) -> Vec<IpAddr> {
        if !matches!(self.config.node_port_addresses, NodePortAddresses::Ranges(_)) {
            return vec![];
        }
        match tokio::process::Command::new("ip").args(["-o", "addr"]).output().await {
            Ok(output) => local::read_addresses(&String::from_utf8_lossy(&output.stdout)),
            Err(error) => {
                warn!(%error, "addresses of this node cannot be listed; node ports may not work as intended");
                vec![]
            }
        }
    }

    /// Connections that were begun before their service had rules, or while its last refusal was taken back: only
    /// when addresses have become ones that somebody answers.
    async fn end_early_flows(
        &mut self,
        family: Family,
        place: &Place,
        ports: &BTreeMap<PortName, ServicePort>,
    ) {
        let now = answered(ports, place);
        let known = self.tcp.entry(family).or_default();
        let new: BTreeSet<SocketAddr> = now.difference(known).copied().collect();
        *known = now;
        conntrack::end_unrewritten(family, &new).await;
    }

    /// Reading the connection table is dear: only when UDP endpoints changed.
    async fn end_stale_flows(&mut self, family: Family, ports: &BTreeMap<PortName, ServicePort>) {
        let udp: BTreeMap<_, _> = ports
            .iter()
            .filter(|(_, p)| p.protocol == Protocol::Udp)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let known = if family == Family::V4 { &mut self.udp_v4 } else { &mut self.udp_v6 };
        if *known != udp {
            conntrack::clean(family, &udp).await;
            *known = udp;
        }
    }
}

/// The addresses of TCP services that have somebody to answer.
fn answered(ports: &BTreeMap<PortName, ServicePort>, place: &Place) -> BTreeSet<SocketAddr> {
    let tcp = ports.values().filter(|port| port.protocol == Protocol::Tcp);
    tcp.filter(|port| port.usable(place).any).flat_map(ServicePort::addresses).collect()
}

fn settings(
    config: &Config,
    family: Family,
    place: &Place,
    own: &[IpAddr],
    liberal: bool,
) -> rules::Settings {
    rules::Settings {
        family,
        place: place.clone(),
        local: config.local.of(family, place),
        node_ports: config.node_port_addresses.of(family, place, own),
        masquerade_all: config.masquerade_all,
        mark: config.masquerade_mark,
        localhost_node_ports: config.localhost_node_ports,
        liberal,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_counts_once_somebody_answers() {
        let service = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.9",
                             "clusterIPs": ["10.96.0.9"], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
        let service = [Arc::new(serde_json::from_value(service).expect("a service"))];
        let slice = |ready: bool| {
            let slice = json!({"metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
                           "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                           "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": ready}}]});
            Arc::new(serde_json::from_value(slice).expect("a slice"))
        };
        let place = Place { node: "n1".into(), ..Place::default() };
        let ports = |slices: &[Arc<EndpointSlice>]| model::build(Family::V4, &place, &service, slices);
        assert!(answered(&ports(&[]), &place).is_empty(), "it refuses");
        assert!(answered(&ports(&[slice(false)]), &place).is_empty(), "it still refuses");
        let address = SocketAddr::from(([10, 96, 0, 9], 80));
        assert_eq!(answered(&ports(&[slice(true)]), &place), BTreeSet::from([address]));
    }
}
