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
