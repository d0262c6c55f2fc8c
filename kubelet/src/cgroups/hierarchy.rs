//! The mounted trees of control groups, and the files in them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tracing::debug;

use super::limits::{Limits, cpu_shares, cpu_weight};

/// Controllers the kubelet's own groups need; the runtime adds the others itself.
const V1_CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
const V2_CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// Version of the control groups in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One tree per controller (a hybrid counts as this).
    V1,
    /// One tree.
    V2,
}

/// Where controllers are mounted.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    version: Version,
    /// Version 1: tree by controller. Version 2: the tree under the key "".
    controllers: BTreeMap<String, PathBuf>,
    /// Every tree, also those without a controller of ours: groups are removed from all.
    trees: Vec<PathBuf>,
}

impl Hierarchy {
    /// Reads what is mounted.
    pub fn mounted() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no control groups are mounted"))
    }

    /// From the text of a mountinfo file.
    #[must_use]
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let mut v1 = BTreeMap::new();
        let mut trees = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(target) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    for controller in options.split(',') {
                        v1.entry(controller.to_owned()).or_insert_with(|| target.clone());
                    }
                    trees.push(target);
                }
                (Some("cgroup2"), _) => {
                    unified.get_or_insert_with(|| target.clone());
                    trees.push(target);
                }
                _ => {}
            }
        }
        if v1.contains_key("memory") || v1.contains_key("cpu") {
            return Some(Self { version: Version::V1, controllers: v1, trees });
        }
        Some(Self { version: Version::V2, controllers: BTreeMap::from([(String::new(), unified?)]), trees })
    }

    /// Version in force.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Directory of group `path` for `controller`.
    #[must_use]
    pub fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let key = if self.version == Version::V2 { "" } else { controller };
        Some(below(self.controllers.get(key)?, path))
    }

    /// Reads a file of the group `path`.
    #[must_use]
    pub fn read(&self, controller: &str, path: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.dir(controller, path)?.join(file)).ok()
    }

    /// Makes the group, in every tree it needs.
    pub fn create(&self, path: &str) -> io::Result<()> {
        match self.version {
            Version::V1 => {
                for controller in V1_CONTROLLERS {
                    if let Some(dir) = self.dir(controller, path) {
                        fs::create_dir_all(dir)?;
                    }
                }
                Ok(())
            }
            Version::V2 => self.create_v2(path),
        }
    }

    /// Every ancestor must hand its controllers down before a child can be limited.
    fn create_v2(&self, path: &str) -> io::Result<()> {
        let Some(mut dir) = self.controllers.get("").cloned() else { return Ok(()) };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            hand_down(&dir);
            dir.push(part);
            if !dir.is_dir() {
                fs::create_dir(&dir)?;
            }
        }
        hand_down(&dir);
        Ok(())
    }

    /// Whether the group is there in some tree.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.trees.iter().any(|tree| below(tree, path).is_dir())
    }

    /// Names of the groups directly below `path`.
    #[must_use]
    pub fn children(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.trees.iter().flat_map(|tree| subgroups(&below(tree, path))).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Writes limits. A file the kernel does not have is skipped: not every machine has every controller.
    pub fn apply(&self, path: &str, limits: &Limits) -> io::Result<()> {
        match self.version {
            Version::V1 => self.apply_v1(path, limits),
            Version::V2 => self.apply_v2(path, limits),
        }
    }

    fn apply_v1(&self, path: &str, limits: &Limits) -> io::Result<()> {
        self.write("cpu", path, "cpu.shares", limits.shares)?;
        self.write("cpu", path, "cpu.cfs_period_us", limits.period)?;
        self.write(
            "cpu",
            path,
            "cpu.cfs_quota_us",
            limits.quota.map(|quota| if quota == 0 { -1 } else { quota }),
        )?;
        self.write("memory", path, "memory.limit_in_bytes", limits.memory.filter(|memory| *memory != 0))?;
        self.write("pids", path, "pids.max", limits.pids)
    }

    fn apply_v2(&self, path: &str, limits: &Limits) -> io::Result<()> {
        self.write("cpu", path, "cpu.weight", limits.shares.map(cpu_weight))?;
        let quota = limits.quota.map(|quota| {
            let period = limits.period.unwrap_or(100_000);
            if quota > 0 { format!("{quota} {period}") } else { format!("max {period}") }
        });
        self.write("cpu", path, "cpu.max", quota)?;
        let memory = limits.memory.filter(|memory| *memory != 0);
        let memory = memory.map(|memory| if memory < 0 { "max".to_owned() } else { memory.to_string() });
        self.write("memory", path, "memory.max", memory)?;
        self.write("pids", path, "pids.max", limits.pids)
    }

    fn write(
        &self,
        controller: &str,
        path: &str,
        file: &str,
        value: Option<impl ToString>,
    ) -> io::Result<()> {
        let (Some(value), Some(dir)) = (value, self.dir(controller, path)) else { return Ok(()) };
        let file = dir.join(file);
        match fs::OpenOptions::new().write(true).truncate(true).open(&file) {
            Ok(mut open) => io::Write::write_all(&mut open, value.to_string().as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                debug!(file = %file.display(), "this machine has no such control");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Memory limit in bytes of a group, none when unlimited.
    #[must_use]
    pub fn memory_limit(&self, path: &str) -> Option<i64> {
        let file = if self.version == Version::V1 { "memory.limit_in_bytes" } else { "memory.max" };
        let limit: i64 = self.read("memory", path, file)?.trim().parse().ok()?;
        // Version 1 shows "no limit" as the largest multiple of the page size.
        (limit < i64::MAX / 2).then_some(limit)
    }

    /// The limits in force in a group, as far as they can be read: CPU without limit is -1, memory the greatest number.
    #[must_use]
    pub fn limits(&self, path: &str) -> Limits {
        let text = |file: &str| self.read("cpu", path, file).map(|text| text.trim().to_owned());
        let number = |file: &str| text(file)?.parse::<u64>().ok();
        let memory = Some(self.memory_limit(path).unwrap_or(i64::MAX));
        if self.version == Version::V1 {
            return Limits {
                shares: number("cpu.shares"),
                quota: text("cpu.cfs_quota_us").and_then(|text| text.parse().ok()),
                period: number("cpu.cfs_period_us"),
                memory,
                pids: None,
            };
        }
        let max = text("cpu.max").unwrap_or_default();
        let (quota, period) = max.split_once(' ').unwrap_or_default();
        Limits {
            shares: number("cpu.weight").map(cpu_shares),
            quota: if quota == "max" { Some(-1) } else { quota.parse().ok() },
            period: period.parse().ok(),
            memory,
            pids: None,
        }
    }

    /// Kills every process in the group and below; how many there were.
    pub fn kill(&self, path: &str) -> usize {
        let mut pids: Vec<i32> = self.trees.iter().flat_map(|tree| processes(&below(tree, path))).collect();
        pids.sort_unstable();
        pids.dedup();
        for pid in &pids {
            if let Some(pid) = Pid::from_raw(*pid) {
                // A process that is gone already is what is wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        pids.len()
    }

    /// Removes the group and those below it from every tree.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        self.trees.iter().try_for_each(|tree| remove_tree(&below(tree, path)))
    }
}

fn below(tree: &Path, path: &str) -> PathBuf {
    tree.join(path.trim_start_matches('/'))
}

fn hand_down(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in
        V2_CONTROLLERS.into_iter().filter(|wanted| available.split_whitespace().any(|has| has == *wanted))
    {
        // A group with processes of its own cannot hand controllers down; limits below it are then skipped.
        if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
            debug!(group = %dir.display(), controller, %error, "cannot hand the controller down");
        }
    }
}

fn subgroups(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn processes(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> =
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect();
    for name in subgroups(dir) {
        pids.extend(processes(&dir.join(name)));
    }
    pids
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for name in subgroups(dir) {
        remove_tree(&dir.join(name))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
