//! Workloads.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt, semantic_eq};

use super::{Strategy, set_meta};

/// Deployments count changes of their annotations too: rollback notes live there.
pub(crate) const DEPLOYMENT: Strategy =
    Strategy::WORKLOAD.counting(&["spec", "metadata.annotations"]).status_update(|new, old| {
        let labels = old.object("metadata").and_then(|m| m.get("labels")).cloned();
        set_meta(new, "labels", labels);
    });

pub(crate) const DAEMON_SET: Strategy = Strategy::WORKLOAD
    .create(|new| set_template_generation(new, 1))
    .update(count_template)
    .status_update(|new, old| write_template_generation(new, template_generation(old)));

/// Reading a stored job gives it its template's labels if it has none of its own, so it is never seen without.
pub(crate) const JOB: Strategy = Strategy::WORKLOAD
    .create(|new| {
        let labelled = |object: &Object| object.object("metadata").and_then(|m| m.get("labels")).cloned();
        let template = new.object("spec").and_then(|s| s.object("template")).and_then(labelled);
        if template.is_some() && template == labelled(new) {
            set_meta(new, "labels", None);
        }
        generate_selector(new);
        own_labels(new);
    })
    .update(|new, _| own_labels(new))
    .status_update(|new, _| own_labels(new));

/// As jobs: never seen without labels.
pub(crate) const REPLICATION_CONTROLLER: Strategy =
    Strategy::WORKLOAD.update(|new, _| own_labels(new)).status_update(|new, _| own_labels(new));

fn own_labels(job: &mut Object) {
    let has =
        job.object("metadata").and_then(|m| m.object("labels")).is_some_and(|labels| !labels.is_empty());
    if has {
        return;
    }
    let template = job.object("spec").and_then(|s| s.object("template")).and_then(|t| t.object("metadata"));
    if let Some(labels) = template.and_then(|m| m.get("labels")).cloned() {
        set_meta(job, "labels", Some(labels));
    }
}

/// How many pods may be unavailable during an update is not served.
pub(crate) const STATEFUL_SET: Strategy = Strategy::WORKLOAD
    .create(|new| drop_unavailable(new, None))
    .update(|new, old| drop_unavailable(new, Some(old)));

fn drop_unavailable(new: &mut Object, old: Option<&Object>) {
    let rolling =
        |object: &Object| object.object("spec")?.object("updateStrategy")?.object("rollingUpdate").cloned();
    if old.and_then(rolling).is_some_and(|r| !r.is_unset("maxUnavailable")) {
        return;
    }
    let strategy = new.object_mut("spec").and_then(|s| s.object_mut("updateStrategy"));
    if let Some(rolling) = strategy.and_then(|s| s.object_mut("rollingUpdate")) {
        rolling.remove("maxUnavailable");
    }
}

/// Kept as an annotation, for clients that knew the field of an older version.
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Object) -> i64 {
    let annotations = object.object("metadata").and_then(|m| m.object("annotations"));
    annotations.and_then(|a| a.text(TEMPLATE_GENERATION).parse().ok()).unwrap_or(0)
}

fn set_template_generation(object: &mut Object, at_least: i64) {
    let generation = template_generation(object).max(at_least);
    write_template_generation(object, generation);
}

fn write_template_generation(object: &mut Object, generation: i64) {
    if let Some(annotations) = object.ensure("metadata").and_then(|m| m.ensure("annotations")) {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), Value::String(generation.to_string()));
    }
}

fn count_template(new: &mut Object, old: &Object) {
    let template = |object: &Object| object.object("spec").and_then(|s| s.get("template")).cloned();
    let changed = !semantic_eq(template(new).as_ref(), template(old).as_ref());
    write_template_generation(new, template_generation(old) + i64::from(changed));
}

/// Jobs select their pods by their own uid, unless told to do otherwise.
fn generate_selector(job: &mut Object) {
    let meta = job.object("metadata").cloned().unwrap_or_default();
    let Some(spec) = job.object_mut("spec") else { return };
    if spec.flag("manualSelector") {
        return;
    }
    let (name, uid) = (meta.text("name"), meta.text("uid"));
    let template = spec.ensure("template").and_then(|t| t.ensure("metadata"));
    if let Some(labels) = template.and_then(|m| m.ensure("labels")) {
        for (key, value) in [
            ("job-name", name),
            ("batch.kubernetes.io/job-name", name),
            ("controller-uid", uid),
            ("batch.kubernetes.io/controller-uid", uid),
        ] {
            labels.or_default(key, value);
        }
    }
    if let Some(labels) = spec.ensure("selector").and_then(|s| s.ensure("matchLabels")) {
        labels.or_default("batch.kubernetes.io/controller-uid", json!(uid));
    }
}
