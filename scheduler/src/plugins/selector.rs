//! Node selector terms: `nodeSelector` and required node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
};

/// The node affinity of a pod.
pub fn node_affinity(pod: &Pod) -> Option<&NodeAffinity> {
    pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// The node selector of a pod.
pub fn node_selector(pod: &Pod) -> Option<&BTreeMap<String, String>> {
    pod.spec.as_ref()?.node_selector.as_ref()
}

/// Whether the pod requires anything of its node.
pub fn requires_node(pod: &Pod) -> bool {
    let required =
        node_affinity(pod).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    node_selector(pod).is_some() || required.is_some()
}

/// Whether the node is one the pod requires: its `nodeSelector`, and one of its required affinity terms.
pub fn required_matches(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    if spec.node_selector.iter().flatten().any(|(key, value)| label(node, key) != Some(value)) {
        return false;
    }
    match node_affinity(pod).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()) {
        None => true,
        Some(selector) => selector_matches(selector, node),
    }
}

/// Whether one of the terms matches.
pub fn selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether all of the term holds; a term that says nothing matches nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (labels, fields) = (
        term.match_expressions.as_deref().unwrap_or_default(),
        term.match_fields.as_deref().unwrap_or_default(),
    );
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let name = || Some(node.metadata.name.as_deref().unwrap_or_default());
    let field = |key: &str| if key == "metadata.name" { name() } else { None };
    labels.iter().all(|r| requirement_matches(r, label(node, &r.key)))
        && fields.iter().all(|r| requirement_matches(r, field(&r.key)))
}

/// One label of a node.
pub fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|v| v == value);
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}
