//! Disruption budgets, roles and their bindings, priority classes (upstream `policy/validation`, `rbac/validation`,
//! `scheduling/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{creates, updates};

fn rbac(kind: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("rbac.authorization.k8s.io", "v1", kind)
}

#[test]
fn disruption_budgets() {
    let kind = GroupVersionKind::new("policy", "v1", "PodDisruptionBudget");
    let base = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}});
    let spec = |spec: Value| json!({"spec": spec});
    let mut cases = vec![
        (json!({}), String::new()),
        (
            spec(json!({"minAvailable": 1, "maxUnavailable": 1})),
            "spec: minAvailable and maxUnavailable cannot be both set".to_owned(),
        ),
        (
            spec(json!({"unhealthyPodEvictionPolicy": "Invalid"})),
            "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Invalid\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"".to_owned(),
        ),
        (spec(json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"})), String::new()),
        (
            spec(json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
            "spec.selector.matchExpressions[0].values: Required value".to_owned(),
        ),
    ];
    for key in ["minAvailable", "maxUnavailable"] {
        let at = format!("spec.{key}");
        for (value, wrong) in [
            (json!(0), ""),
            (json!("10%"), ""),
            (json!("100%"), ""),
            (json!(-1), "must be greater than or equal to 0"),
            (json!("1.1%"), "a valid percent string must be a numeric string followed by an ending '%'"),
            (json!("1"), "a valid percent string must be"),
            (json!("nope"), "a valid percent string must be"),
            (json!("101%"), "must not be greater than 100%"),
        ] {
            let expected = if wrong.is_empty() { String::new() } else { format!("{at}: {wrong}") };
            cases.push((spec(json!({key: value})), expected));
        }
    }
    let cases: Vec<(Value, &str)> =
        cases.iter().map(|(change, wrong)| (change.clone(), wrong.as_str())).collect();
    creates(&kind, &base, &cases);
}

#[test]
fn roles() {
    let rule = |rule: Value| json!({"rules": [rule]});
    let base = json!({"metadata": {"name": "r", "namespace": "n"}});
    let both =
        json!({"verbs": ["get"], "nonResourceURLs": ["/*"], "apiGroups": ["v1"], "resources": ["pods"]});
    creates(
        &rbac("Role"),
        &base,
        &[
            (json!({}), ""),
            (rule(json!({"verbs": ["get"], "apiGroups": ["v1"], "resources": ["pods"]})), ""),
            (
                rule(json!({"apiGroups": [""], "resources": ["pods"]})),
                "rules[0].verbs: Required value: verbs must contain at least one value",
            ),
            (
                rule(json!({"verbs": ["get"], "nonResourceURLs": ["/*"]})),
                "rules[0].nonResourceURLs: Invalid value: [\"/*\"]: namespaced rules cannot apply to non-resource URLs",
            ),
            (
                rule(json!({"verbs": ["get"], "resources": ["pods"]})),
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            ),
            (
                rule(json!({"verbs": ["get"], "apiGroups": [""]})),
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ),
            (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
            (json!({"metadata": {"namespace": ""}}), "metadata.namespace: Required value"),
        ],
    );
    creates(
        &rbac("ClusterRole"),
        &json!({"metadata": {"name": "system:a"}}),
        &[
            (json!({}), ""),
            (rule(json!({"verbs": ["get"], "nonResourceURLs": ["/*"]})), ""),
            (rule(json!({"nonResourceURLs": ["/*"]})), "rules[0].verbs: Required value"),
            (
                rule(both),
                "rules[0].nonResourceURLs: Invalid value: [\"/*\"]: rules cannot apply to both regular resources and non-resource URLs",
            ),
        ],
    );
}

#[test]
fn bindings() {
    let group = "rbac.authorization.k8s.io";
    let reference = json!({"apiGroup": group, "kind": "Role", "name": "valid"});
    let base = json!({
        "metadata": {"name": "default", "namespace": "n"}, "roleRef": reference,
        "subjects": [
            {"kind": "User", "apiGroup": group, "name": "validsubject"},
            {"kind": "ServiceAccount", "name": "valid", "namespace": "n"},
        ],
    });
    let subject = |subject: Value| json!({"subjects": [subject]});
    creates(
        &rbac("RoleBinding"),
        &base,
        &[
            (json!({}), ""),
            (
                json!({"roleRef": {"apiGroup": "rbac.GroupName"}}),
                "roleRef.apiGroup: Unsupported value: \"rbac.GroupName\": supported values: \"rbac.authorization.k8s.io\"",
            ),
            (
                json!({"roleRef": {"kind": "Type"}}),
                "roleRef.kind: Unsupported value: \"Type\": supported values: \"Role\", \"ClusterRole\"",
            ),
            (json!({"roleRef": {"name": ""}}), "roleRef.name: Required value"),
            (
                json!({"roleRef": {"name": "foo/bar"}}),
                "roleRef.name: Invalid value: \"foo/bar\": may not contain '/'",
            ),
            (
                subject(json!({"kind": "ServiceAccount", "apiGroup": "foo", "name": "a", "namespace": "n"})),
                "subjects[0].apiGroup: Unsupported value: \"foo\": supported values: \"\"",
            ),
            (
                subject(json!({"kind": "User", "apiGroup": "foo", "name": "a"})),
                "subjects[0].apiGroup: Unsupported value: \"foo\"",
            ),
            (
                subject(json!({"kind": "Group", "apiGroup": "foo", "name": "a"})),
                "subjects[0].apiGroup: Unsupported value: \"foo\"",
            ),
            (
                subject(json!({"kind": "ServiceAccount", "name": "subject:bad", "namespace": "n"})),
                "subjects[0].name: Invalid value: \"subject:bad\"",
            ),
            (
                subject(json!({"kind": "ServiceAccount", "name": "", "namespace": "n"})),
                "subjects[0].name: Required value",
            ),
            (
                subject(json!({"kind": "Odd", "name": "a"})),
                "subjects[0].kind: Unsupported value: \"Odd\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ),
        ],
    );
    updates(
        &rbac("RoleBinding"),
        &base,
        &[
            (json!({"subjects": null}), ""),
            (json!({"roleRef": {"name": "changed"}}), "roleRef: cannot change roleRef"),
        ],
    );
    let cluster = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "r"}});
    creates(
        &rbac("ClusterRoleBinding"),
        &cluster,
        &[
            (json!({}), ""),
            (
                json!({"roleRef": {"kind": "Role"}}),
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            ),
            (
                json!({"roleRef": {"apiGroup": "rbac.GroupName"}}),
                "roleRef.apiGroup: Unsupported value: \"rbac.GroupName\"",
            ),
            (json!({"roleRef": {"kind": "Type"}}), "roleRef.kind: Unsupported value: \"Type\""),
            (json!({"roleRef": {"name": ""}}), "roleRef.name: Required value"),
            (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
            (
                json!({"subjects": [
                    {"kind": "ServiceAccount", "name": "validsaname", "namespace": "foo"},
                    {"kind": "User", "apiGroup": group, "name": "valid@username"},
                    {"kind": "Group", "apiGroup": group, "name": "valid@groupname"},
                ]}),
                "",
            ),
            (subject(json!({"kind": "", "name": "subject"})), "subjects[0].kind: Unsupported value: \"\""),
            (
                subject(json!({"kind": "ServiceAccount", "namespace": "foo", "name": "subject:bad"})),
                "subjects[0].name: Invalid value: \"subject:bad\"",
            ),
            (
                subject(json!({"kind": "ServiceAccount", "namespace": "foo", "name": ""})),
                "subjects[0].name: Required value",
            ),
            (
                subject(json!({"kind": "ServiceAccount", "name": "a"})),
                "subjects[0].namespace: Required value",
            ),
        ],
    );
}

#[test]
fn priority_classes() {
    let kind = GroupVersionKind::new("scheduling.k8s.io", "v1", "PriorityClass");
    let base =
        json!({"metadata": {"name": "tier1"}, "value": 200, "preemptionPolicy": "PreemptLowerPriority"});
    creates(
        &kind,
        &base,
        &[
            (json!({}), ""),
            (json!({"value": 1_000_000_000}), ""),
            (
                json!({"value": 1_000_000_001}),
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ),
            (json!({"metadata": {"name": "system-cluster-critical"}, "value": 2_000_000_000}), ""),
            (
                json!({"metadata": {"name": "system-test"}}),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-test is not a known system priority class",
            ),
            (json!({"metadata": {"name": "tier&1"}}), "metadata.name: Invalid value: \"tier&1\""),
            (
                json!({"metadata": {"namespace": "foo"}}),
                "metadata.namespace: Forbidden: not allowed on this type",
            ),
            (json!({"preemptionPolicy": "Odd"}), "preemptionPolicy: Unsupported value: \"Odd\""),
            (json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}), ""),
            (
                json!({"metadata": {"name": "system-node-critical"}, "value": 0}),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
            ),
            (
                json!({"metadata": {"name": "system-something"}, "value": 2_000_001_000}),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only.",
            ),
        ],
    );
    updates(
        &kind,
        &base,
        &[
            (json!({"globalDefault": true, "description": "x"}), ""),
            (json!({"value": 300}), "value: Forbidden: may not be changed in an update."),
            (json!({"preemptionPolicy": "Never"}), "preemptionPolicy: field is immutable"),
            (json!({"value": null}), "value: Forbidden: may not be changed in an update."),
            (json!({"description": null}), ""),
            (json!({"metadata": {"name": "tier2"}}), "metadata.name: field is immutable"),
            (json!({"metadata": {"namespace": "foo"}}), "metadata.namespace: "),
        ],
    );
}
