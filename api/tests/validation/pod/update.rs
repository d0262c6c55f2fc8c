//! What of a pod may change.

use serde_json::{Value, json};

use super::super::{changes, container};
use super::{base, changed, kind};

const ONLY: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn pods(cases: &[(Value, Value, &str)]) {
    changes(&kind(), "", &base(), cases);
}

fn specs(cases: &[(Value, Value, &str)]) {
    let cases: Vec<(Value, Value, &str)> =
        cases.iter().map(|(old, new, wrong)| (json!({"spec": old}), json!({"spec": new}), *wrong)).collect();
    pods(&cases);
}

#[test]
fn metadata() {
    let meta = |meta: Value| json!({"metadata": meta});
    let key = "kubernetes.io/config.mirror";
    let mirror =
        |value: Value| json!({"metadata": {"annotations": {key: value}}, "spec": {"nodeName": "foo"}});
    let (now, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    pods(&[
        (json!({}), json!({}), ""),
        (
            meta(json!({"name": "bar"})),
            meta(json!({"name": "foo"})),
            "metadata.name: field is immutable | metadata.name: field is immutable",
        ),
        (meta(json!({"labels": {"bar": "foo"}})), meta(json!({"labels": {"foo": "bar"}})), ""),
        (meta(json!({"annotations": {"bar": "foo"}})), meta(json!({"annotations": {"foo": "bar"}})), ""),
        (
            meta(json!({"deletionTimestamp": now})),
            json!({}),
            "metadata.deletionTimestamp: field is immutable | metadata.deletionTimestamp: field is immutable",
        ),
        (
            json!({}),
            meta(json!({"deletionTimestamp": now})),
            "metadata.deletionTimestamp: field is immutable | metadata.deletionTimestamp: field is immutable",
        ),
        (
            meta(json!({"deletionTimestamp": now, "deletionGracePeriodSeconds": 31})),
            meta(json!({"deletionTimestamp": now, "deletionGracePeriodSeconds": 30})),
            "metadata.deletionGracePeriodSeconds: field is immutable | metadata.deletionGracePeriodSeconds: field is immutable",
        ),
        (
            meta(json!({"deletionTimestamp": now})),
            meta(json!({"deletionTimestamp": later})),
            "metadata.deletionTimestamp: field is immutable | metadata.deletionTimestamp: field is immutable",
        ),
        (
            json!({"spec": {"nodeName": "foo"}}),
            mirror(json!("")),
            &format!("metadata.annotations[{key}]: Forbidden: may not add mirror pod annotation"),
        ),
        (
            mirror(json!("")),
            json!({"spec": {"nodeName": "foo"}}),
            &format!(
                "metadata.annotations[{key}]: Forbidden: may not remove or update mirror pod annotation"
            ),
        ),
        (
            mirror(json!("bar")),
            mirror(json!("foo")),
            &format!(
                "metadata.annotations[{key}]: Forbidden: may not remove or update mirror pod annotation"
            ),
        ),
    ]);
}

#[test]
fn containers() {
    let image = |name: &str, image: &str| changed(name, &json!({"image": image}));
    let apps = |all: Value| json!({"containers": all});
    let inits = |all: Value| json!({"initContainers": all});
    let count = "Forbidden: pod updates may not add or remove containers";
    let (one, two) =
        (json!([image("foo", "foo:V1")]), json!([image("foo", "foo:V1"), image("bar", "bar:V1")]));
    let rule = |code: i32| {
        let rule =
            json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [code]}});
        apps(json!([changed("ctr", &json!({"restartPolicy": "Never", "restartPolicyRules": [rule]}))]))
    };
    let port = |host: i32| {
        let ports = json!({"ports": [{"hostPort": host, "containerPort": 80, "protocol": "TCP"}]});
        apps(json!([changed("ctr", &ports)]))
    };
    let resize = |image: &str| {
        let policy = json!({"image": image, "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]});
        inits(json!([changed("ictr", &policy)]))
    };
    specs(&[
        (apps(two.clone()), apps(one.clone()), &format!("spec.containers: {count}")),
        (apps(one.clone()), apps(two.clone()), &format!("spec.containers: {count}")),
        (inits(two), inits(one), &format!("spec.initContainers: {count}")),
        (apps(json!([image("c", "foo:V2")])), apps(json!([image("c", "foo:V1")])), ""),
        (inits(json!([image("c", "foo:V2")])), inits(json!([image("c", "foo:V1")])), ""),
        (
            apps(json!([image("c", "foo:V2")])),
            apps(json!([image("c", "")])),
            "spec.containers[0].image: Required value | spec.containers[0].image: Required value",
        ),
        (
            inits(json!([image("c", "foo:V2")])),
            inits(json!([image("c", "")])),
            "spec.initContainers[0].image: Required value | spec.initContainers[0].image: Required value",
        ),
        (json!({}), json!({"ephemeralContainers": [container("ephemeral")]}), ONLY),
        (port(8000), port(8080), ONLY),
        (rule(43), rule(42), ONLY),
        (
            inits(json!([container("ictr")])),
            resize("image"),
            &format!(
                "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers | {ONLY}"
            ),
        ),
        // What was accepted once stays.
        (resize("image:v1"), resize("image:v2"), ""),
    ]);
}

#[test]
fn resources() {
    let of = |requests: Value, limits: Value| {
        let resources = json!({"resources": {"requests": requests, "limits": limits}});
        json!({"containers": [changed("ctr", &resources)]})
    };
    let limits = |cpu: &str, memory: &str, storage: &str| {
        of(Value::Null, json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage}))
    };
    let requests = |cpu: &str, memory: &str, storage: &str| {
        of(json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage}), Value::Null)
    };
    let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let pod = |mut spec: Value| {
        spec["resources"] = json!({"limits": amounts("100m", "200Mi")});
        spec
    };
    let cases = [
        (limits("100m", "0", "1Gi"), limits("200m", "0", "1Gi")),
        (limits("100m", "200Mi", "0"), limits("100m", "100Mi", "0")),
        (limits("100m", "100Mi", "2Gi"), limits("100m", "100Mi", "1Gi")),
        (requests("200m", "0", "0"), requests("100m", "0", "0")),
        (requests("0", "100Mi", "0"), requests("0", "200Mi", "0")),
        (requests("100m", "0", "1Gi"), requests("100m", "0", "2Gi")),
        (
            of(amounts("100m", "100Mi"), amounts("100m", "100Mi")),
            of(amounts("200m", "400Mi"), amounts("200m", "400Mi")),
        ),
        (
            of(amounts("200m", "200Mi"), amounts("400m", "400Mi")),
            of(amounts("100m", "100Mi"), amounts("200m", "200Mi")),
        ),
        (of(amounts("100m", "100Mi"), Value::Null), of(amounts("100m", "100Mi"), amounts("200m", "200Mi"))),
        (of(amounts("100m", "100Mi"), amounts("200m", "200Mi")), of(amounts("100m", "100Mi"), Value::Null)),
        (of(Value::Null, amounts("200m", "500Mi")), of(json!({"cpu": "300m"}), json!({"cpu": "400m"}))),
        (of(amounts("100m", "200Mi"), amounts("200m", "300Mi")), of(Value::Null, amounts("400m", "500Mi"))),
        (
            of(amounts("100m", "100Mi"), amounts("100m", "100Mi")),
            of(amounts("100m", "100Mi"), amounts("200m", "200Mi")),
        ),
        (of(amounts("100m", "100Mi"), Value::Null), of(amounts("100m", "100Mi"), amounts("100m", "100Mi"))),
        (json!({}), of(amounts("100m", "100Mi"), amounts("200m", "200Mi"))),
        (of(amounts("100m", "100Mi"), amounts("200m", "200Mi")), json!({})),
        (of(Value::Null, amounts("100m", "200Mi")), pod(of(Value::Null, amounts("100m", "200Mi")))),
        (pod(of(Value::Null, amounts("100m", "200Mi"))), of(Value::Null, amounts("100m", "100Mi"))),
    ];
    for (old, new) in cases {
        specs(&[(old, new, ONLY)]);
    }
}

