//! Requests and limits as the kernel counts them: shares, quota, bytes.

use k8s_openapi::api::core::v1::{Container, Pod};
use proto::cri;

use crate::cgroups::Limits;
use crate::{qos, quantity, types};

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MIN_QUOTA: i64 = 1000;

/// How limits are enforced on this node.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    /// Enforce CPU limits by quota.
    pub cpu_cfs_quota: bool,
    /// Length of the quota's period in microseconds.
    pub cpu_period: i64,
    /// Memory of the node in bytes, of which `oom_score_adj` is a share.
    pub memory_capacity: i64,
    /// The node has the unified cgroup hierarchy.
    pub cgroup_v2: bool,
    /// Swap can be limited per container.
    pub swap_controller: bool,
}

/// Where a container runs; empty lists where that makes no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// CPUs, as the kernel writes them.
    pub cpus: String,
    /// NUMA nodes of its memory, as the kernel writes them.
    pub memory_nodes: String,
    /// It has its CPUs for itself.
    pub alone: bool,
}

impl Place {
    /// Limits of a container that runs there.
    #[must_use]
    pub fn applied(&self, mut limits: cri::LinuxContainerResources) -> cri::LinuxContainerResources {
        limits.cpuset_cpus.clone_from(&self.cpus);
        limits.cpuset_mems.clone_from(&self.memory_nodes);
        // Who has whole CPUs cannot take more than them: a quota would only make it wait.
        if self.alone && limits.cpu_period > 0 {
            limits.cpu_quota = -1;
        }
        limits
    }
}

/// CPU shares of that many thousandths of a CPU.
#[must_use]
pub fn milli_cpu_to_shares(milli: i64) -> i64 {
    if milli == 0 {
        MIN_SHARES
    } else {
        (milli.saturating_mul(SHARES_PER_CPU) / 1000).clamp(MIN_SHARES, MAX_SHARES)
    }
}

/// CPU quota per period for that many thousandths of a CPU; zero means none.
#[must_use]
pub fn milli_cpu_to_quota(milli: i64, period: i64) -> i64 {
    if milli == 0 { 0 } else { (milli.saturating_mul(period) / 1000).max(MIN_QUOTA) }
}

/// The limits of one container.
#[must_use]
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    settings: &LimitSettings,
) -> cri::LinuxContainerResources {
    let own = container.resources.as_ref();
    let requests = own.and_then(|r| r.requests.as_ref());
    let limits = own.and_then(|r| r.limits.as_ref());
    // Limits of the whole pod hold for containers without their own.
    let whole = types::spec(pod).resources.as_ref().and_then(|r| r.limits.as_ref());
    let limit = |name: &str| {
        let found = limits.and_then(|l| l.get(name)).filter(|q| quantity::milli_value(q) != 0);
        found.or_else(|| whole.and_then(|l| l.get(name)))
    };
    let cpu_limit = limit("cpu").map_or(0, quantity::milli_value);
    let cpu_request = requests.and_then(|r| r.get("cpu")).map_or(cpu_limit, quantity::milli_value);
    let memory_limit = limit("memory").map_or(0, quantity::value);
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: milli_cpu_to_shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: qos::oom_score_adj(pod, container, settings.memory_capacity),
        hugepage_limits: hugepage_limits(container),
        ..Default::default()
    };
    if settings.cpu_cfs_quota {
        resources.cpu_period = settings.cpu_period;
        resources.cpu_quota = milli_cpu_to_quota(cpu_limit, settings.cpu_period);
    }
    if settings.swap_controller {
        // No swap: on v1 memory+swap is limited to memory, on v2 swap itself to nothing.
        resources.memory_swap_limit_in_bytes = memory_limit;
        if settings.cgroup_v2 {
            resources.memory_swap_limit_in_bytes = 0;
            resources.unified.insert("memory.swap.max".to_owned(), "0".to_owned());
        }
    }
    if settings.cgroup_v2 {
        resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    resources
}

