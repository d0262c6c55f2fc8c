//! Admission webhooks, asked over TLS.

use base64::Engine as _;
use serde_json::{Value, json};

use super::hook::{Call, Hook, Reply, service};
use super::support::{
    Answer, Asker, Cluster, create_pod, eventually, is_counted, message, namespace, namespace_with, pod,
};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/shop/configmaps";

fn answer(call: &Call, response: Value) -> Reply {
    let mut response = response;
    response["uid"] = call.body["request"]["uid"].clone();
    json!({"apiVersion": call.body["apiVersion"], "kind": "AdmissionReview", "response": response}).into()
}

pub fn allow(call: &Call) -> Reply {
    answer(call, json!({"allowed": true}))
}

fn patch(call: &Call, operations: Value) -> Reply {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    answer(call, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

pub fn webhook(name: &str, client_config: Value, resources: &[&str]) -> Value {
    json!({"name": format!("{name}.example.com"), "clientConfig": client_config, "sideEffects": "None",
           "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
           "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
           "rules": [{"apiGroups": ["*"], "apiVersions": ["v1"], "operations": ["*"], "resources": resources}]})
}

/// Configures webhooks, and waits until they are asked: a request that they are about comes to them.
async fn configure(admin: &Asker, path: &str, name: &str, webhooks: &[Value]) {
    admin.create(path, &json!({"metadata": {"name": name}, "webhooks": webhooks})).await;
}

/// Asks until the webhook has been called.
async fn until_called(admin: &Asker, hook: &Hook, path: &str, object: &Value) -> Answer {
    let dry = format!("{path}?dryRun=All");
    let ask = || async {
        let answer = admin.post(&dry, object).await;
        (answer, hook.calls().len())
    };
    eventually("the webhook is asked", ask, |(_, calls)| *calls > 0).await.0
}

pub fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"stage": "start"}})
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    namespace(&admin, "hooks").await;
    service(&admin, "hook").await;
    cluster
}

#[tokio::test]
async fn validating_webhooks_refuse() {
    let hook = Hook::start(|call| {
        let name = &call.body["request"]["object"]["metadata"]["name"];
        match name.as_str() {
            Some("bad") => {
                let status =
                    json!({"message": "bad maps are not welcome", "reason": "Forbidden", "code": 403});
                answer(call, json!({"allowed": false, "status": status, "warnings": ["think again"]}))
            }
            _ => answer(call, json!({"allowed": true, "warnings": ["be careful"]})),
        }
    })
    .await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    let webhooks = [webhook("v", hook.by_service("/validate"), &["configmaps"])];
    configure(&admin, VALIDATING, "v", &webhooks).await;
    until_called(&admin, &hook, MAPS, &map("good")).await;
    let refused = admin.post(MAPS, &map("bad")).await;
    let why = "admission webhook \"v.example.com\" denied the request: bad maps are not welcome";
    assert_eq!((refused.0, message(&refused), &refused.1["reason"]), (403, why, &json!("Forbidden")));
    let labels = [("name", "v.example.com"), ("type", "validating"), ("operation", "CREATE")];
    let refusal = [labels[0], labels[1], labels[2], ("error_type", "no_error"), ("rejection_code", "403")];
    assert!(is_counted("apiserver_admission_webhook_rejection_count", &refusal));
    let refusal = [labels[0], labels[1], labels[2], ("code", "403"), ("rejected", "true")];
    assert!(is_counted("apiserver_admission_webhook_request_total", &refusal));
    let mut good = admin.create(MAPS, &map("good")).await;
    good["data"]["stage"] = "changed".into();
    assert_eq!(admin.put(&format!("{MAPS}/good"), &good).await.0, 200);
    assert_eq!(admin.delete(&format!("{MAPS}/good")).await.0, 200);
    let calls = hook.calls();
    let last = |at: usize| calls[calls.len() - at].body["request"].clone();
    assert_eq!(last(1)["operation"], "DELETE");
    assert_eq!(
        (&last(1)["object"], &last(1)["oldObject"]["data"]["stage"]),
        (&Value::Null, &json!("changed"))
    );
    assert_eq!(
        (&last(2)["operation"], &last(2)["oldObject"]["data"]["stage"]),
        (&json!("UPDATE"), &json!("start"))
    );
    assert_eq!(last(2)["options"]["kind"], "UpdateOptions");
    assert_eq!(calls[0].target, "/validate?timeout=5s");
    assert_eq!(calls[0].headers["user-agent"], "kube-apiserver-admission");
    // A namespace that is not selected is not asked about.
    let before = hook.calls().len();
    admin.create("/api/v1/namespaces/hooks/configmaps", &map("bad")).await;
    assert_eq!(hook.calls().len(), before);
    cluster.stop().await;
}

