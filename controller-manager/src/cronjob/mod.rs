//! CronJobs: begin a job whenever the schedule says so.
//!
//! `schedule.rs` reads schedules, `plan.rs` decides what is due. As upstream's pkg/controller/cronjob.

mod plan;
mod schedule;

use crate::clock::Clock;
use crate::common::errors::{self, IgnoreGone};
use crate::common::{meta, refs, written::Written};
use crate::context::{Context, enqueue_all, states};
use crate::job;
use crate::replicaset::STALE;
use client::controller::Action;
use client::events::{self, EventRecorder, EventType};
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client, Informer, ObjectKey, WorkQueue, kube};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plan::Due;
use schedule::Schedule;
use std::sync::Arc;

struct Controller {
    client: Client,
    clock: Clock,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: EventRecorder,
    written: Written,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (crons, jobs) = (cx.informer::<CronJob>(), cx.controlled::<Job>());
    let queue = WorkQueue::new("cronjob");
    enqueue_all(&crons, &queue);
    let keys = queue.clone();
    jobs.subscribe(move |event| {
        for job in states(event) {
            if let Some(owner) = meta::controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob") {
                keys.add(ObjectKey::new(meta::namespace(&job.metadata), owner.name.as_str()));
            }
        }
    });
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder: cx.recorder("cronjob-controller"),
        written: Written::new().follow(&crons).follow(&jobs),
        crons: crons.clone(),
        jobs: jobs.clone(),
    });
    let synced = async move {
        crons.synced().await;
        jobs.synced().await;
    };
    cx.work("cronjob-controller", queue, cx.config.concurrent.cronjobs, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(cron) = self.crons.store().get(&key) else {
            self.written.forget(&key);
            return Ok(Action::Done);
        };
        if !self.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        let jobs = self.jobs.store().indexed(refs::CONTROLLER_INDEX, meta::uid(&cron.metadata));
        let before = cron.status.clone().unwrap_or_default();
        let mut status = before.clone();
        self.observe(&cron, &jobs, &mut status);
        let mut next = Action::Done;
        let outcome = if meta::is_deleting(&cron.metadata) {
            Ok(())
        } else {
            self.tidy(&key, &cron, &jobs, &mut status).await?;
            self.run(&key, &cron, &mut status, &mut next).await
        };
        self.write_status(&key, &cron, &before, status).await?;
        outcome?;
        Ok(next)
    }

    /// Brings the list of running jobs up to date.
    fn observe(&self, cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus) {
        let say =
            |kind, reason: &str, message: String| self.recorder.object_event(cron, kind, reason, message);
        let active = status.active.take().unwrap_or_default();
        let listed = |job: &Job| active.iter().any(|held| held.uid == job.metadata.uid);
        for job in jobs {
            let name = meta::name(&job.metadata);
            if !job::is_finished(job) {
                if !listed(job) {
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    say(EventType::Warning, "UnexpectedJob", message);
                }
                continue;
            }
            let complete = job::holds(job, "Complete").is_some();
            if listed(job) {
                let condition = if complete { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {name}, condition: {condition}");
                say(EventType::Normal, "SawCompletedJob", message);
            }
            let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if complete && ended > status.last_successful_time {
                status.last_successful_time = ended;
            }
        }
        let running = |held: &ObjectReference| {
            let job = jobs.iter().find(|job| job.metadata.uid == held.uid);
            if job.is_none() {
                let message =
                    format!("Active job went missing: {}", held.name.as_deref().unwrap_or_default());
                say(EventType::Normal, "MissingJob", message);
            }
            job.is_some_and(|job| !job::is_finished(job))
        };
        let active: Vec<_> = active.iter().filter(|held| running(held)).cloned().collect();
        status.active = Some(active).filter(|active| !active.is_empty());
    }

    async fn tidy(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> anyhow::Result<()> {
        for job in plan::beyond_history(cron, jobs) {
            self.delete(key, cron, &job, status).await?;
        }
        Ok(())
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        job: &Job,
        status: &mut CronJobStatus,
    ) -> anyhow::Result<()> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let exactly = Preconditions { uid: job.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::background() };
        let name = meta::name(&job.metadata);
        if let Err(error) = api.delete(name, &params).await.ignore_gone() {
            let message = format!("Deleted job: {}", errors::message(&error));
            self.recorder.object_event(cron, EventType::Warning, "FailedDelete", message);
            return Err(error.into());
        }
        self.written.deleted(key, job);
        if let Some(active) = &mut status.active {
            active.retain(|held| held.uid != job.metadata.uid);
        }
        self.recorder.object_event(
            cron,
            EventType::Normal,
            "SuccessfulDelete",
            format!("Deleted job {name}"),
        );
        Ok(())
    }

    /// Begins the run that is due, and sets the timer for the next.
    async fn run(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        status: &mut CronJobStatus,
        next: &mut Action,
    ) -> anyhow::Result<()> {
        let spec = plan::spec(cron);
        let say =
            |kind, reason: &str, message: String| self.recorder.object_event(cron, kind, reason, message);
        if let Some(zone) = plan::unknown_zone(spec) {
            let message = format!("invalid timeZone: {zone:?}: unknown time zone {zone}");
            say(EventType::Warning, "UnknownTimeZone", message);
            return Ok(());
        }
        if spec.suspend == Some(true) {
            return Ok(());
        }
        if spec.schedule.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            say(EventType::Warning, "UnsupportedSchedule", message);
        }
        let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                say(EventType::Warning, "UnparseableSchedule", message);
                return Ok(());
            }
        };
        let now = self.clock.now();
        if let Some(wait) = plan::wait(&schedule, now) {
            *next = Action::RequeueAfter(wait);
        }
        let at = match plan::due(cron, &schedule, now) {
            Due::No => return Ok(()),
            Due::Missed(at) => {
                let text = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
                let message = format!("Missed scheduled time to start a job: {text}");
                say(EventType::Warning, "MissSchedule", message);
                return Ok(());
            }
            Due::At { at, many_missed } => {
                if many_missed {
                    let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or \
                                   check clock skew";
                    say(EventType::Warning, "TooManyMissedTimes", message.to_owned());
                }
                at
            }
        };
        if status.last_schedule_time == Some(Time(at)) {
            return Ok(());
        }
        let active = status.active.clone().unwrap_or_default();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                say(EventType::Normal, "JobAlreadyActive", message.to_owned());
                return Ok(());
            }
            Some("Replace") => {
                for held in &active {
                    let name = held.name.clone().unwrap_or_default();
                    if let Some(job) = self.jobs.store().get(&ObjectKey::new(key.namespace.as_str(), name)) {
                        self.delete(key, cron, &job, status).await?;
                    }
                }
            }
            _ => {}
        }
        self.begin(key, cron, at, status).await
    }

    async fn begin(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        at: Timestamp,
        status: &mut CronJobStatus,
    ) -> anyhow::Result<()> {
        let job = plan::build(cron, at);
        let name = meta::name(&job.metadata);
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let created = match api.create(&PostParams::default(), &job).await {
            Ok(created) => {
                let message = format!("Created job {name}");
                self.recorder.object_event(cron, EventType::Normal, "SuccessfulCreate", message);
                created
            }
            Err(error) if errors::is_already_exists(&error) => {
                let held = api.get(name).await?;
                if !meta::is_controlled_by(&held.metadata, meta::uid(&cron.metadata)) {
                    return Ok(());
                }
                held
            }
            Err(error) if errors::is_namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                let message = format!("Error creating job: {}", errors::message(&error));
                self.recorder.object_event(cron, EventType::Warning, "FailedCreate", message);
                return Err(error.into());
            }
        };
        self.written.wrote(key, &created);
        let active = status.active.get_or_insert_default();
        if !active.iter().any(|held| held.uid == created.metadata.uid) && !job::is_finished(&created) {
            active.push(events::reference(&created));
        }
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        before: &CronJobStatus,
        mut status: CronJobStatus,
    ) -> Result<(), kube::Error> {
        status.active = status.active.filter(|active| !active.is_empty());
        if status == *before {
            return Ok(());
        }
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
        let changed = CronJob { status: Some(status), ..cron.clone() };
        let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
        if let Some(written) = written.ignore_not_found()? {
            self.written.wrote(key, &written);
        }
        Ok(())
    }
}
