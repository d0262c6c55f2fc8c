//! Which pods would have to go from one node.

use std::sync::Arc;

use api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::{Attempt, NAME, may_go};
use crate::framework::{Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// A node with the pods that would have to go.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// The pods, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget would have kept.
    pub violations: usize,
}

/// The least set of pods that must go from `node` for the pod to fit. First all less important pods are taken
/// away; then, from the most important on, each that can stay is put back, those that disruption budgets want to
/// keep before the others. `state` is left as it was.
///
/// # Errors
/// Why no room can be made there.
pub fn on_node(attempt: &Attempt<'_>, state: &mut Prepared, node: &NodeInfo) -> Result<Candidate, Rejection> {
    let pod = attempt.pod;
    if !node.pods.iter().any(|other| may_go(other, pod)) {
        return Err(Rejection::unresolvable(NAME, "No preemption victims found for incoming pod"));
    }
    let (emptier, mut lesser) = node.without(|other| may_go(other, pod));
    lesser.iter().for_each(|victim| state.remove_pod(victim, node));
    let mut trial = Trial { attempt, state, node: emptier };
    if let Err(rejection) = trial.check() {
        lesser.iter().for_each(|victim| trial.state.add_pod(victim, node));
        return Err(rejection);
    }
    sort_by_importance(&mut lesser, attempt.now);
    let (protected, others) = by_budgets(lesser, attempt.budgets);
    let mut victims: Vec<_> = protected.into_iter().filter(|victim| !trial.can_stay(victim)).collect();
    let violations = victims.len();
    victims.extend(others.into_iter().filter(|victim| !trial.can_stay(victim)));
    victims.iter().for_each(|victim| trial.state.add_pod(victim, node));
    sort_by_importance(&mut victims, attempt.now);
    if victims.is_empty() {
        let reason = format!("expected at least one victim pod on node {:?}", node.name());
        return Err(Rejection::error(NAME, reason));
    }
    Ok(Candidate { node: node.name().to_owned(), victims, violations })
}

/// A node as it would be.
struct Trial<'a> {
    attempt: &'a Attempt<'a>,
    state: &'a mut Prepared,
    node: NodeInfo,
}

impl Trial<'_> {
    fn take_away(&mut self, victim: &Arc<PodInfo>) {
        self.node.remove(victim.uid());
        self.state.remove_pod(victim, &self.node);
    }

    fn check(&self) -> Result<(), Rejection> {
        let nominated = self.attempt.nominated.get(self.node.name()).map(Vec::as_slice).unwrap_or_default();
        self.state.check_with_nominated(self.attempt.pod, &self.node, nominated)
    }

    /// Puts the pod back if there is room for both.
    fn can_stay(&mut self, victim: &Arc<PodInfo>) -> bool {
        self.node.add(victim.clone());
        self.state.add_pod(victim, &self.node);
        let fits = self.check().is_ok();
        if !fits {
            self.take_away(victim);
        }
        fits
    }
}

/// When the pod started; one that has not yet starts now.
pub(super) fn start_time(pod: &PodInfo, now: Timestamp) -> Timestamp {
    pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now, |time| time.0)
}

fn sort_by_importance(pods: &mut [Arc<PodInfo>], now: Timestamp) {
    pods.sort_by_key(|pod| (std::cmp::Reverse(pod.priority), start_time(pod, now)));
}

/// Tells the pods whose disruption budget would be overdrawn from the others; both keep their order.
fn by_budgets(
    pods: Vec<Arc<PodInfo>>,
    budgets: &[Arc<PodDisruptionBudget>],
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let is_near = |budget: &&Arc<PodDisruptionBudget>| {
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        pods.iter().any(|pod| pod.namespace() == namespace)
    };
    // Most budgets are about other pods, and selectors are dear.
    let mut budgets: Vec<_> = budgets.iter().filter(is_near).filter_map(|b| Budget::new(b)).collect();
    pods.into_iter().partition(|pod| {
        let mut overdrawn = false;
        for budget in budgets.iter_mut().filter(|budget| budget.is_about(pod)) {
            budget.left -= 1;
            overdrawn |= budget.left < 0;
        }
        overdrawn
    })
}

struct Budget<'a> {
    budget: &'a PodDisruptionBudget,
    selector: LabelSelector,
    left: i32,
}

impl<'a> Budget<'a> {
    /// None if it is about no pod.
    fn new(budget: &'a PodDisruptionBudget) -> Option<Self> {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let selector =
            LabelSelector::from_meta(selector).ok().filter(|s| !s.is_empty() && !s.is_nothing())?;
        let left = budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0);
        Some(Self { budget, selector, left })
    }

    /// One that the API server knows to be disrupted already does not count again.
    fn is_about(&self, pod: &PodInfo) -> bool {
        let disrupted = self.budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
        !pod.labels().is_empty()
            && self.budget.metadata.namespace.as_deref().unwrap_or_default() == pod.namespace()
            && self.selector.matches(pod.labels())
            && !disrupted.is_some_and(|pods| pods.contains_key(pod.name()))
    }
}
