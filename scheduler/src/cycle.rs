//! One scheduling cycle: from a pod and the cluster to a decision. Decides and writes nothing; only extenders are
//! asked on the way.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::extender::{self, Extender};
use crate::framework::{Code, Diagnosis, Framework, Nominated, Prepared, Rejection, Search, best};
use crate::measure;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::preemption::{self, Attempt, Candidate, Nomination, Write};
use crate::snapshot::Snapshot;

/// What a cycle looks at besides the pod.
pub struct Cluster<'a> {
    /// Nodes and their pods.
    pub snapshot: &'a Snapshot,
    /// The pods nominated to each node.
    pub nominated: &'a Nominated,
    /// The extenders.
    pub extenders: &'a [Arc<dyn Extender>],
    /// Reads the disruption budgets, if they are needed.
    pub budgets: &'a (dyn Fn() -> Vec<Arc<PodDisruptionBudget>> + Send + Sync),
}

/// What is to become of a pod.
pub enum Decision {
    /// It gets this node.
    Place {
        /// The node.
        node: Arc<NodeInfo>,
        /// How many nodes were looked at.
        evaluated: usize,
        /// How many of them could take it.
        feasible: usize,
    },
    /// It fits nowhere.
    Refuse {
        /// Why.
        diagnosis: Box<Diagnosis>,
        /// What becomes of its nominated node.
        nomination: Nomination,
        /// The pods to evict for it.
        evict: Option<Candidate>,
        /// What else is to be written, so that it may fit later.
        write: Option<Write>,
    },
    /// Something went wrong.
    Fail(String),
}

/// Decides. `search.start` is moved on, so that the next pod is tried on other nodes first.
pub async fn decide(
    framework: &Framework,
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    search: &mut Search,
) -> Decision {
    let snapshot = cluster.snapshot;
    if snapshot.nodes.is_empty() {
        return refuse(Diagnosis::new(0));
    }
    search.first_will_do =
        framework.score.is_empty() && !cluster.extenders.iter().any(|e| e.is_filter() || e.is_prioritizer());
    let (profile, started) = (framework.scheduler_name.as_str(), Instant::now());
    let (prepared, allowed) = framework.prepare(pod, snapshot);
    measure::extension("PreFilter", profile, measure::status(&allowed), started);
    let diagnosis = match allowed {
        Err(rejection) if rejection.code == Code::Error => return fail(&rejection),
        Err(rejection) => framework.refused_before(snapshot, &prepared, rejection),
        Ok(()) => {
            let mut diagnosis = Diagnosis::new(snapshot.nodes.len());
            let found =
                framework.find_feasible(pod, &prepared, snapshot, cluster.nominated, *search, &mut diagnosis);
            measure::extension("Filter", profile, measure::status(&found), started);
            let mut choice = match found {
                Ok(choice) => choice,
                Err(rejection) => return fail(&rejection),
            };
            search.start = (search.start + choice.evaluated) % snapshot.nodes.len();
            choice.feasible = match ask_filters(cluster, pod, choice.feasible, &mut diagnosis).await {
                Ok(feasible) => feasible,
                Err(error) => return Decision::Fail(error),
            };
            if !choice.feasible.is_empty() {
                return place(framework, pod, cluster, choice.feasible, choice.evaluated).await;
            }
            diagnosis
        }
    };
    make_room(framework, pod, cluster, &prepared, diagnosis, search.threads).await
}

fn refuse(diagnosis: Diagnosis) -> Decision {
    Decision::Refuse {
        diagnosis: Box::new(diagnosis),
        nomination: Nomination::Set(String::new()),
        evict: None,
        write: None,
    }
}

fn fail(rejection: &Rejection) -> Decision {
    Decision::Fail(format!("running {:?} plugin: {}", rejection.plugin, rejection.message()))
}

