//! The four amounts of a container that a resize can change, and what runtime and control groups say of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proto::cri;

use crate::quantity;

/// What can be resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
}

impl Resource {
    /// Its name in requests and limits.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// Request and limit of one resource; zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What it asks for.
    pub request: i64,
    /// What it may use.
    pub limit: i64,
}

/// CPU in thousandths and memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// CPU.
    pub cpu: Size,
    /// Memory.
    pub memory: Size,
}

type List = Option<BTreeMap<String, Quantity>>;

impl Sizes {
    /// What these resources come to. Limits of the whole pod hold for a container without its own.
    #[must_use]
    pub fn of(own: Option<&ResourceRequirements>, pod: Option<&ResourceRequirements>) -> Self {
        let of = |list: Option<&List>, name: &str, read: fn(&Quantity) -> i64| {
            list.and_then(|l| l.as_ref()?.get(name)).map_or(0, read)
        };
        let size = |name: &str, read: fn(&Quantity) -> i64| {
            let limit = of(own.map(|r| &r.limits), name, read);
            Size {
                request: of(own.map(|r| &r.requests), name, read),
                limit: if limit == 0 { of(pod.map(|r| &r.limits), name, read) } else { limit },
            }
        };
        Self { cpu: size("cpu", quantity::milli_value), memory: size("memory", quantity::value) }
    }

    /// One resource of these.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Size {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
        }
    }

    /// These with one resource of `other`.
    #[must_use]
    pub fn with(self, resource: Resource, other: &Self) -> Self {
        match resource {
            Resource::Cpu => Self { cpu: other.cpu, ..self },
            Resource::Memory => Self { memory: other.memory, ..self },
        }
    }

    /// `own` with these amounts in place of its own; all else stays.
    #[must_use]
    pub fn applied(&self, own: Option<&ResourceRequirements>) -> ResourceRequirements {
        let mut changed = own.cloned().unwrap_or_default();
        let mut put = |list: fn(&mut ResourceRequirements) -> &mut List, cpu: i64, memory: i64| {
            let list = list(&mut changed).get_or_insert_default();
            list.insert("cpu".to_owned(), quantity::from_milli(cpu));
            list.insert("memory".to_owned(), quantity::from_bytes(memory));
        };
        put(|r| &mut r.requests, self.cpu.request, self.memory.request);
        put(|r| &mut r.limits, self.cpu.limit, self.memory.limit);
        changed
    }
}

/// The resources of a container with the pod's limits where it has none of its own.
#[must_use]
pub fn with_pod_limits(
    own: Option<&ResourceRequirements>,
    pod: Option<&ResourceRequirements>,
) -> ResourceRequirements {
    let mut all = own.cloned().unwrap_or_default();
    let Some(whole) = pod.and_then(|p| p.limits.as_ref()) else { return all };
    for name in ["cpu", "memory"] {
        let has =
            all.limits.as_ref().and_then(|l| l.get(name)).is_some_and(|q| quantity::milli_value(q) != 0);
        if let Some(limit) = whole.get(name).filter(|q| !has && quantity::milli_value(q) != 0) {
            all.limits.get_or_insert_default().insert(name.to_owned(), limit.clone());
        }
    }
    all
}

/// Thousandths of a CPU that give these shares; none for fewer than the kernel knows.
#[must_use]
pub fn shares_to_milli(shares: i64) -> Option<i64> {
    (shares >= MIN_SHARES).then(|| (shares.saturating_mul(1000) + 1023) / 1024)
}

/// Thousandths of a CPU that a quota comes to; none where there is no limit.
#[must_use]
pub fn quota_to_milli(quota: i64, period: i64) -> Option<i64> {
    if quota <= 0 || period <= 0 {
        return None;
    }
    Some(quota.saturating_mul(1000) / period).filter(|milli| *milli > 0)
}

/// At or below these, the kernel tells amounts apart no more, and what was allocated is shown instead.
const MIN_SHARES: i64 = 2;
const MIN_MILLI_LIMIT: i64 = 10;

/// What is in force, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Thousandths of a CPU asked for.
    pub cpu_request: Option<i64>,
    /// Thousandths of a CPU allowed.
    pub cpu_limit: Option<i64>,
    /// Bytes asked for.
    pub memory_request: Option<i64>,
    /// Bytes allowed.
    pub memory_limit: Option<i64>,
}

impl InForce {
    /// From what the runtime says, completed by what it was told.
    #[must_use]
    pub fn of_container(
        reported: Option<&cri::LinuxContainerResources>,
        told: Option<&ResourceRequirements>,
    ) -> Self {
        let mut found = Self::default();
        if let Some(linux) = reported {
            found.cpu_request = shares_to_milli(linux.cpu_shares);
            found.cpu_limit = quota_to_milli(linux.cpu_quota, linux.cpu_period);
            found.memory_limit = Some(linux.memory_limit_in_bytes).filter(|bytes| *bytes > 0);
        }
        let Some(told) = told else { return found };
        let told = Sizes::of(Some(told), None);
        if found == Self::default() {
            return Self {
                cpu_request: Some(told.cpu.request),
                cpu_limit: Some(told.cpu.limit),
                memory_request: Some(told.memory.request),
                memory_limit: Some(told.memory.limit),
            };
        }
        found.memory_request = Some(told.memory.request).filter(|bytes| *bytes != 0);
        found
    }

