//! Taints keep pods away that do not tolerate them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use crate::framework::{
    Action, ClusterEvent, Interest, Plugin, PreFilter, Rejection, Resource, Score, scale,
};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, uid};
use crate::snapshot::Snapshot;

const NAME: &str = "TaintToleration";

/// The plugin.
pub struct TaintToleration;

/// The pod's tolerations.
pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// Whether one of the pod's tolerations tolerates the taint.
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    tolerations(pod).iter().any(|toleration| matches(toleration, taint))
}

/// Whether the taints keep the pod away.
pub fn is_kept_away(pod: &Pod, taints: &[Taint]) -> bool {
    let hard = taints.iter().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
    hard.into_iter().any(|taint| !tolerates(pod, taint))
}

/// As upstream's `Toleration.ToleratesTaint`: an empty key with `Exists` tolerates everything, an empty effect all
/// effects.
fn matches(toleration: &Toleration, taint: &Taint) -> bool {
    let other = |said: &Option<String>, is: &str| said.as_deref().is_some_and(|t| !t.is_empty() && t != is);
    if other(&toleration.effect, &taint.effect) || other(&toleration.key, &taint.key) {
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

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_TAINT)),
            Interest::pods(Action::POD_TOLERATION),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match (event.nodes(), event.pods().1) {
            ((old, Some(new)), _) => {
                let was_kept_away = old.is_none_or(|old| is_kept_away(&pod.pod, taints(old)));
                was_kept_away && !is_kept_away(&pod.pod, taints(new))
            }
            (_, Some(changed)) => uid(changed) == pod.uid(),
            _ => true,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let pod = pod.clone();
        Ok(PreFilter::check(move |node| {
            if node.hard_tainted && is_kept_away(&pod.pod, node.taints()) {
                return Err(Rejection::unresolvable(NAME, "node(s) had untolerated taint(s)"));
            }
            Ok(())
        }))
    }

    fn pre_score(&self, pod: &Arc<PodInfo>, nodes: &[Arc<NodeInfo>], _: &Snapshot) -> Option<Box<dyn Score>> {
        // Without soft taints all nodes are alike.
        let soft = nodes.iter().any(|node| node.soft_tainted);
        soft.then(|| Box::new(SoftTaints(pod.clone())) as Box<dyn Score>)
    }
}

fn is_soft(taint: &Taint) -> bool {
    taint.effect == "PreferNoSchedule"
}

/// Counts the soft taints that are not tolerated.
struct SoftTaints(Arc<PodInfo>);

impl Score for SoftTaints {
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| is_soft(taint));
        let unloved = soft.filter(|taint| !tolerates(&self.0.pod, taint));
        i64::try_from(unloved.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        scale(scores, true);
    }
}
