//! What containers get from the API, the node and volumes.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use client::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::{Container, Node, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use parking_lot::RwLock;
use proto::cri;

use super::volumes::PodVolumes;
use crate::cgroups::{Cgroups, Limits};
use crate::claims::Claims;
use crate::containers::resources::Place;
use crate::cpus::CpuSet;
use crate::dns::{self, DnsSettings};
use crate::events::Events;
use crate::layout::Layout;
use crate::objects::Objects;
use crate::placement::{Given, Placement};
use crate::status::addresses;
use crate::sync::runner::{ContainerOptions, ImageVolumes, PodEnvironment};
use crate::{env, hosts, types};

/// This node, shared by those who look at it; the newest the API showed.
pub type NodeCell = Arc<RwLock<Option<Arc<Node>>>>;

/// Reports a pod by its UID.
pub type SlowStart = Box<dyn Fn(&str) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

/// Implements [`PodEnvironment`] on this node.
pub struct Environment {
    /// API objects.
    pub objects: Arc<Objects>,
    /// Volumes.
    pub volumes: Arc<dyn PodVolumes>,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Paths.
    pub layout: Layout,
    /// Events.
    pub events: Events,
    /// Name resolution; the node's addresses are added when used.
    pub dns: DnsSettings,
    /// This node, as the API has it or as it would be registered.
    pub node: NodeCell,
    /// Addresses of this node, primary first.
    pub host_ips: RwLock<Vec<IpAddr>>,
    /// Runtime classes; `None` without an API.
    pub runtime_classes: Option<Informer<RuntimeClass>>,
    /// What containers are given of this node.
    pub placement: Placement,
    /// Claims for devices of drivers.
    pub claims: Claims,
    /// Told the UID of a pod whose start takes long.
    pub on_slow_start: OnceLock<SlowStart>,
}

fn place_of(given: &Given) -> Place {
    let memory_nodes: CpuSet = given.numa.iter().copied().collect();
    Place { cpus: given.cpus.to_string(), memory_nodes: memory_nodes.to_string(), alone: given.alone }
}

impl Environment {
    /// Addresses of this node, primary first.
    #[must_use]
    pub fn host_ips(&self) -> Vec<IpAddr> {
        self.host_ips.read().clone()
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.read().clone()
    }

    async fn hosts_file(
        &self,
        pod: &Pod,
        container: &Container,
        pod_ips: &[String],
    ) -> Result<Option<cri::Mount>, String> {
        let taken = container.volume_mounts.iter().flatten().any(|m| m.mount_path == "/etc/hosts");
        if taken || !hosts::wants_hosts_file(pod, pod_ips) {
            return Ok(None);
        }
        let path = self.layout.pod_etc_hosts(types::uid(pod));
        let (hostname, domain) =
            hosts::pod_hostname(pod, &self.dns.cluster_domain).map_err(|e| e.to_string())?;
        hosts::ensure_hosts_file(&path, pod, pod_ips, &hostname, &domain)
            .await
            .map_err(|e| format!("failed to write the hosts file {}: {e}", path.display()))?;
        Ok(Some(cri::Mount {
            container_path: "/etc/hosts".to_owned(),
            host_path: path.display().to_string(),
            ..Default::default()
        }))
    }
}

#[async_trait]
impl PodEnvironment for Environment {
    fn dns(&self, pod: &Pod) -> Result<cri::DnsConfig, String> {
        let settings = DnsSettings { node_ips: self.host_ips(), ..self.dns.clone() };
        let (config, warnings) = dns::pod_dns_with_warnings(pod, &settings).map_err(|e| client::chain(&e))?;
        for warning in warnings {
            self.events.warning(pod, warning.reason, warning.message);
        }
        Ok(config)
    }

    fn hostname(&self, pod: &Pod) -> Result<String, String> {
        let (hostname, domain) =
            hosts::pod_hostname(pod, &self.dns.cluster_domain).map_err(|e| e.to_string())?;
        hosts::sandbox_hostname(pod, &hostname, &domain).map_err(|e| e.to_string())
    }

    fn cgroup_parent(&self, pod: &Pod) -> String {
        self.cgroups.pod_parent(pod)
    }

    fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(name) = types::spec(pod).runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
            return Ok(String::new());
        };
        let class = self.runtime_classes.as_ref().and_then(|c| c.store().get(&ObjectKey::new("", name)));
        class.map(|c| c.handler.clone()).ok_or_else(|| format!("RuntimeClass {name:?} not found"))
    }

    async fn container(
        &self,
        pod: &Pod,
        container: &Container,
        pod_ips: &[String],
        images: &ImageVolumes,
    ) -> Result<ContainerOptions, String> {
        let node_ips = self.host_ips();
        let host_ips: Vec<String> = node_ips.iter().map(ToString::to_string).collect();
        let own_ips = addresses::in_order(pod_ips, &node_ips);
        let pod_ips = if types::host_network(pod) { &host_ips } else { &own_ips };
        let services = self.objects.services();
        let node = self.node();
        let given = self.placement.container_options(pod, container).await?;
        let place = place_of(&given);
        let given = given.devices;
        let mut env = given.env;
        let own = env::build(env::Input {
            pod,
            container,
            pod_ips,
            host_ips: &host_ips,
            node: node.as_deref(),
            services: &services,
            services_synced: self.objects.services_synced(),
            objects: &*self.objects,
            volume: &|name| self.volumes.path(types::uid(pod), name),
        })
        .await
        .map_err(|e| client::chain(&e))?;
        // As upstream: what comes with devices stands first, so the container's own word counts.
        env.extend(own);
        let mut mounts = given.mounts;
        mounts.extend(self.volumes.container_mounts(pod, container, &env, images).await?);
        mounts.extend(self.hosts_file(pod, container, pod_ips).await?);
        let mut devices = given.devices;
        devices.extend(self.volumes.container_devices(pod, container)?);
        let (annotations, mut cdi_devices) = (given.annotations, given.cdi_devices);
        cdi_devices.extend(self.claims.cdi_devices(pod, container)?);
        Ok(ContainerOptions { env, mounts, devices, annotations, cdi_devices, place })
    }

    async fn pull_secrets(&self, pod: &Pod) -> Vec<Arc<Secret>> {
        let mut found = Vec::new();
        for reference in types::spec(pod).image_pull_secrets.iter().flatten() {
            match self.objects.secret(types::namespace(pod), &reference.name).await {
                Ok(secret) => found.push(secret),
                Err(error) => {
                    tracing::warn!(secret = reference.name, %error, "unable to retrieve pull secret, the image pull may not succeed");
                }
            }
        }
        found
    }

    async fn start_is_slow(&self, pod: &Pod) {
        if let Some(report) = self.on_slow_start.get() {
            report(types::uid(pod)).await;
        }
    }

    fn pod_limits(&self, pod: &Pod) -> Option<(Limits, Limits)> {
        Some((self.cgroups.limits(pod), self.cgroups.planned(pod)?))
    }

    fn limit_pod(&self, pod: &Pod, limits: &Limits) -> Result<(), String> {
        self.cgroups.limit_pod(pod, limits).map_err(|e| client::chain(&e))
    }

    fn place(&self, pod: &Pod, container: &str) -> Place {
        place_of(&self.placement.given(pod, container))
    }

    fn pod_memory(&self, pod: &Pod) -> Option<u64> {
        self.cgroups.pod_stats(pod).map(|stats| stats.memory_usage)
    }

    fn expand(&self, text: &str, env: &[(String, String)]) -> String {
        env::expand(text, env)
    }
}
