//! What a group has used.

use super::hierarchy::{Hierarchy, Version};

/// Use of CPU, memory and processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds of CPU so far.
    pub cpu_usage_nanos: u64,
    /// Bytes of memory, caches included.
    pub memory_usage: u64,
    /// Bytes of memory that cannot be given back at once.
    pub memory_working_set: u64,
    /// Bytes of anonymous memory.
    pub memory_rss: u64,
    /// Page faults so far.
    pub page_faults: u64,
    /// Page faults that had to read from disk.
    pub major_page_faults: u64,
    /// Processes now.
    pub processes: u64,
}

pub fn read(hierarchy: &Hierarchy, path: &str) -> Option<Stats> {
    let number = |controller: &str, file: &str| -> Option<u64> {
        hierarchy.read(controller, path, file)?.trim().parse().ok()
    };
    let memory_stat = hierarchy.read("memory", path, "memory.stat").unwrap_or_default();
    let mut stats =
        Stats { processes: number("pids", "pids.current").unwrap_or_default(), ..Stats::default() };
    let inactive = match hierarchy.version() {
        Version::V1 => {
            stats.cpu_usage_nanos = number("cpuacct", "cpuacct.usage")?;
            stats.memory_usage = number("memory", "memory.usage_in_bytes").unwrap_or_default();
            stats.memory_rss = field(&memory_stat, "total_rss");
            stats.page_faults = field(&memory_stat, "total_pgfault");
            stats.major_page_faults = field(&memory_stat, "total_pgmajfault");
            field(&memory_stat, "total_inactive_file")
        }
        Version::V2 => {
            stats.cpu_usage_nanos = field(&hierarchy.read("cpu", path, "cpu.stat")?, "usage_usec") * 1000;
            stats.memory_rss = field(&memory_stat, "anon");
            // The root has no memory.current.
            stats.memory_usage = number("memory", "memory.current")
                .unwrap_or_else(|| stats.memory_rss + field(&memory_stat, "file"));
            stats.page_faults = field(&memory_stat, "pgfault");
            stats.major_page_faults = field(&memory_stat, "pgmajfault");
            field(&memory_stat, "inactive_file")
        }
    };
    stats.memory_working_set = stats.memory_usage.saturating_sub(inactive);
    Some(stats)
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default()
}
