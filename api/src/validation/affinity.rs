//! Where pods may run: node selectors, affinity, tolerations, spreading.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Taint,
    Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::golang;
use super::meta::{self, label_name};
use super::pod::Fault;
use super::rules::{list, positive, text, to_value};

/// A selector of nodes.
pub(crate) fn node_selector(selector: &NodeSelector, allow_invalid: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        errors.extend(node_selector_term(term, allow_invalid, &path.index(i)));
    }
    errors
}

fn node_selector_term(term: &NodeSelectorTerm, allow_invalid: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, requirement) in list(&term.match_expressions).iter().enumerate() {
        node_requirement(requirement, allow_invalid, &path.child("matchExpressions").index(i), &mut errors);
    }
    for (i, requirement) in list(&term.match_fields).iter().enumerate() {
        node_field(requirement, &path.child("matchFields").index(i), &mut errors);
    }
    errors
}

fn node_requirement(
    requirement: &NodeSelectorRequirement,
    allow_invalid: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let values = list(&requirement.values);
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.extend(label_name(&requirement.key, &path.child("key")));
    if !allow_invalid {
        for (i, value) in values.iter().enumerate() {
            errors.messages(&at.index(i), value, format::label_value(value));
        }
    }
}

fn node_field(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut ErrorList) {
    let values = list(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&path.child("values"), detail);
        }
        "In" | "NotIn" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if requirement.key != "metadata.name" {
        return errors.invalid(
            &path.child("key"),
            requirement.key.as_str(),
            "not a valid field selector key",
        );
    }
    for (i, value) in values.iter().enumerate() {
        errors.messages(&path.child("values").index(i), value, format::dns1123_subdomain(value));
    }
}

/// Whether a selector of nodes has values that no label has.
pub(crate) fn has_invalid_values(selector: &NodeSelector) -> bool {
    let expressions = selector.node_selector_terms.iter().flat_map(|term| list(&term.match_expressions));
    expressions.flat_map(|e| list(&e.values)).any(|value| !format::label_value(value).is_empty())
}

/// Affinity of a pod.
pub(crate) fn affinity(affinity: &Affinity, faults: &[Fault], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(node) = &affinity.node_affinity {
        errors.extend(node_affinity(node, faults, &path.child("nodeAffinity")));
    }
    let lax = faults.contains(&Fault::SelectorValues);
    if let Some(pods) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        terms(list(&pods.required_during_scheduling_ignored_during_execution), lax, &path, &mut errors);
        weighted(list(&pods.preferred_during_scheduling_ignored_during_execution), lax, &path, &mut errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        terms(list(&pods.required_during_scheduling_ignored_during_execution), lax, &path, &mut errors);
        weighted(list(&pods.preferred_during_scheduling_ignored_during_execution), lax, &path, &mut errors);
    }
    errors
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn weight(weight: i32, path: &Path, errors: &mut ErrorList) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn node_affinity(affinity: &NodeAffinity, faults: &[Fault], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        errors.extend(node_selector(selector, faults.contains(&Fault::NodeValues), &path.child(REQUIRED)));
    }
    let preferred = list(&affinity.preferred_during_scheduling_ignored_during_execution);
    for (i, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(term.weight, &path, &mut errors);
        errors.extend(node_selector_term(&term.preference, true, &path.child("preference")));
    }
    errors
}

fn terms(terms: &[PodAffinityTerm], lax: bool, path: &Path, errors: &mut ErrorList) {
    for (i, own) in terms.iter().enumerate() {
        term(own, lax, &path.child(REQUIRED).index(i), errors);
    }
}

fn weighted(terms: &[WeightedPodAffinityTerm], lax: bool, path: &Path, errors: &mut ErrorList) {
    for (i, own) in terms.iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(own.weight, &path, errors);
        term(&own.pod_affinity_term, lax, &path.child("podAffinityTerm"), errors);
    }
}

fn term(term: &PodAffinityTerm, lax: bool, path: &Path, errors: &mut ErrorList) {
    errors.extend(meta::label_selector(term.label_selector.as_ref(), lax, &path.child("labelSelector")));
    errors.extend(meta::label_selector(
        term.namespace_selector.as_ref(),
        lax,
        &path.child("namespaceSelector"),
    ));
    for namespace in list(&term.namespaces) {
        errors.messages(&path.child("namespace"), namespace, format::dns1123_label(namespace));
    }
    let (keys, other) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    match_label_keys(keys, other, term.label_selector.as_ref(), path, errors);
    if term.topology_key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    errors.extend(label_name(&term.topology_key, &path.child("topologyKey")));
}

