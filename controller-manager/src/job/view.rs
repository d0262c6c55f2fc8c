//! A job and its pods, counted: what has succeeded, what has failed, and whether that ends the job.

use super::backoff::{self, Backoff};
use super::indexes::{self, Indexes};
use super::policy::{self, Failure};
use crate::common::{meta, pods};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The finalizer that keeps a pod until it is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// How often an index has failed.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often an index has failed without counting.
pub const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Everything that decides about a job.
pub struct View {
    /// The job.
    pub job: Job,
    /// All its pods.
    pub pods: Vec<Arc<Pod>>,
    /// Those that run.
    pub active: Vec<Arc<Pod>>,
    /// Pods that ended since the last count.
    pub new_succeeded: Vec<Arc<Pod>>,
    /// Pods that failed since the last count.
    pub new_failed: Vec<Arc<Pod>>,
    /// Succeeded pods or indexes.
    pub succeeded: i32,
    /// Failed pods that count.
    pub failed: i32,
    /// Indexes counted before.
    pub counted_indexes: Indexes,
    /// Indexes that have succeeded.
    pub succeeded_indexes: Indexes,
    /// Indexes that have failed, when they have limits of their own.
    pub failed_indexes: Option<Indexes>,
    /// For each index without a running pod its last failed pod, kept until it is replaced.
    pub delayed: BTreeMap<i32, Arc<Pod>>,
    /// The condition that ends the job.
    pub finished: Option<JobCondition>,
    /// When the deadline passes.
    pub deadline_in: Option<Duration>,
    /// Now.
    pub now: Timestamp,
}

/// The spec; jobs always have one.
pub fn spec(job: &Job) -> &JobSpec {
    static EMPTY: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}

/// A condition that holds from now on.
pub fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The condition of a type, if it holds.
pub fn holds<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether the job is complete or failed for good.
pub fn is_finished(job: &Job) -> bool {
    holds(job, "Complete").or(holds(job, "Failed")).is_some()
}

/// Whether each completion has an index.
pub fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

/// Whether the job is suspended.
pub fn is_suspended(job: &Job) -> bool {
    spec(job).suspend == Some(true)
}

/// Whether a pod is replaced only once it has failed, and not already when it is on its way out.
pub fn replaces_only_failed(job: &Job) -> bool {
    spec(job).pod_replacement_policy.as_deref() == Some("Failed") || spec(job).pod_failure_policy.is_some()
}

/// Whether the pod counts as failed.
pub fn is_failed(pod: &Pod, job: &Job) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => meta::is_deleting(&pod.metadata) && !replaces_only_failed(job),
    }
}

/// Whether the pod has yet to be counted.
pub fn is_tracked(pod: &Pod) -> bool {
    meta::has_finalizer(&pod.metadata, TRACKING)
}

/// The status as it is.
pub fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

/// Pods that ended but whose finalizers are still there.
pub fn uncounted(job: &Job) -> UncountedTerminatedPods {
    status(job).uncounted_terminated_pods.unwrap_or_default()
}

/// How many completions there are to be.
pub fn completions(job: &Job) -> i32 {
    spec(job).completions.unwrap_or(i32::MAX)
}

impl View {
    /// Counts.
    pub fn new(mut job: Job, pods: Vec<Arc<Pod>>, now: Timestamp) -> Self {
        if status(&job).start_time.is_none() && !is_suspended(&job) {
            job.status.get_or_insert_default().start_time = Some(Time(now));
        }
        let active = pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let mut view = Self {
            job,
            pods,
            active,
            new_succeeded: Vec::new(),
            new_failed: Vec::new(),
            succeeded: 0,
            failed: 0,
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
            finished: None,
            deadline_in: None,
            now,
        };
        view.count();
        view.end_by_conditions();
        view.end_by_limits();
        if is_indexed(&view.job) {
            view.count_indexes();
        }
        view
    }

    fn count(&mut self) {
        let (status, uncounted) = (status(&self.job), uncounted(&self.job));
        let known = |uids: &Option<Vec<String>>| uids.iter().flatten().cloned().collect::<HashSet<_>>();
        let (succeeded, failed) = (known(&uncounted.succeeded), known(&uncounted.failed));
        self.new_succeeded = self.valid(&succeeded, |pod| pods::phase(pod) == "Succeeded");
        self.new_failed = self.valid(&failed, |pod| is_failed(pod, &self.job));
        let len = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let counting = self.new_failed.iter().filter(|pod| policy::judge(&self.job, pod).counts()).count();
        self.succeeded = status.succeeded.unwrap_or(0) + len(self.new_succeeded.len()) + len(succeeded.len());
        self.failed = status.failed.unwrap_or(0) + len(counting) + len(failed.len());
    }

