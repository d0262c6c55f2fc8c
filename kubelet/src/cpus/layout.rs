//! Where the CPUs of a machine are: which share a core, a socket, a NUMA node, a cache.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::set::CpuSet;

/// Where one CPU is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// NUMA node.
    pub numa: usize,
    /// Socket.
    pub socket: usize,
    /// Core, by the lowest of its CPUs.
    pub core: usize,
    /// Cache of the last level.
    pub uncore: usize,
}

/// What CPUs can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// NUMA nodes.
    Numa,
    /// Sockets.
    Socket,
    /// Cores.
    Core,
    /// Caches of the last level.
    Uncore,
}

impl Cpu {
    /// Its number at a level.
    #[must_use]
    pub fn at(&self, level: Level) -> usize {
        match level {
            Level::Numa => self.numa,
            Level::Socket => self.socket,
            Level::Core => self.core,
            Level::Uncore => self.uncore,
        }
    }
}

/// CPUs by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout(BTreeMap<usize, Cpu>);

impl FromIterator<(usize, Cpu)> for Layout {
    fn from_iter<T: IntoIterator<Item = (usize, Cpu)>>(cpus: T) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl Layout {
    /// All CPUs.
    #[must_use]
    pub fn cpus(&self) -> CpuSet {
        self.0.keys().copied().collect()
    }

    /// Where a CPU is.
    #[must_use]
    pub fn get(&self, cpu: usize) -> Option<&Cpu> {
        self.0.get(&cpu)
    }

    /// The same without the other CPUs.
    #[must_use]
    pub fn only(&self, cpus: &CpuSet) -> Self {
        self.0.iter().filter(|(cpu, _)| cpus.contains(**cpu)).map(|(cpu, at)| (*cpu, *at)).collect()
    }

    /// All numbers at a level.
    #[must_use]
    pub fn all(&self, level: Level) -> CpuSet {
        self.0.values().map(|cpu| cpu.at(level)).collect()
    }

    /// The numbers at a level that have CPUs in one part of another.
    #[must_use]
    pub fn all_in(&self, level: Level, within: Level, part: usize) -> CpuSet {
        self.0.values().filter(|cpu| cpu.at(within) == part).map(|cpu| cpu.at(level)).collect()
    }

    /// The CPUs of some parts.
    #[must_use]
    pub fn cpus_in(&self, level: Level, parts: &CpuSet) -> CpuSet {
        self.0.iter().filter(|(_, at)| parts.contains(at.at(level))).map(|(cpu, _)| *cpu).collect()
    }

    /// The CPUs of one part.
    #[must_use]
    pub fn cpus_of(&self, level: Level, part: usize) -> CpuSet {
        self.cpus_in(level, &[part].into_iter().collect())
    }

    /// How many CPUs a part has that has its share; zero without any.
    #[must_use]
    pub fn per(&self, level: Level) -> usize {
        self.0.len().checked_div(self.all(level).len()).unwrap_or_default()
    }

    /// Reads the layout of a machine from `/sys/devices/system` or another directory like it.
    pub fn read(system: &Path) -> io::Result<Self> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let list = |path: &Path| -> io::Result<CpuSet> {
            let text = std::fs::read_to_string(path)?;
            text.trim().parse().map_err(|_| invalid(&text))
        };
        let number =
            |path: &Path| -> Option<usize> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
        let numa = numa_of(system);
        let online = list(&system.join("cpu/online"))?;
        let mut found = BTreeMap::new();
        for cpu in online.iter() {
            let directory = system.join(format!("cpu/cpu{cpu}"));
            let topology = directory.join("topology");
            let siblings =
                list(&topology.join("thread_siblings_list")).unwrap_or_else(|_| [cpu].into_iter().collect());
            let core = siblings.iter().next().unwrap_or(cpu);
            let socket = number(&topology.join("physical_package_id")).unwrap_or_default();
            let shared = list(&directory.join("cache/index3/shared_cpu_list")).ok();
            // As upstream: without such a cache, the socket is as good.
            let uncore = number(&directory.join("cache/index3/id"))
                .or_else(|| shared.and_then(|shared| shared.iter().next()))
                .unwrap_or(socket);
            let numa = numa.get(&cpu).copied().unwrap_or_default();
            found.insert(cpu, Cpu { numa, socket, core, uncore });
        }
        Ok(Self(found))
    }
}

/// The NUMA nodes of CPUs; nothing is known on machines without.
fn numa_of(system: &Path) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::new();
    for node in numa_nodes(system) {
        let list =
            std::fs::read_to_string(system.join(format!("node/node{node}/cpulist"))).unwrap_or_default();
        let cpus: CpuSet = list.trim().parse().unwrap_or_default();
        found.extend(cpus.iter().map(|cpu| (cpu, node)));
    }
    found
}

/// The NUMA nodes under a directory like `/sys/devices/system`; the one node of machines that tell of none.
#[must_use]
pub fn numa_nodes(system: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(system.join("node/online")).unwrap_or_default();
    let nodes: CpuSet = text.trim().parse().unwrap_or_default();
    if nodes.is_empty() { vec![0] } else { nodes.iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    #[test]
    fn a_machine_is_read_from_its_files() {
        let scratch = Scratch::new();
        let write = |path: &str, text: &str| {
            let path = scratch.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
            std::fs::write(path, format!("{text}\n")).expect("written");
        };
        write("cpu/online", "0-3");
        write("node/online", "0-1");
        write("node/node0/cpulist", "0,2");
        write("node/node1/cpulist", "1,3");
        for (cpu, siblings, socket) in [(0, "0,2", 0), (1, "1,3", 1), (2, "0,2", 0), (3, "1,3", 1)] {
            write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), siblings);
            write(&format!("cpu/cpu{cpu}/topology/physical_package_id"), &socket.to_string());
        }
        write("cpu/cpu3/cache/index3/id", "7");
        let layout = Layout::read(scratch.path()).expect("readable");
        assert_eq!(layout.get(2), Some(&Cpu { numa: 0, socket: 0, core: 0, uncore: 0 }));
        assert_eq!(layout.get(3), Some(&Cpu { numa: 1, socket: 1, core: 1, uncore: 7 }));
        assert_eq!((layout.per(Level::Core), layout.per(Level::Socket)), (2, 2));
        assert_eq!(numa_nodes(scratch.path()), [0, 1]);
        assert_eq!(numa_nodes(Path::new("/nowhere")), [0]);
    }

    #[test]
    fn this_machine_can_be_read() {
        let layout = Layout::read(Path::new("/sys/devices/system")).expect("readable");
        assert!(!layout.cpus().is_empty());
    }
}
