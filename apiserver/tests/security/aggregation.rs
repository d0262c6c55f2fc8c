//! An API that another server serves.

use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::hook::{Call, Hook, Reply, service};
use super::support::{Answer, Asker, Cluster, eventually, namespace};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";

/// An API server with one kind, in the old form of discovery.
fn wardle(call: &Call) -> Reply {
    let path = call.target.split('?').next().unwrap_or_default();
    match path {
        "/apis/wardle.example.com/v1alpha1" => {
            let flunders = json!({"name": "flunders", "singularName": "flunder", "namespaced": true,
                                  "kind": "Flunder", "verbs": ["get", "list"]});
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
                   "resources": [flunders]})
            .into()
        }
        "/apis/wardle.example.com/v1alpha1/namespaces/shop/flunders" => {
            json!({"kind": "FlunderList", "apiVersion": "wardle.example.com/v1alpha1", "items": []}).into()
        }
        "/apis/wardle.example.com/v1alpha1/namespaces/shop/flunders/x/echo" => Reply::Echo,
        "/openapi/v2" => {
            let schema = json!({"$ref": "#/definitions/Flunder"});
            let get = json!({"operationId": "listFlunders", "responses": {"200": {"description": "OK", "schema": schema}}});
            json!({"swagger": "2.0", "paths": {"/apis/wardle.example.com/v1alpha1/flunders": {"get": get}, "/version": {}},
                   "definitions": {"Flunder": {"type": "object"}}})
            .into()
        }
        "/openapi/v3" => {
            let address = "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC";
            json!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": address}}}).into()
        }
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => {
            json!({"openapi": "3.0.0", "info": {"title": "wardle"}}).into()
        }
        _ => Reply::Raw(404, "text/plain", "404 page not found".to_owned()),
    }
}

fn api_service(hook: &Hook) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME},
           "spec": {"group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000,
                    "versionPriority": 200, "caBundle": hook.ca_bundle(),
                    "service": {"namespace": "hooks", "name": "api", "port": hook.port}}})
}

fn condition(answer: &Answer) -> (&str, &str) {
    let condition = &answer.1["status"]["conditions"][0];
    (condition["status"].as_str().unwrap_or_default(), condition["reason"].as_str().unwrap_or_default())
}

async fn registered(hook: &Hook) -> (Cluster, Asker) {
    let cluster = Cluster::with(|config, directory| {
        let authority = super::support::Authority::new("aggregator");
        let identity = authority.client("front-proxy", &[]);
        let (certificate, key) = (directory.join("aggregator.crt"), directory.join("aggregator.key"));
        std::fs::write(&certificate, identity.certificate).unwrap();
        std::fs::write(&key, identity.key).unwrap();
        config.proxy_client = Some((certificate, key));
    })
    .await;
    let admin = cluster.admin();
    for name in ["shop", "hooks"] {
        namespace(&admin, name).await;
    }
    admin.create(SERVICES, &api_service(hook)).await;
    (cluster, admin)
}

/// The same with the Service and its APIService available; with the path of that.
async fn available(hook: &Hook) -> (Cluster, Asker, String) {
    let (cluster, admin) = registered(hook).await;
    service(&admin, "api").await;
    let path = format!("{SERVICES}/{NAME}");
    eventually("it is available", || admin.get(&path), |answer| condition(answer) == ("True", "Passed"))
        .await;
    (cluster, admin, path)
}

