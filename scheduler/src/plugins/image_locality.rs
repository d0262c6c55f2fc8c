//! Nodes that have the pod's images already are better, the more the larger the images are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::framework::{CycleState, MAX_SCORE, Plugin};
use crate::node_info::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

const MIB: i64 = 1024 * 1024;
const LEAST: i64 = 23 * MIB;
const MOST_EACH: i64 = 1000 * MIB;

/// The plugin.
pub struct ImageLocality;

/// How many nodes there are, and on how many each image is.
struct Spread {
    nodes: usize,
    images: Arc<BTreeMap<String, usize>>,
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn pre_score(
        &self,
        state: &mut CycleState,
        _: &PodInfo,
        _: &[Arc<NodeInfo>],
        snapshot: &Snapshot,
    ) -> bool {
        state.set(self.name(), Spread { nodes: snapshot.nodes.len(), images: snapshot.images.clone() });
        true
    }

    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(spread) = state.get::<Spread>(self.name()) else { return 0 };
        let Some(spec) = &pod.pod.spec else { return 0 };
        let containers: Vec<_> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
        let sizes = containers.iter().filter_map(|container| {
            let name = normalized(container.image.as_deref()?);
            let size = *node.images.get(&name)?;
            let on = spread.images.get(&name).copied().unwrap_or(1);
            Some((size as f64 * on as f64 / spread.nodes.max(1) as f64) as i64)
        });
        let most = MOST_EACH * i64::try_from(containers.len().max(1)).unwrap_or(1);
        let sum = sizes.sum::<i64>().clamp(LEAST, most);
        MAX_SCORE * (sum - LEAST) / (most - LEAST)
    }
}

/// Nodes list images with a tag.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
