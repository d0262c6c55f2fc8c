//! Jobs and cron jobs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::{
    CronJob, CronJobSpec, Job, JobSpec, PodFailurePolicy, PodFailurePolicyRule, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec};

use crate::field::{Error, ErrorList, Path, Report, json, quote};
use crate::format;
use crate::selector::LabelSelector as Selector;

use super::claim::same;
use super::cron;
use super::golang;
use super::meta::{self, label_selector};
use super::pod;
use super::rules::{IMMUTABLE, list, non_negative, qualified_name, text, to_value};
use super::workload::{restart_policy, show_selector};

mod status;

pub(crate) use status::status;

/// What is shown for lists of accepted values in Go's `%q`.
fn quoted(values: &[&str]) -> String {
    let all: Vec<String> = values.iter().map(|v| quote(v)).collect();
    format!("[{}]", all.join(" "))
}

/// A new job.
pub(crate) fn job(object: &Job) -> ErrorList {
    any_job(object, None, true)
}

fn any_job(object: &Job, old: Option<&JobSpec>, prefixed: bool) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    generated_selector(object, prefixed, &mut errors);
    let spec = object.spec.clone().unwrap_or_default();
    errors.extend(job_spec(&spec, old, &Path::new("spec")));
    let name = text(&object.metadata.name);
    if let Some(completions) = spec.completions.filter(|c| *c > 0)
        && spec.completion_mode.as_deref() == Some("Indexed")
    {
        let last = format!("{name}-{}", completions - 1);
        if !format::dns1123_label(&last).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {last}");
            errors.invalid(&path.child("name"), name, detail);
        }
    }
    errors
}

fn generated_selector(object: &Job, prefixed: bool, errors: &mut ErrorList) {
    let Some(spec) = &object.spec else { return };
    let Some(selector) = &spec.selector else { return };
    if spec.manual_selector == Some(true) {
        return;
    }
    let (uid, name) = (text(&object.metadata.uid), text(&object.metadata.name));
    if uid.is_empty() {
        errors.required(&Path::new("metadata").child("uid"), "");
    }
    let empty = BTreeMap::new();
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref()).unwrap_or(&empty);
    let at = Path::new("spec").child("template").child("metadata").child("labels");
    let all = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let wanted = if prefixed { &all[..] } else { &all[..2] };
    for (key, value) in wanted {
        let detail = format!("must be '{value}'");
        match labels.get(*key) {
            None => errors.required(&at.key(key), detail),
            Some(actual) if actual != value => errors.invalid(&at.key(key), to_value(labels), detail),
            Some(_) => {}
        }
    }
    let expected: BTreeMap<String, String> =
        wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    if Selector::from_meta(Some(selector)).is_ok_and(|s| !s.matches(&expected)) {
        let at = Path::new("spec").child("selector");
        errors.push(Error::invalid_shown(
            &at,
            show_selector(Some(selector)),
            "`selector` not auto-generated",
        ));
    }
}

fn job_spec(spec: &JobSpec, old: Option<&JobSpec>, path: &Path) -> ErrorList {
    let before = old.map(|old| &old.template);
    let mut errors = common_spec(spec, before, path);
    let at = path.child("selector");
    match &spec.selector {
        None => errors.required(&at, ""),
        Some(selector) => {
            let lax = old.is_some_and(|old| meta::has_invalid_values(old.selector.as_ref()))
                || pod::of_template(before).contains(&pod::Fault::SelectorValues);
            errors.extend(label_selector(Some(selector), lax, &at));
        }
    }
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    if Selector::from_meta(spec.selector.as_ref()).is_ok_and(|s| !s.matches(&labels)) {
        let at = path.child("template").child("metadata").child("labels");
        let shown = labels.map(to_value).unwrap_or_default();
        errors.invalid(&at, shown, "`selector` does not match template `labels`");
    }
    errors
}

