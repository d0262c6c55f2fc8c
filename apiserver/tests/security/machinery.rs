//! The machinery of the API over HTTP: bodies that are no objects, versions, tables, empty lists, and what the server
//! says of objects by itself.

use serde_json::{Value, json};

use super::support::{Answer, Asker, Cluster, create_pod, eventually, message, namespace, pod};

const MAPS: &str = "/api/v1/namespaces/app/configmaps";
const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

async fn cluster() -> (Cluster, Asker) {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "app").await;
    (cluster, admin)
}

#[tokio::test]
async fn bodies_and_paths_that_say_little_are_refused_in_upstreams_words() {
    let (cluster, admin) = cluster().await;
    let nothing = admin.post(MAPS, &Value::Null).await;
    assert_eq!(nothing.0, 422, "{nothing:?}");
    let list = admin.post(MAPS, &json!([])).await;
    assert_eq!(list.0, 400);
    assert!(
        message(&list).contains("json parse error: json: cannot unmarshal array into Go value"),
        "{list:?}"
    );
    let yaml = admin.clone().header("Content-Type", "application/yaml");
    let comment = yaml.ask("POST", MAPS, Some(&json!({"metadata": {"name": "a"}}))).await;
    assert_eq!(comment.0, 201, "JSON is YAML: {comment:?}");
    let unnamed = admin.get("/api/v1/namespaces//configmaps/a").await;
    assert_eq!((unnamed.0, message(&unnamed)), (400, "Namespace parameter required."));
    let any = admin.clone().header("Accept", "application/*").get(&format!("{MAPS}/a")).await;
    assert_eq!(any.0, 406);
    let watch = admin.get("/api/v1/componentstatuses?watch=true").await;
    assert_eq!(
        (watch.0, message(&watch)),
        (405, "watch is not supported on resources of kind \"componentstatuses\"")
    );
    create_pod(&admin, "app", &pod("p")).await;
    let log = admin.ask("PATCH", "/api/v1/namespaces/app/pods/p/log", Some(&json!({}))).await;
    assert_eq!(log.0, 405, "{log:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn patches_name_kinds_and_fit_types() {
    let (cluster, admin) = cluster().await;
    let path = format!("{MAPS}/a");
    admin.create(MAPS, &json!({"metadata": {"name": "a"}})).await;
    let version = admin.ask("PATCH", &path, Some(&json!({"apiVersion": "v2"}))).await;
    assert_eq!(version.0, 422);
    assert!(
        message(&version).contains("no kind \"ConfigMap\" is registered for version \"v2\""),
        "{version:?}"
    );
    let strategic = admin.clone().header("Content-Type", "application/strategic-merge-patch+json");
    for (patch, why) in [
        (json!({"data": true}), "Invalid value: \"map[data:true]\": cannot restore map from bool"),
        (json!({"metadata": {"labels": {"a": 1}}}), "cannot convert int64 to string"),
    ] {
        let refused = strategic.ask("PATCH", &path, Some(&patch)).await;
        assert_eq!(refused.0, 422);
        assert!(message(&refused).contains(why), "{refused:?}");
    }
    let other_kind = strategic.ask("PATCH", &path, Some(&json!({"kind": "Secret"}))).await;
    assert_eq!((other_kind.0, &other_kind.1["kind"]), (200, &json!("ConfigMap")));
    cluster.stop().await;
}

#[tokio::test]
async fn tables_and_metadata_are_of_the_stored_version() {
    let (cluster, admin) = cluster().await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let qps = json!({"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"}});
    let spec =
        json!({"maxReplicas": 3, "scaleTargetRef": target, "metrics": [{"type": "Pods", "pods": qps}]});
    let autoscalers = "/apis/autoscaling/v2/namespaces/app/horizontalpodautoscalers";
    admin.create(autoscalers, &json!({"metadata": {"name": "h"}, "spec": spec})).await;
    let old = "/apis/autoscaling/v1/namespaces/app/horizontalpodautoscalers/h";
    let (_, whole) = admin.get(old).await;
    assert!(whole["metadata"]["annotations"].is_object(), "{whole}");
    let asking = |what: &str| {
        let accept = format!("application/json;as={what};v=v1;g=meta.k8s.io");
        admin.clone().header("Accept", &accept)
    };
    let (_, table) = asking("Table").get(old).await;
    assert_eq!(table["rows"][0]["cells"][2], "<unknown>/10");
    assert_eq!(table["rows"][0]["object"]["metadata"]["annotations"], Value::Null);
    let (_, with_object) = asking("Table").get(&format!("{old}?includeObject=Object")).await;
    assert_eq!(with_object["rows"][0]["object"], whole);
    let (_, partial) = asking("PartialObjectMetadata").get(old).await;
    assert_eq!(partial["metadata"]["annotations"], Value::Null);
    cluster.stop().await;
}

