//! The memory of a machine's NUMA nodes.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cpus::numa_nodes;
use crate::quantity;

/// Memory of one NUMA node, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaMemory {
    /// The node's number.
    pub id: usize,
    /// All memory.
    pub memory: u64,
    /// Of which huge pages, by resource: `hugepages-2Mi`.
    pub huge_pages: BTreeMap<String, u64>,
    /// Distances to all nodes, in their order.
    pub distances: Vec<u64>,
}

impl NumaMemory {
    /// Reads all nodes under `/sys/devices/system` or another directory like it; a machine that tells of none has one,
    /// with `total` bytes.
    #[must_use]
    pub fn read(system: &Path, total: u64) -> Vec<Self> {
        let node = |id: usize| {
            let directory = system.join(format!("node/node{id}"));
            let text = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
            let memory = total_of(&text("meminfo")).unwrap_or(total);
            let distances = text("distance").split_whitespace().filter_map(|d| d.parse().ok()).collect();
            Self { id, memory, huge_pages: huge_pages(&directory.join("hugepages")), distances }
        };
        numa_nodes(system).into_iter().map(node).collect()
    }
}

/// `Node 0 MemTotal:  1024 kB`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.contains("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().rev().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// `hugepages-2048kB/nr_hugepages`.
fn huge_pages(directory: &Path) -> BTreeMap<String, u64> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeMap::new() };
    let sizes = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let size: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: u64 =
            std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let bytes = size * 1024;
        let resource = format!("hugepages-{}", quantity::from_bytes(bytes).0);
        Some((resource, count * u64::try_from(bytes).ok()?))
    });
    sizes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    #[test]
    fn nodes_are_read_from_their_files() {
        let scratch = Scratch::new();
        let write = |path: &str, text: &str| {
            let path = scratch.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
            std::fs::write(path, format!("{text}\n")).expect("written");
        };
        write("node/online", "0-1");
        write("node/node0/meminfo", "Node 0 MemTotal:       2048 kB\nNode 0 MemFree: 1 kB");
        write("node/node1/meminfo", "Node 1 MemTotal:       4096 kB");
        write("node/node1/distance", "20 10");
        write("node/node1/hugepages/hugepages-2048kB/nr_hugepages", "3");
        write("node/node1/hugepages/hugepages-1048576kB/nr_hugepages", "0");
        let nodes = NumaMemory::read(scratch.path(), 7);
        assert_eq!((nodes[0].memory, nodes[0].huge_pages.len()), (2 << 20, 0));
        assert_eq!((nodes[1].memory, nodes[1].distances.as_slice()), (4 << 20, [20, 10].as_slice()));
        assert_eq!(nodes[1].huge_pages["hugepages-2Mi"], 6 << 20);
        assert_eq!(nodes[1].huge_pages["hugepages-1Gi"], 0);
        let one = NumaMemory::read(Path::new("/nowhere"), 7);
        assert_eq!(one, [NumaMemory { memory: 7, ..NumaMemory::default() }]);
    }
}
