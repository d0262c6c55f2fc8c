//! What becomes of objects on their way into the store.

use futures::future::join_all;
use serde_json::{Value, json};

use super::support::{Answer, Cluster, create_pod, eventually, message, namespace, namespace_with, pod};

#[tokio::test]
async fn a_plain_pod_is_completed() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let made = create_pod(&admin, "shop", &pod("web")).await;
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    let keys: Vec<_> =
        spec["tolerations"].as_array().into_iter().flatten().map(|each| each["key"].clone()).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    let volume = &spec["volumes"][0];
    assert!(volume["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")), "{spec}");
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let nowhere =
        admin.post("/api/v1/namespaces/nowhere/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((nowhere.0, message(&nowhere)), (404, "namespaces \"nowhere\" not found"));

    namespace(&admin, "shop").await;
    create_pod(&admin, "shop", &pod("first")).await;
    let pods = "/api/v1/namespaces/shop/pods";
    let with = |field: &str, value: Value| {
        let mut pod = pod("web");
        pod["spec"][field] = value;
        pod
    };
    let cases = [
        (
            with("serviceAccountName", json!("robot")),
            "pods \"web\" is forbidden: error looking up service account shop/robot: serviceaccount \"robot\" not found",
        ),
        (
            with("priorityClassName", json!("urgent")),
            "pods \"web\" is forbidden: no PriorityClass with name urgent was found",
        ),
        (
            with("runtimeClassName", json!("vm")),
            "pods \"web\" is forbidden: pod rejected: RuntimeClass \"vm\" not found",
        ),
    ];
    for (pod, text) in cases {
        let answer = admin.post(pods, &pod).await;
        assert_eq!((answer.0, message(&answer)), (403, text));
    }
    let answer = admin.delete("/api/v1/namespaces/kube-system").await;
    assert_eq!(answer.0, 403);
    assert_eq!(
        message(&answer),
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_ends() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let (status, ended) = admin.delete("/api/v1/namespaces/shop").await;
    assert_eq!(status, 200, "{ended}");
    let answer = admin.post("/api/v1/namespaces/shop/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(answer.0, 403);
    assert_eq!(
        message(&answer),
        "configmaps \"a\" is forbidden: unable to create new content in namespace shop because it is being terminated"
    );
    assert_eq!(answer.1["details"]["causes"][0]["reason"], "NamespaceTerminating");
    cluster.stop().await;
}

#[tokio::test]
async fn a_quota_holds_when_all_come_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let quotas = "/api/v1/namespaces/shop/resourcequotas";
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/configmaps": "5", "count/secrets": "0"}}});
    let made = admin.create(quotas, &quota).await;
    // A controller counts what is there already; here that is nothing.
    let mut counted = made.clone();
    counted["status"] =
        json!({"hard": made["spec"]["hard"], "used": {"count/configmaps": "0", "count/secrets": "0"}});
    assert_eq!(admin.ask("PUT", &format!("{quotas}/few/status"), Some(&counted)).await.0, 200);
    let maps = "/api/v1/namespaces/shop/configmaps";
    // The plugin reads quotas from a cache, which must have heard of this one.
    let body = json!({"metadata": {"name": "probe"}});
    let probe = || admin.post("/api/v1/namespaces/shop/secrets?dryRun=All", &body);
    eventually("the quota is seen", probe, |answer: &Answer| message(answer).contains("exceeded quota"))
        .await;

    let bodies: Vec<Value> = (0..12).map(|i| json!({"metadata": {"name": format!("m{i}")}})).collect();
    let answers = join_all(bodies.iter().map(|body| admin.post(maps, body))).await;
    let stored = admin.get(maps).await.1["items"].as_array().map_or(0, Vec::len);
    let accepted = answers.iter().filter(|(status, _)| *status == 201).count();
    assert_eq!((accepted, stored), (5, 5));
    let refused = answers.iter().find(|(status, _)| *status == 403).expect("some are refused");
    assert!(
        message(refused).ends_with(
            "is forbidden: exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=5, limited: \
             count/configmaps=5"
        ),
        "{refused:?}"
    );
    assert_eq!(admin.get(&format!("{quotas}/few")).await.1["status"]["used"]["count/configmaps"], "5");
    cluster.stop().await;
}

#[tokio::test]
async fn limits_and_levels() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    namespace_with(&admin, "shop", labels).await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}},
    ]}});
    admin.create("/api/v1/namespaces/shop/limitranges", &range).await;
    let mut count = 0;
    let pods = "/api/v1/namespaces/shop/pods";
    let next = || {
        count += 1;
        let (admin, body) = (admin.clone(), pod(&format!("p{count}")));
        async move { admin.post(pods, &body).await }
    };
    let made = eventually("limits are applied", next, |(status, body): &Answer| {
        *status == 201 && body["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "500m"
    })
    .await;
    assert_eq!(made.1["spec"]["containers"][0]["resources"]["requests"]["cpu"], "100m");

    let mut big = pod("big");
    big["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let answer = admin.post(pods, &big).await;
    assert_eq!(
        (answer.0, message(&answer)),
        (403, "pods \"big\" is forbidden: maximum cpu usage per Container is 1, but limit is 2")
    );

    let mut bold = pod("bold");
    bold["spec"]["hostNetwork"] = json!(true);
    let answer = admin.post(pods, &bold).await;
    assert_eq!(
        (answer.0, message(&answer)),
        (
            403,
            "pods \"bold\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
        )
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_keeps_to_itself() {
    let cluster =
        Cluster::with(|config, _| config.enable_admission_plugins = vec!["NodeRestriction".into()]).await;
    let admin = cluster.admin();
    let node = cluster.user("system:node:n1", &["system:nodes"]);
    let made = node.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    assert_eq!(made["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready", "{made}");
    let answer = node.post("/api/v1/nodes", &json!({"metadata": {"name": "n2"}})).await;
    assert_eq!(
        (answer.0, message(&answer)),
        (403, "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"")
    );
    let label = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/tier": "gold"}}});
    assert_eq!(node.ask("PATCH", "/api/v1/nodes/n1", Some(&label)).await.0, 403);
    assert_eq!(admin.ask("PATCH", "/api/v1/nodes/n1", Some(&label)).await.0, 200);
    cluster.stop().await;
}
