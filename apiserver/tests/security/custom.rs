//! Custom resources, from their definition to their end.

use serde_json::{Value, json};

use super::support::{Answer, Cluster, eventually, message, namespace};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GADGETS: &str = "/apis/example.com/v1/namespaces/shop/gadgets";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "color": {"type": "string", "default": "red"},
            "replicas": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
    let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}, "scale": scale}, "selectableFields": [{"jsonPath": ".spec.color"}],
               "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
           "metadata": {"name": "gadgets.example.com"},
           "spec": {"group": "example.com", "scope": "Namespaced",
                    "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "shortNames": ["gg"]},
                    "versions": [version("v1", true), version("v2", false)]}})
}

fn gadget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": spec})
}

fn is_true(answer: &Answer, condition: &str) -> bool {
    let conditions = answer.1["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

async fn established() -> Cluster {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let made = admin.post(DEFINITIONS, &definition()).await;
    assert_eq!(made.0, 201, "{made:?}");
    let path = format!("{DEFINITIONS}/gadgets.example.com");
    eventually("it is established", || admin.get(&path), |answer| is_true(answer, "Established")).await;
    cluster
}

#[tokio::test]
async fn what_is_established_is_served_at_once() {
    let cluster = established().await;
    let admin = cluster.admin();
    // Nothing is waited for: the condition is a promise.
    let made = admin.post(GADGETS, &gadget("a", json!({"size": 3, "unknown": true}))).await;
    assert_eq!(made.0, 201, "{made:?}");
    assert_eq!(made.1["spec"], json!({"size": 3, "color": "red"}), "pruned and defaulted");
    assert_eq!(made.1["metadata"]["generation"], 1);
    let (_, other) = admin.get("/apis/example.com/v2/namespaces/shop/gadgets/a").await;
    assert_eq!((&other["apiVersion"], &other["spec"]), (&json!("example.com/v2"), &made.1["spec"]));
    let (_, group) = admin.get("/apis/example.com").await;
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let (_, resources) = admin.get("/apis/example.com/v1").await;
    let names: Vec<_> = resources["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["gadgets", "gadgets/status", "gadgets/scale"]);
    cluster.stop().await;
}

#[tokio::test]
async fn values_are_checked_by_the_schema() {
    let cluster = established().await;
    let admin = cluster.admin();
    let refused = admin.post(GADGETS, &gadget("a", json!({"size": 0}))).await;
    let why = "Gadget.example.com \"a\" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater \
               than or equal to 1";
    assert_eq!((refused.0, message(&refused)), (422, why));
    let refused = admin.post(GADGETS, &gadget("a", json!({}))).await;
    assert_eq!(message(&refused), "Gadget.example.com \"a\" is invalid: spec.size: Required value");
    let strict = format!("{GADGETS}?fieldValidation=Strict");
    let refused = admin.post(&strict, &gadget("a", json!({"size": 1, "b": 1}))).await;
    assert!(message(&refused).ends_with("strict decoding error: unknown field \"spec.b\""), "{refused:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn rules_hold_for_definitions_and_objects() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let with = |rule: &str| {
        let mut definition = definition();
        for version in definition["spec"]["versions"].as_array_mut().unwrap() {
            let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            spec["x-kubernetes-validations"] = json!([{"rule": rule, "message": "must not shrink"}]);
        }
        definition
    };
    let refused = admin.post(DEFINITIONS, &with("self.nope")).await;
    assert_eq!(refused.0, 422, "{refused:?}");
    assert!(message(&refused).contains("undefined field 'nope'"), "{refused:?}");
    assert_eq!(admin.post(DEFINITIONS, &with("self.size >= oldSelf.size")).await.0, 201);
    let path = format!("{DEFINITIONS}/gadgets.example.com");
    eventually("it is established", || admin.get(&path), |answer| is_true(answer, "Established")).await;
    let (status, mut object) = admin.post(GADGETS, &gadget("a", json!({"size": 3}))).await;
    assert_eq!(status, 201);
    object["spec"]["size"] = json!(2);
    let refused = admin.put(&format!("{GADGETS}/a"), &object).await;
    let why = "Gadget.example.com \"a\" is invalid: spec: Invalid value: must not shrink";
    assert_eq!((refused.0, message(&refused)), (422, why));
    cluster.stop().await;
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own() {
    let cluster = established().await;
    let admin = cluster.admin();
    let mut object = admin.post(GADGETS, &gadget("a", json!({"size": 1, "replicas": 2}))).await.1;
    let path = format!("{GADGETS}/a");
    object["status"] = json!({"replicas": 5});
    object["spec"]["size"] = json!(9);
    let (_, changed) = admin.put(&format!("{path}/status"), &object).await;
    assert_eq!((&changed["spec"]["size"], &changed["status"]["replicas"]), (&json!(1), &json!(5)));
    assert_eq!(changed["metadata"]["generation"], 1);
    let (_, mut scale) = admin.get(&format!("{path}/scale")).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(2), &json!(5)));
    scale["spec"]["replicas"] = json!(4);
    assert_eq!(admin.put(&format!("{path}/scale"), &scale).await.0, 200);
    let (_, scaled) = admin.get(&path).await;
    assert_eq!((&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]), (&json!(4), &json!(2)));
    cluster.stop().await;
}

#[tokio::test]
async fn fields_of_the_definition_select() {
    let cluster = established().await;
    let admin = cluster.admin();
    for (name, color) in [("a", "red"), ("b", "blue")] {
        admin.post(GADGETS, &gadget(name, json!({"size": 1, "color": color}))).await;
    }
    let (_, list) = admin.get(&format!("{GADGETS}?fieldSelector=spec.color%3Dblue")).await;
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!((names, &list["kind"]), (vec![&json!("b")], &json!("GadgetList")));
    let refused = admin.get(&format!("{GADGETS}?fieldSelector=spec.size%3D1")).await;
    assert_eq!((refused.0, message(&refused)), (400, "field label not supported: spec.size"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let cluster = established().await;
    let admin = cluster.admin();
    let mut held = gadget("held", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    for object in [gadget("free", json!({"size": 1})), held] {
        assert_eq!(admin.post(GADGETS, &object).await.0, 201);
    }
    let path = format!("{DEFINITIONS}/gadgets.example.com");
    assert_eq!(admin.delete(&path).await.0, 200);
    let free = format!("{GADGETS}/free");
    eventually("what nothing holds is gone", || admin.get(&free), |answer| answer.0 == 404).await;
    let answer = admin.get(&path).await;
    assert!(is_true(&answer, "Terminating"), "it waits for the other: {answer:?}");
    let refused = admin.post(GADGETS, &gadget("late", json!({"size": 1}))).await;
    assert_eq!(refused.0, 403, "{refused:?}");
    // It may be marked as deleted just now, so that what was read is not what is there any more.
    let let_go = || async {
        let (_, mut held) = admin.get(&format!("{GADGETS}/held")).await;
        held["metadata"]["finalizers"] = json!([]);
        admin.put(&format!("{GADGETS}/held"), &held).await
    };
    eventually("the other is let go", let_go, |answer| answer.0 == 200).await;
    eventually("the definition is gone", || admin.get(&path), |answer| answer.0 == 404).await;
    let gone = |answer: &Answer| answer.0 == 404;
    eventually("nothing is served any more", || admin.get("/apis/example.com/v1"), gone).await;
    cluster.stop().await;
}

#[tokio::test]
async fn two_definitions_do_not_get_one_kind() {
    let cluster = established().await;
    let admin = cluster.admin();
    let mut second = definition();
    second["metadata"]["name"] = json!("things.example.com");
    second["spec"]["names"]["plural"] = json!("things");
    second["spec"]["names"]["singular"] = json!("thing");
    assert_eq!(admin.post(DEFINITIONS, &second).await.0, 201);
    let path = format!("{DEFINITIONS}/things.example.com");
    let refused = |answer: &Answer| {
        let conditions = answer.1["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == "NamesAccepted" && c["status"] == "False")
    };
    eventually("its names are refused", || admin.get(&path), refused).await;
    assert!(!is_true(&admin.get(&path).await, "Established"));
    // They are free when the first one goes.
    admin.delete(&format!("{DEFINITIONS}/gadgets.example.com")).await;
    eventually("it gets them", || admin.get(&path), |answer| is_true(answer, "Established")).await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_missed_as_its_group_is_served() {
    let cluster = established().await;
    let admin = cluster.admin();
    for path in ["/apis/apps/v9/deployments", "/apis/apps/v1/widgets"] {
        let answer = admin.get(path).await;
        assert_eq!((answer.0, answer.1["kind"].as_str()), (404, Some("Status")), "{path}: {answer:?}");
    }
    let others =
        ["/apis/example.com/v1/widgets", "/apis/example.com/v9/gadgets", "/apis/nope.example.com/v1/things"];
    for path in others {
        let answer = admin.get(path).await;
        assert_eq!((answer.0, answer.1.is_object()), (404, false), "{path}: {answer:?}");
    }
    cluster.stop().await;
}
