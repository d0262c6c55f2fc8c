//! Workloads of the `apps` group, and replication controllers.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec,
    DeploymentStrategy, ReplicaSet, ReplicaSetSpec, StatefulSet, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaimVolumeSource, PodTemplateSpec, ReplicationController, ReplicationControllerSpec,
    Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::selector::LabelSelector as Selector;

use super::claim::{claim_spec, same};
use super::golang;
use super::meta::{self, label_selector};
use super::pod;
use super::rules::{
    IMMUTABLE, list, non_negative, non_negative_int_or_percent, not_more_than_100_percent, percentage, text,
    to_value,
};

type Labels = BTreeMap<String, String>;

fn template_labels(template: &PodTemplateSpec) -> Option<&Labels> {
    template.metadata.as_ref().and_then(|m| m.labels.as_ref())
}

pub(crate) fn restart_policy(template: &PodTemplateSpec) -> &str {
    template.spec.as_ref().map(|s| text(&s.restart_policy)).unwrap_or_default()
}

pub(crate) fn show_selector(selector: Option<&LabelSelector>) -> String {
    golang::show("metav1.LabelSelector", &to_value(&selector))
}

fn invalid_selector(path: &Path, selector: Option<&LabelSelector>, detail: &str) -> Error {
    Error::invalid_shown(path, show_selector(selector), detail)
}

/// The labels of a template as a bad value.
fn shown_labels(labels: Option<&Labels>) -> Value {
    labels.filter(|l| !l.is_empty()).map(to_value).unwrap_or_default()
}

/// A selector that must be there and not be empty.
fn selector(selector: &LabelSelector, given: bool, path: &Path, kind: &str, errors: &mut ErrorList) {
    if !given {
        return errors.required(path, "");
    }
    errors.extend(label_selector(Some(selector), false, path));
    if is_empty(selector) {
        errors.push(invalid_selector(path, Some(selector), &format!("empty selector is invalid for {kind}")));
    }
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && list(&selector.match_expressions).is_empty()
}

/// Templates must be selected and run for ever.
fn selected_template(
    template: &PodTemplateSpec,
    selector: &Selector,
    kind: &str,
    path: &Path,
    old: Option<&PodTemplateSpec>,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let labels = template_labels(template);
    if !selector.is_empty() && !selector.matches(&labels) {
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&path.child("metadata").child("labels"), shown_labels(labels), detail);
    }
    errors.extend(pod::template(template, old, path));
    always(template, kind, path, &mut errors);
    errors
}

fn always(template: &PodTemplateSpec, kind: &str, path: &Path, errors: &mut ErrorList) {
    errors.one_of(&path.child("spec").child("restartPolicy"), restart_policy(template), &["Always"]);
    if template.spec.as_ref().is_some_and(|s| s.active_deadline_seconds.is_some()) {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("spec").child("activeDeadlineSeconds"), detail);
    }
}

/// Counters of a status, none below zero.
pub(crate) fn counters(path: &Path, fields: &[(&str, i64)]) -> ErrorList {
    fields.iter().flat_map(|(key, value)| non_negative(*value, &path.child(key))).collect()
}

fn not_above(path: &Path, errors: &mut ErrorList, limit: i64, fields: &[(&str, i64)], detail: &str) {
    for (key, value) in fields.iter().filter(|(_, value)| *value > limit) {
        errors.invalid(&path.child(key), *value, detail);
    }
}

const REPLICAS: &str = "cannot be greater than status.replicas";

fn n(value: Option<i32>) -> i64 {
    i64::from(value.unwrap_or(0))
}

fn not_decremented(new: Option<i32>, old: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if old.is_some() && new.is_none_or(|new| Some(new) < old) {
        errors.invalid(&path.child("collisionCount"), new.unwrap_or(0), "cannot be decremented");
    }
}

/// A new deployment.
pub(crate) fn deployment(object: &Deployment, given: bool) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    let empty = DeploymentSpec::default();
    errors.extend(deployment_spec(object.spec.as_ref().unwrap_or(&empty), None, given, &Path::new("spec")));
    errors
}

