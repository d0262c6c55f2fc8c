//! Stateful sets and controller revisions (upstream `apps/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, container, pod_spec, wholly, with};

const BAD: &str = "NoUppercaseOrSpecialCharsLike=Equals";

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("apps", "v1", "StatefulSet")
}

fn base() -> Value {
    json!({
        "metadata": {"name": "abc", "namespace": "default"},
        "spec": {
            "podManagementPolicy": "OrderedReady", "selector": {"matchLabels": {"a": "b"}}, "serviceName": "",
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec("Always")},
            "updateStrategy": {"type": "RollingUpdate"},
        },
    })
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

fn mounting(name: &str) -> Value {
    with(&container("abc"), &json!({"volumeMounts": [{"name": name, "mountPath": "/test"}]}))
}

#[test]
fn metadata_and_plain_fields() {
    let spec = |spec: Value| json!({"spec": spec});
    let label = format!("Invalid value: \"{BAD}\"");
    let differs = "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";
    let policy = |policy: Value| spec(json!({"persistentVolumeClaimRetentionPolicy": policy}));
    let unsupported = |value: &str| {
        let one = |field: &str| {
            format!(
                "spec.persistentVolumeClaimRetentionPolicy.{field}: Unsupported value: \"{value}\": supported values: \"Retain\", \"Delete\""
            )
        };
        format!("{} | {}", one("whenDeleted"), one("whenScaled"))
    };
    let own = |changes: Value| spec(json!({"template": {"spec": changes}}));
    let restart = |value: &str| {
        format!(
            "spec.template.spec.restartPolicy: Unsupported value: \"{value}\": supported values: \"Always\""
        )
    };
    let network = own(json!({"hostNetwork": true, "containers": [with(
        &container("abc"), &json!({"ports": [{"containerPort": 12345, "protocol": "TCP"}]}))]}));
    wholly(
        &kind(),
        &base(),
        &[
            (json!({}), ""),
            (json!({"metadata": {"name": "abc-123"}}), ""),
            (network, ""),
            (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
            (
                json!({"metadata": {"name": "abc.123"}}),
                "metadata.name: Invalid value: \"abc.123\": must not contain dots",
            ),
            (json!({"metadata": {"name": "a".repeat(64)}}), "metadata.name: must be no more than 63"),
            (json!({"metadata": {"namespace": ""}}), "metadata.namespace: Required value"),
            (json!({"metadata": {"labels": {BAD: "bar"}}}), &format!("metadata.labels: {label}")),
            (json!({"metadata": {"annotations": {BAD: "bar"}}}), &format!("metadata.annotations: {label}")),
            (spec(json!({"podManagementPolicy": "Parallel"})), ""),
            (spec(json!({"podManagementPolicy": ""})), "spec.podManagementPolicy: Required value"),
            (
                spec(json!({"podManagementPolicy": "foo"})),
                "spec.podManagementPolicy: must be 'OrderedReady' or 'Parallel'",
            ),
            (policy(json!({"whenDeleted": "Delete", "whenScaled": "Retain"})), ""),
            (policy(json!({})), &unsupported("")),
            (
                policy(
                    json!({"whenDeleted": "invalid-retention-policy", "whenScaled": "invalid-retention-policy"}),
                ),
                &unsupported("invalid-retention-policy"),
            ),
            (spec(json!({"ordinals": {"start": 2}})), ""),
            (
                spec(json!({"ordinals": {"start": -2}})),
                "spec.ordinals.start: must be greater than or equal to 0",
            ),
            (
                spec(json!({"serviceName": "Invalid.Name"})),
                "spec.serviceName: Invalid value: \"Invalid.Name\"",
            ),
            (spec(json!({"replicas": -1})), "spec.replicas: must be greater than or equal to 0"),
            (spec(json!({"minReadySeconds": 0})), ""),
            (spec(json!({"minReadySeconds": i32::MAX})), ""),
            (
                spec(json!({"minReadySeconds": -1})),
                "spec.minReadySeconds: must be greater than or equal to 0",
            ),
            (
                spec(json!({"minReadySeconds": i32::MIN})),
                "spec.minReadySeconds: must be greater than or equal to 0",
            ),
            (spec(json!({"selector": null})), &format!("spec.selector: Required value | {differs}")),
            (
                spec(json!({"selector": {"matchLabels": null}})),
                "spec.selector: empty selector is invalid for statefulset",
            ),
            (spec(json!({"selector": {"matchLabels": {"a": null, "foo": "bar"}}})), differs),
            (
                spec(
                    json!({"selector": {"matchLabels": {"a": null, BAD: "b"}}, "template": {"metadata": {"labels": {"a": null, BAD: "b"}}}}),
                ),
                &format!("spec.selector.matchLabels: {label} | spec.selector: Invalid value"),
            ),
            (own(json!({"restartPolicy": "OnFailure"})), &restart("OnFailure")),
            (own(json!({"restartPolicy": "Never"})), &restart("Never")),
            (
                own(json!({"restartPolicy": ""})),
                &format!("spec.template.spec.restartPolicy: Required value | {}", restart("")),
            ),
            (
                own(json!({"activeDeadlineSeconds": 60, "containers": null})),
                "spec.template.spec.containers: Required value | spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ),
            // The pods get other names.
            (own(json!({"subdomain": BAD})), ""),
            (own(json!({"hostname": BAD})), ""),
            (own(json!({"subdomain": BAD, "hostname": BAD})), ""),
        ],
    );
}

#[test]
fn strategies() {
    let at = "spec.updateStrategy";
    let rolling = |changes: Value| json!({"rollingUpdate": changes});
    let zero = |shown: &str| format!(".rollingUpdate.maxUnavailable: Invalid value: {shown}: cannot be 0");
    below(
        &kind(),
        &base(),
        at,
        |own| json!({"spec": {"replicas": 3, "updateStrategy": own}}),
        &[
            (rolling(json!({"partition": 2})), ""),
            (rolling(json!({"partition": 2, "maxUnavailable": 2})), ""),
            (
                json!({"type": "foo"}),
                ": Invalid value: {\"Type\":\"foo\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
            ),
            (json!({"type": ""}), ": Required value"),
            (json!({"type": "OnDelete"}), ""),
            (
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                ".rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
            ),
            (
                rolling(json!({"partition": -1})),
                ".rollingUpdate.partition: must be greater than or equal to 0",
            ),
            (rolling(json!({"maxUnavailable": 0})), &zero("0")),
            (rolling(json!({"maxUnavailable": "0%"})), &zero("\"0%\"")),
            (
                rolling(json!({"maxUnavailable": "101%"})),
                ".rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
        ],
    );
}

#[test]
fn volumes() {
    let of = |containers: Value, volumes: Value, claims: Value| json!({"spec": {"template": {"spec": {"containers": containers, "volumes": volumes}}, "volumeClaimTemplates": claims}});
    let dir = |name: &str| json!({"name": name, "emptyDir": {}});
    let test = || json!([mounting("test")]);
    let lost = "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"test\"";
    let with_spec = |changes: Value| with(&claim("pvc"), &json!({"spec": changes}));
    let plain = || json!([container("abc")]);
    wholly(
        &kind(),
        &base(),
        &[
            (of(test(), Value::Null, json!([claim("test")])), ""),
            (
                of(
                    test(),
                    json!([dir("test1"), dir("test2")]),
                    json!([claim("test"), claim("test1"), claim("test2")]),
                ),
                "",
            ),
            (of(test(), json!([dir("test")]), json!([claim("test")])), ""),
            (of(plain(), Value::Null, json!([claim("pvc")])), ""),
            (of(test(), Value::Null, Value::Null), lost),
            (of(test(), Value::Null, json!([claim("test1")])), lost),
            (
                of(plain(), json!([dir("test1"), dir("test1")]), Value::Null),
                "spec.template.spec.volumes[1].name: Duplicate value: \"test1\"",
            ),
            (
                of(plain(), Value::Null, json!([with_spec(json!({"accessModes": null}))])),
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value",
            ),
            (
                of(plain(), Value::Null, json!([with_spec(json!({"volumeAttributesClassName": "abc@123"}))])),
                "spec.volumeClaimTemplates[0].spec.volumeAttributesClassName: Invalid value: \"abc@123\"",
            ),
        ],
    );
}

#[test]
fn updates() {
    let spec = |spec: Value| json!({"spec": spec});
    let own = |changes: Value| spec(json!({"template": {"spec": changes}}));
    let only = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    let two = || own(json!({"containers": [container("abc"), container("def")]}));
    let claims = |claims: Value| spec(json!({"volumeClaimTemplates": claims}));
    let sized = |size: &str, class: &str| {
        with(
            &claim("pvc-abc"),
            &json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}}),
        )
    };
    let first = || claims(json!([sized("1Gi", "one")]));
    let other = || {
        spec(
            json!({"selector": {"matchLabels": {"a": null, "c": "d"}}, "template": {"metadata": {"labels": {"a": null, "c": "d"}}}}),
        )
    };
    let both = |mut a: Value, b: Value| {
        api::patch::merge::apply(&mut a, b);
        a
    };
    let three = || spec(json!({"replicas": 3}));
    let lost = || own(json!({"containers": [mounting("pvc-abc")]}));
    let label = format!("spec.template.labels: Invalid value: \"{BAD}\"");
    let modeless = || claims(json!([with(&claim("pvc"), &json!({"spec": {"accessModes": null}}))]));
    changes(
        &kind(),
        "",
        &base(),
        &[
            (json!({}), three(), ""),
            (json!({}), two(), ""),
            (two(), json!({}), ""),
            (
                two(),
                spec(
                    json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"}}),
                ),
                "",
            ),
            (spec(json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"}})), json!({}), ""),
            (json!({}), spec(json!({"updateStrategy": {"type": "OnDelete"}})), ""),
            (json!({}), spec(json!({"minReadySeconds": 10})), ""),
            (spec(json!({"minReadySeconds": 5})), spec(json!({"minReadySeconds": 10})), ""),
            (
                json!({"metadata": {"name": "a.b", "finalizers": ["example.com/final"]}}),
                json!({"metadata": {"name": "a.b"}}),
                "",
            ),
            (json!({}), spec(json!({"ordinals": {"start": 3}})), ""),
            (
                spec(json!({"serviceName": "Invalid.Name"})),
                spec(json!({"serviceName": "Invalid.Name", "replicas": 3})),
                "",
            ),
            (first(), both(both(first(), three()), lost()), ""),
            (json!({}), own(json!({"subdomain": BAD})), ""),
            (json!({}), own(json!({"hostname": BAD})), ""),
            (own(json!({"subdomain": BAD})), own(json!({"subdomain": BAD})), ""),
            (own(json!({"hostname": BAD})), own(json!({"hostname": BAD})), ""),
            // What was accepted once stays.
            (lost(), both(lost(), three()), ""),
            (modeless(), both(modeless(), three()), ""),
            (
                json!({}),
                json!({"metadata": {"name": "abc2"}}),
                "metadata.name: field is immutable | metadata.name: field is immutable",
            ),
            (json!({}), other(), only),
            (spec(json!({"podManagementPolicy": ""})), json!({}), only),
            (spec(json!({"podManagementPolicy": "Parallel"})), json!({}), only),
            (json!({}), spec(json!({"replicas": -1})), "spec.replicas: must be greater than or equal to 0"),
            (first(), claims(json!([sized("2Gi", "one")])), only),
            (first(), claims(json!([sized("1Gi", "two")])), only),
            (first(), claims(json!([sized("1Gi", "one"), claim("pvc-abc2")])), only),
            // As upstream, which looks at the metadata of templates twice.
            (
                json!({}),
                spec(
                    json!({"template": {"metadata": {"labels": {"a": null, BAD: "b"}}, "spec": {"containers": null}}}),
                ),
                &format!(
                    "spec.template.metadata.labels: `selector` does not match template `labels` | {label} | spec.template.spec.containers: Required value | {label}"
                ),
            ),
        ],
    );
}

#[test]
fn statuses() {
    let of = |replicas: i32, ready: i32, current: i32, updated: i32| json!({"replicas": replicas, "readyReplicas": ready, "currentReplicas": current, "updatedReplicas": updated});
    let available = |mut status: Value, n: i32| {
        status["availableReplicas"] = n.into();
        status
    };
    let also = |key: &str, n: i32| {
        let mut status = of(3, 3, 2, 1);
        status[key] = n.into();
        status
    };
    let negative =
        |field: &str| format!("status.{field}: Invalid value: -1: must be greater than or equal to 0");
    let above =
        |field: &str| format!("status.{field}: Invalid value: 4: cannot be greater than status.replicas");
    let ready = |n: i32| {
        format!("status.availableReplicas: Invalid value: {n}: cannot be greater than status.readyReplicas")
    };
    let bounded = [
        "readyReplicas: Invalid value: 3",
        "currentReplicas: Invalid value: 2",
        "updatedReplicas: Invalid value: 1",
        "availableReplicas: Invalid value: 0",
    ]
    .map(|field| format!("status.{field}: cannot be greater than status.replicas"));
    let cases = [
        (of(3, 3, 2, 1), String::new()),
        (of(-1, 3, 2, 1), format!("{} | {}", negative("replicas"), bounded.join(" | "))),
        (of(3, -1, 2, 1), format!("{} | {}", negative("readyReplicas"), ready(0))),
        (of(3, 3, -1, 1), negative("currentReplicas")),
        (of(3, 3, 2, -1), negative("updatedReplicas")),
        (also("observedGeneration", -1), negative("observedGeneration")),
        (also("collisionCount", -1), negative("collisionCount")),
        (of(3, 4, 2, 1), above("readyReplicas")),
        (of(3, 3, 4, 1), above("currentReplicas")),
        (of(3, 3, 2, 4), above("updatedReplicas")),
        (available(of(3, 3, 2, 0), -1), negative("availableReplicas")),
        (available(of(3, 3, 2, 0), 4), format!("{} | {}", above("availableReplicas"), ready(4))),
        (available(of(3, 2, 2, 0), 3), ready(3)),
    ];
    for (status, wrong) in cases {
        changes(&kind(), "status", &base(), &[(json!({}), json!({"status": status}), &wrong)]);
    }
}

#[test]
fn controller_revisions() {
    let kind = GroupVersionKind::new("apps", "v1", "ControllerRevision");
    let base = json!({"metadata": {"name": "validname", "namespace": "validns"}, "data": {"spec": {}}, "revision": 0});
    let data = |data: Value| json!({"data": data});
    let object = "data: Required value: data must be a valid JSON object";
    wholly(
        &kind,
        &base,
        &[
            (json!({}), ""),
            (json!({"revision": -1}), "revision: Invalid value: -1: must be greater than or equal to 0"),
            (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
            (json!({"metadata": {"name": BAD}}), &format!("metadata.name: Invalid value: \"{BAD}\"")),
            (json!({"metadata": {"namespace": ""}}), "metadata.namespace: Required value"),
            (
                json!({"metadata": {"namespace": BAD}}),
                &format!("metadata.namespace: Invalid value: \"{BAD}\""),
            ),
            (data(Value::Null), "data: Required value: data is mandatory"),
            (data(json!(true)), object),
            (data(json!(0)), object),
            (data(json!(0.5)), object),
            (data(json!([])), object),
            (data(json!("test")), object),
        ],
    );
    changes(
        &kind,
        "",
        &base,
        &[
            (json!({}), json!({}), ""),
            (json!({}), data(json!({"spec": {"a": "b"}})), "data: field is immutable"),
            (json!({}), json!({"revision": 1}), ""),
            (
                json!({}),
                json!({"metadata": {"resourceVersion": ""}}),
                "metadata.resourceVersion: must be specified for an update | metadata.resourceVersion: must be specified for an update",
            ),
        ],
    );
}
