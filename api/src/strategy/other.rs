//! The smaller groups.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt, semantic_eq};

use super::{Strategy, Update, bump_generation};

pub(crate) const ENDPOINT_SLICE: Strategy =
    Strategy::PLAIN.fixed_generation().create(drop_topology).update(|new, old| {
        drop_topology(new);
        count_slice(new, old);
    });

/// Leases of coordinated elections are not served.
pub(crate) const LEASE: Strategy = Strategy::PLAIN
    .conditional()
    .creates_on_update()
    .create(|new| drop_election(new, None))
    .update(|new, old| drop_election(new, Some(old)));

fn drop_election(new: &mut Object, old: Option<&Object>) {
    let before = old.and_then(|old| old.object("spec"));
    let Some(spec) = new.object_mut("spec") else { return };
    for key in ["strategy", "preferredHolder"] {
        if before.is_none_or(|before| before.is_unset(key)) {
            spec.remove(key);
        }
    }
}

/// Requests are immutable; what approves or signs them are the subresources.
pub(crate) const CERTIFICATE_SIGNING_REQUEST: Strategy = Strategy::STATUS
    .update(|new, old| new.copy("spec", old))
    .status_update(csr_status)
    .subresources(&[("approval", csr_approval as Update)]);

pub(crate) const CUSTOM_RESOURCE_DEFINITION: Strategy = Strategy::SPEC_STATUS
    .conditional()
    .create(stored_versions)
    // As upstream, whose status may bring metadata with it: a finalizer is let go that way.
    .update(|new, _| stored_versions(new));

pub(crate) const API_SERVICE: Strategy =
    Strategy::STATUS.conditional().create(local_service).status_update(|new, old| {
        super::reset_meta(new, old);
    });

/// Topology has its own fields in this version.
fn drop_topology(slice: &mut Object) {
    slice.each_mut("endpoints").for_each(|endpoint| {
        endpoint.remove("deprecatedTopology");
    });
}

/// A slice's generation counts changes of everything but metadata, and of its labels.
fn count_slice(new: &mut Object, old: &Object) {
    let content = |object: &Object| {
        let mut object = object.clone();
        let labels = object.remove("metadata").and_then(|mut m| m.get_mut("labels").map(Value::take));
        object.insert("labels".to_owned(), labels.unwrap_or_default());
        Value::Object(object)
    };
    if !semantic_eq(Some(&content(new)), Some(&content(old))) {
        bump_generation(new, old);
    }
}

fn condition_times(new: &mut Object, old: &Object) {
    let now =
        jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default().to_string();
    let before: Vec<Object> =
        old.object("status").into_iter().flat_map(|s| s.each("conditions")).cloned().collect();
    for condition in new.object_mut("status").into_iter().flat_map(|s| s.each_mut("conditions")) {
        condition.or_default("lastUpdateTime", now.clone());
        let same = before.iter().find(|c| {
            c.text("type") == condition.text("type")
                && c.text("status") == condition.text("status")
                && !c.is_unset("lastTransitionTime")
        });
        let since = same.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        condition.or_default("lastTransitionTime", since);
    }
}

fn csr_status(new: &mut Object, old: &Object) {
    let of = |object: &Object, kind: &str| -> Vec<Value> {
        let conditions = object.object("status").map(|s| s.list("conditions")).unwrap_or_default();
        conditions.iter().filter(|c| c["type"] == kind).cloned().collect()
    };
    // Approvals and denials stay as they were: signers may not touch them.
    for kind in ["Approved", "Denied"] {
        let (before, after) = (of(old, kind), of(new, kind));
        if before.len() == after.len() {
            let list = new.object_mut("status").map(|s| s.list_mut("conditions")).unwrap_or_default();
            let places = list.iter_mut().filter(|c| c["type"] == kind);
            places.zip(before).for_each(|(place, condition)| *place = condition);
        }
    }
    condition_times(new, old);
}

fn csr_approval(new: &mut Object, old: &Object) {
    condition_times(new, old);
    let conditions = new.object("status").and_then(|s| s.get("conditions")).cloned();
    new.copy("spec", old);
    new.copy("status", old);
    if let Some(status) = new.ensure("status") {
        match conditions {
            Some(conditions) => status.insert("conditions".to_owned(), conditions),
            None => status.remove("conditions"),
        };
    }
}

/// The storage version is among those stored.
fn stored_versions(definition: &mut Object) {
    let versions = definition.object("spec").map(|s| s.list("versions")).unwrap_or_default();
    let storage = versions.iter().find(|v| v["storage"] == true).map(|v| v["name"].clone());
    let (Some(storage), Some(status)) = (storage, definition.ensure("status")) else { return };
    status.or_default("storedVersions", Value::Array(Vec::new()));
    if let Some(stored) = status.get_mut("storedVersions").and_then(Value::as_array_mut)
        && !stored.contains(&storage)
    {
        stored.push(storage);
    }
}

/// What the server serves itself is available from the start.
fn local_service(service: &mut Object) {
    if service.object("spec").is_some_and(|s| s.is_unset("service")) {
        let now =
            jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default().to_string();
        let condition = json!({"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": now});
        service.insert("status".to_owned(), json!({"conditions": [condition]}));
    }
}
