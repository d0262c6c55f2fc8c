//! Jobs: run pods until enough of them succeed.
//!
//! `view.rs` counts, `manage.rs` decides on pods, `track.rs` on the status; `policy.rs`, `indexes.rs` and
//! `backoff.rs` hold what they need. As upstream's pkg/controller/job.

mod backoff;
mod indexes;
mod manage;
mod policy;
mod track;
mod view;

pub use view::{holds, is_finished, spec};

use crate::clock::Clock;
use crate::common::Selector;
use crate::common::errors::{self, IgnoreGone};
use crate::common::pod_control::PodControl;
use crate::common::{batch, meta, pods, refs, written::Written};
use crate::context::{Context, enqueue_all, states};
use crate::replicaset::STALE;
use backoff::Backoff;
use client::controller::Action;
use client::events::{self, EventRecorder, EventType};
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue, kube};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use manage::Manage;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use track::Outcome;
use view::{TRACKING, View};

struct Controller {
    client: Client,
    clock: Clock,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    control: PodControl,
    written: Arc<Written>,
    backoffs: Mutex<HashMap<ObjectKey, Backoff>>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (jobs, pods) = (cx.informer::<Job>(), cx.pods());
    let (queue, orphans) = (WorkQueue::new("job"), WorkQueue::new("job_orphan_pod"));
    enqueue_all(&jobs, &queue);
    enqueue_for_pods(&pods, &jobs, &queue, &orphans);
    enqueue_orphans(&pods, &jobs, &orphans);
    let written = Arc::new(Written::new().follow(&jobs).follow(&pods));
    let recorder = cx.recorder("job-controller");
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        control: PodControl::new(cx.client.clone(), recorder.clone(), written.clone()),
        recorder,
        written,
        backoffs: Mutex::default(),
        jobs: jobs.clone(),
        pods: pods.clone(),
    });
    let synced = |jobs: Informer<Job>, pods: Informer<Pod>| async move {
        jobs.synced().await;
        pods.synced().await;
    };
    let releasing = controller.clone();
    cx.work("job-controller", orphans, 1, synced(jobs.clone(), pods.clone()), move |key| {
        let controller = releasing.clone();
        async move { controller.release_orphan(key).await }
    });
    cx.work("job-controller", queue, cx.config.concurrent.jobs, synced(jobs, pods), move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn enqueue_for_pods(
    pods: &Informer<Pod>,
    jobs: &Informer<Job>,
    queue: &WorkQueue<ObjectKey>,
    orphans: &WorkQueue<ObjectKey>,
) {
    let (jobs, queue, orphans) = (jobs.clone(), queue.clone(), orphans.clone());
    pods.subscribe(move |event| {
        for pod in states(event) {
            let namespace = meta::namespace(&pod.metadata);
            match meta::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "Job" => {
                    queue.add(ObjectKey::new(namespace, owner.name.as_str()))
                }
                Some(_) => {}
                None if matches!(event, Event::Deleted(_)) => {}
                None => {
                    let jobs = jobs.store().list_namespace(namespace);
                    let wanting =
                        jobs.iter().filter(|job| selector(job).matches(meta::labels(&pod.metadata)));
                    wanting.for_each(|job| queue.add(meta::key(&job.metadata)));
                }
            }
        }
        let pod = event.object();
        if view::is_tracked(pod) && !matches!(event, Event::Deleted(_)) && owner(&jobs, pod).is_none() {
            orphans.add(meta::key(&pod.metadata));
        }
    });
}

/// The pods of a job that is gone are let go.
fn enqueue_orphans(pods: &Informer<Pod>, jobs: &Informer<Job>, orphans: &WorkQueue<ObjectKey>) {
    let (pods, orphans) = (pods.clone(), orphans.clone());
    jobs.subscribe(move |event| {
        let ended = match event {
            Event::Deleted(job) => job,
            Event::Updated { new, .. } if is_finished(new) => new,
            _ => return,
        };
        for pod in pods.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&ended.metadata)) {
            if view::is_tracked(&pod) {
                orphans.add(meta::key(&pod.metadata));
            }
        }
    });
}

