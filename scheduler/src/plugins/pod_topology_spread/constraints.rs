//! Which constraints hold for a pod: its own, or else the defaults.

use api::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1::{Node, Pod, TopologySpreadConstraint};

use super::HOSTNAME;
use crate::config::args::PodTopologySpreadArgs;
use crate::listers::Listers;
use crate::plugins::selector::label;
use crate::pod_info::{labels, with_requirements};

const ZONE: &str = "topology.kubernetes.io/zone";

/// A constraint, ready to be counted with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constraint {
    pub(super) max_skew: i64,
    pub(super) key: String,
    pub(super) selector: LabelSelector,
    pub(super) min_domains: usize,
    pub(super) by_affinity: bool,
    pub(super) by_taints: bool,
}

/// The constraints of pods that have none of their own.
pub(super) struct Defaults {
    constraints: Vec<TopologySpreadConstraint>,
    /// Whether they are the system's.
    of_system: bool,
    listers: Listers,
}

impl Defaults {
    pub(super) fn new(args: &PodTopologySpreadArgs, listers: &Listers) -> Self {
        let of_system = args.defaulting_type != "List";
        let soft = |key: &str, max_skew| TopologySpreadConstraint {
            max_skew,
            topology_key: key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".into(),
            ..TopologySpreadConstraint::default()
        };
        let constraints =
            if of_system { vec![soft(HOSTNAME, 3), soft(ZONE, 5)] } else { args.default_constraints.clone() };
        Self { constraints, of_system, listers: listers.clone() }
    }

    /// The pod's constraints with that consequence. Default ones are about the pods that what selects this pod
    /// selects; they do not hold if nothing does.
    pub(super) fn constraints(&self, pod: &Pod, action: &str) -> Vec<Constraint> {
        let own =
            pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.as_deref()).unwrap_or_default();
        let all = if own.is_empty() { &self.constraints } else { own };
        let wanted = || all.iter().filter(|c| c.when_unsatisfiable == action);
        if wanted().next().is_none() {
            return Vec::new();
        }
        if !own.is_empty() {
            return wanted().map(|constraint| prepare(pod, constraint)).collect();
        }
        let selector = self.listers.selector_of(pod);
        if selector.is_empty() {
            return Vec::new();
        }
        wanted()
            .map(|constraint| Constraint { selector: selector.clone(), ..prepare(pod, constraint) })
            .collect()
    }

    /// Whether nodes that lack one of the labels are left out. The system's defaults are lenient.
    pub(super) fn need_all_labels(&self, pod: &Pod) -> bool {
        let own = pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.as_ref());
        own.is_some_and(|constraints| !constraints.is_empty()) || !self.of_system
    }
}

fn prepare(pod: &Pod, constraint: &TopologySpreadConstraint) -> Constraint {
    let selector = LabelSelector::from_meta(constraint.label_selector.as_ref())
        .unwrap_or_else(|_| LabelSelector::nothing());
    let keys = constraint.match_label_keys.iter().flatten();
    let own = keys.filter_map(|key| {
        let value = labels(pod).get(key)?.clone();
        Requirement::new(key, Operator::In, vec![value]).ok()
    });
    let min_domains = constraint.min_domains.and_then(|n| usize::try_from(n).ok());
    Constraint {
        max_skew: constraint.max_skew.into(),
        key: constraint.topology_key.clone(),
        selector: with_requirements(selector, own.collect()),
        min_domains: min_domains.unwrap_or(1),
        by_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        by_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// Whether the node has the labels of all constraints.
pub(super) fn has_all(node: &Node, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|constraint| label(node, &constraint.key).is_some())
}
