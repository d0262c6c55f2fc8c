//! What pods and the node use, as `/stats/summary` shows it.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use proto::cri;
use serde::Serialize;

use super::Server;
use super::volume_stats::{self, VolumeStats};
use crate::cgroups;
use crate::containers::labels;
use crate::types;

/// Use of CPU.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// When it was read.
    pub time: String,
    /// Nanoseconds per second lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_nano_cores: Option<u64>,
    /// Nanoseconds so far.
    pub usage_core_nano_seconds: u64,
}

/// Use of memory.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// When it was read.
    pub time: String,
    /// Bytes left below the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Bytes, caches included.
    pub usage_bytes: u64,
    /// Bytes that cannot be given back at once.
    pub working_set_bytes: u64,
    /// Bytes of anonymous memory.
    pub rss_bytes: u64,
    /// Page faults so far.
    pub page_faults: u64,
    /// Those that read from disk.
    pub major_page_faults: u64,
}

/// Use of a filesystem.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filesystem {
    /// When it was read.
    pub time: String,
    /// Bytes left, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Bytes in all, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
    /// Bytes used.
    pub used_bytes: u64,
    /// Inodes left, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_free: Option<u64>,
    /// Inodes in all, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Inodes used.
    pub inodes_used: u64,
}

/// One container.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStats {
    /// Name.
    pub name: String,
    /// When it was started.
    pub start_time: String,
    /// CPU.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Writable layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Filesystem>,
    /// The runtime's identifier and image, for metrics.
    #[serde(skip)]
    pub id: String,
}

/// Which pod.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PodReference {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// UID.
    pub uid: String,
}

/// One pod.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStats {
    /// Which.
    pub pod_ref: PodReference,
    /// When it was started.
    pub start_time: String,
    /// Its containers.
    pub containers: Vec<ContainerStats>,
    /// CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Volumes of claims.
    #[serde(rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeStats>,
    /// Processes.
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    pub processes: Option<serde_json::Value>,
}

/// The node.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStats {
    /// Name.
    pub node_name: String,
    /// When the kubelet was started.
    pub start_time: String,
    /// CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The filesystem of the kubelet's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs: Option<Filesystem>,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// The node.
    pub node: NodeStats,
    /// Its pods.
    pub pods: Vec<PodStats>,
}

/// What was read last, so that rates can be told.
pub struct Stats {
    start: Timestamp,
    last: Mutex<HashMap<String, (i64, u64)>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self { start: Timestamp::now(), last: Mutex::default() }
    }
}

impl Stats {
    /// Nanoseconds per second since the last reading of `what`.
    fn rate(&self, what: &str, now: Timestamp, usage: u64) -> Option<u64> {
        let now = i64::try_from(now.as_nanosecond()).ok()?;
        let (before, used) = self.last.lock().insert(what.to_owned(), (now, usage))?;
        let (elapsed, used) = (u128::try_from(now - before).ok()?, u128::from(usage.checked_sub(used)?));
        u64::try_from((used * 1_000_000_000).checked_div(elapsed)?).ok()
    }

    fn of_group(
        &self,
        what: &str,
        now: Timestamp,
        group: &cgroups::Stats,
        limit: Option<u64>,
    ) -> (Cpu, Memory) {
        let cpu = Cpu {
            time: now.to_string(),
            usage_nano_cores: self.rate(what, now, group.cpu_usage_nanos),
            usage_core_nano_seconds: group.cpu_usage_nanos,
        };
        let memory = Memory {
            time: now.to_string(),
            available_bytes: limit.map(|limit| limit.saturating_sub(group.memory_working_set)),
            usage_bytes: group.memory_usage,
            working_set_bytes: group.memory_working_set,
            rss_bytes: group.memory_rss,
            page_faults: group.page_faults,
            major_page_faults: group.major_page_faults,
        };
        (cpu, memory)
    }

    fn of_container(&self, stats: &cri::ContainerStats, started: &str) -> ContainerStats {
        let value = |value: &Option<cri::UInt64Value>| value.as_ref().map_or(0, |value| value.value);
        let time = |nanos: i64| Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
        let attributes = stats.attributes.clone().unwrap_or_default();
        let cpu = stats.cpu.unwrap_or_default();
        let memory = stats.memory.unwrap_or_default();
        let usage = value(&cpu.usage_core_nano_seconds);
        // Some runtimes send a zero for a rate they do not know.
        let own_rate = cpu.usage_nano_cores.as_ref().map(|rate| rate.value).filter(|rate| *rate > 0);
        ContainerStats {
            name: attributes.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
            start_time: started.to_owned(),
            cpu: Cpu {
                time: time(cpu.timestamp).to_string(),
                usage_nano_cores: own_rate.or_else(|| self.rate(&attributes.id, time(cpu.timestamp), usage)),
                usage_core_nano_seconds: usage,
            },
            memory: Memory {
                time: time(memory.timestamp).to_string(),
                available_bytes: memory
                    .available_bytes
                    .as_ref()
                    .map(|bytes| bytes.value)
                    .filter(|bytes| *bytes > 0),
                usage_bytes: value(&memory.usage_bytes),
                working_set_bytes: value(&memory.working_set_bytes),
                rss_bytes: value(&memory.rss_bytes),
                page_faults: value(&memory.page_faults),
                major_page_faults: value(&memory.major_page_faults),
            },
            rootfs: stats.writable_layer.as_ref().map(|layer| Filesystem {
                time: time(layer.timestamp).to_string(),
                used_bytes: value(&layer.used_bytes),
                inodes_used: value(&layer.inodes_used),
                ..Filesystem::default()
            }),
            id: attributes.id,
        }
    }
}

