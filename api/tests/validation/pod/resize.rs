//! Pods whose resources change while they run, and whose ephemeral containers do.

use serde_json::{Value, json};

use super::super::{changes, container};
use super::{base, changed, kind};

fn resizes(cases: &[(Value, Value, &str)]) {
    let cases: Vec<(Value, Value, &str)> =
        cases.iter().map(|(old, new, wrong)| (json!({"spec": old}), json!({"spec": new}), *wrong)).collect();
    changes(&kind(), "resize", &base(), &cases);
}

fn amounts(cpu: &str, memory: &str) -> Value {
    storing(cpu, memory, "")
}

fn storing(cpu: &str, memory: &str, storage: &str) -> Value {
    let all = [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)];
    all.into_iter()
        .filter(|(_, amount)| !amount.is_empty())
        .map(|(name, amount)| (name.to_owned(), amount.into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn none() -> Value {
    json!({})
}

fn app(requests: &Value, limits: &Value) -> Value {
    json!({"containers": [changed("container", &json!({"resources": {"requests": requests, "limits": limits}}))]})
}

fn init(requests: &Value, limits: &Value, policy: Option<&str>) -> Value {
    let own = json!({"resources": {"requests": requests, "limits": limits}, "restartPolicy": policy});
    json!({"initContainers": [changed("init", &own)]})
}

const MUTABLE: &str = "spec: Forbidden: only cpu and memory resources are mutable";

#[test]
fn resources_of_containers() {
    let limits = |cpu: &str, memory: &str, storage: &str| app(&none(), &storing(cpu, memory, storage));
    let requests = |cpu: &str, memory: &str, storage: &str| app(&storing(cpu, memory, storage), &none());
    let both = |requests: Value, limits: Value| app(&requests, &limits);
    let policy = |mut spec: Value, resource: &str, policy: &str| {
        spec["containers"][0]["resizePolicy"] = json!([{"resourceName": resource, "restartPolicy": policy}]);
        spec
    };
    let class = "spec: Pod QOS Class may not change as a result of resizing";
    let lost = |kind: &str| {
        format!("spec.containers[0].resources.{kind}: Forbidden: resource {kind} cannot be removed")
    };
    resizes(&[
        (limits("100m", "0", "1Gi"), limits("200m", "0", "1Gi"), ""),
        (limits("100m", "100Mi", ""), limits("100m", "200Mi", ""), ""),
        (limits("100m", "200Mi", ""), limits("100m", "100Mi", ""), ""),
        (
            policy(limits("100m", "200Mi", ""), "memory", "NotRequired"),
            policy(limits("100m", "100Mi", ""), "memory", "NotRequired"),
            "",
        ),
        (
            policy(limits("100m", "200Mi", ""), "memory", "RestartContainer"),
            policy(limits("100m", "100Mi", ""), "memory", "RestartContainer"),
            "",
        ),
        (limits("100m", "100Mi", "2Gi"), limits("100m", "100Mi", "1Gi"), MUTABLE),
        (requests("200m", "0", ""), requests("100m", "0", ""), ""),
        (requests("0", "100Mi", ""), requests("0", "200Mi", ""), ""),
        (requests("100m", "0", "1Gi"), requests("100m", "0", "2Gi"), MUTABLE),
        (
            both(storing("100m", "100Mi", "1Gi"), storing("100m", "100Mi", "1Gi")),
            both(storing("200m", "400Mi", "1Gi"), storing("200m", "400Mi", "1Gi")),
            "",
        ),
        (
            both(storing("200m", "100Mi", "1Gi"), storing("400m", "200Mi", "2Gi")),
            both(storing("100m", "200Mi", "1Gi"), storing("200m", "400Mi", "2Gi")),
            "",
        ),
        (both(amounts("100m", "100Mi"), none()), both(amounts("100m", "100Mi"), amounts("200m", "")), ""),
        (
            both(none(), storing("200m", "500Mi", "1Gi")),
            both(amounts("300m", ""), storing("400m", "500Mi", "1Gi")),
            "",
        ),
        (
            both(amounts("100m", "100Mi"), amounts("100m", "100Mi")),
            both(amounts("100m", "100Mi"), amounts("200m", "200Mi")),
            class,
        ),
        (
            both(amounts("100m", "100Mi"), none()),
            both(amounts("100m", "100Mi"), amounts("100m", "100Mi")),
            class,
        ),
        (both(none(), none()), both(amounts("100m", "100Mi"), amounts("200m", "200Mi")), class),
        (
            both(amounts("100m", "100Mi"), amounts("200m", "200Mi")),
            both(none(), none()),
            &format!("{class} | {} | {}", lost("requests"), lost("limits")),
        ),
        (limits("100m", "100Mi", ""), limits("", "100Mi", ""), &lost("limits")),
        (limits("100m", "100Mi", ""), limits("100m", "", ""), &lost("limits")),
        (requests("100m", "100Mi", ""), requests("", "100Mi", ""), &lost("requests")),
        (requests("100m", "100Mi", ""), requests("100m", "", ""), &lost("requests")),
        (
            both(amounts("100m", ""), amounts("100m", "100Mi")),
            both(amounts("100m", ""), none()),
            &lost("limits"),
        ),
        (
            both(amounts("100m", "100Mi"), amounts("100m", "")),
            both(none(), amounts("100m", "")),
            &lost("requests"),
        ),
        (
            policy(requests("100m", "0", "1Gi"), "cpu", "NotRequired"),
            policy(requests("100m", "0", "2Gi"), "cpu", "RestartContainer"),
            MUTABLE,
        ),
        (
            json!({"containers": [container("c1")]}),
            json!({"containers": [changed("c1", &json!({"resources": {"requests": {"ephemeral-storage": "10Gi"}}}))]}),
            MUTABLE,
        ),
    ]);
}

#[test]
fn resources_of_init_containers() {
    let sidecar = |requests: Value, limits: Value| init(&requests, &limits, Some("Always"));
    let plain = |requests: Value, limits: Value| init(&requests, &limits, None);
    let policy = |mut spec: Value, policy: &str| {
        spec["initContainers"][0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
        spec
    };
    let lost = |kind: &str| {
        format!("spec.initContainers[0].resources.{kind}: Forbidden: resource {kind} cannot be removed")
    };
    let mutable = "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable";
    let (old, new) = (
        plain(amounts("100m", "100Mi"), amounts("100m", "")),
        plain(amounts("200m", "200Mi"), amounts("200m", "")),
    );
    resizes(&[
        (sidecar(none(), amounts("100m", "100Mi")), sidecar(none(), amounts("", "100Mi")), &lost("limits")),
        (sidecar(none(), amounts("100m", "100Mi")), sidecar(none(), amounts("100m", "")), &lost("limits")),
        (sidecar(amounts("100m", "100Mi"), none()), sidecar(amounts("", "100Mi"), none()), &lost("requests")),
        (sidecar(amounts("100m", "100Mi"), none()), sidecar(amounts("100m", ""), none()), &lost("requests")),
        (
            sidecar(amounts("100m", ""), amounts("100m", "100Mi")),
            sidecar(amounts("100m", ""), none()),
            &lost("limits"),
        ),
        (
            sidecar(amounts("100m", "100Mi"), amounts("100m", "")),
            sidecar(none(), amounts("100m", "")),
            &lost("requests"),
        ),
        (
            plain(amounts("100m", "100Mi"), amounts("100m", "")),
            plain(none(), amounts("100m", "")),
            &lost("requests"),
        ),
        (old.clone(), new.clone(), ""),
        (policy(old.clone(), "NotRequired"), policy(new.clone(), "NotRequired"), ""),
        (
            policy(old, "RestartContainer"),
            policy(new, "RestartContainer"),
            "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
        ),
        (sidecar(none(), storing("100m", "0", "1Gi")), sidecar(none(), storing("200m", "0", "1Gi")), ""),
        (sidecar(none(), amounts("100m", "100Mi")), sidecar(none(), amounts("100m", "200Mi")), ""),
        (sidecar(none(), amounts("100m", "200Mi")), sidecar(none(), amounts("100m", "100Mi")), ""),
        (
            sidecar(none(), storing("100m", "100Mi", "2Gi")),
            sidecar(none(), storing("100m", "100Mi", "1Gi")),
            mutable,
        ),
        (sidecar(amounts("200m", "0"), none()), sidecar(amounts("100m", "0"), none()), ""),
        (sidecar(amounts("0", "100Mi"), none()), sidecar(amounts("0", "200Mi"), none()), ""),
        (sidecar(storing("100m", "0", "1Gi"), none()), sidecar(storing("100m", "0", "2Gi"), none()), mutable),
        (
            policy(sidecar(storing("100m", "0", "1Gi"), none()), "RestartContainer"),
            policy(sidecar(storing("100m", "0", "2Gi"), none()), "NotRequired"),
            mutable,
        ),
    ]);
}

#[test]
fn resources_of_whole_pods() {
    let pod = |mut spec: Value, key: &str, amounts: Value| {
        spec["resources"] = json!({key: amounts});
        spec
    };
    let limits = |cpu: &str, memory: &str| app(&none(), &amounts(cpu, memory));
    let requests = |cpu: &str, memory: &str| app(&amounts(cpu, memory), &none());
    let at_most = |spec: Value, cpu: &str, memory: &str| pod(spec, "limits", amounts(cpu, memory));
    let at_least = |spec: Value, cpu: &str, memory: &str| pod(spec, "requests", amounts(cpu, memory));
    resizes(&[
        (limits("200m", ""), at_most(limits("100m", "100Mi"), "100m", "200Mi"), ""),
        (at_most(limits("", ""), "", "200Mi"), at_most(limits("100m", "100Mi"), "100m", "200Mi"), ""),
        (at_least(limits("", ""), "", "200Mi"), at_least(limits("100m", "100Mi"), "100m", "200Mi"), ""),
        (
            at_most(limits("100m", "100Mi"), "100m", "200Mi"),
            at_most(limits("100m", "200Mi"), "100m", "200Mi"),
            "",
        ),
        (
            at_most(requests("200m", "200Mi"), "200m", "200Mi"),
            at_most(requests("100m", "200Mi"), "200m", "200Mi"),
            "",
        ),
        (
            at_most(requests("100m", "200Mi"), "100m", "200Mi"),
            at_most(requests("100m", "100Mi"), "100m", "200Mi"),
            "",
        ),
        (
            at_most(requests("100m", "100Mi"), "200m", "100Mi"),
            at_most(requests("100m", "100Mi"), "200m", "200Mi"),
            "",
        ),
        (
            at_least(requests("100m", "100Mi"), "200m", "100Mi"),
            at_least(requests("100m", "100Mi"), "200m", "200Mi"),
            "",
        ),
        (
            at_most(requests("100m", "100Mi"), "100m", "200Mi"),
            at_most(requests("100m", "100Mi"), "200m", "200Mi"),
            "",
        ),
        (
            at_least(requests("100m", "100Mi"), "200m", "200Mi"),
            at_least(requests("100m", "100Mi"), "100m", "200Mi"),
            "",
        ),
    ]);
}

#[test]
fn lists_of_containers() {
    let all = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| container(name)).collect();
        json!({"containers": all})
    };
    let count = "spec.containers: Forbidden: containers may not be added or removed on resize";
    let renamed = |i: usize| {
        format!("spec.containers[{i}].name: Forbidden: containers may not be renamed or reordered on resize")
    };
    resizes(&[
        (all(&["c1"]), all(&["c1", "c2"]), count),
        (all(&["c1", "c2"]), all(&["c1"]), count),
        (all(&["c1", "c2"]), all(&["c2", "c1"]), &format!("{} | {}", renamed(0), renamed(1))),
        (all(&["c1"]), all(&["c2"]), &renamed(0)),
    ]);
}

#[test]
fn pods_that_cannot_be_resized() {
    let windows = |cpu: &str| {
        let mut spec = app(&none(), &amounts(cpu, ""));
        spec["os"] = json!({"name": "windows"});
        spec
    };
    let not = "[]: Forbidden: windows pods cannot be resized";
    resizes(&[(windows("100m"), windows("100m"), not), (windows("100m"), windows("200m"), not)]);
    let status = |resources: Value, state: Value| {
        json!({"containerStatuses": [{"name": "main", "image": "nginx:alpine", "imageID": "", "ready": true, "restartCount": 0,
            "resources": resources, "state": state}]})
    };
    let running = || json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    let waiting = || json!({"waiting": {"reason": "PodInitializing"}});
    let pod = |cpu: &str, status: Value| json!({"spec": app(&none(), &amounts(cpu, "")), "status": status});
    let cases = [
        (status(Value::Null, running()), "spec: Forbidden: Pod running on node without support for resize"),
        (status(json!({}), running()), ""),
        (json!({"containerStatuses": []}), ""),
        (status(Value::Null, waiting()), ""),
    ];
    for (status, wrong) in cases {
        changes(&kind(), "resize", &base(), &[(pod("100m", status.clone()), pod("200m", status), wrong)]);
    }
}

#[test]
fn updates_of_ephemeral_containers() {
    let image = |name: &str, image: &str| changed(name, &json!({"image": image}));
    let busy = |name: &str| image(name, "busybox");
    let all = |containers: Value| json!({"spec": {"restartPolicy": "OnFailure", "ephemeralContainers": containers}});
    let at = "spec.ephemeralContainers: Forbidden: existing ephemeral containers";
    let windows = |process: Option<bool>| {
        let host = |process: bool| json!({"securityContext": {"windowsOptions": {"hostProcess": process}}});
        let debuggers: Vec<Value> = process.iter().map(|own| changed("debugger1", &host(*own))).collect();
        json!({"spec": {
            "hostNetwork": true, "securityContext": {"windowsOptions": {"hostProcess": true}},
            "containers": [changed("cnt", &host(true))], "ephemeralContainers": debuggers,
        }})
    };
    let mirror = |containers: Value| {
        json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "foo"}},
            "spec": {"nodeName": "some-name", "ephemeralContainers": containers}})
    };
    changes(
        &kind(),
        "ephemeralcontainers",
        &base(),
        &[
            (all(json!([])), all(json!([])), ""),
            (all(json!([busy("d1"), busy("d2")])), all(json!([busy("d1"), busy("d2")])), ""),
            (all(json!([busy("d2"), busy("d1")])), all(json!([busy("d1"), busy("d2")])), ""),
            (all(json!([])), all(json!([busy("d1")])), ""),
            (all(json!([])), all(json!([busy("d1"), busy("d2")])), ""),
            (all(json!([busy("d1")])), all(json!([busy("d1"), busy("d2")])), ""),
            (all(json!([busy("d1"), busy("d2")])), all(json!([busy("d3"), busy("d2"), busy("d1")])), ""),
            (all(json!([busy("d1")])), all(json!([])), &format!("{at} \"d1\" may not be removed")),
            (
                all(json!([busy("thentheother")])),
                all(json!([busy("firstone")])),
                &format!("{at} \"thentheother\" may not be removed"),
            ),
            (
                all(json!([busy("d1"), busy("d2")])),
                all(json!([image("d1", "debian"), busy("d2")])),
                &format!("{at} \"d1\" may not be changed"),
            ),
            (windows(None), windows(Some(true)), ""),
            (
                windows(None),
                windows(Some(false)),
                "spec.ephemeralContainers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true | spec: If pod contains any hostProcess containers then all containers must be HostProcess containers",
            ),
            (
                mirror(json!([])),
                mirror(json!([image("debugger1", "debian")])),
                "[]: Forbidden: static pods do not support ephemeral containers",
            ),
        ],
    );
}
