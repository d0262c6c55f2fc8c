//! Persistent volumes and claims.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{Generation, Strategy};

pub(crate) const CLAIM: Strategy = Strategy::STATUS.create(create_claim).update(update_claim);
pub(crate) const VOLUME: Strategy = Strategy::STATUS.create(create_volume).status_update(volume_status);

fn now() -> Value {
    let seconds = jiff::Timestamp::now().as_second();
    json!(jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string())
}

fn create_claim(claim: &mut Object) {
    claim.insert("status".to_owned(), json!({"phase": "Pending"}));
    if let Some(spec) = claim.object_mut("spec") {
        drop_unusable_source(spec);
        normalize_sources(spec);
    }
}

fn update_claim(new: &mut Object, old: &Object) {
    let in_use = old
        .object("spec")
        .is_some_and(|s| s.object("dataSource").is_some() || s.object("dataSourceRef").is_some());
    if let Some(spec) = new.object_mut("spec") {
        if !in_use {
            drop_unusable_source(spec);
        }
        normalize_sources(spec);
    }
}

/// The older of the two fields takes only claims and snapshots; anything else was always dropped.
fn drop_unusable_source(spec: &mut Object) {
    if spec.object("dataSourceRef").is_some() {
        return;
    }
    let usable = spec.object("dataSource").is_some_and(|source| {
        matches!(
            (source.text("kind"), source.text("apiGroup")),
            ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
        )
    });
    if !usable {
        spec.remove("dataSource");
    }
}

/// Each of the two fields follows from the other.
fn normalize_sources(spec: &mut Object) {
    let (old, new) = (spec.object("dataSource").cloned(), spec.object("dataSourceRef").cloned());
    match (old, new) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".to_owned(), Value::Object(source));
        }
        (None, Some(source)) if source.text("namespace").is_empty() => {
            spec.insert("dataSource".to_owned(), Value::Object(source));
        }
        _ => {}
    }
}

fn create_volume(volume: &mut Object) {
    volume.insert("status".to_owned(), json!({"phase": "Pending", "lastPhaseTransitionTime": now()}));
}

fn volume_status(new: &mut Object, old: &Object) {
    let empty = Object::new();
    let old = old.object("status").unwrap_or(&empty);
    let Some(status) = new.ensure("status") else { return };
    let same_phase = status.text("phase") == old.text("phase");
    let (unset, same_time) = (
        status.is_unset("lastPhaseTransitionTime"),
        status.get("lastPhaseTransitionTime") == old.get("lastPhaseTransitionTime"),
    );
    if same_phase && unset {
        status.copy("lastPhaseTransitionTime", old);
    } else if !same_phase && (unset || same_time) {
        status.insert("lastPhaseTransitionTime".to_owned(), now());
    }
}

/// A driver has a generation only once it has changed.
pub(crate) const CSI_DRIVER: Strategy = Strategy {
    generation: Generation::CountsChanges(&["spec"]),
    create: |new| drop_prevention(new, None),
    update: |new, old| drop_prevention(new, Some(old)),
    ..Strategy::PLAIN
}
.conditional();

/// Limits of volumes do not keep pods from being scheduled.
fn drop_prevention(new: &mut Object, old: Option<&Object>) {
    let key = "preventPodSchedulingIfMissing";
    let used = old.and_then(|old| old.object("spec")).is_some_and(|spec| !spec.is_unset(key));
    if let Some(spec) = new.object_mut("spec").filter(|_| !used) {
        spec.remove(key);
    }
}