/// The job that controls the pod, if it exists.
fn owner(jobs: &Informer<Job>, pod: &Pod) -> Option<Arc<Job>> {
    let owner = meta::controller_of(&pod.metadata).filter(|owner| owner.kind == "Job")?;
    let job = jobs.store().get(&ObjectKey::new(meta::namespace(&pod.metadata), owner.name.as_str()))?;
    (meta::uid(&job.metadata) == owner.uid).then_some(job)
}

fn selector(job: &Job) -> Selector {
    Selector::from_meta(spec(job).selector.as_ref()).unwrap_or_else(|_| Selector::nothing())
}

fn is_managed_elsewhere(job: &Job) -> bool {
    spec(job).managed_by.as_deref().is_some_and(|by| by != "kubernetes.io/job-controller")
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(job) = self.jobs.store().get(&key) else {
            self.written.forget(&key);
            self.backoffs.lock().remove(&key);
            return Ok(Action::Done);
        };
        if is_managed_elsewhere(&job) {
            return Ok(Action::Done);
        }
        if !self.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        if is_finished(&job) {
            self.backoffs.lock().remove(&key);
            return Ok(Action::Done);
        }
        let pods = self.claimed(&job).await?;
        let view = View::new(Job::clone(&job), pods, self.clock.now());
        let before = self.backoffs.lock().get(&key).cloned().unwrap_or_default();
        let backoff = view.backoff(&before);
        let manage = manage::manage(&view, &backoff);
        let wait = [manage.wait, view.deadline_in].into_iter().flatten().min();
        let (outcome, failure) = self.apply(&key, &view, manage).await;
        // A job has only ended when all its pods have been told to.
        let finished = view.finished.clone().filter(|_| outcome.deleted == view.active.len());
        self.track(&key, &job, &view, outcome, finished, backoff).await?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(wait.map_or(Action::Done, Action::RequeueAfter)),
        }
    }

    async fn claimed(&self, job: &Job) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let mut pods = self.pods.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&job.metadata));
        let orphans = refs::orphans_of(meta::namespace(&job.metadata));
        pods.extend(self.pods.store().indexed(refs::CONTROLLER_INDEX, &orphans));
        refs::claim_all(&self.client, job, &selector(job), pods, &[TRACKING]).await
    }

    async fn apply(&self, key: &ObjectKey, view: &View, manage: Manage) -> (Outcome, Option<kube::Error>) {
        let owner = events::reference(&view.job);
        let (deleted, ready) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let uncounted = manage.uncounted;
        let delete = batch::all_at_once(manage.delete, async |pod: Arc<Pod>| {
            if uncounted {
                self.release(key, &pod).await?;
            }
            self.control.delete(&owner, &pod).await?;
            deleted.fetch_add(1, Ordering::Relaxed);
            ready.fetch_add(usize::from(pods::is_ready(&pod)), Ordering::Relaxed);
            Ok::<_, kube::Error>(())
        });
        let mut failure = delete.await.err();
        let created = batch::slow_start(manage.create, async |pod: Pod| {
            self.control.create(&owner, &pod).await.map(drop)
        })
        .await;
        failure = failure.or(created.error);
        let outcome = Outcome {
            created: created.succeeded,
            deleted: deleted.into_inner(),
            deleted_ready: ready.into_inner(),
        };
        (outcome, failure)
    }

    async fn track(
        &self,
        key: &ObjectKey,
        before: &Job,
        view: &View,
        outcome: Outcome,
        finished: Option<k8s_openapi::api::batch::v1::JobCondition>,
        backoff: Backoff,
    ) -> anyhow::Result<()> {
        let tracked = track::track(view, outcome, finished);
        let job = self.write_status(key, before, &view.job, tracked.status).await?;
        self.backoffs.lock().insert(key.clone(), backoff);
        for (reason, message) in tracked.events {
            self.recorder.object_event(&job, EventType::Normal, reason, message);
        }
        let (released, failure) = self.release_all(key, &tracked.release).await;
        let (status, done) = track::settle(&job, view, &released, tracked.finish.as_ref());
        let job = self.write_status(key, &job, &job, status).await?;
        if done && let Some(condition) = &tracked.finish {
            self.announce(&job, condition);
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn announce(&self, job: &Job, condition: &k8s_openapi::api::batch::v1::JobCondition) {
        if condition.type_ == "Complete" {
            let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
            if spec(job).completions.is_some_and(|completions| succeeded > completions) {
                let message = "Too many succeeded pods running after completion count reached";
                self.recorder.object_event(job, EventType::Warning, "TooManySucceededPods", message);
            }
            self.recorder.object_event(job, EventType::Normal, "Completed", "Job completed");
        } else {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let message = condition.message.clone().unwrap_or_default();
            self.recorder.object_event(job, EventType::Warning, reason, message);
        }
    }

    /// Writes a status that differs from that of `before`; returns the job as it then is.
    async fn write_status(
        &self,
        key: &ObjectKey,
        before: &Job,
        job: &Job,
        status: JobStatus,
    ) -> Result<Job, kube::Error> {
        let status = track::normal(status);
        if before.status.clone().map(track::normal).as_ref() == Some(&status) && before.status.is_some() {
            return Ok(Job { status: Some(status), ..before.clone() });
        }
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let changed = Job { status: Some(status), ..job.clone() };
        let written = match api.replace_status(&key.name, &PostParams::default(), &changed).await {
            Ok(written) => written,
            Err(error) => {
                // The answer may be lost where the status was not: then the pods are counted, and what follows from
                // that (how long to wait for the next, above all) must not be lost either.
                let live = api.get_opt(&key.name).await?.filter(|live| {
                    live.metadata.uid == changed.metadata.uid
                        && live.status.clone().map(track::normal) == changed.status
                });
                live.ok_or(error)?
            }
        };
        self.written.wrote(key, &written);
        Ok(written)
    }

    /// Takes the finalizer off a pod.
    async fn release(&self, key: &ObjectKey, pod: &Pod) -> Result<(), kube::Error> {
        if !view::is_tracked(pod) {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "uid": pod.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }});
        let api = self.control.api(meta::namespace(&pod.metadata));
        let name = meta::name(&pod.metadata);
        let patched = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        match patched.ignore_not_found() {
            Ok(Some(patched)) => {
                self.written.wrote(key, &patched);
                Ok(())
            }
            Ok(None) => Ok(()),
            // Another pod has the name by now.
            Err(error) if errors::is_invalid(&error) => Ok(()),
            // Another pod, or somebody else changed this one at the same time: a pod that keeps its finalizer must
            // not be taken for one that lost it, or it would count twice.
            Err(error) if errors::is_conflict(&error) => {
                let live = api.get(name).await.ignore_not_found()?;
                let same =
                    live.is_some_and(|live| live.metadata.uid == pod.metadata.uid && view::is_tracked(&live));
                if same { Err(error) } else { Ok(()) }
            }
            Err(error) => Err(error),
        }
    }

    async fn release_all(
        &self,
        key: &ObjectKey,
        pods: &[Arc<Pod>],
    ) -> (HashSet<String>, Option<kube::Error>) {
        let results = join_all(pods.iter().map(|pod| self.release(key, pod))).await;
        let mut released = HashSet::new();
        let mut failure = None;
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(()) => {
                    released.insert(meta::uid(&pod.metadata).to_owned());
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        (released, failure)
    }

    /// A tracked pod whose job is gone or finished is nobody's to count.
    async fn release_orphan(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(pod) = self.pods.store().get(&key) else { return Ok(Action::Done) };
        let foreign = meta::controller_of(&pod.metadata).is_some_and(|owner| owner.kind != "Job");
        let counted =
            owner(&self.jobs, &pod).is_some_and(|job| !is_finished(&job) || is_managed_elsewhere(&job));
        if !foreign && !counted {
            self.release(&key, &pod).await?;
            self.written.forget(&key);
        }
        Ok(Action::Done)
    }
}
