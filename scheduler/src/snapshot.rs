//! The cluster at one moment. Taking it copies only pointers; nodes that did not change are shared with the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node_info::NodeInfo;

/// All nodes, ordered by name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The nodes.
    pub nodes: Vec<Arc<NodeInfo>>,
    /// On how many nodes each image is.
    pub images: Arc<BTreeMap<String, usize>>,
    /// Labels of every namespace.
    pub namespaces: Arc<BTreeMap<String, BTreeMap<String, String>>>,
}

impl Snapshot {
    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        let at = self.nodes.binary_search_by(|node| node.name().cmp(name)).ok()?;
        self.nodes.get(at)
    }
}
