//! Claims of persistent volumes, and templates of such in pods (upstream `core/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes};

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "PersistentVolumeClaim")
}

fn spec() -> Value {
    json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "resources": {"requests": {"storage": "10G"}}})
}

fn base() -> Value {
    json!({"metadata": {"name": "foo", "namespace": "ns"}, "spec": spec()})
}

#[test]
fn specs_of_claims() {
    let storage = |amount: &str| json!({"resources": {"requests": {"storage": amount}}});
    let source = |key: &str, group: Value, kind: &str, name: &str| json!({key: {"apiGroup": group, "kind": kind, "name": name}});
    let selector = |operator: &str, values: Value| json!({"selector": {"matchExpressions": [{"key": "key2", "operator": operator, "values": values}]}});
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    let snapshot = json!("snapshot.storage.k8s.io");
    let default = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
    let across = |group: Value, kind: &str, namespace: Value, name: &str| json!({"dataSourceRef": {"apiGroup": group, "kind": kind, "name": name, "namespace": namespace}});
    let mut both = across(snapshot.clone(), "VolumeSnapshot", json!("ns1"), "snapshot1");
    both["dataSource"] = json!({"apiGroup": snapshot, "kind": "VolumeSnapshot", "name": "snapshot1"});
    let mut mismatch = source("dataSource", Value::Null, "PersistentVolumeClaim", "pvc1");
    mismatch["dataSourceRef"] = json!({"kind": "PersistentVolumeClaim", "name": "pvc2"});
    let cases: Vec<(Value, String)> = [
        (json!({}), ""),
        (json!({"storageClassName": "valid", "volumeMode": "Filesystem"}), ""),
        (selector("Exists", Value::Null), ""),
        (
            selector("InvalidOp", json!(["value1", "value2"])),
            ".selector.matchExpressions[0].operator: not a valid selector operator",
        ),
        (
            selector("In", json!(["-1"])),
            ".selector.matchExpressions[0].values[0]: a valid label must be an empty string or consist of",
        ),
        (json!({"accessModes": ["ReadWriteOncePod"]}), ""),
        (
            json!({"accessModes": ["ReadWriteOncePod", "ReadWriteMany"]}),
            ".accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        ),
        (json!({"accessModes": ["fakemode"]}), ".accessModes: Unsupported value: \"fakemode\""),
        (json!({"accessModes": null}), ".accessModes: Required value: at least 1 access mode is required"),
        (json!({"resources": null}), ".resources[storage]: Required value"),
        (
            json!({"resources": {"requests": {"storage": null, "memory": "10G"}}}),
            ".resources[storage]: Required value",
        ),
        (storage("-10G"), ".resources[storage]: Invalid value: \"-10G\": must be greater than zero"),
        (storage("0G"), ".resources[storage]: Invalid value: \"0\": must be greater than zero"),
        (json!({"storageClassName": "-invalid-"}), &format!(".storageClassName: {subdomain}")),
        (
            json!({"volumeMode": "fakeVolumeMode"}),
            ".volumeMode: Unsupported value: \"fakeVolumeMode\": supported values: \"Block\", \"Filesystem\"",
        ),
        (json!({"volumeMode": "Block"}), ""),
        (json!({"volumeMode": ""}), ".volumeMode: Unsupported value: \"\""),
        (mismatch, ": must match dataSourceRef"),
        (
            source("dataSource", json!("^invalid"), "Foo", "foo1"),
            &format!(".dataSource.apiGroup: {subdomain}"),
        ),
        (
            source("dataSourceRef", json!("^invalid"), "Foo", "foo1"),
            &format!(".dataSourceRef.apiGroup: {subdomain}"),
        ),
        (
            json!({"volumeAttributesClassName": "-invalid-"}),
            &format!(".volumeAttributesClassName: {subdomain}"),
        ),
        (json!({"volumeAttributesClassName": ""}), ""),
        (json!({"volumeAttributesClassName": "foo"}), ""),
        (source("dataSource", snapshot.clone(), "VolumeSnapshot", "test_snapshot"), ""),
        (source("dataSource", snapshot.clone(), "VolumeSnapshot", ""), ".dataSource.name: Required value"),
        (source("dataSource", snapshot.clone(), "", "test_snapshot"), ".dataSource.kind: Required value"),
        (source("dataSource", json!(""), "PersistentVolumeClaim", "test_pvc"), ""),
        (source("dataSource", json!("generic.storage.k8s.io"), "Generic", "test_generic"), ""),
        (source("dataSource", json!(""), "Pod", "test_pod"), &format!(".dataSource: {default}")),
        (across(snapshot.clone(), "VolumeSnapshot", json!("ns1"), "snapshot1"), ""),
        (across(json!(""), "PersistentVolumeClaim", json!("ns1"), "snapshot1"), ""),
        (across(json!("unsupported.example.com"), "UnsupportedKind", json!("ns1"), "snapshot1"), ""),
        (
            across(Value::Null, "UnsupportedKind", json!("ns1"), "snapshot1"),
            &format!(".dataSourceRef: {default}"),
        ),
        (
            across(snapshot.clone(), "VolumeSnapshot", json!("a*b"), "snapshot1"),
            ".dataSourceRef.namespace: a lowercase RFC 1123 label must consist of",
        ),
        (across(snapshot.clone(), "VolumeSnapshot", Value::Null, "snapshot1"), ""),
        (across(snapshot.clone(), "VolumeSnapshot", json!(""), "snapshot1"), ""),
        (both, ": may not be specified when dataSourceRef.namespace is specified"),
    ]
    .into_iter()
    .map(|(changes, wrong)| (changes, wrong.to_owned()))
    .collect();
    let cases: Vec<(Value, &str)> =
        cases.iter().map(|(changes, wrong)| (changes.clone(), wrong.as_str())).collect();
    below(&kind(), &base(), "spec", |spec| json!({"spec": spec}), &cases);
    // The same of templates.
    let place = |changes: &Value| {
        let mut own = spec();
        api::patch::merge::apply(&mut own, changes.clone());
        json!({"spec": {"volumes": [{"name": "foo", "ephemeral": {"volumeClaimTemplate": {"spec": own}}}]}})
    };
    let at = "spec.volumes[0].ephemeral.volumeClaimTemplate.spec";
    below(&super::pod::kind(), &super::pod::base(), at, place, &cases);
}

#[test]
fn metadata_of_claims() {
    let meta = [
        (json!({"generateName": "pvc-"}), "generateName"),
        (json!({"uid": "ac051fac-2ead-46d9-b8b4-4e0fbeb7455d"}), "uID"),
        (json!({"resourceVersion": "1"}), "resourceVersion"),
        (json!({"generation": 100}), "generation"),
        (json!({"creationTimestamp": "2026-01-01T00:00:00Z"}), "creationTimestamp"),
        (json!({"deletionGracePeriodSeconds": 10}), "deletionGracePeriodSeconds"),
        (
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "pod", "name": "foo", "uid": "ac051fac"}]}),
            "ownerReferences",
        ),
        (json!({"finalizers": ["example.com/foo"]}), "finalizers"),
        (
            json!({"managedFields": [{"fieldsType": "FieldsV1", "operation": "Apply", "apiVersion": "apps/v1", "manager": "foo"}]}),
            "managedFields",
        ),
        (json!({"labels": {"apps.kubernetes.io/name": "test"}}), ""),
        (json!({"annotations": {"foo": "bar"}}), ""),
    ];
    let place = |meta: &Value| json!({"spec": {"volumes": [{"name": "foo", "ephemeral": {"volumeClaimTemplate": {"metadata": meta, "spec": spec()}}}]}});
    let at = "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata";
    for (meta, refused) in meta {
        below(&kind(), &base(), "metadata", |meta| json!({"metadata": meta}), &[(meta.clone(), "")]);
        let wrong =
            if refused.is_empty() { String::new() } else { format!(".{refused}: Forbidden: cannot be set") };
        below(&super::pod::kind(), &super::pod::base(), at, place, &[(meta, &wrong)]);
    }
    let label = json!({"labels": {"hello-world": "hyphen not allowed"}});
    let wrong = ".labels: Invalid value: \"hyphen not allowed\": a valid label must be";
    below(&super::pod::kind(), &super::pod::base(), at, place, &[(label.clone(), wrong)]);
    below(
        &kind(),
        &base(),
        "metadata",
        |meta| json!({"metadata": meta}),
        &[
            (label, wrong),
            (json!({"name": ""}), ".name: Required value"),
            (json!({"namespace": ""}), ".namespace: Required value"),
        ],
    );
}

