//! The cluster at one moment, as one scheduling cycle sees it.
//!
//! The one snapshot belongs to the task that decides. Before each cycle the cache brings it up to date: nodes that
//! changed are replaced (a pointer each), all else stays. The pods that came and went are kept in a log of bounded
//! length, so that plugins can carry what they counted over from one cycle to the next ([`crate::framework::memo`])
//! instead of looking at every pod again. [`Snapshot::epoch`] changes with everything the log does not tell.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::node_info::NodeInfo;
use crate::pod_info::{Namespaces, PodInfo};

/// How many pods that came or went are remembered.
const REMEMBERED: usize = 1024;

static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// A pod came to a node or went.
#[derive(Clone, Debug)]
pub struct Change {
    /// The place of the node in the snapshot.
    pub node: usize,
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Whether it came.
    pub added: bool,
}

/// All nodes.
#[derive(Debug)]
pub struct Snapshot {
    /// The nodes; those of different zones take turns.
    pub nodes: Vec<Arc<NodeInfo>>,
    /// On how many nodes each image is.
    pub images: Arc<HashMap<String, usize>>,
    /// Labels of every namespace.
    pub namespaces: Arc<Namespaces>,
    /// Nodes that have pods with affinity to, or against, others.
    pub with_affinity: BTreeSet<usize>,
    /// Nodes that have pods with required anti-affinity.
    pub with_anti_affinity: BTreeSet<usize>,
    /// Changes whenever nodes, their labels or taints, or namespaces did.
    epoch: u64,
    places: HashMap<String, usize>,
    log: VecDeque<Change>,
    /// How many changes there were before the first in the log.
    forgotten: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new(Vec::new(), Arc::default(), Arc::default())
    }
}

impl Snapshot {
    /// A snapshot of these nodes.
    #[must_use]
    pub fn new(
        nodes: Vec<Arc<NodeInfo>>,
        images: Arc<HashMap<String, usize>>,
        namespaces: Arc<Namespaces>,
    ) -> Self {
        let places = nodes.iter().enumerate().map(|(at, node)| (node.name().to_owned(), at)).collect();
        let having = |has: fn(&NodeInfo) -> usize| {
            nodes.iter().enumerate().filter(|(_, node)| has(node) > 0).map(|(at, _)| at).collect()
        };
        Self {
            with_affinity: having(|node| node.with_affinity),
            with_anti_affinity: having(|node| node.with_anti_affinity),
            images,
            namespaces,
            epoch: NEXT_EPOCH.fetch_add(1, Ordering::Relaxed),
            places,
            log: VecDeque::new(),
            forgotten: 0,
            nodes,
        }
    }

    /// Which nodes there are, and what they and namespaces are like; pods aside.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Says that something changed that the log does not tell.
    pub fn next_epoch(&mut self) {
        self.epoch = NEXT_EPOCH.fetch_add(1, Ordering::Relaxed);
        self.forgotten += self.log.len() as u64;
        self.log.clear();
    }

    /// The place of a node.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(self.place(name)?)
    }

    /// Takes the new state of a node.
    pub fn replace(&mut self, at: usize, node: Arc<NodeInfo>) {
        let keep = |set: &mut BTreeSet<usize>, has: bool| {
            if has {
                set.insert(at)
            } else {
                set.remove(&at)
            };
        };
        keep(&mut self.with_affinity, node.with_affinity > 0);
        keep(&mut self.with_anti_affinity, node.with_anti_affinity > 0);
        self.nodes[at] = node;
    }

    /// Notes that a pod came or went.
    pub fn note(&mut self, change: Change) {
        if self.log.len() == REMEMBERED {
            self.log.pop_front();
            self.forgotten += 1;
        }
        self.log.push_back(change);
    }

    /// How many changes there were so far.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.forgotten + self.log.len() as u64
    }

    /// The changes since a version; none if they are not all remembered.
    pub fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let from = usize::try_from(version.checked_sub(self.forgotten)?).ok()?;
        (from <= self.log.len()).then(|| self.log.range(from..))
    }
}
