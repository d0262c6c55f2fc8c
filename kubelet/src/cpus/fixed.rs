//! The static policy: containers of guaranteed pods that ask for whole CPUs get them for themselves. Pure over a state; as
//! upstream's `cpumanager/policy_static.go`.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::distribute::distributed;
use super::layout::{Layout, Level};
use super::options::Options;
use super::set::CpuSet;
use super::state::State;
use super::take::packed;
use crate::qos::{self, QosClass};
use crate::topology::{Hint, Hints, NumaMask};
use crate::types;

/// Why CPUs cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Whole cores are wanted, and it cannot be done with these.
    #[error("SMT Alignment Error: {0}")]
    SmtAlignment(String),
    /// There are not enough.
    #[error("{0}")]
    Other(String),
}

/// The policy of one machine.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) layout: Layout,
    /// CPUs that nobody gets for himself.
    pub(super) reserved: CpuSet,
    /// With all other CPUs of the same cores.
    reserved_cores: CpuSet,
    pub(super) options: Options,
}

/// CPUs of init containers that later containers of the same pod may have; of one pod at a time.
pub(super) type Reusable = (String, CpuSet);

impl Fixed {
    /// With these CPUs kept back, or as many of the first cores.
    pub(super) fn new(
        layout: Layout,
        count: usize,
        reserved: CpuSet,
        options: Options,
    ) -> Result<Self, String> {
        let mut policy = Self { layout, reserved, reserved_cores: CpuSet::default(), options };
        if policy.reserved.is_empty() {
            policy.reserved = policy.take(&policy.layout.cpus(), count).unwrap_or_default();
        }
        if policy.reserved.len() != count {
            return Err(format!(
                "[cpumanager] unable to reserve the required amount of CPUs (size of {} did not equal {count})",
                policy.reserved
            ));
        }
        let core = |cpu: usize| policy.layout.get(cpu).map(|at| at.core);
        let cores: CpuSet = policy.reserved.iter().filter_map(core).collect();
        policy.reserved_cores = policy.layout.cpus_in(Level::Core, &cores);
        Ok(policy)
    }

    /// The state to start with: the file's, if it fits the machine.
    pub(super) fn start(&self, known: Option<State>) -> Result<State, String> {
        let mut state = known.unwrap_or_default();
        let all = self.layout.cpus();
        let strict = self.options.strict_reservation;
        if state.shared.is_empty() {
            if !state.assignments.is_empty() {
                return Err("default cpuset cannot be empty".to_owned());
            }
            state.shared = if strict { all.difference(&self.reserved) } else { all };
            return Ok(state);
        }
        let present = self.reserved.intersection(&state.shared);
        if strict && !present.is_empty() {
            return Err(format!(
                "some of strictly reserved cpus: \"{present}\" are present in defaultCpuSet: \"{}\"",
                state.shared
            ));
        }
        if !strict && present != self.reserved {
            return Err(format!(
                "not all reserved cpus: \"{}\" are present in defaultCpuSet: \"{}\"",
                self.reserved, state.shared
            ));
        }
        let mut given = state
            .assignments
            .iter()
            .flat_map(|(uid, pod)| pod.iter().map(move |(name, set)| (uid, name, set)));
        if let Some((uid, container, set)) = given.find(|(.., set)| !set.is_disjoint(&state.shared)) {
            return Err(format!(
                "pod: {uid}, container: {container} cpuset: \"{set}\" overlaps with default cpuset \"{}\"",
                state.shared
            ));
        }
        let known = state.shared.union(&state.exclusive());
        let available = if strict { all.difference(&self.reserved) } else { all };
        if known != available {
            return Err(format!(
                "current set of available CPUs \"{available}\" doesn't match with CPUs in state \"{known}\""
            ));
        }
        Ok(state)
    }

    /// CPUs that can be given to one container alone, whoever has them now.
    pub(super) fn allocatable(&self) -> CpuSet {
        self.layout.cpus().difference(&self.reserved)
    }

    pub(super) fn available(&self, state: &State) -> CpuSet {
        state.shared.difference(&self.reserved)
    }