#[test]
fn deadlines() {
    let deadline = |seconds: i64| json!({"activeDeadlineSeconds": seconds});
    let negative = "spec.activeDeadlineSeconds: must be between 1 and 2147483647, inclusive | spec.activeDeadlineSeconds: must be between 0 and 2147483647, inclusive";
    let zero = "spec.activeDeadlineSeconds: must be between 1 and 2147483647, inclusive";
    specs(&[
        (deadline(30), deadline(30), ""),
        (json!({}), deadline(30), ""),
        (deadline(31), deadline(30), ""),
        (
            deadline(30),
            deadline(31),
            "spec.activeDeadlineSeconds: must be less than or equal to previous value",
        ),
        (json!({}), deadline(-30), negative),
        (deadline(30), deadline(-30), negative),
        (deadline(30), deadline(0), zero),
        (json!({}), deadline(0), zero),
        (
            deadline(30),
            json!({}),
            "spec.activeDeadlineSeconds: must not update from a positive integer to nil value",
        ),
    ]);
}

#[test]
fn tolerations() {
    let all = |tolerations: Value| json!({"nodeName": "node1", "tolerations": tolerations});
    let plain = |value: &str| json!({"key": "key1", "value": value});
    let timed = |value: &str, seconds: Option<i64>| json!({"key": "key1", "value": value, "operator": "Equal", "effect": "NoExecute", "tolerationSeconds": seconds});
    let second = |effect: &str| json!({"key": "key2", "value": "value2", "operator": "Equal", "effect": effect, "tolerationSeconds": 30});
    let kept =
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds";
    let effect = "spec.tolerations[1].effect: effect must be 'NoExecute' when `tolerationSeconds` is set";
    specs(&[
        (all(json!([plain("value1")])), all(json!([plain("value2")])), kept),
        (all(json!([timed("value1", Some(10))])), all(json!([timed("value2", None)])), kept),
        (all(json!([timed("value1", Some(20))])), all(json!([timed("value1", Some(10))])), ""),
        (json!({"tolerations": [plain("value1")]}), json!({"tolerations": [plain("value2")]}), kept),
        (all(json!([plain("value1")])), all(json!([plain("value1")])), ""),
        (
            all(json!([timed("value1", Some(10))])),
            all(json!([timed("value1", Some(20)), second("NoExecute")])),
            "",
        ),
        (
            all(json!([timed("value1", Some(10))])),
            all(json!([timed("value1", Some(20)), second("NoSchedule")])),
            &format!("{effect} | {effect}"),
        ),
    ]);
}

