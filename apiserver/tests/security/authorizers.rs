//! Who decides what is permitted: webhooks, files that say so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::authz::setup::AuthorizationConfig;
use apiserver::authz::structured::WebhookConfiguration;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::hook::{Call, Hook, Reply};
use super::support::{Cluster, eventually, is_counted, message};
use super::tokens::kubeconfig;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// A webhook that answers by the resource that is asked about.
async fn webhook() -> Hook {
    Hook::start(|call: &Call| {
        let attributes = &call.body["spec"]["resourceAttributes"];
        let status = match attributes["resource"].as_str().unwrap_or_default() {
            "configmaps" => json!({"allowed": true, "reason": "the hook says yes"}),
            "secrets" => json!({"allowed": false, "denied": true, "reason": "the hook says no"}),
            "endpoints" => return Reply::Raw(400, "text/plain", "broken".to_owned()),
            _ => json!({"allowed": false, "reason": "the hook does not know"}),
        };
        json!({"kind": "SubjectAccessReview", "apiVersion": call.body["apiVersion"], "status": status}).into()
    })
    .await
}

fn reviews(hook: &Hook, resource: &str) -> Vec<Value> {
    let about = |call: &Call| call.body["spec"]["resourceAttributes"]["resource"] == resource;
    hook.calls().iter().filter(|call| about(call)).map(|call| call.body.clone()).collect()
}

/// A file with this webhook between the usual authorizers; `webhook` is what is said of it.
fn file(folder: &Path, hook: &Hook, webhook: Value) -> PathBuf {
    let mut config = json!({
        "timeout": "5s", "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1",
        "failurePolicy": "NoOpinion",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig(hook, folder, "/authorize")},
    });
    if let (Some(config), Value::Object(webhook)) = (config.as_object_mut(), webhook) {
        config.extend(webhook);
    }
    let all = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Node", "name": "node"},
            {"type": "Webhook", "name": "hook", "webhook": config},
            {"type": "RBAC", "name": "rbac"},
        ],
    });
    let path = folder.join("authorization.yaml");
    std::fs::write(&path, all.to_string()).unwrap();
    path
}

fn by_file(path: PathBuf) -> AuthorizationConfig {
    AuthorizationConfig { configuration_file: Some(path), ..AuthorizationConfig::default() }
}

#[tokio::test]
async fn a_webhook_of_a_file() {
    let hook = webhook().await;
    let cluster = Cluster::with(|config, folder| {
        let conditions = json!({"matchConditions": [
            {"expression": "request.user == 'bob'"},
            {"expression": "has(request.resourceAttributes)"},
        ]});
        config.authorization = by_file(file(folder, &hook, conditions));
    })
    .await;
    let bob = cluster.with_token("secret-of-bob");
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(bob.get(maps).await.0, 200, "nobody but the webhook permits it");
    assert_eq!(bob.get(maps).await.0, 200);
    let asked = reviews(&hook, "configmaps");
    assert_eq!(asked.len(), 1, "the answer is kept");
    assert_eq!(
        asked[0]["spec"],
        json!({
            "user": "bob", "uid": "4711", "groups": ["dev", "ops", "system:authenticated"],
            "resourceAttributes": {
                "namespace": "default", "verb": "list", "version": "v1", "resource": "configmaps",
            },
        })
    );
    let selected = format!("{maps}?labelSelector=a%3Db&fieldSelector=metadata.name%3Dx");
    assert_eq!(bob.get(&selected).await.0, 200);
    let attributes = &reviews(&hook, "configmaps")[1]["spec"]["resourceAttributes"];
    let requirement =
        |key: &str, value: &str| json!({"requirements": [{"key": key, "operator": "In", "values": [value]}]});
    assert_eq!(attributes["labelSelector"], requirement("a", "b"));
    assert_eq!(attributes["fieldSelector"], requirement("metadata.name", "x"));
    assert_eq!(attributes["name"], "x");

    let answer = bob.get("/api/v1/namespaces/default/secrets").await;
    assert_eq!((answer.0, message(&answer).ends_with(": the hook says no")), (403, true), "{answer:?}");
    let answer = bob.get("/api/v1/namespaces/default/pods").await;
    assert_eq!((answer.0, message(&answer).ends_with(": the hook does not know")), (403, true), "{answer:?}");
    // It has failed, and nobody else permits it.
    assert_eq!(bob.get("/api/v1/namespaces/default/endpoints").await.0, 500);
    // It is asked about bob and resources only; superusers come before all others.
    let name = ("name", "hook");
    for (metric, labels) in [
        ("apiserver_authorization_decisions_total", [("type", "Webhook"), ("decision", "allowed"), name]),
        ("apiserver_authorization_decisions_total", [("type", "Webhook"), ("decision", "denied"), name]),
        ("apiserver_authorization_webhook_evaluations_total", [("result", "success"), name, name]),
        ("apiserver_authorization_webhook_evaluations_total", [("result", "error"), name, name]),
        ("apiserver_authorization_webhook_evaluations_fail_open_total", [("result", "error"), name, name]),
    ] {
        assert!(is_counted(metric, &labels), "{metric} {labels:?}");
    }
    for result in ["allowed", "denied", "no-opinion", "error"] {
        assert!(is_counted("authorization_attempts_total", &[("result", result)]), "{result}");
    }
    assert!(is_counted("authentication_attempts", &[("result", "success")]));
    assert!(is_counted("authenticated_user_requests", &[("username", "other")]));
    let before = hook.calls().len();
    assert_eq!(bob.get("/version").await.0, 200);
    assert_eq!(cluster.with_token("secret-of-root").get("/api/v1/namespaces/default/secrets").await.0, 200);
    assert_eq!(cluster.over_tls(json!({})).get(maps).await.0, 403);
    assert_eq!(hook.calls().len(), before);
    cluster.stop().await;
}

