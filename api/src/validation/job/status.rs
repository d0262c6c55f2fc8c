//! Jobs changed by their status: what ended stays ended, and counters do not run backwards.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobStatus};

use crate::field::{Error, ErrorList, Path, Report, json};

use super::super::claim::same;
use super::super::meta;
use super::super::rules::{IMMUTABLE, list, text};
use super::super::workload::counters;
use super::{indexes_of, interval};

fn is(status: &JobStatus, kind: &str) -> bool {
    list(&status.conditions).iter().any(|c| c.type_ == kind && c.status == "True")
}

fn is_finished(status: &JobStatus) -> bool {
    is(status, "Complete") || is(status, "Failed")
}

/// A job changed by its status.
pub(crate) fn status(new: &Job, old: &Job) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let check = Check { job: new, status: &status, before: &before, path: Path::new("status") };
    check.own(&mut errors);
    check.against_old(&mut errors);
    errors
}

struct Check<'a> {
    job: &'a Job,
    status: &'a JobStatus,
    before: &'a JobStatus,
    path: Path,
}

impl Check<'_> {
    fn is(&self, kind: &str) -> bool {
        is(self.status, kind)
    }

    /// Whether a condition became true or false.
    fn changed(&self, kind: &str) -> bool {
        self.is(kind) != is(self.before, kind)
    }

    fn conditions(&self, errors: &mut ErrorList, wrong: bool, detail: &str) {
        if wrong {
            errors.push(Error::invalid_omitted(&self.path.child("conditions"), detail));
        }
    }

    fn own(&self, errors: &mut ErrorList) {
        let status = self.status;
        let n = |value: Option<i32>| i64::from(value.unwrap_or(0));
        let fields = [
            ("active", n(status.active)),
            ("succeeded", n(status.succeeded)),
            ("failed", n(status.failed)),
            ("ready", n(status.ready)),
            ("terminating", n(status.terminating)),
        ];
        errors.extend(counters(&self.path, &fields));
        self.uncounted(errors);
        let (complete, failed) = (self.changed("Complete"), self.changed("Failed"));
        let both = self.is("Complete") && self.is("Failed") && (complete || failed);
        self.conditions(errors, both, "cannot set Complete=True and Failed=true conditions");
        let target =
            self.is("Complete") && self.is("FailureTarget") && (complete || self.changed("FailureTarget"));
        self.conditions(errors, target, "cannot set Complete=True and FailureTarget=true conditions");
        self.times(errors);
        let failed_indexes = status.failed_indexes != self.before.failed_indexes;
        let unannounced = self.is("Failed") && !self.is("FailureTarget") && (failed || failed_indexes);
        let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
        self.conditions(errors, unannounced, detail);
        let unmet = self.is("Complete")
            && !self.is("SuccessCriteriaMet")
            && (complete || self.changed("SuccessCriteriaMet"));
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        self.conditions(errors, unmet, detail);
        self.finished(errors);
        self.indexes(errors);
        self.pods(errors);
        let met = self.is("SuccessCriteriaMet");
        let detail = "cannot set SuccessCriteriaMet=True and Failed=true conditions";
        self.conditions(errors, met && self.is("Failed"), detail);
        let detail = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions";
        self.conditions(errors, met && self.is("FailureTarget"), detail);
        let has_policy = self.job.spec.as_ref().is_some_and(|s| s.success_policy.is_some());
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        self.conditions(errors, has_policy && !met && self.is("Complete"), detail);
    }

    fn uncounted(&self, errors: &mut ErrorList) {
        let Some(pods) = &self.status.uncounted_terminated_pods else { return };
        let path = self.path.child("uncountedTerminatedPods");
        let mut seen = BTreeSet::new();
        for (key, uids) in [("succeeded", list(&pods.succeeded)), ("failed", list(&pods.failed))] {
            for (i, uid) in uids.iter().enumerate() {
                let at = path.child(key).index(i);
                if uid.is_empty() {
                    errors.invalid(&at, "", "must not be empty");
                } else if !seen.insert(uid.as_str()) {
                    errors.duplicate(&at, uid.as_str());
                }
            }
        }
    }

    fn times(&self, errors: &mut ErrorList) {
        let (status, before) = (self.status, self.before);
        let at = self.path.child("completionTime");
        let moved = status.completion_time != before.completion_time;
        let relevant = self.changed("Complete") || moved;
        match &status.completion_time {
            Some(time) if relevant && !self.is("Complete") => {
                let detail = "cannot set completionTime when there is no Complete=True condition";
                errors.push(Error::invalid_shown(&at, json(time), detail));
            }
            None if relevant && self.is("Complete") => {
                errors.required(&at, "completionTime is required for Complete jobs");
            }
            _ => {}
        }
        let started = status.start_time != before.start_time;
        if let (Some(start), Some(end)) = (&status.start_time, &status.completion_time)
            && (started || moved)
            && end.0 < start.0
        {
            let detail = "must be equal to or after `startTime`";
            errors.push(Error::invalid_shown(&at, json(end), detail));
        }
    }

    fn finished(&self, errors: &mut ErrorList) {
        let (status, before) = (self.status, self.before);
        let finished = is_finished(status);
        let changed = finished != is_finished(before);
        let active = status.active.unwrap_or(0);
        if active > 0 && finished && (changed || active != before.active.unwrap_or(0)) {
            errors.invalid(&self.path.child("active"), active, "active>0 is invalid for finished job");
        }
        let spec = self.job.spec.as_ref();
        let nothing_to_do = spec.is_some_and(|s| s.suspend == Some(true) && s.completions == Some(0));
        let relevant = (changed || status.start_time != before.start_time) && !nothing_to_do;
        if status.start_time.is_none() && finished && relevant {
            errors.required(&self.path.child("startTime"), "startTime is required for finished job");
        }
        let pods = |s: &JobStatus| s.uncounted_terminated_pods.clone();
        let left = pods(status).filter(|p| !list(&p.failed).is_empty() || !list(&p.succeeded).is_empty());
        let relevant = changed || !same(&pods(status), &pods(before));
        if let Some(left) = left.filter(|_| finished && relevant) {
            let shown =
                format!("{{\"Succeeded\":{},\"Failed\":{}}}", json(&left.succeeded), json(&left.failed));
            let at = self.path.child("uncountedTerminatedPods");
            errors.push(Error::invalid_shown(&at, shown, "must be empty for finished job"));
        }
    }

    fn indexes(&self, errors: &mut ErrorList) {
        let (status, before) = (self.status, self.before);
        let spec = self.job.spec.clone().unwrap_or_default();
        let (completed, failed) = (text(&status.completed_indexes), status.failed_indexes.as_deref());
        let completed_moved = completed != text(&before.completed_indexes);
        let failed_moved = failed != before.failed_indexes.as_deref();
        let (completed_at, failed_at) =
            (self.path.child("completedIndexes"), self.path.child("failedIndexes"));
        if let Some(completions) = spec.completions {
            if let Err(why) = indexes_of(completed, completions)
                && completed_moved
            {
                errors.invalid(&completed_at, completed, format!("error parsing completedIndexes: {why}"));
            }
            if let Some(failed) = failed.filter(|_| failed_moved && spec.backoff_limit_per_index.is_some())
                && let Err(why) = indexes_of(failed, completions)
            {
                errors.invalid(&failed_at, failed, format!("error parsing failedIndexes: {why}"));
            }
        }
        if completed_moved && !completed.is_empty() && spec.completion_mode.as_deref() != Some("Indexed") {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.invalid(&completed_at, completed, detail);
        }
        let Some(failed) = failed else { return };
        if failed_moved && spec.backoff_limit_per_index.is_none() {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.invalid(&failed_at, failed, detail);
        }
        if let Some(completions) = spec.completions.filter(|_| failed_moved || completed_moved)
            && let Some(index) = overlap(completed, failed, completions)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.invalid(&failed_at, failed, detail);
        }
    }

    fn pods(&self, errors: &mut ErrorList) {
        let (status, before) = (self.status, self.before);
        let finished = is_finished(status);
        let changed = finished != is_finished(before) || status.terminating != before.terminating;
        if let Some(terminating) = status.terminating.filter(|t| *t > 0 && finished && changed) {
            let detail = "terminating>0 is invalid for finished job";
            errors.invalid(&self.path.child("terminating"), terminating, detail);
        }
        let changed = status.ready != before.ready || status.active != before.active;
        if let Some(ready) = status.ready.filter(|r| changed && *r > status.active.unwrap_or(0)) {
            errors.invalid(&self.path.child("ready"), ready, "cannot set more ready pods than active");
        }
    }

    fn against_old(&self, errors: &mut ErrorList) {
        let (status, before) = (self.status, self.before);
        for kind in ["Failed", "Complete", "FailureTarget"] {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            self.conditions(errors, is(before, kind) && !self.is(kind), &detail);
        }
        let count = |value: Option<i32>| value.unwrap_or(0);
        if count(status.failed) < count(before.failed) {
            errors.invalid(
                &self.path.child("failed"),
                count(status.failed),
                "cannot decrease the failed counter",
            );
        }
        let spec = self.job.spec.clone().unwrap_or_default();
        let elastic =
            spec.completion_mode.as_deref() == Some("Indexed") && spec.completions == spec.parallelism;
        if !elastic && count(status.succeeded) < count(before.succeeded) {
            let detail = "cannot decrease the succeeded counter";
            errors.invalid(&self.path.child("succeeded"), count(status.succeeded), detail);
        }
        if let (Some(now), Some(old)) = (&status.completion_time, &before.completion_time)
            && now != old
        {
            errors.push(Error::invalid_shown(&self.path.child("completionTime"), json(now), IMMUTABLE));
        }
        let suspended = |s: &JobStatus, value: &str| {
            list(&s.conditions).iter().any(|c| c.type_ == "Suspended" && c.status == value)
        };
        let resuming = suspended(before, "True") && suspended(status, "False");
        let moved = before.start_time.is_some() && before.start_time != status.start_time;
        if moved && !resuming && spec.suspend != Some(true) {
            let detail = "field is immutable for unsuspended job once set";
            let shown = json(&status.start_time);
            errors.push(Error::invalid_shown(&self.path.child("startTime"), shown, detail));
        }
        let lost = is(before, "SuccessCriteriaMet") && !self.is("SuccessCriteriaMet");
        self.conditions(errors, lost, "cannot disable the SuccessCriteriaMet=True condition");
        let late =
            is(before, "Complete") && !is(before, "SuccessCriteriaMet") && self.is("SuccessCriteriaMet");
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        self.conditions(errors, late, detail);
    }
}

/// The first index that two lists of indexes share.
fn overlap(completed: &str, failed: &str, completions: i32) -> Option<i32> {
    let read = |text: &str| -> Vec<(i32, i32)> {
        text.split(',').filter(|p| !p.is_empty()).filter_map(|p| interval(p, completions).ok()).collect()
    };
    let (completed, failed) = (read(completed), read(failed));
    let pairs = completed.iter().flat_map(|c| failed.iter().map(move |f| (c, f)));
    pairs.into_iter().find(|(c, f)| c.0 <= f.1 && f.0 <= c.1).map(|(c, f)| c.0.max(f.0))
}