/// Limits of huge pages, one per size the container names.
fn hugepage_limits(container: &Container) -> Vec<cri::HugepageLimit> {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    limits
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| {
            let size = name.strip_prefix("hugepages-")?;
            let bytes = quantity::parse(size)?.value();
            let page_size = match bytes {
                b if b % (1 << 30) == 0 => format!("{}GB", b >> 30),
                b if b % (1 << 20) == 0 => format!("{}MB", b >> 20),
                b => format!("{}KB", b >> 10),
            };
            Some(cri::HugepageLimit {
                page_size,
                limit: u64::try_from(quantity::value(amount)).unwrap_or_default(),
            })
        })
        .collect()
}

/// What the whole pod is given, for runtimes that size sandboxes by it.
#[must_use]
pub fn sandbox_resources(pod: &Pod, settings: &LimitSettings) -> cri::LinuxContainerResources {
    let (requests, limits) = (qos::pod_requests(pod), qos::pod_limits(pod));
    let milli = |list: &qos::Amounts, name: &str| list.get(name).copied().unwrap_or_default();
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: milli_cpu_to_shares(milli(&requests, "cpu")),
        memory_limit_in_bytes: milli(&limits, "memory") / 1000,
        ..Default::default()
    };
    if settings.cpu_cfs_quota {
        resources.cpu_period = settings.cpu_period;
        resources.cpu_quota = milli_cpu_to_quota(milli(&limits, "cpu"), settings.cpu_period);
    }
    resources
}

/// Limits of a pod's group as the runtime takes them.
#[must_use]
pub fn group_resources(limits: &Limits) -> cri::LinuxContainerResources {
    let signed = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok()).unwrap_or_default();
    cri::LinuxContainerResources {
        cpu_shares: signed(limits.shares),
        cpu_quota: limits.quota.unwrap_or_default(),
        cpu_period: signed(limits.period),
        memory_limit_in_bytes: limits.memory.filter(|bytes| *bytes != i64::MAX).unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: LimitSettings = LimitSettings {
        cpu_cfs_quota: true,
        cpu_period: 100_000,
        memory_capacity: 8 << 30,
        cgroup_v2: false,
        swap_controller: false,
    };

    #[test]
    fn shares_and_quotas_are_upstreams() {
        for (milli, shares, quota) in [
            (0, 2, 0),
            (1, 2, 1000),
            (5, 5, 1000),
            (100, 102, 10_000),
            (1500, 1536, 150_000),
            (400_000, 262_144, 40_000_000),
        ] {
            assert_eq!(milli_cpu_to_shares(milli), shares, "{milli}");
            assert_eq!(milli_cpu_to_quota(milli, 100_000), quota, "{milli}");
        }
    }

    #[test]
    fn container_limits() {
        let cases = [
            ("{}", (2, 0, 0)),
            ("{limits: {cpu: 500m, memory: 64Mi}}", (512, 50_000, 64 << 20)),
            ("{requests: {cpu: 250m}, limits: {cpu: 2}}", (256, 200_000, 0)),
            ("{requests: {cpu: 0}, limits: {cpu: 2}}", (2, 200_000, 0)),
        ];
        for (resources, expected) in cases {
            let pod: Pod = serde_saphyr::from_str(&format!(
                "metadata: {{name: p}}\nspec: {{containers: [{{name: c, resources: {resources}}}]}}"
            ))
            .expect("valid");
            let r = container_resources(&pod, &types::spec(&pod).containers[0], &SETTINGS);
            assert_eq!((r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes), expected, "{resources}");
        }
    }

    #[test]
    fn hugepages_are_named_as_the_kernel_names_them() {
        let container: Container = serde_saphyr::from_str(
            "name: c\nresources: {limits: {hugepages-2Mi: 4Mi, hugepages-1Gi: 2Gi, cpu: 1}}",
        )
        .expect("valid");
        let mut limits = hugepage_limits(&container);
        limits.sort_by_key(|l| l.limit);
        let named: Vec<_> = limits.iter().map(|l| (l.page_size.as_str(), l.limit)).collect();
        assert_eq!(named, [("2MB", 4 << 20), ("1GB", 2 << 30)]);
    }
}
