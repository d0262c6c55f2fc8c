//! Finds what the node's status is made from: runtime, images, network, disk, pressure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::Tasks;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::RwLock;
use proto::cri;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::agent::NetworkFault;
use crate::config::KubeletConfiguration;
use crate::csi::Csi;
use crate::devices::Devices;
use crate::node_status::machine::{Machine, file_system};
use crate::node_status::{FactSource, Facts, Pressure};
use crate::pleg::Pleg;
use crate::runtime::{Runtime, RuntimeVersion};
use crate::shutdown::ShuttingDown;

const RUNTIME_CHECK: Duration = Duration::from_secs(5);
/// While something is wrong, look more often: pods wait for it.
const RUNTIME_RECHECK: Duration = Duration::from_millis(500);
const RUNTIME_GONE_AFTER: Duration = Duration::from_secs(30);

/// What the runtime said last.
#[derive(Clone, Debug, Default)]
struct RuntimeState {
    version: RuntimeVersion,
    handlers: Vec<cri::RuntimeHandler>,
    fault: Option<String>,
    seen: Option<Instant>,
}

/// Finds facts of this node; clones share what was found.
#[derive(Clone)]
pub struct NodeFacts {
    inner: Arc<Inner>,
}

/// Parts of [`NodeFacts`].
pub struct Sources {
    /// The runtime.
    pub runtime: Runtime,
    /// Changes at the runtime.
    pub pleg: Pleg,
    /// The machine.
    pub machine: Machine,
    /// Configuration.
    pub config: Arc<KubeletConfiguration>,
    /// What is kept back from pods.
    pub reserved: BTreeMap<String, Quantity>,
    /// Directory of the kubelet's files.
    pub root_dir: PathBuf,
    /// Host name.
    pub hostname: String,
    /// Addresses, primary first.
    pub addresses: Vec<IpAddr>,
    /// Port of the kubelet's server.
    pub port: u16,
    /// Where the network's state is told to others.
    pub network: NetworkFault,
    /// Told when something changed.
    pub poke: Arc<Notify>,
    /// Pressure on resources.
    pub pressure: Arc<RwLock<Pressure>>,
    /// Volumes of drivers.
    pub csi: Csi,
    /// Devices of plugins.
    pub devices: Devices,
    /// Whether the node shuts down.
    pub shutting_down: ShuttingDown,
}

struct Inner {
    sources: Sources,
    state: RwLock<RuntimeState>,
    started: Instant,
}

impl NodeFacts {
    /// Facts from these sources.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self { inner: Arc::new(Inner { sources, state: RwLock::default(), started: Instant::now() }) }
    }

    /// Starts asking the runtime how it is; `on_ready` is told when its network becomes ready.
    pub fn run(&self, tasks: &Tasks, on_ready: impl Fn() + Send + Sync + 'static) {
        let this = self.clone();
        tasks.spawn("runtime-state", |token| async move {
            loop {
                let was_ready = this.inner.sources.network.read().is_none();
                this.check().await;
                let ready = this.inner.sources.network.read().is_none();
                if ready != was_ready {
                    this.inner.sources.poke.notify_one();
                    if ready {
                        on_ready();
                    }
                }
                let well = ready && this.inner.state.read().fault.is_none();
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(if well { RUNTIME_CHECK } else { RUNTIME_RECHECK }) => {}
                }
            }
        });
    }

    /// Asks the runtime once.
    pub async fn check(&self) {
        let inner = &self.inner;
        let runtime = &inner.sources.runtime;
        let (status, version) = (runtime.status().await, runtime.version().await);
        let mut state = inner.state.write();
        if let Ok(version) = version {
            state.version = version;
        }
        match status {
            Ok(answer) => {
                let conditions = answer.status.map(|s| s.conditions).unwrap_or_default();
                state.handlers = answer.runtime_handlers;
                state.seen = Some(Instant::now());
                state.fault = fault(&conditions, "RuntimeReady", "container runtime not ready");
                *inner.sources.network.write() =
                    fault(&conditions, "NetworkReady", "container runtime network not ready");
            }
            Err(error) => {
                tracing::warn!(%error, "container runtime sanity check failed");
                state.fault =
                    Some(format!("container runtime status check may not have completed yet: {error}"));
            }
        }
    }

    /// Why the runtime cannot be used, if it cannot.
    #[must_use]
    pub fn runtime_fault(&self) -> Option<String> {
        let state = self.inner.state.read();
        let since = state.seen.unwrap_or(self.inner.started).elapsed();
        if since > RUNTIME_GONE_AFTER {
            return Some("container runtime is down".to_owned());
        }
        state.fault.clone().or_else(|| self.inner.sources.pleg.health().err())
    }
}

/// The condition of a runtime when it does not hold, in upstream's words.
fn fault(conditions: &[cri::RuntimeCondition], kind: &str, preface: &str) -> Option<String> {
    match conditions.iter().find(|c| c.r#type == kind) {
        Some(c) if c.status => None,
        Some(c) => Some(format!("{preface}: {kind}=false reason:{} message:{}", c.reason, c.message)),
        None => Some(format!("{preface}: condition {kind} is not reported")),
    }
}

#[async_trait]
impl FactSource for NodeFacts {
    async fn facts(&self) -> Facts {
        let sources = &self.inner.sources;
        let images = sources.runtime.list_images().await.unwrap_or_default();
        let root = sources.root_dir.clone();
        let disk = tokio::task::spawn_blocking(move || file_system(&root)).await;
        let ephemeral_storage = disk.ok().and_then(Result::ok).map(|f| f.capacity).unwrap_or_default();
        let faults = [self.runtime_fault(), sources.network.read().clone(), sources.shutting_down.fault()];
        let faults = faults.into_iter().flatten().collect();
        let csi = sources.csi.clone();
        let volumes_in_use =
            tokio::task::spawn_blocking(move || csi.volumes_in_use()).await.unwrap_or_default();
        let state = self.inner.state.read().clone();
        Facts {
            machine: sources.machine.clone(),
            ephemeral_storage,
            max_pods: sources.config.max_pods,
            pods_per_core: sources.config.pods_per_core,
            reserved: sources.reserved.clone(),
            addresses: sources.addresses.clone(),
            hostname: sources.hostname.clone(),
            port: sources.port,
            runtime_version: state.version.node_info(),
            images,
            max_images: sources.config.node_status_max_images,
            handlers: state.handlers,
            pressure: *sources.pressure.read(),
            faults,
            volumes_in_use,
            devices: sources.devices.capacity(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_in_upstreams_words() {
        let condition = |kind: &str, status, reason: &str, message: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        };
        let conditions = [
            condition("RuntimeReady", true, "", ""),
            condition("NetworkReady", false, "NetworkPluginNotReady", "cni plugin not initialized"),
        ];
        assert_eq!(fault(&conditions, "RuntimeReady", "container runtime not ready"), None);
        assert_eq!(
            fault(&conditions, "NetworkReady", "container runtime network not ready").as_deref(),
            Some(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                 message:cni plugin not initialized"
            )
        );
    }
}
