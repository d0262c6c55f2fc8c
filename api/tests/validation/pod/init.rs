//! Init containers, sidecars, and when containers start again.

use serde_json::{Value, json};

use super::super::below;
use super::{bad_pre_stops, base, changed, containers, kind, specs};

/// Cases of changes of the only init container.
fn init(cases: &[(Value, &str)]) {
    let place = |own: &Value| json!({"spec": {"initContainers": [changed("init", own)]}});
    below(&kind(), &base(), "spec.initContainers[0]", place, cases);
}

/// The same of a sidecar.
fn sidecar(cases: &[(Value, &str)]) {
    let place = |own: &Value| {
        let mut container = changed("init", own);
        container["restartPolicy"] = "Always".into();
        json!({"spec": {"initContainers": [container]}})
    };
    below(&kind(), &base(), "spec.initContainers[0]", place, cases);
}

fn tcp() -> Value {
    json!({"tcpSocket": {"port": 80}, "successThreshold": 1})
}

#[test]
fn init_containers() {
    let not = ": Forbidden: may not be set for init containers without restartPolicy=Always";
    let port = |protocol: &str| json!({"containerPort": 8080, "hostPort": 8080, "protocol": protocol});
    let restarted = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    init(&[
        (json!({}), ""),
        (json!({"ports": [port("TCP"), port("UDP")]}), ""),
        (json!({"name": ""}), ".name: Required value"),
        (json!({"name": "ctr"}), ".name: Duplicate value: \"ctr\""),
        (
            json!({"terminationMessagePolicy": "Unknown"}),
            ".terminationMessagePolicy: Unsupported value: \"Unknown\"",
        ),
        (json!({"ports": [port("TCP"), port("TCP")]}), ".ports[1].hostPort: Duplicate value: \"TCP//8080\""),
        (json!({"lifecycle": {"preStop": {"exec": {"command": ["ls", "-l"]}}}}), &format!(".lifecycle{not}")),
        (json!({"livenessProbe": tcp()}), &format!(".livenessProbe{not}")),
        (json!({"readinessProbe": tcp()}), &format!(".readinessProbe{not}")),
        (json!({"startupProbe": tcp()}), &format!(".startupProbe{not}")),
        (
            json!({"startupProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": -1, "successThreshold": -1}}),
            &format!(".startupProbe{not}"),
        ),
        (json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}), ""),
        (
            json!({"resizePolicy": restarted}),
            ".resizePolicy[0].restartPolicy: must not be set to 'RestartContainer' for non-sidecar initContainers",
        ),
    ]);
    let port = json!({"ports": [port("TCP")]});
    specs(&[
        (
            json!({"initContainers": [changed("init", &json!({})), changed("init", &json!({}))]}),
            ".initContainers[1].name: Duplicate value: \"init\"",
        ),
        // Init containers run one after the other, so that each may have the port.
        (json!({"initContainers": [changed("one", &port), changed("two", &port)]}), ""),
    ]);
}

#[test]
fn sidecars() {
    let twice = json!({"tcpSocket": {"port": 80}, "successThreshold": 2});
    sidecar(&[
        (
            json!({
                "lifecycle": {"postStart": {"exec": {"command": ["echo"]}}, "preStop": {"exec": {"command": ["echo"]}}},
                "livenessProbe": tcp(), "readinessProbe": {"tcpSocket": {"port": 80}}, "startupProbe": tcp(),
            }),
            "",
        ),
        (json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}), ""),
        (json!({"startupProbe": twice}), ".startupProbe.successThreshold: Invalid value: 2: must be 1"),
        (json!({"livenessProbe": twice}), ".livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        (
            json!({"readinessProbe": {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 10}}),
            ".readinessProbe.terminationGracePeriodSeconds: Invalid value: 10: must not be set for readinessProbes",
        ),
    ]);
    sidecar(&bad_pre_stops());
}

