//! Which devices, CPUs and memory the containers of a pod get, given when the pod is admitted, so that all of them are close to each other
//! where the topology policy wants that (upstream's container manager and topology manager).
//!
//! One pod at a time: each sees what was given before it. What is given is written down by whoever gives it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodStatus};
use parking_lot::Mutex;

use crate::admission::Rejection;
use crate::cpus::{CpuSet, Cpus, Refusal};
use crate::devices::{DeviceOptions, Devices};
use crate::memory::Memory;
use crate::topology::{self, Hint, NumaInfo, Options, Policy, Scope};
use crate::types;

/// Whether the pod with this UID may hold resources.
pub type Active<'a> = &'a (dyn Fn(&str) -> bool + Send + Sync);

/// How what is given is aligned.
#[derive(Clone, Debug, Default)]
pub struct Alignment {
    /// Which alignments are good enough.
    pub policy: Policy,
    /// What is aligned as one.
    pub scope: Scope,
    /// Finer points.
    pub options: Options,
    /// NUMA nodes of the machine.
    pub numa: NumaInfo,
}

/// What one container was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// What it needs to use its devices.
    pub devices: DeviceOptions,
    /// CPUs it runs on; none where that makes no difference.
    pub cpus: CpuSet,
    /// It has them for itself.
    pub alone: bool,
    /// NUMA nodes of its memory; none where that makes no difference.
    pub numa: BTreeSet<usize>,
}

/// Gives out what a node has; clones share it.
#[derive(Clone)]
pub struct Placement {
    inner: Arc<Inner>,
}

struct Inner {
    devices: Devices,
    cpus: Cpus,
    memory: Memory,
    alignment: Alignment,
    turn: tokio::sync::Mutex<()>,
    /// What was decided, by UID of the pod and name of the container.
    affinities: Mutex<HashMap<String, HashMap<String, Hint>>>,
}

impl Placement {
    /// Gives out these.
    #[must_use]
    pub fn new(devices: Devices, cpus: Cpus, memory: Memory, alignment: Alignment) -> Self {
        let (turn, affinities) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { devices, cpus, memory, alignment, turn, affinities }) }
    }

    /// Devices.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.inner.devices
    }

    /// CPUs.
    #[must_use]
    pub fn cpus(&self) -> &Cpus {
        &self.inner.cpus
    }

    /// Memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    /// Gives the containers of `pod` what they ask for, or says why not. What containers of a pod that `runs` have, they
    /// keep.
    pub async fn admit(&self, pod: &Pod, runs: bool, active: Active<'_>) -> Result<(), Rejection> {
        let _turn = self.inner.turn.lock().await;
        self.retain(active);
        let spec = types::spec(pod);
        let containers = || types::init_containers(spec).iter().chain(&spec.containers);
        let alignment = &self.inner.alignment;
        let whole = match (alignment.policy, alignment.scope) {
            (Policy::None, _) | (_, Scope::Container) => None,
            (_, Scope::Pod) => Some(self.aligned(&self.pod_hints(pod))?),
        };
        for container in containers() {
            let affinity = match whole {
                _ if alignment.policy == Policy::None => Hint::default(),
                Some(whole) => whole,
                None => self.aligned(&self.container_hints(pod, container))?,
            };
            self.remember(types::uid(pod), &container.name, affinity);
            self.allocate(pod, container, affinity, runs).await?;
        }
        Ok(())
    }

    fn container_hints(&self, pod: &Pod, container: &Container) -> Vec<topology::Hints> {
        let Inner { devices, cpus, memory, .. } = &*self.inner;
        vec![devices.hints(pod, container), cpus.hints(pod, container), memory.hints(pod, container)]
    }

    fn pod_hints(&self, pod: &Pod) -> Vec<topology::Hints> {
        let Inner { devices, cpus, memory, .. } = &*self.inner;
        vec![devices.pod_hints(pod), cpus.pod_hints(pod), memory.pod_hints(pod)]
    }

    fn aligned(&self, hints: &[topology::Hints]) -> Result<Hint, Rejection> {
        let Alignment { policy, options, numa, .. } = &self.inner.alignment;
        metrics::counter!("kubelet_topology_manager_admission_requests_total").increment(1);
        let (best, good) = topology::merge(*policy, numa, *options, hints);
        if good {
            return Ok(best);
        }
        metrics::counter!("kubelet_topology_manager_admission_errors_total").increment(1);
        Err(Rejection {
            reason: "TopologyAffinityError".to_owned(),
            message: "Resources cannot be allocated with Topology locality".to_owned(),
        })
    }

    fn remember(&self, uid: &str, container: &str, affinity: Hint) {
        let mut all = self.inner.affinities.lock();
        all.entry(uid.to_owned()).or_default().insert(container.to_owned(), affinity);
    }

    fn affinity(&self, uid: &str, container: &str) -> Hint {
        self.inner.affinities.lock().get(uid).and_then(|pod| pod.get(container)).copied().unwrap_or_default()
    }

    async fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        affinity: Hint,
        runs: bool,
    ) -> Result<(), Rejection> {
        let Inner { devices, cpus, memory, .. } = &*self.inner;
        if !runs {
            devices.allocate(pod, container, affinity).await.map_err(unexpected)?;
        }
        cpus.allocate(pod, container, affinity).map_err(|refusal| match refusal {
            Refusal::SmtAlignment(_) => {
                Rejection { reason: "SMTAlignmentError".to_owned(), message: refusal.to_string() }
            }
            Refusal::Other(error) => unexpected(error),
        })?;
        memory.allocate(pod, container, affinity).map_err(unexpected)
    }

    /// What a container that is about to start needs to use its devices. One that lost them is given others.
    pub async fn container_options(&self, pod: &Pod, container: &Container) -> Result<Given, String> {
        let devices = &self.inner.devices;
        let uid = types::uid(pod);
        if devices.lacks(pod, container) {
            let _turn = self.inner.turn.lock().await;
            let affinity = self.affinity(uid, &container.name);
            devices.allocate(pod, container, affinity).await?;
        }
        Ok(Given {
            devices: devices.container_options(pod, container).await?,
            ..self.given(pod, &container.name)
        })
    }

    /// What a container was given, but for its devices.
    #[must_use]
    pub fn given(&self, pod: &Pod, container: &str) -> Given {
        let Inner { cpus, memory, .. } = &*self.inner;
        let uid = types::uid(pod);
        Given {
            devices: DeviceOptions::default(),
            cpus: cpus.of_container(uid, container),
            alone: cpus.exclusive(uid, container).is_some(),
            numa: memory.numa_of_container(uid, container),
        }
    }

    /// Takes back what pods had that are not active.
    pub fn retain(&self, active: Active<'_>) {
        self.inner.devices.retain(active);
        self.inner.cpus.retain(active);
        self.inner.memory.retain(active);
        self.inner.affinities.lock().retain(|uid, _| active(uid));
    }

    /// The node as this pod must be admitted on it: with at least what was given already.
    #[must_use]
    pub fn raised(&self, pod: &Pod, node: &Arc<Node>) -> Arc<Node> {
        self.inner.devices.raised(pod, node).map_or_else(|| node.clone(), Arc::new)
    }

    /// Writes into a pod's status how what its containers have is.
    pub fn update_status(&self, pod: &Pod, status: &mut PodStatus) {
        self.inner.devices.update_status(pod, status);
    }
}

/// Why a pod is refused when something could not be given to it.
fn unexpected(error: String) -> Rejection {
    Rejection {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!("Allocate failed due to {error}, which is unexpected"),
    }
}
