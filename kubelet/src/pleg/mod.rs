//! Notices what happens to pods at the runtime: relists, at once where the runtime reports events.
//!
//! One task owns the last list. What it finds is only *which* pods changed; workers look for themselves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::containers::labels;
use crate::runtime::Runtime;

const RELIST: Duration = Duration::from_secs(1);
/// Relist period shortly after a container was started or stopped, when changes are likely.
const RELIST_SOON: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(3);
/// Least time between two relists caused by events.
const EVENT_GAP: Duration = Duration::from_millis(20);
/// Without a relist for this long, the node is not ready.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(180);

/// One pod as a list shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedPod {
    /// Name of the pod.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// State by identifier, of sandboxes and containers.
    pub states: BTreeMap<String, i32>,
    /// Some sandbox is ready or some container runs.
    pub active: bool,
}

/// Pods by UID.
pub type Listing = HashMap<String, ListedPod>;

/// Watches the runtime; clones share the watch.
#[derive(Clone)]
pub struct Pleg {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    state: Mutex<State>,
    hurry: Notify,
}

struct State {
    listing: Option<Arc<Listing>>,
    relisted: Option<Instant>,
    soon_until: Instant,
    started: Instant,
}

/// UIDs of pods that differ between two lists.
#[must_use]
pub fn changed(old: &Listing, new: &Listing) -> HashSet<String> {
    let gone = old.keys().filter(|uid| !new.contains_key(*uid));
    let differ = new.iter().filter(|(uid, pod)| old.get(*uid) != Some(pod)).map(|(uid, _)| uid);
    gone.chain(differ).cloned().collect()
}

impl Pleg {
    /// Watches `runtime`.
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        let now = Instant::now();
        let state = State { listing: None, relisted: None, soon_until: now, started: now };
        Self { inner: Arc::new(Inner { runtime, state: Mutex::new(state), hurry: Notify::new() }) }
    }

    /// Starts watching; `on_change` is told the UID of each pod that changed and must not wait.
    pub fn run(&self, tasks: &Tasks, on_change: impl Fn(&str) + Send + Sync + 'static) {
        let this = self.clone();
        tasks.spawn("pleg", |token| async move {
            loop {
                this.relist(&on_change).await;
                let period =
                    if Instant::now() < this.inner.state.lock().soon_until { RELIST_SOON } else { RELIST };
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(period) => {}
                    () = this.inner.hurry.notified() => {}
                }
            }
        });
        let this = self.clone();
        tasks.spawn("pleg-events", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = this.follow_events() => {}
            }
        });
    }

    /// Something was started or stopped: changes are to be expected.
    pub fn expect_changes(&self) {
        self.inner.state.lock().soon_until = Instant::now() + SOON;
        self.inner.hurry.notify_one();
    }

    /// The last list.
    #[must_use]
    pub fn listing(&self) -> Option<Arc<Listing>> {
        self.inner.state.lock().listing.clone()
    }

    /// Lists now, without telling anybody.
    pub async fn list_now(&self) -> Result<Arc<Listing>, crate::runtime::Error> {
        list(&self.inner.runtime).await.map(Arc::new)
    }

    /// `Err` says why the node cannot be ready.
    pub fn health(&self) -> Result<(), String> {
        let state = self.inner.state.lock();
        let since = state.relisted.unwrap_or(state.started).elapsed();
        match state.relisted {
            None if since > UNHEALTHY_AFTER => {
                Err("PLEG is not healthy: pleg has yet to be successful".to_owned())
            }
            Some(_) if since > UNHEALTHY_AFTER => Err(format!(
                "PLEG is not healthy: pleg was last seen active {} ago; threshold is 3m0s",
                crate::duration::GoDuration(Duration::from_secs(since.as_secs()))
            )),
            _ => Ok(()),
        }
    }

    async fn relist(&self, on_change: &(impl Fn(&str) + Send + Sync)) {
        let begun = Instant::now();
        let listed = list(&self.inner.runtime).await;
        metrics::histogram!("kubelet_pleg_relist_duration_seconds").record(begun.elapsed());
        let new = match listed {
            Ok(listing) => Arc::new(listing),
            Err(error) => {
                tracing::warn!(%error, "failed to list pods at the runtime");
                return;
            }
        };
        let old = {
            let mut state = self.inner.state.lock();
            state.relisted = Some(Instant::now());
            state.listing.replace(new.clone())
        };
        for uid in changed(&old.unwrap_or_default(), &new) {
            on_change(&uid);
        }
    }

    /// Relists at each event. Ends for good where the runtime has none.
    async fn follow_events(&self) {
        loop {
            match self.inner.runtime.container_events().await {
                Ok(mut events) => {
                    while let Ok(Some(_)) = events.message().await {
                        self.inner.hurry.notify_one();
                        tokio::time::sleep(EVENT_GAP).await;
                    }
                }
                Err(error) if error.is_unimplemented() => {
                    tracing::info!("the runtime reports no container events, relisting only");
                    return;
                }
                Err(error) => tracing::debug!(%error, "container events ended"),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}

/// Shows how many pods and containers there are, under upstream's names.
fn count(sandboxes: &[proto::cri::PodSandbox], containers: &[proto::cri::Container]) {
    #[expect(clippy::cast_precision_loss, reason = "a metric is a floating-point number")]
    let show = |number: usize| number as f64;
    let ready = proto::cri::PodSandboxState::SandboxReady as i32;
    let running = sandboxes.iter().filter(|s| s.state == ready).count();
    metrics::gauge!("kubelet_running_pods").set(show(running));
    for (state, name) in [(0, "created"), (1, "running"), (2, "exited"), (3, "unknown")] {
        let number = containers.iter().filter(|c| c.state == state).count();
        metrics::gauge!("kubelet_running_containers", "container_state" => name).set(show(number));
    }
}

async fn list(runtime: &Runtime) -> Result<Listing, crate::runtime::Error> {
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_pod_sandboxes(None), runtime.list_containers(None))?;
    count(&sandboxes, &containers);
    let mut listing = Listing::new();
    for sandbox in sandboxes {
        let Some(metadata) = sandbox.metadata else { continue };
        let pod = listing.entry(metadata.uid).or_default();
        pod.name = metadata.name;
        pod.namespace = metadata.namespace;
        pod.active |= sandbox.state == proto::cri::PodSandboxState::SandboxReady as i32;
        pod.states.insert(sandbox.id, sandbox.state);
    }
    for container in containers {
        let Some(uid) = container.labels.get(labels::POD_UID) else { continue };
        let pod = listing.entry(uid.clone()).or_default();
        pod.active |= container.state == proto::cri::ContainerState::ContainerRunning as i32;
        pod.states.insert(container.id, container.state);
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(pods: &[(&str, &[(&str, i32)])]) -> Listing {
        pods.iter()
            .map(|(uid, states)| {
                let states = states.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect();
                ((*uid).to_owned(), ListedPod { states, ..ListedPod::default() })
            })
            .collect()
    }

    #[test]
    fn changes_are_additions_removals_and_new_states() {
        let old = listing(&[("same", &[("a", 1)]), ("died", &[("b", 1)]), ("gone", &[("c", 1)])]);
        let new = listing(&[("same", &[("a", 1)]), ("died", &[("b", 2)]), ("new", &[("d", 0)])]);
        let mut found: Vec<_> = changed(&old, &new).into_iter().collect();
        found.sort();
        assert_eq!(found, ["died", "gone", "new"]);
        assert!(changed(&new, &new).is_empty());
    }
}
