//! Decides which job of a CronJob is due, and which old ones go.

use super::schedule::Schedule;
use crate::common::meta;
use crate::job;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;
use std::time::Duration;

/// Whether a run is due.
#[derive(Debug, PartialEq)]
pub enum Due {
    /// None is.
    No,
    /// This one is.
    At {
        /// When it was due.
        at: Timestamp,
        /// Whether very many were missed.
        many_missed: bool,
    },
    /// This one was, but it is too late for it.
    Missed(Timestamp),
}

/// The spec.
pub fn spec(cron: &CronJob) -> &CronJobSpec {
    &cron.spec
}

fn last(cron: &CronJob) -> Timestamp {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    last.or(cron.metadata.creation_timestamp.as_ref()).map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The time zone, if there is none of that name.
pub fn unknown_zone(spec: &CronJobSpec) -> Option<&str> {
    let zone = spec.time_zone.as_deref().filter(|zone| !matches!(*zone, "" | "UTC"))?;
    TimeZone::get(zone).is_err().then_some(zone)
}

/// Finds the latest run that should have begun. As upstream's mostRecentScheduleTime.
pub fn due(cron: &CronJob, schedule: &Schedule, now: Timestamp) -> Due {
    let deadline = spec(cron).starting_deadline_seconds;
    let mut earliest = last(cron);
    if let Some(deadline) = deadline
        && let Ok(oldest) = now.checked_sub(SignedDuration::from_secs(deadline))
    {
        earliest = earliest.max(oldest);
    }
    let Some((at, missed)) = latest(schedule, earliest, now) else { return Due::No };
    match deadline {
        Some(deadline) if at.as_second() + deadline < now.as_second() => Due::Missed(at),
        _ => Due::At { at, many_missed: missed > 100 },
    }
}

/// The latest moment up to now, and about how many there were.
fn latest(schedule: &Schedule, earliest: Timestamp, now: Timestamp) -> Option<(Timestamp, i64)> {
    let first = schedule.next(earliest).filter(|first| *first <= now)?;
    let Some(second) = schedule.next(first).filter(|second| *second <= now) else { return Some((first, 1)) };
    let distance = (second.as_second() - first.as_second()).max(1);
    let count = (now.as_second() - first.as_second()) / distance + 1;
    // Jump close to the end instead of walking through all of them.
    let start = first.checked_add(SignedDuration::from_secs((count - 2) * distance)).ok()?;
    let mut found = None;
    let mut next = schedule.next(start);
    while let Some(at) = next.filter(|at| *at <= now) {
        found = Some(at);
        next = schedule.next(at);
    }
    found.map(|at| (at, count))
}

/// How long until the next run.
pub fn wait(schedule: &Schedule, now: Timestamp) -> Option<Duration> {
    let next = schedule.next(now)?;
    let wait = next.as_millisecond() - now.as_millisecond();
    // A little later, so that it is certainly due.
    Some(Duration::from_millis(u64::try_from(wait).unwrap_or(0) + 100))
}

/// The job of a run. Its name says which run it is, so that none begins twice.
pub fn build(cron: &CronJob, at: Timestamp) -> Job {
    let template = &spec(cron).job_template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let zone = spec(cron).time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
    let stamp = match zone {
        Some(zone) => at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        None => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".to_owned(), stamp);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", meta::name(&cron.metadata), at.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_reference(cron)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Finished jobs beyond the limits, oldest first.
pub fn beyond_history(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let oldest = |kind: &str, limit: Option<i32>| -> Vec<Arc<Job>> {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return Vec::new() };
        let mut ended: Vec<_> = jobs.iter().filter(|job| job::holds(job, kind).is_some()).cloned().collect();
        ended.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.as_ref());
            (start.map_or(i64::MAX, |time| time.0.as_second()), meta::name(&job.metadata).to_owned())
        });
        let excess = ended.len().saturating_sub(limit);
        ended.truncate(excess);
        ended
    };
    let mut gone = oldest("Complete", spec(cron).successful_jobs_history_limit);
    gone.extend(oldest("Failed", spec(cron).failed_jobs_history_limit));
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::at;
    use k8s_openapi::api::batch::v1::{CronJobStatus, JobCondition, JobStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn cron(last: i64, deadline: Option<i64>) -> CronJob {
        CronJob {
            metadata: ObjectMeta {
                name: Some("cron".into()),
                creation_timestamp: Some(Time(at(0))),
                ..Default::default()
            },
            spec: CronJobSpec {
                starting_deadline_seconds: deadline,
                successful_jobs_history_limit: Some(1),
                failed_jobs_history_limit: Some(0),
                ..Default::default()
            },
            status: Some(CronJobStatus { last_schedule_time: Some(Time(at(last))), ..Default::default() }),
        }
    }

    #[test]
    fn latest_missed_run_is_due() {
        let hourly = Schedule::parse("0 * * * *", None).expect("valid");
        let run = |hour: i64, many_missed| Due::At { at: at(hour * 3600), many_missed };
        for (last, deadline, now, expected) in [
            (3600, None, 2 * 3600 - 1, Due::No),
            (3600, None, 2 * 3600, run(2, false)),
            (3600, None, 5 * 3600 + 9, run(5, false)),
            (3600, None, 200 * 3600, run(200, true)),
            (3600, Some(60), 5 * 3600 + 30, run(5, false)),
            (3600, Some(60), 5 * 3600 + 90, Due::No),
        ] {
            assert_eq!(due(&cron(last, deadline), &hourly, at(now)), expected, "{last} {deadline:?} {now}");
        }
    }

    #[test]
    fn time_zones_are_known_or_not() {
        let unknown = |zone: Option<&str>| {
            let spec = CronJobSpec { time_zone: zone.map(str::to_owned), ..Default::default() };
            unknown_zone(&spec).map(str::to_owned)
        };
        assert_eq!(unknown(None), None);
        assert_eq!(unknown(Some("UTC")), None);
        assert_eq!(unknown(Some("Europe/Berlin")), None);
        assert_eq!(unknown(Some("Europe/Nowhere")).as_deref(), Some("Europe/Nowhere"));
    }

    #[test]
    fn job_is_named_after_its_minute() {
        let job = build(&cron(0, None), at(7200));
        assert_eq!(meta::name(&job.metadata), "cron-120");
        let stamp = meta::annotation(&job.metadata, "batch.kubernetes.io/cronjob-scheduled-timestamp");
        assert_eq!(stamp, Some("1970-01-01T02:00:00Z"));
    }

    #[test]
    fn oldest_finished_jobs_go() {
        let ended = |name: &str, kind: &str, start| {
            let condition = JobCondition { type_: kind.into(), status: "True".into(), ..Default::default() };
            let mut job = Job::default();
            job.metadata.name = Some(name.into());
            job.status = Some(JobStatus {
                start_time: Some(Time(at(start))),
                conditions: Some(vec![condition]),
                ..Default::default()
            });
            Arc::new(job)
        };
        let jobs = [
            ended("b", "Complete", 2),
            ended("a", "Complete", 1),
            ended("f", "Failed", 3),
            ended("r", "Suspended", 0),
        ];
        let gone = beyond_history(&cron(0, None), &jobs);
        assert_eq!(gone.iter().map(|job| meta::name(&job.metadata)).collect::<Vec<_>>(), ["a", "f"]);
    }
}