    fn take(&self, free: &CpuSet, count: usize) -> Result<CpuSet, String> {
        let manner = self.options.manner();
        if !self.options.distribute {
            return packed(&self.layout, free, count, manner);
        }
        let group = if self.options.full_pcpus_only { self.layout.per(Level::Core) } else { 1 };
        distributed(&self.layout, free, count, group, manner)
    }

    /// Gives a container its CPUs, if it gets any for itself.
    pub(super) fn allocate(
        &self,
        state: &mut State,
        reusable: &mut Reusable,
        (pod, container): (&Pod, &Container),
        affinity: Hint,
    ) -> Result<(), Refusal> {
        let uid = types::uid(pod);
        let count = wanted(pod, container);
        if count == 0 {
            return Ok(());
        }
        self.check_cores(state, count)?;
        if reusable.0 != uid {
            *reusable = (uid.to_owned(), CpuSet::default());
        }
        let cpus = match state.get(uid, &container.name) {
            Some(cpus) => cpus.clone(),
            None => {
                let cpus = self.choose(state, &reusable.1, count, affinity).map_err(Refusal::Other)?;
                state.shared = state.shared.difference(&cpus);
                let pod = state.assignments.entry(uid.to_owned()).or_default();
                pod.insert(container.name.clone(), cpus.clone());
                cpus
            }
        };
        let init = types::init_containers(types::spec(pod)).iter().find(|c| c.name == container.name);
        let passes_on = init.is_some_and(|c| !types::is_restartable_init(c));
        reusable.1 = if passes_on { reusable.1.union(&cpus) } else { reusable.1.difference(&cpus) };
        Ok(())
    }

    /// Whether so many CPUs can be whole cores.
    fn check_cores(&self, state: &State, count: usize) -> Result<(), Refusal> {
        if !self.options.full_pcpus_only {
            return Ok(());
        }
        let per_core = self.layout.per(Level::Core);
        if per_core > 0 && !count.is_multiple_of(per_core) {
            return Err(Refusal::SmtAlignment(format!(
                "requested {count} cpus not multiple cpus per core = {per_core}"
            )));
        }
        let available = state.shared.difference(&self.reserved_cores).len();
        if count > available {
            return Err(Refusal::SmtAlignment(format!(
                "not enough free physical CPUs: available physical CPUs = {available}, requested CPUs = {count}, \
                 CPUs per core = {per_core}"
            )));
        }
        Ok(())
    }

    fn choose(
        &self,
        state: &State,
        reusable: &CpuSet,
        count: usize,
        affinity: Hint,
    ) -> Result<CpuSet, String> {
        let free = self.available(state).union(reusable);
        let mut chosen = CpuSet::default();
        if let Some(mask) = affinity.affinity {
            let aligned = self.aligned(mask, &free);
            chosen = self.take(&aligned, count.min(aligned.len()))?;
        }
        let rest = self.take(&free.difference(&chosen), count - chosen.len())?;
        Ok(chosen.union(&rest))
    }

    fn aligned(&self, mask: NumaMask, free: &CpuSet) -> CpuSet {
        let numa: CpuSet = mask.nodes().collect();
        if !self.options.align_by_socket {
            return free.intersection(&self.layout.cpus_in(Level::Numa, &numa));
        }
        let sockets = numa
            .iter()
            .flat_map(|n| self.layout.all_in(Level::Socket, Level::Numa, n).iter().collect::<Vec<_>>());
        free.intersection(&self.layout.cpus_in(Level::Socket, &sockets.collect()))
    }

    /// What could be given to one container.
    pub(super) fn container_hints(
        &self,
        state: &State,
        reusable: &Reusable,
        pod: &Pod,
        container: &Container,
    ) -> Hints {
        let count = wanted(pod, container);
        if count == 0 {
            return Hints::new();
        }
        let hints = match state.get(types::uid(pod), &container.name) {
            Some(had) if had.len() != count => Vec::new(),
            Some(had) => self.hints(had, &CpuSet::default(), count),
            None => {
                let reusable =
                    if reusable.0 == types::uid(pod) { reusable.1.clone() } else { CpuSet::default() };
                self.hints(&self.available(state), &reusable, count)
            }
        };
        Hints::from([("cpu".to_owned(), Some(hints))])
    }