fn deployment_spec(
    spec: &DeploymentSpec,
    old: Option<&DeploymentSpec>,
    given: bool,
    path: &Path,
) -> ErrorList {
    let mut errors = non_negative(spec.replicas.unwrap_or(0), &path.child("replicas"));
    let templates = (&spec.template, old.map(|old| &old.template));
    required_selector(&spec.selector, templates, given, path, &mut errors);
    deployment_strategy(spec.strategy.as_ref(), &path.child("strategy"), &mut errors);
    let ready = spec.min_ready_seconds.unwrap_or(0);
    errors.extend(non_negative(ready, &path.child("minReadySeconds")));
    if let Some(limit) = spec.revision_history_limit {
        errors.extend(non_negative(limit, &path.child("revisionHistoryLimit")));
    }
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        errors.extend(non_negative(deadline, &at));
        if deadline <= ready {
            errors.invalid(&at, deadline, "must be greater than minReadySeconds");
        }
    }
    errors
}

/// The selector of a deployment or replica set with its template.
fn required_selector(
    own: &LabelSelector,
    (template, old): (&PodTemplateSpec, Option<&PodTemplateSpec>),
    given: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let at = path.child("selector");
    selector(own, given, &at, "deployment", errors);
    match Selector::from_meta(given.then_some(own)) {
        Err(_) => errors.push(invalid_selector(&at, Some(own), "invalid label selector")),
        Ok(selector) => {
            errors.extend(selected_template(template, &selector, "ReplicaSet", &path.child("template"), old));
        }
    }
}

fn deployment_strategy(strategy: Option<&DeploymentStrategy>, path: &Path, errors: &mut ErrorList) {
    let empty = DeploymentStrategy::default();
    let strategy = strategy.unwrap_or(&empty);
    let at = path.child("rollingUpdate");
    match text(&strategy.type_) {
        "Recreate" => {
            if strategy.rolling_update.is_some() {
                errors.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => match &strategy.rolling_update {
            None => errors.required(&at, "this should be defaulted and never be nil"),
            Some(rolling) => {
                let zero = IntOrString::Int(0);
                let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
                let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
                errors.extend(int_or_percent(unavailable, &at.child("maxUnavailable")));
                errors.extend(int_or_percent(surge, &at.child("maxSurge")));
                if amount_of(unavailable) == 0 && amount_of(surge) == 0 {
                    let detail = "may not be 0 when `maxSurge` is 0";
                    errors.invalid(&at.child("maxUnavailable"), to_value(unavailable), detail);
                }
                errors.extend(not_more_than_100_percent(unavailable, &at.child("maxUnavailable")));
            }
        },
        _ => {
            let shown = strategy_shown(&to_value(strategy));
            let error = Error::not_supported(path, Value::Null, &["Recreate", "RollingUpdate"]);
            errors.push(Error { shown: Some(shown), ..error });
        }
    }
}

/// A strategy as Go shows it.
fn strategy_shown(strategy: &Value) -> String {
    let rolling = match strategy.get("rollingUpdate") {
        None | Some(Value::Null) => "null".to_owned(),
        Some(rolling) => {
            let field = |key: &str| crate::field::json(&rolling.get(key).cloned().unwrap_or(Value::from(0)));
            format!("{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}", field("maxUnavailable"), field("maxSurge"))
        }
    };
    let kind = strategy.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", crate::field::json(&kind))
}

/// As upstream's ValidatePositiveIntOrPercent, which shows the whole value.
fn int_or_percent(value: &IntOrString, path: &Path) -> ErrorList {
    non_negative_int_or_percent(value, path)
}

fn amount_of(value: &IntOrString) -> i64 {
    match (percentage(value), value) {
        (Some(percent), _) => percent,
        (None, IntOrString::Int(number)) => i64::from(*number),
        (None, IntOrString::String(text)) => text.parse().unwrap_or(0),
    }
}

/// A changed deployment.
pub(crate) fn deployment_update(new: &Deployment, old: &Deployment, given: bool) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    errors.extend(deployment_spec(spec, Some(old_spec), given, &Path::new("spec")));
    immutable_selector(given.then_some(&spec.selector), &old_spec.selector, &mut errors);
    errors
}

fn immutable_selector(new: Option<&LabelSelector>, old: &LabelSelector, errors: &mut ErrorList) {
    if !new.is_some_and(|new| same(new, old)) {
        errors.push(invalid_selector(&Path::new("spec").child("selector"), new, IMMUTABLE));
    }
}

/// A deployment changed by its status.
pub(crate) fn deployment_status(new: &Deployment, old: &Deployment) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let path = Path::new("status");
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let (replicas, ready, available) =
        (n(status.replicas), n(status.ready_replicas), n(status.available_replicas));
    let fields = [
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("replicas", replicas),
        ("updatedReplicas", n(status.updated_replicas)),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", n(status.unavailable_replicas)),
        ("terminatingReplicas", n(status.terminating_replicas)),
        ("collisionCount", n(status.collision_count)),
    ];
    errors.extend(counters(&path, &fields));
    let bounded = [fields[2], fields[3], fields[4]];
    not_above(&path, &mut errors, replicas, &bounded, REPLICAS);
    not_above(&path, &mut errors, ready, &[fields[4]], "cannot be greater than readyReplicas");
    not_decremented(status.collision_count, before.collision_count, &path, &mut errors);
    errors
}