const SPEC: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

fn updates(cases: &[(Value, Value, &str)]) {
    changes(&kind(), "", &base(), cases);
}

#[test]
fn updates_of_specs() {
    let volume = |changes: Value| {
        let mut spec = json!({"volumeName": "volume"});
        api::patch::merge::apply(&mut spec, changes);
        json!({"spec": spec})
    };
    let mode = |mode: Value| volume(json!({"volumeMode": mode}));
    let described = |text: &str| json!({"metadata": {"annotations": {"description": text}}, "spec": {"volumeName": "volume"}});
    let both = format!("{SPEC} | volumeMode: field is immutable");
    let (file, block) = (json!("Filesystem"), json!("Block"));
    let source = |key: &str| volume(json!({key: {"apiGroup": "^invalid", "kind": "Foo", "name": "foo"}}));
    updates(&[
        (json!({}), volume(json!({})), ""),
        (volume(json!({})), volume(json!({})), ""),
        (volume(json!({})), volume(json!({"resources": {"requests": {"storage": "20G"}}})), SPEC),
        (volume(json!({})), volume(json!({"accessModes": ["ReadWriteOnce"]})), SPEC),
        (mode(block.clone()), mode(block.clone()), ""),
        (mode(file.clone()), mode(file.clone()), ""),
        (mode(file.clone()), mode(block.clone()), &both),
        (mode(block.clone()), mode(file.clone()), &both),
        (mode(Value::Null), mode(file.clone()), &both),
        (mode(Value::Null), mode(block.clone()), &both),
        (mode(block.clone()), mode(Value::Null), &both),
        (mode(file), mode(Value::Null), &both),
        (json!({}), mode(block.clone()), &both),
        (mode(block), json!({}), &both),
        (described("foo-description"), described("updated"), ""),
        (json!({}), described("added"), ""),
        // What was accepted once stays.
        (source("dataSource"), source("dataSource"), ""),
        (source("dataSourceRef"), source("dataSourceRef"), ""),
    ]);
}