/// What jobs and the jobs of cron jobs have in common.
fn common_spec(spec: &JobSpec, old: Option<&PodTemplateSpec>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let numbers = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (key, number) in numbers {
        errors.extend(number.into_iter().flat_map(|n| non_negative(n, &path.child(key))));
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &spec.managed_by {
        let at = path.child("managedBy");
        errors.extend(format::domain_prefixed_path(&at, manager));
        if manager.len() > 63 {
            errors.too_long(&at, 63);
        }
    }
    completion_mode(spec, path, &mut errors);
    if let Some(policy) = &spec.pod_failure_policy {
        failure_policy(policy, spec, &path.child("podFailurePolicy"), &mut errors);
    }
    if let Some(policy) = &spec.success_policy {
        let at = path.child("successPolicy");
        if spec.completion_mode.as_deref() == Some("Indexed") {
            success_policy(&policy.rules, spec, &at.child("rules"), &mut errors);
        } else {
            let shown = golang::show("batch.SuccessPolicy", &to_value(policy));
            errors.push(Error::invalid_shown(&at, shown, "requires indexed completion mode"));
        }
    }
    if let Some(policy) = &spec.pod_replacement_policy {
        let known: &[&str] =
            if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        errors.one_of(&path.child("podReplacementPolicy"), policy, known);
    }
    errors.extend(pod::template(&spec.template, old, &path.child("template")));
    let at = path.child("template").child("spec").child("restartPolicy");
    match restart_policy(&spec.template) {
        "" | "Always" => errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&at, "OnFailure", detail);
        }
        policy => errors.one_of(&at, policy, &["OnFailure", "Never"]),
    }
    errors
}

fn completion_mode(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let mode = spec.completion_mode.as_deref();
    if let Some(mode) = mode {
        errors.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    let (failed_at, parallel_at) = (path.child("maxFailedIndexes"), path.child("parallelism"));
    if mode == Some("Indexed") {
        if spec.completions.is_none() {
            errors.required(&path.child("completions"), "when completion mode is Indexed");
        }
        let completions = spec.completions.unwrap_or(i32::MAX);
        if let Some(parallelism) = spec.parallelism.filter(|p| *p > 100_000) {
            let detail = "must be less than or equal to 100000 when completion mode is Indexed";
            errors.invalid(&parallel_at, parallelism, detail);
        }
        if let Some(failed) =
            spec.max_failed_indexes.filter(|f| spec.completions.is_some() && *f > completions)
        {
            errors.invalid(&failed_at, failed, "must be less than or equal to completions");
        }
        if let Some(failed) = spec.max_failed_indexes.filter(|f| *f > 100_000) {
            errors.invalid(&failed_at, failed, "must be less than or equal to 100000");
        }
        if spec.completions.is_some_and(|c| c > 100_000) && spec.backoff_limit_per_index.is_some() {
            let detail = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
            if spec.max_failed_indexes.is_none() {
                errors.required(&failed_at, "must be specified when completions is above 100000");
            }
            if let Some(parallelism) = spec.parallelism.filter(|p| *p > 10_000) {
                errors.invalid(&parallel_at, parallelism, detail);
            }
            if let Some(failed) = spec.max_failed_indexes.filter(|f| *f > 10_000) {
                errors.invalid(&failed_at, failed, detail);
            }
        }
    }
    if matches!(mode, None | Some("NonIndexed")) {
        let detail = "requires indexed completion mode";
        if let Some(limit) = spec.backoff_limit_per_index {
            errors.invalid(&path.child("backoffLimitPerIndex"), limit, detail);
        }
        if let Some(failed) = spec.max_failed_indexes {
            errors.invalid(&failed_at, failed, detail);
        }
    }
}

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

fn failure_policy(policy: &PodFailurePolicy, spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let rules = &policy.rules;
    let at = path.child("rules");
    if rules.len() > 20 {
        errors.push(Error::too_many(&at, rules.len(), 20));
    }
    let pod = spec.template.spec.clone().unwrap_or_default();
    let names: BTreeSet<String> =
        pod.containers.iter().chain(list(&pod.init_containers)).map(|c| c.name.clone()).collect();
    for (i, rule) in rules.iter().enumerate() {
        failure_rule(rule, spec, &names, &at.index(i), errors);
    }
}

fn failure_rule(
    rule: &PodFailurePolicyRule,
    spec: &JobSpec,
    names: &BTreeSet<String>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let at = path.child("action");
    match rule.action.as_str() {
        "" => errors.required(&at, format!("valid values: {}", quoted(&ACTIONS))),
        "FailIndex" => {
            if spec.backoff_limit_per_index.is_none() {
                errors.invalid(&at, "FailIndex", "requires the backoffLimitPerIndex to be set");
            }
        }
        action => errors.one_of(&at, action, &ACTIONS),
    }
    if let Some(codes) = &rule.on_exit_codes {
        let path = path.child("onExitCodes");
        match codes.operator.as_str() {
            "" => errors
                .required(&path.child("operator"), format!("valid values: {}", quoted(&["In", "NotIn"]))),
            operator => errors.one_of(&path.child("operator"), operator, &["In", "NotIn"]),
        }
        if let Some(name) = codes.container_name.as_ref().filter(|n| !names.contains(*n)) {
            let detail = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&path.child("containerName"), name.as_str(), detail);
        }
        exit_codes(&codes.values, &codes.operator, &path.child("values"), errors);
    }
    let conditions = list(&rule.on_pod_conditions);
    if conditions.len() > 20 {
        errors.push(Error::too_many(&path.child("onPodConditions"), conditions.len(), 20));
    }
    for (i, pattern) in conditions.iter().enumerate() {
        let path = path.child("onPodConditions").index(i);
        errors.extend(qualified_name(&pattern.type_, &path.child("type")));
        let known = ["False", "True", "Unknown"];
        match text(&pattern.status) {
            "" => errors.required(&path.child("status"), format!("valid values: {}", quoted(&known))),
            status => errors.one_of(&path.child("status"), status, &known),
        }
    }
    let detail = match (rule.on_exit_codes.is_some(), !conditions.is_empty()) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(Error::invalid_omitted(path, detail));
}