/// A new replica set.
pub(crate) fn replica_set(object: &ReplicaSet, given: bool) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    let empty = ReplicaSetSpec::default();
    errors.extend(replica_set_spec(object.spec.as_ref().unwrap_or(&empty), None, given, &Path::new("spec")));
    errors
}

fn replica_set_spec(
    spec: &ReplicaSetSpec,
    old: Option<&ReplicaSetSpec>,
    given: bool,
    path: &Path,
) -> ErrorList {
    let mut errors = non_negative(spec.replicas.unwrap_or(0), &path.child("replicas"));
    errors.extend(non_negative(spec.min_ready_seconds.unwrap_or(0), &path.child("minReadySeconds")));
    let empty = PodTemplateSpec::default();
    let template = spec.template.as_ref().unwrap_or(&empty);
    let templates = (template, old.and_then(|old| old.template.as_ref()));
    required_selector(&spec.selector, templates, given, path, &mut errors);
    errors
}

/// A changed replica set.
pub(crate) fn replica_set_update(new: &ReplicaSet, old: &ReplicaSet, given: bool) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    errors.extend(replica_set_spec(spec, Some(old_spec), given, &Path::new("spec")));
    immutable_selector(given.then_some(&spec.selector), &old_spec.selector, &mut errors);
    errors
}

/// A replica set changed by its status.
pub(crate) fn replica_set_status(new: &ReplicaSet, old: &ReplicaSet) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let status = new.status.clone().unwrap_or_default();
    let fields = [
        ("replicas", i64::from(status.replicas)),
        ("fullyLabeledReplicas", n(status.fully_labeled_replicas)),
        ("readyReplicas", n(status.ready_replicas)),
        ("availableReplicas", n(status.available_replicas)),
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("terminatingReplicas", n(status.terminating_replicas)),
    ];
    replica_status(&fields, &mut errors);
    errors
}

fn replica_status(fields: &[(&str, i64)], errors: &mut ErrorList) {
    let path = Path::new("status");
    errors.extend(counters(&path, fields));
    not_above(&path, errors, fields[0].1, &fields[1..4], REPLICAS);
    not_above(&path, errors, fields[2].1, &fields[3..4], "cannot be greater than readyReplicas");
}

/// A new replication controller.
pub(crate) fn replication_controller(object: &ReplicationController) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    let empty = ReplicationControllerSpec::default();
    errors.extend(controller_spec(object.spec.as_ref().unwrap_or(&empty), None, &Path::new("spec")));
    errors
}

fn controller_spec(
    spec: &ReplicationControllerSpec,
    old: Option<&PodTemplateSpec>,
    path: &Path,
) -> ErrorList {
    let mut errors = non_negative(spec.min_ready_seconds.unwrap_or(0), &path.child("minReadySeconds"));
    let empty = BTreeMap::new();
    let labels = spec.selector.as_ref().unwrap_or(&empty);
    if labels.is_empty() {
        errors.required(&path.child("selector"), "");
    }
    match spec.replicas {
        None => errors.required(&path.child("replicas"), ""),
        Some(replicas) => errors.extend(non_negative(replicas, &path.child("replicas"))),
    }
    let at = path.child("template");
    match &spec.template {
        None => errors.required(&at, ""),
        Some(template) => {
            let selector = Selector::from_set(labels);
            errors.extend(selected_template(template, &selector, "ReplicationController", &at, old));
        }
    }
    errors
}