#[test]
fn other_fields() {
    let os =
        |name: &str| json!({"os": {"name": name}, "securityContext": {"seLinuxOptions": {"role": "dummy"}}});
    let selinux = "spec.securityContext.seLinuxOptions: Forbidden: cannot be set for a windows pod";
    specs(&[
        (
            json!({"securityContext": {}}),
            json!({"securityContext": {"fsGroupChangePolicy": "OnRootMismatch"}}),
            ONLY,
        ),
        (json!({}), json!({"nodeName": "foo"}), ONLY),
        (json!({"priorityClassName": "foo-priority"}), json!({"priorityClassName": "bar-priority"}), ONLY),
        (json!({"priorityClassName": "foo-priority"}), json!({}), ONLY),
        (json!({"terminationGracePeriodSeconds": -1}), json!({"terminationGracePeriodSeconds": 1}), ""),
        (json!({"terminationGracePeriodSeconds": -1}), json!({"terminationGracePeriodSeconds": 0}), ONLY),
        (os("linux"), os("windows"), &format!("{selinux} | {ONLY}")),
        (
            json!({}),
            json!({"os": {"name": "dummy"}}),
            &format!("spec.os: Unsupported value: \"dummy\" | {ONLY}"),
        ),
        (json!({"os": {"name": "windows"}}), json!({"os": {"name": "linux"}}), ONLY),
        (
            json!({"schedulingGroup": {"podGroupName": "pg2"}}),
            json!({"schedulingGroup": {"podGroupName": "pg1"}}),
            ONLY,
        ),
    ]);
}

fn gated(mut spec: Value) -> Value {
    spec["schedulingGates"] = json!([{"name": "baz"}]);
    spec
}

