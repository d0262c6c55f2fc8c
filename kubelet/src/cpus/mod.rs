//! CPUs that containers have for themselves (upstream's CPU manager, policies `none` and `static`).
//!
//! Who has which is decided over a state (`fixed`, pure) when a pod is admitted, and written down; a container is made with
//! its set. All others share what is left, so their sets change as CPUs come and go: one task of the agent tells the
//! runtime now and then.

mod distribute;
mod fixed;
mod layout;
mod options;
mod set;
mod state;
mod take;
#[cfg(test)]
mod take_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;

pub use fixed::Refusal;
pub use layout::{Cpu, Layout, Level, numa_nodes};
pub use options::Options;
pub use set::CpuSet;

use crate::checkpoint::{self, Behind};
use crate::topology::{Hint, Hints, Policy};
use fixed::{Fixed, Reusable};
use state::State;

/// How CPUs are given.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `cpuManagerPolicy`.
    pub policy: String,
    /// `cpuManagerPolicyOptions`.
    pub options: BTreeMap<String, String>,
    /// Options that are not yet for everybody may be used.
    pub alpha_options: bool,
    /// What is kept back from pods, in thousandths of a CPU.
    pub reserved_milli: i64,
    /// `reservedSystemCPUs`; none for those of the first cores.
    pub reserved: CpuSet,
    /// What CPUs are aligned with.
    pub topology: Policy,
    /// Directory of the file of who has which.
    pub directory: PathBuf,
}

