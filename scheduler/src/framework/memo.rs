//! What a plugin counted over the whole cluster for one pod, kept for the next pod like it.
//!
//! Pods come in groups made from one template. For those, counting every pod of the cluster again is a waste: the
//! few that came and went since are in the snapshot's log, and are added to or taken from the count.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// How many counts are kept.
const KEPT: usize = 16;

/// Something counted over all pods and nodes for one pod.
pub trait Count: Clone + Send + Sync {
    /// Counts one pod that came (`sign` 1) to the node or went (-1).
    fn change(&mut self, pod: &PodInfo, node: &NodeInfo, sign: i64);
}

struct Kept<K, C> {
    key: K,
    epoch: u64,
    version: u64,
    count: Arc<C>,
}

/// The counts of the last kinds of pods.
pub struct Memo<K, C> {
    kept: Mutex<Vec<Kept<K, C>>>,
    alike: fn(&K, &K) -> bool,
}

impl<K: Clone, C: Count> Memo<K, C> {
    /// Keeps counts under keys; `alike` says whether one key is as good as the other.
    #[must_use]
    pub fn new(alike: fn(&K, &K) -> bool) -> Self {
        Self { kept: Mutex::default(), alike }
    }

    /// The count for a key: the kept one brought up to date, or a new one.
    pub fn get(&self, key: &K, snapshot: &Snapshot, count: impl FnOnce() -> C) -> Arc<C> {
        let mut kept = self.kept.lock();
        let found = kept.iter().position(|k| k.epoch == snapshot.epoch() && (self.alike)(&k.key, key));
        let brought_up = found.and_then(|at| {
            let mut entry = kept.remove(at);
            let changes = snapshot.since(entry.version)?;
            let mut changes = changes.peekable();
            if changes.peek().is_some() {
                let count = Arc::make_mut(&mut entry.count);
                for change in changes {
                    let node = snapshot.nodes.get(change.node)?;
                    count.change(&change.pod, node, if change.added { 1 } else { -1 });
                }
            }
            entry.version = snapshot.version();
            Some(entry)
        });
        let entry = brought_up.unwrap_or_else(|| Kept {
            key: key.clone(),
            epoch: snapshot.epoch(),
            version: snapshot.version(),
            count: Arc::new(count()),
        });
        let count = entry.count.clone();
        kept.truncate(KEPT - 1);
        kept.insert(0, entry);
        count
    }
}
