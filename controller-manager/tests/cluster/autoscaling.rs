//! Autoscaling: as many pods as the metrics ask for, and no word when nothing changes.

use super::store::{Key, text};
use super::{Cluster, available, deployment, number};
use serde_json::{Value, json};

const METRICS: &str = "metrics.k8s.io/v1beta1";

/// Every pod of the deployment uses so much CPU from now on.
fn use_cpu(cluster: &Cluster, amount: &str) {
    for pod in cluster.list("v1", "pods") {
        let name = text(&pod, "/metadata/name");
        let key: Key = super::key(METRICS, "pods", name);
        let containers = json!([{ "name": "c", "usage": { "cpu": amount } }]);
        let metrics = json!({
            "kind": "PodMetrics", "apiVersion": METRICS, "metadata": { "name": name },
            "timestamp": cluster.store.now(), "window": "15s", "containers": containers,
        });
        if cluster.store.create(key.clone(), metrics).is_err() {
            cluster.store.patch(&key, "", &json!({ "containers": containers })).expect("it is there");
        }
    }
}

fn condition(cluster: &Cluster, kind: &str) -> String {
    let hpa = cluster.get("autoscaling/v2", "horizontalpodautoscalers", "web");
    let conditions = hpa.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let held = conditions.iter().find(|held| held["type"] == kind);
    held.map(|held| text(held, "/reason").to_owned()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn pods_follow_the_metrics() {
    // Nodes here do not say that they live.
    let flags = &[
        "--horizontal-pod-autoscaler-cpu-initialization-period=0s",
        "--controllers=*,-node-lifecycle-controller",
    ];
    let cluster = Cluster::start(flags).await;
    let mut web = deployment(2);
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "100m" } });
    cluster.create("apps/v1", "deployments", web);
    cluster.wait("the rollout", |cluster| available(cluster, 2)).await;
    let cpu = json!({ "type": "Resource", "resource": {
        "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } });
    cluster.create(
        "autoscaling/v2",
        "horizontalpodautoscalers",
        json!({
            "kind": "HorizontalPodAutoscaler", "metadata": { "name": "web" },
            "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
                "minReplicas": 1, "maxReplicas": 5, "metrics": [cpu],
            },
        }),
    );
    cluster
        .wait("the word that metrics are missing", |cluster| {
            condition(cluster, "ScalingActive") == "FailedGetResourceMetric"
        })
        .await;
    use_cpu(&cluster, "100m");
    cluster.wait("growth", |cluster| available(cluster, 4)).await;
    use_cpu(&cluster, "50m");
    cluster.wait("a steady state", |cluster| condition(cluster, "AbleToScale") == "ReadyForNewScale").await;
    cluster.rests().await;
    use_cpu(&cluster, "10m");
    cluster.wait("shrinking", |cluster| available(cluster, 1)).await;
    cluster
        .wait("the status", |cluster| {
            let hpa = cluster.get("autoscaling/v2", "horizontalpodautoscalers", "web");
            number(&hpa, "/status/currentReplicas") == 1 && number(&hpa, "/status/desiredReplicas") == 1
        })
        .await;
    cluster.rests().await;
    cluster.stop().await;
}
