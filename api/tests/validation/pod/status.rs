//! The status of pods.

use serde_json::{Value, json};

use super::super::changes;
use super::{base, changed, kind};

/// Cases of pods whose status changes: what is special about the pod, and the status before and after.
fn statuses(spec: &Value, cases: &[(Value, Value, &str)]) {
    let pod = |status: &Value| json!({"spec": spec, "status": status});
    let cases: Vec<(Value, Value, &str)> =
        cases.iter().map(|(old, new, wrong)| (pod(old), pod(new), *wrong)).collect();
    changes(&kind(), "status", &base(), &cases);
}

#[test]
fn plain_fields() {
    let condition = |changes: Value| {
        let mut condition = json!({"type": "PodScheduled", "status": "True"});
        api::patch::merge::apply(&mut condition, changes);
        json!({"conditions": [condition]})
    };
    let not_negative = "Invalid value: -1: must be a non-negative integer";
    statuses(
        &json!({}),
        &[
            (json!({}), json!({"observedGeneration": 1}), ""),
            (
                json!({}),
                json!({"observedGeneration": -1}),
                &format!("status.observedGeneration: {not_negative}"),
            ),
            (json!({}), condition(json!({"observedGeneration": 1})), ""),
            (
                json!({}),
                condition(json!({"observedGeneration": -1})),
                &format!("status.conditions[0].observedGeneration: {not_negative}"),
            ),
            (json!({}), condition(json!({"type": "Ready"})), ""),
            (json!({}), condition(json!({"type": "example.com/condition", "status": "False"})), ""),
            (json!({}), condition(json!({"type": "foobar"})), ""),
            (json!({}), condition(json!({"type": "AllContainersRestarting"})), ""),
            (
                json!({}),
                condition(json!({"type": "invalid/custom/condition"})),
                "status.conditions[0].Type: a valid label key must consist of",
            ),
            (
                json!({"qosClass": "Guaranteed"}),
                json!({"qosClass": "Burstable"}),
                "status.qosClass: Invalid value: \"Burstable\": field is immutable",
            ),
            (json!({"qosClass": "Burstable"}), json!({"qosClass": "Burstable"}), ""),
        ],
    );
    let nominated = |name: &str| json!({"nominatedNodeName": name});
    let bound =
        "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node";
    statuses(
        &json!({}),
        &[
            (json!({}), nominated("node1"), ""),
            (nominated("node2"), nominated("node1"), ""),
            (nominated("node1"), json!({}), ""),
            (
                json!({}),
                nominated("Node1"),
                "status.nominatedNodeName: a lowercase RFC 1123 subdomain must consist of",
            ),
        ],
    );
    statuses(
        &json!({"nodeName": "node1"}),
        &[
            (nominated("node2"), json!({}), ""),
            (json!({}), nominated("node2"), bound),
            (json!({}), nominated("node1"), bound),
            (nominated("node2"), nominated("node3"), bound),
            (nominated("node2"), nominated("node1"), bound),
            (nominated("node2"), nominated("node2"), ""),
        ],
    );
}

#[test]
fn addresses() {
    let family = "may specify no more than one IP for each IP family";
    let cases: [(&[&str], &str); 13] = [
        (&[], ""),
        (&["::1"], ""),
        (&["1.1.1.1"], ""),
        (&["1.1.1.1", "::1"], ""),
        (&["::1", "1.1.1.1"], ""),
        (&["1.1.1.01"], "[0]: must not have leading 0s"),
        (&["001.002.003.004"], "[0]: must not have leading 0s"),
        (&["this-is-not-an-ip"], "[0]: must be a valid IP address"),
        (&["::1", "::2"], family),
        (&["1.1.1.1", "2.2.2.2"], family),
        (&["1.1.1.1", "::1", "::2"], family),
        (&["1.1.1.1", "1.1.1.1", "::1"], family),
        (&["1.1.1.1", "::1", "::1"], family),
    ];
    let many = |key: &str, ips: &[&str]| {
        let all: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let mut status = json!({key: all});
        if key == "hostIPs" && !ips.is_empty() {
            status["hostIP"] = ips[0].into();
        }
        status
    };
    for key in ["podIPs", "hostIPs"] {
        for (old, _) in &cases {
            for (new, wrong) in &cases {
                // Addresses that were accepted once stay.
                let expected = match wrong.split_once(": ") {
                    Some(_) if old == new => String::new(),
                    Some((place, why)) => format!("status.{key}{place}: {why}"),
                    None if wrong.is_empty() => String::new(),
                    None => format!("status.{key}: {wrong}"),
                };
                statuses(&json!({}), &[(many(key, old), many(key, new), &expected)]);
            }
        }
    }
    statuses(
        &json!({}),
        &[(
            json!({}),
            json!({"hostIP": "1.1.1.1", "hostIPs": [{"ip": "1.1.1.2"}]}),
            "status.hostIPs[0].ip: Invalid value: \"1.1.1.2\": must be equal to `hostIP`",
        )],
    );
}

