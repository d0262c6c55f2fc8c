//! Taints keep pods away that do not tolerate them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection, scale};
use crate::node_info::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;

/// The plugin.
pub struct TaintToleration;

/// Whether one of the pod's tolerations tolerates the taint.
pub fn tolerates(pod: &PodInfo, taint: &Taint) -> bool {
    tolerations(pod).any(|toleration| matches(toleration, taint))
}

fn tolerations(pod: &PodInfo) -> impl Iterator<Item = &Toleration> {
    pod.pod.spec.as_ref().and_then(|s| s.tolerations.as_ref()).into_iter().flatten()
}

/// As upstream's `Toleration.ToleratesTaint`: an empty key with `Exists` tolerates everything, an empty effect all
/// effects.
fn matches(toleration: &Toleration, taint: &Taint) -> bool {
    let said = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if said(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if said(&toleration.key).is_some_and(|key| key != taint.key) {
        return false;
    }
    let (wanted, value) = (toleration.value.as_deref().unwrap_or(""), taint.value.as_deref().unwrap_or(""));
    let numbers = || Some((wanted.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => wanted == value,
        Some("Exists") => true,
        Some("Lt") => numbers().is_some_and(|(wanted, value)| value < wanted),
        Some("Gt") => numbers().is_some_and(|(wanted, value)| value > wanted),
        Some(_) => false,
    }
}

fn taints(node: &NodeInfo) -> impl Iterator<Item = &Taint> {
    node.node.spec.as_ref().and_then(|s| s.taints.as_ref()).into_iter().flatten()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeTaints, ClusterEvent::PodItself]
    }

    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let hard = taints(node).filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
        let Some(taint) = hard.into_iter().find(|taint| !tolerates(pod, taint)) else { return Ok(()) };
        let value = taint.value.as_deref().unwrap_or_default();
        let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
        Err(Rejection::unresolvable(self.name(), reason))
    }

    fn pre_score(&self, _: &mut CycleState, _: &PodInfo, nodes: &[Arc<NodeInfo>], _: &Snapshot) -> bool {
        nodes.iter().any(|node| taints(node).any(|t| t.effect == "PreferNoSchedule"))
    }

    /// Counts the soft taints that are not tolerated.
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft: Vec<_> = tolerations(pod)
            .filter(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")))
            .collect();
        let unloved = taints(node)
            .filter(|t| t.effect == "PreferNoSchedule")
            .filter(|taint| !soft.iter().any(|toleration| matches(toleration, taint)));
        i64::try_from(unloved.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &CycleState, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        scale(scores, true);
    }

    fn weight(&self) -> i64 {
        3
    }
}
