//! What tables show of pods, and that every table has a cell for each of its columns.

use serde_json::json;

use super::*;
use crate::names::GroupVersionKind;

fn pod_cells(spec: Value, status: Value) -> Vec<Value> {
    let object = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
    let now = "2026-01-01T00:01:00Z".parse().unwrap();
    cells(&GroupVersionKind::new("", "v1", "Pod"), &object, now)
}

#[test]
fn pods_are_summarized_as_upstream_does() {
    let containers = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let running =
        |ready: bool| json!({"name": "a", "ready": ready, "restartCount": 6, "state": {"running": {}}});
    let ended = |code: i32, reason: &str| json!({"name": "b", "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}});
    let cases = [
        (json!({"phase": "Pending"}), "0/2", "Pending", "0"),
        (
            json!({"phase": "Running", "containerStatuses": [running(true), running(true)]}),
            "2/2",
            "Running",
            "12",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running(true), {"name": "b", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            "1/2",
            "ImagePullBackOff",
            "6",
        ),
        (
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [running(true), ended(0, "Completed")]}),
            "1/2",
            "Running",
            "6",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running(true), ended(0, "Completed")]}),
            "1/2",
            "NotReady",
            "6",
        ),
        (json!({"phase": "Failed", "containerStatuses": [ended(1, "Error")]}), "0/2", "Error", "0"),
        (json!({"phase": "Failed", "containerStatuses": [ended(137, "")]}), "0/2", "ExitCode:137", "0"),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
            "0",
        ),
    ];
    for (status, ready, reason, restarts) in cases {
        let got = pod_cells(containers.clone(), status.clone());
        assert_eq!(
            got[..5],
            [json!("p"), json!(ready), json!(reason), json!(restarts), json!("60s")],
            "{status}"
        );
    }
}

#[test]
fn init_containers_are_counted_until_they_end() {
    let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
    let status = |init: Value| json!({"phase": "Pending", "initContainerStatuses": init});
    let cases = [
        (json!([{"name": "i", "restartCount": 1, "state": {"running": {}}}]), "0/2", "Init:0/2", "1"),
        (
            json!([{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            "0/2",
            "Init:CrashLoopBackOff",
            "2",
        ),
        (json!([{"name": "i", "state": {"terminated": {"exitCode": 1}}}]), "0/2", "Init:ExitCode:1", "0"),
        (
            json!([{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "started": true, "ready": true, "state": {"running": {}}}]),
            "1/2",
            "Pending",
            "0",
        ),
    ];
    for (init, ready, reason, restarts) in cases {
        let got = pod_cells(spec.clone(), status(init.clone()));
        assert_eq!(got[1..4], [json!(ready), json!(reason), json!(restarts)], "{init}");
    }
}

#[test]
fn every_table_has_a_cell_for_each_column() {
    let now = "2026-01-01T00:01:00Z".parse().unwrap();
    for (group, version, kind) in crate::kinds::all() {
        let gvk = GroupVersionKind::new(group, version, kind);
        let got = cells(&gvk, &json!({"metadata": {"name": "x"}}), now).len();
        let spare = usize::from(kind == "IPAddress");
        assert_eq!(got, columns(&gvk).len() + spare, "{gvk}");
    }
}
