//! Priority and fairness of a server: who floods it is refused, and others are served.

use futures::future::join_all;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::support::{Answer, Asker, Cluster, eventually, namespace};

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const MAPS: &str = "/api/v1/namespaces/app/configmaps";
const REFUSAL: &str = "Too many requests, please try again later.\n";

async fn send(asker: &Asker, method: &str, path: &str, body: &Value) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    asker.client.send(request.body(bytes.into()).unwrap()).await.expect("an answer")
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// The uids of the schema and the level that a request was classified by.
fn classified(response: &Response<Body>) -> (Option<&str>, Option<&str>) {
    let uid = |name| header(response, name);
    (uid("X-Kubernetes-PF-FlowSchema-UID"), uid("X-Kubernetes-PF-PriorityLevel-UID"))
}

/// A server of sixty seats where bob may do everything, in a level of his own.
async fn with_bobs_level(response: Value) -> (Cluster, Asker, (String, String)) {
    let cluster = Cluster::with(|config, _| {
        config.max_requests_inflight = 40;
        config.max_mutating_requests_inflight = 20;
    })
    .await;
    let admin = cluster.admin();
    namespace(&admin, "app").await;
    let_bob(&admin).await;
    let limited =
        json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response});
    let level = json!({"metadata": {"name": "bobs"}, "spec": {"type": "Limited", "limited": limited}});
    let level = admin.create(LEVELS, &level).await;
    let rules = json!([{
        "subjects": [{"kind": "User", "user": {"name": "bob"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
    }]);
    let schema = json!({"metadata": {"name": "bob"}, "spec": {
        "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": "bobs"}, "rules": rules}});
    let schema = admin.create(SCHEMAS, &schema).await;
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let uids = (uid(&schema), uid(&level));
    let bob = cluster.with_token("secret-of-bob");
    let ask = || async {
        let answer = send(&bob, "GET", MAPS, &Value::Null).await;
        let (schema, level) = classified(&answer);
        (schema.unwrap().to_owned(), level.unwrap().to_owned())
    };
    eventually("bob's requests go to his level", ask, |found| *found == uids).await;
    (cluster, bob, uids)
}

async fn let_bob(admin: &Asker) {
    let binding = json!({
        "metadata": {"name": "bob"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "bob"}]});
    admin.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
}

async fn flood(asker: &Asker, prefix: &str, count: usize) -> Vec<Response<Body>> {
    let create = |i: usize| {
        let object = json!({"metadata": {"name": format!("{prefix}-{i}")}});
        async move { send(asker, "POST", MAPS, &object).await }
    };
    join_all((0..count).map(create)).await
}