#[tokio::test]
async fn requests_are_passed_on_to_a_server_that_answers() {
    let hook = Hook::start(wardle).await;
    let (cluster, admin) = registered(&hook).await;
    let path = format!("{SERVICES}/{NAME}");
    let missing = |answer: &Answer| condition(answer) == ("False", "ServiceNotFound");
    let found = eventually("its Service is missed", || admin.get(&path), missing).await;
    assert_eq!(found.1["status"]["conditions"][0]["message"], "service/api in \"hooks\" is not present");
    let flunders = "/apis/wardle.example.com/v1alpha1/namespaces/shop/flunders";
    assert_eq!(admin.get(flunders).await, (503, Value::from("service unavailable\n")));
    service(&admin, "api").await;
    eventually("it is available", || admin.get(&path), |answer| condition(answer) == ("True", "Passed"))
        .await;
    let jane = cluster.user("jane", &["system:masters", "team"]).header("X-Remote-User", "admin");
    let ask = || jane.get(flunders);
    let passed = eventually("it is passed on", ask, |answer| answer.0 == 200).await;
    assert_eq!(passed.1["kind"], "FlunderList");
    let call = hook.calls().into_iter().rfind(|call| call.target == flunders).unwrap();
    let all = |name: &str| -> Vec<&str> {
        call.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(all("x-remote-user"), ["jane"], "what the client claims is not passed on");
    assert_eq!(all("x-remote-group"), ["system:masters", "team", "system:authenticated"]);
    assert_eq!((call.client.as_str(), all("x-forwarded-uri")), ("front-proxy", vec![flunders]));
    let refused = cluster.user("nobody", &[]).get(flunders).await;
    assert_eq!(refused.0, 403, "this server authorizes first");
    cluster.stop().await;
}

#[tokio::test]
async fn other_servers_are_part_of_discovery_and_openapi() {
    let hook = Hook::start(wardle).await;
    let (cluster, admin, path) = available(&hook).await;
    let (_, groups) = admin.get("/apis").await;
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"apiregistration.k8s.io"), Some(&"wardle.example.com")));
    let (_, group) = admin.get("/apis/wardle.example.com").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let aggregated = admin
        .clone()
        .header("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let current = |answer: &Answer| {
        let last = answer.1["items"].as_array().and_then(|items| items.last()).cloned().unwrap_or_default();
        last["versions"][0]["freshness"] == "Current"
    };
    let (_, list) = eventually("it is discovered", || aggregated.get("/apis"), current).await;
    let last = list["items"].as_array().unwrap().last().unwrap();
    assert_eq!(last["metadata"]["name"], "wardle.example.com");
    assert_eq!(last["versions"][0]["resources"][0]["resource"], "flunders");
    let has_paths =
        |answer: &Answer| answer.1["paths"].get("/apis/wardle.example.com/v1alpha1/flunders").is_some();
    let (_, document) = eventually("it is published", || admin.get("/openapi/v2"), has_paths).await;
    assert_eq!(document["definitions"]["Flunder"], json!({"type": "object"}));
    let (_, index) = admin.get("/openapi/v3").await;
    let part = "apis/wardle.example.com/v1alpha1";
    assert_eq!(index["paths"][part]["serverRelativeURL"], format!("/openapi/v3/{part}?hash=ABC"));
    let (_, document) = admin.get(&format!("/openapi/v3/{part}")).await;
    assert_eq!(document["info"]["title"], "wardle");
    assert_eq!(admin.delete(&path).await.0, 200);
    eventually("it is gone", || admin.get("/apis/wardle.example.com"), |answer| answer.0 == 404).await;
    let (_, document) = admin.get("/openapi/v2").await;
    assert!(!has_paths(&(200, document)));
    cluster.stop().await;
}

#[tokio::test]
async fn upgraded_connections_are_joined() {
    let hook = Hook::start(wardle).await;
    let (cluster, _, _) = available(&hook).await;
    let url = "/apis/wardle.example.com/v1alpha1/namespaces/shop/flunders/x/echo";
    let tls = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(client::tls::anybody())
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(cluster.running.address()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream =
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls)).connect(name, stream).await.unwrap();
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(driver.with_upgrades());
    let request = http::Request::builder()
        .uri(url)
        .header("Host", "localhost")
        .header("Authorization", "Bearer secret-of-root")
        .header("Connection", "Upgrade")
        .header("Upgrade", "echo")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    io.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
    drop(io);
    let call = hook.calls().into_iter().rfind(|call| call.target == url).unwrap();
    assert_eq!(call.headers["x-remote-user"], "root");
    assert!(call.headers.get("authorization").is_none());
    driver.abort();
    cluster.stop().await;
}

#[tokio::test]
async fn custom_resources_are_registered() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
                 "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
                 "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    admin.create(definitions, &definition).await;
    let path = format!("{SERVICES}/v1.example.com");
    let found =
        eventually("it is registered", || admin.get(&path), |answer| condition(answer) == ("True", "Local"))
            .await;
    assert_eq!(found.1["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(
        (&found.1["spec"]["groupPriorityMinimum"], &found.1["spec"]["versionPriority"]),
        (&json!(1000), &json!(100))
    );
    assert_eq!(admin.delete(&format!("{definitions}/gadgets.example.com")).await.0, 200);
    eventually("it is withdrawn", || admin.get(&path), |answer| answer.0 == 404).await;
    cluster.stop().await;
}
