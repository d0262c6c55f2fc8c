//! Making room for a pod that fits nowhere, at the cost of less important ones (upstream `framework/preemption` and
//! `plugins/defaultpreemption`).
//!
//! All of it is decided over the snapshot: [`victims`] finds out for one node which pods would have to go, [`pick`]
//! chooses among nodes. The scheduler carries the decision out ([`crate::scheduler`]); meanwhile [`Preempting`]
//! keeps the pod from being tried again too early.

pub mod pick;
mod preempting;
#[cfg(test)]
mod tests;
pub mod victims;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::Client;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

pub use self::pick::pick;
pub use self::preempting::Preempting;
pub use self::victims::Candidate;
use crate::config::args::DefaultPreemptionArgs;
use crate::extender::Extender;
use crate::framework::known;
use crate::framework::{
    Action, ClusterEvent, Code, Diagnosis, Framework, Interest, Nominated, Plugin, Prepared, Rejection,
};
use crate::parallel;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Upstream's name.
pub const NAME: &str = "DefaultPreemption";
/// So many nodes a thread looks at before it asks whether that is enough.
const BLOCK: usize = 32;

/// All that is known when a pod fits nowhere.
pub struct Attempt<'a> {
    /// The pod's profile.
    pub framework: &'a Framework,
    /// The pod.
    pub pod: &'a Arc<PodInfo>,
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// What the plugins prepared.
    pub prepared: &'a Prepared,
    /// The pods nominated to each node.
    pub nominated: &'a Nominated,
    /// Why it fits nowhere.
    pub diagnosis: &'a Diagnosis,
    /// The disruption budgets.
    pub budgets: &'a [Arc<PodDisruptionBudget>],
    /// The extenders.
    pub extenders: &'a [Arc<dyn Extender>],
    /// The time; pods that have not started count as started now.
    pub now: Timestamp,
    /// How many threads may look for room.
    pub threads: usize,
}

/// What becomes of the pod's nominated node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nomination {
    /// It stays as it is.
    Keep,
    /// It is this; empty for none.
    Set(String),
}

/// What making room came to.
#[derive(Debug)]
pub struct PostFilter {
    /// What it says to the user; empty for nothing.
    pub message: String,
    /// The node to expect.
    pub nomination: Nomination,
    /// The pods to evict; none: no room was made.
    pub evict: Option<Candidate>,
    /// What is to be written so that the pod may fit later.
    pub write: Option<Write>,
    /// Whether that is all there is to say: no other plugin is asked, and only this is told.
    pub is_final: bool,
}

impl PostFilter {
    fn refused(nomination: Nomination, message: &str) -> Self {
        Self { nomination, ..Self::saying(&format!("preemption: {message}")) }
    }

    /// No room was made.
    #[must_use]
    pub fn saying(message: &str) -> Self {
        let nomination = Nomination::Keep;
        Self { message: message.to_owned(), nomination, evict: None, write: None, is_final: false }
    }

    /// The plugin failed.
    #[must_use]
    pub fn failed(message: &str) -> Self {
        Self { is_final: true, ..Self::saying(message) }
    }

    /// With something to be written.
    #[must_use]
    pub fn and(self, write: Write) -> Self {
        Self { write: Some(write), ..self }
    }
}

/// Something to be written once a decision is made.
pub struct Write(Box<dyn FnOnce(Client) -> BoxFuture<'static, client::kube::Result<()>> + Send>);

impl Write {
    /// Writes so.
    pub fn new<F>(write: impl FnOnce(Client) -> F + Send + 'static) -> Self
    where
        F: Future<Output = client::kube::Result<()>> + Send + 'static,
    {
        Self(Box::new(move |client| Box::pin(write(client))))
    }

    /// Writes it.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn run(self, client: Client) -> client::kube::Result<()> {
        (self.0)(client).await
    }
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write")
    }
}

/// How many candidates among so many nodes are enough to choose from.
#[must_use]
pub fn enough_candidates(args: DefaultPreemptionArgs, nodes: usize) -> usize {
    let amount = |n: i32| usize::try_from(n).unwrap_or(0);
    let share = nodes * amount(args.min_candidate_nodes_percentage) / 100;
    share.max(amount(args.min_candidate_nodes_absolute)).min(nodes)
}

/// The plugin.
pub struct DefaultPreemption {
    args: DefaultPreemptionArgs,
    preempting: Arc<Preempting>,
}

impl DefaultPreemption {
    /// With these arguments; `preempting` says which pods wait for evictions that are being asked for.
    #[must_use]
    pub fn new(args: DefaultPreemptionArgs, preempting: Arc<Preempting>) -> Self {
        Self { args, preempting }
    }
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![Interest::pods(Action::DELETE)]
    }

    /// The plugins whose refusals are resolved by the evictions decide when to try again.
    fn is_worth_retrying(&self, _pod: &PodInfo, _event: &ClusterEvent) -> bool {
        false
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        if self.preempting.is_running(pod.uid()) {
            let reason = "waiting for the preemption for this pod to be finished";
            return Err(Rejection::unresolvable(NAME, reason));
        }
        Ok(())
    }

    fn post_filter<'a>(&'a self, attempt: &'a Attempt<'a>) -> Option<BoxFuture<'a, PostFilter>> {
        Some(Box::pin(async move { preempt(attempt, self.args).await }))
    }
}

