//! Deployments, replica sets, daemon sets, replication controllers (upstream `apps/validation`, `core/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, container, pod_spec, wholly, with};

const BAD: &str = "NoUppercaseOrSpecialCharsLike=Equals";

fn kind(kind: &'static str) -> GroupVersionKind {
    match kind {
        "ReplicationController" => GroupVersionKind::new("", "v1", kind),
        _ => GroupVersionKind::new("apps", "v1", kind),
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": pod_spec("Always")})
}

fn object(spec: &Value) -> Value {
    with(
        &json!({"metadata": {"name": "abc", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template()}}),
        &json!({"spec": spec}),
    )
}

fn base(kind: &str) -> Value {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    match kind {
        "Deployment" => object(&json!({"strategy": rolling})),
        "DaemonSet" => object(&json!({"updateStrategy": {"type": "OnDelete"}})),
        "ReplicationController" => {
            object(&json!({"replicas": 1, "selector": {"matchLabels": null, "a": "b"}}))
        }
        _ => object(&json!({})),
    }
}

const ALL: [&str; 4] = ["Deployment", "ReplicaSet", "DaemonSet", "ReplicationController"];

/// Cases of changes of all kinds of workloads.
fn all(cases: &[(Value, &str)]) {
    for name in ALL {
        wholly(&kind(name), &base(name), cases);
    }
}

#[test]
fn metadata_and_templates() {
    let network = json!({"spec": {"template": {"spec": {"hostNetwork": true, "containers": [with(
        &container("abc"), &json!({"ports": [{"containerPort": 12345, "protocol": "TCP"}]}))]}}}});
    let disk =
        json!({"gcePersistentDisk": {"pdName": "my-PD", "fsType": "ext4", "partition": 1}, "name": "gcepd"});
    let spec = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let label = format!("metadata.labels: Invalid value: \"{BAD}\"");
    all(&[
        (json!({}), ""),
        (json!({"metadata": {"name": "abc-123"}}), ""),
        (network, ""),
        (spec(json!({"volumes": [disk]})), ""),
        (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
        (json!({"metadata": {"namespace": ""}}), "metadata.namespace: Required value"),
        (json!({"metadata": {"labels": {BAD: "bar"}}}), &label),
        (
            json!({"metadata": {"annotations": {BAD: "bar"}}}),
            &format!("metadata.annotations: Invalid value: \"{BAD}\""),
        ),
        (
            spec(json!({"restartPolicy": "OnFailure"})),
            "spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\"",
        ),
        (
            spec(json!({"restartPolicy": "Never"})),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            spec(json!({"ephemeralContainers": [container("debug")]})),
            "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
        ),
        (spec(json!({"containers": null})), "spec.template.spec.containers: Required value"),
        (
            json!({"spec": {"template": {"metadata": {"labels": {"a": null, "x": "y"}}}}}),
            "spec.template.metadata.labels: Invalid value: {\"x\":\"y\"}: `selector` does not match template `labels`",
        ),
        (
            json!({"spec": {"minReadySeconds": -1}}),
            "spec.minReadySeconds: must be greater than or equal to 0",
        ),
        (json!({"spec": {"minReadySeconds": 100}}), ""),
    ]);
    for name in ["Deployment", "ReplicaSet", "ReplicationController"] {
        below(
            &kind(name),
            &base(name),
            "spec.replicas",
            |n| json!({"spec": {"replicas": n}}),
            &[
                (json!(0), ""),
                (json!(100), ""),
                (json!(-1), ": Invalid value: -1: must be greater than or equal to 0"),
            ],
        );
    }
}

#[test]
fn selectors() {
    let labels = json!({"spec": {"selector": {"matchLabels": {"a": null, "foo": "bar"}}}});
    let differs = "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";
    let cases = [
        ("Deployment", "spec.selector: Required value", "deployment"),
        ("ReplicaSet", "spec.selector: Required value", "deployment"),
        ("DaemonSet", "", "daemonset"),
    ];
    for (name, missing, shown) in cases {
        let missing = if missing.is_empty() { differs.to_owned() } else { format!("{missing} | {differs}") };
        let empty = format!("spec.selector: Invalid value: {{}}: empty selector is invalid for {shown}");
        wholly(
            &kind(name),
            &base(name),
            &[
                (labels.clone(), differs),
                (json!({"spec": {"selector": null}}), &missing),
                (json!({"spec": {"selector": {"matchLabels": null}}}), &empty),
            ],
        );
    }
    wholly(
        &kind("ReplicationController"),
        &base("ReplicationController"),
        &[
            (json!({"spec": {"selector": {"a": null, "foo": "bar"}}}), differs),
            (json!({"spec": {"selector": null}}), "spec.selector: Required value"),
            (json!({"spec": {"replicas": null}}), "spec.replicas: Required value"),
            (json!({"spec": {"template": null}}), "spec.template: Required value"),
            (
                json!({"spec": {"template": {"metadata": {"labels": {"a": null, BAD: "bar"}}}}}),
                &format!(
                    "spec.template.metadata.labels: `selector` does not match template `labels` | spec.template.labels: Invalid value: \"{BAD}\""
                ),
            ),
        ],
    );
}

#[test]
fn strategies_of_deployments() {
    let rolling = |surge: Value, unavailable: Value| json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}});
    let at = ".strategy.rollingUpdate";
    below(
        &kind("Deployment"),
        &base("Deployment"),
        "spec",
        |spec| json!({"spec": spec}),
        &[
            (
                json!({"strategy": {"type": "randomType"}}),
                ".strategy: Unsupported value: {\"Type\":\"randomType\",\"RollingUpdate\":{\"MaxUnavailable\":1,\"MaxSurge\":1}}: supported values: \"Recreate\", \"RollingUpdate\"",
            ),
            (
                json!({"strategy": {"type": "Recreate"}}),
                &format!("{at}: Forbidden: may not be specified when strategy `type` is 'Recreate'"),
            ),
            (json!({"strategy": {"type": "Recreate", "rollingUpdate": null}}), ""),
            (
                json!({"strategy": {"rollingUpdate": null}}),
                &format!("{at}: Required value: this should be defaulted and never be nil"),
            ),
            (
                rolling(json!("20Percent"), json!(1)),
                &format!("{at}.maxSurge: Invalid value: \"20Percent\": a valid percent string must be"),
            ),
            (
                rolling(json!("0%"), json!(0)),
                &format!("{at}.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"),
            ),
            (
                rolling(json!(1), json!("110%")),
                &format!("{at}.maxUnavailable: Invalid value: \"110%\": must not be greater than 100%"),
            ),
            (rolling(json!("110%"), json!(1)), ""),
            (
                rolling(json!(-1), json!(1)),
                &format!("{at}.maxSurge: Invalid value: -1: must be greater than or equal to 0"),
            ),
            (
                json!({"progressDeadlineSeconds": 600, "minReadySeconds": 600}),
                ".progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
            ),
            (json!({"progressDeadlineSeconds": 601, "minReadySeconds": 600}), ""),
            (json!({"revisionHistoryLimit": 0}), ""),
            (
                json!({"revisionHistoryLimit": -1}),
                ".revisionHistoryLimit: must be greater than or equal to 0",
            ),
            (
                json!({"template": {"spec": {"activeDeadlineSeconds": 60}}}),
                ".template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ),
        ],
    );
}

