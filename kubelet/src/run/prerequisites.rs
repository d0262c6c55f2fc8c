//! What has to be there before the parts are put together: the runtime, control groups, what is kept back from pods.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio_util::sync::CancellationToken;

use crate::cgroups::{self, Cgroups};
use crate::config::KubeletConfiguration;
use crate::node_status::machine::Machine;
use crate::quantity;
use crate::runtime::Runtime;

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

pub(super) fn make_cgroups(settings: &KubeletConfiguration, machine: &Machine) -> anyhow::Result<Cgroups> {
    let driver = match settings.cgroup_driver.as_str() {
        "systemd" => cgroups::Driver::Systemd,
        _ => cgroups::Driver::Cgroupfs,
    };
    let cgroups = Cgroups::new(cgroups::Settings {
        driver,
        root: if settings.cgroup_root.is_empty() { "/".to_owned() } else { settings.cgroup_root.clone() },
        cgroups_per_qos: settings.cgroups_per_qos,
        enforce_node_allocatable: settings.enforce_node_allocatable.clone(),
        reserved: cgroups::reserved(&settings.system_reserved, &settings.kube_reserved),
        pod_pids_limit: settings.pod_pids_limit,
        cpu_cfs_quota: settings.cpu_cfs_quota,
        cpu_cfs_period_micros: u64::try_from(settings.cpu_cfs_quota_period.0.as_micros()).unwrap_or(100_000),
    })?;
    cgroups.ensure_node(&machine.capacity()).context("failed to start the container manager")?;
    Ok(cgroups)
}

/// What is kept back from pods: reservations, and memory and disk below which pods are evicted.
pub(super) fn reserved(
    settings: &KubeletConfiguration,
    machine: &Machine,
    root: &std::path::Path,
) -> std::collections::BTreeMap<String, Quantity> {
    let mut all = cgroups::reserved(&settings.system_reserved, &settings.kube_reserved);
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
