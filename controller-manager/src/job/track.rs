//! Counts ended pods exactly once.
//!
//! First their UIDs go into the status, then their finalizers go, then the UIDs become a number. A pod can thus
//! disappear at any moment without being lost or counted twice.

use super::indexes;
use super::policy;
use super::view::{self, View, condition, is_failed, is_tracked};
use crate::common::{meta, pods};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashSet;
use std::sync::Arc;

/// Most UIDs in a status.
const MAX_UNCOUNTED: usize = 500;

/// What came of creating and deleting pods.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    /// Pods that were created.
    pub created: usize,
    /// Pods that were deleted.
    pub deleted: usize,
    /// Of these, ready ones.
    pub deleted_ready: usize,
}

/// What to write.
#[derive(Debug)]
pub struct Tracked {
    /// The status to write before finalizers are removed.
    pub status: JobStatus,
    /// Pods whose finalizers go then.
    pub release: Vec<Arc<Pod>>,
    /// The condition that ends the job once all is counted.
    pub finish: Option<JobCondition>,
    /// Events: reason and message.
    pub events: Vec<(&'static str, &'static str)>,
}

/// Computes the status after pods came and went.
pub fn track(view: &View, outcome: Outcome, finished: Option<JobCondition>) -> Tracked {
    let mut status = view::status(&view.job);
    let mut events = Vec::new();
    let active = view.active.len() + outcome.created - outcome.deleted.min(view.active.len());
    let mut finished = finished.or_else(|| complete(view, active));
    if finished.is_none() && !meta::is_deleting(&view.job.metadata) {
        suspension(view, &mut status, &mut events);
    }
    let ready = view.active.iter().filter(|pod| pods::is_ready(pod)).count();
    let terminating = view.pods.iter().filter(|pod| pods::is_terminating(pod)).count() + outcome.deleted;
    status.active = some(active);
    status.ready = Some(number(ready.saturating_sub(outcome.deleted_ready)));
    status.terminating = Some(number(terminating));
    let mut with_finalizer: HashSet<_> = HashSet::new();
    with_finalizer.extend(view.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| meta::uid(&pod.metadata)));
    settle_uncounted(&mut status, |uid| with_finalizer.contains(uid));
    let (release, full) = collect(view, finished.as_ref(), &mut status);
    if view::is_indexed(&view.job) {
        status.completed_indexes = Some(counted_indexes(view, &release)).filter(|text| !text.is_empty());
        status.succeeded = Some(
            indexes::Indexes::parse(
                status.completed_indexes.as_deref().unwrap_or_default(),
                view::completions(&view.job),
            )
            .len(),
        )
        .filter(|count| *count != 0);
        status.failed_indexes = view.failed_indexes.as_ref().map(ToString::to_string);
    }
    finished = finished.map(|condition| announce(condition, &mut status, view.now));
    Tracked { status, release, finish: finished.filter(|_| !full), events }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn some(count: usize) -> Option<i32> {
    Some(number(count)).filter(|count| *count != 0)
}

/// All that was wanted has succeeded, and nothing runs.
fn complete(view: &View, active: usize) -> Option<JobCondition> {
    let done = match view::spec(&view.job).completions {
        None => view.succeeded > 0,
        Some(completions) => view.succeeded >= completions,
    };
    let message = "Reached expected number of succeeded pods";
    (done && active == 0)
        .then(|| condition("SuccessCriteriaMet", "True", "CompletionsReached", message, view.now))
}

fn suspension(view: &View, status: &mut JobStatus, events: &mut Vec<(&'static str, &'static str)>) {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let list = status.conditions.get_or_insert_default();
    if view::is_suspended(&view.job) {
        if ensure(list, condition("Suspended", "True", "JobSuspended", "Job suspended", view.now)) {
            events.push(("Suspended", "Job suspended"));
            status.start_time = None;
        }
    } else if ensure(list, condition("Suspended", "False", "JobResumed", "Job resumed", view.now)) {
        events.push(("Resumed", "Job resumed"));
        status.start_time = Some(Time(view.now));
    }
}

/// Sets a condition; one that is false is not added. Tells whether that changed anything.
fn ensure(list: &mut Vec<JobCondition>, condition: JobCondition) -> bool {
    match list.iter_mut().find(|held| held.type_ == condition.type_) {
        Some(held) => {
            let same = held.status == condition.status
                && held.reason == condition.reason
                && held.message == condition.message;
            if !same {
                *held = condition;
            }
            !same
        }
        None if condition.status == "False" => false,
        None => {
            list.push(condition);
            true
        }
    }
}