#[test]
fn strategies_of_daemon_sets() {
    let at = "spec.updateStrategy";
    let place = |rolling: &Value| json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}});
    let rolling =
        |unavailable: Value, surge: Value| json!({"maxUnavailable": unavailable, "maxSurge": surge});
    let none = || Value::Null;
    let neither = ".rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0";
    let both =
        ".rollingUpdate.maxSurge: Invalid value: \"1%\": may not be set when maxUnavailable is non-zero";
    below(
        &kind("DaemonSet"),
        &base("DaemonSet"),
        at,
        place,
        &[
            (none(), ".rollingUpdate: Required value"),
            (json!({}), neither),
            (rolling(json!("0%"), none()), neither),
            (rolling(json!(0), none()), neither),
            (rolling(json!(1), none()), ""),
            (rolling(json!("1%"), none()), ""),
            (rolling(json!("100%"), none()), ""),
            (
                rolling(json!("101%"), none()),
                ".rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (rolling(json!("1%"), json!("1%")), both),
            (rolling(none(), json!("0%")), neither),
            (rolling(none(), json!(0)), neither),
            (rolling(none(), json!(1)), ""),
            (rolling(none(), json!("1%")), ""),
            (rolling(none(), json!("100%")), ""),
            (
                rolling(none(), json!("101%")),
                ".rollingUpdate.maxSurge: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (rolling(json!("0%"), json!("0%")), neither),
            (rolling(json!(0), json!(0)), neither),
            (rolling(json!(0), json!("0%")), neither),
        ],
    );
    below(
        &kind("DaemonSet"),
        &base("DaemonSet"),
        at,
        |kind| json!({"spec": {"updateStrategy": {"type": kind}}}),
        &[(
            json!("Random"),
            ": Unsupported value: {\"Type\":\"Random\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
        )],
    );
}

#[test]
fn updates() {
    let replicas = |n: Value| json!({"spec": {"replicas": n}});
    let disk =
        json!({"gcePersistentDisk": {"pdName": "my-PD", "fsType": "ext4", "partition": 1}, "name": "gcepd"});
    let invalid = json!({"spec": {"template": {"metadata": {"labels": {"a": null, BAD: "b"}}, "spec": {"containers": null}}}});
    let bad_labels = json!({"spec": {"selector": {"matchLabels": {"a": null, BAD: "b"}}}});
    let other = json!({"spec": {"selector": {"matchLabels": {"a": null, "c": "d"}}, "template": {"metadata": {"labels": {"a": null, "c": "d"}}}}});
    let immutable = "spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable";
    let differs = "spec.template.metadata.labels: `selector` does not match template `labels`";
    let labels = format!("spec.template.labels: Invalid value: \"{BAD}\"");
    let containers = "spec.template.spec.containers: Required value";
    for name in ["Deployment", "ReplicaSet"] {
        let volumes = json!({"spec": {"replicas": 2, "template": {"spec": {"volumes": [disk]}}}});
        changes(
            &kind(name),
            "",
            &base(name),
            &[
                (json!({}), replicas(json!(3)), ""),
                (json!({}), volumes, ""),
                (json!({}), replicas(json!(-1)), "spec.replicas: Invalid value: -1"),
                (json!({}), other.clone(), immutable),
                (json!({}), invalid.clone(), &format!("{differs} | {labels} | {containers}")),
                (
                    json!({}),
                    bad_labels.clone(),
                    &format!(
                        "spec.selector.matchLabels: Invalid value: \"{BAD}\" | spec.selector: invalid label selector | spec.selector: field is immutable"
                    ),
                ),
            ],
        );
    }
    let name = "DaemonSet";
    let rolling = json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}});
    changes(
        &kind(name),
        "",
        &base(name),
        &[
            (json!({}), json!({}), ""),
            (
                json!({}),
                json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}, "nodeName": "xyz"}}}}),
                "",
            ),
            (json!({}), json!({"spec": {"template": {"spec": {"volumes": [disk]}}}}), ""),
            (json!({}), rolling, ""),
            (
                json!({"metadata": {"name": "other"}}),
                json!({}),
                "metadata.name: field is immutable | metadata.name: field is immutable",
            ),
            (json!({}), other, immutable),
            (
                json!({}),
                bad_labels,
                &format!(
                    "spec.selector: field is immutable | spec.selector.matchLabels: Invalid value: \"{BAD}\""
                ),
            ),
            (json!({}), json!({"spec": {"template": {"spec": {"containers": null}}}}), containers),
            (
                json!({}),
                json!({"spec": {"updateStrategy": {"type": "Random"}}}),
                "spec.updateStrategy: Unsupported value",
            ),
        ],
    );
    let name = "ReplicationController";
    changes(
        &kind(name),
        "",
        &base(name),
        &[
            (json!({}), replicas(json!(0)), ""),
            (json!({}), replicas(json!(3)), ""),
            (json!({}), json!({"spec": {"minReadySeconds": 3}}), ""),
            (json!({}), json!({"spec": {"replicas": 2, "template": {"spec": {"volumes": [disk]}}}}), ""),
            (json!({}), json!({"spec": {"selector": {"another": "value"}}}), differs),
            (
                json!({}),
                json!({"spec": {"selector": {"a": null, BAD: "b"}, "template": {"metadata": {"labels": {"a": null, BAD: "b"}}}}}),
                &labels,
            ),
            (json!({}), json!({"spec": {"template": null}}), "spec.template: Required value"),
            (json!({}), replicas(json!(-1)), "spec.replicas: Invalid value: -1"),
            (json!({}), replicas(Value::Null), "spec.replicas: Required value"),
            (
                json!({}),
                json!({"spec": {"minReadySeconds": -1}}),
                "spec.minReadySeconds: must be greater than or equal to 0",
            ),
        ],
    );
}

