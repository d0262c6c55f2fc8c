//! Defaults of the workloads (groups `apps` and `batch`, and replication controllers).

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{pod, volume};

/// Deployment.
pub(crate) fn deployment(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    spec.or_default("replicas", 1);
    if let Some(strategy) = spec.ensure("strategy") {
        strategy.or_zero("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.ensure("rollingUpdate")
        {
            rolling.or_default("maxUnavailable", "25%");
            rolling.or_default("maxSurge", "25%");
        }
    }
    spec.or_default("revisionHistoryLimit", 10);
    spec.or_default("progressDeadlineSeconds", 600);
    pod::template(spec, "template");
}

/// DaemonSet.
pub(crate) fn daemon_set(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    if let Some(strategy) = spec.ensure("updateStrategy") {
        strategy.or_zero("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.ensure("rollingUpdate")
        {
            rolling.or_default("maxUnavailable", 1);
            rolling.or_default("maxSurge", 0);
        }
    }
    spec.or_default("revisionHistoryLimit", 10);
    pod::template(spec, "template");
}

/// StatefulSet.
pub(crate) fn stateful_set(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    spec.or_zero("podManagementPolicy", "OrderedReady");
    if let Some(strategy) = spec.ensure("updateStrategy") {
        if strategy.text("type").is_empty() {
            strategy.or_zero("type", "RollingUpdate");
            strategy.or_default("rollingUpdate", json!({}));
        }
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.object_mut("rollingUpdate")
        {
            rolling.or_default("partition", 0);
        }
    }
    if let Some(policy) = spec.ensure("persistentVolumeClaimRetentionPolicy") {
        policy.or_zero("whenDeleted", "Retain");
        policy.or_zero("whenScaled", "Retain");
    }
    spec.or_default("replicas", 1);
    spec.or_default("revisionHistoryLimit", 10);
    pod::template(spec, "template");
    for claim in spec.each_mut("volumeClaimTemplates") {
        // As upstream's conversion, which names the type of the claims it keeps.
        claim.insert("apiVersion".to_owned(), json!("v1"));
        claim.insert("kind".to_owned(), json!("PersistentVolumeClaim"));
        volume::claim(claim);
    }
}

/// ReplicaSet.
pub(crate) fn replica_set(object: &mut Object) {
    if let Some(spec) = object.ensure("spec") {
        spec.or_default("replicas", 1);
        pod::template(spec, "template");
    }
}

/// ReplicationController: selector and labels come from the template.
pub(crate) fn replication_controller(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    spec.or_default("replicas", 1);
    if !spec.is_unset("template") {
        pod::template(spec, "template");
    }
    let Some(labels) = template_labels(spec) else { return };
    if spec.object("selector").is_none_or(Object::is_empty) {
        spec.insert("selector".to_owned(), Value::Object(labels.clone()));
    }
    labels_from_template(object, labels);
}

fn template_labels(spec: &Object) -> Option<Object> {
    spec.object("template")?.object("metadata")?.object("labels").cloned()
}

fn labels_from_template(object: &mut Object, labels: Object) {
    if let Some(meta) = object.ensure("metadata")
        && meta.object("labels").is_none_or(Object::is_empty)
    {
        meta.insert("labels".to_owned(), Value::Object(labels));
    }
}

/// Job.
pub(crate) fn job(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    if spec.is_unset("completions") && spec.is_unset("parallelism") {
        spec.or_default("completions", 1);
    }
    spec.or_default("parallelism", 1);
    let backoff = if spec.is_unset("backoffLimitPerIndex") { 6 } else { i32::MAX };
    spec.or_default("backoffLimit", backoff);
    spec.or_default("completionMode", "NonIndexed");
    spec.or_default("suspend", false);
    let replacement = if spec.is_unset("podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    spec.or_default("podReplacementPolicy", replacement);
    spec.or_default("manualSelector", false);
    job_spec(spec);
    if let Some(labels) = template_labels(spec) {
        labels_from_template(object, labels);
    }
}

/// What jobs get inside of cron jobs too.
fn job_spec(spec: &mut Object) {
    for rule in spec.object_mut("podFailurePolicy").into_iter().flat_map(|p| p.each_mut("rules")) {
        rule.each_mut("onPodConditions").for_each(|pattern| pattern.or_zero("status", "True"));
    }
    pod::template(spec, "template");
}

/// CronJob.
pub(crate) fn cron_job(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    spec.or_zero("concurrencyPolicy", "Allow");
    spec.or_default("suspend", false);
    spec.or_default("successfulJobsHistoryLimit", 3);
    spec.or_default("failedJobsHistoryLimit", 1);
    if let Some(job) = spec.ensure("jobTemplate").and_then(|t| t.ensure("spec")) {
        job_spec(job);
    }
}

/// PodTemplate.
pub(crate) fn pod_template(object: &mut Object) {
    pod::template(object, "template");
}