/// Lets the extenders filter, one after the other.
async fn ask_filters(
    cluster: &Cluster<'_>,
    pod: &Arc<PodInfo>,
    mut nodes: Vec<Arc<NodeInfo>>,
    diagnosis: &mut Diagnosis,
) -> Result<Vec<Arc<NodeInfo>>, String> {
    for extender in cluster.extenders {
        if nodes.is_empty() || !extender.is_filter() || !extender.is_interested(&pod.pod) {
            continue;
        }
        match extender.filter(pod, nodes.clone()).await {
            Ok(filtered) => {
                for (name, reason, unresolvable) in filtered.refused {
                    let Some(at) = cluster.snapshot.place(&name) else { continue };
                    let code = if unresolvable { Code::Unresolvable } else { Code::Unschedulable };
                    diagnosis.refuse(at, Rejection::with_code(extender::NAME, code, reason));
                }
                nodes = filtered.left;
            }
            Err(error) if extender.is_ignorable() => {
                tracing::info!(extender = extender.name(), error, "extender failed, is ignored");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(nodes)
}

async fn place(
    framework: &Framework,
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    mut nodes: Vec<Arc<NodeInfo>>,
    evaluated: usize,
) -> Decision {
    let feasible = nodes.len();
    let at = if feasible == 1 {
        0
    } else {
        let started = Instant::now();
        let mut totals = framework.score_nodes(pod, &nodes, cluster.snapshot);
        measure::extension("Score", &framework.scheduler_name, "Success", started);
        add_priorities(cluster, pod, &nodes, &mut totals).await;
        best(&totals).unwrap_or(0)
    };
    Decision::Place { node: nodes.swap_remove(at), evaluated, feasible }
}

/// Adds the scores of extenders. One that fails has none.
async fn add_priorities(
    cluster: &Cluster<'_>,
    pod: &Arc<PodInfo>,
    nodes: &[Arc<NodeInfo>],
    totals: &mut [i64],
) {
    for extender in cluster.extenders {
        if !extender.is_prioritizer() || !extender.is_interested(&pod.pod) {
            continue;
        }
        match extender.prioritize(pod, nodes).await {
            Ok(scores) => {
                for (name, score) in scores {
                    if let Some(at) = nodes.iter().position(|node| node.name() == name) {
                        totals[at] += score;
                    }
                }
            }
            Err(error) => tracing::debug!(extender = extender.name(), error, "extender gives no scores"),
        }
    }
}

/// Lets the plugins make room for a pod that fits nowhere.
async fn make_room(
    framework: &Framework,
    pod: &Arc<PodInfo>,
    cluster: &Cluster<'_>,
    prepared: &Prepared,
    mut diagnosis: Diagnosis,
    threads: usize,
) -> Decision {
    let budgets = (cluster.budgets)();
    let mut nomination = Nomination::Set(String::new());
    let (mut evict, mut write) = (None, None);
    let attempt = Attempt {
        framework,
        pod,
        snapshot: cluster.snapshot,
        prepared,
        nominated: cluster.nominated,
        diagnosis: &diagnosis,
        budgets: &budgets,
        extenders: cluster.extenders,
        now: Timestamp::now(),
        threads,
    };
    let mut messages = Vec::new();
    for plugin in &framework.post_filter {
        let Some(outcome) = plugin.post_filter(&attempt) else { continue };
        if plugin.name() == preemption::NAME {
            measure::preemption();
        }
        let started = Instant::now();
        let outcome = outcome.await;
        let status = if outcome.evict.is_some() { "Success" } else { "Unschedulable" };
        measure::extension("PostFilter", &framework.scheduler_name, status, started);
        nomination = outcome.nomination;
        evict = outcome.evict;
        write = outcome.write.or(write);
        if outcome.is_final {
            messages = vec![outcome.message];
            break;
        }
        if !outcome.message.is_empty() {
            messages.push(outcome.message);
        }
        if evict.is_some() {
            messages.clear();
            break;
        }
    }
    diagnosis.after = messages.join(", ");
    Decision::Refuse { diagnosis: Box::new(diagnosis), nomination, evict, write }
}