#[tokio::test]
async fn mutating_webhooks_change_and_are_asked_again() {
    let hook = Hook::start(|call| {
        let request = &call.body["request"];
        let stage = request["object"]["data"]["stage"].as_str().unwrap_or_default().to_owned();
        let seen = request["object"]["data"]["seen"].as_str().unwrap_or_default().to_owned();
        match call.target.split('?').next().unwrap_or_default() {
            "/first" => {
                patch(call, json!([{"op": "add", "path": "/data/seen", "value": format!("{seen}{stage},")}]))
            }
            _ => patch(call, json!([{"op": "replace", "path": "/data/stage", "value": "second"}])),
        }
    })
    .await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut first = webhook("first", hook.by_service("/first"), &["configmaps"]);
    first["reinvocationPolicy"] = "IfNeeded".into();
    let webhooks = [first, webhook("second", hook.by_service("/second"), &["configmaps"])];
    configure(&admin, MUTATING, "m", &webhooks).await;
    let (status, made) = until_called(&admin, &hook, MAPS, &map("a")).await;
    assert_eq!((status, &made["data"]["stage"]), (201, &json!("second")));
    assert_eq!(made["data"]["seen"], "start,second,", "the first one sees what the second one did");
    let targets: Vec<String> = hook.calls().into_iter().map(|call| call.target).collect();
    assert_eq!(targets, ["/first?timeout=5s", "/second?timeout=5s", "/first?timeout=5s"]);
    cluster.stop().await;
}