#[test]
fn scheduling_gates() {
    let gates = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"schedulingGates": all})
    };
    let new = |name: &str| {
        format!(
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate '{name}'"
        )
    };
    let selector = |own: Value| json!({"nodeSelector": own});
    let (one, two) = (selector(json!({"foo": "bar"})), selector(json!({"foo": "bar", "foo2": "bar2"})));
    let only_more =
        "spec.nodeSelector: only additions to spec.nodeSelector are allowed (no mutations or deletions)";
    specs(&[
        (json!({}), gates(&["foo"]), &new("foo")),
        (gates(&["foo"]), gates(&["bar"]), &new("bar")),
        (gates(&["foo", "bar"]), gates(&["baz"]), &new("baz")),
        (gates(&["foo"]), json!({}), ""),
        (gated(json!({})), gated(one.clone()), ""),
        (one.clone(), two.clone(), ONLY),
        (gated(one.clone()), gated(json!({})), only_more),
        (one.clone(), json!({}), ONLY),
        (gated(one.clone()), two, ""),
        (gated(one), gated(selector(json!({"foo": "new-value"}))), only_more),
    ]);
}

#[test]
fn affinity_of_gated_pods() {
    let affinity = |own: Value| json!({"affinity": {"nodeAffinity": own}});
    let required = |terms: Value| {
        affinity(json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}))
    };
    let preferred = |term: Value| {
        affinity(
            json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]}),
        )
    };
    let requirement = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let expressions = |all: Value| json!({"matchExpressions": all});
    let foo = || expressions(json!([requirement("expr", "foo")]));
    let both = |value: &str, name: &str| {
        json!({
            "matchExpressions": [requirement("expr", value)], "matchFields": [requirement("metadata.name", name)],
        })
    };
    let more = json!({
        "matchExpressions": [requirement("expr", "foo"), requirement("expr2", "foo2")],
        "matchFields": [requirement("metadata.name", "foo")],
    });
    let fields = json!({"matchFields": [requirement("metadata.name", "foo")]});
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let count = format!("{at}: no additions/deletions to non-empty NodeSelectorTerms list are allowed");
    let only_more = format!("{at}[0]: only additions are allowed (no mutations or deletions)");
    let to_pods = |key: &str| {
        let mut own = required(json!([foo()]));
        own["affinity"][key] = json!({"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "foo", "labelSelector": {"matchLabels": {"foo": "bar"}}}]});
        own
    };
    let bad = required(json!([expressions(json!([requirement("expr", "-1")]))]));
    let label = format!(
        "{at}[0].matchExpressions[0].values[0]: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
    );
    specs(&[
        (gated(required(json!([foo()]))), gated(required(json!([more]))), ""),
        (gated(required(json!([foo()]))), gated(affinity(json!({}))), &count),
        (required(json!([foo()])), required(json!([more])), ONLY),
        (gated(required(json!([foo()]))), required(json!([more])), ""),
        (gated(required(json!([foo()]))), gated(required(json!([fields]))), &only_more),
        (gated(required(json!([both("foo", "foo")]))), gated(required(json!([foo()]))), &only_more),
        (
            gated(required(json!([both("foo", "foo")]))),
            gated(required(json!([both("bar", "foo")]))),
            &only_more,
        ),
        (
            gated(required(json!([both("foo", "foo")]))),
            gated(required(json!([both("foo", "bar")]))),
            &only_more,
        ),
        (
            gated(required(json!([both("foo", "foo")]))),
            gated(required(json!([both("foo", "bar"), both("foo2", "bar2")]))),
            &count,
        ),
        (gated(preferred(foo())), gated(preferred(expressions(json!([requirement("expr", "foo2")])))), ""),
        (gated(preferred(foo())), gated(preferred(more)), ""),
        (gated(preferred(foo())), gated(json!({})), ""),
        (gated(required(json!([foo()]))), gated(json!({"affinity": {}})), &count),
        (gated(required(json!([{}]))), gated(required(json!([foo()]))), &only_more),
        (gated(json!({})), gated(required(json!([foo()]))), ""),
        (gated(json!({})), gated(to_pods("podAffinity")), ONLY),
        (gated(json!({})), gated(to_pods("podAntiAffinity")), ONLY),
        (gated(bad.clone()), bad.clone(), ""),
        (gated(required(json!([foo()]))), gated(bad), &format!("{label} | {only_more}")),
    ]);
}