/// The CPUs of this node; clones share them.
#[derive(Clone)]
pub struct Cpus {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None`: nobody gets any for himself.
    fixed: Option<Fixed>,
    policy: &'static str,
    path: PathBuf,
    behind: Behind,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    state: State,
    reusable: Reusable,
    /// What the runtime was told of containers that run, by identifier.
    told: HashMap<String, CpuSet>,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// UID of its pod.
    pub uid: String,
    /// Its name.
    pub container: String,
    /// The runtime's identifier.
    pub id: String,
}

impl fmt::Debug for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpus").field("policy", &self.inner.policy).finish_non_exhaustive()
    }
}

impl Cpus {
    /// CPUs of a machine with this layout, given as the file in the directory says. The text of an error is upstream's.
    pub fn open(config: Config, layout: Layout) -> Result<Self, String> {
        let (policy, fixed) = match config.policy.as_str() {
            "none" | "" if config.options.is_empty() => ("none", None),
            "none" | "" => return Err(none_takes_no_options(&config.options)),
            "static" => ("static", Some(fixed(&config, layout)?)),
            other => return Err(format!("unknown policy: {other:?}")),
        };
        let path = config.directory.join(state::FILE);
        let known = checkpoint::restored(state::read(&path, policy), "CPU", &path)?;
        let state = match &fixed {
            None => known.unwrap_or_default(),
            Some(fixed) => fixed.start(known)?,
        };
        let cpus = Self {
            inner: Arc::new(Inner {
                fixed,
                policy,
                path,
                behind: Behind::default(),
                book: Mutex::new(Book { state, ..Book::default() }),
            }),
        };
        cpus.keep(&cpus.inner.book.lock().state);
        Ok(cpus)
    }

    /// Nobody gets any, and nothing is written: for tests.
    #[cfg(test)]
    #[must_use]
    pub fn shared() -> Self {
        let (fixed, policy, path, book) = (None, "none", PathBuf::new(), Mutex::default());
        Self { inner: Arc::new(Inner { fixed, policy, path, behind: Behind::default(), book }) }
    }

    /// Whether containers get CPUs for themselves.
    #[must_use]
    pub fn are_given(&self) -> bool {
        self.inner.fixed.is_some()
    }

    /// Writes down who has which. Under the lock, so that the file never goes back in time.
    fn keep(&self, state: &State) {
        let inner = &self.inner;
        if let Some(fixed) = &inner.fixed {
            let (given, left) = (count(&state.exclusive()), count(&fixed.available(state)));
            metrics::gauge!("kubelet_cpu_manager_exclusive_cpu_allocation_count").set(given);
            metrics::gauge!("kubelet_cpu_manager_shared_pool_size_millicores").set(left * 1000.0);
        }
        if inner.path.as_os_str().is_empty() {
            return;
        }
        let written = state::write(&inner.path, inner.policy, state);
        inner.behind.note(written, &inner.path, "who has which CPUs");
    }

    /// From which NUMA nodes the CPUs of a container could come.
    #[must_use]
    pub fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        let book = self.inner.book.lock();
        let fixed = self.inner.fixed.as_ref();
        fixed.map(|f| f.container_hints(&book.state, &book.reusable, pod, container)).unwrap_or_default()
    }

    /// From which NUMA nodes the CPUs of all containers of a pod could come.
    #[must_use]
    pub fn pod_hints(&self, pod: &Pod) -> Hints {
        let book = self.inner.book.lock();
        let fixed = self.inner.fixed.as_ref();
        fixed.map(|f| f.pod_hints(&book.state, &book.reusable, pod)).unwrap_or_default()
    }

    /// Gives a container its CPUs, if it gets any for itself. Init containers come first.
    pub fn allocate(&self, pod: &Pod, container: &Container, affinity: Hint) -> Result<(), Refusal> {
        let Some(fixed) = &self.inner.fixed else { return Ok(()) };
        let mut book = self.inner.book.lock();
        let Book { state, reusable, .. } = &mut *book;
        let before = state.clone();
        let given = fixed.allocate(state, reusable, (pod, container), affinity);
        if *state != before || self.inner.behind.is() {
            self.keep(state);
        }
        if fixed::wanted(pod, container) > 0 {
            metrics::counter!("kubelet_cpu_manager_pinning_requests_total").increment(1);
        }
        if given.is_err() {
            metrics::counter!("kubelet_cpu_manager_pinning_errors_total").increment(1);
        }
        given
    }

    /// The CPUs a container runs on; none where that makes no difference.
    #[must_use]
    pub fn of_container(&self, uid: &str, container: &str) -> CpuSet {
        let book = self.inner.book.lock();
        book.state.get(uid, container).unwrap_or(&book.state.shared).clone()
    }

    /// The CPUs a container has for itself.
    #[must_use]
    pub fn exclusive(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.inner.book.lock().state.get(uid, container).cloned()
    }

    /// Whether some container of a pod has CPUs for itself.
    #[must_use]
    pub fn has_exclusive(&self, uid: &str) -> bool {
        self.inner.book.lock().state.assignments.contains_key(uid)
    }

    /// CPUs that can be given to one container alone; none where nobody gets any.
    #[must_use]
    pub fn allocatable(&self) -> CpuSet {
        self.inner.fixed.as_ref().map(Fixed::allocatable).unwrap_or_default()
    }

    /// Takes back what pods had that are not kept.
    pub fn retain(&self, keep: &dyn Fn(&str) -> bool) {
        let mut book = self.inner.book.lock();
        let state = &mut book.state;
        let gone = checkpoint::gone(&state.assignments, keep);
        for (uid, container) in &gone {
            state.remove(uid, container);
        }
        if !gone.is_empty() || self.inner.behind.is() {
            self.keep(&book.state);
        }
    }

    /// Which of the containers that run are to be told of other CPUs. What is known of others is forgotten.
    #[must_use]
    pub fn updates(&self, running: &[Running]) -> Vec<(Running, CpuSet)> {
        let mut book = self.inner.book.lock();
        let Book { state, told, .. } = &mut *book;
        told.retain(|id, _| running.iter().any(|container| container.id == *id));
        let wanted = running.iter().map(|container| {
            let own = state.get(&container.uid, &container.container);
            (container.clone(), own.unwrap_or(&state.shared).clone())
        });
        wanted.filter(|(container, set)| !set.is_empty() && told.get(&container.id) != Some(set)).collect()
    }

    /// The runtime was told of a container's CPUs.
    pub fn told(&self, id: &str, set: CpuSet) {
        self.inner.book.lock().told.insert(id.to_owned(), set);
    }
}

fn none_takes_no_options(options: &BTreeMap<String, String>) -> String {
    let shown: Vec<_> = options.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    format!("new none policy error: None policy: received unsupported options=map[{}]", shown.join(" "))
}

fn fixed(config: &Config, layout: Layout) -> Result<Fixed, String> {
    if config.reserved_milli <= 0 && config.reserved.is_empty() {
        return Err(
            "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater \
                    than zero"
                .to_owned(),
        );
    }
    let failed = |error: String| format!("new static policy error: {error}");
    let options = Options::parse(&config.options, config.alpha_options).map_err(failed)?;
    options.check(&layout, config.topology).map_err(failed)?;
    // Parts of CPUs cannot be kept back.
    let count = if config.reserved.is_empty() {
        usize::try_from(config.reserved_milli).unwrap_or_default().div_ceil(1000)
    } else {
        config.reserved.len()
    };
    Fixed::new(layout, count, config.reserved.clone(), options).map_err(failed)
}

#[allow(clippy::cast_precision_loss, reason = "numbers of CPUs are small")]
fn count(set: &CpuSet) -> f64 {
    set.len() as f64
}