#[test]
fn statuses_of_replicas() {
    let negative = |field: &str, n: i64| {
        format!("status.{field}: Invalid value: {n}: must be greater than or equal to 0")
    };
    let above = |field: &str, n: i64| {
        format!("status.{field}: Invalid value: {n}: cannot be greater than status.replicas")
    };
    let ready = |n: i64| {
        format!("status.availableReplicas: Invalid value: {n}: cannot be greater than readyReplicas")
    };
    let status = |fields: &[(&str, i64)]| {
        let all: serde_json::Map<String, Value> =
            fields.iter().map(|(field, n)| ((*field).to_owned(), (*n).into())).collect();
        json!({"status": all})
    };
    for (name, full) in [
        ("ReplicaSet", "fullyLabeledReplicas"),
        ("ReplicationController", "fullyLabeledReplicas"),
        ("Deployment", "updatedReplicas"),
    ] {
        let of = |replicas: i64, full_: i64, ready: i64, available: i64, generation: i64| {
            status(&[
                ("replicas", replicas),
                (full, full_),
                ("readyReplicas", ready),
                ("availableReplicas", available),
                ("observedGeneration", generation),
            ])
        };
        let none = json!({});
        let all_above = format!(
            "{} | {} | {} | {}",
            negative("replicas", -1),
            above(full, 3),
            above("readyReplicas", 2),
            above("availableReplicas", 1)
        );
        changes(
            &kind(name),
            "status",
            &base(name),
            &[
                (none.clone(), of(3, 3, 2, 1, 2), ""),
                (none.clone(), of(-1, 3, 2, 1, 2), &all_above),
                (none.clone(), of(3, -1, 2, 1, 2), &negative(full, -1)),
                (
                    none.clone(),
                    of(3, 3, -1, 1, 2),
                    &format!("{} | {}", negative("readyReplicas", -1), ready(1)),
                ),
                (none.clone(), of(3, 3, 3, -1, 2), &negative("availableReplicas", -1)),
                (none.clone(), of(3, 3, 3, 3, -1), &negative("observedGeneration", -1)),
                (none.clone(), of(3, 4, 3, 3, 1), &above(full, 4)),
                (none.clone(), of(3, 3, 4, 3, 1), &above("readyReplicas", 4)),
                (
                    none.clone(),
                    of(3, 3, 3, 4, 1),
                    &format!("{} | {}", above("availableReplicas", 4), ready(4)),
                ),
                (none, of(3, 3, 2, 3, 1), &ready(3)),
            ],
        );
    }
    for name in ["ReplicaSet", "Deployment"] {
        changes(
            &kind(name),
            "status",
            &base(name),
            &[
                (json!({}), status(&[("replicas", 3), ("terminatingReplicas", 5)]), ""),
                (
                    json!({}),
                    status(&[("replicas", 3), ("terminatingReplicas", -1)]),
                    &negative("terminatingReplicas", -1),
                ),
            ],
        );
    }
    let collisions = |n: Option<i64>| json!({"status": {"collisionCount": n}});
    let decremented = |n: i64| format!("status.collisionCount: Invalid value: {n}: cannot be decremented");
    for name in ["Deployment", "DaemonSet"] {
        changes(
            &kind(name),
            "status",
            &base(name),
            &[
                (json!({}), collisions(Some(-3)), &negative("collisionCount", -3)),
                (collisions(None), collisions(Some(1)), ""),
                (collisions(Some(1)), collisions(Some(1)), ""),
                (collisions(Some(1)), collisions(None), &decremented(0)),
                (collisions(Some(2)), collisions(Some(1)), &decremented(1)),
            ],
        );
    }
    let fields = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ];
    let all: Vec<String> = fields.iter().map(|field| negative(field, -1)).collect();
    let every = |n: i64| status(&fields.map(|field| (field, n)));
    changes(
        &kind("DaemonSet"),
        "status",
        &base("DaemonSet"),
        &[(every(1), every(2), ""), (every(1), every(-1), &all.join(" | "))],
    );
    for field in fields {
        changes(
            &kind("DaemonSet"),
            "status",
            &base("DaemonSet"),
            &[(every(1), with(&every(1), &status(&[(field, -1)])), &negative(field, -1))],
        );
    }
}
