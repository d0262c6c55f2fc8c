//! Control groups of the node's pods: `kubepods`, its classes of service, and one group per pod.
//!
//! The layout is upstream's (`kubepods[/burstable|/besteffort]/podUID`, or the same as systemd slices). Files are written
//! directly, for version 1 (one tree per controller), version 2, and the hybrid of both. Containers are put into
//! their pod's group by the runtime. Guaranteed pods stand directly under `kubepods`.

mod hierarchy;
mod limits;
mod name;
mod stats;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tracing::warn;

pub use hierarchy::{Hierarchy, Version};
pub use limits::{Limits, cpu_weight, milli_cpu_to_quota, milli_cpu_to_shares, plan_pod};
pub use name::{CgroupName, Driver};
pub use stats::Stats;

use crate::cpus::Cpus;
use crate::qos::{self, QosClass};
use crate::quantity;

/// How groups are named and what is enforced.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who names the groups.
    pub driver: Driver,
    /// Group under which everything lies, `/` mostly.
    pub root: String,
    /// Whether there are groups per class and per pod at all.
    pub cgroups_per_qos: bool,
    /// `pods` enforces the node's allocatable resources.
    pub enforce_node_allocatable: Vec<String>,
    /// What system and kubelet keep for themselves.
    pub reserved: BTreeMap<String, Quantity>,
    /// Most processes of a pod; none when not positive.
    pub pod_pids_limit: i64,
    /// Whether CPU limits become quotas.
    pub cpu_cfs_quota: bool,
    /// Period of quotas in microseconds.
    pub cpu_cfs_period_micros: u64,
    /// CPUs that containers have for themselves: a quota would only make them wait.
    pub cpus: Option<Cpus>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            driver: Driver::Cgroupfs,
            root: "/".to_owned(),
            cgroups_per_qos: true,
            enforce_node_allocatable: vec!["pods".to_owned()],
            reserved: BTreeMap::new(),
            pod_pids_limit: -1,
            cpu_cfs_quota: true,
            cpu_cfs_period_micros: 100_000,
            cpus: None,
        }
    }
}

/// Why a group could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
#[error("{action} control group {name}")]
pub struct Error {
    action: &'static str,
    name: String,
    #[source]
    source: io::Error,
}

/// The groups of this node. Clones share everything.
#[derive(Clone)]
pub struct Cgroups {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    hierarchy: Hierarchy,
}

const CLASSES: [QosClass; 3] = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];