/// A changed replication controller.
pub(crate) fn replication_controller_update(
    new: &ReplicationController,
    old: &ReplicationController,
) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    if let Some(spec) = &new.spec {
        let before = old.spec.as_ref().and_then(|spec| spec.template.as_ref());
        errors.extend(controller_spec(spec, before, &Path::new("spec")));
    }
    errors
}

/// A replication controller changed by its status.
pub(crate) fn replication_controller_status(
    new: &ReplicationController,
    old: &ReplicationController,
) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let status = new.status.clone().unwrap_or_default();
    let fields = [
        ("replicas", i64::from(status.replicas)),
        ("fullyLabeledReplicas", n(status.fully_labeled_replicas)),
        ("readyReplicas", n(status.ready_replicas)),
        ("availableReplicas", n(status.available_replicas)),
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
    ];
    replica_status(&fields, &mut errors);
    errors
}

/// A new daemon set.
pub(crate) fn daemon_set(object: &DaemonSet, given: bool) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    let empty = DaemonSetSpec::default();
    errors.extend(daemon_set_spec(object.spec.as_ref().unwrap_or(&empty), None, given, &Path::new("spec")));
    errors
}

fn daemon_set_spec(spec: &DaemonSetSpec, old: Option<&DaemonSetSpec>, given: bool, path: &Path) -> ErrorList {
    let at = path.child("selector");
    let before = old.map(|old| &old.template);
    let lax = old.is_some_and(|old| meta::has_invalid_values(Some(&old.selector)))
        || pod::of_template(before).contains(&pod::Fault::SelectorValues);
    let mut errors = label_selector(Some(&spec.selector), lax, &at);
    let labels = template_labels(&spec.template);
    if Selector::from_meta(given.then_some(&spec.selector)).is_ok_and(|s| !s.matches(&labels)) {
        let at = path.child("template").child("metadata").child("labels");
        errors.invalid(&at, shown_labels(labels), "`selector` does not match template `labels`");
    }
    if given && is_empty(&spec.selector) {
        errors.push(invalid_selector(&at, Some(&spec.selector), "empty selector is invalid for daemonset"));
    }
    errors.extend(pod::template(&spec.template, before, &path.child("template")));
    always(&spec.template, "DaemonSet", &path.child("template"), &mut errors);
    errors.extend(non_negative(spec.min_ready_seconds.unwrap_or(0), &path.child("minReadySeconds")));
    daemon_strategy(spec.update_strategy.as_ref(), &path.child("updateStrategy"), &mut errors);
    if let Some(limit) = spec.revision_history_limit {
        errors.extend(non_negative(limit, &path.child("revisionHistoryLimit")));
    }
    errors
}

fn daemon_strategy(strategy: Option<&DaemonSetUpdateStrategy>, path: &Path, errors: &mut ErrorList) {
    let empty = DaemonSetUpdateStrategy::default();
    let strategy = strategy.unwrap_or(&empty);
    match text(&strategy.type_) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = &strategy.rolling_update else { return errors.required(&path, "") };
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let (at_unavailable, at_surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
            errors.extend(int_or_percent(unavailable, &at_unavailable));
            errors.extend(int_or_percent(surge, &at_surge));
            errors.extend(not_more_than_100_percent(unavailable, &at_unavailable));
            errors.extend(not_more_than_100_percent(surge, &at_surge));
            match (amount_of(unavailable) != 0, amount_of(surge) != 0) {
                (true, true) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(&at_surge, to_value(surge), detail);
                }
                (false, false) => errors.required(&at_unavailable, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => {
            let shown = strategy_shown(&to_value(strategy));
            let error = Error::not_supported(path, Value::Null, &["RollingUpdate", "OnDelete"]);
            errors.push(Error { shown: Some(shown), ..error });
        }
    }
}

/// A changed daemon set.
pub(crate) fn daemon_set_update(new: &DaemonSet, old: &DaemonSet, given: bool) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    immutable_selector(given.then_some(&spec.selector), &old_spec.selector, &mut errors);
    errors.extend(daemon_set_spec(spec, Some(old_spec), given, &Path::new("spec")));
    errors
}