/// UIDs of pods without finalizer become numbers.
fn settle_uncounted(status: &mut JobStatus, has_finalizer: impl Fn(&str) -> bool) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let settle = |uids: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let before = uids.as_ref().map_or(0, Vec::len);
        if let Some(list) = uids {
            list.retain(|uid| has_finalizer(uid));
        }
        *uids = uids.take().filter(|list| !list.is_empty());
        let gone = before - uids.as_ref().map_or(0, Vec::len);
        *count = Some(count.unwrap_or(0) + number(gone)).filter(|count| *count != 0);
    };
    settle(&mut uncounted.succeeded, &mut status.succeeded);
    settle(&mut uncounted.failed, &mut status.failed);
}

/// Notes ended pods in the status. Tells which finalizers may go, and whether there are more pods than fit.
fn collect(view: &View, finished: Option<&JobCondition>, status: &mut JobStatus) -> (Vec<Arc<Pod>>, bool) {
    let indexed = view::is_indexed(&view.job);
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let mut release = Vec::new();
    let mut pods = view.pods.clone();
    if indexed {
        pods.sort_by_key(|pod| indexes::of(pod).unwrap_or(-1));
    }
    let ended_well = finished.is_some_and(|condition| condition.type_ == "SuccessCriteriaMet");
    for pod in pods.into_iter().filter(|pod| is_tracked(pod)) {
        let failed = is_failed(&pod, &view.job);
        if !may_release(view, &pod, failed, finished.is_some()) {
            continue;
        }
        let uid = meta::uid(&pod.metadata).to_owned();
        let noted = |list: &Option<Vec<String>>| list.iter().flatten().any(|held| *held == uid);
        let valid = !indexed || view.index(&pod).is_some();
        if pods::phase(&pod) == "Succeeded" && !noted(&uncounted.failed) {
            if !indexed && !noted(&uncounted.succeeded) {
                uncounted.succeeded.get_or_insert_default().push(uid);
            }
        } else if (failed || (finished.is_some() && !ended_well))
            && !noted(&uncounted.failed)
            && valid
            && policy::judge(&view.job, &pod).counts()
        {
            uncounted.failed.get_or_insert_default().push(uid);
        }
        release.push(pod);
        let noted = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        let in_status =
            if indexed { release.len() } else { noted(&uncounted.succeeded) } + noted(&uncounted.failed);
        if in_status >= MAX_UNCOUNTED {
            return (release, true);
        }
    }
    (release, false)
}

fn may_release(view: &View, pod: &Pod, failed: bool, finished: bool) -> bool {
    if meta::is_deleting(&view.job.metadata) || finished || pods::phase(pod) == "Succeeded" {
        return true;
    }
    let delayed = || {
        let index = indexes::of(pod);
        index
            .and_then(|index| view.delayed.get(&index))
            .is_some_and(|held| held.metadata.uid == pod.metadata.uid)
    };
    failed && !delayed()
}

/// Only pods that are released now count, so that the status never runs ahead of the finalizers.
fn counted_indexes(view: &View, release: &[Arc<Pod>]) -> String {
    let mut counted = view.counted_indexes.clone();
    let succeeded = release.iter().filter(|pod| pods::phase(pod) == "Succeeded");
    counted.extend(succeeded.filter_map(|pod| view.index(pod)));
    counted.to_string()
}

