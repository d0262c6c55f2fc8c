//! StatefulSets: pods with names and claims of their own, made and replaced in order.
//!
//! `plan.rs` decides which pods come and go, `identity.rs` says what they look like, `claims.rs` deals with their
//! PersistentVolumeClaims, `revisions.rs` with past templates. As upstream's pkg/controller/statefulset.

mod claims;
mod identity;
mod plan;
mod revisions;

use crate::clock::Clock;
use crate::common::Selector;
use crate::common::errors::{self, IgnoreGone};
use crate::common::{batch, history, meta, pods, refs, written::Written};
use crate::context::{Context, enqueue_all, states};
use crate::replicaset::STALE;
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue, kube};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use plan::{Plan, Step};
use std::sync::Arc;
use std::time::Duration;

struct Controller {
    client: Client,
    clock: Clock,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
    recorder: EventRecorder,
    written: Written,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (sets, pods) = (cx.informer::<StatefulSet>(), cx.pods());
    let (claims, revisions) = (cx.informer::<PersistentVolumeClaim>(), cx.controlled::<ControllerRevision>());
    let queue = WorkQueue::new("statefulset");
    enqueue_all(&sets, &queue);
    enqueue_for_pods(&pods, &sets, &queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder: cx.recorder("statefulset-controller"),
        written: Written::new().follow(&sets).follow(&pods).follow(&claims).follow(&revisions),
        sets: sets.clone(),
        pods: pods.clone(),
        claims: claims.clone(),
        revisions: revisions.clone(),
    });
    let synced = async move {
        sets.synced().await;
        pods.synced().await;
        claims.synced().await;
        revisions.synced().await;
    };
    cx.work("statefulset-controller", queue, cx.config.concurrent.statefulsets, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn enqueue_for_pods(pods: &Informer<Pod>, sets: &Informer<StatefulSet>, queue: &WorkQueue<ObjectKey>) {
    let (sets, queue) = (sets.clone(), queue.clone());
    pods.subscribe(move |event| {
        for pod in states(event) {
            let namespace = meta::namespace(&pod.metadata);
            match meta::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "StatefulSet" => {
                    queue.add(ObjectKey::new(namespace, owner.name.as_str()));
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

fn selector(set: &StatefulSet) -> Selector {
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
        let selector = selector(&set);
        let pods = self.claimed_pods(&set, &selector).await?;
        let mut known = self.claimed_revisions(&set, &selector).await?;
        history::sort(&mut known);
        let revisions = revisions::resolve(&self.client, &set, &known).await?;
        let now = self.clock.now();
        let plan = plan::plan(&set, &pods, &revisions, |name| self.claim(&key, name), now);
        let status = plan.status.clone();
        let applied = self.apply(&key, &set, plan).await;
        self.write_status(&key, &set, status).await?;
        applied?;
        for old in revisions::outdated(&set, &known, &pods, &revisions) {
            history::delete(&self.client, &old).await?;
            self.written.deleted(&key, &*old);
        }
        let min_ready = plan::min_ready_seconds(&set);
        Ok(pods::next_available(&pods, min_ready, now)
            .map_or(Action::Done, |wait: Duration| Action::RequeueAfter(wait)))
    }

    async fn claimed_pods(
        &self,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let mut pods = self.pods.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&set.metadata));
        let orphans = refs::orphans_of(meta::namespace(&set.metadata));
        pods.extend(self.pods.store().indexed(refs::CONTROLLER_INDEX, &orphans));
        // Only pods with the set's name are its business.
        pods.retain(|pod| identity::parent(pod).is_some_and(|(name, _)| name == meta::name(&set.metadata)));
        refs::claim_all(&self.client, set, selector, pods, &[]).await
    }

    async fn claimed_revisions(
        &self,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Vec<Arc<ControllerRevision>>, kube::Error> {
        let mut known = self.revisions.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&set.metadata));
        let orphans = refs::orphans_of(meta::namespace(&set.metadata));
        known.extend(self.revisions.store().indexed(refs::CONTROLLER_INDEX, &orphans));
        refs::claim_all(&self.client, set, selector, known, &[]).await
    }

    fn claim(&self, key: &ObjectKey, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.store().get(&ObjectKey::new(key.namespace.as_str(), name))
    }

    async fn apply(&self, key: &ObjectKey, set: &StatefulSet, plan: Plan) -> anyhow::Result<()> {
        if plan.in_order {
            for step in plan.steps {
                self.step(key, set, step).await?;
            }
            return Ok(());
        }
        match batch::slow_start(plan.steps, |step| self.step(key, set, step)).await.error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn step(&self, key: &ObjectKey, set: &StatefulSet, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Create(pod) => {
                self.ensure_claims(key, set, &pod).await?;
                self.create(key, set, &pod).await
            }
            Step::EnsureClaims(pod) => self.ensure_claims(key, set, &pod).await,
            Step::Update(pod) => {
                self.ensure_claims(key, set, &pod).await?;
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
                let name = meta::name(&pod.metadata);
                let written = api.replace(name, &PostParams::default(), &pod).await;
                self.say(set, "Update", name, written.as_ref().err());
                self.written.wrote(key, &written?);
                Ok(())
            }
            Step::OwnClaims(pod) => self.own_claims(key, set, &pod).await,
            Step::Delete(pod) => {
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
                let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
                let name = meta::name(&pod.metadata);
                let deleted = api.delete(name, &params).await.ignore_gone();
                self.say(set, "Delete", name, deleted.as_ref().err());
                deleted?;
                self.written.deleted(key, &*pod);
                Ok(())
            }
        }
    }

    async fn create(&self, key: &ObjectKey, set: &StatefulSet, pod: &Pod) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let name = meta::name(&pod.metadata);
        match api.create(&PostParams::default(), pod).await {
            Ok(created) => {
                self.written.wrote(key, &created);
                self.say(set, "Create", name, None);
                Ok(())
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                if !errors::is_already_exists(&error) {
                    self.say(set, "Create", name, Some(&error));
                }
                Err(error.into())
            }
        }
    }

    /// Creates the claims of a pod that are not there, and makes those that are follow the retention policy.
    async fn ensure_claims(&self, key: &ObjectKey, set: &StatefulSet, pod: &Pod) -> anyhow::Result<()> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        for claim in claims::for_pod(set, pod) {
            let name = meta::name(&claim.metadata);
            match self.claim(key, name) {
                Some(held) if meta::is_deleting(&held.metadata) => {
                    anyhow::bail!("pvc {name} is being deleted")
                }
                Some(_) => {}
                None => {
                    let created = api.create(&PostParams::default(), &claim).await;
                    if let Err(error) = &created
                        && errors::is_already_exists(error)
                    {
                        continue;
                    }
                    self.say_claim(set, pod, name, created.as_ref().err());
                    self.written.wrote(key, &created?);
                }
            }
        }
        self.own_claims(key, set, pod).await
    }

    async fn own_claims(&self, key: &ObjectKey, set: &StatefulSet, pod: &Pod) -> anyhow::Result<()> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        for claim in claims::for_pod(set, pod) {
            let name = meta::name(&claim.metadata);
            let Some(held) = self.claim(key, name) else { continue };
            if claims::is_managed_by_another(&held, set, pod) {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging \
                     controller, the retention policy is ignored for this claim"
                );
                self.recorder.object_event(set, EventType::Warning, "ConflictingController", message);
            }
            if let Some(owned) = claims::with_owners(&held, set, pod) {
                let written = api.replace(name, &PostParams::default(), &owned).await?;
                self.written.wrote(key, &written);
            }
        }
        Ok(())
    }

    fn say(&self, set: &StatefulSet, verb: &str, pod: &str, error: Option<&kube::Error>) {
        let name = meta::name(&set.metadata);
        let (kind, outcome, end) = match error {
            None => (EventType::Normal, "Successful", "successful".to_owned()),
            Some(error) => {
                (EventType::Warning, "Failed", format!("failed error: {}", errors::message(error)))
            }
        };
        let message = format!("{verb} Pod {pod} in StatefulSet {name} {end}");
        self.recorder.object_event(set, kind, &format!("{outcome}{verb}"), message);
    }

    fn say_claim(&self, set: &StatefulSet, pod: &Pod, claim: &str, error: Option<&kube::Error>) {
        let (name, pod) = (meta::name(&set.metadata), meta::name(&pod.metadata));
        let (kind, reason, message) = match error {
            None => (
                EventType::Normal,
                "SuccessfulCreate",
                format!("Create Claim {claim} Pod {pod} in StatefulSet {name} success"),
            ),
            Some(error) => (
                EventType::Warning,
                "FailedCreate",
                format!(
                    "Create Claim {claim} for Pod {pod} in StatefulSet {name} failed error: {}",
                    errors::message(error)
                ),
            ),
        };
        self.recorder.object_event(set, kind, reason, message);
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        status: StatefulSetStatus,
    ) -> anyhow::Result<()> {
        let before = set.status.clone().unwrap_or_default();
        if plan::same_status(&before, &status) {
            return Ok(());
        }
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let changed = StatefulSet {
            status: Some(StatefulSetStatus { conditions: before.conditions, ..status }),
            ..set.clone()
        };
        let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        if let Some(written) = written.ignore_not_found()? {
            self.written.wrote(key, &written);
        }
        Ok(())
    }
}
