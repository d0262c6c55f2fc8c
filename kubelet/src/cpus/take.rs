//! Takes CPUs so that they are close together. Pure; as upstream's `cpumanager/cpu_assignment.go`.

use super::layout::{Layout, Level};
use super::set::CpuSet;

/// How CPUs are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Rather one CPU of many cores than all of few.
    pub spread: bool,
    /// Rather CPUs that share a cache of the last level.
    pub by_uncore: bool,
}

/// Takes so many of the free CPUs: whole sockets and NUMA nodes first, then whole cores, then what is left, and each time
/// from where the least is free.
pub(super) fn packed(layout: &Layout, free: &CpuSet, count: usize, manner: Manner) -> Result<CpuSet, String> {
    let mut taker = Taker::new(layout, free, count, manner);
    taker.check(free)?;
    let (first, second) =
        if taker.numa_first { (Level::Numa, Level::Socket) } else { (Level::Socket, Level::Numa) };
    taker.take_whole(first);
    taker.take_whole(second);
    if manner.by_uncore {
        taker.take_by_uncore();
    }
    if !manner.spread {
        taker.take_whole(Level::Core);
    }
    taker.take_single();
    if taker.needed == 0 { Ok(taker.taken) } else { Err("failed to allocate cpus".to_owned()) }
}

/// Takes CPUs one part of the machine after the other.
pub(super) struct Taker<'a> {
    layout: &'a Layout,
    /// CPUs that are free still.
    pub(super) free: Layout,
    /// How many are missing.
    pub(super) needed: usize,
    /// What was taken.
    pub(super) taken: CpuSet,
    /// NUMA nodes are larger than sockets, or as large.
    numa_first: bool,
    manner: Manner,
}

impl<'a> Taker<'a> {
    pub(super) fn new(layout: &'a Layout, free: &CpuSet, needed: usize, manner: Manner) -> Self {
        let numa_first = layout.all(Level::Socket).len() >= layout.all(Level::Numa).len();
        Self { layout, free: layout.only(free), needed, taken: CpuSet::default(), numa_first, manner }
    }

    /// Whether there are enough at all.
    pub(super) fn check(&self, free: &CpuSet) -> Result<(), String> {
        if self.needed > self.free.cpus().len() {
            return Err(format!(
                "not enough cpus available to satisfy request: requested={}, available={}",
                self.needed,
                free.len()
            ));
        }
        Ok(())
    }

    pub(super) fn take(&mut self, cpus: &CpuSet) {
        self.needed = self.needed.saturating_sub(cpus.len());
        self.taken = self.taken.union(cpus);
        self.free = self.free.only(&self.free.cpus().difference(cpus));
    }

    /// Parts with the fewest free CPUs first.
    fn sorted(&self, parts: &CpuSet, level: Level) -> Vec<usize> {
        let mut parts: Vec<usize> = parts.iter().collect();
        parts.sort_by_key(|part| (self.free.cpus_of(level, *part).len(), *part));
        parts
    }

    /// The parts of each of these, each time those with the fewest free CPUs first.
    fn sorted_within(&self, outer: Vec<usize>, within: Level, level: Level) -> Vec<usize> {
        let inner = |part| self.sorted(&self.free.all_in(level, within, part), level);
        outer.into_iter().flat_map(inner).collect()
    }

    /// All parts with something free, from where the least is.
    pub(super) fn parts(&self, level: Level) -> Vec<usize> {
        let (outer, inner) =
            if self.numa_first { (Level::Numa, Level::Socket) } else { (Level::Socket, Level::Numa) };
        match level {
            level if level == outer => self.sorted(&self.free.all(outer), outer),
            level if level == inner => self.sorted_within(self.parts(outer), outer, inner),
            Level::Core => self.sorted_within(self.parts(inner), inner, Level::Core),
            _ => self.sorted_within(self.parts(Level::Numa), Level::Numa, Level::Uncore),
        }
    }

    /// Whether nothing of a part is taken.
    fn is_free(&self, level: Level, part: usize) -> bool {
        let whole = match level {
            Level::Numa | Level::Uncore => self.layout.cpus_of(level, part).len(),
            Level::Socket | Level::Core => self.layout.per(level),
        };
        self.free.cpus_of(level, part).len() == whole
    }

    fn take_whole(&mut self, level: Level) {
        let free: Vec<usize> =
            self.parts(level).into_iter().filter(|part| self.is_free(level, *part)).collect();
        for part in free {
            let cpus = self.layout.cpus_of(level, part);
            if self.needed >= cpus.len() {
                self.take(&cpus);
            }
        }
    }

    fn take_by_uncore(&mut self) {
        for uncore in self.parts(Level::Uncore) {
            if self.needed >= self.layout.per(Level::Uncore) {
                self.take_whole(Level::Uncore);
            }
            if self.needed == 0 {
                return;
            }
            self.take_part_of_uncore(uncore);
            if self.needed == 0 {
                return;
            }
        }
    }

    /// Takes all that is needed from one cache, if it has as much.
    fn take_part_of_uncore(&mut self, uncore: usize) {
        let per_core = self.layout.per(Level::Core).max(1);
        let cores = self.free.all_in(Level::Core, Level::Uncore, uncore);
        let cores: CpuSet = cores.iter().take(self.needed.div_ceil(per_core)).collect();
        let mut cpus = self.free.cpus_in(Level::Core, &cores);
        if !self.needed.is_multiple_of(2) && per_core > 1 && cpus.len() > self.needed {
            // Half of the last core will do.
            cpus = cpus.iter().take(cpus.len() - 1).collect();
        }
        if cpus.len() == self.needed {
            self.take(&cpus);
        }
    }

    fn take_single(&mut self) {
        let order: Vec<usize> = if self.manner.spread {
            let sockets = self.parts(Level::Socket).into_iter();
            sockets.flat_map(|s| self.free.cpus_of(Level::Socket, s).iter().collect::<Vec<_>>()).collect()
        } else {
            let cores = self.parts(Level::Core).into_iter();
            cores.flat_map(|c| self.free.cpus_of(Level::Core, c).iter().collect::<Vec<_>>()).collect()
        };
        for cpu in order.into_iter().take(self.needed) {
            self.take(&[cpu].into_iter().collect());
        }
    }
}
