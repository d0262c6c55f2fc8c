//! Memory that comes from NUMA nodes that were chosen (upstream's memory manager, policies `None` and `Static`).
//!
//! Where it comes from is decided over a state (`fixed`, pure) when a pod is admitted, and written down; a container is made
//! with its NUMA nodes, and keeps them.

mod fixed;
mod machine;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use machine::NumaMemory;
pub use state::Block;

use crate::checkpoint::{self, Behind};
use crate::quantity;
use crate::topology::{Hint, Hints};
use fixed::{Amounts, Fixed, Reusable};
use state::State;

/// One of `reservedMemory`: what is kept back on a NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reservation {
    /// The NUMA node.
    pub numa_node: i32,
    /// Amounts by kind of memory.
    pub limits: BTreeMap<String, String>,
}

/// How memory is given.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `memoryManagerPolicy`.
    pub policy: String,
    /// What is kept back on each NUMA node.
    pub reserved: Vec<Reservation>,
    /// What is kept back from pods in all.
    pub node_reserved: BTreeMap<String, Quantity>,
    /// Directory of the file of where memory comes from.
    pub directory: PathBuf,
}

/// The memory of this node; clones share it.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None`: it comes from anywhere.
    fixed: Option<Fixed>,
    policy: &'static str,
    path: PathBuf,
    behind: Behind,
    book: Mutex<(State, Reusable)>,
}

impl Memory {
    /// Memory of a machine, given as the file in the directory says. The text of an error is upstream's.
    pub fn open(config: &Config, machine: &[NumaMemory]) -> Result<Self, String> {
        let (policy, fixed) = match config.policy.as_str() {
            "None" | "" => ("None", None),
            "Static" => ("Static", Some(Fixed::new(machine, &reserved(config, machine)?)?)),
            "BestEffort" => {
                return Err("policy \"BestEffort\" is not available for platform \"linux\"".to_owned());
            }
            other => return Err(format!("unknown policy: {other:?}")),
        };
        let path = config.directory.join(state::FILE);
        let known = checkpoint::restored(state::read(&path, policy), "memory", &path)?;
        let state = match &fixed {
            None => known.unwrap_or_default(),
            Some(fixed) => fixed.start(known)?,
        };
        let book = Mutex::new((state, Reusable::default()));
        let memory = Self { inner: Arc::new(Inner { fixed, policy, path, behind: Behind::default(), book }) };
        memory.keep(&memory.inner.book.lock().0);
        Ok(memory)
    }

    /// It comes from anywhere, and nothing is written: for tests.
    #[cfg(test)]
    #[must_use]
    pub fn anywhere() -> Self {
        let (fixed, policy, path, book) = (None, "None", PathBuf::new(), Mutex::default());
        Self { inner: Arc::new(Inner { fixed, policy, path, behind: Behind::default(), book }) }
    }

    /// Whether memory of guaranteed pods comes from NUMA nodes that were chosen.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.inner.fixed.is_some()
    }

    /// Writes down where memory comes from. Under the lock, so that the file never goes back in time.
    fn keep(&self, state: &State) {
        let inner = &self.inner;
        if inner.path.as_os_str().is_empty() {
            return;
        }
        let written = state::write(&inner.path, inner.policy, state);
        inner.behind.note(written, &inner.path, "where memory comes from");
    }

    /// From which NUMA nodes the memory of a container could come.
    #[must_use]
    pub fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        let book = self.inner.book.lock();
        let given = self.inner.fixed.is_some();
        if given { Fixed::container_hints(&book.0, &book.1, pod, container) } else { Hints::new() }
    }

    /// From which NUMA nodes the memory of all containers of a pod could come.
    #[must_use]
    pub fn pod_hints(&self, pod: &Pod) -> Hints {
        let book = self.inner.book.lock();
        if self.inner.fixed.is_some() { Fixed::pod_hints(&book.0, &book.1, pod) } else { Hints::new() }
    }

    /// Gives a container its memory. Init containers come first. The text of a refusal is upstream's.
    pub fn allocate(&self, pod: &Pod, container: &Container, affinity: Hint) -> Result<(), String> {
        if self.inner.fixed.is_none() {
            return Ok(());
        }
        let mut book = self.inner.book.lock();
        let (state, reusable) = &mut *book;
        let before = state.clone();
        let given = Fixed::allocate(state, reusable, (pod, container), affinity);
        if *state != before || self.inner.behind.is() {
            self.keep(state);
        }
        if fixed::is_ours(pod) {
            metrics::counter!("kubelet_memory_manager_pinning_requests_total").increment(1);
        }
        if given.is_err() {
            metrics::counter!("kubelet_memory_manager_pinning_errors_total").increment(1);
        }
        given
    }

    /// What a container has.
    #[must_use]
    pub fn of_container(&self, uid: &str, container: &str) -> Vec<Block> {
        self.inner.book.lock().0.get(uid, container).cloned().unwrap_or_default()
    }

    /// The NUMA nodes of a container; none where that makes no difference.
    #[must_use]
    pub fn numa_of_container(&self, uid: &str, container: &str) -> BTreeSet<usize> {
        self.of_container(uid, container).into_iter().flat_map(|block| block.numa_affinity).collect()
    }

    /// All memory that pods may have, where it is given by NUMA nodes.
    #[must_use]
    pub fn allocatable(&self) -> Vec<Block> {
        self.inner.fixed.as_ref().map(Fixed::allocatable).unwrap_or_default()
    }

    /// Takes back what pods had that are not kept.
    pub fn retain(&self, keep: &dyn Fn(&str) -> bool) {
        let mut book = self.inner.book.lock();
        let state = &mut book.0;
        let gone = checkpoint::gone(&state.assignments, keep);
        for (uid, container) in &gone {
            state.remove(uid, container);
        }
        if !gone.is_empty() || self.inner.behind.is() {
            self.keep(&book.0);
        }
    }
}

/// What is kept back, by NUMA node; in all it has to be what is kept back from pods.
fn reserved(config: &Config, machine: &[NumaMemory]) -> Result<BTreeMap<usize, Amounts>, String> {
    let mut by_node: BTreeMap<usize, Amounts> = BTreeMap::new();
    let mut total: BTreeMap<String, i64> = BTreeMap::new();
    for reservation in &config.reserved {
        let node =
            usize::try_from(reservation.numa_node).ok().filter(|id| machine.iter().any(|n| n.id == *id));
        let node = node.ok_or_else(|| {
            format!(
                "the reserved memory configuration references a NUMA node {} that does not exist on this machine",
                reservation.numa_node
            )
        })?;
        for (kind, amount) in &reservation.limits {
            let bytes = quantity::value(&Quantity(amount.clone()));
            *total.entry(kind.clone()).or_default() += bytes;
            by_node.entry(node).or_default().insert(kind.clone(), u64::try_from(bytes).unwrap_or_default());
        }
    }
    let ours = |kind: &&String| *kind == "memory" || kind.starts_with("hugepages-");
    let kinds: BTreeSet<&String> = total.keys().chain(config.node_reserved.keys().filter(ours)).collect();
    for kind in kinds {
        let wanted = config.node_reserved.get(kind).map_or(0, quantity::value);
        let found = total.get(kind).copied().unwrap_or_default();
        if wanted != found {
            return Err(format!(
                "the total amount {:?} of type {kind:?} is not equal to the value {:?} determined by Node Allocatable \
                 feature",
                quantity::from_bytes(found).0,
                quantity::from_bytes(wanted).0
            ));
        }
    }
    Ok(by_node)
}
