//! The static policy: memory of guaranteed pods comes from as few NUMA nodes as will do, and groups of nodes do not
//! overlap. Pure over a state; as upstream's `memorymanager/policy_static.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::machine::NumaMemory;
use super::state::{Block, Machine, NumaState, State, Table, reserve};
use crate::qos::{self, QosClass};
use crate::topology::{Hint, Hints, NumaMask};
use crate::{quantity, types};

/// Bytes by kind of memory.
pub(super) type Amounts = BTreeMap<String, u64>;

/// Memory of init containers that later containers of the same pod may have, by where it comes from; of one pod at a time.
pub(super) type Reusable = (String, BTreeMap<NumaMask, Amounts>);

const MEMORY: &str = "memory";

/// The policy of one machine.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    /// The machine with nothing given.
    empty: Machine,
}

impl Fixed {
    /// With this memory, of which so much is kept back on each NUMA node.
    pub(super) fn new(machine: &[NumaMemory], reserved: &BTreeMap<usize, Amounts>) -> Result<Self, String> {
        let total: u64 = reserved.values().filter_map(|node| node.get(MEMORY)).sum();
        if total == 0 {
            return Err("[memorymanager] you should specify the system reserved memory".to_owned());
        }
        let state = |node: &NumaMemory| {
            let kept =
                |kind: &str| reserved.get(&node.id).and_then(|r| r.get(kind)).copied().unwrap_or_default();
            let table = |kind: &str, total: u64, other: u64| {
                let allocatable = total.saturating_sub(kept(kind)).saturating_sub(other);
                Table { total, system_reserved: kept(kind), allocatable, reserved: 0, free: allocatable }
            };
            let huge: u64 = node.huge_pages.values().sum();
            let mut memory_map: BTreeMap<String, Table> =
                node.huge_pages.iter().map(|(kind, total)| (kind.clone(), table(kind, *total, 0))).collect();
            memory_map.insert(MEMORY.to_owned(), table(MEMORY, node.memory, huge));
            (node.id, NumaState { number_of_assignments: 0, memory_map, cells: vec![node.id] })
        };
        Ok(Self { empty: machine.iter().map(state).collect() })
    }

    /// The state to start with: the file's, if it fits the machine.
    pub(super) fn start(&self, known: Option<State>) -> Result<State, String> {
        let state = known.unwrap_or_default();
        if state.machine.is_empty() {
            if !state.assignments.is_empty() {
                return Err("[memorymanager] machine state can not be empty when it has memory assignments"
                    .to_owned());
            }
            return Ok(State { machine: self.empty.clone(), ..state });
        }
        let mut expected = self.empty.clone();
        for (uid, containers) in &state.assignments {
            for (container, blocks) in containers {
                let about = format!(
                    "[memorymanager] (pod: {uid}, container: {container}) the memory assignment uses"
                );
                for block in blocks {
                    let mut nodes = block.numa_affinity.iter().map(|node| expected.get(node));
                    if nodes.clone().any(|node| node.is_none()) {
                        return Err(format!("{about} the NUMA that does not exist"));
                    }
                    if nodes.any(|node| node.is_some_and(|n| !n.memory_map.contains_key(&block.kind))) {
                        return Err(format!("{about} memory resource that does not exist"));
                    }
                    reserve(&mut expected, &block.numa_affinity, &block.kind, block.size);
                }
            }
        }
        if are_alike(&state.machine, &expected) {
            Ok(state)
        } else {
            Err("[memorymanager] the expected machine state is different from the real one".to_owned())
        }
    }

