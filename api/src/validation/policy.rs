//! Disruption budgets, priority classes, runtime classes and leases.

use std::collections::BTreeSet;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report, json};
use crate::format;

use super::affinity::tolerations;
use super::golang;
use super::meta::{self, has_invalid_values, label_selector};
use super::pod::preemption_policy;
use super::resources;
use super::rules::{
    IMMUTABLE, check, list, non_negative, non_negative_int_or_percent, not_more_than_100_percent, text,
    to_value,
};
use super::workload::show_selector;

fn metadata() -> Path {
    Path::new("metadata")
}

/// A new budget. Its metadata is checked for all kinds alike.
pub(crate) fn budget(object: &PodDisruptionBudget) -> ErrorList {
    budget_spec(&object.spec.clone().unwrap_or_default(), false)
}

/// A changed budget.
pub(crate) fn budget_update(new: &PodDisruptionBudget, old: &PodDisruptionBudget) -> ErrorList {
    let allow_invalid = has_invalid_values(old.spec.as_ref().and_then(|s| s.selector.as_ref()));
    budget_spec(&new.spec.clone().unwrap_or_default(), allow_invalid)
}

fn budget_spec(spec: &PodDisruptionBudgetSpec, allow_invalid: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    if let (Some(min), Some(max)) = (&spec.min_available, &spec.max_unavailable) {
        let selector = match &spec.selector {
            None => "null".to_owned(),
            selector => show_selector(selector.as_ref()),
        };
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{selector},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            json(min),
            json(max),
            json(&spec.unhealthy_pod_eviction_policy)
        );
        errors.push(Error::invalid_shown(&path, shown, "minAvailable and maxUnavailable cannot be both set"));
    }
    for (key, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        if let Some(value) = value {
            errors.extend(non_negative_int_or_percent(value, &path.child(key)));
            errors.extend(not_more_than_100_percent(value, &path.child(key)));
        }
    }
    errors.extend(label_selector(spec.selector.as_ref(), allow_invalid, &path.child("selector")));
    if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
        let known = ["AlwaysAllow", "IfHealthyBudget"];
        errors.one_of(&path.child("unhealthyPodEvictionPolicy"), policy, &known);
    }
    errors
}

/// A budget changed by its status.
pub(crate) fn budget_status(new: &PodDisruptionBudget, _: &PodDisruptionBudget) -> ErrorList {
    let status = new.status.clone().unwrap_or_default();
    let path = Path::new("status");
    let mut errors = meta::conditions(list(&status.conditions), &path.child("conditions"));
    let counters = [
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ];
    for (key, value) in counters {
        errors.extend(non_negative(value.unwrap_or(0), &path.child(key)));
    }
    errors
}

/// The highest priority that users may give.
const MAX_PRIORITY: i32 = 1_000_000_000;

/// A new priority class.
pub(crate) fn priority_class(object: &PriorityClass) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, format::name_is_subdomain, &metadata());
    let name = text(&object.metadata.name);
    if name.starts_with("system-") {
        let why = match name {
            "system-node-critical" => system_class(object, 2_000_001_000),
            "system-cluster-critical" => system_class(object, 2_000_000_000),
            _ => Some(format!("{name} is not a known system priority class")),
        };
        if let Some(why) = why {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            );
            errors.forbidden(&metadata().child("name"), detail);
        }
    } else if object.value.unwrap_or(0) > MAX_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {MAX_PRIORITY}");
        errors.forbidden(&Path::new("value"), detail);
    }
    if let Some(policy) = &object.preemption_policy {
        errors.extend(preemption_policy(policy, &Path::new("preemptionPolicy")));
    }
    errors
}

fn system_class(object: &PriorityClass, value: i32) -> Option<String> {
    let name = text(&object.metadata.name);
    if object.value.unwrap_or(0) != value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    object
        .global_default
        .unwrap_or(false)
        .then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

/// A changed priority class.
pub(crate) fn priority_class_update(new: &PriorityClass, old: &PriorityClass) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    if new.value.unwrap_or(0) != old.value.unwrap_or(0) {
        errors.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    if new.preemption_policy != old.preemption_policy {
        errors.invalid(&Path::new("preemptionPolicy"), to_value(&new.preemption_policy), IMMUTABLE);
    }
    errors
}

/// A new runtime class.
pub(crate) fn runtime_class(object: &RuntimeClass) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, format::name_is_subdomain, &metadata());
    let path = Path::new("handler");
    match object.handler.as_str() {
        "" => errors.required(&path, ""),
        handler => errors.extend(check(&path, handler, format::dns1123_label(handler))),
    }
    if let Some(overhead) = &object.overhead {
        let limits =
            ResourceRequirements { limits: overhead.pod_fixed.clone(), ..ResourceRequirements::default() };
        let path = Path::new("overhead");
        errors.extend(resources::requirements(
            &limits,
            resources::container_resource_name,
            &BTreeSet::new(),
            &[],
            &path,
        ));
    }
    if let Some(scheduling) = &object.scheduling {
        let path = Path::new("scheduling");
        if scheduling.node_selector.is_some() {
            errors.extend(meta::labels(scheduling.node_selector.as_ref(), &path.child("nodeSelector")));
        }
        let path = path.child("tolerations");
        let all = list(&scheduling.tolerations);
        errors.extend(tolerations(all, &path));
        let key = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
        for (i, toleration) in all.iter().enumerate() {
            if all[..i].iter().any(|other| key(other) == key(toleration)) {
                let shown = Some(golang::show("core.Toleration", &to_value(toleration)));
                errors.push(Error { shown, ..Error::duplicate(&path.index(i), Value::Null) });
            }
        }
    }
    errors
}

/// A changed runtime class.
pub(crate) fn runtime_class_update(new: &RuntimeClass, old: &RuntimeClass) -> ErrorList {
    let mut errors = runtime_class(new);
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &metadata()));
    if new.handler != old.handler {
        errors.invalid(&Path::new("handler"), new.handler.as_str(), IMMUTABLE);
    }
    errors
}

/// A new lease.
pub(crate) fn lease(object: &Lease) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    lease_spec(&object.spec.clone().unwrap_or_default(), &mut errors);
    errors
}

/// A changed lease.
pub(crate) fn lease_update(new: &Lease, old: &Lease) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    lease_spec(&new.spec.clone().unwrap_or_default(), &mut errors);
    errors
}

fn lease_spec(spec: &LeaseSpec, errors: &mut ErrorList) {
    let path = Path::new("spec");
    if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
        errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(transitions) = spec.lease_transitions.filter(|t| *t < 0) {
        errors.invalid(&path.child("leaseTransitions"), transitions, "must be greater than or equal to 0");
    }
    let at = path.child("strategy").child("strategy");
    match spec.strategy.as_deref() {
        Some(strategy) if strategy.contains('/') => {
            errors.messages(&at, strategy, format::label_key(strategy));
        }
        Some(strategy) => errors.one_of(&at, strategy, &["OldestEmulationVersion"]),
        None => {}
    }
    if !text(&spec.preferred_holder).is_empty() && text(&spec.strategy).is_empty() {
        let detail = "may only be specified if `strategy` is defined";
        errors.forbidden(&path.child("preferredHolder"), detail);
    }
}
