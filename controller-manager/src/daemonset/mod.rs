//! DaemonSets: one pod on every node that wants it.
//!
//! `node.rs` tells whether a node wants the pod, `plan.rs` what comes and goes, `update.rs` the rolling update,
//! `template.rs` makes the pods and keeps past templates. As upstream's pkg/controller/daemon.

mod node;
mod plan;
mod template;
mod update;

use crate::clock::Clock;
use crate::common::Selector;
use crate::common::errors::IgnoreGone;
use crate::common::pod_control::PodControl;
use crate::common::{batch, history, meta, pods, refs, written::Written};
use crate::context::{Context, NODE_INDEX, enqueue_all, states};
use crate::replicaset::STALE;
use client::controller::Action;
use client::events::{self, EventRecorder, EventType};
use client::kube::api::PostParams;
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue, kube};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use parking_lot::Mutex;
use plan::{Backoff, Plan};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The label with the hash of the pod's template.
pub const HASH: &str = "controller-revision-hash";
/// How many pods one reconcile creates or deletes at most.
const BURST: usize = 250;

struct Controller {
    client: Client,
    clock: Clock,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    recorder: EventRecorder,
    control: PodControl,
    written: Arc<Written>,
    backoff: Mutex<Backoff>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (sets, pods, nodes) = (cx.informer::<DaemonSet>(), cx.pods(), cx.informer::<Node>());
    let revisions = cx.controlled::<ControllerRevision>();
    let queue = WorkQueue::new("daemonset");
    enqueue_all(&sets, &queue);
    enqueue_for_pods(&pods, &sets, &queue);
    enqueue_for_nodes(&nodes, &pods, &sets, &queue);
    let written = Arc::new(Written::new().follow(&sets).follow(&pods).follow(&revisions));
    let recorder = cx.recorder("daemonset-controller");
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        control: PodControl::new(cx.client.clone(), recorder.clone(), written.clone()),
        recorder,
        written,
        backoff: Mutex::default(),
        sets: sets.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        revisions: revisions.clone(),
    });
    let synced = async move {
        sets.synced().await;
        pods.synced().await;
        nodes.synced().await;
        revisions.synced().await;
    };
    cx.work("daemonset-controller", queue, cx.config.concurrent.daemonsets, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn enqueue_for_pods(pods: &Informer<Pod>, sets: &Informer<DaemonSet>, queue: &WorkQueue<ObjectKey>) {
    let (sets, queue) = (sets.clone(), queue.clone());
    pods.subscribe(move |event| {
        for pod in states(event) {
            let namespace = meta::namespace(&pod.metadata);
            match meta::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "DaemonSet" => {
                    queue.add(ObjectKey::new(namespace, owner.name.as_str()))
                }
                Some(_) => {}
                None if matches!(event, Event::Deleted(_)) => {}
                None => {
                    let sets = sets.store().list_namespace(namespace);
                    let wanting =
                        sets.iter().filter(|set| selector(set).matches(meta::labels(&pod.metadata)));
                    wanting.for_each(|set| queue.add(meta::key(&set.metadata)));
                }
            }
        }
    });
}

/// A node that comes, goes, or changes in what decides about its pods wakes the sets that this concerns.
fn enqueue_for_nodes(
    nodes: &Informer<Node>,
    pods: &Informer<Pod>,
    sets: &Informer<DaemonSet>,
    queue: &WorkQueue<ObjectKey>,
) {
    let (sets, pods, queue) = (sets.clone(), pods.clone(), queue.clone());
    nodes.subscribe(move |event| {
        if let Event::Updated { old, new } = event
            && node::decides_alike(old, new)
        {
            return;
        }
        let there = !matches!(event, Event::Deleted(_));
        let here = event.object();
        let on_node = pods.store().indexed(NODE_INDEX, meta::name(&here.metadata));
        for set in sets.store().list() {
            let scheduled =
                on_node.iter().any(|pod| meta::is_controlled_by(&pod.metadata, meta::uid(&set.metadata)));
            let fit = node::fit(here, &set);
            let misplaced = set.status.as_ref().is_some_and(|status| status.number_misscheduled > 0);
            if !there || (fit.run && !scheduled) || (scheduled && (!fit.stay || misplaced)) {
                queue.add(meta::key(&set.metadata));
            }
        }
    });
}

