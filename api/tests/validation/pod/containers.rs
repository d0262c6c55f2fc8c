//! Containers of pods: names, ports, probes, hooks, resources.

use serde_json::{Value, json};

use super::super::below;
use super::{bad_pre_stops, base, changed, containers, kind, specs};

#[test]
fn names_and_images() {
    containers(&[
        (json!({"name": "123"}), ""),
        (json!({"name": "abc-123"}), ""),
        (json!({"name": ""}), ".name: Required value"),
        (json!({"name": "a".repeat(64)}), ".name: must be no more than 63"),
        (json!({"name": "a.b.c"}), ".name: must not contain dots"),
        (json!({"image": ""}), ".image: Required value"),
        (json!({"image": " some "}), ".image: must not have leading or trailing whitespace"),
        (json!({"imagePullPolicy": "Always"}), ""),
        (json!({"imagePullPolicy": "Never"}), ""),
        (json!({"imagePullPolicy": ""}), ".imagePullPolicy: Required value"),
        (json!({"imagePullPolicy": "Sometimes"}), ".imagePullPolicy: Unsupported value: \"Sometimes\""),
        (json!({"terminationMessagePolicy": "FallbackToLogsOnError"}), ""),
        (
            json!({"terminationMessagePolicy": "Unknown"}),
            ".terminationMessagePolicy: Unsupported value: \"Unknown\"",
        ),
        (json!({"terminationMessagePolicy": ""}), ".terminationMessagePolicy: Required value"),
        (
            json!({"volumeMounts": [{"name": "anything", "mountPath": "/foo"}]}),
            ".volumeMounts[0].name: Not found: \"anything\"",
        ),
    ]);
    let two = |first: Value, second: Value| json!({"containers": [changed("abc", &first), changed("def", &second)]});
    let port = |port: i32, protocol: &str| json!({"ports": [{"containerPort": port, "hostPort": 80, "protocol": protocol}]});
    specs(&[
        (two(json!({}), json!({"name": "abc"})), ".containers[1].name: Duplicate value: \"abc\""),
        (
            two(port(80, "TCP"), port(81, "TCP")),
            ".containers[1].ports[0].hostPort: Duplicate value: \"TCP//80\"",
        ),
        (two(port(80, "TCP"), port(81, "UDP")), ""),
        (json!({"containers": null}), ".containers: Required value"),
        (json!({"containers": []}), ".containers: Required value"),
    ]);
    // Templates may have blanks around images: they were not always refused.
    let template = api::names::GroupVersionKind::new("", "v1", "PodTemplate");
    let template_base = json!({"metadata": {"name": "abc", "namespace": "ns"}, "template": {"spec": super::pod_spec("Always")}});
    let place = |own: &Value| json!({"template": {"spec": {"containers": [changed("ctr", own)]}}});
    let cases = [(json!({"image": " "}), ""), (json!({"image": " some "}), "")];
    below(&template, &template_base, "", place, &cases);
}

#[test]
fn ports() {
    let place = |ports: &Value| json!({"spec": {"containers": [changed("ctr", &json!({"ports": ports}))]}});
    let known = "supported values: \"SCTP\", \"TCP\", \"UDP\"";
    let between = "must be between 1 and 65535, inclusive";
    below(
        &kind(),
        &base(),
        "spec.containers[0].ports",
        place,
        &[
            (
                json!([
                    {"name": "abc", "containerPort": 80, "hostPort": 80, "protocol": "TCP"},
                    {"name": "easy", "containerPort": 82, "protocol": "TCP"},
                    {"name": "as", "containerPort": 83, "protocol": "UDP"},
                    {"name": "do-re-me", "containerPort": 84, "protocol": "SCTP"},
                    {"containerPort": 85, "protocol": "TCP"},
                ]),
                "",
            ),
            (
                json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}, {"containerPort": 80, "hostPort": 80, "protocol": "UDP"}]),
                "",
            ),
            (
                json!([{"name": "a".repeat(16), "containerPort": 80, "protocol": "TCP"}]),
                "[0].name: must be no more than 15 characters",
            ),
            (
                json!([{"name": "a.b.c", "containerPort": 80, "protocol": "TCP"}]),
                "[0].name: must contain only alpha-numeric characters",
            ),
            (
                json!([{"name": "80", "containerPort": 80, "protocol": "TCP"}]),
                "[0].name: must contain at least one letter",
            ),
            (
                json!([{"name": "abc", "containerPort": 80, "protocol": "TCP"}, {"name": "abc", "containerPort": 81, "protocol": "TCP"}]),
                "[1].name: Duplicate value: \"abc\"",
            ),
            (json!([{"containerPort": 0, "protocol": "TCP"}]), "[0].containerPort: Required value"),
            (json!([{"containerPort": 65536, "protocol": "TCP"}]), &format!("[0].containerPort: {between}")),
            (
                json!([{"containerPort": 80, "hostPort": 65536, "protocol": "TCP"}]),
                &format!("[0].hostPort: {between}"),
            ),
            (
                json!([{"containerPort": 80, "protocol": "tcp"}]),
                &format!("[0].protocol: Unsupported value: \"tcp\": {known}"),
            ),
            (
                json!([{"containerPort": 80, "protocol": "ICMP"}]),
                &format!("[0].protocol: Unsupported value: \"ICMP\": {known}"),
            ),
            (json!([{"name": "abc", "containerPort": 80}]), "[0].protocol: Required value"),
        ],
    );
}

