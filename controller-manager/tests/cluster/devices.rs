//! Claims for devices: made for a pod, reserved for it, and gone with it.

use super::harness::Cluster;
use super::store::text;
use serde_json::{Value, json};

const RESOURCE: &str = "resource.k8s.io/v1";

fn claims(cluster: &Cluster) -> Vec<Value> {
    cluster.list(RESOURCE, "resourceclaims")
}

#[tokio::test(start_paused = true)]
async fn claims_are_made_from_templates_and_go_with_their_pods() {
    let cluster = Cluster::start(&["--controllers=*,-node-lifecycle-controller"]).await;
    let wanted = json!({ "name": "gpu", "resourceClaimTemplateName": "one-gpu" });
    let spec = json!({ "containers": [{ "name": "c", "image": "one" }], "resourceClaims": [wanted] });
    cluster.create("v1", "pods", json!({ "kind": "Pod", "metadata": { "name": "web" }, "spec": spec }));
    cluster.rests().await;
    assert!(claims(&cluster).is_empty(), "there is no template yet");
    let template = json!({ "kind": "ResourceClaimTemplate", "metadata": { "name": "one-gpu" },
                           "spec": { "spec": {} } });
    cluster.create(RESOURCE, "resourceclaimtemplates", template);
    let told = |cluster: &Cluster| {
        let pod = cluster.get("v1", "pods", "web");
        text(&pod, "/status/resourceClaimStatuses/0/resourceClaimName").to_owned()
    };
    cluster.wait("the claim", |cluster| !told(cluster).is_empty()).await;
    cluster.rests().await;
    let name = told(&cluster);
    assert_eq!(claims(&cluster).len(), 1, "it is made once");
    assert!(name.starts_with("web-gpu-"));
    // As the scheduler would: allocated, but for nobody.
    let finalizers = json!({ "metadata": { "finalizers": ["resource.kubernetes.io/delete-protection"] } });
    cluster.change(RESOURCE, "resourceclaims", &name, finalizers);
    let key = super::key(RESOURCE, "resourceclaims", &name);
    cluster.store.patch(&key, "status", &json!({ "status": { "allocation": {} } })).expect("it is there");
    cluster
        .wait("the reservation", |cluster| {
            text(&cluster.get(RESOURCE, "resourceclaims", &name), "/status/reservedFor/0/name") == "web"
        })
        .await;
    cluster.delete("v1", "pods", "web", json!({}));
    cluster.wait("the end of the claim", |cluster| claims(cluster).is_empty()).await;
    cluster.rests().await;
    cluster.stop().await;
}

fn slice(taints: Value) -> Value {
    json!({ "kind": "ResourceSlice", "metadata": { "name": "s" },
            "spec": { "driver": "d", "nodeName": "n1",
                      "pool": { "name": "p", "generation": 1, "resourceSliceCount": 1 },
                      "devices": [{ "name": "gpu", "taints": taints }] } })
}

fn broken(added: jiff::Timestamp) -> Value {
    json!([{ "key": "broken", "effect": "NoExecute", "timeAdded": added.to_string() }])
}

/// Pods `tolerant` and `web` that both use device `gpu`; the first tolerates its taints for an hour.
fn users(cluster: &Cluster) {
    for (name, tolerations) in [
        ("tolerant", json!([{ "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3600 }])),
        ("web", json!([])),
    ] {
        let spec = json!({ "containers": [{ "name": "c", "image": "one" }],
                           "resourceClaims": [{ "name": "gpu", "resourceClaimName": name }] });
        cluster.create("v1", "pods", json!({ "kind": "Pod", "metadata": { "name": name }, "spec": spec }));
        let uid = text(&cluster.get("v1", "pods", name), "/metadata/uid").to_owned();
        let given = json!({ "request": "r", "driver": "d", "pool": "p", "device": "gpu", "tolerations": tolerations });
        let status = json!({ "allocation": { "devices": { "results": [given] } },
                             "reservedFor": [{ "resource": "pods", "name": name, "uid": uid }] });
        let claim =
            json!({ "kind": "ResourceClaim", "metadata": { "name": name }, "spec": {}, "status": status });
        cluster.create(RESOURCE, "resourceclaims", claim);
    }
}

#[tokio::test(start_paused = true)]
async fn pods_leave_devices_whose_taints_they_do_not_tolerate() {
    let cluster = Cluster::start(&["--controllers=*,-node-lifecycle-controller"]).await;
    cluster.create(RESOURCE, "resourceslices", slice(json!([])));
    users(&cluster);
    cluster.rests().await;
    assert_eq!(cluster.list("v1", "pods").len(), 2);
    let began = cluster.writes.lock().len();
    // A minute ago: who tolerates it for an hour stays.
    let added = cluster.store.clock.now() - jiff::SignedDuration::from_mins(1);
    cluster.change(RESOURCE, "resourceslices", "s", json!({ "spec": slice(broken(added))["spec"] }));
    cluster.wait("the eviction", |cluster| cluster.get("v1", "pods", "web").is_null()).await;
    let changes = cluster.store.changes(0);
    let told = changes.iter().rev().find_map(|change| change.object.pointer("/status/conditions/1").cloned());
    let told = told.expect("the pod says why it goes");
    assert_eq!(told["type"], "DisruptionTarget");
    assert_eq!(told["reason"], "DeletionByDeviceTaintManager");
    assert!(!cluster.get("v1", "pods", "tolerant").is_null(), "it has time left");
    cluster.change(RESOURCE, "resourceslices", "s", json!({ "spec": slice(json!([]))["spec"] }));
    cluster
        .wait("the end of it", |cluster| {
            let events = cluster.list("v1", "events");
            let said = |name: &str, what: &str| {
                events.iter().any(|event| {
                    text(event, "/involvedObject/name") == name
                        && text(event, "/reason") == "DeviceTaintManagerEviction"
                        && text(event, "/message") == what
                })
            };
            said("web", "Marking for deletion") && said("tolerant", "Cancelling deletion")
        })
        .await;
    cluster.rests().await;
    assert!(!cluster.get("v1", "pods", "tolerant").is_null());
    let of_web = |call: &&String| call.contains("/pods/web");
    let writes = cluster.writes.lock()[began..].to_vec();
    assert_eq!(writes.iter().filter(of_web).count(), 2, "one to say why, one to delete: {writes:?}");
    cluster.stop().await;
}
