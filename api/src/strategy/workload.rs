//! Workloads.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt, semantic_eq};

use super::{Strategy, set_meta};

/// Deployments count changes of their annotations too: rollback notes live there.
pub(crate) const DEPLOYMENT: Strategy =
    Strategy::SPEC_STATUS.counting(&["spec", "metadata.annotations"]).status_update(|new, old| {
        let labels = old.object("metadata").and_then(|m| m.get("labels")).cloned();
        set_meta(new, "labels", labels);
    });

pub(crate) const DAEMON_SET: Strategy =
    Strategy::SPEC_STATUS.create(|new| set_template_generation(new, 1)).update(count_template);

pub(crate) const JOB: Strategy = Strategy::SPEC_STATUS.create(generate_selector);

/// Kept as an annotation, for clients that knew the field of an older version.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

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