impl Cgroups {
    /// Groups of the mounted hierarchies of this machine.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let hierarchy = Hierarchy::mounted().map_err(failed("find", "/"))?;
        Ok(Self::over(settings, hierarchy))
    }

    /// Groups in a hierarchy given.
    #[must_use]
    pub fn over(settings: Settings, hierarchy: Hierarchy) -> Self {
        Self { inner: Arc::new(Inner { settings, hierarchy }) }
    }

    /// Version of the hierarchy that limits are written to.
    #[must_use]
    pub fn version(&self) -> Version {
        self.inner.hierarchy.version()
    }

    fn kubepods(&self) -> CgroupName {
        CgroupName::root(&self.inner.settings.root).child("kubepods")
    }

    fn class(&self, class: QosClass) -> CgroupName {
        match class {
            QosClass::Guaranteed => self.kubepods(),
            QosClass::Burstable => self.kubepods().child("burstable"),
            QosClass::BestEffort => self.kubepods().child("besteffort"),
        }
    }

    fn pod(&self, uid: &str, class: QosClass) -> CgroupName {
        self.class(class).child(&format!("pod{uid}"))
    }

    fn path(&self, name: &CgroupName) -> String {
        name.path(self.inner.settings.driver)
    }

    /// The parent group to tell the runtime for a pod's sandbox and containers.
    #[must_use]
    pub fn pod_parent(&self, pod: &Pod) -> String {
        if !self.inner.settings.cgroups_per_qos {
            return self.path(&CgroupName::root(&self.inner.settings.root));
        }
        self.path(&self.pod(uid(pod), qos::pod_qos(pod)))
    }

    /// Makes `kubepods` and its classes, with the node's allocatable resources as limits. `capacity` is the node's.
    pub fn ensure_node(&self, capacity: &BTreeMap<String, Quantity>) -> Result<(), Error> {
        let settings = &self.inner.settings;
        if !settings.cgroups_per_qos {
            return Ok(());
        }
        let enforce = settings.enforce_node_allocatable.iter().any(|what| what == "pods");
        let limits =
            if enforce { limits::plan_node(capacity, &settings.reserved) } else { Limits::default() };
        self.ensure(&self.kubepods(), &limits)?;
        self.ensure(
            &self.class(QosClass::BestEffort),
            &Limits { shares: Some(limits::MIN_SHARES), ..Limits::default() },
        )?;
        self.ensure(&self.class(QosClass::Burstable), &Limits::default())
    }

    /// Gives the burstable class the CPU weight of what its pods ask for.
    pub fn update_qos<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> Result<(), Error> {
        if !self.inner.settings.cgroups_per_qos {
            return Ok(());
        }
        let burstable = pods.filter(|pod| qos::pod_qos(pod) == QosClass::Burstable);
        let milli: i64 =
            burstable.map(|pod| qos::pod_requests(pod).get("cpu").copied().unwrap_or_default()).sum();
        let limits = Limits { shares: Some(milli_cpu_to_shares(milli)), ..Limits::default() };
        self.ensure(&self.class(QosClass::Burstable), &limits)
    }

    /// Makes the group of `pod`, with its limits. Where something runs in it already, limits that are in force change
    /// only by a resize, which minds the order of things.
    pub fn ensure_pod(&self, pod: &Pod, occupied: bool) -> Result<(), Error> {
        let Some(mut limits) = self.planned(pod) else { return Ok(()) };
        let group = self.pod(uid(pod), qos::pod_qos(pod));
        if occupied && self.inner.hierarchy.exists(&self.path(&group)) {
            return Ok(());
        }
        let settings = &self.inner.settings;
        limits.pids = (settings.pod_pids_limit > 0).then_some(settings.pod_pids_limit);
        self.ensure(&group, &limits)
    }

    /// Limits that `pod`'s group should have; `None` where pods have no groups.
    #[must_use]
    pub fn planned(&self, pod: &Pod) -> Option<Limits> {
        let settings = &self.inner.settings;
        let alone = settings.cpus.as_ref().is_some_and(|cpus| cpus.has_exclusive(uid(pod)));
        settings
            .cgroups_per_qos
            .then(|| plan_pod(pod, settings.cpu_cfs_quota && !alone, settings.cpu_cfs_period_micros))
    }

    /// Limits that are in force in `pod`'s group; memory without limit is the greatest number.
    #[must_use]
    pub fn limits(&self, pod: &Pod) -> Limits {
        self.inner.hierarchy.limits(&self.path(&self.pod(uid(pod), qos::pod_qos(pod))))
    }

    /// Changes limits of `pod`'s group.
    pub fn limit_pod(&self, pod: &Pod, limits: &Limits) -> Result<(), Error> {
        let path = self.path(&self.pod(uid(pod), qos::pod_qos(pod)));
        self.inner.hierarchy.apply(&path, limits).map_err(failed("limit", &path))
    }

    fn ensure(&self, name: &CgroupName, limits: &Limits) -> Result<(), Error> {
        let path = self.path(name);
        let hierarchy = &self.inner.hierarchy;
        hierarchy.create(&path).map_err(failed("create", &path))?;
        hierarchy.apply(&path, limits).map_err(failed("limit", &path))
    }

    /// Whether a group of this pod is left.
    #[must_use]
    pub fn pod_exists(&self, uid: &str) -> bool {
        CLASSES.iter().any(|class| self.inner.hierarchy.exists(&self.path(&self.pod(uid, *class))))
    }

    /// Kills what still runs in the groups of a pod and removes them. Fails while something is still dying.
    pub fn remove_pod(&self, uid: &str) -> Result<(), Error> {
        for class in CLASSES {
            let path = self.path(&self.pod(uid, class));
            if self.inner.hierarchy.exists(&path) {
                self.inner.hierarchy.kill(&path);
                self.inner.hierarchy.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Kills every process in the groups of a pod; how many there were.
    #[must_use]
    pub fn kill_pod_processes(&self, uid: &str) -> usize {
        CLASSES.iter().map(|class| self.inner.hierarchy.kill(&self.path(&self.pod(uid, *class)))).sum()
    }

    /// UIDs of all pods that have a group.
    #[must_use]
    pub fn pod_uids_on_disk(&self) -> Vec<String> {
        let mut uids: Vec<String> = CLASSES
            .iter()
            .flat_map(|class| {
                let class = self.class(*class);
                let entries = self.inner.hierarchy.children(&self.path(&class));
                entries.into_iter().filter_map(move |entry| {
                    class.child_named(&entry)?.strip_prefix("pod").map(str::to_owned)
                })
            })
            .collect();
        uids.sort();
        uids.dedup();
        uids
    }

    /// What a pod has used.
    #[must_use]
    pub fn pod_stats(&self, pod: &Pod) -> Option<Stats> {
        self.stats(&self.pod(uid(pod), qos::pod_qos(pod)))
    }

    /// What all pods together have used.
    #[must_use]
    pub fn pods_stats(&self) -> Option<Stats> {
        self.stats(&self.kubepods())
    }

    /// What the machine has used.
    #[must_use]
    pub fn root_stats(&self) -> Option<Stats> {
        stats::read(&self.inner.hierarchy, "/")
    }

    fn stats(&self, name: &CgroupName) -> Option<Stats> {
        stats::read(&self.inner.hierarchy, &self.path(name))
    }

    /// Whether the memory limit of `pod`'s group, if it must have one, is in force.
    #[must_use]
    pub fn memory_limit(&self, pod: &Pod) -> Option<i64> {
        self.inner.hierarchy.memory_limit(&self.path(&self.pod(uid(pod), qos::pod_qos(pod))))
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn failed(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> Error {
    let name = name.to_owned();
    move |source| Error { action, name, source }
}

/// Sum of two lists of reserved resources.
#[must_use]
pub fn reserved(
    system: &BTreeMap<String, String>,
    kube: &BTreeMap<String, String>,
) -> BTreeMap<String, Quantity> {
    let mut sum: BTreeMap<String, i64> = BTreeMap::new();
    for (resource, amount) in system.iter().chain(kube) {
        *sum.entry(resource.clone()).or_default() += quantity::milli_value(&Quantity(amount.clone()));
    }
    sum.into_iter().map(|(resource, milli)| (resource, quantity::from_milli(milli))).collect()
}

/// Logs a failed removal; the caller tries again later.
pub fn log_failure(error: &Error) {
    warn!(error = %client::chain(error), "control group");
}

#[cfg(test)]
mod tests;