fn exit_codes(values: &[i32], operator: &str, path: &Path, errors: &mut ErrorList) {
    if values.is_empty() {
        errors.push(Error::invalid_shown(path, "null", "at least one value is required"));
    } else if values.len() > 255 {
        errors.push(Error::too_many(path, values.len(), 255));
    }
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.invalid(&path.index(i), 0, "must not be 0 for the In operator");
        }
        if values[..i].contains(value) {
            errors.duplicate(&path.index(i), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(path, values.to_vec(), "must be ordered");
    }
}

fn success_policy(rules: &[SuccessPolicyRule], spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.required(path, detail);
    }
    if rules.len() > 20 {
        errors.push(Error::too_many(path, rules.len(), 20));
    }
    let completions = spec.completions.unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.required(&path, detail);
        }
        let mut total = 0;
        if let Some(indexes) = &rule.succeeded_indexes {
            let at = path.child("succeededIndexes");
            if indexes.len() > 64 << 10 {
                errors.too_long(&at, 64 << 10);
            }
            match indexes_of(indexes, completions) {
                Ok(count) => total = count,
                Err(why) => {
                    errors.invalid(&at, indexes.as_str(), format!("error parsing succeededIndexes: {why}"));
                }
            }
        }
        let Some(count) = rule.succeeded_count else { continue };
        let at = path.child("succeededCount");
        errors.extend(non_negative(count, &at));
        if count > completions {
            let detail =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(&at, count, detail);
        }
        if rule.succeeded_indexes.is_some() && count > total {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.invalid(&at, count, detail);
        }
    }
}

/// How many indexes `1,3-5` names; why it cannot be read.
fn indexes_of(text: &str, completions: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for part in text.split(',') {
        let (x, y) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= x) {
            return Err(format!("non-increasing order, previous: {last}, current: {x}"));
        }
        total += y - x + 1;
        last = Some(y);
    }
    Ok(total)
}

fn interval(text: &str, completions: i32) -> Result<(i32, i32), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            quote(text)
        ));
    }
    let index = |part: &str| {
        let value: i32 = part
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {}", quote(part)))?;
        if value >= completions { Err(format!("too large index: {}", quote(part))) } else { Ok(value) }
    };
    let x = index(parts[0])?;
    match parts.get(1) {
        None => Ok((x, x)),
        Some(part) => {
            let y = index(part)?;
            if x >= y {
                return Err(format!("non-increasing order, previous: {x}, current: {y}"));
            }
            Ok((x, y))
        }
    }
}