#[tokio::test]
async fn reviews_ask_the_webhook_too() {
    let hook = webhook().await;
    let cluster = Cluster::with(|config, folder| {
        config.authorization = by_file(file(folder, &hook, json!({"failurePolicy": "Deny"})));
    })
    .await;
    let admin = cluster.admin();
    let ask = async |resource: &str| {
        let attributes = json!({"verb": "get", "resource": resource, "namespace": "default"});
        let spec = json!({"user": "carol", "resourceAttributes": attributes});
        admin.create(REVIEWS, &json!({"spec": spec})).await["status"].clone()
    };
    assert_eq!(ask("configmaps").await, json!({"allowed": true, "reason": "the hook says yes"}));
    assert_eq!(ask("secrets").await, json!({"allowed": false, "denied": true, "reason": "the hook says no"}));
    assert_eq!(ask("pods").await, json!({"allowed": false, "reason": "the hook does not know"}));
    let failed = ask("endpoints").await;
    assert_eq!((&failed["allowed"], &failed["denied"]), (&json!(false), &json!(true)));
    assert!(failed["evaluationError"].is_string(), "{failed}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_of_flags() {
    let hook = webhook().await;
    let cluster = Cluster::with(|config, folder| {
        let file = kubeconfig(&hook, folder, "/authorize");
        config.authorization.modes = vec!["RBAC".to_owned(), "Webhook".to_owned()];
        let ttl = Duration::from_secs(60);
        config.authorization.webhook =
            Some(WebhookConfiguration::of_flags(file, "v1beta1".to_owned(), ttl, Duration::ZERO));
    })
    .await;
    let bob = cluster.with_token("secret-of-bob");
    assert_eq!(bob.get("/api/v1/namespaces/default/configmaps").await.0, 200);
    let review = &reviews(&hook, "configmaps")[0];
    assert_eq!(review["apiVersion"], "authorization.k8s.io/v1beta1");
    assert_eq!(review["spec"]["group"], json!(["dev", "ops", "system:authenticated"]));
    for _ in 0..2 {
        assert_eq!(bob.get("/api/v1/namespaces/default/pods").await.0, 403);
    }
    assert_eq!(reviews(&hook, "pods").len(), 2, "refusals are not kept");
    cluster.stop().await;
}

#[tokio::test]
async fn policies_of_a_file() {
    let cluster = Cluster::with(|config, folder| {
        let path = folder.join("policies.jsonl");
        let lines = [
            json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
                   "spec": {"group": "ops", "namespace": "default", "resource": "configmaps", "readonly": true}}),
            json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
                   "spec": {"group": "system:unauthenticated", "nonResourcePath": "/version", "readonly": true}}),
        ];
        std::fs::write(&path, lines.map(|line| line.to_string()).join("\n")).unwrap();
        config.authorization.modes = vec!["ABAC".to_owned()];
        config.authorization.policy_file = Some(path);
    })
    .await;
    let bob = cluster.with_token("secret-of-bob");
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(bob.get(maps).await.0, 200);
    for answer in [
        bob.post(maps, &json!({"metadata": {"name": "x"}})).await,
        bob.get("/api/v1/configmaps").await,
        bob.get("/api/v1/namespaces/default/secrets").await,
    ] {
        assert_eq!((answer.0, message(&answer).ends_with(": No policy matched.")), (403, true), "{answer:?}");
    }
    let nobody = cluster.over_tls(json!({}));
    assert_eq!((nobody.get("/version").await.0, nobody.get("/api").await.0), (200, 403));
    // Superusers come before all others; what the roles say does not count.
    assert_eq!(cluster.with_token("secret-of-root").get("/api/v1/secrets").await.0, 200);
    let review = json!({"spec": {"namespace": "default"}});
    let answer = bob.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).await;
    assert_eq!(answer.0, 403, "even this has to be permitted: {answer:?}");
    cluster.stop().await;
}

