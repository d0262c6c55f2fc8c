//! Whether a node wants the pod of a DaemonSet.

use super::template;
use crate::common::{meta, nodes, pods};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};

/// What a node thinks of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// It should run there.
    pub run: bool,
    /// If it runs there, it may stay.
    pub stay: bool,
}

/// Asks the node: name, selector, affinity, and taints count.
pub fn fit(node: &Node, set: &DaemonSet) -> Fit {
    let no = Fit { run: false, stay: false };
    let Some(spec) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return no };
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != meta::name(&node.metadata)) || !nodes::satisfies_affinity(node, spec)
    {
        return no;
    }
    let tolerations = template::tolerations(spec);
    let refused = |effects: &[&str]| nodes::untolerated(nodes::taints(node), &tolerations, effects).is_some();
    Fit { run: !refused(&["NoSchedule", "NoExecute"]), stay: !refused(&["NoExecute"]) }
}

/// Whether two states of a node give the same answers.
pub fn decides_alike(old: &Node, new: &Node) -> bool {
    meta::labels(&old.metadata) == meta::labels(&new.metadata) && nodes::taints(old) == nodes::taints(new)
}

/// The node a pod is on, or the one that its affinity names.
pub fn target(pod: &Pod) -> Option<&str> {
    let bound = pods::node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.into_iter().find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match named.values.as_deref()? {
        [only] => Some(only),
        _ => None,
    }
}