    /// Gives a container its memory, if its pod is guaranteed.
    pub(super) fn allocate(
        state: &mut State,
        reusable: &mut Reusable,
        (pod, container): (&Pod, &Container),
        affinity: Hint,
    ) -> Result<(), String> {
        if !is_ours(pod) {
            return Ok(());
        }
        let uid = types::uid(pod);
        if reusable.0 != uid {
            *reusable = (uid.to_owned(), BTreeMap::new());
        }
        if let Some(blocks) = state.get(uid, &container.name) {
            reuse(reusable, is_passing_on(pod, container), &blocks.clone());
            return Ok(());
        }
        let asked = requests(container);
        let mask = choose(&state.machine, reusable, &asked, affinity)?;
        let nodes: Vec<usize> = mask.nodes().collect();
        let mut blocks = Vec::new();
        for (kind, size) in &asked {
            blocks.push(Block { numa_affinity: nodes.clone(), kind: kind.clone(), size: *size });
            let own = reusable_of(reusable, mask, kind);
            reserve(&mut state.machine, &nodes, kind, size.saturating_sub(own));
        }
        reuse(reusable, is_passing_on(pod, container), &blocks);
        take_over(state, pod, container, &blocks);
        state.assignments.entry(uid.to_owned()).or_default().insert(container.name.clone(), blocks);
        Ok(())
    }

    /// What could be given to one container.
    pub(super) fn container_hints(
        state: &State,
        reusable: &Reusable,
        pod: &Pod,
        container: &Container,
    ) -> Hints {
        if !is_ours(pod) {
            return Hints::new();
        }
        let asked = requests(container);
        match state.get(types::uid(pod), &container.name) {
            Some(blocks) => again(blocks, &asked),
            None => hints(&state.machine, &of_pod(reusable, pod), &asked),
        }
    }

    /// What could be given to all containers of a pod together.
    pub(super) fn pod_hints(state: &State, reusable: &Reusable, pod: &Pod) -> Hints {
        if !is_ours(pod) {
            return Hints::new();
        }
        let asked = requests_together(pod);
        if asked.is_empty() {
            return Hints::new();
        }
        let spec = types::spec(pod);
        let mut containers = types::init_containers(spec).iter().chain(&spec.containers);
        // As upstream: the first container that has something stands for all.
        match containers.find_map(|container| state.get(types::uid(pod), &container.name)) {
            Some(blocks) => again(blocks, &asked),
            None => hints(&state.machine, &of_pod(reusable, pod), &asked),
        }
    }

    /// All memory that pods may have.
    pub(super) fn allocatable(&self) -> Vec<Block> {
        let blocks =
            self.empty.iter().flat_map(|(node, state)| {
                state.memory_map.iter().filter(|(_, table)| table.allocatable > 0).map(|(kind, table)| {
                    Block { numa_affinity: vec![*node], kind: kind.clone(), size: table.allocatable }
                })
            });
        blocks.collect()
    }
}

/// As upstream: nothing is given to pods whose resources are given to the pod as a whole.
pub(super) fn is_ours(pod: &Pod) -> bool {
    qos::pod_qos(pod) == QosClass::Guaranteed && !types::has_pod_resources(pod)
}

fn is_passing_on(pod: &Pod, container: &Container) -> bool {
    let init = types::init_containers(types::spec(pod)).iter().find(|c| c.name == container.name);
    init.is_some_and(|c| !types::is_restartable_init(c))
}

fn requests(container: &Container) -> Amounts {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let ours =
        requests.into_iter().flatten().filter(|(kind, _)| *kind == MEMORY || kind.starts_with("hugepages-"));
    ours.map(|(kind, amount)| (kind.clone(), u64::try_from(quantity::value(amount)).unwrap_or_default()))
        .collect()
}

/// What the containers of a pod have at the same time, at most.
fn requests_together(pod: &Pod) -> Amounts {
    let spec = types::spec(pod);
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in types::init_containers(spec) {
        for (kind, size) in requests(container) {
            let running = sidecars.entry(kind.clone()).or_default();
            if types::is_restartable_init(container) {
                *running += size;
            } else {
                let most = most.entry(kind).or_default();
                *most = (*most).max(*running + size);
            }
        }
    }
    let mut apps = Amounts::new();
    for (kind, size) in spec.containers.iter().flat_map(requests) {
        *apps.entry(kind).or_default() += size;
    }
    let of = |amounts: &Amounts, kind: &str| amounts.get(kind).copied().unwrap_or_default();
    apps.iter()
        .map(|(kind, size)| (kind.clone(), (size + of(&sidecars, kind)).max(of(&most, kind))))
        .collect()
}