#[test]
fn probes() {
    let exec = |changes: Value| {
        let mut probe = json!({"exec": {"command": ["echo"]}, "successThreshold": 1});
        api::patch::merge::apply(&mut probe, changes);
        json!({"livenessProbe": probe})
    };
    let http = |get: Value| {
        let mut action = json!({"path": "/", "port": "port", "scheme": "HTTP"});
        api::patch::merge::apply(&mut action, get);
        json!({"readinessProbe": {"httpGet": action}})
    };
    let headers = |name: &str| http(json!({"httpHeaders": [{"name": name, "value": "foo.example.com"}]}));
    let tcp = |key: &str, changes: Value| {
        let mut probe = json!({"tcpSocket": {"port": 80}, "successThreshold": 1});
        api::patch::merge::apply(&mut probe, changes);
        json!({key: probe})
    };
    let at = "must be greater than or equal to 0";
    let name = ".readinessProbe.httpGet.httpHeaders: a valid HTTP header must consist of";
    containers(&[
        (exec(json!({})), ""),
        (
            exec(json!({"exec": null, "timeoutSeconds": 10})),
            ".livenessProbe: Required value: must specify a handler type",
        ),
        (
            exec(
                json!({"initialDelaySeconds": 10, "timeoutSeconds": 10, "periodSeconds": 10, "failureThreshold": 10}),
            ),
            "",
        ),
        (exec(json!({"initialDelaySeconds": -10})), &format!(".livenessProbe.initialDelaySeconds: {at}")),
        (exec(json!({"timeoutSeconds": -10})), &format!(".livenessProbe.timeoutSeconds: {at}")),
        (exec(json!({"periodSeconds": -10})), &format!(".livenessProbe.periodSeconds: {at}")),
        (exec(json!({"failureThreshold": -10})), &format!(".livenessProbe.failureThreshold: {at}")),
        (
            exec(json!({"terminationGracePeriodSeconds": -1})),
            ".livenessProbe.terminationGracePeriodSeconds: must be greater than 0",
        ),
        (
            exec(json!({"terminationGracePeriodSeconds": 0})),
            ".livenessProbe.terminationGracePeriodSeconds: must be greater than 0",
        ),
        (exec(json!({"terminationGracePeriodSeconds": 1})), ""),
        (exec(json!({"exec": {"command": []}})), ".livenessProbe.exec.command: Required value"),
        (
            exec(json!({"tcpSocket": {"port": 80}})),
            ".livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (http(json!({})), ""),
        (http(json!({"port": 1})), ""),
        (http(json!({"path": "/foo", "port": 65535, "host": "host"})), ""),
        (headers("Host"), ""),
        (
            http(
                json!({"httpHeaders": [{"name": "X-Forwarded-For", "value": "1.2.3.4"}, {"name": "X-Forwarded-For", "value": "5.6.7.8"}]}),
            ),
            "",
        ),
        (headers("Host:"), name),
        (headers("X_Forwarded_For"), name),
        (http(json!({"path": ""})), ".readinessProbe.httpGet.path: Required value"),
        (http(json!({"port": 0})), ".readinessProbe.httpGet.port: must be between 1 and 65535, inclusive"),
        (
            http(json!({"port": 65536})),
            ".readinessProbe.httpGet.port: must be between 1 and 65535, inclusive",
        ),
        (
            http(json!({"scheme": ""})),
            ".readinessProbe.httpGet.scheme: Unsupported value: \"\": supported values: \"HTTP\", \"HTTPS\"",
        ),
        (tcp("livenessProbe", json!({})), ""),
        (tcp("startupProbe", json!({})), ""),
        (
            tcp("livenessProbe", json!({"successThreshold": 2})),
            ".livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            tcp("startupProbe", json!({"successThreshold": 2})),
            ".startupProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (tcp("readinessProbe", json!({"successThreshold": 2})), ""),
        (
            tcp("livenessProbe", json!({"tcpSocket": {"port": 0}})),
            ".livenessProbe.tcpSocket.port: must be between 1 and 65535",
        ),
        (
            tcp("livenessProbe", json!({"tcpSocket": null})),
            ".livenessProbe: Required value: must specify a handler type",
        ),
        (
            tcp("readinessProbe", json!({"terminationGracePeriodSeconds": 10})),
            ".readinessProbe.terminationGracePeriodSeconds: must not be set for readinessProbes",
        ),
    ]);
    let negative = json!({
        "initialDelaySeconds": -1, "timeoutSeconds": -1, "periodSeconds": -1, "successThreshold": -1,
        "failureThreshold": -1, "terminationGracePeriodSeconds": -1,
    });
    let numbers = |key: &str| {
        let fields = [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ];
        let mut all: Vec<String> = fields.iter().map(|field| format!(".{key}.{field}: {at}")).collect();
        all.push(format!(".{key}.terminationGracePeriodSeconds: must be greater than 0"));
        all.join(" | ")
    };
    let once = |key: &str| format!("{} | .{key}.successThreshold: must be 1", numbers(key));
    containers(&[
        (tcp("livenessProbe", negative.clone()), &once("livenessProbe")),
        (tcp("startupProbe", negative.clone()), &once("startupProbe")),
        (
            tcp("readinessProbe", negative),
            &format!(
                "{} | .readinessProbe.terminationGracePeriodSeconds: must not be set for readinessProbes",
                numbers("readinessProbe")
            ),
        ),
    ]);
}

#[test]
fn hooks() {
    let stop = |handler: Value| json!({"lifecycle": {"preStop": handler}});
    containers(&bad_pre_stops());
    let port = "must be between 1 and 65535, inclusive";
    containers(&[
        (stop(json!({"exec": {"command": ["ls", "-l"]}})), ""),
        (
            json!({"lifecycle": {"postStart": {"tcpSocket": {"port": 0}}, "preStop": {}}}),
            &format!(
                ".lifecycle.postStart.tcpSocket.port: {port} | .lifecycle.preStop: Required value: must specify a handler type"
            ),
        ),
    ]);
}

#[test]
fn resources() {
    let limits = |limits: Value| json!({"resources": {"limits": limits}});
    let both =
        |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
    let full = || json!({"cpu": "10", "memory": "10G", "my.org/resource": "10"});
    let standard = "must be a standard resource for containers";
    let huge = |mut own: Value| {
        own["cpu"] = "10".into();
        own["memory"] = "10G".into();
        own
    };
    containers(&[
        (limits(full()), ""),
        (both(json!({"cpu": "10", "memory": "10G"}), json!({"cpu": "10", "memory": "10G"})), ""),
        (both(json!({"cpu": "8"}), json!({"cpu": "10"})), ""),
        (both(full(), full()), ""),
        (both(json!({"cpu": "9.5", "memory": "10G", "my.org/resource": "10"}), full()), ""),
        (json!({"resources": {"requests": {"cpu": "9.5", "memory": "10G"}}}), ""),
        (limits(json!({"ephemeral-storage": "40"})), ""),
        (
            limits(json!({"disk": "10G"})),
            &format!(
                ".resources.limits[disk]: must be a standard resource type or fully qualified | .resources.limits[disk]: {standard}"
            ),
        ),
        (
            limits(json!({"attachable-volumes-aws-ebs": "10"})),
            &format!(
                ".resources.limits[attachable-volumes-aws-ebs]: must be a standard resource type or fully qualified | .resources.limits[attachable-volumes-aws-ebs]: {standard}"
            ),
        ),
        (
            limits(json!({"cpu": "-10", "memory": "0"})),
            ".resources.limits[cpu]: Invalid value: \"-10\": must be greater than or equal to 0",
        ),
        (limits(json!({"cpu": "0", "memory": "-10"})), ".resources.limits[memory]: Invalid value: \"-10\""),
        (
            json!({"resources": {"requests": {"cpu": "-10", "memory": "0"}}}),
            ".resources.requests[cpu]: Invalid value: \"-10\"",
        ),
        (
            both(json!({"cpu": "6", "memory": "3"}), json!({"cpu": "5", "memory": "3"})),
            ".resources.requests: Invalid value: \"6\": must be less than or equal to cpu limit of 5",
        ),
        (
            both(json!({"cpu": "5", "memory": "4"}), json!({"cpu": "5", "memory": "3"})),
            ".resources.requests: Invalid value: \"4\": must be less than or equal to memory limit of 3",
        ),
        (both(huge(json!({"hugepages-2Mi": "1Gi"})), huge(json!({"hugepages-2Mi": "1Gi"}))), ""),
        (
            both(
                huge(json!({"hugepages-2Mi": "1Gi", "hugepages-1Gi": "2Gi"})),
                huge(json!({"hugepages-2Mi": "1Gi", "hugepages-1Gi": "2Gi"})),
            ),
            "",
        ),
        (
            both(json!({"hugepages-2Mi": "1Gi"}), json!({"hugepages-2Mi": "1Gi"})),
            ".resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            both(huge(json!({"hugepages-2Mi": "1Gi"})), huge(json!({"hugepages-2Mi": "2Gi"}))),
            ".resources.requests: Invalid value: \"1Gi\": must be equal to hugepages-2Mi limit of 2Gi",
        ),
    ]);
}

#[test]
fn resize_policies() {
    let policy = |resource: &str, restart: &str| json!({"resourceName": resource, "restartPolicy": restart});
    let policies = |own: Value| json!({"resizePolicy": own});
    let (cpu, memory) = (policy("cpu", "NotRequired"), policy("memory", "RestartContainer"));
    let known = ".resizePolicy: Unsupported value: \"Restarrrt\": supported values: \"NotRequired\", \"RestartContainer\"";
    let cases = [
        (policies(json!([cpu, memory])), ""),
        (policies(json!([policy("cpu", "RestartContainer")])), ""),
        (policies(json!([policy("memory", "NotRequired")])), ""),
        (policies(json!([])), ""),
        (policies(json!([cpu, policy("memory", "Restarrrt")])), known),
        (policies(json!([policy("cpu", "Restarrrt"), memory])), known),
        (
            policies(json!([policy("cpuuu", "NotRequired")])),
            ".resizePolicy: Unsupported value: \"cpuuu\": supported values: \"cpu\", \"memory\"",
        ),
        (policies(json!([policy("memory", "")])), ".resizePolicy: Required value"),
        (
            policies(json!([cpu, memory, policy("cpu", "RestartContainer")])),
            ".resizePolicy[2]: Duplicate value: \"cpu\"",
        ),
    ];
    containers(&cases);
    let never = |own: &Value| json!({"spec": {"restartPolicy": "Never", "containers": [changed("ctr", &policies(own.clone()))]}});
    let wrong =
        ": Invalid value: \"RestartContainer\": must be 'NotRequired' when pod `restartPolicy` is 'Never'";
    below(
        &kind(),
        &base(),
        "spec.containers[0].resizePolicy",
        never,
        &[
            (json!([cpu, memory]), wrong),
            (json!([policy("cpu", "RestartContainer"), policy("memory", "NotRequired")]), wrong),
            (json!([policy("cpu", "RestartContainer"), memory]), &format!("{wrong} | {wrong}")),
            (json!([cpu, policy("memory", "NotRequired")]), ""),
        ],
    );
}
