//! Requests that end at a kubelet: here one of the test's own, which requires the server's client certificate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use apiserver::audit::AuditConfig;
use apiserver::audit::log::LogConfig;
use apiserver::config::Config;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::support::{
    Authority, Cluster, create_pod, eventually, install_crypto_provider, message, namespace, pod,
};
use super::ways::Tunnel;

/// What the kubelet was asked.
type Asked = Arc<Mutex<Vec<String>>>;

struct Kubelet {
    address: SocketAddr,
    asked: Asked,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    async fn start(authority: &Authority) -> Self {
        install_crypto_provider();
        let own = authority.issue("system:node:n1", &["system:nodes"], |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Asked::default();
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&asked)));
        Self { address, asked, task }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, asked: Asked) {
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = service_fn(move |request| answer(request, Arc::clone(&asked)));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer(mut request: Request<Incoming>, asked: Asked) -> Result<Response<Full<Bytes>>, Infallible> {
    let uri = request.uri().to_string();
    asked.lock().unwrap().push(format!("{} {uri}", request.method()));
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 5];
            stream.read_exact(&mut buffer).await.unwrap();
            stream.write_all(&buffer.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("Connection", "Upgrade")
            .header("Upgrade", "SPDY/3.1")
            .header("X-Stream-Protocol-Version", "v4.channel.k8s.io");
        return Ok(response.body(Full::default()).unwrap());
    }
    let (status, text) = match request.uri().path() {
        path if path.starts_with("/containerLogs/") => (200, "one\ntwo\n"),
        _ => (404, "404 page not found\n"),
    };
    Ok(Response::builder().status(status).body(Full::from(text)).unwrap())
}

/// Client certificate and CA by which the server reaches kubelets.
fn kubelet_client(config: &mut Config, directory: &Path, authority: &Authority) {
    let identity = authority.client("kube-apiserver-kubelet-client", &["system:masters"]);
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    config.kubelet_client.client_certificate = file("kubelet-client.crt", &identity.certificate);
    config.kubelet_client.client_key = file("kubelet-client.key", &identity.key);
    config.kubelet_client.certificate_authority = file("kubelet-ca.crt", &authority.pem);
    config.kubelet_client.preferred_address_types = vec!["InternalIP".to_owned()];
}

async fn with_node() -> (Cluster, Kubelet) {
    with_node_and(|_, _| {}).await
}

async fn with_node_and(change: impl FnOnce(&mut Config, &Path)) -> (Cluster, Kubelet) {
    let authority = Authority::new("kubelets");
    let kubelet = Kubelet::start(&authority).await;
    let cluster = Cluster::with(|config, directory| {
        kubelet_client(config, directory, &authority);
        change(config, directory);
    })
    .await;
    let admin = cluster.admin();
    let node = admin.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let mut node = node.clone();
    node["status"] = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.address.port()}},
    });
    let (status, answer) = admin.ask("PUT", "/api/v1/nodes/n1/status", Some(&node)).await;
    assert_eq!(status, 200, "{answer}");
    namespace(&admin, "shop").await;
    let mut web = pod("web");
    web["spec"]["nodeName"] = json!("n1");
    create_pod(&admin, "shop", &web).await;
    (cluster, kubelet)
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let (cluster, kubelet) = with_node().await;
    let admin = cluster.admin();
    let logs = "/api/v1/namespaces/shop/pods/web/log";
    assert_eq!(admin.get(&format!("{logs}?tailLines=2&timestamps=true")).await, (200, json!("one\ntwo\n")));
    assert_eq!(kubelet.asked(), ["GET /containerLogs/shop/web/main?tailLines=2&timestamps=true"]);

    let wrong = admin.get(&format!("{logs}?container=side")).await;
    assert_eq!((wrong.0, message(&wrong)), (400, "container side is not valid for pod web"));
    let wrong = admin.get(&format!("{logs}?tailLines=-1")).await;
    assert_eq!(wrong.0, 422);
    assert_eq!(
        message(&wrong),
        "PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
    );
    let missing = admin.get("/api/v1/namespaces/shop/pods/none/log").await;
    assert_eq!((missing.0, message(&missing)), (404, "pods \"none\" not found"));
    // What is reached by proxy must not be the server's own host.
    let own = admin.get("/api/v1/nodes/n1/proxy/stats/summary").await;
    assert_eq!((own.0, message(&own)), (400, "address not allowed"));
    cluster.stop().await;
}

#[tokio::test]
async fn kubelets_are_reached_through_the_proxy_of_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let proxy = Tunnel::unix(&socket);
    let (cluster, kubelet) = with_node_and(|config, folder| {
        let file = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "cluster", "connection": {
                "proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": socket}}}}],
        });
        let path = folder.join("egress.yaml");
        std::fs::write(&path, file.to_string()).unwrap();
        config.egress_file = Some(path);
    })
    .await;
    let logs = "/api/v1/namespaces/shop/pods/web/log?tailLines=2";
    assert_eq!(cluster.admin().get(logs).await, (200, json!("one\ntwo\n")));
    assert_eq!(proxy.targets().into_iter().collect::<Vec<_>>(), [kubelet.address.to_string()]);
    let exec = "/api/v1/namespaces/shop/pods/web/exec?command=cat&stdin=true&stdout=true";
    assert_eq!(upgrade(&cluster, exec, || {}).await.1, b"HELLO");
    assert_eq!(proxy.asked().len(), 2);
    cluster.stop().await;
}

