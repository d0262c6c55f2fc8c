//! Storage classes and what drivers say (upstream `storage/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, creates, wholly};

fn kind(kind: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("storage.k8s.io", "v1", kind)
}

/// More parameters than the 256 KiB that they may take.
fn many_parameters() -> Value {
    (0..500)
        .map(|i| (format!("param/{i}"), Value::from("v".repeat(600))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn class() -> Value {
    json!({
        "metadata": {"name": "foo"}, "provisioner": "kubernetes.io/foo-provisioner", "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    })
}

#[test]
fn classes() {
    let parameters = |parameters: Value| json!({"parameters": parameters});
    wholly(
        &kind("StorageClass"),
        &class(),
        &[
            (parameters(json!({})), ""),
            (json!({}), ""),
            (
                parameters(json!({
                    "kubernetes.io/foo-parameter": "free/form/string", "foo-parameter": "free-form-string",
                    "foo-parameter2": "{\"embedded\": \"json\", \"with\": {\"structures\":\"inside\"}}",
                })),
                "",
            ),
            (json!({"reclaimPolicy": "Retain"}), ""),
            (
                json!({"metadata": {"namespace": "bar"}}),
                "metadata.namespace: Forbidden: not allowed on this type",
            ),
            (
                json!({"provisioner": "kubernetes.io/invalid/provisioner"}),
                "provisioner: Invalid value: \"kubernetes.io/invalid/provisioner\": a valid label key must consist of",
            ),
            (parameters(json!({"": "value"})), "parameters: Invalid value: \"\": field can not be empty."),
            (json!({"provisioner": ""}), "provisioner: Required value"),
            (parameters(many_parameters()), "parameters: Too long: may not be more than 262144 bytes"),
            (
                json!({"reclaimPolicy": "Recycle"}),
                "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            ),
            (json!({"volumeBindingMode": null}), "volumeBindingMode: Required value"),
            (json!({"volumeBindingMode": "WaitForFirstConsumer"}), ""),
            (
                json!({"volumeBindingMode": "foo"}),
                "volumeBindingMode: Unsupported value: \"foo\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            ),
        ],
    );
    let too_many: serde_json::Map<_, _> = (0..513).map(|i| (i.to_string(), Value::from("v"))).collect();
    wholly(
        &kind("StorageClass"),
        &class(),
        &[(parameters(too_many.into()), "parameters: Too long: may not be more than 512 bytes")],
    );
}

#[test]
fn class_changes() {
    let mode = |mode: Value| json!({"volumeBindingMode": mode});
    let fixed = |key: &str, value: &str| format!("{key}: Invalid value: {value}: field is immutable");
    let (provisioner, policy) =
        (fixed("provisioner", "\"kubernetes.io/bar\""), fixed("reclaimPolicy", "\"Retain\""));
    let (waits, parameters) =
        (fixed("volumeBindingMode", "\"Immediate\""), fixed("parameters", "{\"a\":\"c\"}"));
    changes(
        &kind("StorageClass"),
        "",
        &class(),
        &[
            (json!({}), json!({}), ""),
            (mode("WaitForFirstConsumer".into()), mode("WaitForFirstConsumer".into()), ""),
            (
                mode("WaitForFirstConsumer".into()),
                mode(json!(null)),
                "volumeBindingMode: Required value | volumeBindingMode: Invalid value: null: field is immutable",
            ),
            (mode("WaitForFirstConsumer".into()), json!({}), &waits),
            (mode(json!(null)), json!({}), &waits),
            (json!({}), json!({"provisioner": "kubernetes.io/bar"}), &provisioner),
            (json!({}), json!({"reclaimPolicy": "Retain"}), &policy),
            (json!({"parameters": {"a": "b"}}), json!({"parameters": {"a": "c"}}), &parameters),
            (json!({}), json!({"allowVolumeExpansion": true, "mountOptions": ["ro"]}), ""),
        ],
    );
}

#[test]
fn topologies() {
    let (zone, host) = ("failure-domain.beta.kubernetes.io/zone", "kubernetes.io/hostname");
    let is = |key: &str, values: &[&str]| json!({"key": key, "values": values});
    let term = |terms: &[Value]| json!({"matchLabelExpressions": terms});
    let cases = [
        (json!(null), ""),
        (
            json!([
                term(&[is(zone, &["zone1"]), is(host, &["node1"])]),
                term(&[is(zone, &["zone2"]), is(host, &["node2"])]),
            ]),
            "",
        ),
        (
            json!([term(&[is("/invalidkey", &["zone1"])])]),
            "[0].matchLabelExpressions[0].key: Invalid value: \"/invalidkey\": prefix part must be non-empty",
        ),
        (json!([term(&[is(host, &[])])]), "[0].matchLabelExpressions[0].values: Required value"),
        (
            json!([term(&[is(host, &["node1", "node1"])])]),
            "[0].matchLabelExpressions[0].values[1]: Duplicate value: \"node1\"",
        ),
        (json!([term(&[is(host, &["node1", "node2"])])]), ""),
        (json!([{}]), "[0].matchLabelExpressions: Duplicate value: \"\""),
        (
            json!([term(&[is(host, &["node1"]), is(host, &["node2"])])]),
            "[0].matchLabelExpressions[1].key: Duplicate value: \"kubernetes.io/hostname\"",
        ),
        (json!([term(&[is(host, &["node1"])]), term(&[is(host, &["node2"])])]), ""),
        (
            json!([
                term(&[is(zone, &["zone1"]), is(host, &["node1"])]),
                term(&[is(zone, &["zone1"]), is(host, &["node1"])]),
            ]),
            "[1].matchLabelExpressions: Duplicate value: \"\"",
        ),
        (
            json!([
                term(&[is(zone, &["zone1"]), is(host, &["node1"])]),
                term(&[is(zone, &["zone1"]), is(host, &["node2"])]),
            ]),
            "",
        ),
        (json!([term(&[is(host, &["node1", "node2"])]), term(&[is(host, &["node1", "node3"])])]), ""),
        (
            json!([
                term(&[is(host, &["node1"]), is(zone, &["zone1"])]),
                term(&[is(zone, &["zone1"]), is(host, &["node1"])]),
            ]),
            "[1].matchLabelExpressions: Duplicate value: \"\"",
        ),
        (
            json!([term(&[is(zone, &["zone1", "zone2"])]), term(&[is(zone, &["zone2", "zone1"])])]),
            "[1].matchLabelExpressions: Duplicate value: \"\"",
        ),
    ];
    let place =
        |terms: &Value| json!({"volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": terms});
    below(&kind("StorageClass"), &class(), "allowedTopologies", place, &cases);
}

fn attachment() -> Value {
    json!({
        "metadata": {"name": "foo"},
        "spec": {"attacher": "myattacher", "source": {"persistentVolumeName": "pv-name"}, "nodeName": "mynode"},
    })
}

fn inline() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "com.test.foo", "volumeHandle": "foobar"}})
}

fn attached() -> Value {
    let error = json!({"message": "hello world"});
    json!({"attached": true, "attachmentMetadata": {"foo": "bar"}, "attachError": error, "detachError": error})
}

/// The status of an attachment with some changes.
fn attached_with(changes: &Value) -> Value {
    json!({"status": super::with(&attached(), changes)})
}

#[test]
fn attachments() {
    let spec = |spec: Value| json!({"spec": spec});
    let source = |source: Value| json!({"spec": {"source": source}});
    let (long, longer) = ("a".repeat(1025), "a".repeat(256 << 10));
    wholly(
        &kind("VolumeAttachment"),
        &attachment(),
        &[
            (json!({}), ""),
            (source(json!({"persistentVolumeName": null, "inlineVolumeSpec": inline()})), ""),
            (attached_with(&json!({})), ""),
            (attached_with(&json!({"attachError": {"errorCode": 7}})), ""),
            (spec(json!({"attacher": ""})), "spec.attacher: Required value"),
            (
                spec(json!({"nodeName": ""})),
                "spec.nodeName: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of",
            ),
            (
                source(json!({"persistentVolumeName": null})),
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ),
            (
                source(json!({"persistentVolumeName": ""})),
                "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName | spec.source.persistentVolumeName: Invalid value: \"\": a lowercase RFC 1123 subdomain",
            ),
            (
                attached_with(&json!({"detachError": {"message": long}})),
                "status.detachError.message: Too long: may not be more than 262144 bytes",
            ),
            (
                attached_with(&json!({"attachError": {"errorCode": -1}, "detachError": {"errorCode": 5}})),
                "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ),
            (
                attached_with(&json!({"attachmentMetadata": {"foo": longer}})),
                "status.attachmentMetadata: Too long: may not be more than 262144 bytes",
            ),
            (
                source(json!({"inlineVolumeSpec": inline()})),
                "spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ),
            (
                source(json!({"persistentVolumeName": null, "inlineVolumeSpec": {
                    "capacity": {"storage": "10G"}, "accessModes": ["ReadWriteOnce"],
                    "flexVolume": {"driver": "kubernetes.io/blue", "fsType": "ext4"},
                    "storageClassName": "test-storage-class",
                }})),
                "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes | spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes | spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
            ),
            (
                spec(json!({"attacher": "invalid-@#$%^&*()"})),
                "spec.attacher: Invalid value: \"invalid-@#$%^&*()\": a lowercase RFC 1123 subdomain must consist of",
            ),
            (
                source(json!({"persistentVolumeName": "-invalid-@#$%^&*()-"})),
                "spec.source.persistentVolumeName: Invalid value: \"-invalid-@#$%^&*()-\": a lowercase RFC 1123 subdomain",
            ),
        ],
    );
    let fixed = "spec: field is immutable";
    let long = attached_with(&json!({"attachError": {"message": "a".repeat(256 << 10)}}));
    let other = json!({"persistentVolumeName": null, "inlineVolumeSpec": inline()});
    changes(
        &kind("VolumeAttachment"),
        "",
        &attachment(),
        &[
            (json!({}), json!({}), ""),
            (json!({}), attached_with(&json!({})), ""),
            (source(other.clone()), source(other.clone()), ""),
            (source(other.clone()), super::with(&source(other.clone()), &attached_with(&json!({}))), ""),
            (json!({}), spec(json!({"attacher": "another-attacher"})), fixed),
            (json!({}), source(json!({"persistentVolumeName": "bar"})), fixed),
            (json!({}), spec(json!({"nodeName": "anothernode"})), fixed),
            (json!({}), source(other), fixed),
            (json!({}), long, "status.attachError.message: Too long: may not be more than 262144 bytes"),
        ],
    );
}

fn csi_driver(name: &str) -> Value {
    json!({"name": name, "nodeID": "nodeA", "topologyKeys": ["company.com/zone1", "company.com/zone2"]})
}

#[test]
fn nodes() {
    let driver = |changes: Value| json!([super::with(&csi_driver("driver1"), &changes)]);
    let named = |name: &str| json!([csi_driver(name)]);
    let keys = |keys: &[&str]| driver(json!({"topologyKeys": keys}));
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    let mut cases: Vec<(Value, String)> = [
        "io.kubernetes.storage.csi.driver",
        "io-kubernetes-storage-csi-driver",
        "1io-kubernetes-storage-2-csi-driver3",
        "io.kubernetes.storage-csi-driver",
        "1io.kubernetes-storage-2-csi-driver3",
        "a",
        "driverB",
    ]
    .into_iter()
    .map(|name| (named(name), String::new()))
    .collect();
    for name in [
        "_io.kubernetes.storage.csi.driver",
        "io.kubernetes.storage.csi.driver/",
        "io/kubernetes/storage/csi~driver",
        "io_kubernetes_storage_csi_driver",
    ] {
        cases.push((named(name), format!("[0].name: Invalid value: \"{name}\": {subdomain}")));
    }
    let two = |a: Value, b: Value| {
        json!([super::with(&csi_driver("driver1"), &a), super::with(&csi_driver("driver2"), &b)])
    };
    for (drivers, expected) in [
        (two(json!({"topologyKeys": ["key1", "key2"]}), json!({"topologyKeys": ["keyA", "keyB"]})), ""),
        (two(json!({"topologyKeys": ["key1"]}), json!({"topologyKeys": ["key1"]})), ""),
        (driver(json!({"allocatable": {"count": 0}})), ""),
        (driver(json!({"allocatable": {"count": 1}})), ""),
        (driver(json!({"allocatable": {}})), ""),
        (keys(&["zone_1", "zone.2", "zone-3"]), ""),
        (keys(&["company-com/zone1"]), ""),
        (driver(json!({"topologyKeys": null})), ""),
        (named(""), "[0].name: Required value"),
        (named(&"a".repeat(88)), "[0].name: Too long: may not be more than 63 bytes"),
        (
            keys(&["company.com/zone1", ""]),
            "[0]: Required value | [0]: Invalid value: \"\": name part must be non-empty | [0]: Invalid value: \"\": name part must consist of",
        ),
        (
            two(json!({"name": "driver1"}), json!({"name": "driver1"})),
            "[1].name: Duplicate value: \"driver1\"",
        ),
        (keys(&["key1", "key1"]), "[0]: Duplicate value: \"key1\""),
        (two(json!({}), json!({"topologyKeys": ["keyA", "keyA"]})), "[1]: Duplicate value: \"keyA\""),
        (driver(json!({"nodeID": ""})), "[0].nodeID: Required value"),
        (driver(json!({"nodeID": "a".repeat(257)})), "[0].nodeID: Invalid value: \"aaaaaaaa"),
        (
            driver(json!({"allocatable": {"count": -1}})),
            "[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            keys(&["Company.Com/zone1", "company.com/zone2"]),
            "[0]: Invalid value: \"Company.Com/zone1\": prefix part a lowercase RFC 1123 subdomain",
        ),
    ] {
        cases.push((drivers, expected.to_owned()));
    }
    let cases: Vec<(Value, &str)> =
        cases.iter().map(|(part, wrong)| (part.clone(), wrong.as_str())).collect();
    let base = json!({"metadata": {"name": "foo"}, "spec": {"drivers": []}});
    below(&kind("CSINode"), &base, "spec.drivers", |drivers| json!({"spec": {"drivers": drivers}}), &cases);
}

#[test]
fn node_changes() {
    let limited = |count: Value| json!({"allocatable": {"count": count}});
    let one = csi_driver("csi.driver-1");
    let two = super::with(&csi_driver("csi.driver-2"), &limited(json!(20)));
    let base = json!({"metadata": {"name": "foo1"}, "spec": {"drivers": [one, two]}});
    let drivers = |drivers: &[&Value]| json!({"spec": {"drivers": drivers}});
    let fixed = "spec.drivers: field is immutable";
    let new = csi_driver("csi.new-driver");
    let changed = |driver: &Value, changes: Value| super::with(driver, &changes);
    let cases: Vec<(Value, Value, &str)> = [
        (json!({}), ""),
        (drivers(&[&one]), ""),
        (drivers(&[&one, &two, &new]), ""),
        (drivers(&[&one, &new]), ""),
        (drivers(&[&changed(&one, json!({"nodeID": "nodeB"})), &two]), fixed),
        (drivers(&[&one, &changed(&two, json!({"topologyKeys": ["company.com/zone2"]}))]), fixed),
        (drivers(&[&changed(&one, limited(json!(10))), &two]), ""),
        (drivers(&[&one, &changed(&two, limited(json!(21)))]), ""),
        (drivers(&[&one, &changed(&two, limited(json!(null)))]), ""),
        (drivers(&[&one, &changed(&two, json!({"allocatable": null}))]), ""),
    ]
    .into_iter()
    .map(|(after, wrong)| (json!({}), after, wrong))
    .collect();
    changes(&kind("CSINode"), "", &base, &cases);
}

fn driver() -> Value {
    json!({
        "metadata": {"name": "test-driver"},
        "spec": {
            "attachRequired": false, "podInfoOnMount": false, "requiresRepublish": false, "storageCapacity": true,
            "volumeLifecycleModes": ["Ephemeral", "Persistent"], "seLinuxMount": true,
        },
    })
}

#[test]
fn drivers() {
    let token = |audience: &str| json!({"audience": audience});
    let cases = [
        (json!({}), ""),
        (json!({"attachRequired": true, "podInfoOnMount": true, "storageCapacity": false}), ""),
        (json!({"volumeLifecycleModes": ["Persistent"]}), ""),
        (json!({"volumeLifecycleModes": ["Ephemeral", "Persistent", "Ephemeral"]}), ""),
        (json!({"fsGroupPolicy": "File"}), ""),
        (json!({"seLinuxMount": false}), ""),
        (json!({"nodeAllocatableUpdatePeriodSeconds": 10}), ""),
        (json!({"serviceAccountTokenInSecrets": true, "tokenRequests": [token("a")]}), ""),
        (json!({"serviceAccountTokenInSecrets": false, "tokenRequests": [token("a")]}), ""),
        (json!({"attachRequired": null}), "attachedRequired: Required value"),
        (json!({"podInfoOnMount": null}), "podInfoOnMount: Required value"),
        (json!({"storageCapacity": null}), "storageCapacity: Required value"),
        (
            json!({"volumeLifecycleModes": ["no-such-mode"]}),
            "volumeLifecycleModes: Unsupported value: \"no-such-mode\": supported values: \"Persistent\", \"Ephemeral\"",
        ),
        (
            json!({"fsGroupPolicy": "invalid-mode"}),
            "fsGroupPolicy: Unsupported value: \"invalid-mode\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
        ),
        (json!({"seLinuxMount": null}), "seLinuxMount: Required value"),
        (
            json!({"nodeAllocatableUpdatePeriodSeconds": 9}),
            "nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ),
        (
            json!({"serviceAccountTokenInSecrets": true}),
            "serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
        ),
        (
            json!({"tokenRequests": [token("gcp"), token("gcp")]}),
            "tokenRequests[1].audience: Duplicate value: \"gcp\"",
        ),
        (
            json!({"tokenRequests": [{"audience": "gcp", "expirationSeconds": 10}]}),
            "tokenRequests[0].expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"tokenRequests": [{"audience": "gcp", "expirationSeconds": (1_u64 << 32) + 1}]}),
            "tokenRequests[0].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
        ),
        (json!({"tokenRequests": [token("")]}), ""),
        (json!({"tokenRequests": [token(""), token("gcp"), token("aws")]}), ""),
    ];
    below(&kind("CSIDriver"), &driver(), "spec.", |spec| json!({"spec": spec}), &cases);
    let names: Vec<(Value, &str)> = [
        ("io.kubernetes.storage.csi.driver", ""),
        ("io-kubernetes-storage-csi-driver", ""),
        ("1csi2driver3", ""),
        ("-invalid-@#$%^&*()-", "metadata.name: a lowercase RFC 1123 subdomain must consist of"),
        (
            "my-a-b-c-d-ABCDEFGHIJKLMNOPQRSTUVWXYZ-driver",
            "metadata.name: a lowercase RFC 1123 subdomain must consist of",
        ),
    ]
    .into_iter()
    .map(|(name, wrong)| (json!({"metadata": {"name": name}}), wrong))
    .collect();
    creates(&kind("CSIDriver"), &driver(), &names);
}

#[test]
fn driver_changes() {
    let spec = |spec: Value| json!({"spec": spec});
    let modes = |modes: Value| json!({"spec": {"volumeLifecycleModes": modes}});
    let tokens = json!([{"audience": "a"}]);
    let cases: Vec<(Value, Value, &str)> = [
        (json!({}), ""),
        (spec(json!({"tokenRequests": tokens})), ""),
        (spec(json!({"requiresRepublish": true})), ""),
        (spec(json!({"storageCapacity": false})), ""),
        (spec(json!({"seLinuxMount": false})), ""),
        (spec(json!({"podInfoOnMount": true})), ""),
        (spec(json!({"fsGroupPolicy": "File"})), ""),
        (spec(json!({"nodeAllocatableUpdatePeriodSeconds": 10})), ""),
        (spec(json!({"serviceAccountTokenInSecrets": true, "tokenRequests": tokens})), ""),
        (spec(json!({"serviceAccountTokenInSecrets": false, "tokenRequests": tokens})), ""),
        (
            json!({"metadata": {"name": "-invalid-@#$%^&*()-"}}),
            "metadata.name: may not contain '%' | metadata.name: field is immutable | metadata.name: field is immutable",
        ),
        (
            spec(json!({"attachRequired": null})),
            "spec.attachedRequired: Required value | spec.attachedRequired: Invalid value: null: field is immutable",
        ),
        (
            spec(json!({"attachRequired": true})),
            "spec.attachedRequired: Invalid value: true: field is immutable",
        ),
        (spec(json!({"podInfoOnMount": null})), "spec.podInfoOnMount: Required value"),
        (
            modes(json!(["no-such-mode"])),
            "spec.volumeLifecycleModes: Unsupported value: \"no-such-mode\" | spec.volumeLifecycleModes: Invalid value: [\"no-such-mode\"]: field is immutable",
        ),
        (modes(json!(null)), "spec.volumeLifecycleModes: Invalid value: null: field is immutable"),
        (
            modes(json!(["Ephemeral"])),
            "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
        ),
        (
            modes(json!(["Persistent"])),
            "spec.volumeLifecycleModes: Invalid value: [\"Persistent\"]: field is immutable",
        ),
        (spec(json!({"fsGroupPolicy": "invalid"})), "spec.fsGroupPolicy: Unsupported value: \"invalid\""),
        (
            spec(json!({"tokenRequests": [{"audience": "a"}, {"audience": "a"}]})),
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
        ),
        (spec(json!({"storageCapacity": null})), "spec.storageCapacity: Required value"),
        (spec(json!({"seLinuxMount": null})), "spec.seLinuxMount: Required value"),
        (
            spec(json!({"nodeAllocatableUpdatePeriodSeconds": 9})),
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9",
        ),
        (
            spec(json!({"serviceAccountTokenInSecrets": true})),
            "spec.serviceAccountTokenInSecrets: Invalid value: true",
        ),
    ]
    .into_iter()
    .map(|(after, wrong)| (json!({}), after, wrong))
    .collect();
    changes(&kind("CSIDriver"), "", &driver(), &cases);
    let unset = spec(json!({"seLinuxMount": null}));
    changes(
        &kind("CSIDriver"),
        "",
        &driver(),
        &[(unset.clone(), json!({}), ""), (unset.clone(), unset, "spec.seLinuxMount: Required value")],
    );
}

#[test]
fn capacities() {
    let base = json!({
        "metadata": {"name": "csc-329803da-fdd2-42e4-af6f-7b07e7ccc305", "namespace": "default"},
        "storageClassName": "test-sc",
    });
    let selected = |operator: &str| json!({"nodeTopology": {"matchExpressions": [{"key": "foo", "operator": operator, "values": ["bar"]}]}});
    let cases = [
        (json!({}), ""),
        (
            json!({"storageClassName": ""}),
            "storageClassName: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            json!({"storageClassName": "-invalid-@#$%^&*()-"}),
            "storageClassName: Invalid value: \"-invalid-@#$%^&*()-\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (json!({"capacity": "1"}), ""),
        (json!({"capacity": "-11"}), "capacity: Invalid value: \"-11\": must be greater than or equal to 0"),
        (json!({"nodeTopology": {"matchLabels": {"foo": "bar"}}}), ""),
        (json!({"nodeTopology": {}}), ""),
        (
            selected("no-such-operator"),
            "nodeTopology.matchExpressions[0].operator: Invalid value: \"no-such-operator\": not a valid selector operator",
        ),
    ];
    let kind = kind("CSIStorageCapacity");
    wholly(&kind, &base, &cases);
    changes(
        &kind,
        "",
        &base,
        &[
            (json!({}), json!({"capacity": "5", "maximumVolumeSize": "1"}), ""),
            (
                json!({}),
                json!({"storageClassName": "other"}),
                "storageClassName: Invalid value: \"other\": field is immutable",
            ),
            (json!({}), selected("In"), "nodeTopology: field is immutable"),
            (selected("In"), json!({}), "nodeTopology: Invalid value: null: field is immutable"),
        ],
    );
}

#[test]
fn attributes_classes() {
    let base = json!({
        "metadata": {"name": "foo"}, "driverName": "foo", "parameters": {"foo-parameter": "free-form-string"},
    });
    let driver = |name: &str| json!({"driverName": name});
    let parameters = |parameters: Value| json!({"parameters": parameters});
    let kind = kind("VolumeAttributesClass");
    let qualified = "name part must consist of";
    let blank = format!("driverName: Invalid value: \" \": {qualified}");
    let wild = format!(
        "driverName: Invalid value: \"^/ \": prefix part a lowercase RFC 1123 subdomain | driverName: Invalid value: \"^/ \": {qualified}"
    );
    wholly(
        &kind,
        &base,
        &[
            (json!({}), ""),
            (
                json!({"driverName": "kubernetes.io/foo", "parameters": {
                    "kubernetes.io/foo-parameter": "free/form/string", "foo-parameter3": "",
                    "foo-parameter2": "{\"embedded\": \"json\", \"with\": {\"structures\":\"inside\"}}",
                }}),
                "",
            ),
            (
                json!({"metadata": {"namespace": "bar"}}),
                "metadata.namespace: Forbidden: not allowed on this type",
            ),
            (
                driver("kubernetes.io/invalid/foo"),
                "driverName: Invalid value: \"kubernetes.io/invalid/foo\": a valid label key must consist of",
            ),
            (driver("^/ "), &wild),
            (
                json!({"parameters": null}),
                "parameters: Required value: must contain at least one key/value pair",
            ),
            (parameters(json!({"": "value"})), "parameters: Invalid value: \"\": field can not be empty."),
            (driver(""), "driverName: Required value"),
            (driver(" "), &blank),
            (parameters(many_parameters()), "parameters: Too long: may not be more than 262144 bytes"),
        ],
    );
    let fixed = "parameters: Forbidden: updates to parameters are forbidden.";
    changes(
        &kind,
        "",
        &base,
        &[
            (json!({}), json!({}), ""),
            (json!({}), driver("bar"), "driverName: Forbidden: updates to driverName are forbidden."),
            (json!({}), parameters(json!({"foo-parameter": "bar2"})), fixed),
            (json!({}), parameters(json!({"other": "bar"})), fixed),
            (parameters(json!({"other": "bar"})), json!({}), fixed),
        ],
    );
}
