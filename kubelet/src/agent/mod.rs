//! The agent: puts pods, workers, volumes, probes, statuses and the node together.
//!
//! `sources` takes pods in and admits them, `pod` carries out the steps of a worker, `environment` gives containers
//! what they need, `housekeeping` clears up after pods that are gone.

mod cpu_sets;
pub mod environment;
pub mod housekeeping;
mod pod;
mod preempt;
mod resize;
mod shutdown;
pub mod sources;
pub mod volumes;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use parking_lot::{Mutex, RwLock};

use crate::allocation::{Conditions, Record};
use crate::cgroups::Cgroups;
use crate::claims::Claims;
use crate::config::KubeletConfiguration;
use crate::events::Events;
use crate::layout::Layout;
use crate::objects::Objects;
use crate::placement::Placement;
use crate::pleg::Pleg;
use crate::pod_workers::PodWorkers;
use crate::pods::PodRegistry;
use crate::shutdown::ShuttingDown;
use crate::status::{StatusInput, StatusManager, Verdict, generate};
use crate::sync::plan::ProbeResults;
use crate::sync::{PodRuntime, plan_pod};
use crate::types;
use environment::Environment;
use volumes::PodVolumes;

/// What probes tell and are told.
pub trait PodProbes: ProbeResults + Send + Sync {
    /// Starts probing the containers of a pod.
    fn add_pod(&self, pod: &Arc<Pod>);
    /// Stops probing a pod and forgets what was found.
    fn remove_pod(&self, uid: &str);
    /// Stops what could restart containers of a pod that is being stopped.
    fn stop_liveness_and_startup(&self, uid: &str);
    /// Fills in `started` and `ready`.
    fn update_pod_status(&self, pod: &Pod, status: &mut PodStatus);
    /// Keeps only these pods.
    fn cleanup(&self, keep: &std::collections::HashSet<String>);
}

/// What the network of the runtime says; `None` when it is ready.
pub type NetworkFault = Arc<RwLock<Option<String>>>;

/// Parts of the agent.
pub struct Parts {
    /// Configuration.
    pub config: Arc<KubeletConfiguration>,
    /// Name of this node.
    pub node_name: String,
    /// Paths.
    pub layout: Layout,
    /// Pods at the runtime.
    pub runtime: PodRuntime,
    /// What containers need from elsewhere.
    pub environment: Arc<Environment>,
    /// Pods of this node.
    pub pods: PodRegistry,
    /// Statuses.
    pub status: StatusManager,
    /// Events.
    pub events: Events,
    /// API objects that pods refer to.
    pub objects: Arc<Objects>,
    /// Volumes.
    pub volumes: Arc<dyn PodVolumes>,
    /// Probes.
    pub probes: Arc<dyn PodProbes>,
    /// Control groups.
    pub cgroups: Cgroups,
    /// What containers are given of this node.
    pub placement: Placement,
    /// Changes at the runtime.
    pub pleg: Pleg,
    /// State of the runtime's network.
    pub network: NetworkFault,
    /// Mirror pods; `None` without an API.
    pub mirrors: Option<crate::static_pods::mirror::Mirrors>,
    /// What pods were allocated.
    pub allocated: Record,
    /// Claims for devices of drivers.
    pub claims: Claims,
    /// Whether the node shuts down.
    pub shutting_down: ShuttingDown,
    /// What is told of resizes.
    pub resizes: Conditions,
    /// Directory of static pod manifests.
    pub manifests: Option<PathBuf>,
}

/// The agent; clones share it.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<AgentInner>,
}

struct AgentInner {
    parts: Parts,
    workers: OnceLock<PodWorkers>,
    /// One admission at a time: each must see the pods admitted before it.
    admission: Mutex<sources::Admission>,
}

impl Agent {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let inner = AgentInner { parts, workers: OnceLock::new(), admission: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Makes the workers, which do their steps with this agent.
    #[must_use]
    pub fn start_workers(
        &self,
        intervals: crate::pod_workers::Intervals,
        tasks: &client::Tasks,
    ) -> PodWorkers {
        let make = || PodWorkers::new(Arc::new(self.clone()), intervals, tasks.clone());
        self.inner.workers.get_or_init(make).clone()
    }

    /// Lets pods be reported while their start takes long.
    pub fn report_slow_starts(&self) {
        // Weak: the environment is a part of this agent.
        let agent = Arc::downgrade(&self.inner);
        let report: environment::SlowStart = Box::new(move |uid| {
            let (agent, uid) = (agent.upgrade().map(|inner| Agent { inner }), uid.to_owned());
            Box::pin(async move {
                if let Some(agent) = agent {
                    agent.report_now(&uid).await;
                }
            })
        });
        // A second call finds the first in place, and that is as good.
        drop(self.parts().environment.on_slow_start.set(report));
    }

    /// Looks at a pod and publishes what is seen.
    async fn report_now(&self, uid: &str) {
        let parts = self.parts();
        let Some(pod) = parts.pods.by_uid(uid) else { return };
        let pod = parts.allocated.applied(&pod);
        if let Ok(observed) = parts.runtime.inspect(uid).await {
            self.report(&pod, &observed, false, None);
        }
    }

    fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    fn workers(&self) -> &PodWorkers {
        self.inner.workers.get().expect("workers are started before pods are taken in")
    }

    fn host_ips(&self) -> Vec<IpAddr> {
        self.parts().environment.host_ips()
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.parts().environment.node()
    }

    /// Generates the status of a pod from what was seen and publishes it.
    fn report(
        &self,
        pod: &Arc<Pod>,
        observed: &types::PodStatus,
        terminal: bool,
        verdict: Option<&Verdict>,
    ) -> PodStatus {
        let parts = self.parts();
        let uid = types::uid(pod);
        let previous = parts.status.pod_status(uid);
        let sandbox_is_good = !plan_pod(pod, observed, &*parts.probes).create_sandbox
            && observed.sandboxes.first().is_some_and(|s| s.ready);
        if terminal {
            parts.resizes.forget(uid);
        }
        let group = parts.environment.cgroups.planned(pod).map(|_| parts.cgroups.limits(pod));
        let status = generate(
            &StatusInput {
                pod,
                observed,
                previous: previous.as_deref(),
                reasons: parts.runtime.reasons(),
                terminal,
                verdict,
                host_ips: &self.host_ips(),
                sandbox_is_good,
                resizes: &parts.resizes.of(uid),
                group: group.as_ref(),
            },
            |pod, status| {
                parts.probes.update_pod_status(pod, status);
                parts.placement.update_status(pod, status);
                parts.claims.update_status(pod, status);
            },
            Timestamp::now(),
        );
        self.publish(pod, status.clone());
        status
    }

    /// Publishes a status of a pod; for a static pod, on its mirror.
    fn publish(&self, pod: &Arc<Pod>, status: PodStatus) {
        let parts = self.parts();
        let uid = types::uid(pod);
        // Without a mirror yet, the status is kept here and published once there is one.
        let carrier = parts.pods.api_pod(pod).unwrap_or_else(|| pod.clone());
        parts.status.set(uid, &carrier, status);
    }
}

#[cfg(test)]
mod tests;
