//! ReplicaSets and ReplicationControllers: keep as many pods as asked for.
//!
//! One implementation serves both kinds through [`Replicated`]. `plan.rs` decides, `status.rs` computes the status,
//! `kinds.rs` maps the two kinds; here is the wiring. As upstream's pkg/controller/replicaset.

mod kinds;
mod plan;
mod status;

pub use kinds::{Replicated, View};

use crate::clock::Clock;
use crate::common::errors::IgnoreGone;
use crate::common::pod_control::PodControl;
use crate::common::{Selector, batch, errors, meta, pods, refs, written::Written};
use crate::context::{Context, enqueue_all, states};
use client::controller::Action;
use client::events;
use client::kube::api::PostParams;
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use plan::Plan;
use std::sync::Arc;
use std::time::Duration;

/// How many pods one reconcile creates or deletes at most.
const BURST: usize = 500;

/// Starts the controller of ReplicaSets.
pub fn start_replicasets(cx: &Context) {
    start::<ReplicaSet>(cx, "replicaset-controller", cx.config.concurrent.replicasets);
}

/// Starts the controller of ReplicationControllers.
pub fn start_replication_controllers(cx: &Context) {
    start::<ReplicationController>(
        cx,
        "replicationcontroller-controller",
        cx.config.concurrent.replication_controllers,
    );
}

struct Controller<K> {
    client: Client,
    clock: Clock,
    pods: Informer<Pod>,
    sets: Informer<K>,
    control: PodControl,
    written: Arc<Written>,
}

fn start<K: Replicated>(cx: &Context, name: &'static str, workers: usize) {
    let (pods, sets) = (cx.pods(), cx.controlled::<K>());
    let written = Arc::new(Written::new().follow(&pods).follow(&sets));
    let queue = WorkQueue::new(K::QUEUE);
    enqueue_all(&sets, &queue);
    enqueue_owners(&pods, &sets, &queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        control: PodControl::new(cx.client.clone(), cx.recorder(K::EVENT_SOURCE), written.clone()),
        pods: pods.clone(),
        sets: sets.clone(),
        written,
    });
    let synced = async move {
        pods.synced().await;
        sets.synced().await;
    };
    cx.work(name, queue, workers, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

/// A pod wakes its controller; an orphan wakes every set that could adopt it.
fn enqueue_owners<K: Replicated>(pods: &Informer<Pod>, sets: &Informer<K>, queue: &WorkQueue<ObjectKey>) {
    let (sets, queue) = (sets.clone(), queue.clone());
    pods.subscribe(move |event| {
        for pod in states(event) {
            let namespace = meta::namespace(&pod.metadata);
            match meta::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == K::kind(&()) => {
                    queue.add(ObjectKey::new(namespace, owner.name.as_str()))
                }
                Some(_) => {}
                None if matches!(event, Event::Deleted(_)) => {}
                None => {
                    for set in sets.store().list_namespace(namespace) {
                        if set.view().selector.matches(meta::labels(&pod.metadata)) {
                            queue.add(meta::key(set.meta()));
                        }
                    }
                }
            }
        }
    });
}

impl<K: Replicated> Controller<K> {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(set) = self.sets.store().get(&key) else {
            self.written.forget(&key);
            return Ok(Action::Done);
        };
        if !self.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        let view = set.view();
        let pods = self.claimed(&*set, &view.selector).await?;
        let (active, terminating): (Vec<_>, Vec<_>) =
            pods.into_iter().filter(|pod| !pods::is_terminal(pod)).partition(|pod| pods::is_active(pod));
        let now = self.clock.now();
        let plan = if meta::is_deleting(set.meta()) {
            Plan::Keep
        } else {
            plan::plan(view.replicas, active.clone(), || self.related(set.meta()), now)
        };
        let failure = self.apply(&*set, &view, plan).await.err();
        let failure_text = failure.as_ref().map(errors::message);
        let status = status::status(&view, &active, &terminating, failure_text.as_deref(), now);
        self.write_status(&key, &*set, &view, status.clone()).await?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        Ok(self.next_look(&view, &status, &active, now))
    }

    async fn claimed(&self, set: &K, selector: &Selector) -> Result<Vec<Arc<Pod>>, client::kube::Error> {
        let mut pods = self.pods.store().indexed(refs::CONTROLLER_INDEX, meta::uid(set.meta()));
        pods.extend(
            self.pods.store().indexed(refs::CONTROLLER_INDEX, &refs::orphans_of(meta::namespace(set.meta()))),
        );
        pods.retain(|pod| !pods::is_terminal(pod));
        refs::claim_all(&self.client, set, selector, pods, &[]).await
    }

    /// The pods of all sets that have the same controller as this one.
    fn related(&self, set: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Vec<Arc<Pod>> {
        let siblings = match meta::controller_of(set) {
            Some(owner) => self.sets.store().indexed(refs::CONTROLLER_INDEX, &owner.uid),
            None => return self.pods.store().indexed(refs::CONTROLLER_INDEX, meta::uid(set)),
        };
        let of =
            |sibling: &Arc<K>| self.pods.store().indexed(refs::CONTROLLER_INDEX, meta::uid(sibling.meta()));
        siblings.iter().flat_map(of).collect()
    }

    async fn apply(&self, set: &K, view: &View<'_>, plan: Plan) -> Result<(), client::kube::Error> {
        let owner = events::reference(set);
        match plan {
            Plan::Keep => Ok(()),
            Plan::Create(count) => {
                let pod = pods::from_template(
                    view.template,
                    meta::name(set.meta()),
                    meta::controller_reference(set),
                );
                let create = async |()| self.control.create(&owner, &pod).await.map(drop);
                match batch::slow_start(vec![(); count], create).await.error {
                    Some(error) => Err(error),
                    None => Ok(()),
                }
            }
            Plan::Delete(pods) => {
                batch::all_at_once(pods, async |pod: Arc<Pod>| self.control.delete(&owner, &pod).await).await
            }
        }
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &K,
        view: &View<'_>,
        status: status::Status,
    ) -> Result<(), client::kube::Error> {
        if status == view.status {
            return Ok(());
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let written = api.replace_status(&key.name, &PostParams::default(), &set.with_status(status)).await;
        if let Some(written) = written.ignore_not_found()? {
            self.written.wrote(key, &written);
        }
        Ok(())
    }

    fn next_look(
        &self,
        view: &View<'_>,
        status: &status::Status,
        active: &[Arc<Pod>],
        now: Timestamp,
    ) -> Action {
        if view.min_ready_seconds <= 0 || status.ready == status.available {
            return Action::Done;
        }
        let fallback = Duration::from_secs(u64::try_from(view.min_ready_seconds).unwrap_or(1));
        Action::RequeueAfter(pods::next_available(active, view.min_ready_seconds, now).unwrap_or(fallback))
    }
}

/// A key whose caches are behind its own writes is woken by the event it waits for; this is for the case that the
/// object it waits for left its care meanwhile.
pub const STALE: Duration = Duration::from_secs(1);
