//! Server-side apply, as clients see it.

use serde_json::{Value, json};

use super::support::{Answer, Asker, Cluster, eventually, message, namespace};

const MAPS: &str = "/api/v1/namespaces/app/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/app/deployments";

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(spec: Value) -> Value {
    let container = json!({"name": "c", "image": "example.com/c:1"});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}});
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"a": "b"}});
    spec["template"] = template;
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

async fn apply(who: &Asker, path: &str, query: &str, body: &Value) -> Answer {
    let who = who.clone().header("Content-Type", "application/apply-patch+yaml");
    who.ask("PATCH", &format!("{path}?{query}"), Some(body)).await
}

async fn cluster() -> (Cluster, Asker) {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "app").await;
    (cluster, admin)
}

#[tokio::test]
async fn an_object_is_made_kept_and_shared_by_apply() {
    let (cluster, admin) = cluster().await;
    let path = format!("{MAPS}/a");
    let config = config_map("a", json!({"k": "1"}));

    let (status, dry) = apply(&admin, &path, "fieldManager=alice&dryRun=All", &config).await;
    assert_eq!(status, 201, "{dry}");
    assert_eq!(admin.get(&path).await.0, 404);

    let (status, made) = apply(&admin, &path, "fieldManager=alice", &config).await;
    assert_eq!(status, 201, "{made}");
    let (status, again) = apply(&admin, &path, "fieldManager=alice", &config).await;
    assert_eq!((status, &again), (200, &made), "applying the same writes nothing");

    let other = config_map("a", json!({"k": "2", "l": "2"}));
    let (status, refused) = apply(&admin, &path, "fieldManager=bob", &other).await;
    assert_eq!(status, 409);
    let cause =
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"alice\"", "field": ".data.k"});
    assert_eq!(refused["details"], json!({"causes": [cause]}));
    let (status, forced) = apply(&admin, &path, "fieldManager=bob&force=true", &other).await;
    assert_eq!((status, &forced["data"]), (200, &json!({"k": "2", "l": "2"})));

    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let (_, left) = apply(&admin, &path, "fieldManager=bob", &nothing).await;
    assert_eq!((&left["data"], &left["metadata"]["managedFields"]), (&Value::Null, &Value::Null));
    cluster.stop().await;
}

#[tokio::test]
async fn options_and_bodies_are_checked() {
    let (cluster, admin) = cluster().await;
    let path = format!("{MAPS}/a");
    let config = config_map("a", json!({"k": "1"}));
    let asked = apply(&admin, &path, "", &config).await;
    assert_eq!(asked.0, 422);
    assert!(
        message(&asked).ends_with("fieldManager: Required value: is required for apply patch"),
        "{asked:?}"
    );
    let forced = admin.ask("PATCH", &format!("{path}?force=true"), Some(&config)).await;
    assert_eq!(forced.0, 422);
    assert!(
        message(&forced).ends_with("force: Forbidden: may not be specified for non-apply patch"),
        "{forced:?}"
    );
    let cbor = admin.clone().header("Content-Type", "application/apply-patch+cbor");
    assert_eq!(cbor.ask("PATCH", &format!("{path}?fieldManager=a"), Some(&config)).await.0, 415);
    let unknown = apply(&admin, &path, "fieldManager=a", &json!({"bogus": 1})).await;
    assert_eq!((unknown.0, message(&unknown)), (400, "invalid object type: /, Kind="));
    let mut unknown = config.clone();
    unknown["bogus"] = 1.into();
    let unknown = apply(&admin, &path, "fieldManager=a", &unknown).await;
    assert_eq!(
        (unknown.0, message(&unknown)),
        (
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .bogus: field not declared in schema"
        )
    );
    cluster.stop().await;
}

#[tokio::test]
async fn who_may_not_create_does_not_create_by_apply() {
    let (cluster, admin) = cluster().await;
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/app";
    admin.create(&format!("{roles}/roles"), &json!({"metadata": {"name": "patcher"}, "rules": [rule]})).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "patcher"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "bob"}]});
    admin.create(&format!("{roles}/rolebindings"), &binding).await;
    admin.create(MAPS, &config_map("there", json!({"k": "1"}))).await;

    let bob = cluster.user("bob", &[]);
    let there = format!("{MAPS}/there");
    let change = || apply(&bob, &there, "fieldManager=bob", &Value::Null);
    // The roles are known a little later than they are made.
    eventually("bob may patch", change, |(status, _)| *status != 403).await;
    let config = config_map("there", json!({"l": "1"}));
    assert_eq!(apply(&bob, &there, "fieldManager=bob", &config).await.0, 200);
    let made = apply(&bob, &format!("{MAPS}/new"), "fieldManager=bob", &config_map("new", json!({}))).await;
    assert_eq!(
        (made.0, message(&made)),
        (
            403,
            "configmaps \"new\" is forbidden: User \"bob\" cannot create resource \"configmaps\" in API group \"\" in \
             the namespace \"app\""
        )
    );
    cluster.stop().await;
}

#[tokio::test]
async fn replicas_are_owned_where_they_were_written() {
    let (cluster, admin) = cluster().await;
    let path = format!("{DEPLOYMENTS}/d");
    let (status, answer) =
        apply(&admin, &path, "fieldManager=alice", &deployment(json!({"replicas": 1}))).await;
    assert_eq!(status, 201, "{answer}");
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}});
    let scaled = format!("{path}/scale");
    assert_eq!(apply(&admin, &scaled, "fieldManager=hpa", &scale).await.0, 409);
    let (status, answer) = apply(&admin, &scaled, "fieldManager=hpa&force=true", &scale).await;
    assert_eq!((status, &answer["spec"]), (200, &json!({"replicas": 3})));
    let (_, object) = admin.get(&path).await;
    let entries = object["metadata"]["managedFields"].as_array().expect("entries").clone();
    let own = entries.iter().find(|entry| entry["manager"] == "hpa").expect("the scaler");
    assert_eq!(
        (&own["apiVersion"], &own["subresource"], &own["fieldsV1"]),
        (&json!("apps/v1"), &json!("scale"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    let refused = apply(&admin, &path, "fieldManager=alice", &deployment(json!({"replicas": 1}))).await;
    assert_eq!(
        message(&refused),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\": .spec.replicas"
    );
    // Who lets go of a field leaves it to its owner.
    let (status, object) = apply(&admin, &path, "fieldManager=alice", &deployment(json!({}))).await;
    assert_eq!((status, &object["spec"]["replicas"]), (200, &json!(3)));
    cluster.stop().await;
}

#[tokio::test]
async fn a_part_owns_only_what_it_can_change() {
    let (cluster, admin) = cluster().await;
    let path = format!("{DEPLOYMENTS}/d");
    let status_of = |replicas: i32| {
        let mut object = deployment(json!({"paused": true}));
        object["status"] = json!({"replicas": replicas, "observedGeneration": 1});
        object
    };
    assert_eq!(apply(&admin, &format!("{path}/status"), "fieldManager=c", &status_of(2)).await.0, 404);
    admin.create(DEPLOYMENTS, &deployment(json!({}))).await;
    let (status, object) = apply(&admin, &format!("{path}/status"), "fieldManager=c", &status_of(2)).await;
    assert_eq!(status, 200, "{object}");
    assert_eq!((&object["status"]["replicas"], &object["spec"]["paused"]), (&json!(2), &Value::Null));
    let entries = object["metadata"]["managedFields"].as_array().expect("entries").clone();
    let own = entries.iter().find(|entry| entry["manager"] == "c").expect("the controller");
    assert_eq!(own["fieldsV1"], json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}}));
    cluster.stop().await;
}
