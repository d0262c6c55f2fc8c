//! Pods.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::json::{Object, ObjectExt, semantic_eq};
use crate::pod::compute_qos_class;

use super::{Strategy, Update, app_armor, bump_generation, reset_meta, set_meta};

pub(crate) const STRATEGY: Strategy = Strategy::SPEC_STATUS
    .pod_at(&["spec"])
    .create(create)
    .notes(app_armor::warnings)
    .status_update(status_update)
    .subresources(&[("ephemeralcontainers", ephemeral_containers as Update), ("resize", resize as Update)]);

fn create(pod: &mut Object) {
    let spec = pod.object("spec");
    let class = spec.map_or("BestEffort", |spec| compute_qos_class(&resources_only(spec)));
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if spec.is_some_and(|spec| !spec.list("schedulingGates").is_empty()) {
        let now = jiff::Timestamp::now().as_second();
        let now = jiff::Timestamp::from_second(now).unwrap_or_default().to_string();
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "lastTransitionTime": now, "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod.insert("status".to_owned(), status);
    let labels = pod.object("metadata").and_then(|m| m.object("labels")).cloned().unwrap_or_default();
    if let Some(spec) = pod.object_mut("spec") {
        label_keys(spec, &labels);
    }
    app_armor::sync(pod);
}

/// What of a spec its class of service follows from: reading all of it would cost more than all else done here.
fn resources_only(spec: &Object) -> PodSpec {
    let resources = |of: &Object| of.get("resources").and_then(|r| ResourceRequirements::deserialize(r).ok());
    let containers = |list: &str| -> Vec<Container> {
        spec.each(list).map(|c| Container { resources: resources(c), ..Container::default() }).collect()
    };
    PodSpec {
        containers: containers("containers"),
        init_containers: Some(containers("initContainers")),
        resources: resources(spec),
        ..PodSpec::default()
    }
}

/// Selectors of affinity terms are narrowed to (or away from) the pod's own values of the named labels.
fn label_keys(spec: &mut Object, labels: &Object) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.object_mut("affinity").and_then(|a| a.object_mut(kind)) else { continue };
        for term in affinity.each_mut("preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = term.object_mut("podAffinityTerm") {
                narrow(term, labels);
            }
        }
        affinity
            .each_mut("requiredDuringSchedulingIgnoredDuringExecution")
            .for_each(|term| narrow(term, labels));
    }
    spec.each_mut("topologySpreadConstraints").for_each(|constraint| narrow(constraint, labels));
}

fn narrow(term: &mut Object, labels: &Object) {
    let mut extra = Vec::new();
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.list(keys).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                extra.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if extra.is_empty() {
        return;
    }
    if let Some(selector) = term.object_mut("labelSelector") {
        selector.or_default("matchExpressions", Value::Array(Vec::new()));
        if let Some(list) = selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
            list.extend(extra);
        }
    }
}

fn status_update(new: &mut Object, old: &Object) {
    set_meta(new, "deletionTimestamp", None);
    let owners = old.object("metadata").and_then(|m| m.get("ownerReferences")).cloned();
    set_meta(new, "ownerReferences", owners);
    let Some(old_status) = old.object("status") else { return };
    let Some(status) = new.ensure("status") else { return };
    super::drop::pod_status(status, old_status);
    if status.text("qosClass").is_empty() {
        status.copy("qosClass", old_status);
    }
    if status.int("observedGeneration") == 0 {
        status.copy("observedGeneration", old_status);
    }
    for condition in status.each_mut("conditions") {
        if condition.int("observedGeneration") == 0 {
            let before = old_status.each("conditions").find(|c| c.text("type") == condition.text("type"));
            if let Some(before) = before {
                condition.copy("observedGeneration", before);
            }
        }
    }
}

fn count_spec(new: &mut Object, old: &Object) {
    if !semantic_eq(new.get("spec"), old.get("spec")) {
        bump_generation(new, old);
    }
}

fn ephemeral_containers(new: &mut Object, old: &Object) {
    let containers = new.object("spec").and_then(|spec| spec.get("ephemeralContainers")).cloned();
    new.copy("spec", old);
    new.copy("status", old);
    reset_meta(new, old);
    if let Some(spec) = new.object_mut("spec") {
        match containers {
            Some(containers) => spec.insert("ephemeralContainers".to_owned(), containers),
            None => spec.remove("ephemeralContainers"),
        };
    }
    count_spec(new, old);
}

fn resize(new: &mut Object, old: &Object) {
    let names = |pod: &Object, key: &str| -> Vec<String> {
        let spec = pod.object("spec");
        spec.into_iter().flat_map(|s| s.each(key)).map(|c| c.text("name").to_owned()).collect()
    };
    let same = ["containers", "initContainers"].iter().all(|key| names(new, key) == names(old, key));
    if same {
        let asked = new.object("spec").cloned().unwrap_or_default();
        new.copy("spec", old);
        new.copy("status", old);
        reset_meta(new, old);
        if let Some(spec) = new.object_mut("spec") {
            spec.copy("resources", &asked);
            for key in ["containers", "initContainers"] {
                for (container, asked) in spec.each_mut(key).zip(asked.each(key)) {
                    container.copy("resources", asked);
                    container.copy("resizePolicy", asked);
                }
            }
        }
    }
    count_spec(new, old);
}