    /// Tracked pods, with a valid index where there are indexes, that are not counted already.
    fn valid(&self, counted: &HashSet<String>, matches: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let valid = |pod: &&Arc<Pod>| {
            is_tracked(pod)
                && !counted.contains(meta::uid(&pod.metadata))
                && (!is_indexed(&self.job) || self.index(pod).is_some())
                && matches(pod)
        };
        self.pods.iter().filter(valid).cloned().collect()
    }

    /// The pod's index, if it is one of the job's.
    pub fn index(&self, pod: &Pod) -> Option<i32> {
        indexes::of(pod).filter(|index| *index < completions(&self.job))
    }

    /// A job that was once found to succeed or fail stays so.
    fn end_by_conditions(&mut self) {
        if let Some(met) = holds(&self.job, "SuccessCriteriaMet") {
            self.finished = Some(met.clone());
        } else if let Some(target) = holds(&self.job, "FailureTarget") {
            let (reason, message) = (target.reason.as_deref(), target.message.as_deref());
            let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
            self.finished = Some(condition("Failed", "True", reason, message, self.now));
        } else {
            let fatal =
                self.pods.iter().filter(|pod| is_failed(pod, &self.job)).find_map(|pod| match policy::judge(
                    &self.job, pod,
                ) {
                    Failure::FailJob(message) => Some(message),
                    _ => None,
                });
            self.finished = fatal.map(|message| self.failure("PodFailurePolicy", &message));
        }
    }

    fn failure(&self, reason: &str, message: &str) -> JobCondition {
        condition("FailureTarget", "True", reason, message, self.now)
    }

    fn end_by_limits(&mut self) {
        if self.finished.is_some() {
            return;
        }
        let limit = spec(&self.job).backoff_limit.unwrap_or(6);
        if self.failed > limit || self.past_limit_on_failure(limit) {
            let message = "Job has reached the specified backoff limit";
            self.finished = Some(self.failure("BackoffLimitExceeded", message));
            return;
        }
        let (Some(deadline), false) = (spec(&self.job).active_deadline_seconds, is_suspended(&self.job))
        else {
            return;
        };
        let Some(start) = status(&self.job).start_time else { return };
        let left = start.0.as_second() + deadline - self.now.as_second();
        if left <= 0 {
            let message = "Job was active longer than specified deadline";
            self.finished = Some(self.failure("DeadlineExceeded", message));
        } else {
            self.deadline_in = u64::try_from(left).ok().map(Duration::from_secs);
        }
    }

    /// With restarts in place, restarts count instead of pods.
    fn past_limit_on_failure(&self, limit: i32) -> bool {
        let policy = spec(&self.job).template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let living = self.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let statuses = living.filter_map(|pod| pod.status.as_ref());
        let restarts: i32 = statuses
            .flat_map(|status| {
                status.container_statuses.iter().chain(&status.init_container_statuses).flatten()
            })
            .map(|container| container.restart_count)
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn count_indexes(&mut self) {
        let status = status(&self.job);
        let completions = completions(&self.job);
        self.counted_indexes =
            Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let tracked = |view: &Self, matches: &dyn Fn(&Pod) -> bool| -> Vec<i32> {
            let pods = view.pods.iter().filter(|pod| is_tracked(pod) && matches(pod));
            pods.filter_map(|pod| view.index(pod)).collect()
        };
        self.succeeded_indexes = self.counted_indexes.clone();
        self.succeeded_indexes.extend(tracked(self, &|pod| pods::phase(pod) == "Succeeded"));
        self.succeeded = self.succeeded_indexes.len();
        if let Some(limit) = spec(&self.job).backoff_limit_per_index {
            let mut failed =
                Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
            failed.extend(tracked(self, &|pod| self.index_has_failed(pod, limit)));
            self.end_by_failed_indexes(&failed, completions);
            self.failed_indexes = Some(failed);
            self.delay();
        }
        if self.finished.is_none()
            && let Some(message) = policy::success(&self.job, &self.succeeded_indexes, completions)
        {
            self.finished =
                Some(condition("SuccessCriteriaMet", "True", "SuccessPolicy", &message, self.now));
        }
    }

    fn index_has_failed(&self, pod: &Pod, limit: i32) -> bool {
        is_failed(pod, &self.job)
            && match policy::judge(&self.job, pod) {
                Failure::FailIndex => true,
                Failure::Ignore => false,
                _ => i64::from(backoff::count(pod, FAILURES)) >= i64::from(limit),
            }
    }

    fn end_by_failed_indexes(&mut self, failed: &Indexes, completions: i32) {
        if self.finished.is_some() {
            return;
        }
        let max = spec(&self.job).max_failed_indexes;
        if max.is_some_and(|max| failed.len() > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            self.finished = Some(self.failure("MaxFailedIndexesExceeded", message));
        } else if failed.len() > 0 && failed.len() + self.succeeded_indexes.len() >= completions {
            self.finished = Some(self.failure("FailedIndexes", "Job has failed indexes"));
        }
    }

    /// The last failed pod of an index holds the count of failures until its successor is there.
    fn delay(&mut self) {
        let active: HashSet<_> = self.active.iter().filter_map(|pod| indexes::of(pod)).collect();
        let failures = |pod: &Pod| backoff::count(pod, FAILURES) + backoff::count(pod, IGNORED_FAILURES);
        let mut delayed: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && is_failed(pod, &self.job)) {
            let Some(index) = self.index(pod) else { continue };
            let failed = self.failed_indexes.as_ref().is_some_and(|failed| failed.contains(index));
            if self.succeeded_indexes.contains(index) || failed || active.contains(&index) {
                continue;
            }
            let later = delayed.get(&index).is_none_or(|held| {
                failures(held) <= failures(pod) && backoff::finished_at(pod) >= backoff::finished_at(held)
            });
            if later {
                delayed.insert(index, pod.clone());
            }
        }
        self.delayed = delayed;
    }