/// A connection to the server.
async fn connect(cluster: &Cluster) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(client::tls::anybody())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(cluster.running.address()).await.unwrap();
    connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
}

/// What comes over a WebSocket until it is closed, or `most` messages; first the protocol that the server chose.
async fn messages(cluster: &Cluster, path: &str, protocol: &str, most: usize) -> (String, Vec<Message>) {
    let mut request = format!("wss://localhost{path}").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", "Bearer secret-of-root".parse().unwrap());
    headers.insert("origin", "https://localhost".parse().unwrap());
    if !protocol.is_empty() {
        headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let (mut socket, answer) =
        tokio_tungstenite::client_async(request, connect(cluster).await).await.expect("a WebSocket");
    let chosen = answer.headers().get("sec-websocket-protocol");
    let chosen = chosen.map(|name| name.to_str().unwrap().to_owned()).unwrap_or_default();
    let mut found = Vec::new();
    while found.len() < most {
        match socket.next().await {
            Some(Ok(Message::Close(_))) | None => break,
            Some(message) => found.push(message.unwrap()),
        }
    }
    (chosen, found)
}

#[tokio::test]
async fn logs_and_watches_go_over_websockets() {
    let (cluster, _kubelet) = with_node().await;
    let logs = "/api/v1/namespaces/shop/pods/web/log";
    let binary = messages(&cluster, logs, "binary.k8s.io", 9).await;
    assert_eq!(binary, ("binary.k8s.io".into(), vec![Message::binary(""), Message::binary("one\ntwo\n")]));
    let text = messages(&cluster, logs, "base64.binary.k8s.io", 9).await;
    assert_eq!(text.1, [Message::text(""), Message::text("b25lCnR3bwo=")]);
    let (_, events) = messages(&cluster, "/api/v1/namespaces/shop/pods?watch=true", "", 1).await;
    let event: Value = serde_json::from_str(events[0].to_text().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("web")));
    cluster.stop().await;
}

/// Speaks HTTP/1.1 with the server over TLS, by hand.
async fn upgrade(cluster: &Cluster, path: &str, while_open: impl FnOnce()) -> (String, Vec<u8>) {
    let mut stream = connect(cluster).await;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret-of-root\r\nConnection: Upgrade\r\n\
         Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    while_open();
    stream.write_all(b"hello").await.unwrap();
    let mut rest = Vec::new();
    // How the other side closes is not of interest.
    let _ = stream.read_to_end(&mut rest).await;
    (String::from_utf8(head).unwrap().to_ascii_lowercase(), rest)
}

#[tokio::test]
async fn exec_is_a_relay() {
    let (cluster, kubelet) = with_node().await;
    let path = "/api/v1/namespaces/shop/pods/web/exec?command=cat&stdin=true&stdout=true";
    let (head, rest) = upgrade(&cluster, path, || {}).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
    assert_eq!(String::from_utf8(rest).unwrap(), "HELLO");
    assert_eq!(kubelet.asked(), ["POST /exec/shop/web/main?command=cat&input=1&output=1"]);

    let admin = cluster.admin();
    let plain = admin.post(path, &Value::Null).await;
    assert_eq!((plain.0, message(&plain)), (400, "Upgrade request required"));
    let wrong = admin.post("/api/v1/namespaces/shop/pods/web/exec?container=side", &Value::Null).await;
    assert_eq!((wrong.0, message(&wrong)), (400, "container side is not valid for pod web"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_stream_is_written_down_when_it_has_ended() {
    let mut path = std::path::PathBuf::new();
    let (cluster, _kubelet) = with_node_and(|config, folder| {
        let policy = folder.join("policy.yaml");
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
                    - {level: Metadata, resources: [{resources: [pods/exec]}]}\n- {level: None}\n";
        std::fs::write(&policy, text).unwrap();
        path = folder.join("audit.log");
        let log = LogConfig { path: path.clone(), ..LogConfig::default() };
        config.audit = AuditConfig { policy_file: Some(policy), log: Some(log), ..AuditConfig::default() };
    })
    .await;
    let stages = || -> Vec<String> {
        let text = std::fs::read_to_string(&path).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
    };
    let exec = "/api/v1/namespaces/shop/pods/web/exec?command=cat&stdin=true&stdout=true";
    let mut open = Vec::new();
    upgrade(&cluster, exec, || open = stages()).await;
    assert_eq!(open, ["RequestReceived", "ResponseStarted"]);
    let all = ["RequestReceived", "ResponseStarted", "ResponseComplete"];
    eventually("the end is written down", || async { stages() }, |stages| *stages == all).await;
    cluster.stop().await;
}
