//! What the container runtime shows of a pod, in the kubelet's own words, and small readings of a pod's spec.
//!
//! Values only. `PodStatus` here is the runtime's view (upstream's `kubecontainer.PodStatus`); the API's view is
//! `k8s_openapi::api::core::v1::PodStatus`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use proto::cri;

use crate::allocation::PodResources;

/// A container's identity: which runtime, and its name there. Written `containerd://ID`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId {
    /// Name of the runtime, for example `containerd`.
    pub runtime: String,
    /// The runtime's identifier.
    pub id: String,
}

/// A text is no container identity.
#[derive(Debug, thiserror::Error)]
#[error("invalid container ID: {0:?}")]
pub struct InvalidContainerId(pub String);

impl ContainerId {
    /// Names a container of a runtime.
    pub fn new(runtime: impl Into<String>, id: impl Into<String>) -> Self {
        Self { runtime: runtime.into(), id: id.into() }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.runtime, self.id)
    }
}

impl FromStr for ContainerId {
    type Err = InvalidContainerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim_matches('"').split_once("://") {
            Some((runtime, id)) if !runtime.is_empty() && !id.is_empty() => Ok(Self::new(runtime, id)),
            _ => Err(InvalidContainerId(text.to_owned())),
        }
    }
}

/// State of a container at the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Ran and ended.
    Exited,
    /// The runtime does not know.
    #[default]
    Unknown,
}

/// One container as the runtime shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStatus {
    /// Identity.
    pub id: ContainerId,
    /// Name in the pod's spec.
    pub name: String,
    /// State.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Exit code once ended.
    pub exit_code: i32,
    /// Image by the name it was asked for.
    pub image: String,
    /// Digested reference (or id) of the image.
    pub image_id: String,
    /// The image's id at the runtime.
    pub image_ref: String,
    /// Hash of the container's spec at creation, hexadecimal.
    pub hash: String,
    /// How often the container had been created before.
    pub restart_count: i32,
    /// One word about why it ended.
    pub reason: String,
    /// Text about why it ended.
    pub message: String,
    /// Path of its log.
    pub log_path: String,
    /// Sandbox it belongs to.
    pub sandbox_id: String,
    /// Limits applied by the runtime, when it tells.
    pub resources: Option<cri::LinuxContainerResources>,
    /// User the first process runs as, when the runtime tells.
    pub user: Option<cri::LinuxContainerUser>,
    /// Mounts in effect.
    pub mounts: Vec<cri::Mount>,
    /// Signal that stops it.
    pub stop_signal: Option<String>,
}

/// One sandbox as the runtime shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxStatus {
    /// The runtime's identifier.
    pub id: String,
    /// Ready to run containers.
    pub ready: bool,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Which sandbox of the pod it is, counted from zero.
    pub attempt: u32,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Addresses, primary first; empty when the node's network is shared.
    pub ips: Vec<String>,
    /// Runtime handler it was made with.
    pub runtime_handler: String,
}

/// One pod as the runtime shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodStatus {
    /// UID of the pod.
    pub uid: String,
    /// Name of the pod.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Addresses of the newest ready sandbox, primary first.
    pub ips: Vec<String>,
    /// Sandboxes, newest first.
    pub sandboxes: Vec<SandboxStatus>,
    /// Containers of all sandboxes, newest first.
    pub containers: Vec<ContainerStatus>,
    /// What the runtime has been told of the resources of its containers and of the pod.
    pub actuated: PodResources,
}

impl PodStatus {
    /// The newest container with this name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// All containers with this name, newest first.
    pub fn containers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerStatus> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// The container with this identity.
    #[must_use]
    pub fn container_by_id(&self, id: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.id.id == id)
    }

    /// Containers that run now.
    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|c| c.state == ContainerState::Running)
    }

    /// Nothing of the pod runs: no running container, no ready sandbox.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.running().next().is_none() && self.sandboxes.iter().all(|s| !s.ready)
    }
}

/// Which list of the spec a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// `spec.initContainers`, sidecars included.
    Init,
    /// `spec.containers`.
    App,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

/// UID of a pod; empty when it has none yet.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether something is asked for, or limited, for the pod as a whole.
#[must_use]
pub fn has_pod_resources(pod: &Pod) -> bool {
    let whole = spec(pod).resources.as_ref();
    let any = |list: Option<&std::collections::BTreeMap<_, _>>| list.is_some_and(|list| !list.is_empty());
    whole.is_some_and(|whole| any(whole.requests.as_ref()) || any(whole.limits.as_ref()))
}

/// Name of a pod.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Namespace of a pod.
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `NAME_NAMESPACE`, by which a static pod and its mirror are one pod.
#[must_use]
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}", name(pod), namespace(pod))
}

/// `NAME_NAMESPACE(UID)`, as upstream writes pods in messages.
#[must_use]
pub fn format_pod(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The spec of a pod; an empty one when the pod has none.
#[must_use]
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers of a spec.
#[must_use]
pub fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Ephemeral containers of a spec.
#[must_use]
pub fn ephemeral_containers(spec: &PodSpec) -> &[EphemeralContainer] {
    spec.ephemeral_containers.as_deref().unwrap_or_default()
}

/// An annotation of a pod.
#[must_use]
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the pod shares the node's network.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or_default()
}

/// An init container that keeps running beside the app containers.
#[must_use]
pub fn is_restartable_init(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// An ephemeral container in the form of a container.
#[must_use]
pub fn as_container(e: &EphemeralContainer) -> Container {
    Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        lifecycle: e.lifecycle.clone(),
        liveness_probe: e.liveness_probe.clone(),
        name: e.name.clone(),
        ports: e.ports.clone(),
        readiness_probe: e.readiness_probe.clone(),
        resize_policy: e.resize_policy.clone(),
        resources: e.resources.clone(),
        restart_policy: e.restart_policy.clone(),
        restart_policy_rules: e.restart_policy_rules.clone(),
        security_context: e.security_context.clone(),
        startup_probe: e.startup_probe.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_devices: e.volume_devices.clone(),
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
    }
}

/// Every container of a spec in the order init, app, ephemeral.
#[must_use]
pub fn all_containers(spec: &PodSpec) -> Vec<(ContainerKind, Container)> {
    let init = init_containers(spec).iter().map(|c| (ContainerKind::Init, c.clone()));
    let app = spec.containers.iter().map(|c| (ContainerKind::App, c.clone()));
    let ephemeral = ephemeral_containers(spec).iter().map(|e| (ContainerKind::Ephemeral, as_container(e)));
    init.chain(app).chain(ephemeral).collect()
}

/// The container with this name, wherever it stands in the spec.
#[must_use]
pub fn find_container(spec: &PodSpec, name: &str) -> Option<(ContainerKind, Container)> {
    if let Some(c) = spec.containers.iter().find(|c| c.name == name) {
        return Some((ContainerKind::App, c.clone()));
    }
    if let Some(c) = init_containers(spec).iter().find(|c| c.name == name) {
        return Some((ContainerKind::Init, c.clone()));
    }
    let e = ephemeral_containers(spec).iter().find(|c| c.name == name)?;
    Some((ContainerKind::Ephemeral, as_container(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_read_and_print_alike() {
        let id: ContainerId = "containerd://abc".parse().expect("valid");
        assert_eq!(id, ContainerId::new("containerd", "abc"));
        assert_eq!(id.to_string(), "containerd://abc");
        assert!("abc".parse::<ContainerId>().is_err());
        assert!("://abc".parse::<ContainerId>().is_err());
    }
}