#[tokio::test]
async fn patched_objects_are_defaulted() {
    let hook = Hook::start(|call| {
        let container = json!({"name": "side", "image": "example.com/side:1"});
        patch(call, json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
    })
    .await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    configure(&admin, MUTATING, "m", &[webhook("pods", hook.by_service("/"), &["pods"])]).await;
    create_pod(&admin, "shop", &pod("first")).await;
    let path = "/api/v1/namespaces/shop/pods";
    let (status, made) = until_called(&admin, &hook, path, &pod("a")).await;
    assert_eq!(status, 201, "{made}");
    let side = &made["spec"]["initContainers"][0];
    assert_eq!(side["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(side["imagePullPolicy"], "IfNotPresent");
    assert!(side["volumeMounts"].is_array(), "plugins of the server see it, too: {side}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_follows_its_policy() {
    let hook = Hook::start(|call| match call.target.split('?').next().unwrap_or_default() {
        "/silent" => Reply::Silence,
        "/broken" => Reply::Raw(500, "text/plain", "out of order".to_owned()),
        "/wrong" => json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).into(),
        _ => allow(call),
    })
    .await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    let service = format!("https://hook.hooks.svc:{}", hook.port);
    let a = map("a");
    for (path, timeout, why) in [
        (
            "/silent",
            1,
            format!("failed to call webhook: Post \"{service}/silent?timeout=1s\": context deadline exceeded"),
        ),
        (
            "/broken",
            5,
            "failed to call webhook: an error on the server (\"out of order\") has prevented the request from succeeding"
                .to_owned(),
        ),
        ("/wrong", 5, "received invalid webhook response: webhook response was absent".to_owned()),
    ] {
        let mut webhook = webhook("v", hook.by_service(path), &["configmaps"]);
        webhook["timeoutSeconds"] = timeout.into();
        webhook["failurePolicy"] = "Fail".into();
        configure(&admin, VALIDATING, "v", &[webhook]).await;
        let expected = format!("Internal error occurred: failed calling webhook \"v.example.com\": {why}");
        let dry = format!("{MAPS}?dryRun=All");
        let refused = eventually("it is refused", || admin.post(&dry, &a), |answer| {
            answer.0 == 500 && message(answer) == expected
        })
        .await;
        assert_eq!(refused.1["reason"], "InternalError");
        let (_, mut configuration) = admin.get(&format!("{VALIDATING}/v")).await;
        configuration["webhooks"][0]["failurePolicy"] = "Ignore".into();
        assert_eq!(admin.put(&format!("{VALIDATING}/v"), &configuration).await.0, 200);
        eventually("it passes", || admin.post(&dry, &a), |answer| answer.0 == 201).await;
        assert_eq!(admin.delete(&format!("{VALIDATING}/v")).await.0, 200);
    }
    let mut webhook =
        webhook("v", json!({"url": "https://localhost:1/x", "caBundle": hook.ca_bundle()}), &["configmaps"]);
    webhook["failurePolicy"] = "Fail".into();
    configure(&admin, VALIDATING, "v", &[webhook]).await;
    let why = "Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \
               \"https://localhost:1/x?timeout=5s\": dial tcp ";
    let refused =
        eventually("it is refused", || admin.post(MAPS, &a), |answer| answer.0 != 201 && answer.0 != 409)
            .await;
    assert!(refused.0 == 500 && message(&refused).starts_with(why), "{refused:?}");
    assert!(message(&refused).ends_with(":1: connect: connection refused"), "{refused:?}");
    // Its configuration can be mended all the same.
    assert_eq!(admin.delete(&format!("{VALIDATING}/v")).await.0, 200);
    cluster.stop().await;
}

#[tokio::test]
async fn certificates_are_verified_for_the_service() {
    let hook = Hook::start(allow).await;
    let other = Hook::start(allow).await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    service(&admin, "unknown").await;
    let a = map("a");
    for (change, why) in [
        (
            json!({"caBundle": other.ca_bundle()}),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        (
            json!({"service": {"namespace": "hooks", "name": "unknown", "port": hook.port}}),
            "tls: failed to verify certificate: x509: certificate is valid for localhost, hook.hooks.svc, \
             api.hooks.svc, not unknown.hooks.svc",
        ),
        (json!({"service": {"namespace": "hooks", "name": "absent"}}), "service \"absent\" not found"),
    ] {
        let mut config = hook.by_service("/");
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        configure(&admin, VALIDATING, "v", &[webhook("v", config, &["configmaps"])]).await;
        let dry = format!("{MAPS}?dryRun=All");
        let refused = eventually("it is refused", || admin.post(&dry, &a), |answer| answer.0 == 500).await;
        assert!(message(&refused).ends_with(why), "{refused:?}");
        admin.delete(&format!("{VALIDATING}/v")).await;
        eventually("it is gone", || admin.post(&dry, &a), |answer| answer.0 == 201).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn requests_are_matched_as_configured() {
    let hook = Hook::start(allow).await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    namespace_with(&admin, "other", json!({"kubernetes.io/team": "b"})).await;
    let mut equivalent = webhook("equivalent", hook.by_service("/equivalent"), &["horizontalpodautoscalers"]);
    equivalent["matchPolicy"] = "Equivalent".into();
    let mut exact = webhook("exact", hook.by_service("/exact"), &["horizontalpodautoscalers"]);
    exact["matchPolicy"] = "Exact".into();
    let mut labelled = webhook("labelled", hook.by_service("/labelled"), &["configmaps"]);
    labelled["objectSelector"] = json!({"matchLabels": {"a": "b"}});
    let mut conditional = webhook("conditional", hook.by_service("/conditional"), &["configmaps"]);
    let condition = "object.metadata.name != 'skip' && request.userInfo.username != 'somebody'";
    conditional["matchConditions"] = json!([{"name": "not-skipped", "expression": condition}]);
    configure(&admin, VALIDATING, "v", &[equivalent, exact, labelled, conditional]).await;
    until_called(&admin, &hook, MAPS, &map("a")).await;
    let asked = |since: usize| -> Vec<String> {
        let calls = hook.calls();
        let mut asked: Vec<String> =
            calls[since..].iter().map(|call| call.target.split('?').next().unwrap().to_owned()).collect();
        asked.sort();
        asked
    };
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let before = hook.calls().len();
    admin.create("/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers", &autoscaler).await;
    assert_eq!(asked(before), ["/equivalent"]);
    let request = hook.calls()[before].body["request"].clone();
    assert_eq!(
        (&request["kind"]["version"], &request["requestKind"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    let before = hook.calls().len();
    let mut with = map("b");
    with["metadata"]["labels"] = json!({"a": "b"});
    admin.create(MAPS, &with).await;
    assert_eq!(asked(before), ["/conditional", "/labelled"]);
    let before = hook.calls().len();
    admin.create(MAPS, &map("skip")).await;
    assert!(asked(before).is_empty(), "{:?}", asked(before));
    cluster.stop().await;
}

#[tokio::test]
async fn dry_runs_reach_only_webhooks_without_side_effects() {
    let hook = Hook::start(allow).await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut webhook = webhook("v", hook.by_url("/"), &["configmaps"]);
    webhook["sideEffects"] = "NoneOnDryRun".into();
    configure(&admin, VALIDATING, "v", &[webhook]).await;
    until_called(&admin, &hook, MAPS, &map("a")).await;
    assert_eq!(hook.calls()[0].body["request"]["dryRun"], true);
    cluster.stop().await;
}

#[tokio::test]
async fn connections_and_scales_are_admitted_as_what_they_are() {
    let hook = Hook::start(|call| {
        let connects = call.body["request"]["operation"] == "CONNECT";
        answer(call, json!({"allowed": !connects}))
    })
    .await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    let resources = ["pods/attach", "pods/exec", "pods/proxy", "pods/portforward", "deployments/scale"];
    configure(&admin, VALIDATING, "v", &[webhook("v", hook.by_service("/"), &resources)]).await;
    create_pod(&admin, "shop", &pod("p")).await;
    let path = |rest: &str| format!("/api/v1/namespaces/shop/pods/p/{rest}");
    let attach = path("attach?container=main&stdin=true");
    let denied = |answer: &Answer| message(answer).contains("denied the request");
    let refused = eventually("it is refused", || admin.post(&attach, &Value::Null), denied).await;
    assert_eq!(
        (refused.0, message(&refused)),
        (400, "admission webhook \"v.example.com\" denied the request without explanation")
    );
    let request = hook.calls().pop().unwrap().body["request"].clone();
    let object = json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "container": "main"});
    for (key, value) in object.as_object().unwrap() {
        assert_eq!(&request["object"][key], value, "{request}");
    }
    assert_eq!(
        (&request["kind"]["kind"], &request["subResource"]),
        (&json!("PodAttachOptions"), &json!("attach"))
    );
    assert!(denied(&admin.post(&path("exec?command=ls&command=-l"), &Value::Null).await));
    let object = hook.calls().pop().unwrap().body["request"]["object"].clone();
    assert_eq!((&object["kind"], &object["command"]), (&json!("PodExecOptions"), &json!(["ls", "-l"])));
    assert!(denied(&admin.get(&path("proxy/a/b/")).await));
    let object = hook.calls().pop().unwrap().body["request"]["object"].clone();
    assert_eq!((&object["kind"], &object["path"]), (&json!("PodProxyOptions"), &json!("/a/b/")));
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    admin.create(deployments, &deployment).await;
    let scale = json!({"spec": {"replicas": 3}});
    let (status, _) = admin.ask("PATCH", &format!("{deployments}/d/scale"), Some(&scale)).await;
    let request = hook.calls().pop().unwrap().body["request"].clone();
    assert_eq!((status, &request["object"]["kind"]), (200, &json!("Scale")), "{request}");
    assert_eq!(
        (&request["object"]["spec"]["replicas"], &request["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(1))
    );
    cluster.stop().await;
}

#[tokio::test]
async fn custom_objects_are_pruned_after_webhooks() {
    let hook = Hook::start(|call| {
        patch(
            call,
            json!([{"op": "add", "path": "/spec/color", "value": "blue"}, {"op": "add", "path": "/spec/unknown", "value": 1}]),
        )
    })
    .await;
    let cluster = cluster().await;
    let admin = cluster.admin();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "color": {"type": "string"}, "size": {"type": "integer", "default": 4}}}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
                 "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
                 "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    admin.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    configure(&admin, MUTATING, "m", &[webhook("m", hook.by_service("/"), &["gadgets"])]).await;
    let path = "/apis/example.com/v1/namespaces/shop/gadgets";
    let gadget =
        json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": {}});
    let (status, made) = until_called(&admin, &hook, path, &gadget).await;
    assert_eq!((status, &made["spec"]), (201, &json!({"color": "blue", "size": 4})), "{made}");
    cluster.stop().await;
}
