//! Services: the addresses of their pods, and whom they are for.

use super::harness::{Cluster, key};
use super::store::text;
use super::{deployment, template};
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn service_has_endpoints_of_its_ready_pods() {
    let cluster = Cluster::start(&[]).await;
    let service = json!({
        "kind": "Service",
        "metadata": { "name": "web" },
        "spec": {
            "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
            "ports": [{ "port": 80, "targetPort": 8080, "protocol": "TCP" }],
        },
    });
    cluster.create("v1", "services", service);
    cluster.create("apps/v1", "deployments", deployment(3));
    let count = |cluster: &Cluster| {
        let slices = cluster.list("discovery.k8s.io/v1", "endpointslices");
        slices.iter().map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).sum::<usize>()
    };
    cluster.wait("three endpoints", |cluster| count(cluster) == 3).await;
    cluster
        .wait("endpoints", |cluster| {
            let endpoints = cluster.get("v1", "endpoints", "web");
            endpoints["subsets"][0]["addresses"].as_array().map_or(0, Vec::len) == 3
                && endpoints["subsets"][0]["ports"][0]["port"] == 8080
        })
        .await;
    cluster.change("apps/v1", "deployments", "web", json!({ "spec": { "replicas": 1 } }));
    cluster.wait("one endpoint", |cluster| count(cluster) == 1).await;
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_for_zones_as_the_service_asks() {
    let cluster =
        Cluster::start_with(&["--controllers=*,-node-lifecycle-controller"], vec!["n1", "n2"], None);
    for (node, zone) in [("n1", "a"), ("n2", "b")] {
        let labels = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } });
        cluster.change("v1", "nodes", node, labels);
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let status = json!({ "status": { "allocatable": { "cpu": "2" }, "conditions": ready } });
        cluster.store.patch(&key("v1", "nodes", node), "status", &status).expect("it is there");
    }
    let set = json!({
        "kind": "DaemonSet", "metadata": { "name": "agent" },
        "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template("one"),
                  "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } } },
    });
    cluster.create("apps/v1", "daemonsets", set);
    let service = json!({
        "kind": "Service", "metadata": { "name": "web", "annotations": {} },
        "spec": { "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
                  "ports": [{ "port": 80, "protocol": "TCP" }] },
    });
    cluster.create("v1", "services", service);
    let hints = |cluster: &Cluster, kind: &str| -> Vec<String> {
        let slices = cluster.list("discovery.k8s.io/v1", "endpointslices");
        let endpoints =
            slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let mut found: Vec<_> = endpoints
            .map(|one| format!("{}:{}", text(&one, "/zone"), text(&one, &format!("/hints/{kind}/0/name"))))
            .collect();
        found.sort();
        found
    };
    let said = |cluster: &Cluster, reason: &str| {
        cluster.list("v1", "events").iter().any(|event| text(event, "/reason") == reason)
    };
    cluster.wait("endpoints", |cluster| hints(cluster, "forZones") == ["a:", "b:"]).await;
    let mode = |mode: Value| json!({ "metadata": { "annotations": { "service.kubernetes.io/topology-mode": mode } } });
    cluster.change("v1", "services", "web", mode(json!("Auto")));
    cluster.wait("hints by topology", |cluster| hints(cluster, "forZones") == ["a:a", "b:b"]).await;
    cluster.wait("the event", |cluster| said(cluster, "TopologyAwareHintsEnabled")).await;
    cluster.rests().await;
    // Only one zone is left in which pods may run, so nobody keeps to his own.
    let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    cluster.store.patch(&key("v1", "nodes", "n2"), "status", &status).expect("it is there");
    cluster.wait("no hints", |cluster| hints(cluster, "forZones") == ["a:", "b:"]).await;
    cluster.wait("the event", |cluster| said(cluster, "TopologyAwareHintsDisabled")).await;
    cluster.change("v1", "services", "web", mode(Value::Null));
    cluster.change("v1", "services", "web", json!({ "spec": { "trafficDistribution": "PreferSameNode" } }));
    cluster
        .wait("hints by node", |cluster| {
            hints(cluster, "forNodes") == ["a:n1", "b:n2"] && hints(cluster, "forZones") == ["a:a", "b:b"]
        })
        .await;
    cluster.change("v1", "services", "web", json!({ "spec": { "trafficDistribution": "PreferClose" } }));
    cluster
        .wait("hints by zone", |cluster| {
            hints(cluster, "forNodes") == ["a:", "b:"] && hints(cluster, "forZones") == ["a:a", "b:b"]
        })
        .await;
    cluster.rests().await;
    cluster.stop().await;
}
