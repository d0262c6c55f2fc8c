//! Deletes finished jobs after the time their spec gives. As upstream's pkg/controller/ttlafterfinished.

use crate::common::conditions;
use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::{Context, enqueue_all};
use crate::job;
use client::controller::Action;
use client::kube::api::{DeleteParams, Preconditions};
use client::{Api, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use std::time::Duration;

/// Starts the controller.
pub fn start(cx: &Context) {
    let jobs = cx.informer::<Job>();
    let queue = WorkQueue::new("ttl_jobs_to_delete");
    enqueue_all(&jobs, &queue);
    let (client, clock, synced) = (cx.client.clone(), cx.config.clock, jobs.clone());
    let synced = async move { synced.synced().await };
    cx.work(
        "ttl-after-finished-controller",
        queue,
        cx.config.concurrent.ttl_after_finished,
        synced,
        move |key| {
            let (client, jobs) = (client.clone(), jobs.clone());
            async move {
                let Some(cached) = jobs.store().get(&key) else { return Ok(Action::Done) };
                match left(&cached, clock.now()) {
                    None => return Ok(Action::Done),
                    Some(left) if !left.is_zero() => return Ok(Action::RequeueAfter(left)),
                    Some(_) => {}
                }
                // The time may have been extended meanwhile: read it live before anything is lost.
                let api: Api<Job> = Api::namespaced(client, &key.namespace);
                let Some(fresh) = api.get_opt(&key.name).await? else { return Ok(Action::Done) };
                if fresh.metadata.uid != cached.metadata.uid
                    || left(&fresh, clock.now()) != Some(Duration::ZERO)
                {
                    return Ok(Action::Done);
                }
                let exactly = Preconditions {
                    uid: fresh.metadata.uid.clone(),
                    resource_version: fresh.metadata.resource_version.clone(),
                };
                let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::foreground() };
                api.delete(&key.name, &params).await.ignore_not_found()?;
                Ok(Action::Done)
            }
        },
    );
}

/// How long the job may stay; `None` when that is not limited.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    if meta::is_deleting(&job.metadata) || !job::is_finished(job) {
        return None;
    }
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let list = job.status.as_ref()?.conditions.as_deref()?;
    let ended = ["Complete", "Failed"]
        .iter()
        .find_map(|kind| conditions::find(list, kind).filter(|condition| condition.status == "True"))?;
    let due = ended.last_transition_time.as_ref()?.0.as_second() + i64::from(ttl);
    Some(Duration::from_secs(u64::try_from(due - now.as_second()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::at;
    use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn time_counts_from_the_end() {
        for (ttl, kind, now, expected) in [
            (Some(10), "Complete", 105, Some(5)),
            (Some(10), "Failed", 110, Some(0)),
            (Some(0), "Complete", 100, Some(0)),
            (Some(10), "Suspended", 200, None),
            (None, "Complete", 200, None),
        ] {
            let condition = JobCondition {
                type_: kind.into(),
                status: "True".into(),
                last_transition_time: Some(Time(at(100))),
                ..Default::default()
            };
            let job = Job {
                spec: Some(JobSpec { ttl_seconds_after_finished: ttl, ..Default::default() }),
                status: Some(JobStatus { conditions: Some(vec![condition]), ..Default::default() }),
                ..Default::default()
            };
            assert_eq!(left(&job, at(now)).map(|left| left.as_secs()), expected, "{ttl:?} {kind} {now}");
        }
    }
}