fn selector(set: &DaemonSet) -> Selector {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| Selector::from_meta(Some(&spec.selector)).ok()).unwrap_or_else(Selector::nothing)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(set) = self.sets.store().get(&key) else {
            self.written.forget(&key);
            return Ok(Action::Done);
        };
        if !self.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        if set.spec.as_ref().is_some_and(|spec| spec.selector == LabelSelector::default()) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.object_event(&*set, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        if meta::is_deleting(&set.metadata) {
            return Ok(Action::Done);
        }
        let selector = selector(&set);
        let (current, known, collisions) = self.revisions(&key, &set, &selector).await?;
        let hash = meta::label(&current.metadata, HASH).unwrap_or_default().to_owned();
        let pods = self.claimed_pods(&set, &selector).await?;
        let now = self.clock.now();
        let nodes = self.nodes.store().list();
        let view = plan::View::new(&set, &nodes, &pods, &hash, now);
        let plan = plan::plan(&view, &mut self.backoff.lock());
        let (retry, status) = (plan.retry_after, view.status());
        let applied = self.apply(&set, plan, &hash).await;
        self.write_status(&key, &set, status, collisions).await?;
        applied?;
        for old in template::outdated(&set, &known, &current, &pods) {
            history::delete(&self.client, &old).await?;
            self.written.deleted(&key, &*old);
        }
        let available = pods::next_available(&pods, plan::min_ready_seconds(&set), now);
        let next: Option<Duration> = [retry, available].into_iter().flatten().min();
        Ok(next.map_or(Action::Done, Action::RequeueAfter))
    }

    async fn claimed_pods(&self, set: &DaemonSet, selector: &Selector) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let mut pods = self.pods.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&set.metadata));
        let orphans = refs::orphans_of(meta::namespace(&set.metadata));
        pods.extend(self.pods.store().indexed(refs::CONTROLLER_INDEX, &orphans));
        refs::claim_all(&self.client, set, selector, pods, &[]).await
    }

    /// The revision of the set's template, made if there is none, and all revisions.
    async fn revisions(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        selector: &Selector,
    ) -> anyhow::Result<(ControllerRevision, Vec<Arc<ControllerRevision>>, i32)> {
        let mut known = self.revisions.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&set.metadata));
        let orphans = refs::orphans_of(meta::namespace(&set.metadata));
        known.extend(self.revisions.store().indexed(refs::CONTROLLER_INDEX, &orphans));
        let mut known = refs::claim_all(&self.client, set, selector, known, &[]).await?;
        history::sort(&mut known);
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let current = template::resolve(&self.client, set, &known, &mut collisions).await?;
        if !known.iter().any(|revision| **revision == current) {
            self.written.wrote(key, &current);
        }
        Ok((current, known, collisions))
    }

    async fn apply(&self, set: &DaemonSet, plan: Plan, hash: &str) -> Result<(), kube::Error> {
        for (reason, kind, message) in plan.events {
            self.recorder.object_event(set, kind, reason, message);
        }
        let owner = events::reference(set);
        let create = plan.create.into_iter().take(BURST).collect();
        let outcome = batch::slow_start(create, async |node: String| {
            let pod = template::pod(set, hash, &node);
            self.control.create(&owner, &pod).await.map(drop)
        })
        .await;
        let delete = plan.delete.into_iter().take(BURST);
        let deleted =
            batch::all_at_once(delete, async |pod: Arc<Pod>| self.control.delete(&owner, &pod).await).await;
        match outcome.error {
            Some(error) => Err(error),
            None => deleted,
        }
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        status: DaemonSetStatus,
        collisions: i32,
    ) -> anyhow::Result<()> {
        let before = set.status.clone().unwrap_or_default();
        let collision_count = if collisions == 0 { before.collision_count } else { Some(collisions) };
        let status = DaemonSetStatus { collision_count, conditions: before.conditions.clone(), ..status };
        if plan::same_status(&before, &status) {
            return Ok(());
        }
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let changed = DaemonSet { status: Some(status), ..set.clone() };
        let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        if let Some(written) = written.ignore_not_found()? {
            self.written.wrote(key, &written);
        }
        Ok(())
    }
}

/// Pods by the node they are on or meant for; pods that ended and are going do not count.
fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut nodes: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if pods::is_terminal(pod) && meta::is_deleting(&pod.metadata) {
            continue;
        }
        if let Some(node) = node::target(pod) {
            nodes.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| {
            let name = meta::name(&pod.metadata).to_owned();
            (pods::node_name(pod).is_empty(), meta::created_at(&pod.metadata), name)
        });
    }
    nodes
}
