//! The one task that decides, pod after pod.

use std::sync::Arc;

use client::{EventType, Tasks};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::refuse::Room;
use super::{Shared, pod_name};
use crate::cycle::{Cluster, Decision, decide};
use crate::framework::{Framework, Nominated, Search};
use crate::measure;
use crate::parallel;
use crate::queue::Waiting;
use crate::snapshot::Snapshot;

/// Decides until `token` is cancelled.
pub(super) async fn schedule_all(shared: &Arc<Shared>, tasks: &Tasks, token: &CancellationToken) {
    let mut snapshot = Snapshot::default();
    let mut search = Search {
        percentage: shared.percentage_of_nodes_to_score,
        threads: parallel::threads(shared.parallelism),
        ..Search::default()
    };
    while !token.is_cancelled() {
        let (next, wake) = {
            let state = &mut *shared.state.lock();
            let next = state.queue.pop(Instant::now());
            if next.is_some() {
                state.cache.update(&mut snapshot);
            }
            measure::queue(&state.queue);
            (next.map(|waiting| (waiting, state.queue.nominator.nominated())), state.queue.next_wake())
        };
        let Some((waiting, nominated)) = next else {
            measure::cache(shared.state.lock().cache.sizes());
            wait(shared, token, wake).await;
            continue;
        };
        attempt(shared, tasks, &snapshot, nominated, &mut search, waiting).await;
        // Deciding is computing only; let informers and binds have their turn.
        tokio::task::yield_now().await;
    }
}

async fn wait(shared: &Shared, token: &CancellationToken, wake: Option<Instant>) {
    let asleep = async {
        match wake {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = token.cancelled() => {}
        () = shared.changed.notified() => {}
        () = asleep => {}
    }
}

/// Tries one pod.
async fn attempt(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    snapshot: &Snapshot,
    nominated: Arc<Nominated>,
    search: &mut Search,
    waiting: Waiting,
) {
    let Some(framework) = shared.profiles.of(&waiting.pod.pod).cloned() else {
        return shared.state.lock().queue.done(waiting.pod.uid());
    };
    if skip(shared, &waiting) {
        return shared.state.lock().queue.done(waiting.pod.uid());
    }
    let started = std::time::Instant::now();
    let budgets = || -> Vec<Arc<PodDisruptionBudget>> { shared.budgets.store().list() };
    let cluster =
        Cluster { snapshot, nominated: &nominated, extenders: &shared.extenders, budgets: &budgets };
    let decision = decide(&framework, &waiting.pod, &cluster, search).await;
    measure::algorithm(started);
    // What follows may change the nominations, which copies those that somebody still looks at.
    drop(nominated);
    match decision {
        Decision::Place { node, .. } => {
            super::bind::place(shared, tasks, &framework, waiting, &node, started)
        }
        Decision::Refuse { diagnosis, nomination, evict, write } => {
            let room = Room { nomination, evict, write };
            super::refuse::refuse(shared, tasks, waiting, *diagnosis, room, started);
        }
        Decision::Fail(error) => {
            warn!(pod = pod_name(&waiting.pod.pod), error, "could not schedule, will retry");
            super::refuse::fail(shared, tasks, waiting, error, started);
        }
    }
}

/// Pods that need no node any more, or have one.
fn skip(shared: &Shared, waiting: &Waiting) -> bool {
    let pod = &waiting.pod;
    let newest = shared.newest(&pod.pod);
    if newest.as_ref().is_some_and(|pod| api::pod::is_terminating(pod)) {
        let message = format!("skip schedule deleting pod: {}", pod_name(&pod.pod));
        if let Some(recorder) = shared.recorder(&pod.pod) {
            recorder.object_event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
        }
        return true;
    }
    shared.state.lock().cache.has_pod(pod.uid())
}

/// How the result of an attempt is called in metrics.
pub(super) fn attempted(framework: &Framework, result: &'static str, started: std::time::Instant) {
    measure::attempt(&framework.scheduler_name, result, started);
}
