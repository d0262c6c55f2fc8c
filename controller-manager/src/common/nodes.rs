//! Nodes as controllers see them: readiness, taints and tolerations, node affinity.

use super::{conditions, meta};
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// The status of a condition of the node, if it has it.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions::find(conditions, kind).map(|condition| condition.status.as_str())
}

/// The taints of a node.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether the toleration covers the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (theirs, ours) = (text(&taint.value), text(&toleration.value));
    let numbers = || Some((theirs.parse::<i64>().ok()?, ours.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => !key.is_empty() && theirs == ours,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(theirs, ours)| theirs < ours),
        "Gt" => numbers().is_some_and(|(theirs, ours)| theirs > ours),
        _ => false,
    }
}

/// The first taint with one of these effects that no toleration covers.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    let matters = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    matters.into_iter().find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether the node satisfies the pod's node selector and required node affinity.
pub fn satisfies_affinity(node: &Node, spec: &PodSpec) -> bool {
    let labels = meta::labels(&node.metadata);
    if !spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| satisfies_term(node, term)))
}

fn satisfies_term(node: &Node, term: &NodeSelectorTerm) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then(|| meta::name(&node.metadata));
    expressions
        .iter()
        .all(|requirement| satisfies(requirement, meta::label(&node.metadata, &requirement.key)))
        && fields.iter().all(|requirement| satisfies(requirement, field(&requirement.key)))
}

fn satisfies(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, bound)| have > bound),
        "Lt" => numbers().is_some_and(|(have, bound)| have < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, NodeSelector};

    #[test]
    fn tolerations() {
        let taint = Taint {
            key: "k".into(),
            value: Some("5".into()),
            effect: "NoExecute".into(),
            ..Default::default()
        };
        for (key, operator, value, effect, expected) in [
            ("k", "Equal", "5", "NoExecute", true),
            ("k", "", "5", "", true),
            ("k", "Equal", "6", "", false),
            ("k", "Exists", "", "", true),
            ("", "Exists", "", "", true),
            ("k", "Exists", "", "NoSchedule", false),
            ("other", "Exists", "", "", false),
            ("k", "Gt", "4", "", true),
            ("k", "Lt", "4", "", false),
        ] {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let toleration = Toleration {
                key: some(key),
                operator: some(operator),
                value: some(value),
                effect: some(effect),
                toleration_seconds: None,
            };
            assert_eq!(tolerates(&toleration, &taint), expected, "{key} {operator} {value} {effect}");
        }
    }

    #[test]
    fn affinity_terms_are_alternatives_and_their_parts_are_not() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        node.metadata.labels =
            Some([("zone".to_owned(), "a".to_owned()), ("size".to_owned(), "9".to_owned())].into());
        let requirement = |key: &str, operator: &str, values: &[&str]| NodeSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let term = |expressions: Vec<_>, fields: Vec<_>| NodeSelectorTerm {
            match_expressions: Some(expressions),
            match_fields: Some(fields),
        };
        for (terms, expected) in [
            (vec![term(vec![requirement("zone", "In", &["a"])], vec![])], true),
            (
                vec![term(vec![requirement("zone", "In", &["a"]), requirement("x", "Exists", &[])], vec![])],
                false,
            ),
            (
                vec![
                    term(vec![requirement("zone", "In", &["b"])], vec![]),
                    term(vec![requirement("size", "Gt", &["8"])], vec![]),
                ],
                true,
            ),
            (vec![term(vec![], vec![requirement("metadata.name", "In", &["n1"])])], true),
            (vec![term(vec![], vec![requirement("metadata.name", "In", &["n2"])])], false),
            (vec![term(vec![], vec![])], false),
        ] {
            let spec = PodSpec {
                affinity: Some(Affinity {
                    node_affinity: Some(NodeAffinity {
                        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                            node_selector_terms: terms.clone(),
                        }),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            };
            assert_eq!(satisfies_affinity(&node, &spec), expected, "{terms:?}");
        }
    }
}
