//! The audit log of a server.

use std::path::{Path, PathBuf};

use std::time::Duration;

use apiserver::audit::backend::{BackendConfig, Batch, Mode};
use apiserver::audit::log::LogConfig;
use apiserver::audit::{AuditConfig, WebhookConfig};
use apiserver::config::Config;
use serde_json::{Value, json};

use super::hook::{Call, Hook, Reply};
use super::support::{Cluster, create_pod, eventually, message, namespace, namespace_with, pod};
use super::tokens::kubeconfig;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, userGroups: [\"system:masters\"], nonResourceURLs: [\"/livez*\"]}
- {level: RequestResponse, resources: [{resources: [configmaps]}]}
- {level: Metadata, resources: [{resources: [secrets, pods]}], omitStages: []}
- {level: Request, resources: [{resources: [services]}]}
- {level: Metadata, users: [bob]}
- {level: None}
";

/// A server with this policy, and where its events are.
async fn audited() -> (Cluster, PathBuf) {
    audited_with(|_, _| {}).await
}

async fn audited_with(change: impl FnOnce(&mut Config, &Path)) -> (Cluster, PathBuf) {
    let mut path = PathBuf::new();
    let cluster = Cluster::with(|config, folder| {
        change(config, folder);
        let policy = folder.join("policy.yaml");
        std::fs::write(&policy, POLICY).unwrap();
        path = folder.join("audit.log");
        let log = LogConfig { path: path.clone(), ..LogConfig::default() };
        config.audit = AuditConfig { policy_file: Some(policy), log: Some(log), ..AuditConfig::default() };
    })
    .await;
    (cluster, path)
}

/// The events for which `wanted` holds, in the order in which they were written.
fn events(path: &PathBuf, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(wanted).collect()
}

fn of(user: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["user"]["username"] == user
}

#[tokio::test]
async fn a_write_is_written_down_with_its_bodies() {
    let (cluster, path) = audited().await;
    let admin = cluster.admin();
    namespace(&admin, "app").await;
    let maps = "/api/v1/namespaces/app/configmaps";
    let root =
        cluster.with_token("secret-of-root").header("User-Agent", "tester/1").header("Audit-ID", "mine");
    let sent =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "<v>"}});
    root.create(maps, &sent).await;
    let patch = json!({"data": {"k": "w"}});
    root.ask("PATCH", &format!("{maps}/a"), Some(&patch)).await;
    assert_eq!(root.delete(&format!("{maps}/a")).await.0, 200);

    let found = events(&path, of("root"));
    let verbs: Vec<_> = found.iter().map(|e| e["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["create", "patch", "delete"]);
    let created = &found[0];
    for (field, value) in [
        ("level", "RequestResponse"),
        ("stage", "ResponseComplete"),
        ("auditID", "mine"),
        ("requestURI", maps),
        ("userAgent", "tester/1"),
    ] {
        assert_eq!(created[field], value, "{field}");
    }
    assert_eq!(created["sourceIPs"], json!(["127.0.0.1"]));
    let expected = json!({"resource": "configmaps", "namespace": "app", "name": "a", "apiVersion": "v1"});
    assert_eq!(created["objectRef"], expected);
    assert_eq!(created["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(created["requestObject"]["data"], sent["data"]);
    assert_eq!(created["responseObject"]["data"], sent["data"]);
    assert!(created["responseObject"]["metadata"]["uid"].is_string());
    assert!(created["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(found[1]["requestObject"], patch);
    assert_eq!(found[2]["responseStatus"]["status"], "Success");
    cluster.stop().await;
}

/// Levels of pod security that a file gives to all namespaces, and who is exempt.
#[tokio::test]
async fn what_pod_security_finds_is_written_down() {
    let (cluster, path) = audited_with(|config, folder| {
        let own = json!({
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "audit": "restricted"},
            "exemptions": {"namespaces": ["free"], "usernames": ["carol"]},
        });
        let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
                          "plugins": [{"name": "PodSecurity", "configuration": own}]});
        let path = folder.join("admission.yaml");
        std::fs::write(&path, file.to_string()).unwrap();
        config.admission_file = Some(path);
    })
    .await;
    let admin = cluster.admin();
    for name in ["app", "free"] {
        namespace(&admin, name).await;
    }
    let open = json!({"pod-security.kubernetes.io/enforce": "privileged", "pod-security.kubernetes.io/audit": "privileged"});
    namespace_with(&admin, "open", open).await;
    for name in ["app", "free", "open"] {
        create_pod(&admin, name, &pod("probe")).await;
    }
    let root = cluster.with_token("secret-of-root");
    let carol =
        root.clone().header("Impersonate-User", "carol").header("Impersonate-Group", "system:masters");
    let mut bold = pod("bold");
    bold["spec"]["hostNetwork"] = json!(true);
    let found = "would violate PodSecurity \"restricted:latest\": ";
    let refused = "pods \"bold\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    for (asker, namespace, object, status, expected) in [
        (
            &root,
            "app",
            pod("plain"),
            201,
            vec![("enforce-policy", "baseline:latest"), ("audit-violations", found)],
        ),
        (
            &root,
            "app",
            bold.clone(),
            403,
            vec![("enforce-policy", "baseline:latest"), ("audit-violations", found)],
        ),
        (&root, "free", bold.clone(), 201, vec![("exempt", "namespace")]),
        (&carol, "app", bold.clone(), 201, vec![("exempt", "user")]),
        (&root, "open", bold.clone(), 201, vec![("enforce-policy", "privileged:latest")]),
    ] {
        let before = events(&path, of("root")).len();
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let answer = asker.post(&pods, &object).await;
        assert_eq!(answer.0, status, "{answer:?}");
        if status == 403 {
            assert_eq!(message(&answer), refused);
        }
        let event = events(&path, of("root")).split_off(before).pop().unwrap();
        let said: Vec<(String, String)> = event["annotations"]
            .as_object()
            .unwrap()
            .iter()
            .filter_map(|(key, value)| {
                let key = key.strip_prefix("pod-security.kubernetes.io/")?.to_owned();
                Some((key, value.as_str().unwrap().to_owned()))
            })
            .collect();
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (key, value) in expected {
            let has = said.iter().any(|(found, text)| found == key && text.starts_with(value));
            assert!(has, "{key} of {said:?}");
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn secrets_stay_secret_and_refusals_are_written_down() {
    let (cluster, path) = audited().await;
    namespace(&cluster.admin(), "app").await;
    let secrets = "/api/v1/namespaces/app/secrets";
    let bob = cluster.with_token("secret-of-bob");
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "do not tell"}});
    assert_eq!(bob.post(secrets, &secret).await.0, 403);
    let root = cluster.with_token("secret-of-root");
    root.create(secrets, &secret).await;
    let acting = root.clone().header("Impersonate-User", "carol");
    assert_eq!(acting.get(secrets).await.0, 403);
    assert_eq!(cluster.with_token("nobody's").get(secrets).await.0, 401);
    assert_eq!(root.get("/livez").await.0, 200);

    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("do not tell") && !text.contains("livez"), "{text}");
    let stages = |user| -> Vec<_> {
        events(&path, of(user)).iter().map(|e| e["stage"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(stages("bob"), ["ResponseComplete"], "the policy's stages are left out everywhere");
    let refused = &events(&path, of("bob"))[0];
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    let acting = events(&path, |event| event["impersonatedUser"]["username"] == "carol");
    assert_eq!(acting.len(), 1);
    assert_eq!(acting[0]["user"]["username"], "root");
    let unknown = events(&path, |event| event["responseStatus"]["code"] == 401);
    assert_eq!(unknown.len(), 1);
    assert_eq!((&unknown[0]["stage"], &unknown[0]["user"]), (&json!("ResponseStarted"), &json!({})));
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_is_written_down_when_it_begins_and_when_it_ends() {
    let (cluster, path) = audited().await;
    let root = cluster.with_token("secret-of-root");
    assert_eq!(root.get("/api/v1/pods?watch=true&timeoutSeconds=1").await.0, 200);
    let seen = || async {
        let found = events(&path, |event| event["verb"] == "watch" && event["user"]["username"] == "root");
        found.iter().map(|e| e["stage"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("both stages", seen, |stages| *stages == ["ResponseStarted", "ResponseComplete"]).await;
    cluster.stop().await;
}

/// A server whose events go to a webhook.
async fn to_webhook(hook: &Hook, mode: Mode) -> Cluster {
    Cluster::with(|config, folder| {
        let policy = folder.join("policy.yaml");
        std::fs::write(&policy, POLICY.replace("omitStages: [RequestReceived]\n", "")).unwrap();
        let webhook = WebhookConfig {
            file: kubeconfig(hook, folder, "/audit"),
            initial_backoff: Duration::from_millis(10),
            backend: BackendConfig { mode, truncate: None },
        };
        config.audit =
            AuditConfig { policy_file: Some(policy), webhook: Some(webhook), ..AuditConfig::default() };
    })
    .await
}

fn delivered(hook: &Hook) -> Vec<Value> {
    let lists = hook.calls().into_iter().map(|call| call.body);
    lists.flat_map(|list| list["items"].as_array().cloned().unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_webhook_hears_of_events_in_batches_even_if_it_fails_at_first() {
    let failures = std::sync::atomic::AtomicU32::new(0);
    let hook =
        Hook::start(move |_: &Call| match failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Reply::Raw(403, "text/plain", "not yet".to_owned()),
            _ => Reply::Raw(200, "text/plain", String::new()),
        })
        .await;
    let wait = Duration::from_millis(50);
    let mode = Mode::Batch(Batch { buffer: 100, most: 10, wait, throttle: Some((100.0, 10)) });
    let cluster = to_webhook(&hook, mode).await;
    let bob = cluster.with_token("secret-of-bob");
    assert_eq!(bob.get("/api/v1/namespaces/default/secrets").await.0, 403);
    let heard = || async {
        let (calls, events) = (hook.calls(), delivered(&hook));
        // The first call was refused, and made again with the same events.
        let again = calls.iter().skip(1).any(|call| call.body == calls[0].body);
        let done = |event: &Value| event["user"]["username"] == "bob" && event["stage"] == "ResponseComplete";
        (again, events.iter().any(done))
    };
    eventually("the events are delivered again", heard, |heard| *heard == (true, true)).await;
    let call = &hook.calls()[0];
    assert_eq!(call.target, "/audit?timeout=30s");
    assert_eq!(
        (&call.body["kind"], &call.body["apiVersion"]),
        (&json!("EventList"), &json!("audit.k8s.io/v1"))
    );
    cluster.stop().await;
}

#[tokio::test]
async fn what_waits_is_delivered_when_the_server_stops() {
    let hook = Hook::start(|_: &Call| json!({}).into()).await;
    let wait = Duration::from_secs(3600);
    let cluster =
        to_webhook(&hook, Mode::Batch(Batch { buffer: 1000, most: 400, wait, throttle: None })).await;
    assert_eq!(cluster.with_token("secret-of-bob").get("/api/v1/namespaces/default/secrets").await.0, 403);
    assert_eq!(hook.calls().len(), 0);
    cluster.stop().await;
    let last = delivered(&hook).into_iter().rfind(|event| event["user"]["username"] == "bob").unwrap();
    assert_eq!(last["stage"], "ResponseComplete");
}

#[tokio::test]
async fn a_strict_server_serves_nothing_that_cannot_be_written_down() {
    let hook = Hook::start(|call: &Call| {
        let bobs = call.body["items"][0]["user"]["username"] == "bob";
        if bobs { Reply::Raw(500, "text/plain", "full".to_owned()) } else { json!({}).into() }
    })
    .await;
    let cluster = to_webhook(&hook, Mode::BlockingStrict).await;
    let root = cluster.with_token("secret-of-root");
    assert_eq!(root.get("/api/v1/namespaces/default/secrets").await.0, 200);
    let mine = || delivered(&hook).into_iter().filter(|event| event["user"]["username"] == "root").count();
    assert_eq!(mine(), 2, "the events are there when the answer is");
    let answer = cluster.with_token("secret-of-bob").get("/api/v1/namespaces/default/secrets").await;
    assert_eq!(answer.0, 500);
    assert!(message(&answer).contains("failed to store audit event"), "{answer:?}");
    cluster.stop().await;
    let hook = Hook::start(|_: &Call| Reply::Raw(500, "text/plain", "full".to_owned())).await;
    let cluster = to_webhook(&hook, Mode::Blocking).await;
    let answer = cluster.with_token("secret-of-bob").get("/api/v1/namespaces/default/secrets").await;
    assert_eq!(answer.0, 403, "others go on");
    cluster.stop().await;
}
