//! Leases and runtime classes (upstream `coordination/validation`, `node/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{changes, wholly};

#[test]
fn leases() {
    let kind = GroupVersionKind::new("coordination.k8s.io", "v1", "Lease");
    let base = json!({
        "metadata": {"name": "holder", "namespace": "holder-namespace"},
        "spec": {"holderIdentity": "holder", "leaseDurationSeconds": 10, "leaseTransitions": 1},
    });
    let spec = |spec: Value| json!({"spec": spec});
    let strategy = |strategy: &str| json!({"spec": {"strategy": strategy}});
    let both = "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0 | spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0";
    let held =
        format!("{both} | spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined");
    wholly(
        &kind,
        &base,
        &[
            (json!({}), ""),
            (spec(json!({"strategy": "OldestEmulationVersion", "preferredHolder": "someotherholder"})), ""),
            (spec(json!({"leaseDurationSeconds": 0, "leaseTransitions": -1})), both),
            (
                spec(
                    json!({"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "holder2"}),
                ),
                &held,
            ),
            (
                strategy("foobar"),
                "spec.strategy.strategy: Unsupported value: \"foobar\": supported values: \"OldestEmulationVersion\"",
            ),
            (
                strategy("example.com/foobar/toomanyslashes"),
                "spec.strategy.strategy: Invalid value: \"example.com/foobar/toomanyslashes\": a valid label key must consist of",
            ),
            (strategy("OldestEmulationVersion"), ""),
            (strategy("example.com/foobar"), ""),
            (
                json!({"metadata": {"name": "invalidName++", "namespace": "==invalid_Namespace=="}}),
                "metadata.name: Invalid value: \"invalidName++\": a lowercase RFC 1123 subdomain must consist of | metadata.namespace: Invalid value: \"==invalid_Namespace==\": a lowercase RFC 1123 label must consist of",
            ),
        ],
    );
    let unversioned = super::with(
        &spec(json!({"leaseDurationSeconds": 0, "leaseTransitions": -1})),
        &json!({"metadata": {"resourceVersion": ""}}),
    );
    let version = "metadata.resourceVersion: Invalid value: \"\": must be specified for an update";
    let wrong = format!("{version} | {version} | {both}");
    changes(
        &kind,
        "",
        &base,
        &[
            (json!({}), unversioned, &wrong),
            (json!({}), spec(json!({"leaseDurationSeconds": 10, "leaseTransitions": 20})), ""),
        ],
    );
}

#[test]
fn runtime_classes() {
    let kind = GroupVersionKind::new("node.k8s.io", "v1", "RuntimeClass");
    let base = json!({"metadata": {"name": "foo"}, "handler": "bar"});
    let scheduling = |scheduling: Value| json!({"scheduling": scheduling});
    let exists = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let lasting = |seconds: i32| json!({"key": "valid", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    let overhead = |amounts: Value| json!({"overhead": {"podFixed": amounts}});
    let label = "Invalid value: \"not a valid key!!!\": name part must consist of";
    let selector = format!("scheduling.nodeSelector: {label}");
    let toleration = format!("scheduling.tolerations[1].key: {label}");
    let both = format!("{selector} | {toleration}");
    wholly(
        &kind,
        &base,
        &[
            (json!({"handler": "bar-baz"}), ""),
            (
                json!({"metadata": {"name": "&!@#"}}),
                "metadata.name: Invalid value: \"&!@#\": a lowercase RFC 1123 subdomain must consist of",
            ),
            (
                json!({"handler": "&@#$"}),
                "handler: Invalid value: \"&@#$\": a lowercase RFC 1123 label must consist of",
            ),
            (json!({"handler": ""}), "handler: Required value"),
            (overhead(json!({"cpu": "10", "memory": "10G"})), ""),
            (
                overhead(json!({"my.org": "10m"})),
                "overhead.limits[my.org]: Invalid value: \"my.org\": must be a standard resource type or fully qualified | overhead.limits[my.org]: Invalid value: \"my.org\": must be a standard resource for containers",
            ),
            (scheduling(json!({"nodeSelector": {"valid": "yes"}, "tolerations": [exists("valid")]})), ""),
            (scheduling(json!({})), ""),
            (scheduling(json!({"nodeSelector": {"not a valid key!!!": "nope"}})), &selector),
            (
                scheduling(json!({"tolerations": [exists("valid"), exists("not a valid key!!!")]})),
                &toleration,
            ),
            (
                scheduling(json!({"tolerations": [lasting(5), lasting(10)]})),
                "scheduling.tolerations[1]: Duplicate value: ",
            ),
            (
                scheduling(json!({
                    "nodeSelector": {"not a valid key!!!": "nope"},
                    "tolerations": [exists("valid"), exists("not a valid key!!!")],
                })),
                &both,
            ),
        ],
    );
    changes(
        &kind,
        "",
        &base,
        &[
            (json!({}), json!({"metadata": {"labels": {"foo": "bar"}}}), ""),
            (
                json!({}),
                json!({"metadata": {"name": "empty"}}),
                "metadata.name: Invalid value: \"empty\": field is immutable | metadata.name: Invalid value: \"empty\": field is immutable",
            ),
            (
                json!({}),
                json!({"handler": "somethingelse"}),
                "handler: Invalid value: \"somethingelse\": field is immutable",
            ),
        ],
    );
}
