//! Addresses and ports of Services.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::support::{Answer, Asker, Cluster, eventually, message};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

async fn put(admin: &Asker, service: &Value) -> Answer {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    admin.ask("PUT", &format!("{SERVICES}/{name}"), Some(service)).await
}

#[tokio::test]
async fn an_address_belongs_to_one_service() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let made = admin.create(SERVICES, &service("web", json!({}))).await;
    let ip = made["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    assert!(ip.starts_with("10.0.0."), "{made}");
    let (_, address) = admin.get(&format!("{ADDRESSES}/{ip}")).await;
    let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "web"});
    let own = &address["spec"]["parentRef"];
    for field in ["resource", "namespace", "name"] {
        assert_eq!(own[field], parent[field], "{address}");
    }
    let taken = admin.post(SERVICES, &service("other", json!({"clusterIP": ip}))).await;
    assert_eq!(taken.0, 422);
    let text = format!(
        "Service \"other\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: \
         provided IP is already allocated"
    );
    assert_eq!(message(&taken), text);
    let outside = admin.post(SERVICES, &service("other", json!({"clusterIP": "10.1.0.1"}))).await;
    assert_eq!(outside.0, 422);
    assert!(message(&outside).contains("10.1.0.1"), "{outside:?}");

    assert_eq!(admin.delete(&format!("{SERVICES}/web")).await.0, 200);
    assert_eq!(admin.get(&format!("{ADDRESSES}/{ip}")).await.0, 404);
    admin.create(SERVICES, &service("other", json!({"clusterIP": ip}))).await;
    cluster.stop().await;
}

#[tokio::test]
async fn all_at_once_get_addresses_of_their_own() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let bodies: Vec<Value> =
        (0..40).map(|i| service(&format!("s{i}"), json!({"type": "NodePort"}))).collect();
    let answers = join_all(bodies.iter().map(|body| admin.post(SERVICES, body))).await;
    let made: Vec<&Value> =
        answers.iter().inspect(|(status, body)| assert_eq!(*status, 201, "{body}")).map(|a| &a.1).collect();
    let ips: BTreeSet<_> = made.iter().map(|service| service["spec"]["clusterIP"].to_string()).collect();
    let ports: BTreeSet<_> =
        made.iter().map(|service| service["spec"]["ports"][0]["nodePort"].to_string()).collect();
    assert_eq!((ips.len(), ports.len()), (40, 40));
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_port_belongs_to_one_service() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let asked = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    let web = admin.create(SERVICES, &service("web", asked.clone())).await;
    assert_eq!(web["spec"]["ports"][0]["nodePort"], 30080);
    let taken = admin.post(SERVICES, &service("other", asked.clone())).await;
    assert_eq!(
        (taken.0, message(&taken)),
        (
            422,
            "Service \"other\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already \
             allocated"
        )
    );
    // What was given to a service that was not written is given back.
    let (_, addresses) = admin.get(ADDRESSES).await;
    let count = addresses["items"].as_array().map_or(0, Vec::len);
    assert_eq!(count, 2, "kubernetes and web: {addresses}");

    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 1234}]});
    let refused = admin.post(SERVICES, &service("other", outside)).await;
    assert_eq!(
        (refused.0, message(&refused)),
        (
            422,
            "Service \"other\" is invalid: spec.ports[0].nodePort: Invalid value: 1234: provided port is not in the \
             valid range. The range of valid ports is 30000-32767"
        )
    );

    // As ClusterIP it needs the port no more.
    let mut inner = web.clone();
    inner["spec"]["type"] = json!("ClusterIP");
    inner["spec"]["ports"] = json!([{"port": 80}]);
    let (status, inner) = put(&admin, &inner).await;
    assert_eq!(status, 200, "{inner}");
    assert_eq!(inner["spec"]["ports"][0]["nodePort"], Value::Null);
    admin.create(SERVICES, &service("other", asked)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn types_come_and_go() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let web = admin.create(SERVICES, &service("web", json!({}))).await;
    let ip = web["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let mut outer = web.clone();
    outer["spec"]["type"] = json!("LoadBalancer");
    outer["spec"]["externalTrafficPolicy"] = json!("Local");
    let (status, outer) = put(&admin, &outer).await;
    assert_eq!(status, 200, "{outer}");
    assert!(outer["spec"]["healthCheckNodePort"].as_u64().is_some_and(|port| port >= 30000), "{outer}");
    assert!(outer["spec"]["ports"][0]["nodePort"].as_u64().is_some_and(|port| port >= 30000), "{outer}");
    assert_eq!(outer["spec"]["clusterIP"], ip);

    let mut away = json!({"metadata": outer["metadata"], "spec": {"type": "ExternalName", "externalName": "example.com"}});
    away["spec"]["ports"] = json!([{"port": 80}]);
    let (status, away) = put(&admin, &away).await;
    assert_eq!(status, 200, "{away}");
    assert_eq!(away["spec"]["clusterIP"], Value::Null);
    assert_eq!(admin.get(&format!("{ADDRESSES}/{ip}")).await.0, 404);

    let headless = admin.create(SERVICES, &service("headless", json!({"clusterIP": "None"}))).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    cluster.stop().await;
}

#[tokio::test]
async fn addresses_run_out() {
    let cluster = Cluster::with(|config, _| {
        config.service_cluster_ip_ranges = vec!["10.9.0.0/29".parse().unwrap()];
    })
    .await;
    let admin = cluster.admin();
    // Of eight, six are usable; one is the kubernetes Service's.
    for i in 0..5 {
        admin.create(SERVICES, &service(&format!("s{i}"), json!({}))).await;
    }
    let full = admin.post(SERVICES, &service("more", json!({}))).await;
    assert_eq!(full.0, 500, "{full:?}");
    assert!(message(&full).contains("range is full"), "{full:?}");
    admin.delete(&format!("{SERVICES}/s0")).await;
    let body = service("more", json!({}));
    eventually("an address is free", || admin.post(SERVICES, &body), |(status, _): &Answer| *status == 201)
        .await;
    cluster.stop().await;
}

#[tokio::test]
async fn two_families() {
    let cluster = Cluster::with(|config, _| {
        config.service_cluster_ip_ranges =
            vec!["10.9.0.0/24".parse().unwrap(), "fd00:9::/112".parse().unwrap()];
    })
    .await;
    let admin = cluster.admin();
    let single = admin.create(SERVICES, &service("single", json!({}))).await;
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    let both = admin.create(SERVICES, &service("both", json!({"ipFamilyPolicy": "RequireDualStack"}))).await;
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let ips: Vec<&str> =
        both["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(
        matches!(ips.as_slice(), [four, six] if four.starts_with("10.9.0.") && six.starts_with("fd00:9::")),
        "{both}"
    );
    cluster.stop().await;
}