    /// What was allocated, with what is in force where that is known; where it is not, what was shown `before`.
    #[must_use]
    pub fn shown(
        &self,
        allocated: Option<&ResourceRequirements>,
        before: Option<&ResourceRequirements>,
    ) -> ResourceRequirements {
        let mut shown = allocated.cloned().unwrap_or_default();
        let keep = |list: &mut BTreeMap<String, Quantity>, old: Option<&List>, name: &str| {
            if let Some(value) = old.and_then(|l| l.as_ref()?.get(name)) {
                list.insert(name.to_owned(), value.clone());
            }
        };
        let cpu =
            |list: &mut BTreeMap<String, Quantity>, actual: Option<i64>, least: i64, old: Option<&List>| {
                let allocated = list.get("cpu").map_or(0, quantity::milli_value);
                match actual {
                    Some(actual) if actual > least || allocated > least => {
                        list.insert("cpu".to_owned(), quantity::from_milli(actual));
                    }
                    Some(_) => {}
                    None => keep(list, old, "cpu"),
                }
            };
        let memory =
            |list: &mut BTreeMap<String, Quantity>, actual: Option<i64>, old: Option<&List>| match actual {
                Some(bytes) => {
                    list.insert("memory".to_owned(), quantity::from_bytes(bytes));
                }
                None => keep(list, old, "memory"),
            };
        if let Some(limits) = &mut shown.limits {
            let old = before.map(|r| &r.limits);
            cpu(limits, self.cpu_limit, MIN_MILLI_LIMIT, old);
            memory(limits, self.memory_limit, old);
        }
        if let Some(requests) = &mut shown.requests {
            let old = before.map(|r| &r.requests);
            cpu(requests, self.cpu_request, MIN_SHARES, old);
            memory(requests, self.memory_request, old);
        }
        shown
    }
}

/// What was shown of a container before, if it is the same and ran then as it does now.
#[must_use]
pub fn shown_before<'a>(old: Option<&'a ContainerStatus>, id: &str) -> Option<&'a ResourceRequirements> {
    let same = old.filter(|o| {
        o.container_id.as_deref() == Some(id) && o.state.as_ref().is_some_and(|s| s.running.is_some())
    });
    same.and_then(|o| o.resources.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> ResourceRequirements {
        serde_saphyr::from_str(text).expect("valid")
    }

    #[test]
    fn what_is_in_force_is_shown() {
        let runtime = |shares: i64, quota: i64, memory: i64| cri::LinuxContainerResources {
            cpu_shares: shares,
            cpu_quota: quota,
            cpu_period: 100_000,
            memory_limit_in_bytes: memory,
            ..Default::default()
        };
        let cases = [
            // (allocated, told, reported, shown)
            (
                "{requests: {cpu: 100m, memory: 1Mi}, limits: {cpu: 100m, memory: 1Mi}}",
                "{requests: {cpu: 100m, memory: 1Mi}}",
                Some(runtime(102, 10_000, 1 << 20)),
                "{requests: {cpu: 100m, memory: 1Mi}, limits: {cpu: 100m, memory: 1Mi}}",
            ),
            // The runtime has not caught up.
            (
                "{requests: {cpu: 200m, memory: 2Mi}, limits: {cpu: 200m, memory: 2Mi}}",
                "{requests: {cpu: 100m, memory: 1Mi}}",
                Some(runtime(102, 10_000, 1 << 20)),
                "{requests: {cpu: 100m, memory: 1Mi}, limits: {cpu: 100m, memory: 1Mi}}",
            ),
            // Amounts the kernel cannot tell apart.
            (
                "{requests: {cpu: 1m}, limits: {cpu: 5m}}",
                "{requests: {cpu: 1m}, limits: {cpu: 5m}}",
                Some(runtime(2, 1000, 0)),
                "{requests: {cpu: 1m}, limits: {cpu: 5m}}",
            ),
            (
                "{requests: {cpu: 1m}, limits: {cpu: 5m}}",
                "{}",
                Some(runtime(20, 2000, 0)),
                "{requests: {cpu: 20m}, limits: {cpu: 20m}}",
            ),
            // A runtime that says nothing.
            (
                "{requests: {cpu: 200m, memory: 2Mi}}",
                "{requests: {cpu: 100m, memory: 1Mi}}",
                None,
                "{requests: {cpu: 100m, memory: 1Mi}}",
            ),
            ("{}", "{}", Some(runtime(2, 0, 0)), "{}"),
            // Other resources are as allocated.
            (
                "{requests: {cpu: 100m, example.com/x: 1}}",
                "{requests: {cpu: 100m}}",
                Some(runtime(102, 0, 0)),
                "{requests: {cpu: 100m, example.com/x: 1}}",
            ),
        ];
        for (allocated, told, reported, shown) in cases {
            let in_force = InForce::of_container(reported.as_ref(), Some(&resources(told)));
            assert_eq!(
                in_force.shown(Some(&resources(allocated)), None),
                resources(shown),
                "{allocated} {told}"
            );
        }
    }

    #[test]
    fn the_pods_limits_hold_for_containers_without() {
        let whole = resources("{limits: {cpu: 1, memory: 1Gi}}");
        let cases = [
            ("{}", (1000, 1 << 30)),
            ("{limits: {cpu: 100m}}", (100, 1 << 30)),
            ("{limits: {cpu: 0, memory: 1Mi}}", (1000, 1 << 20)),
        ];
        for (own, expected) in cases {
            let own = resources(own);
            let sizes = Sizes::of(Some(&own), Some(&whole));
            assert_eq!((sizes.cpu.limit, sizes.memory.limit), expected);
            assert_eq!(Sizes::of(Some(&with_pod_limits(Some(&own), Some(&whole))), None), sizes);
        }
    }

    #[test]
    fn kernel_amounts_are_read_back() {
        assert_eq!([1, 2, 102, 1024].map(shares_to_milli), [None, Some(2), Some(100), Some(1000)]);
        assert_eq!(quota_to_milli(-1, 100_000), None);
        assert_eq!(quota_to_milli(15_000, 100_000), Some(150));
    }
}