    /// The backoff after this count.
    pub fn backoff(&self, before: &Backoff) -> Backoff {
        before.after(&self.new_succeeded, &self.new_failed)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    /// A job named `job`.
    pub fn job(spec: JobSpec) -> Job {
        Job {
            metadata: ObjectMeta {
                name: Some("job".into()),
                namespace: Some("default".into()),
                uid: Some("uid-job".into()),
                ..Default::default()
            },
            spec: Some(spec),
            status: None,
        }
    }

    /// Pods: `r` runs, `s` succeeded, `f` failed; a number after it is the index; `!` after it: no finalizer.
    pub fn pods(text: &str) -> Vec<Arc<Pod>> {
        let parse = |(at, word): (usize, &str)| {
            let phase = match word.as_bytes()[0] {
                b'r' => "Running",
                b's' => "Succeeded",
                _ => "Failed",
            };
            let mut pod = pod(&format!("{word}{at}"), "n", phase, (phase == "Running").then_some(1));
            pod.metadata.finalizers = (!word.ends_with('!')).then(|| vec![TRACKING.to_owned()]);
            let index = word[1..].trim_end_matches('!');
            if !index.is_empty() {
                pod.metadata.annotations = Some([(indexes::INDEX.to_owned(), index.to_owned())].into());
            }
            Arc::new(pod)
        };
        text.split_whitespace().enumerate().map(parse).collect()
    }

    #[test]
    fn what_ends_a_job() {
        let limited = JobSpec { backoff_limit: Some(1), ..Default::default() };
        let deadline = JobSpec { active_deadline_seconds: Some(0), ..Default::default() };
        let indexed = |limit, max| JobSpec {
            completion_mode: Some("Indexed".into()),
            completions: Some(3),
            backoff_limit_per_index: limit,
            max_failed_indexes: max,
            backoff_limit: Some(99),
            ..Default::default()
        };
        for (spec, have, reason) in [
            (limited.clone(), "r f", None),
            (limited.clone(), "f f", Some("BackoffLimitExceeded")),
            (limited, "f f!", None),
            (deadline, "r", Some("DeadlineExceeded")),
            (indexed(Some(0), None), "s0 f1 r2", None),
            (indexed(Some(0), None), "s0 f1 s2", Some("FailedIndexes")),
            (indexed(Some(0), Some(0)), "f1", Some("MaxFailedIndexesExceeded")),
            (indexed(None, None), "s0 f1 f2", None),
        ] {
            let view = View::new(job(spec), pods(have), at(100));
            let got = view.finished.as_ref().and_then(|condition| condition.reason.as_deref());
            assert_eq!(got, reason, "{have}");
        }
    }

    #[test]
    fn indexes_are_counted_once() {
        let spec =
            JobSpec { completion_mode: Some("Indexed".into()), completions: Some(5), ..Default::default() };
        let mut job = job(spec);
        job.status = Some(JobStatus { completed_indexes: Some("0".into()), ..Default::default() });
        let view = View::new(job, pods("s0 s1 s1 s9 r2"), at(1));
        assert_eq!((view.succeeded, view.succeeded_indexes.to_string()), (2, "0,1".to_owned()));
    }
}