/// A daemon set changed by its status.
pub(crate) fn daemon_set_status(new: &DaemonSet, old: &DaemonSet) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let path = Path::new("status");
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let fields = [
        ("currentNumberScheduled", i64::from(status.current_number_scheduled)),
        ("numberMisscheduled", i64::from(status.number_misscheduled)),
        ("desiredNumberScheduled", i64::from(status.desired_number_scheduled)),
        ("numberReady", i64::from(status.number_ready)),
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("updatedNumberScheduled", n(status.updated_number_scheduled)),
        ("numberAvailable", n(status.number_available)),
        ("numberUnavailable", n(status.number_unavailable)),
        ("collisionCount", n(status.collision_count)),
    ];
    errors.extend(counters(&path, &fields));
    not_decremented(status.collision_count, before.collision_count, &path, &mut errors);
    errors
}

/// A new stateful set.
pub(crate) fn stateful_set(object: &StatefulSet, given: bool) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_label, &path);
    let empty = StatefulSetSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    errors.extend(stateful_set_spec(spec, given, &Stage::New, &Path::new("spec")));
    errors
}

/// When a stateful set is checked.
enum Stage<'a> {
    New,
    /// As it is stored, or as it is to be.
    Changed(&'a StatefulSetSpec),
    /// As it is to be, from one whose spec was not valid: its template may go on being so.
    Tolerated(&'a StatefulSetSpec),
}

fn stateful_set_spec(spec: &StatefulSetSpec, given: bool, stage: &Stage<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let update = !matches!(stage, Stage::New);
    let at = path.child("podManagementPolicy");
    match text(&spec.pod_management_policy) {
        "" => errors.required(&at, ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&at, other, "must be 'OrderedReady' or 'Parallel'"),
    }
    stateful_strategy(spec, &path.child("updateStrategy"), &mut errors);
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let at = path.child("persistentVolumeClaimRetentionPolicy");
        for (key, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            errors.one_of(&at.child(key), text(value), &["Retain", "Delete"]);
        }
    }
    let claims = list(&spec.volume_claim_templates);
    if !update {
        for (i, claim) in claims.iter().enumerate() {
            let at = path.child("volumeClaimTemplates").index(i).child("spec");
            errors.extend(claim_spec(&claim.spec.clone().unwrap_or_default(), None, &at));
        }
    }
    errors.extend(non_negative(spec.replicas.unwrap_or(0), &path.child("replicas")));
    errors.extend(non_negative(spec.min_ready_seconds.unwrap_or(0), &path.child("minReadySeconds")));
    if let Some(start) = spec.ordinals.as_ref().and_then(|o| o.start) {
        errors.extend(non_negative(start, &path.child("ordinals.start")));
    }
    if let Some(name) = spec.service_name.as_deref().filter(|n| !update && !n.is_empty()) {
        errors.extend(super::rules::dns_label(name, &path.child("serviceName")));
    }
    let at = path.child("selector");
    selector(&spec.selector, given, &at, "statefulset", &mut errors);
    match Selector::from_meta(given.then_some(&spec.selector)) {
        Err(_) => errors.push(invalid_selector(&at, Some(&spec.selector), "")),
        Ok(own) => {
            let template = with_claims(spec);
            let at = path.child("template");
            let labels = template_labels(&template);
            if !own.is_empty() && !own.matches(&labels) {
                let at = at.child("metadata").child("labels");
                errors.invalid(&at, shown_labels(labels), "`selector` does not match template `labels`");
            }
            let old = match stage {
                Stage::New => None,
                Stage::Changed(old) | Stage::Tolerated(old) => Some(&old.template),
            };
            if !matches!(stage, Stage::Tolerated(_)) {
                errors.extend(pod::template(&template, old, &at));
            }
            // As upstream, which checks these twice.
            errors.extend(pod::template_metadata(&template, old, &at));
        }
    }
    let at = path.child("template");
    always(&spec.template, "StatefulSet", &at, &mut errors);
    errors
}

/// The template as pods will be made from it: with the volumes of their claims, and no name of its own.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let claims = list(&spec.volume_claim_templates);
    let Some(pod) = template.spec.as_mut() else { return template };
    pod.subdomain = None;
    pod.hostname = None;
    if claims.is_empty() {
        return template;
    }
    let by_name: BTreeMap<&str, Volume> = claims
        .iter()
        .map(|claim| {
            let name = text(&claim.metadata.name);
            let source = PersistentVolumeClaimVolumeSource { claim_name: name.to_owned(), read_only: None };
            (
                name,
                Volume { name: name.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() },
            )
        })
        .collect();
    let others = pod.volumes.take().unwrap_or_default();
    let kept = others.into_iter().filter(|v| !by_name.contains_key(v.name.as_str())).collect::<Vec<_>>();
    pod.volumes = Some(by_name.into_values().chain(kept).collect());
    template
}

