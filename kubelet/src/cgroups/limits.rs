//! From requests and limits to what the kernel is told. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::qos::{self, QosClass};
use crate::quantity;

/// Least weight the kernel knows.
pub const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const SHARES_PER_CPU: u64 = 1024;
const MIN_QUOTA: i64 = 1000;

/// Limits of one group; what is `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Weight in version 1's measure.
    pub shares: Option<u64>,
    /// Microseconds of CPU per period, -1 for no limit.
    pub quota: Option<i64>,
    /// Microseconds of a period.
    pub period: Option<u64>,
    /// Bytes, -1 for no limit.
    pub memory: Option<i64>,
    /// Processes.
    pub pids: Option<i64>,
}

impl Limits {
    /// These with what `other` says in place.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        Self {
            shares: other.shares.or(self.shares),
            quota: other.quota.or(self.quota),
            period: other.period.or(self.period),
            memory: other.memory.or(self.memory),
            pids: other.pids.or(self.pids),
        }
    }
}

/// Weight of that many thousandths of a CPU.
#[must_use]
pub fn milli_cpu_to_shares(milli: i64) -> u64 {
    let milli = u64::try_from(milli).unwrap_or_default();
    (milli * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Microseconds per period for that many thousandths of a CPU; 0 means none was asked for.
#[must_use]
pub fn milli_cpu_to_quota(milli: i64, period: u64) -> i64 {
    if milli == 0 {
        return 0;
    }
    let period = i64::try_from(period).unwrap_or(i64::MAX);
    (milli.saturating_mul(period) / 1000).max(MIN_QUOTA)
}

/// Version 2's weight for version 1's shares.
#[must_use]
pub fn cpu_weight(shares: u64) -> u64 {
    if shares >= MAX_SHARES { 10_000 } else { 1 + (shares.saturating_sub(2) * 9999) / 262_142 }
}

/// Version 1's shares for version 2's weight.
#[must_use]
pub fn cpu_shares(weight: u64) -> u64 {
    (weight.saturating_sub(1) * 262_142) / 9999 + MIN_SHARES
}

/// Limits of a pod's group: as upstream's ResourceConfigForPod.
#[must_use]
pub fn plan_pod(pod: &Pod, cfs_quota: bool, period: u64) -> Limits {
    let class = qos::pod_qos(pod);
    if class == QosClass::BestEffort {
        return Limits { shares: Some(MIN_SHARES), ..Limits::default() };
    }
    let (requests, limits) = (qos::pod_requests(pod), qos::pod_limits(pod));
    let amount = |list: &qos::Amounts, name: &str| list.get(name).copied().unwrap_or_default();
    let quota = if cfs_quota { milli_cpu_to_quota(amount(&limits, "cpu"), period) } else { -1 };
    let cpu_limited = class == QosClass::Guaranteed || all_declare(pod, "cpu");
    let memory_limited = class == QosClass::Guaranteed || all_declare(pod, "memory");
    Limits {
        shares: Some(milli_cpu_to_shares(amount(&requests, "cpu"))),
        quota: cpu_limited.then_some(quota),
        period: cpu_limited.then_some(period),
        memory: memory_limited.then(|| amount(&limits, "memory") / 1000),
        pids: None,
    }
}

/// Whether every container, or the pod as a whole, has a limit for `resource`.
fn all_declare(pod: &Pod, resource: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let limited = |limits: Option<&BTreeMap<String, Quantity>>| {
        qos::amount(limits, resource).is_some_and(|amount| amount > 0)
    };
    if limited(spec.resources.as_ref().and_then(|resources| resources.limits.as_ref())) {
        return true;
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.map(|container| container.resources.as_ref().and_then(|r| r.limits.as_ref())).all(limited)
}

/// Limits of `kubepods`: what the node has, without what is reserved.
#[must_use]
pub fn plan_node(capacity: &BTreeMap<String, Quantity>, reserved: &BTreeMap<String, Quantity>) -> Limits {
    let free = |resource: &str| {
        let reserved = reserved.get(resource).map(quantity::milli_value).unwrap_or_default();
        capacity.get(resource).map(|amount| (quantity::milli_value(amount) - reserved).max(0))
    };
    Limits {
        shares: free("cpu").map(milli_cpu_to_shares),
        memory: free("memory").map(|milli| milli / 1000),
        pids: free("pid").map(|milli| milli / 1000),
        ..Limits::default()
    }
}
