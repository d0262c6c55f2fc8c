//! Custom resources whose versions a webhook converts.

use serde_json::{Value, json};

use super::hook::{Call, Hook, Reply, service};
use super::support::{Answer, Asker, Cluster, eventually, message, namespace};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/stable.example.com/v1/namespaces/shop/hosts";
const V2: &str = "/apis/stable.example.com/v2/namespaces/shop/hosts";

/// `hostPort` in v1 is `host` and `port` in v2.
fn converted(object: &Value, to: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = to.into();
    match to {
        "stable.example.com/v2" => {
            let both = object["hostPort"].as_str().unwrap_or_default().to_owned();
            let (host, port) = both.split_once(':').unwrap_or((&both, ""));
            (object["host"], object["port"]) = (host.into(), port.into());
            object.as_object_mut().unwrap().remove("hostPort");
        }
        _ => {
            let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
            let both = format!("{}:{}", text("host"), text("port"));
            object["hostPort"] = both.into();
            for gone in ["host", "port"] {
                object.as_object_mut().unwrap().remove(gone);
            }
        }
    }
    object
}

fn convert(call: &Call) -> Reply {
    let request = &call.body["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects: Vec<Value> =
        request["objects"].as_array().into_iter().flatten().map(|object| converted(object, to)).collect();
    let response =
        json!({"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects});
    json!({"apiVersion": call.body["apiVersion"], "kind": "ConversionReview", "response": response}).into()
}

fn definition(client_config: Value, stored: &str) -> Value {
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        let selectable: Vec<Value> =
            fields.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        json!({"name": name, "served": true, "storage": name == stored, "selectableFields": selectable,
               "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
           "metadata": {"name": "hosts.stable.example.com"},
           "spec": {"group": "stable.example.com", "scope": "Namespaced",
                    "names": {"plural": "hosts", "singular": "host", "kind": "Host"},
                    "versions": [version("v1", &["hostPort"]), version("v2", &["host", "port"])],
                    "conversion": {"strategy": "Webhook", "webhook":
                        {"clientConfig": client_config, "conversionReviewVersions": ["v1", "v1beta1"]}}}})
}

fn host(version: &str, name: &str, fields: Value) -> Value {
    let mut object = json!({"apiVersion": format!("stable.example.com/{version}"), "kind": "Host",
                            "metadata": {"name": name}});
    for (key, value) in fields.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

async fn establish(admin: &Asker, definition: &Value) {
    let made = admin.post(DEFINITIONS, definition).await;
    assert_eq!(made.0, 201, "{made:?}");
    let path = format!("{DEFINITIONS}/hosts.stable.example.com");
    let established = |answer: &Answer| {
        let conditions = answer.1["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
    };
    eventually("it is established", || admin.get(&path), established).await;
}

async fn with_hook(hook: &Hook) -> Cluster {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    namespace(&admin, "hooks").await;
    service(&admin, "hook").await;
    establish(&admin, &definition(hook.by_service("/convert"), "v1")).await;
    cluster
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn objects_are_converted_on_their_way_in_and_out() {
    let hook = Hook::start(convert).await;
    let cluster = with_hook(&hook).await;
    let admin = cluster.admin();
    let get = |path: String| {
        let admin = admin.clone();
        async move { admin.get(&path).await }
    };
    // The Service may not be known yet.
    let object = host("v2", "a", json!({"host": "h", "port": "80"}));
    let made = eventually("it is made", || admin.post(V2, &object), |answer| answer.0 == 201).await;
    assert_eq!((&made.1["host"], &made.1["apiVersion"]), (&json!("h"), &json!("stable.example.com/v2")));
    let (_, stored) = get(format!("{V1}/a")).await;
    assert_eq!(
        (&stored["hostPort"], &stored["metadata"]["uid"]),
        (&json!("h:80"), &made.1["metadata"]["uid"])
    );
    let (_, mut again) = get(format!("{V2}/a")).await;
    assert_eq!((&again["host"], &again["port"]), (&json!("h"), &json!("80")));
    again["port"] = json!("81");
    let (status, changed) = admin.put(&format!("{V2}/a"), &again).await;
    assert_eq!((status, &changed["port"]), (200, &json!("81")), "{changed}");
    let patch = json!({"host": "other"});
    let (_, patched) = admin.ask("PATCH", &format!("{V2}/a"), Some(&patch)).await;
    assert_eq!((&patched["host"], &patched["port"]), (&json!("other"), &json!("81")));
    let (_, stored) = get(format!("{V1}/a")).await;
    assert_eq!(stored["hostPort"], "other:81");
    let (status, _) = admin.delete(&format!("{V2}/a")).await;
    assert_eq!((status, admin.get(&format!("{V1}/a")).await.0), (200, 404));
    let call = hook.calls().pop().unwrap();
    assert_eq!(call.target, "/convert?timeout=30s");
    assert!(hook.connections() < hook.calls().len(), "connections are used again");
    cluster.stop().await;
}

#[tokio::test]
async fn lists_of_mixed_versions_are_converted_at_once_and_selected_by_their_own_fields() {
    let hook = Hook::start(convert).await;
    let cluster = with_hook(&hook).await;
    let admin = cluster.admin();
    for (name, both) in [("a", "x:1"), ("b", "y:2"), ("c", "x:3")] {
        admin.create(V1, &host("v1", name, json!({"hostPort": both}))).await;
    }
    // From now on objects are stored in the other version.
    let path = format!("{DEFINITIONS}/hosts.stable.example.com");
    let (_, mut changed) = admin.get(&path).await;
    for version in changed["spec"]["versions"].as_array_mut().unwrap() {
        version["storage"] = json!(version["name"] == "v2");
    }
    assert_eq!(admin.put(&path, &changed).await.0, 200);
    let stored = || async {
        let (_, found) = admin
            .get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hosts.stable.example.com")
            .await;
        found
    };
    eventually("both are stored", stored, |found| found["status"]["storedVersions"] == json!(["v1", "v2"]))
        .await;
    let object = host("v2", "d", json!({"host": "x", "port": "4"}));
    eventually("it is made", || admin.post(V2, &object), |answer| answer.0 == 201).await;
    let before = hook.calls().len();
    let (_, list) = admin.get(V2).await;
    assert_eq!(names(&list), ["a", "b", "c", "d"]);
    let hosts: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["host"]).collect();
    assert_eq!(hosts, ["x", "y", "x", "x"]);
    let calls = hook.calls();
    assert_eq!(calls.len(), before + 1, "one call for all");
    assert_eq!(calls[before].body["request"]["objects"].as_array().unwrap().len(), 3);
    admin.get(V2).await;
    assert_eq!(hook.calls().len(), before + 1, "what has been converted is kept");
    let (_, selected) = admin.get(&format!("{V2}?fieldSelector=host%3Dx&limit=2")).await;
    assert_eq!(names(&selected), ["a", "c"]);
    let token = selected["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = admin.get(&format!("{V2}?fieldSelector=host%3Dx&limit=2&continue={token}")).await;
    assert_eq!(names(&rest), ["d"]);
    let (_, selected) = admin.get(&format!("{V1}?fieldSelector=hostPort%3Dx:4")).await;
    assert_eq!(names(&selected), ["d"]);
    let refused = admin.get(&format!("{V1}?fieldSelector=host%3Dx")).await;
    assert_eq!((refused.0, message(&refused)), (400, "field label not supported: host"));
    cluster.stop().await;
}

#[tokio::test]
async fn watches_see_the_version_they_ask_for() {
    let hook = Hook::start(convert).await;
    let cluster = with_hook(&hook).await;
    let admin = cluster.admin();
    admin.create(V1, &host("v1", "a", json!({"hostPort": "x:1"}))).await;
    admin.create(V1, &host("v1", "b", json!({"hostPort": "y:1"}))).await;
    let mut changed = admin.get(&format!("{V1}/b")).await.1;
    changed["hostPort"] = json!("x:2");
    assert_eq!(admin.put(&format!("{V1}/b"), &changed).await.0, 200);
    admin.delete(&format!("{V1}/a")).await;
    let first = changed["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let watch = format!("{V2}?watch=1&fieldSelector=host%3Dx&timeoutSeconds=1&resourceVersion={first}");
    let (_, events) = admin.get(&watch).await;
    let events: Vec<Value> =
        events.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &str, &str)> = events
        .iter()
        .map(|event| {
            let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
            let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
            let object = &event["object"];
            (leak(text(&event["type"])), leak(text(&object["metadata"]["name"])), leak(text(&object["port"])))
        })
        .collect();
    assert_eq!(told, [("ADDED", "b", "2"), ("DELETED", "a", "1")]);
    let version = |at: usize| -> u64 {
        events[at]["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    };
    assert!(version(1) > version(0), "deleted objects are of the deletion's version");
    cluster.stop().await;
}

#[tokio::test]
async fn failures_are_told_in_upstreams_words() {
    let hook = Hook::start(|call| {
        let uid = &call.body["request"]["uid"];
        let name = &call.body["request"]["objects"][0]["metadata"]["name"];
        if name == "no" {
            return Reply::Raw(500, "text/plain", "out of order".to_owned());
        }
        let result = json!({"status": "Failure", "message": "this host cannot be converted"});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
               "response": {"uid": uid, "result": result}})
        .into()
    })
    .await;
    let cluster = with_hook(&hook).await;
    let admin = cluster.admin();
    for name in ["a", "no"] {
        admin.create(V1, &host("v1", name, json!({"hostPort": "x:1"}))).await;
    }
    let converted = |name: &str| {
        let (admin, path) = (admin.clone(), format!("{V2}/{name}"));
        async move { admin.get(&path).await }
    };
    let refused =
        eventually("the hook is found", || converted("a"), |answer| !message(answer).contains("not found"))
            .await;
    let why = "conversion webhook for stable.example.com/v1, Kind=Host failed: this host cannot be converted";
    assert_eq!((refused.0, message(&refused), refused.1.get("reason")), (500, why, None));
    let refused = converted("no").await;
    let why = "conversion webhook for stable.example.com/v1, Kind=Host failed: an error on the server (\"out of \
               order\") has prevented the request from succeeding";
    assert_eq!((refused.0, message(&refused)), (500, why));
    assert_eq!(admin.get(V2).await.0, 500);
    assert_eq!(admin.get(V1).await.0, 200, "what needs no conversion is read as ever");
    cluster.stop().await;
}

#[tokio::test]
async fn managers_of_other_versions_keep_their_fields() {
    let hook = Hook::start(convert).await;
    let cluster = with_hook(&hook).await;
    let admin = cluster.admin().header("Content-Type", "application/apply-patch+yaml");
    let path = |version: &str, manager: &str| {
        format!("/apis/stable.example.com/{version}/namespaces/shop/hosts/a?fieldManager={manager}")
    };
    let (config, target) = (host("v2", "a", json!({"host": "h", "port": "1"})), path("v2", "two"));
    let apply = || admin.ask("PATCH", &target, Some(&config));
    let applied = eventually("it is applied", apply, |answer| answer.0 == 201).await;
    assert_eq!(applied.1["port"], "1");
    // hostPort is changed as seen from v1: both fields of v2 are in conflict.
    let config = host("v1", "a", json!({"hostPort": "h:2"}));
    let (status, applied) = admin.ask("PATCH", &path("v1", "one"), Some(&config)).await;
    assert_eq!((status, &applied["reason"]), (409, &json!("Conflict")), "{applied}");
    let (status, applied) =
        admin.ask("PATCH", &format!("{}&force=true", path("v1", "one")), Some(&config)).await;
    assert_eq!((status, &applied["hostPort"]), (200, &json!("h:2")), "{applied}");
    let managers = applied["metadata"]["managedFields"].as_array().unwrap();
    let of = |name: &str| managers.iter().find(|entry| entry["manager"] == name);
    assert_eq!(of("one").unwrap()["apiVersion"], "stable.example.com/v1");
    assert_eq!(of("two").unwrap()["fieldsV1"], json!({"f:host": {}}), "{applied}");
    cluster.stop().await;
}
