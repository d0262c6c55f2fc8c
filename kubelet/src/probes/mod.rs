//! Probes of containers: startup, readiness, liveness.
//!
//! One task per container and kind of probe, from when the pod is prepared until it is taken away; each follows its
//! container through restarts by the pod's status. Results are kept by container; a changed result is told to the
//! subscriber, who wakes the pod's worker. As upstream's prober manager.

mod attempt;
mod grpc;
pub mod http;
mod results;
mod status;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, Probe};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use attempt::{Attempt, Outcome};
pub use results::Results;

use crate::agent::PodProbes;
use crate::events::Events;
use crate::runtime::{self, ExecOutput, Runtime};
use crate::sync::plan::ProbeResults;
use crate::types;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// The container is up; until then the others wait.
    Startup,
    /// The container may be sent requests.
    Readiness,
    /// The container need not be restarted.
    Liveness,
}

impl ProbeKind {
    const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// As events name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// A probe has found something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeUpdate {
    /// The pod.
    pub pod_uid: String,
    /// The runtime's identifier of the container.
    pub container_id: String,
    /// Kind of probe.
    pub kind: ProbeKind,
    /// What it found.
    pub success: bool,
}

/// Runs a command in a container.
#[async_trait::async_trait]
pub trait ContainerExec: Send + Sync {
    /// Runs `command` to its end, or for `timeout` at most.
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, runtime::Error>;
}

#[async_trait::async_trait]
impl ContainerExec for Runtime {
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, runtime::Error> {
        Runtime::exec_sync(self, container_id, command, timeout).await
    }
}

/// The newest status of a pod.
pub trait PodStatusSource: Send + Sync {
    /// By UID.
    fn pod_status(&self, uid: &str) -> Option<Arc<PodStatus>>;
}

impl PodStatusSource for crate::status::StatusManager {
    fn pod_status(&self, uid: &str) -> Option<Arc<PodStatus>> {
        Self::pod_status(self, uid)
    }
}

/// What probes need of the rest.
pub struct Deps {
    /// Runs commands.
    pub exec: Arc<dyn ContainerExec>,
    /// Tells addresses and identifiers.
    pub status: Arc<dyn PodStatusSource>,
    /// Events.
    pub events: Events,
    /// Owner of the tasks.
    pub tasks: Tasks,
}

type WorkerKey = (String, String, ProbeKind);

struct Handle {
    stop: CancellationToken,
    trigger: Arc<Notify>,
}

struct Shared {
    exec: Arc<dyn ContainerExec>,
    status: Arc<dyn PodStatusSource>,
    events: Events,
    results: Results,
    start: Timestamp,
}

/// All probes of this node.
pub struct ProbeManager {
    shared: Arc<Shared>,
    tasks: Tasks,
    workers: Arc<Mutex<HashMap<WorkerKey, Handle>>>,
}

impl ProbeManager {
    /// No probes yet.
    #[must_use]
    pub fn new(deps: Deps) -> Arc<Self> {
        let shared = Shared {
            exec: deps.exec,
            status: deps.status,
            events: deps.events,
            results: Results::default(),
            start: Timestamp::now(),
        };
        Arc::new(Self { shared: Arc::new(shared), tasks: deps.tasks, workers: Arc::default() })
    }

    /// Calls `listener` with every new result. It must not block.
    pub fn subscribe(&self, listener: impl Fn(&ProbeUpdate) + Send + Sync + 'static) {
        self.shared.results.subscribe(Box::new(listener));
    }

    /// Starts the workers of a pod that are not there yet.
    pub fn add_pod(&self, pod: &Arc<Pod>) {
        let spec = types::spec(pod);
        let sidecars =
            types::init_containers(spec).iter().filter(|container| types::is_restartable_init(container));
        for container in spec.containers.iter().chain(sidecars) {
            for kind in ProbeKind::ALL {
                if let Some(probe) = kind.of(container) {
                    self.add_worker(pod, container, kind, probe);
                }
            }
        }
    }

    fn add_worker(&self, pod: &Arc<Pod>, container: &Container, kind: ProbeKind, probe: &Probe) {
        let key = (types::uid(pod).to_owned(), container.name.clone(), kind);
        let mut workers = self.workers.lock();
        if workers.contains_key(&key) {
            return;
        }
        let handle = Handle { stop: CancellationToken::new(), trigger: Arc::new(Notify::new()) };
        let worker =
            worker::Worker::new(self.shared.clone(), pod.clone(), container.clone(), kind, probe.clone());
        let (stop, trigger, all) = (handle.stop.clone(), handle.trigger.clone(), self.workers.clone());
        workers.insert(key.clone(), handle);
        drop(workers);
        self.tasks.spawn("probe", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = stop.cancelled() => {}
                () = worker.run(&trigger) => {}
            }
            // A worker that was replaced must not remove its successor.
            if !stop.is_cancelled() {
                all.lock().remove(&key);
            }
        });
    }

    fn stop_where(&self, which: impl Fn(&WorkerKey) -> bool) {
        self.workers.lock().retain(|key, handle| {
            let stop = which(key);
            if stop {
                handle.stop.cancel();
            }
            !stop
        });
    }

    /// Stops probing a pod and forgets what was found.
    pub fn remove_pod(&self, uid: &str) {
        self.stop_where(|(pod, _, _)| pod == uid);
        self.shared.results.forget_pods(|pod| pod != uid);
    }

    /// Stops what could restart containers of a pod that ends.
    pub fn stop_liveness_and_startup(&self, uid: &str) {
        self.stop_where(|(pod, _, kind)| pod == uid && *kind != ProbeKind::Readiness);
        self.shared.results.forget_kinds(uid, &[ProbeKind::Liveness, ProbeKind::Startup]);
    }

    /// Keeps only these pods.
    pub fn cleanup(&self, keep: &HashSet<String>) {
        self.stop_where(|(pod, _, _)| !keep.contains(pod));
        self.shared.results.forget_pods(|pod| keep.contains(pod));
    }

    /// Whether a container has a probe of this kind at work.
    #[must_use]
    pub fn has_worker(&self, uid: &str, container: &str, kind: ProbeKind) -> bool {
        self.workers.lock().contains_key(&(uid.to_owned(), container.to_owned(), kind))
    }

    fn trigger(&self, uid: &str, container: &str, kind: ProbeKind) {
        if let Some(handle) = self.workers.lock().get(&(uid.to_owned(), container.to_owned(), kind)) {
            handle.trigger.notify_one();
        }
    }

    /// What a probe found about a container, by the runtime's identifier.
    #[must_use]
    pub fn result(&self, id: &str, kind: ProbeKind) -> Option<bool> {
        self.shared.results.get(id, kind)
    }
}

impl ProbeResults for ProbeManager {
    fn liveness(&self, id: &str) -> Option<bool> {
        self.result(id, ProbeKind::Liveness)
    }

    fn startup(&self, id: &str) -> Option<bool> {
        self.result(id, ProbeKind::Startup)
    }
}

impl PodProbes for ProbeManager {
    fn add_pod(&self, pod: &Arc<Pod>) {
        Self::add_pod(self, pod);
    }

    fn remove_pod(&self, uid: &str) {
        Self::remove_pod(self, uid);
    }

    fn stop_liveness_and_startup(&self, uid: &str) {
        Self::stop_liveness_and_startup(self, uid);
    }

    fn update_pod_status(&self, pod: &Pod, status: &mut PodStatus) {
        status::update(self, pod, status);
    }

    fn cleanup(&self, keep: &HashSet<String>) {
        Self::cleanup(self, keep);
    }
}

#[cfg(test)]
mod tests;