/// Label keys by which other pods are (not) like this one. They must not be selected by anyway.
pub(crate) fn match_label_keys(
    keys: &[String],
    mismatch: &[String],
    selector: Option<&LabelSelector>,
    path: &Path,
    errors: &mut ErrorList,
) {
    for (name, keys) in [("matchLabelKeys", keys), ("mismatchLabelKeys", mismatch)] {
        let path = path.child(name);
        if keys.is_empty() {
            continue;
        }
        if selector.is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            errors.extend(label_name(key, &path.index(i)));
        }
    }
    if let Some(selector) = selector {
        let mut seen: BTreeSet<&str> =
            selector.match_labels.iter().flatten().map(|(k, _)| k.as_str()).collect();
        for expression in list(&selector.match_expressions) {
            let place = keys.iter().rposition(|k| *k == expression.key);
            if let Some(i) = place.filter(|_| seen.contains(expression.key.as_str())) {
                let detail = "exists in both matchLabelKeys and labelSelector";
                errors.invalid(&path.index(i), expression.key.as_str(), detail);
            }
            seen.insert(&expression.key);
        }
    }
    for (i, key) in keys.iter().enumerate().filter(|(_, key)| mismatch.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&path.child("matchLabelKeys").index(i), key.as_str(), detail);
    }
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Tolerations of a pod or runtime class.
pub(crate) fn tolerations(tolerations: &[Toleration], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, toleration) in tolerations.iter().enumerate() {
        one_toleration(toleration, &path.index(i), &mut errors);
    }
    errors
}

fn one_toleration(toleration: &Toleration, path: &Path, errors: &mut ErrorList) {
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    let at = path.child("operator");
    if !key.is_empty() {
        errors.extend(label_name(key, &path.child("key")));
    }
    if key.is_empty() && operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&at, operator, detail);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        errors.invalid(
            &path.child("effect"),
            effect,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        );
    }
    match operator {
        "Equal" | "" => {
            let messages = format::label_value(value);
            if !messages.is_empty() {
                errors.invalid(&at, value, messages.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.invalid(&at, value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        "Lt" | "Gt" => errors.not_supported(&at, operator, &["Equal", "Exists", "Lt", "Gt"]),
        _ => errors.not_supported(&at, operator, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        errors.one_of(&path.child("effect"), effect, &EFFECTS);
    }
}

/// Taints of a node.
pub(crate) fn taints(taints: &[Taint], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        errors.extend(label_name(&taint.key, &path.child("key")));
        let messages = format::label_value(text(&taint.value));
        if !messages.is_empty() {
            errors.invalid(&path.child("value"), text(&taint.value), messages.join(";"));
        }
        match taint.effect.as_str() {
            "" => errors.required(&path.child("effect"), ""),
            effect => errors.one_of(&path.child("effect"), effect, &EFFECTS),
        }
        if !seen.insert((taint.effect.as_str(), taint.key.as_str())) {
            let shown = golang::show("core.Taint", &to_value(taint));
            let error = Error::duplicate(&path, serde_json::Value::Null);
            let detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(Error { shown: Some(shown), detail, ..error });
        }
    }
    errors
}

/// How pods are spread.
pub(crate) fn spread_constraints(
    constraints: &[TopologySpreadConstraint],
    faults: &[Fault],
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        errors.extend(positive(constraint.max_skew, &path.child("maxSkew")));
        if constraint.topology_key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        let action = constraint.when_unsatisfiable.as_str();
        errors.one_of(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == action
        };
        if constraints[i + 1..].iter().any(same) {
            let shown = format!("{{{}, {action}}}", constraint.topology_key);
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), shown);
        }
        if let Some(domains) = constraint.min_domains {
            let at = path.child("minDomains");
            errors.extend(positive(domains, &at));
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&at, domains, detail);
            }
        }
        for (key, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy {
                errors.one_of(&path.child(key), policy, &["Honor", "Ignore"]);
            }
        }
        let selector = constraint.label_selector.as_ref();
        let keys = list(&constraint.match_label_keys);
        if faults.contains(&Fault::SpreadKeys) {
            spread_keys(keys, selector, &path.child("matchLabelKeys"), &mut errors);
        } else {
            match_label_keys(keys, &[], selector, &path, &mut errors);
        }
        if !faults.contains(&Fault::SpreadSelectors) {
            errors.extend(meta::label_selector(selector, false, &path.child("labelSelector")));
        }
    }
    errors
}

/// As [`match_label_keys`], by the rules from before the keys were merged into the selector.
fn spread_keys(keys: &[String], selector: Option<&LabelSelector>, path: &Path, errors: &mut ErrorList) {
    if selector.is_none() && !keys.is_empty() {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    let selected = |key: &String| {
        selector.is_some_and(|s| {
            s.match_labels.as_ref().is_some_and(|labels| labels.contains_key(key))
                || list(&s.match_expressions).iter().any(|e| e.key == *key)
        })
    };
    for (i, key) in keys.iter().enumerate() {
        errors.extend(label_name(key, &path.index(i)));
        if selected(key) {
            errors.invalid(&path.index(i), key.as_str(), "exists in both matchLabelKeys and labelSelector");
        }
    }
}