#[tokio::test]
async fn an_empty_list_is_the_writers_and_stored_as_none() {
    let (cluster, admin) = cluster().await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/app/endpointslices";
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []});
    let made = admin.create(slices, &slice).await;
    assert_eq!((&made["endpoints"], &made["ports"]), (&Value::Null, &Value::Null));
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(*owned, json!({"f:addressType": {}, "f:endpoints": {}}));
    let mut same = made.clone();
    same["endpoints"] = json!([]);
    let (status, again) = admin.put(&format!("{slices}/s"), &same).await;
    assert_eq!((status, &again["metadata"]["resourceVersion"]), (200, &made["metadata"]["resourceVersion"]));
    cluster.stop().await;
}

#[tokio::test]
async fn flow_schemas_are_told_whether_their_level_exists() {
    let (cluster, admin) = cluster().await;
    let schema = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
    admin.create(&format!("{FLOW}/flowschemas"), &schema).await;
    let path = format!("{FLOW}/flowschemas/s");
    let says = |status: &'static str| {
        move |(_, schema): &Answer| schema["status"]["conditions"][0]["status"] == status
    };
    let (_, dangling) = eventually("it dangles", || admin.get(&path), says("True")).await;
    assert_eq!(dangling["status"]["conditions"][0]["reason"], "NotFound");
    let owner = &dangling["metadata"]["managedFields"][0];
    assert_eq!(
        (&owner["manager"], &owner["operation"], &owner["subresource"]),
        (&json!("api-priority-and-fairness-config-consumer-v1"), &json!("Apply"), &json!("status"))
    );
    let level = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    admin.create(&format!("{FLOW}/prioritylevelconfigurations"), &level).await;
    eventually("it does not dangle", || admin.get(&path), says("False")).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_administrators_access_needs_a_marked_namespace_and_allocations_a_permission() {
    let (cluster, admin) = cluster().await;
    let claims = "/apis/resource.k8s.io/v1/namespaces/app/resourceclaims";
    let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "adminAccess": true}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}});
    let refused = admin.post(claims, &claim).await;
    assert_eq!(refused.0, 422);
    let cause = &refused.1["details"]["causes"][0];
    assert_eq!(
        (&cause["field"], &cause["reason"]),
        (&json!("spec.devices.requests[0].adminAccess"), &json!("FieldValueForbidden"))
    );
    let mark = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    admin.ask("PATCH", "/api/v1/namespaces/app", Some(&mark)).await;
    let mut made = admin.create(claims, &claim).await;

    let rules =
        json!([{"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/status"], "verbs": ["*"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "status"}, "rules": rules});
    admin.create(&format!("{rbac}/clusterroles"), &role).await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "status"});
    let subjects = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]);
    let binding = json!({"metadata": {"name": "status"}, "roleRef": role, "subjects": subjects});
    admin.create(&format!("{rbac}/clusterrolebindings"), &binding).await;
    made["status"] = json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}],
        "allocation": {"devices": {}}});
    let bob = cluster.user("bob", &["system:authenticated"]);
    let status = format!("{claims}/c/status");
    let known =
        eventually("bob may write", || bob.put(&status, &made), |(code, _): &Answer| *code != 403).await;
    assert_eq!(known.0, 422, "{known:?}");
    assert!(
        message(&known).contains("requires resource=\"resourceclaims/binding\", verb=\"update\""),
        "{known:?}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_grows_only_as_its_node_can_bear() {
    let (cluster, admin) = cluster().await;
    let sized = |cpu: &str| json!([{"name": "main", "resources": {"requests": {"cpu": cpu}}}]);
    let mut given = pod("p");
    given["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    given["spec"]["nodeName"] = json!("n");
    create_pod(&admin, "app", &given).await;
    let strategic = admin.clone().header("Content-Type", "application/strategic-merge-patch+json");
    let path = "/api/v1/namespaces/app/pods/p/resize";
    let resize = |cpu: &str| {
        let (who, body) = (strategic.clone(), json!({"spec": {"containers": sized(cpu)}}));
        async move { who.ask("PATCH", path, Some(&body)).await }
    };
    let nowhere = resize("2").await;
    assert_eq!((nowhere.0, message(&nowhere)), (403, "pods \"p\" is forbidden: node \"n\" not found"));
    let node =
        json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "3"}, "capacity": {"cpu": "3"}}});
    admin.create("/api/v1/nodes", &node).await;
    let fits = eventually("it fits", || resize("2"), |(code, _): &Answer| *code == 200).await;
    assert_eq!(fits.1["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    let much = resize("4").await;
    assert_eq!(much.0, 403);
    assert!(message(&much).ends_with("cpu, requested: 4000, allocatable: 3000"), "{much:?}");
    assert_eq!(much.1["details"]["causes"][0]["reason"], "NodeCapacity");
    cluster.stop().await;
}

#[tokio::test]
async fn priority_classes_of_the_system_stay() {
    let cluster = Cluster::start().await;
    let path = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
    let (status, refused) = cluster.admin().delete(path).await;
    assert_eq!((status, &refused["reason"]), (403, &json!("Forbidden")));
    let why = "is forbidden: this is a system priority class and cannot be deleted";
    assert!(refused["message"].as_str().unwrap().ends_with(why), "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn embedded_objects_keep_their_text_in_every_encoding() {
    use api::codec::protobuf;

    const PATH: &str = "/apis/apps/v1/namespaces/app/controllerrevisions";
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    const TEXT: &str = r#"{"z":1,"a":{"c":1e3,"b":[]}}"#;
    let (cluster, admin) = cluster().await;
    let send = async |method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        let request = http::Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = admin.client.send(request.body(body.into()).expect("a request")).await;
        let response = response.expect("an answer");
        let status = response.status().as_u16();
        (status, response.into_body().collect_bytes().await.expect("a body"))
    };
    let json = |name: &str| {
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{{"name":"{name}"}},"data":{TEXT},"revision":1}}"#
        )
    };
    let gvk = api::names::GroupVersionKind::new("apps", "v1", "ControllerRevision");
    let ty = api::schema::type_for(&gvk).expect("a type");
    let decoded = ty.decode_slice(json("sent").as_bytes()).expect("a revision");
    let mut message = Vec::new();
    protobuf::encode_message(&mut message, &decoded.value, ty).expect("a message");
    let message = protobuf::restore(&message, ty, &decoded.verbatim).expect("a message");
    let sent = protobuf::enveloped("apps/v1", "ControllerRevision", |out| out.extend_from_slice(&message));
    for (kind, body) in [("application/json", json("written").into_bytes()), (PROTOBUF, sent)] {
        let headers = [("Content-Type", kind), ("Accept", PROTOBUF)];
        let (status, answer) = send("POST", PATH, &headers, body).await;
        assert_eq!(status, 201, "{kind}");
        assert!(memchr::memmem::find(&answer, TEXT.as_bytes()).is_some(), "the answer to {kind}");
    }
    for name in ["written", "sent"] {
        for accept in ["application/json", PROTOBUF] {
            let (_, one) = send("GET", &format!("{PATH}/{name}"), &[("Accept", accept)], Vec::new()).await;
            assert!(memchr::memmem::find(&one, TEXT.as_bytes()).is_some(), "{name} as {accept}");
        }
    }
    for accept in ["application/json", PROTOBUF] {
        let (_, all) = send("GET", PATH, &[("Accept", accept)], Vec::new()).await;
        assert_eq!(memchr::memmem::find_iter(&all, TEXT.as_bytes()).count(), 2, "the list as {accept}");
    }
    cluster.stop().await;
}