    /// What could be given to all containers of a pod together.
    pub(super) fn pod_hints(&self, state: &State, reusable: &Reusable, pod: &Pod) -> Hints {
        let count = wanted_together(pod);
        if count == 0 {
            return Hints::new();
        }
        let uid = types::uid(pod);
        let mut assigned = CpuSet::default();
        let spec = types::spec(pod);
        for container in types::init_containers(spec).iter().chain(&spec.containers) {
            let Some(had) = state.get(uid, &container.name) else { continue };
            if had.len() != wanted(pod, container) {
                return Hints::from([("cpu".to_owned(), Some(Vec::new()))]);
            }
            assigned = assigned.union(had);
        }
        let hints = if assigned.len() == count {
            self.hints(&assigned, &CpuSet::default(), count)
        } else {
            let own = if reusable.0 == uid { reusable.1.clone() } else { CpuSet::default() };
            self.hints(&self.available(state), &own.union(&assigned), count)
        };
        Hints::from([("cpu".to_owned(), Some(hints))])
    }

    /// One hint for each set of NUMA nodes that has enough; the smallest that could ever do are preferred.
    fn hints(&self, available: &CpuSet, reusable: &CpuSet, count: usize) -> Vec<Hint> {
        let nodes: Vec<usize> = self.layout.all(Level::Numa).iter().collect();
        let numa = |cpu: usize| self.layout.get(cpu).map(|at| at.numa).unwrap_or_default();
        let mut least = nodes.len();
        let mut found = Vec::new();
        for mask in NumaMask::subsets(&nodes) {
            if self.layout.cpus_in(Level::Numa, &mask.nodes().collect()).len() >= count {
                least = least.min(mask.count());
            }
            let inside = available.iter().filter(|cpu| mask.contains(numa(*cpu))).count();
            if reusable.iter().all(|cpu| mask.contains(numa(cpu))) && reusable.len() + inside >= count {
                found.push(mask);
            }
        }
        let preferred = |mask: NumaMask| mask.count() == least || self.is_on_few_sockets(mask, least);
        found.into_iter().map(|mask| Hint { affinity: Some(mask), preferred: preferred(mask) }).collect()
    }

    fn is_on_few_sockets(&self, mask: NumaMask, least: usize) -> bool {
        let sockets = self.layout.all(Level::Socket).len();
        let per_socket = self.layout.all(Level::Numa).len().checked_div(sockets).unwrap_or_default();
        if !self.options.align_by_socket || per_socket == 0 {
            return false;
        }
        let numa: CpuSet = mask.nodes().collect();
        let cpus = self.layout.cpus_in(Level::Numa, &numa);
        self.layout.only(&cpus).all(Level::Socket).len() == least.div_ceil(per_socket)
    }
}

/// How many CPUs a container gets for itself: all it asks for, if its pod is guaranteed and they are whole.
pub(super) fn wanted(pod: &Pod, container: &Container) -> usize {
    // As upstream: nothing is given to containers of pods whose resources are given to the pod as a whole.
    if qos::pod_qos(pod) != QosClass::Guaranteed || types::has_pod_resources(pod) {
        return 0;
    }
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let milli = qos::amount(requests, "cpu").unwrap_or_default();
    if milli % 1000 == 0 { usize::try_from(milli / 1000).unwrap_or_default() } else { 0 }
}

/// How many CPUs the containers of a pod get for themselves at the same time, at most.
fn wanted_together(pod: &Pod) -> usize {
    let spec = types::spec(pod);
    let (mut sidecars, mut most) = (0, 0);
    for container in types::init_containers(spec) {
        if types::is_restartable_init(container) {
            sidecars += wanted(pod, container);
        } else {
            most = most.max(sidecars + wanted(pod, container));
        }
    }
    let apps: usize = spec.containers.iter().map(|container| wanted(pod, container)).sum();
    most.max(apps + sidecars)
}
