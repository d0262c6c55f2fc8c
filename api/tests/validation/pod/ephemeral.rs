//! Ephemeral containers and their updates.

use serde_json::{Value, json};

use super::super::{container, creates};
use super::{base, changed, kind};

/// A pod with volumes, an init container and ephemeral containers, which are put to the update of these.
fn debugged(containers: &Value) -> Value {
    json!({"spec": {
        "volumes": [{"name": "blk", "persistentVolumeClaim": {"claimName": "pvc"}}, {"name": "vol", "emptyDir": {}}],
        "initContainers": [container("ictr")],
        "ephemeralContainers": containers,
    }})
}

#[test]
fn fields_of_ephemeral_containers() {
    let debug = |changes: Value| changed("debug", &changes);
    let one = |changes: Value| json!([debug(changes)]);
    let not = ": Forbidden: cannot be set for an Ephemeral Container";
    let all = json!({
        "command": ["bash"], "args": ["bash"], "workingDir": "/",
        "envFrom": [{"configMapRef": {"name": "dummy", "optional": true}}], "env": [{"name": "TEST", "value": "TRUE"}],
        "volumeMounts": [{"name": "vol", "mountPath": "/vol"}], "volumeDevices": [{"name": "blk", "devicePath": "/dev/block"}],
        "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}, "stdin": true, "stdinOnce": true, "tty": true,
    });
    let tcp = json!({"tcpSocket": {"port": 80}, "successThreshold": 1});
    let mounts = |sub: &str, path: &str| {
        one(
            json!({"volumeMounts": [{"name": "vol", "mountPath": "/vol"}, {"name": "vol", "mountPath": "/volsub", sub: path}]}),
        )
    };
    let cases = [
        (json!([]), String::new()),
        (one(json!({})), String::new()),
        (json!([container("debug1"), container("debug2")]), String::new()),
        (one(json!({"targetContainerName": "ctr"})), String::new()),
        (one(all), String::new()),
        (json!([container("ctr"), container("debug1")]), "[0].name: Duplicate value: \"ctr\"".into()),
        (json!([container("ictr"), container("debug1")]), "[0].name: Duplicate value: \"ictr\"".into()),
        (json!([container("debug1"), container("debug1")]), "[1].name: Duplicate value: \"debug1\"".into()),
        (
            json!([{"name": ""}]),
            "[0].name: Required value | [0].image: Required value | [0].terminationMessagePolicy: Required value | [0].imagePullPolicy: Required value".into(),
        ),
        (one(json!({"name": ""})), "[0].name: Required value".into()),
        (one(json!({"image": " image"})), "[0].image: must not have leading or trailing whitespace".into()),
        (one(json!({"imagePullPolicy": "PullThreeTimes"})), "[0].imagePullPolicy: Unsupported value: \"PullThreeTimes\"".into()),
        (one(json!({"targetContainerName": "bogus"})), "[0].targetContainerName: Not found: \"bogus\"".into()),
        (
            json!([container("debug"), changed("debugception", &json!({"targetContainerName": "debug"}))]),
            "[1].targetContainerName: Not found: \"debug\"".into(),
        ),
        (one(json!({"lifecycle": {"preStop": {"exec": {"command": ["ls", "-l"]}}}})), format!("[0].lifecycle{not}")),
        (one(json!({"lifecycle": {"preStop": {"exec": {"command": []}}}})), format!("[0].lifecycle{not}")),
        (one(json!({"livenessProbe": tcp})), format!("[0].livenessProbe{not}")),
        (one(json!({"readinessProbe": tcp})), format!("[0].readinessProbe{not}")),
        (one(json!({"startupProbe": tcp})), format!("[0].startupProbe{not}")),
        (one(json!({"ports": [{"protocol": "TCP", "containerPort": 80}]})), format!("[0].ports{not}")),
        (one(json!({"resources": {"limits": {"cpu": "10"}}})), format!("[0].resources{not}")),
        (mounts("subPath", "foo"), format!("[0].volumeMounts[1].subPath{not}")),
        (mounts("subPathExpr", "$(POD_NAME)"), format!("[0].volumeMounts[1].subPathExpr{not}")),
        (one(json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]})), format!("[0].resizePolicy{not}")),
        (one(json!({"restartPolicy": "Always"})), format!("[0].restartPolicy{not}")),
        (one(json!({"restartPolicy": "OnFailure"})), format!("[0].restartPolicy{not}")),
        (one(json!({"restartPolicy": "Never"})), format!("[0].restartPolicy{not}")),
        (one(json!({"restartPolicy": "invalid"})), format!("[0].restartPolicy{not}")),
        (one(json!({"restartPolicy": ""})), format!("[0].restartPolicy{not}")),
    ];
    let mut before = base();
    before["metadata"]["resourceVersion"] = "1".into();
    for policy in ["Always", "OnFailure", "Never"] {
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(|(containers, expected)| {
                let mut changes = debugged(containers);
                changes["spec"]["restartPolicy"] = policy.into();
                let old = super::super::with(
                    &super::super::with(&before, &changes),
                    &json!({"spec": {"ephemeralContainers": null}}),
                );
                let new = super::super::with(&before, &changes);
                let (old, new) = (super::super::decoded(&kind(), old), super::super::decoded(&kind(), new));
                let errors =
                    api::validation::validate_subresource_update(&kind(), "ephemeralcontainers", &new, &old);
                super::super::whole_verdict(&errors, "spec.ephemeralContainers", expected).err()
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    creates(
        &kind(),
        &base(),
        &[(debugged(&one(json!({}))), "spec.ephemeralContainers: Forbidden: cannot be set on create")],
    );
}