/// A selector with values that no label has may stay.
#[test]
fn updates_of_selectors() {
    let selector = |value: &str| json!({"spec": {"selector": {"matchExpressions": [{"key": "key2", "operator": "In", "values": [value]}]}}});
    let labelled = |mut claim: Value| {
        claim["metadata"] = json!({"labels": {"a": "b"}});
        claim
    };
    let wrong =
        "spec.selector.matchExpressions[0].values[0]: a valid label must be an empty string or consist of";
    updates(&[
        (selector("-1"), labelled(selector("-1")), ""),
        (selector("1"), labelled(selector("1")), ""),
        (selector("-1"), selector("-2"), SPEC),
        (selector("1"), selector("-1"), &format!("{wrong} | {SPEC}")),
    ]);
}

#[test]
fn updates_of_classes() {
    let key = "volume.beta.kubernetes.io/storage-class";
    let of = |annotation: Option<&str>, class: Option<&str>| json!({"metadata": {"annotations": {key: annotation}}, "spec": {"storageClassName": class}});
    let annotation = format!("metadata.annotations.{key}: field is immutable");
    let both = format!("{annotation} | {SPEC}");
    let (fast, fast2) = (Some("fast"), Some("fast2"));
    updates(&[
        (of(fast, None), of(fast2, None), &annotation),
        (of(fast, None), of(None, fast), ""),
        (of(None, None), of(None, fast), ""),
        (of(None, fast), of(None, fast2), SPEC),
        (of(None, fast), of(None, None), SPEC),
        (of(fast, None), of(fast, fast), ""),
        (of(fast, fast), of(None, fast2), &both),
        (of(fast, None), of(None, fast2), &both),
        (of(fast, None), of(fast2, fast), &annotation),
        (of(None, fast), of(fast, None), &both),
    ]);
    let class = |class: Option<&str>, phase: &str, current: Option<&str>| json!({"spec": {"volumeAttributesClassName": class}, "status": {"phase": phase, "currentVolumeAttributesClassName": current}});
    let bound = |name: Option<&str>| class(name, "Bound", None);
    let at = "spec.volumeAttributesClassName: Forbidden: update to";
    let why = "is forbidden when status.currentVolumeAttributesClassName is not nil";
    updates(&[
        (bound(None), bound(Some("vac1")), ""),
        (bound(Some("")), bound(Some("vac1")), ""),
        (bound(Some("vac1")), bound(Some("vac2")), ""),
        (bound(Some("vac1")), bound(None), ""),
        (bound(Some("vac1")), bound(Some("")), ""),
        (
            class(Some("vac1"), "Bound", Some("vac1")),
            class(None, "Bound", Some("vac1")),
            &format!("{at} nil {why}"),
        ),
        (
            class(Some("vac1"), "Bound", Some("vac1")),
            class(Some(""), "Bound", Some("vac1")),
            &format!("{at} empty string {why}"),
        ),
        (class(Some("vac1"), "Pending", None), class(Some("vac2"), "Pending", None), SPEC),
    ]);
}