/// Looks for a node where less important pods can make room.
pub async fn preempt(attempt: &Attempt<'_>, args: DefaultPreemptionArgs) -> PostFilter {
    if let Some(reason) = not_eligible(attempt) {
        return PostFilter::refused(Nomination::Keep, reason);
    }
    let offset = rand::random_range(0..attempt.snapshot.nodes.len().max(1));
    let (candidates, why_not) = candidates(attempt, args, offset);
    if candidates.is_empty() {
        return PostFilter::refused(Nomination::Set(String::new()), &why_not.to_string());
    }
    let candidates = match ask_extenders(attempt, candidates).await {
        Ok(candidates) => candidates,
        Err(error) => return PostFilter::refused(Nomination::Keep, &error),
    };
    match pick(candidates, attempt.now) {
        Some(best) => PostFilter {
            nomination: Nomination::Set(best.node.clone()),
            evict: Some(best),
            ..PostFilter::saying("")
        },
        None => PostFilter::refused(Nomination::Keep, "no candidate node for preemption"),
    }
}

/// Why the pod may not make others go; none if it may.
fn not_eligible(attempt: &Attempt<'_>) -> Option<&'static str> {
    let pod = attempt.pod;
    let policy = pod.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let at = attempt.snapshot.place(pod.nominated_node())?;
    if attempt.diagnosis.of_node(at).is_some_and(Rejection::is_unresolvable) {
        return None;
    }
    let mut pods = attempt.snapshot.nodes[at].pods.iter();
    pods.any(|other| other.priority < pod.priority && goes_by_preemption(other))
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Whether the pod is being deleted because the scheduler made it go.
fn goes_by_preemption(pod: &PodInfo) -> bool {
    pod.is_terminating()
        && api::pod::condition(&pod.pod, "DisruptionTarget").is_some_and(|condition| {
            condition.status == "True" && condition.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

/// Nodes where room can be made, those that hurt no disruption budget first; and why the others are none.
#[must_use]
pub fn candidates(
    attempt: &Attempt<'_>,
    args: DefaultPreemptionArgs,
    offset: usize,
) -> (Vec<Candidate>, Diagnosis) {
    let snapshot = attempt.snapshot;
    let mut why_not = Diagnosis::new(snapshot.nodes.len());
    why_not.others = Some(Rejection::unresolvable(NAME, "Preemption is not helpful for scheduling"));
    let potential = attempt.diagnosis.nodes_with(|said| said.code == Code::Unschedulable);
    let wanted = enough_candidates(args, potential.len());
    let (harmless, harmful) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let there = known::by_place(attempt.nominated, snapshot);
    let nominated = |at: usize| there.get(at).copied().unwrap_or_default();
    let mut known = attempt.framework.known.take(attempt.pod, attempt.prepared, snapshot);
    if let Some(known) = &mut known {
        known.with_budgets(attempt.budgets);
    }
    let seen = known.as_ref();
    // Where one candidate will do, another thread is not worth its while.
    let threads = if wanted > BLOCK { attempt.threads } else { 1 };
    let found = parallel::in_blocks(
        threads,
        potential.len(),
        BLOCK,
        || attempt.prepared.trial(),
        |state, range| {
            let mut found = Vec::with_capacity(range.len());
            for i in range {
                let at = potential[(offset + i) % potential.len()];
                let node = &snapshot.nodes[at];
                let found_before = seen.and_then(|known| known.room(at, node, nominated(at)));
                let candidate = found_before.unwrap_or_else(|| victims::on_node(attempt, state, node));
                if let Ok(candidate) = &candidate {
                    let kind = if candidate.violations == 0 { &harmless } else { &harmful };
                    kind.fetch_add(1, Ordering::Relaxed);
                }
                found.push((at, candidate));
            }
            let harmless = harmless.load(Ordering::Relaxed);
            (found, harmless > 0 && harmless + harmful.load(Ordering::Relaxed) >= wanted)
        },
    );
    let (mut harmless, mut harmful) = (Vec::new(), Vec::new());
    for (at, candidate) in found.into_iter().flatten() {
        if !harmless.is_empty() && harmless.len() + harmful.len() >= wanted {
            break;
        }
        if let Some(known) = &mut known {
            known.learn_room(at, &snapshot.nodes[at], nominated(at), attempt.pod.uid(), &candidate);
        }
        match candidate {
            Ok(candidate) if candidate.violations == 0 => harmless.push(candidate),
            Ok(candidate) => harmful.push(candidate),
            Err(rejection) => why_not.refuse(at, rejection),
        }
    }
    attempt.framework.known.keep(known);
    harmless.extend(harmful);
    (harmless, why_not)
}

async fn ask_extenders(
    attempt: &Attempt<'_>,
    mut candidates: Vec<Candidate>,
) -> Result<Vec<Candidate>, String> {
    for extender in attempt.extenders {
        if candidates.is_empty()
            || !extender.supports_preemption()
            || !extender.is_interested(&attempt.pod.pod)
        {
            continue;
        }
        match extender.process_preemption(attempt.pod, &candidates, attempt.snapshot).await {
            Ok(mut left) => {
                if extender.is_ignorable() {
                    left.retain(|candidate| !candidate.victims.is_empty());
                } else if let Some(empty) = left.iter().find(|candidate| candidate.victims.is_empty()) {
                    return Err(format!("expected at least one victim pod on node {:?}", empty.node));
                }
                candidates = left;
            }
            Err(error) if extender.is_ignorable() => {
                tracing::info!(extender = extender.name(), error, "extender failed, is ignored");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(candidates)
}

/// The pods nominated to a node that is now meant for a more important pod; they had better look elsewhere.
#[must_use]
pub fn outranked(nominated: &Nominated, node: &str, priority: i32) -> Vec<Arc<PodInfo>> {
    let there = nominated.get(node).into_iter().flatten();
    there.filter(|pod| pod.priority < priority).cloned().collect()
}

/// Whether a pod may be evicted for another.
fn may_go(victim: &PodInfo, preemptor: &PodInfo) -> bool {
    victim.priority < preemptor.priority
}