#[test]
fn rules_of_restarting() {
    let rule = |action: &str, operator: &str| json!({"action": action, "exitCodes": {"operator": operator, "values": [42]}});
    let rules = |rules: Value| json!({"restartPolicy": "Never", "restartPolicyRules": rules});
    let one = |action: &str, operator: &str| rules(json!([rule(action, operator)]));
    let policies = "supported values: \"Always\", \"Never\", \"OnFailure\"";
    let at = ".restartPolicyRules[0]";
    let cases = [
        (json!({}), String::new()),
        (json!({"restartPolicy": "Always"}), String::new()),
        (json!({"restartPolicy": "Never"}), String::new()),
        (json!({"restartPolicy": "OnFailure"}), String::new()),
        (one("Restart", "In"), String::new()),
        (one("RestartAllContainers", "In"), String::new()),
        (
            json!({"restartPolicy": "invalid"}),
            format!(".restartPolicy: Unsupported value: \"invalid\": {policies}"),
        ),
        (json!({"restartPolicy": ""}), format!(".restartPolicy: Unsupported value: \"\": {policies}")),
        (json!({"restartPolicyRules": [rule("Restart", "In")]}), ".restartPolicy: Required value".to_owned()),
        (one("invalid", "In"), format!("{at}.action: Unsupported value: \"invalid\"")),
        (one("", "In"), format!("{at}.action: Unsupported value: \"\"")),
        (rules(json!([{"action": "Restart"}])), format!("{at}.exitCodes: Required value")),
        (one("Restart", "invalid"), format!("{at}.exitCodes.operator: Unsupported value: \"invalid\"")),
        (one("Restart", ""), format!("{at}.exitCodes.operator: Unsupported value: \"\"")),
        (
            rules(json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": vec![0; 256]}}])),
            format!("{at}.exitCodes.values: Too many: 256: must have at most 255 items"),
        ),
        (
            rules(vec![rule("Restart", "In"); 21].into()),
            ".restartPolicyRules: Too many: 21: must have at most 20 items".to_owned(),
        ),
    ];
    let cases: Vec<(Value, &str)> = cases.iter().map(|(own, wrong)| (own.clone(), wrong.as_str())).collect();
    containers(&cases);
    init(&cases);
    sidecar(&[(json!({"restartPolicyRules": [rule("RestartAllContainers", "In")]}), "")]);
}

#[test]
fn sleeping_and_signals() {
    let sleep = |seconds: i64, grace: i64| {
        let stop = changed("ctr", &json!({"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}));
        json!({"terminationGracePeriodSeconds": grace, "containers": [stop]})
    };
    let wrong = |grace: i64| {
        format!(
            ".containers[0].lifecycle.preStop.sleep: must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        )
    };
    let signal = |os: &str, signal: &str| {
        let container = changed("ctr", &json!({"lifecycle": {"stopSignal": signal}}));
        let os = if os.is_empty() { Value::Null } else { json!({"name": os}) };
        json!({"os": os, "containers": [container]})
    };
    let at = ".containers[0].lifecycle.stopSignal";
    specs(&[
        (sleep(5, 30), ""),
        (sleep(0, 30), ""),
        (sleep(0, 0), ""),
        (sleep(-1, 30), &wrong(30)),
        (sleep(5, 3), &wrong(3)),
        (sleep(5, 0), &wrong(0)),
        (
            signal("", "SIGTERM"),
            &format!("{at}: Forbidden: may not be set for containers with empty `spec.os.name`"),
        ),
        (
            signal("windows", "SIGHUP"),
            &format!("{at}: Unsupported value: \"SIGHUP\": supported values: \"SIGKILL\", \"SIGTERM\""),
        ),
        (signal("windows", "SIGKILL"), ""),
        (signal("windows", "SIGTERM"), ""),
        (signal("linux", "SIGHUP"), ""),
        (signal("linux", "SIGTERM"), ""),
        (signal("linux", "SIGODD"), &format!("{at}: Unsupported value: \"SIGODD\"")),
    ]);
}