/// A changed job.
pub(crate) fn job_update(new: &Job, old: &Job) -> ErrorList {
    let labels = old.spec.as_ref().and_then(|s| s.template.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    let had = |key: &str| labels.is_some_and(|l| l.contains_key(key));
    let prefixed = had("batch.kubernetes.io/job-name") && had("batch.kubernetes.io/controller-uid");
    let mut errors = any_job(new, old.spec.as_ref(), prefixed);
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata")));
    let (spec, old_spec) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let path = Path::new("spec");
    errors.extend(job_spec(&spec, Some(&old_spec), &path));
    completions_update(&spec, &old_spec, &path.child("completions"), &mut errors);
    if !same(&spec.selector, &old_spec.selector) {
        let shown = show_selector(spec.selector.as_ref());
        errors.push(Error::invalid_shown(&path.child("selector"), shown, IMMUTABLE));
    }
    template_update(&spec, &old_spec, old, &path, &mut errors);
    let mut fixed = |key: &str, equal: bool, shown: String| {
        if !equal {
            errors.push(Error::invalid_shown(&path.child(key), shown, IMMUTABLE));
        }
    };
    fixed("completionMode", spec.completion_mode == old_spec.completion_mode, json(&spec.completion_mode));
    let policy = to_value(&spec.pod_failure_policy);
    fixed(
        "podFailurePolicy",
        same(&spec.pod_failure_policy, &old_spec.pod_failure_policy),
        golang::show("batch.PodFailurePolicy", &policy),
    );
    fixed(
        "backoffLimitPerIndex",
        spec.backoff_limit_per_index == old_spec.backoff_limit_per_index,
        json(&spec.backoff_limit_per_index),
    );
    fixed("managedBy", spec.managed_by == old_spec.managed_by, json(&spec.managed_by));
    let policy = to_value(&spec.success_policy);
    fixed(
        "successPolicy",
        same(&spec.success_policy, &old_spec.success_policy),
        golang::show("batch.SuccessPolicy", &policy),
    );
    errors
}

fn completions_update(new: &JobSpec, old: &JobSpec, path: &Path, errors: &mut ErrorList) {
    if new.completions == old.completions {
        return;
    }
    if new.completion_mode.as_deref() != Some("Indexed") {
        errors.push(Error::invalid_shown(path, json(&new.completions), IMMUTABLE));
    } else if let Some(completions) = new.completions.filter(|_| new.completions != new.parallelism) {
        errors.invalid(path, completions, "can only be modified in tandem with spec.parallelism");
    }
}

/// Suspended jobs that have not started may still change where and with what their pods run.
fn template_update(new: &JobSpec, old: &JobSpec, old_job: &Job, path: &Path, errors: &mut ErrorList) {
    let suspended = old.suspend == Some(true);
    let conditions = old_job.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
    let said = conditions.iter().any(|c| c.type_ == "Suspended" && c.status == "True");
    let started = old_job.status.as_ref().is_some_and(|s| s.start_time.is_some());
    let active = old_job.status.as_ref().and_then(|s| s.active).unwrap_or(0);
    let mutable = suspended && (said || !started) && active == 0;
    let mut before = old.template.clone();
    if mutable {
        take_directives(&mut before, &new.template);
    }
    if !suspended || !mutable {
        if !same(&new.template, &before) {
            let shown = golang::show("core.PodTemplateSpec", &to_value(&new.template));
            errors.push(Error::invalid_shown(&path.child("template"), shown, IMMUTABLE));
        }
        return;
    }
    let (now, mut kept) =
        (new.template.spec.clone().unwrap_or_default(), before.spec.clone().unwrap_or_default());
    if now.containers.len() == kept.containers.len() {
        for (kept, now) in kept.containers.iter_mut().zip(&now.containers).filter(|(k, n)| k.name == n.name) {
            kept.resources.clone_from(&now.resources);
        }
    }
    let init = list(&now.init_containers);
    if init.len() == list(&kept.init_containers).len() {
        for (kept, now) in
            kept.init_containers.iter_mut().flatten().zip(init).filter(|(k, n)| k.name == n.name)
        {
            kept.resources.clone_from(&now.resources);
        }
    }
    if !same(&now, &kept) {
        let shown = golang::show("core.PodSpec", &to_value(&now));
        errors.push(Error::invalid_shown(&path.child("template.spec"), shown, IMMUTABLE));
    }
}

fn take_directives(before: &mut PodTemplateSpec, now: &PodTemplateSpec) {
    let (meta, now_meta) =
        (before.metadata.get_or_insert_default(), now.metadata.clone().unwrap_or_default());
    (meta.annotations, meta.labels) = (now_meta.annotations, now_meta.labels);
    if now.metadata.is_none() && *meta == Default::default() {
        before.metadata = None;
    }
    let (Some(spec), Some(now)) = (before.spec.as_mut(), now.spec.as_ref()) else { return };
    match (&mut spec.affinity, &now.affinity) {
        (Some(own), None) => {
            own.node_affinity = None;
            if *own == Affinity::default() {
                spec.affinity = None;
            }
        }
        (own @ None, Some(now)) => {
            *own = Some(Affinity { node_affinity: now.node_affinity.clone(), ..Affinity::default() });
        }
        (Some(own), Some(now)) => own.node_affinity.clone_from(&now.node_affinity),
        (None, None) => {}
    }
    spec.node_selector.clone_from(&now.node_selector);
    spec.tolerations.clone_from(&now.tolerations);
    spec.scheduling_gates.clone_from(&now.scheduling_gates);
}

/// A new cron job.
pub(crate) fn cron_job(object: &CronJob) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    errors.extend(cron_spec(&object.spec, None, &Path::new("spec")));
    let name = text(&object.metadata.name);
    if name.len() > 52 {
        errors.invalid(&path.child("name"), name, "must be no more than 52 characters");
    }
    errors
}