/// Reads everything.
pub async fn summary(server: &Server) -> Result<Summary, crate::runtime::Error> {
    let now = Timestamp::now();
    let containers = server.deps.runtime.list_container_stats(None).await?;
    let mut by_pod: BTreeMap<String, Vec<cri::ContainerStats>> = BTreeMap::new();
    for stats in containers {
        let uid =
            stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(labels::POD_UID).cloned());
        by_pod.entry(uid.unwrap_or_default()).or_default().push(stats);
    }
    let mut pods = Vec::new();
    let mut known = vec!["/".to_owned()];
    for pod in server.deps.pods.pods() {
        let stats = by_pod.remove(types::uid(&pod)).unwrap_or_default();
        known.push(types::uid(&pod).to_owned());
        known.extend(stats.iter().filter_map(|stats| Some(stats.attributes.as_ref()?.id.clone())));
        if let Some(mut found) = pod_stats(server, &pod, &stats, now) {
            found.volumes = volume_stats::of_pod(server, &pod).await;
            pods.push(found);
        }
    }
    server.stats.last.lock().retain(|what, _| known.contains(what));
    Ok(Summary { node: node_stats(server, now), pods })
}

fn pod_stats(
    server: &Server,
    pod: &Pod,
    containers: &[cri::ContainerStats],
    now: Timestamp,
) -> Option<PodStats> {
    let group = server.deps.cgroups.pod_stats(pod);
    if containers.is_empty() && group.is_none() {
        return None;
    }
    let status = server.deps.status.pod_status(types::uid(pod));
    let started = |name: &str| {
        let statuses = status
            .iter()
            .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
        let found = statuses.into_iter().find(|container| container.name == name)?;
        Some(found.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0.to_string())
    };
    let own = |stats: &cri::ContainerStats| {
        let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
        let name = labels.and_then(|labels| labels.get(labels::CONTAINER_NAME)).cloned().unwrap_or_default();
        server.stats.of_container(stats, &started(&name).unwrap_or_default())
    };
    let limit = server.deps.cgroups.memory_limit(pod).and_then(|limit| u64::try_from(limit).ok());
    let used = group.map(|group| server.stats.of_group(types::uid(pod), now, &group, limit));
    let (cpu, memory) = used.unzip();
    let start = status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0.to_string());
    Some(PodStats {
        pod_ref: PodReference {
            name: types::name(pod).to_owned(),
            namespace: types::namespace(pod).to_owned(),
            uid: types::uid(pod).to_owned(),
        },
        start_time: start.unwrap_or_default(),
        containers: containers.iter().map(own).collect(),
        cpu,
        memory,
        volumes: Vec::new(),
        processes: group.map(|group| serde_json::json!({"process_count": group.processes})),
    })
}

fn node_stats(server: &Server, now: Timestamp) -> NodeStats {
    let group = server.deps.cgroups.root_stats();
    let total = memory_total();
    let used = group.map(|group| server.stats.of_group("/", now, &group, total));
    let (cpu, memory) = used.unzip();
    NodeStats {
        node_name: server.deps.node_name.clone(),
        start_time: server.stats.start.to_string(),
        cpu,
        memory,
        fs: filesystem(server.deps.layout.root(), now),
    }
}

fn memory_total() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn filesystem(path: &std::path::Path, now: Timestamp) -> Option<Filesystem> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Filesystem {
        time: now.to_string(),
        available_bytes: Some(stat.f_bavail * stat.f_frsize),
        capacity_bytes: Some(stat.f_blocks * stat.f_frsize),
        used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize,
        inodes_free: Some(stat.f_ffree),
        inodes: Some(stat.f_files),
        inodes_used: stat.f_files.saturating_sub(stat.f_ffree),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_from_the_second_reading_on() {
        let stats = Stats::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(stats.rate("x", at(10), 1_000), None);
        assert_eq!(stats.rate("x", at(12), 1_000_001_000), Some(500_000_000));
        assert_eq!(stats.rate("x", at(13), 5), None, "a counter that was reset has no rate");
    }
}