#[test]
fn updates_of_sizes() {
    let of = |size: &str, phase: &str, capacity: Option<&str>| json!({"spec": {"resources": {"requests": {"storage": size}}}, "status": {"phase": phase, "capacity": {"storage": capacity}}});
    let ten = Some("10G");
    let less = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    updates(&[
        (of("10G", "Bound", None), of("15G", "Bound", None), ""),
        (of("10G", "Bound", ten), of("5G", "Bound", ten), less),
        (of("10G", "Bound", None), of("12G", "Pending", None), SPEC),
        (of("15G", "Bound", ten), of("13G", "Bound", ten), ""),
        (of("15G", "Bound", ten), of("3G", "Bound", ten), less),
        (of("15G", "Bound", ten), of("10G", "Bound", ten), less),
        (of("15G", "Bound", ten), of("12G", "Pending", ten), SPEC),
    ]);
}

#[test]
fn statuses() {
    let allocated = |amounts: Value| json!({"status": {"phase": "Pending", "conditions": [{"type": "Resizing", "status": "True"}], "allocatedResources": amounts}});
    let states = |states: Value| json!({"status": {"allocatedResourceStatuses": states}});
    let storage = |state: &str| states(json!({"storage": state}));
    let only = "supported values: \"storage\"";
    let at = "status.allocatedResources";
    changes(
        &kind(),
        "status",
        &base(),
        &[
            (json!({}), allocated(Value::Null), ""),
            (json!({}), allocated(json!({"storage": "10G"})), ""),
            (json!({}), allocated(json!({"example.com/foo": "14G"})), ""),
            (
                json!({}),
                allocated(json!({"kubernetes.io/foo": "14G"})),
                &format!("{at}: Unsupported value: \"kubernetes.io/foo\": {only}"),
            ),
            (
                json!({}),
                allocated(json!({"storage": "-10G"})),
                &format!("{at}[storage]: Invalid value: -10000000000: must be a valid resource quantity"),
            ),
            (
                json!({}),
                allocated(json!({"cpu": "10G"})),
                &format!("{at}: Unsupported value: \"cpu\": {only}"),
            ),
            (json!({}), storage("ControllerResizeInProgress"), ""),
            (json!({}), storage("ControllerResizeInfeasible"), ""),
            (json!({}), storage("NodeResizePending"), ""),
            (json!({}), storage("NodeResizeInProgress"), ""),
            (json!({}), storage("NodeResizeInfeasible"), ""),
            (
                json!({}),
                storage("foo"),
                "status.allocatedResourceStatuses: Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\"",
            ),
            (
                json!({}),
                states(json!({"kubernetes.io/foo": "NodeResizePending"})),
                &format!(
                    "status.allocatedResourceStatuses: Unsupported value: \"kubernetes.io/foo\": {only}"
                ),
            ),
            (json!({}), states(json!({"example.com/foo": "NodeResizePending"})), ""),
            (
                json!({}),
                json!({"status": {"allocatedResources": {"storage": "5Gi", "example.com/foo": "10Gi"},
                "allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible", "example.com/foo": "ControllerResizeInProgress"}}}),
                "",
            ),
        ],
    );
}