fn of_pod(reusable: &Reusable, pod: &Pod) -> Reusable {
    if reusable.0 == types::uid(pod) { reusable.clone() } else { Reusable::default() }
}

fn reusable_of(reusable: &Reusable, mask: NumaMask, kind: &str) -> u64 {
    reusable.1.get(&mask).and_then(|amounts| amounts.get(kind)).copied().unwrap_or_default()
}

/// What an init container has, those after it may have; what others have, nobody else may.
fn reuse(reusable: &mut Reusable, passes_on: bool, blocks: &[Block]) {
    for block in blocks {
        let mask = NumaMask::of(block.numa_affinity.iter().copied());
        if passes_on {
            let own = reusable.1.entry(mask).or_default().entry(block.kind.clone()).or_default();
            *own = (*own).max(block.size);
        } else if let Some(own) = reusable.1.get_mut(&mask).and_then(|amounts| amounts.get_mut(&block.kind)) {
            *own = own.saturating_sub(block.size);
        }
    }
}

/// Memory that a container has from the init containers before it is theirs no more, so that it is given back once.
fn take_over(state: &mut State, pod: &Pod, container: &Container, blocks: &[Block]) {
    let Some(given) = state.assignments.get_mut(types::uid(pod)) else { return };
    for block in blocks {
        let mut left = block.size;
        let before = types::init_containers(types::spec(pod)).iter().take_while(|c| c.name != container.name);
        for init in before.filter(|c| !types::is_restartable_init(c)) {
            let same = |b: &&mut Block| b.kind == block.kind && b.numa_affinity == block.numa_affinity;
            for own in given.get_mut(&init.name).into_iter().flatten().filter(same) {
                let taken = left.min(own.size);
                own.size -= taken;
                left -= taken;
            }
        }
    }
}

/// Where the memory comes from: where it was decided, or near it.
fn choose(
    machine: &Machine,
    reusable: &Reusable,
    asked: &Amounts,
    affinity: Hint,
) -> Result<NumaMask, String> {
    let possible = || {
        let all = hints(machine, reusable, asked);
        all.get(MEMORY).cloned().flatten().unwrap_or_default()
    };
    let mut best = affinity;
    if best.affinity.is_none() {
        let default = narrowest(possible()).ok_or(
            "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available",
        )?;
        if !default.preferred && best.preferred {
            return Err("[memorymanager] failed to find the default preferred hint".to_owned());
        }
        best = default;
    }
    let mask = best.affinity.unwrap_or_default();
    if !asked.iter().all(|(kind, size)| sum(machine, mask, kind, |table| table.free) >= *size) {
        let wider =
            possible().into_iter().filter(|hint| hint.affinity.is_some_and(|wide| wide.and(mask) == mask));
        let extended = narrowest(wider.collect())
            .ok_or("[memorymanager] failed to find NUMA nodes to extend the current topology hint")?;
        if !extended.preferred && best.preferred {
            return Err("[memorymanager] failed to find the extended preferred hint".to_owned());
        }
        best = extended;
    }
    let mask = best.affinity.unwrap_or_default();
    if mask.count() > 1 && mask.nodes().any(|node| is_in_other_group(machine, node, mask)) {
        return Err("[memorymanager] preferred hint violates NUMA node allocation".to_owned());
    }
    Ok(mask)
}

