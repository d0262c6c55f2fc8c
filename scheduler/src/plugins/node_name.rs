//! A pod that names its node goes there or nowhere.

use std::sync::Arc;

use crate::framework::{Action, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::pod_info::{PodInfo, node_name};
use crate::snapshot::Snapshot;

/// The plugin.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn events(&self) -> Vec<Interest> {
        vec![Interest::of(Resource::Node, Action::ADD)]
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let wanted = node_name(&pod.pod).to_owned();
        if wanted.is_empty() {
            return Ok(PreFilter::skip());
        }
        Ok(PreFilter::check(move |node| {
            if wanted == node.name() {
                return Ok(());
            }
            Err(Rejection::unresolvable("NodeName", "node(s) didn't match the requested node name"))
        }))
    }
}
