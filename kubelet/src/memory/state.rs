//! Where the memory of containers comes from, and the file of it: `memory_manager_state`, in upstream's form.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Error, go_list, go_map};

/// Name of the file.
pub(super) const FILE: &str = "memory_manager_state";

/// Memory of one kind on one NUMA node, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table {
    pub(super) total: u64,
    /// Kept back from pods.
    pub(super) system_reserved: u64,
    /// What pods may have.
    pub(super) allocatable: u64,
    /// What pods have.
    pub(super) reserved: u64,
    /// What is left.
    pub(super) free: u64,
}

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NumaState {
    /// How many blocks come from it.
    pub(super) number_of_assignments: i64,
    /// Memory by kind: `memory`, `hugepages-2Mi`.
    pub(super) memory_map: BTreeMap<String, Table>,
    /// The group of NUMA nodes that it gives memory together with, itself included.
    pub(super) cells: Vec<usize>,
}

/// Memory of one kind that a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// NUMA nodes it comes from.
    pub numa_affinity: Vec<usize>,
    /// `memory` or a kind of huge pages.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
}

/// NUMA nodes by number.
pub(super) type Machine = BTreeMap<usize, NumaState>;
/// Blocks by UID of the pod and name of the container.
pub(super) type Assignments = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

/// Where memory comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) assignments: Assignments,
}

impl State {
    /// What a container has.
    pub(super) fn get(&self, uid: &str, container: &str) -> Option<&Vec<Block>> {
        self.assignments.get(uid)?.get(container)
    }

    /// Takes back what a container had. Whether it had something.
    pub(super) fn remove(&mut self, uid: &str, container: &str) -> bool {
        let Some(pod) = self.assignments.get_mut(uid) else { return false };
        let Some(blocks) = pod.remove(container) else { return false };
        if pod.is_empty() {
            self.assignments.remove(uid);
        }
        for block in &blocks {
            release(&mut self.machine, block);
        }
        true
    }
}

/// Reserves a block, from its nodes in order.
pub(super) fn reserve(machine: &mut Machine, affinity: &[usize], kind: &str, size: u64) {
    let mut missing = size;
    for node in affinity {
        let Some(state) = machine.get_mut(node) else { continue };
        state.number_of_assignments += 1;
        state.cells = affinity.to_vec();
        if let Some(table) = state.memory_map.get_mut(kind) {
            let taken = missing.min(table.free);
            table.reserved += taken;
            table.free -= taken;
            missing -= taken;
        }
    }
}

fn release(machine: &mut Machine, block: &Block) {
    let mut left = block.size;
    for node in &block.numa_affinity {
        let Some(state) = machine.get_mut(node) else { continue };
        state.number_of_assignments -= 1;
        if state.number_of_assignments == 0 {
            state.cells = vec![*node];
        }
        if let Some(table) = state.memory_map.get_mut(&block.kind) {
            let released = left.min(table.reserved);
            table.free += released;
            table.reserved -= released;
            left -= released;
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    machine_state: Machine,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Assignments,
    checksum: u64,
}

impl File {
    /// As Go's deep printer shows it.
    fn shown(&self) -> String {
        let machine =
            go_map(self.machine_state.iter().map(|(node, state)| (node.to_string(), show_node(state))));
        let blocks = |all: &Vec<Block>| go_list(Some(all.iter().map(show_block).collect()));
        let containers =
            |pod: &BTreeMap<String, Vec<Block>>| go_map(pod.iter().map(|(c, all)| (c.clone(), blocks(all))));
        let entries = go_map(self.entries.iter().map(|(uid, pod)| (uid.clone(), containers(pod))));
        format!(
            "(*state.MemoryManagerCheckpoint){{PolicyName:(string){} MachineState:(state.NUMANodeMap){machine} \
             Entries:(state.ContainerMemoryAssignments){entries} Checksum:(checksum.Checksum)0}}",
            self.policy_name
        )
    }
}

fn show_numbers(numbers: &[usize]) -> String {
    go_list(Some(numbers.iter().map(ToString::to_string).collect()))
}

fn show_node(state: &NumaState) -> String {
    let table = |t: &Table| {
        format!(
            "<*>{{TotalMemSize:(uint64){} SystemReserved:(uint64){} Allocatable:(uint64){} Reserved:(uint64){} \
             Free:(uint64){}}}",
            t.total, t.system_reserved, t.allocatable, t.reserved, t.free
        )
    };
    let tables = go_map(state.memory_map.iter().map(|(kind, t)| (kind.clone(), table(t))));
    format!(
        "<*>{{NumberOfAssignments:(int){} MemoryMap:(map[v1.ResourceName]*state.MemoryTable){tables} Cells:([]int){}}}",
        state.number_of_assignments,
        show_numbers(&state.cells)
    )
}

fn show_block(block: &Block) -> String {
    format!(
        "{{NUMAAffinity:([]int){} Type:(v1.ResourceName){} Size:(uint64){}}}",
        show_numbers(&block.numa_affinity),
        block.kind,
        block.size
    )
}

/// What the file says; `None` when there is none. A file of another policy is refused.
pub(super) fn read(path: &Path, policy: &str) -> Result<Option<State>, Error> {
    let Some(file) = checkpoint::read::<File>(path)? else { return Ok(None) };
    checkpoint::verify(file.checksum, &file.shown())?;
    if file.policy_name != policy {
        return Err(Error::Nonsense(format!(
            "[memorymanager] configured policy {policy:?} differs from state checkpoint policy {:?}",
            file.policy_name
        )));
    }
    Ok(Some(State { machine: file.machine_state, assignments: file.entries }))
}

/// Writes where memory comes from.
pub(super) fn write(path: &Path, policy: &str, state: &State) -> Result<(), Error> {
    let mut file = File {
        policy_name: policy.to_owned(),
        machine_state: state.machine.clone(),
        entries: state.assignments.clone(),
        checksum: 0,
    };
    file.checksum = checkpoint::checksum(&file.shown());
    checkpoint::write(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    #[test]
    fn upstreams_files_are_read() {
        let scratch = Scratch::new();
        let path = scratch.path().join(FILE);
        assert_eq!(read(&path, "static").expect("none"), None);
        let text = r#"{"policyName":"static","machineState":{"0":{"numberOfAssignments":0,"memoryMap":{"memory":
            {"total":2048,"systemReserved":512,"allocatable":1536,"reserved":512,"free":1024}},"cells":[]}},
            "entries":{"pod":{"container1":[{"numaAffinity":[0],"type":"memory","size":512}]}},"checksum":4215593881}"#;
        std::fs::write(&path, text).expect("written");
        let state = read(&path, "static").expect("valid").expect("there");
        let block = Block { numa_affinity: vec![0], kind: "memory".into(), size: 512 };
        assert_eq!(state.get("pod", "container1"), Some(&vec![block]));
        assert_eq!(state.machine[&0].memory_map["memory"].free, 1024);
        write(&path, "static", &state).expect("written");
        assert_eq!(read(&path, "static").expect("valid"), Some(state));
        let other = read(&path, "None").expect_err("another policy").to_string();
        assert_eq!(
            other,
            "[memorymanager] configured policy \"None\" differs from state checkpoint policy \"static\""
        );
        std::fs::write(&path, text.replace("1024", "1025")).expect("written");
        assert!(matches!(read(&path, "static"), Err(Error::Corrupt)));
    }
}