/// Whether a node gives memory alone already, or with others than these.
fn is_in_other_group(machine: &Machine, node: usize, mask: NumaMask) -> bool {
    machine.get(&node).is_some_and(|state| {
        let group = NumaMask::of(state.cells.iter().copied());
        state.number_of_assignments > 0 && (group.count() == 1 || group != mask)
    })
}

fn narrowest(hints: Vec<Hint>) -> Option<Hint> {
    hints.into_iter().reduce(|best, hint| {
        let narrower = || hint.affinity.zip(best.affinity).is_some_and(|(a, b)| a.is_narrower_than(b));
        let better = hint.preferred && !best.preferred || hint.preferred == best.preferred && narrower();
        if better { hint } else { best }
    })
}

fn sum(machine: &Machine, mask: NumaMask, kind: &str, of: impl Fn(&Table) -> u64) -> u64 {
    mask.nodes().filter_map(|node| machine.get(&node)?.memory_map.get(kind)).map(of).sum()
}

/// One hint for each set of NUMA nodes that can give all of it; the smallest that could ever do are preferred.
fn hints(machine: &Machine, reusable: &Reusable, asked: &Amounts) -> Hints {
    let nodes: Vec<usize> = machine.keys().copied().collect();
    let mut least = nodes.len();
    let mut found = Vec::new();
    for mask in NumaMask::subsets(&nodes) {
        if asked.iter().any(|(kind, size)| sum(machine, mask, kind, |table| table.allocatable) < *size) {
            continue;
        }
        least = least.min(mask.count());
        let mut states = mask.nodes().filter_map(|node| machine.get(&node));
        let grouped = if mask.count() == 1 {
            states.any(|state| state.cells.len() > 1)
        } else {
            mask.nodes().any(|node| is_in_other_group(machine, node, mask))
        };
        let enough = |(kind, size): (&String, &u64)| {
            sum(machine, mask, kind, |table| table.free) + reusable_of(reusable, mask, kind) >= *size
        };
        if !grouped && asked.iter().all(enough) {
            found.push(mask);
        }
    }
    if found.is_empty() {
        // As upstream, which says nothing then: the resource is not asked about.
        return Hints::new();
    }
    let hint = |mask: &NumaMask| Hint { affinity: Some(*mask), preferred: mask.count() == least };
    asked.keys().map(|kind| (kind.clone(), Some(found.iter().map(hint).collect()))).collect()
}

/// The hints of what a container has already; none if that is something else.
fn again(blocks: &[Block], asked: &Amounts) -> Hints {
    if blocks.len() != asked.len() || blocks.iter().any(|block| asked.get(&block.kind) != Some(&block.size)) {
        return Hints::new();
    }
    let hint = |block: &Block| Hint {
        affinity: Some(NumaMask::of(block.numa_affinity.iter().copied())),
        preferred: true,
    };
    blocks.iter().map(|block| (block.kind.clone(), Some(vec![hint(block)]))).collect()
}

/// The same nodes with the same memory, of which as much is given in each group.
fn are_alike(known: &Machine, expected: &Machine) -> bool {
    let group = |machine: &Machine, cells: &[usize], kind: &str| {
        let tables = cells.iter().filter_map(|node| machine.get(node)?.memory_map.get(kind));
        tables.fold((0, 0), |(free, reserved), table| (free + table.free, reserved + table.reserved))
    };
    known.len() == expected.len()
        && known.iter().all(|(node, a)| {
            let Some(b) = expected.get(node) else { return false };
            a.number_of_assignments == b.number_of_assignments
                && NumaMask::of(a.cells.iter().copied()) == NumaMask::of(b.cells.iter().copied())
                && a.memory_map.len() == b.memory_map.len()
                && a.memory_map.iter().all(|(kind, one)| {
                    b.memory_map.get(kind).is_some_and(|two| {
                        (one.total, one.system_reserved, one.allocatable)
                            == (two.total, two.system_reserved, two.allocatable)
                            && group(known, &a.cells, kind) == group(expected, &a.cells, kind)
                    })
                })
        })
}
