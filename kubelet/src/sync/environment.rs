//! What pods need that is no business of the runtime.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use proto::cri;

use crate::cgroups::Limits;
use crate::containers::resources::Place;

/// Images that are volumes of a pod, by the volume's name, as the runtime mounts them.
pub type ImageVolumes = HashMap<String, cri::ImageSpec>;

/// What one container gets from volumes, API objects and the node.
#[derive(Clone, Debug, Default)]
pub struct ContainerOptions {
    /// Environment, expanded.
    pub env: Vec<(String, String)>,
    /// Mounts of volumes and of `/etc/hosts`.
    pub mounts: Vec<cri::Mount>,
    /// Devices.
    pub devices: Vec<cri::Device>,
    /// Annotations that go with its devices.
    pub annotations: BTreeMap<String, String>,
    /// Devices by their qualified CDI names.
    pub cdi_devices: Vec<String>,
    /// Where it runs.
    pub place: Place,
}

/// What pods need that is no business of the runtime. The text of an error goes into the container's status.
#[async_trait]
pub trait PodEnvironment: Send + Sync {
    /// Resolver configuration.
    fn dns(&self, pod: &Pod) -> Result<cri::DnsConfig, String>;
    /// Host name of the sandbox.
    fn hostname(&self, pod: &Pod) -> Result<String, String>;
    /// Parent cgroup, as the runtime's driver names it.
    fn cgroup_parent(&self, pod: &Pod) -> String;
    /// Runtime handler of the pod's RuntimeClass; empty for the default.
    fn runtime_handler(&self, pod: &Pod) -> Result<String, String>;
    /// Environment and mounts of one container.
    async fn container(
        &self,
        pod: &Pod,
        container: &Container,
        pod_ips: &[String],
        images: &ImageVolumes,
    ) -> Result<ContainerOptions, String>;
    /// Credentials for pulling the pod's images.
    async fn pull_secrets(&self, pod: &Pod) -> Vec<Arc<Secret>>;
    /// A start takes its time, mostly to pull an image: what is known by now may be reported.
    async fn start_is_slow(&self, pod: &Pod);
    /// Limits of the pod's group now and as they should be; `None` where pods have no groups.
    fn pod_limits(&self, pod: &Pod) -> Option<(Limits, Limits)>;
    /// Sets limits of the pod's group.
    fn limit_pod(&self, pod: &Pod, limits: &Limits) -> Result<(), String>;
    /// Where a container runs.
    fn place(&self, pod: &Pod, container: &str) -> Place;
    /// Bytes of memory the pod uses.
    fn pod_memory(&self, pod: &Pod) -> Option<u64>;
    /// Expands `$(VARIABLES)`.
    fn expand(&self, text: &str, env: &[(String, String)]) -> String;
}