async fn text(asker: &Asker, path: &str) -> String {
    match asker.get(path).await {
        (200, Value::String(text)) => text,
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test]
async fn who_floods_is_refused_while_the_system_is_served() {
    let queuing = json!({"queues": 1, "handSize": 1, "queueLengthLimit": 5});
    let (cluster, bob, uids) = with_bobs_level(json!({"type": "Queue", "queuing": queuing})).await;
    let admin = cluster.admin();
    admin.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let kubelet = cluster.authority.client("system:node:n1", &["system:nodes"]);
    let kubelet = cluster.with_certificate(&kubelet);
    let node = || send(&kubelet, "GET", "/api/v1/nodes/n1", &Value::Null);

    let (floods, nodes) = futures::join!(flood(&bob, "flood", 400), join_all((0..100).map(|_| node())));
    let served = floods.iter().filter(|answer| answer.status() == 201).count();
    let refused: Vec<_> = floods.into_iter().filter(|answer| answer.status() == 429).collect();
    assert_eq!(served + refused.len(), 400);
    assert!(served >= 6 && refused.len() > 100, "{served} served, {} refused", refused.len());
    // What kubelets ask of nodes has a level of its own.
    let system: Value = admin.get(&format!("{LEVELS}/node-high")).await.1;
    for answer in &nodes {
        assert_eq!(answer.status(), 200);
        assert_eq!(classified(answer).1, system["metadata"]["uid"].as_str());
    }
    for answer in refused {
        assert_eq!(classified(&answer), (Some(uids.0.as_str()), Some(uids.1.as_str())));
        let wait = header(&answer, "Retry-After").and_then(|wait| wait.parse().ok());
        assert!(wait.is_some_and(|wait: u64| (1..=32).contains(&wait)), "{wait:?}");
        assert_eq!(header(&answer, "Content-Type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.into_body().collect_bytes().await.unwrap(), REFUSAL);
    }

    let metrics = text(&admin, "/metrics").await;
    let count = |name: &str| {
        let start = format!("apiserver_flowcontrol_{name}{{priority_level=\"bobs\",flow_schema=\"bob\"");
        let line = metrics.lines().find(|line| line.starts_with(&start)).expect(name);
        line.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()).expect(name)
    };
    assert_eq!(count("rejected_requests_total"), 400 - served);
    assert!(count("dispatched_requests_total") >= served);
    assert_eq!(count("current_executing_requests"), 0);
    assert_eq!(count("current_inqueue_requests"), 0);
    let levels = text(&admin, "/debug/api_priority_and_fairness/dump_priority_levels").await;
    let bobs = levels.lines().find(|line| line.starts_with("bobs, ")).expect("the level is shown");
    assert!(bobs.contains("true,") && bobs.contains(&format!("{},", 400 - served)), "{levels}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_takes_its_seat_while_it_begins() {
    let (cluster, bob, uids) = with_bobs_level(json!({"type": "Reject"})).await;
    flood(&cluster.admin(), "thing", 1).await;
    let watch = send(&bob, "GET", &format!("{MAPS}?watch=true"), &Value::Null).await;
    assert_eq!(watch.status(), 200);
    assert_eq!(classified(&watch).0, Some(uids.0.as_str()));
    // There is one seat, and nobody waits: the watch must have given it back.
    let thing = format!("{MAPS}/thing-0");
    let get = || bob.get(&thing);
    eventually("bob is served", get, |(status, _): &Answer| *status == 200).await;
    let admin = cluster.admin();
    let requests =
        text(&admin, "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1").await;
    assert!(requests.contains("/debug/api_priority_and_fairness/dump_requests"), "{requests}");
    assert!(!requests.contains("bob"), "{requests}");
    drop(watch);
    cluster.stop().await;
}

#[tokio::test]
async fn schemas_say_whether_they_lead_anywhere() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let schema = json!({"metadata": {"name": "lost"}, "spec": {
        "matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "nowhere"}, "rules": []}});
    admin.create(SCHEMAS, &schema).await;
    for (name, status, reason) in [("lost", "True", "NotFound"), ("catch-all", "False", "Found")] {
        let path = format!("{SCHEMAS}/{name}");
        let get = || admin.get(&path);
        let condition = |answer: &Answer| {
            let own = &answer.1["status"]["conditions"][0];
            own["type"] == "Dangling" && own["status"] == status && own["reason"] == reason
        };
        eventually("the condition is written", get, condition).await;
    }
    // What is served by the exempt level is said to be so.
    let exempt = admin.get(&format!("{LEVELS}/exempt")).await.1;
    let answer = send(&admin, "GET", "/version", &Value::Null).await;
    assert_eq!(classified(&answer).1, exempt["metadata"]["uid"].as_str());
    cluster.stop().await;
}

#[tokio::test]
async fn without_fairness_the_limits_are_plain() {
    let cluster = Cluster::with(|config, _| {
        config.priority_and_fairness = false;
        config.max_mutating_requests_inflight = 2;
    })
    .await;
    let admin = cluster.admin();
    namespace(&admin, "app").await;
    let_bob(&admin).await;
    let bob = cluster.with_token("secret-of-bob");
    let first = json!({"metadata": {"generateName": "first-"}});
    let create = || bob.post(MAPS, &first);
    eventually("bob may create", create, |(status, _): &Answer| *status == 201).await;
    let answers = flood(&bob, "flood", 100).await;
    let refused: Vec<_> = answers.into_iter().filter(|answer| answer.status() == 429).collect();
    assert!(refused.len() > 20, "{} refused", refused.len());
    for answer in refused {
        assert_eq!(header(&answer, "Retry-After"), Some("1"));
        assert_eq!(classified(&answer), (None, None));
        assert_eq!(answer.into_body().collect_bytes().await.unwrap(), REFUSAL);
    }
    // Who may do everything is always answered.
    let answers = flood(&admin, "more", 100).await;
    assert!(answers.iter().all(|answer| answer.status() == 201));
    cluster.stop().await;
}