/// A changed cron job.
pub(crate) fn cron_job_update(new: &CronJob, old: &CronJob) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    errors.extend(cron_spec(&new.spec, Some(&old.spec), &Path::new("spec")));
    errors
}

fn cron_spec(spec: &CronJobSpec, old: Option<&CronJobSpec>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("schedule");
    let schedule = spec.schedule.as_str();
    if schedule.is_empty() {
        errors.required(&at, "");
    } else {
        if let Some(why) = cron::error(schedule) {
            errors.invalid(&at, schedule, why);
        }
        let allowed = old.is_some_and(|o| o.schedule.contains("TZ"));
        if schedule.contains("TZ") && allowed && spec.time_zone.is_some() {
            errors.invalid(&at, schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        } else if schedule.contains("TZ") && !allowed {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(&at, schedule, detail);
        }
    }
    if let Some(seconds) = spec.starting_deadline_seconds {
        errors.extend(non_negative(seconds, &path.child("startingDeadlineSeconds")));
    }
    if old.is_none_or(|o| o.time_zone != spec.time_zone) {
        time_zone(spec.time_zone.as_deref(), &path.child("timeZone"), &mut errors);
    }
    match text(&spec.concurrency_policy) {
        "" => errors.required(&path.child("concurrencyPolicy"), ""),
        policy => errors.one_of(&path.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]),
    }
    let job = spec.job_template.spec.clone().unwrap_or_default();
    let at = path.child("jobTemplate").child("spec");
    let before = old.and_then(|old| old.job_template.spec.as_ref()).map(|spec| &spec.template);
    errors.extend(common_spec(&job, before, &at));
    if let Some(selector) = &job.selector {
        let shown = show_selector(Some(selector));
        errors.push(Error::invalid_shown(&at.child("selector"), shown, "`selector` will be auto-generated"));
    }
    if job.manual_selector == Some(true) {
        errors.not_supported(&at.child("manualSelector"), true, &["nil", "false"]);
    }
    let limits = [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ];
    for (key, limit) in limits {
        errors.extend(limit.into_iter().flat_map(|l| non_negative(l, &path.child(key))));
    }
    errors
}

fn time_zone(zone: Option<&str>, path: &Path, errors: &mut ErrorList) {
    let Some(zone) = zone else { return };
    if zone.is_empty() {
        return errors.invalid(path, "", "timeZone must be nil or non-empty string");
    }
    let good = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    let unknown = format!("unknown time zone {zone}");
    if !zone.split('/').all(good) {
        return errors.invalid(path, zone, unknown);
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, detail);
    }
    if !cron::is_time_zone(zone) {
        errors.invalid(path, zone, unknown);
    }
}
