//! Deployments: roll pods from one template to the next through ReplicaSets.
//!
//! `plan.rs` decides on copies of the ReplicaSets what each should look like; here the differences are written.
//! `sets.rs` holds the arithmetic on ReplicaSets, `annotations.rs` the bookkeeping in annotations, `scale.rs` the
//! proportional scaling, `rolling.rs` the rolling update, `progress.rs` the status, `rollback.rs` the old rollback
//! annotation. As upstream's pkg/controller/deployment.

mod annotations;
#[cfg(test)]
mod interleavings;
mod plan;
mod progress;
mod rollback;
mod rolling;
mod scale;
mod sets;

use crate::clock::Clock;
use crate::common::errors::{self, IgnoreGone};
use crate::common::{Selector, meta, pods, refs, written::Written};
use crate::context::{Context, enqueue_all, states};
use crate::replicaset::STALE;
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue, kube};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use plan::{Outcome, Plan};
pub use sets::resolve;
use std::sync::Arc;

/// The label that tells the pods of one template from those of the next.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

struct Controller {
    client: Client,
    clock: Clock,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    written: Written,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (deployments, sets, pods) = (cx.informer::<Deployment>(), cx.controlled::<ReplicaSet>(), cx.pods());
    let queue = WorkQueue::new("deployment");
    enqueue_all(&deployments, &queue);
    enqueue_for_sets(&sets, &deployments, &queue);
    enqueue_for_deleted_pods(&pods, &sets, &deployments, &queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder: cx.recorder("deployment-controller"),
        written: Written::new().follow(&deployments).follow(&sets),
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
    });
    let synced = async move {
        deployments.synced().await;
        sets.synced().await;
        pods.synced().await;
    };
    cx.work("deployment-controller", queue, cx.config.concurrent.deployments, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn enqueue_for_sets(
    sets: &Informer<ReplicaSet>,
    deployments: &Informer<Deployment>,
    queue: &WorkQueue<ObjectKey>,
) {
    let (deployments, queue) = (deployments.clone(), queue.clone());
    sets.subscribe(move |event| {
        for set in states(event) {
            let namespace = meta::namespace(&set.metadata);
            match meta::controller_of(&set.metadata) {
                Some(owner) if owner.kind == "Deployment" => {
                    queue.add(ObjectKey::new(namespace, owner.name.as_str()))
                }
                Some(_) => {}
                None if matches!(event, Event::Deleted(_)) => {}
                None => {
                    for deployment in deployments.store().list_namespace(namespace) {
                        if selector_of(&deployment).matches(meta::labels(&set.metadata)) {
                            queue.add(meta::key(&deployment.metadata));
                        }
                    }
                }
            }
        }
    });
}

/// A Deployment that recreates waits for the last old pod to be gone.
fn enqueue_for_deleted_pods(
    pods: &Informer<Pod>,
    sets: &Informer<ReplicaSet>,
    deployments: &Informer<Deployment>,
    queue: &WorkQueue<ObjectKey>,
) {
    let (sets, deployments, queue) = (sets.clone(), deployments.clone(), queue.clone());
    pods.subscribe(move |event| {
        let ended = match event {
            Event::Deleted(pod) => pod,
            Event::Updated { new, .. } if pods::is_terminal(new) => new,
            _ => return,
        };
        let namespace = meta::namespace(&ended.metadata);
        let owner = |meta: &ObjectMeta, kind: &str| {
            let owner = meta::controller_of(meta).filter(|owner| owner.kind == kind)?;
            Some(ObjectKey::new(namespace, owner.name.as_str()))
        };
        let set = owner(&ended.metadata, "ReplicaSet").and_then(|key| sets.store().get(&key));
        let deployment = set.and_then(|set| owner(&set.metadata, "Deployment"));
        let deployment = deployment.and_then(|key| deployments.store().get(&key));
        if let Some(deployment) = deployment.filter(|deployment| sets::is_recreate(deployment)) {
            queue.add(meta::key(&deployment.metadata));
        }
    });
}

fn selector_of(deployment: &Deployment) -> Selector {
    let spec = deployment.spec.as_ref();
    spec.and_then(|spec| Selector::from_meta(Some(&spec.selector)).ok()).unwrap_or_else(Selector::nothing)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(deployment) = self.deployments.store().get(&key) else {
            self.written.forget(&key);
            return Ok(Action::Done);
        };
        if !self.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        if deployment.spec.as_ref().is_some_and(|spec| spec.selector == LabelSelector::default()) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.object_event(&*deployment, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        let sets = self.claimed(&deployment).await?;
        let running = |uid: &str| {
            self.pods.store().indexed(refs::CONTROLLER_INDEX, uid).iter().any(|pod| !pods::is_terminal(pod))
        };
        let plan = plan::plan(&deployment, &sets, running, self.clock.now());
        self.apply(&key, &deployment, &sets, plan).await
    }

    async fn claimed(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let mut sets = self.sets.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&deployment.metadata));
        let orphans = refs::orphans_of(meta::namespace(&deployment.metadata));
        sets.extend(self.sets.store().indexed(refs::CONTROLLER_INDEX, &orphans));
        refs::claim_all(&self.client, deployment, &selector_of(deployment), sets, &[]).await
    }

    async fn apply(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        plan: Plan,
    ) -> anyhow::Result<Action> {
        for (reason, kind, message) in plan.events {
            self.recorder.object_event(deployment, kind, reason, message);
        }
        match plan.outcome {
            Outcome::Replace(changed) => {
                let written = self.api(key).replace(&key.name, &PostParams::default(), &changed).await?;
                self.written.wrote(key, &written);
                if let Some(message) = plan.rolled_back {
                    self.recorder.object_event(deployment, EventType::Normal, "DeploymentRollback", message);
                }
                Ok(Action::Done)
            }
            Outcome::Converge { create, update, delete, revision, status, check_after } => {
                let mut status = status;
                if let Some(set) = create
                    && let Some(other) = self.create_set(key, deployment, &set, &status).await?
                {
                    status = other;
                }
                for set in update {
                    self.update_set(key, deployment, sets, &set).await?;
                }
                for set in delete {
                    self.delete_set(key, &set).await?;
                }
                self.write_status(key, deployment, revision, status).await?;
                Ok(check_after.map_or(Action::Done, Action::RequeueAfter))
            }
        }
    }

    fn api(&self, key: &ObjectKey) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn sets_api(&self, key: &ObjectKey) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Creates the ReplicaSet of a new template. When the name is taken by another template, the hash collided: the
    /// status to write then counts that, so that the next attempt has another name.
    async fn create_set(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &ReplicaSet,
        status: &DeploymentStatus,
    ) -> anyhow::Result<Option<DeploymentStatus>> {
        let name = meta::name(&set.metadata);
        match self.sets_api(key).create(&PostParams::default(), set).await {
            Ok(created) => {
                self.written.wrote(key, &created);
                let replicas = sets::wanted(&created);
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.object_event(deployment, EventType::Normal, "ScalingReplicaSet", message);
                }
                Ok(None)
            }
            Err(error) if errors::is_already_exists(&error) => {
                let taken = self.sets_api(key).get(name).await?;
                let ours = meta::is_controlled_by(&taken.metadata, meta::uid(&deployment.metadata))
                    && sets::same_template(deployment, &taken);
                if ours {
                    self.written.wrote(key, &taken);
                    return Ok(None);
                }
                let count = status.collision_count.unwrap_or(0) + 1;
                Ok(Some(DeploymentStatus {
                    collision_count: Some(count),
                    ..deployment.status.clone().unwrap_or_default()
                }))
            }
            // Nothing to tell anyone: the namespace's deletion takes the deployment with it.
            Err(error) if errors::is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                let message =
                    format!("Failed to create new replica set {name:?}: {}", errors::message(&error));
                let failed = progress::creation_failed(deployment, &message, self.clock.now());
                self.recorder.object_event(deployment, EventType::Warning, "ReplicaSetCreateError", message);
                if let Some(failed) = failed {
                    self.write_status(key, deployment, None, failed).await?;
                }
                Err(error.into())
            }
        }
    }

    async fn update_set(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        before: &[Arc<ReplicaSet>],
        set: &ReplicaSet,
    ) -> Result<(), kube::Error> {
        let name = meta::name(&set.metadata);
        let written = match self.sets_api(key).replace(name, &PostParams::default(), set).await {
            Ok(written) => written,
            Err(error) => {
                // It may have been written all the same, the answer being lost, or somebody else has written: with a
                // cache that does not know, the next step could ask for more pods than the surge allows.
                if let Some(live) = self.sets_api(key).get_opt(name).await? {
                    self.written.wrote(key, &live);
                }
                return Err(error);
            }
        };
        self.written.wrote(key, &written);
        let old =
            before.iter().find(|old| old.metadata.uid == set.metadata.uid).map_or(0, |old| sets::wanted(old));
        let new = sets::wanted(set);
        if old != new {
            let direction = if old < new { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {old} to {new}");
            self.recorder.object_event(deployment, EventType::Normal, "ScalingReplicaSet", message);
        }
        Ok(())
    }

    async fn delete_set(&self, key: &ObjectKey, set: &ReplicaSet) -> Result<(), kube::Error> {
        let exactly = Preconditions {
            uid: set.metadata.uid.clone(),
            resource_version: set.metadata.resource_version.clone(),
        };
        let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::background() };
        if self.sets_api(key).delete(meta::name(&set.metadata), &params).await.ignore_gone()?.is_some() {
            self.written.deleted(key, set);
        }
        Ok(())
    }

    /// Writes status and revision in one go: a status update may carry annotations.
    async fn write_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        revision: Option<String>,
        status: DeploymentStatus,
    ) -> Result<(), kube::Error> {
        let mut changed = deployment.clone();
        if let Some(revision) = revision {
            changed
                .metadata
                .annotations
                .get_or_insert_default()
                .insert(annotations::REVISION.to_owned(), revision);
        }
        changed.status = Some(progress::normal(status));
        let before = progress::normal(deployment.status.clone().unwrap_or_default());
        if changed.metadata.annotations == deployment.metadata.annotations && changed.status == Some(before) {
            return Ok(());
        }
        let written = self.api(key).replace_status(&key.name, &PostParams::default(), &changed).await;
        if let Some(written) = written.ignore_not_found()? {
            self.written.wrote(key, &written);
        }
        Ok(())
    }
}
