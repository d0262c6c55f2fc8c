//! What has to be there before the parts are put together: the runtime, control groups, what is kept back from pods.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio_util::sync::CancellationToken;

use crate::cgroups::{self, Cgroups};
use crate::config::KubeletConfiguration;
use crate::cpus::{self, Cpus, Layout};
use crate::devices::Devices;
use crate::memory::{self, Memory, NumaMemory};
use crate::node_status::machine::Machine;
use crate::placement::{Alignment, Placement};
use crate::quantity;
use crate::runtime::Runtime;
use crate::topology;

pub(super) fn check_swap(settings: &KubeletConfiguration, machine: &Machine) -> anyhow::Result<()> {
    anyhow::ensure!(
        machine.swap == 0 || !settings.fail_swap_on,
        "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
    );
    Ok(())
}

/// The kubelet itself should outlive what it runs. Not every machine allows that.
pub(super) fn adjust_oom_score(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::warn!(score, %error, "failed to adjust the OOM score of the kubelet, going on without");
    }
}

/// Waits for the runtime to answer: it may start after the kubelet.
pub(super) async fn connect_runtime(
    settings: &KubeletConfiguration,
    token: &CancellationToken,
) -> anyhow::Result<Runtime> {
    let (socket, images) = (settings.runtime_socket(), settings.image_socket());
    let timeout = settings.runtime_request_timeout.0;
    let mut warned = false;
    loop {
        match Runtime::connect(&socket, &images, timeout).await {
            Ok(runtime) => return Ok(runtime),
            Err(error) if !warned => {
                tracing::warn!(
                    error = client::chain(&error),
                    "container runtime is not there yet, waiting for it"
                );
                warned = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = token.cancelled() => anyhow::bail!("stopped while waiting for the container runtime"),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

/// What is given to containers alone, as the files of former runs say.
pub(super) fn make_placement(
    settings: &KubeletConfiguration,
    machine: &Machine,
    root: &Path,
    devices: impl FnOnce(Vec<usize>) -> Devices,
) -> anyhow::Result<Placement> {
    let system = Path::new("/sys/devices/system");
    let total = u64::try_from(machine.memory).unwrap_or_default();
    let memory_nodes = NumaMemory::read(system, total);
    let alignment =
        alignment(settings, &memory_nodes).map_err(anyhow::Error::msg).context("topology manager")?;
    let reserved = reserved(settings, machine, root);
    let layout = Layout::read(system).context("read the layout of CPUs")?;
    let config = cpus::Config {
        policy: settings.cpu_manager_policy.clone(),
        options: settings.cpu_manager_policy_options.clone(),
        alpha_options: settings
            .feature_gates
            .get("CPUManagerPolicyAlphaOptions")
            .copied()
            .unwrap_or_default(),
        reserved_milli: reserved.get("cpu").map(quantity::milli_value).unwrap_or_default(),
        reserved: settings.reserved_cpus(),
        topology: alignment.policy,
        directory: root.to_owned(),
    };
    let cpus = Cpus::open(config, layout).map_err(anyhow::Error::msg).context("CPU manager")?;
    let config = memory::Config {
        policy: settings.memory_manager_policy.clone(),
        reserved: settings.reserved_memory.clone(),
        node_reserved: reserved,
        directory: root.to_owned(),
    };
    let memory =
        Memory::open(&config, &memory_nodes).map_err(anyhow::Error::msg).context("memory manager")?;
    let numa = memory_nodes.iter().map(|node| node.id).collect();
    Ok(Placement::new(devices(numa), cpus, memory, alignment))
}

fn alignment(settings: &KubeletConfiguration, nodes: &[NumaMemory]) -> Result<Alignment, String> {
    let policy = topology::Policy::named(&settings.topology_manager_policy)?;
    let options = topology::Options::parse(&settings.topology_manager_policy_options)?;
    if policy != topology::Policy::None && nodes.len() > options.max_nodes {
        return Err(format!("unsupported on machines with more than {} NUMA Nodes", options.max_nodes));
    }
    let numa = topology::NumaInfo {
        nodes: nodes.iter().map(|node| node.id).collect(),
        distances: nodes.iter().map(|node| (node.id, node.distances.clone())).collect(),
    };
    Ok(Alignment { policy, scope: topology::Scope::named(&settings.topology_manager_scope)?, options, numa })
}

pub(super) fn make_cgroups(
    settings: &KubeletConfiguration,
    machine: &Machine,
    cpus: &Cpus,
) -> anyhow::Result<Cgroups> {
    let driver = match settings.cgroup_driver.as_str() {
        "systemd" => cgroups::Driver::Systemd,
        _ => cgroups::Driver::Cgroupfs,
    };
    let cgroups = Cgroups::new(cgroups::Settings {
        driver,
        root: if settings.cgroup_root.is_empty() { "/".to_owned() } else { settings.cgroup_root.clone() },
        cgroups_per_qos: settings.cgroups_per_qos,
        enforce_node_allocatable: settings.enforce_node_allocatable.clone(),
        reserved: kept_back(settings),
        cpus: Some(cpus.clone()),
        pod_pids_limit: settings.pod_pids_limit,
        cpu_cfs_quota: settings.cpu_cfs_quota,
        cpu_cfs_period_micros: u64::try_from(settings.cpu_cfs_quota_period.0.as_micros()).unwrap_or(100_000),
    })?;
    cgroups.ensure_node(&machine.capacity()).context("failed to start the container manager")?;
    Ok(cgroups)
}

/// Reservations; CPUs that are named by number take the place of their amount.
fn kept_back(settings: &KubeletConfiguration) -> BTreeMap<String, Quantity> {
    let mut all = cgroups::reserved(&settings.system_reserved, &settings.kube_reserved);
    let cpus = settings.reserved_cpus();
    if !cpus.is_empty() {
        all.insert("cpu".to_owned(), Quantity(cpus.len().to_string()));
    }
    all
}

/// What is kept back from pods: reservations, and memory and disk below which pods are evicted.
pub(super) fn reserved(
    settings: &KubeletConfiguration,
    machine: &Machine,
    root: &Path,
) -> BTreeMap<String, Quantity> {
    let mut all = kept_back(settings);
    let disk = crate::node_status::machine::file_system(root).map(|f| f.capacity).unwrap_or_default();
    let disk = i64::try_from(disk).unwrap_or(i64::MAX);
    for (resource, signal, capacity) in
        [("memory", "memory.available", machine.memory), ("ephemeral-storage", "nodefs.available", disk)]
    {
        let Some(threshold) = settings.eviction_hard.get(signal) else { continue };
        let kept = threshold_bytes(threshold, capacity);
        let before = all.get(resource).map(quantity::value).unwrap_or_default();
        all.insert(resource.to_owned(), quantity::from_bytes(before.saturating_add(kept)));
    }
    all
}

/// A threshold in bytes: an amount, or a share of the capacity.
#[must_use]
pub fn threshold_bytes(threshold: &str, capacity: i64) -> i64 {
    match threshold.strip_suffix('%').and_then(|p| p.parse::<f64>().ok()) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "a share needs no more precision"
        )]
        Some(percent) => (capacity as f64 * percent / 100.0) as i64,
        None => quantity::value(&Quantity(threshold.to_owned())),
    }
}