fn of(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "alpine", "imageID": "docker-pullable://nginx@sha256:d0gf00d", "ready": true, "restartCount": 0,
        "containerID": "docker://numbers", "state": state})
}

fn waiting() -> Value {
    json!({"waiting": {"reason": "PodInitializing"}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
}

fn ended(code: i32) -> Value {
    json!({"terminated": {"exitCode": code, "reason": "Completed", "containerID": "docker://numbers"}})
}

#[test]
fn courses_of_containers() {
    let all = |init: Value, app: Value, ephemeral: Value| {
        let list =
            |name: &str, state: Value| if state.is_null() { json!([]) } else { json!([of(name, state)]) };
        json!({
            "initContainerStatuses": list("init", init), "containerStatuses": list("main", app),
            "ephemeralContainerStatuses": list("debug", ephemeral),
        })
    };
    let none = || Value::Null;
    statuses(
        &json!({}),
        &[
            (json!({}), all(waiting(), waiting(), none()), ""),
            (all(waiting(), waiting(), none()), all(ended(0), running(), none()), ""),
            (all(none(), running(), none()), all(none(), running(), waiting()), ""),
            (all(none(), running(), waiting()), all(none(), running(), running()), ""),
            (all(none(), running(), running()), all(none(), running(), ended(0)), ""),
            (all(ended(0), running(), running()), all(ended(0), ended(0), ended(0)), ""),
            (
                all(none(), running(), ended(0)),
                all(none(), running(), running()),
                "status.ephemeralContainerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ),
        ],
    );
    let rule = |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
    let own = |policy: Value, rules: Value| json!({"restartPolicy": policy, "restartPolicyRules": rules});
    let plain = || json!({});
    let never = || own(json!("Never"), Value::Null);
    let in_42 = || own(json!("Never"), rule("Restart"));
    let (back, stays) = (true, false);
    let cases = [
        ("Always", plain(), 0, back),
        ("OnFailure", plain(), 1, back),
        ("OnFailure", plain(), 0, stays),
        ("Never", plain(), 0, stays),
        ("Never", own(json!("Always"), Value::Null), 0, back),
        ("OnFailure", own(json!("Always"), Value::Null), 0, back),
        ("Always", never(), 0, stays),
        ("Never", in_42(), 42, back),
        ("Never", in_42(), 1, stays),
        ("Never", own(json!("Never"), rule("RestartAllContainers")), 1, back),
    ];
    for (key, status) in [("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")] {
        let wrong =
            format!("status.{status}[0].state: Forbidden: may not be transitioned to non-terminated state");
        for (policy, container, code, may) in &cases {
            let spec = json!({"restartPolicy": policy, key: [changed("c1", container)]});
            let (old, new) =
                (json!({status: [of("c1", ended(*code))]}), json!({status: [of("c1", running())]}));
            statuses(&spec, &[(old, new, if *may { "" } else { &wrong })]);
        }
        let spec = json!({"restartPolicy": "Never", key: [changed("c1", &never())]});
        let same = json!({status: [of("c1", running())]});
        statuses(&spec, &[(same.clone(), same, "")]);
        let others = own(json!("Never"), rule("RestartAllContainers"));
        let spec = json!({"restartPolicy": "Never", key: [changed("c1", &never()), changed("c2", &others)]});
        let (old, new) = (json!({status: [of("c1", ended(1))]}), json!({status: [of("c1", running())]}));
        statuses(&spec, &[(old, new, "")]);
    }
}

#[test]
fn users() {
    let between = "Invalid value: -1: must be between 0 and 2147483647, inclusive";
    for key in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        let user = |user: Value| {
            let mut status = of("ctr", Value::Null);
            status["user"] = user;
            json!({key: [status]})
        };
        let linux = |uid: i64, groups: &[i64]| {
            user(json!({"linux": {"uid": uid, "gid": uid, "supplementalGroups": groups}}))
        };
        let at = format!("status.{key}[0].user.linux");
        statuses(
            &json!({}),
            &[
                (json!({}), user(Value::Null), ""),
                (json!({}), user(json!({})), ""),
                (json!({}), linux(0, &[0, 100]), ""),
                (
                    json!({}),
                    linux(-1, &[-1]),
                    &format!(
                        "{at}.uid: {between} | {at}.gid: {between} | {at}.supplementalGroups[0]: {between}"
                    ),
                ),
            ],
        );
        let windows = json!({"os": {"name": "windows"}});
        statuses(
            &windows,
            &[(json!({}), linux(0, &[]), &format!("{at}: Forbidden: cannot be set for a windows pod"))],
        );
    }
}

#[test]
fn claims() {
    let own = |claims: Value| json!({"resourceClaimStatuses": claims});
    let spec = json!({"resourceClaims": [
        {"name": "my-claim", "resourceClaimTemplateName": "t"}, {"name": "my-other-claim", "resourceClaimTemplateName": "t"}]});
    let at = "status.resourceClaimStatuses";
    statuses(
        &spec,
        &[
            (
                json!({}),
                own(
                    json!([{"name": "my-claim", "resourceClaimName": "foo-my-claim-12345"}, {"name": "my-other-claim"}]),
                ),
                "",
            ),
            (
                json!({}),
                own(json!([{"name": "no-such-claim", "resourceClaimName": "my-claim"}])),
                &format!(
                    "{at}[0].name: Invalid value: \"no-such-claim\": must match the name of an entry in `spec.resourceClaims`"
                ),
            ),
            (
                json!({}),
                own(json!([{"name": "my-claim", "resourceClaimName": "%$!#"}])),
                &format!(
                    "{at}[0].resourceClaimName: Invalid value: \"%$!#\": a lowercase RFC 1123 subdomain must consist of"
                ),
            ),
            (
                json!({}),
                own(
                    json!([{"name": "my-claim", "resourceClaimName": "foo-my-claim-12345"}, {"name": "my-other-claim"}, {"name": "my-other-claim"}]),
                ),
                &format!("{at}[2].name: Duplicate value: \"my-other-claim\""),
            ),
        ],
    );
}

#[test]
fn claims_for_extended_resources() {
    let gpu = changed(
        "ctr",
        &json!({"resources": {"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}}),
    );
    let mut init = gpu.clone();
    init["name"] = "initctr".into();
    let spec = json!({"containers": [gpu], "initContainers": [init]});
    let mapping = |container: &str, resource: &str, request: &str| json!({"containerName": container, "resourceName": resource, "requestName": request});
    let claim = |name: &str, mappings: Value| json!({"extendedResourceClaimStatus": {"resourceClaimName": name, "requestMappings": mappings}});
    let good = || mapping("ctr", "example.com/gpu", "container-0-request-0");
    let one = |mapping: Value| claim("xyz", json!([mapping]));
    let at = "status.extendedResourceClaimStatus";
    let first = format!("{at}.requestMappings[0]");
    let second = format!("{at}.requestMappings[1]");
    statuses(
        &spec,
        &[
            (json!({}), one(good()), ""),
            (json!({}), one(mapping("initctr", "example.com/gpu", "container-0-request-0")), ""),
            (
                json!({}),
                claim("xyz", json!([good(), mapping("ctr", "example.com/gpu", "container-1-request-0")])),
                "",
            ),
            (
                json!({}),
                claim("xyz", json!([])),
                &format!("{at}.requestMappings: Required value: at least one request mapping is required"),
            ),
            (
                json!({}),
                claim("xyz", json!([good(), good()])),
                &format!(
                    "{second}.containerName: Duplicate value: \"ctr\" | {second}.resourceName: Duplicate value: \"example.com/gpu\" | {second}.requestName: Duplicate value: \"container-0-request-0\""
                ),
            ),
            (
                json!({}),
                one(mapping("abc", "example.com/gpu", "container-0-request-0")),
                &format!(
                    "{first}.containerName: Invalid value: \"abc\": must match the name of an entry in spec.initContainers.name or spec.containers.name"
                ),
            ),
            (
                json!({}),
                one(mapping("ctr", "example.com/cpu", "container-0-request-0")),
                &format!(
                    "{first}.resourceName: Invalid value: \"example.com/cpu\": must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"
                ),
            ),
            (
                json!({}),
                one(mapping("ctr", "example.com/gpu", "example.com")),
                &format!("{at}.requestName: Invalid value: \"example.com\": must not contain dots"),
            ),
            (
                json!({}),
                claim("xyz/abc", json!([good()])),
                &format!(
                    "{at}.resourceClaimName: Invalid value: \"xyz/abc\": a lowercase RFC 1123 subdomain must consist of"
                ),
            ),
        ],
    );
}

#[test]
fn devices_of_containers() {
    let resource = |name: &str, resources: Value| json!({"name": name, "resources": resources});
    let health = |health: &str| json!({"resourceID": "resource-1", "health": health});
    let message =
        |message: &str| json!([{"resourceID": "resource-1", "health": "Healthy", "message": message}]);
    let healthy = || json!([health("Healthy")]);
    let of_container = |name: &str, resources: Value| {
        let mut status = of(name, Value::Null);
        status["allocatedResourcesStatus"] = resources;
        json!({"containerStatuses": [status]})
    };
    let own = |resources: Value| of_container("container-1", resources);
    let container =
        |resources: Value| json!({"containers": [changed("container-1", &json!({"resources": resources}))]});
    let device = "test.device/test";
    let at = "status.containerStatuses[0].allocatedResourcesStatus";
    let (most, more) = ("a".repeat(1024), "a".repeat(1025));
    statuses(
        &container(json!({"requests": {device: "1"}, "limits": {device: "1"}})),
        &[
            (json!({}), own(json!([resource(device, healthy())])), ""),
            (json!({}), of_container("container-2", json!([resource(device, healthy())])), ""),
            (json!({}), own(Value::Null), ""),
            (
                json!({}),
                own(json!([resource(device, json!([health("Healthy"), health("Unhealthy")]))])),
                &format!("{at}[0].resources[1].resourceID: Duplicate value: \"resource-1\""),
            ),
            (
                json!({}),
                own(json!([resource(device, healthy()), resource("test.device/test2", json!([]))])),
                &format!(
                    "{at}[1].name: Invalid value: \"test.device/test2\": must match one of the container's resource requests"
                ),
            ),
            (
                json!({}),
                own(json!([resource(device, json!([health("invalid-health-value")]))])),
                &format!(
                    "{at}[0].resources[0].health: Unsupported value: \"invalid-health-value\": supported values: \"Healthy\", \"Unhealthy\", \"Unknown\""
                ),
            ),
            (json!({}), own(json!([resource(device, message(&most))])), ""),
            (
                json!({}),
                own(json!([resource(device, message(&more))])),
                &format!("{at}[0].resources[0].message: Too long: may not be more than 1024 bytes"),
            ),
            (
                json!({}),
                own(json!([resource(device, message(""))])),
                &format!("{at}[0].resources[0].message: Required value: must be non-empty if specified"),
            ),
            (
                json!({}),
                json!({"ephemeralContainerStatuses": own(json!([resource(device, healthy())]))["containerStatuses"]}),
                "status.ephemeralContainerStatuses[0].allocatedResourcesStatus: Forbidden: must not be specified in container status",
            ),
        ],
    );
    let claimed = |claim: Value| container(json!({"claims": [claim]}));
    let wrong = format!(
        "{at}[0].name: Invalid value: \"claim:claim.name\": must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
    );
    statuses(
        &claimed(json!({"name": "claim.name", "request": "request.name"})),
        &[(json!({}), own(json!([resource("claim:claim.name/request.name", healthy())])), "")],
    );
    statuses(
        &claimed(json!({"name": "claim.name"})),
        &[(json!({}), own(json!([resource("claim:claim.name", healthy())])), "")],
    );
    statuses(
        &claimed(json!({"name": "other-claim.name"})),
        &[(json!({}), own(json!([resource("claim:claim.name", healthy())])), &wrong)],
    );
}