/// Success and failure are first announced, and final only when all pods are gone and counted.
fn announce(found: JobCondition, status: &mut JobStatus, now: Timestamp) -> JobCondition {
    let list = status.conditions.get_or_insert_default();
    let last = match found.type_.as_str() {
        "FailureTarget" => "Failed",
        "SuccessCriteriaMet" => "Complete",
        _ => return found,
    };
    if !list.iter().any(|held| held.type_ == found.type_) {
        list.push(found.clone());
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    condition(last, "True", &text(&found.reason), &text(&found.message), now)
}

/// The status after the finalizers of `released` pods are gone: their UIDs become numbers, and the job is finished
/// if nothing is left. Returns whether it is.
pub fn settle(
    job: &Job,
    view: &View,
    released: &HashSet<String>,
    finish: Option<&JobCondition>,
) -> (JobStatus, bool) {
    let mut status = view::status(job);
    let held: HashSet<_> = view
        .pods
        .iter()
        .filter(|pod| is_tracked(pod) && !released.contains(meta::uid(&pod.metadata)))
        .map(|pod| meta::uid(&pod.metadata))
        .collect();
    settle_uncounted(&mut status, |uid| held.contains(uid));
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let left = uncounted.succeeded.is_some() || uncounted.failed.is_some();
    let Some(finish) = finish.filter(|_| !left && status.terminating.unwrap_or(0) == 0) else {
        return (status, false);
    };
    ensure(status.conditions.get_or_insert_default(), finish.clone());
    if finish.type_ == "Complete" {
        status.completion_time.clone_from(&finish.last_transition_time);
    }
    (status, true)
}

/// The status without parts that say nothing.
pub fn normal(mut status: JobStatus) -> JobStatus {
    let some = |number: Option<i32>| number.filter(|number| *number != 0);
    status.active = some(status.active);
    status.succeeded = some(status.succeeded);
    status.failed = some(status.failed);
    status.conditions = status.conditions.filter(|conditions| !conditions.is_empty());
    status.completed_indexes = status.completed_indexes.filter(|text| !text.is_empty());
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    uncounted.succeeded = uncounted.succeeded.take().filter(|list| !list.is_empty());
    uncounted.failed = uncounted.failed.take().filter(|list| !list.is_empty());
    status
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{job, pods};
    use super::*;
    use crate::common::pods::tests::at;
    use k8s_openapi::api::batch::v1::JobSpec;

    /// Runs one pass: status after the first write, the released pods, and the settled status.
    fn pass(job: Job, have: &str) -> (JobStatus, usize, JobStatus, bool) {
        let view = View::new(job, pods(have), at(100));
        let finished = view.finished.clone();
        let tracked = track(&view, Outcome::default(), finished);
        let released = tracked.release.iter().map(|pod| meta::uid(&pod.metadata).to_owned()).collect();
        let written = Job { status: Some(tracked.status.clone()), ..view.job.clone() };
        let (settled, done) = settle(&written, &view, &released, tracked.finish.as_ref());
        (tracked.status, tracked.release.len(), settled, done)
    }

    fn spec(completions: i32) -> JobSpec {
        JobSpec { completions: Some(completions), parallelism: Some(completions), ..Default::default() }
    }

    #[test]
    fn ended_pods_are_noted_released_and_counted() {
        let (first, released, settled, done) = pass(job(spec(3)), "s f r");
        let uncounted = first.uncounted_terminated_pods.expect("noted");
        assert_eq!(
            (uncounted.succeeded.map(|l| l.len()), uncounted.failed.map(|l| l.len())),
            (Some(1), Some(1))
        );
        assert_eq!((first.succeeded, first.failed, released), (None, None, 2));
        assert_eq!((settled.succeeded, settled.failed, done), (Some(1), Some(1), false));
        assert_eq!((settled.active, settled.ready), (Some(1), Some(1)));
    }

    #[test]
    fn counting_again_changes_nothing() {
        let (_, _, settled, _) = pass(job(spec(3)), "s f r");
        let mut job = job(spec(3));
        job.status = Some(settled.clone());
        let (first, released, again, _) = pass(job, "s! f! r");
        assert_eq!((normal(first), released), (normal(settled.clone()), 0));
        assert_eq!(normal(again), normal(settled));
    }

    #[test]
    fn job_completes_when_all_is_counted() {
        let (first, _, settled, done) = pass(job(spec(2)), "s s");
        let kinds = |status: &JobStatus| -> Vec<String> {
            status.conditions.iter().flatten().map(|condition| condition.type_.clone()).collect()
        };
        assert_eq!(kinds(&first), ["SuccessCriteriaMet"]);
        assert_eq!(kinds(&settled), ["SuccessCriteriaMet", "Complete"]);
        assert!(done && settled.completion_time.is_some());
        assert_eq!(settled.succeeded, Some(2));
    }

    #[test]
    fn failed_job_names_its_reason() {
        let limited = JobSpec { backoff_limit: Some(0), ..spec(2) };
        let (first, _, settled, done) = pass(job(limited), "f");
        let said: Vec<_> =
            settled.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.reason.as_deref())).collect();
        let reason = Some("BackoffLimitExceeded");
        assert_eq!(said, [("FailureTarget", reason), ("Failed", reason)]);
        assert!(done && first.completion_time.is_none());
    }

    #[test]
    fn indexed_job_reports_indexes() {
        let indexed = JobSpec { completion_mode: Some("Indexed".into()), ..spec(4) };
        let (first, released, settled, _) = pass(job(indexed), "s0 s2 s3 r1");
        assert_eq!((first.completed_indexes.as_deref(), released), (Some("0,2,3"), 3));
        assert_eq!(settled.succeeded, Some(3));
    }

    #[test]
    fn suspended_job_has_no_start() {
        let (first, ..) = pass(job(JobSpec { suspend: Some(true), ..spec(1) }), "");
        assert!(first.start_time.is_none());
        assert_eq!(first.conditions.map(|list| list[0].type_.clone()).as_deref(), Some("Suspended"));
    }
}