/// A policy whose expression asks the authorizer about secrets, while the webhook that decides does not answer: the
/// one thread of this test serves everybody else meanwhile.
#[tokio::test]
async fn a_slow_webhook_holds_up_only_who_needs_it() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let hook = Hook::start(move |call: &Call| {
        let allowed = call.body["spec"]["resourceAttributes"]["resource"] == "endpoints";
        let answer = json!({"kind": "SubjectAccessReview", "apiVersion": call.body["apiVersion"],
                            "status": {"allowed": allowed, "reason": "the hook has thought about it"}});
        if allowed { Reply::Late(gate.clone(), answer) } else { answer.into() }
    })
    .await;
    let cluster =
        Cluster::with(|config, folder| config.authorization = by_file(file(folder, &hook, json!({})))).await;
    let admin = cluster.admin();
    let group = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let check = "authorizer.serviceAccount('default', 'slow').group('').resource('endpoints').check('get')";
    let spec = json!({"matchConstraints": {"resourceRules": rules},
                      "validations": [{"expression": format!("!{check}.allowed()"), "messageExpression": "'refused'"}]});
    admin.create(&format!("{group}ies"), &json!({"metadata": {"name": "slow"}, "spec": spec})).await;
    let spec = json!({"policyName": "slow", "validationActions": ["Deny"]});
    admin.create(&format!("{group}ybindings"), &json!({"metadata": {"name": "slow"}, "spec": spec})).await;

    let maps = "/api/v1/namespaces/default/configmaps";
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let admin = admin.clone();
            tokio::spawn(async move {
                let body = json!({"metadata": {"generateName": "x-"}});
                // Until the policy is in effect.
                loop {
                    let answer = admin.post(maps, &body).await;
                    if answer.0 != 201 {
                        return answer;
                    }
                }
            })
        })
        .collect();
    let asked = || async { reviews(&hook, "endpoints").len() };
    eventually("the webhook is asked", asked, |count| *count > 0).await;
    for _ in 0..20 {
        assert_eq!(admin.get(maps).await.0, 200);
    }
    assert!(waiting.iter().any(|task| !task.is_finished()), "somebody waits");
    open.send(true).unwrap();
    for answer in futures::future::join_all(waiting).await {
        let answer = answer.unwrap();
        assert_eq!((answer.0, message(&answer).ends_with(": refused")), (422, true), "{answer:?}");
    }
    assert_eq!(reviews(&hook, "endpoints").len(), 1, "the answer is kept");
    cluster.stop().await;
}

#[tokio::test]
async fn a_changed_file_comes_into_effect() {
    let (hook, seen) = (webhook().await, Arc::<Mutex<PathBuf>>::default());
    let cluster = Cluster::with(|config, folder| {
        *seen.lock() = folder.to_owned();
        let conditions = json!({"matchConditions": [{"expression": "request.user == 'carol'"}]});
        config.authorization = by_file(file(folder, &hook, conditions));
    })
    .await;
    let folder = seen.lock().clone();
    let bob = cluster.with_token("secret-of-bob");
    let maps = || async { bob.get("/api/v1/namespaces/default/configmaps").await.0 };
    assert_eq!(maps().await, 403);
    file(&folder, &hook, json!({}));
    eventually("the webhook is asked about bob", maps, |status| *status == 200).await;
    // A file that leaves out what must stay changes nothing, and the next good one does.
    let without = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [{"type": "AlwaysDeny", "name": "alwaysdeny"}],
    });
    std::fs::write(folder.join("authorization.yaml"), without.to_string()).unwrap();
    let metric = "apiserver_authorization_config_controller_automatic_reloads_total";
    let refused = || async { is_counted(metric, &[("status", "failure")]) };
    eventually("the file is refused", refused, |counted| *counted).await;
    assert_eq!(maps().await, 200);
    file(&folder, &hook, json!({"matchConditions": [{"expression": "request.user == 'carol'"}]}));
    eventually("the webhook is asked about bob no more", maps, |status| *status == 403).await;
    cluster.stop().await;
}