fn stateful_strategy(spec: &StatefulSetSpec, path: &Path, errors: &mut ErrorList) {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let at = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.required(path, ""),
        ("OnDelete", Some(rolling)) => {
            let unavailable = rolling.max_unavailable.as_ref().map(crate::field::json);
            let shown = format!(
                "{{\"Partition\":{},\"MaxUnavailable\":{}}}",
                rolling.partition.unwrap_or(0),
                unavailable.unwrap_or_else(|| "null".to_owned())
            );
            errors.push(Error::invalid_shown(&at, shown, "only allowed for updateStrategy 'RollingUpdate'"));
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            errors.extend(non_negative(rolling.partition.unwrap_or(0), &at.child("partition")));
            if let Some(unavailable) = &rolling.max_unavailable {
                let at = at.child("maxUnavailable");
                errors.extend(int_or_percent(unavailable, &at));
                if amount_of(unavailable) == 0 {
                    errors.invalid(&at, to_value(unavailable), "cannot be 0");
                }
                errors.extend(not_more_than_100_percent(unavailable, &at));
            }
        }
        _ => {
            let shown = golang::show("apps.StatefulSetUpdateStrategy", &to_value(&strategy));
            errors.push(Error::invalid_shown(path, shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

/// A changed stateful set.
pub(crate) fn stateful_set_update(new: &StatefulSet, old: &StatefulSet, given: bool) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    let path = Path::new("spec");
    let was_valid = stateful_set_spec(old_spec, true, &Stage::Changed(old_spec), &path).is_empty();
    let stage = if was_valid { Stage::Changed(old_spec) } else { Stage::Tolerated(old_spec) };
    errors.extend(stateful_set_spec(spec, given, &stage, &path));
    let kept = StatefulSetSpec {
        replicas: old_spec.replicas,
        template: old_spec.template.clone(),
        update_strategy: old_spec.update_strategy.clone(),
        min_ready_seconds: old_spec.min_ready_seconds,
        ordinals: old_spec.ordinals.clone(),
        revision_history_limit: old_spec.revision_history_limit,
        persistent_volume_claim_retention_policy: old_spec.persistent_volume_claim_retention_policy.clone(),
        ..spec.clone()
    };
    if !same(&kept, old_spec) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.forbidden(&path, detail);
    }
    errors
}

/// A stateful set changed by its status.
pub(crate) fn stateful_set_status(new: &StatefulSet, old: &StatefulSet) -> ErrorList {
    let path = Path::new("status");
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let replicas = i64::from(status.replicas);
    let ready = n(status.ready_replicas);
    let fields = [
        ("replicas", replicas),
        ("readyReplicas", ready),
        ("currentReplicas", n(status.current_replicas)),
        ("updatedReplicas", n(status.updated_replicas)),
        ("availableReplicas", n(status.available_replicas)),
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("collisionCount", n(status.collision_count)),
    ];
    let mut errors = counters(&path, &fields);
    not_above(&path, &mut errors, replicas, &fields[1..5], REPLICAS);
    not_above(&path, &mut errors, ready, &fields[4..5], "cannot be greater than status.readyReplicas");
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata")));
    not_decremented(status.collision_count, before.collision_count, &path, &mut errors);
    errors
}

/// A new controller revision.
pub(crate) fn controller_revision(object: &ControllerRevision) -> ErrorList {
    let mut errors = any_revision(object);
    let path = Path::new("data");
    match object.data.as_ref().map(|d| &d.0) {
        None | Some(Value::Null) => errors.required(&path, "data is mandatory"),
        Some(Value::Object(_)) => {}
        Some(_) => errors.required(&path, "data must be a valid JSON object"),
    }
    errors
}

fn any_revision(object: &ControllerRevision) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    errors.extend(non_negative(object.revision, &Path::new("revision")));
    errors
}

/// A changed controller revision: only its number may change.
pub(crate) fn controller_revision_update(new: &ControllerRevision, old: &ControllerRevision) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    errors.extend(any_revision(new));
    if new.data != old.data {
        errors.push(Error::invalid_shown(&Path::new("data"), crate::field::json(&new.data), IMMUTABLE));
    }
    errors
}
