//! Nodes that have the pod's images already are better, the more the larger the images are.

use std::sync::Arc;

use crate::framework::{MAX_SCORE, Plugin, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

const MIB: i64 = 1024 * 1024;
const LEAST: i64 = 23 * MIB;
const MOST_EACH: i64 = 1000 * MIB;

/// The plugin.
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        _: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> Option<Box<dyn Score>> {
        let spec = pod.pod.spec.as_ref()?;
        let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
        let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_deref());
        let names = containers().filter_map(|c| c.image.as_deref()).chain(volumes).map(normalized);
        let nodes = snapshot.nodes.len().max(1) as f64;
        // An image that no node has makes no difference.
        let shares =
            names.filter_map(|name| Some((snapshot.images.get(&name).copied()? as f64 / nodes, name)));
        let images: Vec<_> = shares.map(|(share, name)| (name, share)).collect();
        let most = MOST_EACH * i64::try_from(containers().count().max(1)).unwrap_or(1);
        (!images.is_empty()).then(|| Box::new(Images { images, most }) as Box<dyn Score>)
    }
}

struct Images {
    /// Names, and on what share of the nodes each is.
    images: Vec<(String, f64)>,
    most: i64,
}

impl Score for Images {
    fn score(&self, node: &NodeInfo) -> i64 {
        let sizes = self.images.iter().filter_map(|(name, share)| {
            let size = *node.images.get(name)?;
            Some((size as f64 * share) as i64)
        });
        let sum = sizes.sum::<i64>().clamp(LEAST, self.most);
        MAX_SCORE * (sum - LEAST) / (self.most - LEAST)
    }
}

/// Nodes list images with a tag.
fn normalized(image: &str) -> String {
    let tagged = image.rfind(':').is_some_and(|at| image.rfind('/').is_none_or(|slash| slash < at));
    if tagged { image.to_owned() } else { format!("{image}:latest") }
}
