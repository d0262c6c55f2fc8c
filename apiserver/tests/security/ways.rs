//! How the server reaches others, and what it shows of itself there: credentials of programs, names of certificates,
//! proxies, networks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::authn::webhook::WebhookConfig;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinHandle;

use super::hook::{Call, Hook, Reply, service};
use super::support::{Answer, Asker, Authority, Cluster, eventually, message, namespace};
use super::webhooks::{VALIDATING, allow, map, webhook};

/// A proxy that connects to this machine whatever it is asked for, and keeps what that was.
pub struct Tunnel {
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tunnel {
    /// At a port of this machine, which is given too.
    pub async fn tcp() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, Arc::clone(&kept)));
            }
        });
        (Self { asked, task }, port)
    }

    /// At a socket.
    pub fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, Arc::clone(&kept)));
            }
        });
        Self { asked, task }
    }

    /// The heads of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// The hosts and ports that it was asked for.
    pub fn targets(&self) -> BTreeSet<String> {
        self.asked().iter().filter_map(|head| head.split(' ').nth(1).map(str::to_owned)).collect()
    }
}

async fn tunnel(mut stream: impl AsyncRead + AsyncWrite + Unpin, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let port: u16 =
        head.split(' ').nth(1).and_then(|target| target.rsplit(':').next()).unwrap().parse().unwrap();
    asked.lock().push(head);
    let Ok(mut other) = TcpStream::connect(("127.0.0.1", port)).await else {
        let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        return;
    };
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
}

/// A kubeconfig with one cluster and one user.
fn kubeconfig(folder: &Path, cluster: Value, user: Value) -> PathBuf {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "hook",
        "clusters": [{"name": "hook", "cluster": cluster}], "users": [{"name": "server", "user": user}],
        "contexts": [{"name": "hook", "context": {"cluster": "hook", "user": "server"}}],
    });
    let path = folder.join("hook.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A webhook that knows all tokens, from those who do not call themselves by `wrong`.
async fn knowing(wrong: &'static str) -> Hook {
    Hook::start(move |call: &Call| {
        let shown = call.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        if !wrong.is_empty() && shown.as_deref() == Some(wrong) {
            return Reply::Raw(401, "text/plain", "who?".to_owned());
        }
        let status = json!({"authenticated": true, "user": {"username": call.body["spec"]["token"]}});
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}).into()
    })
    .await
}

/// A server that asks a webhook about tokens, by a kubeconfig.
async fn asking(cluster: impl FnOnce(&Path) -> (Value, Value)) -> Cluster {
    Cluster::with(|config, folder| {
        let (cluster, user) = cluster(folder);
        config.authentication.webhook = Some(WebhookConfig {
            file: kubeconfig(folder, cluster, user),
            version: "v1".to_owned(),
            ttl: std::time::Duration::ZERO,
        });
    })
    .await
}

/// A program of the shell that makes credentials.
fn program(script: &str) -> Value {
    json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", script],
                    "interactiveMode": "Never", "provideClusterInfo": true}})
}

#[tokio::test]
async fn a_program_makes_tokens_for_a_webhook() {
    let hook = knowing("Bearer told-1").await;
    let server = format!("https://localhost:{}/x", hook.port);
    let told = Arc::<Mutex<PathBuf>>::default();
    let cluster = asking(|folder| {
        *told.lock() = folder.join("told");
        let script = format!(
            "cd {}; echo >> runs; printf %s \"$KUBERNETES_EXEC_INFO\" > told; echo '{{\"kind\":\"ExecCredential\",\
             \"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{{\"token\":\"told-'$(wc -l < runs)'\"}}}}'",
            folder.display()
        );
        let cluster = json!({"server": server, "certificate-authority-data": hook.ca_bundle()});
        (cluster, program(&script))
    })
    .await;
    // The first token is refused, and another one made.
    assert_eq!(cluster.with_token("jane").whoami().await.0, 401);
    for name in ["jane", "joe"] {
        let (status, user) = cluster.with_token(name).whoami().await;
        assert_eq!((status, &user["username"]), (201, &json!(name)));
    }
    let shown: Vec<_> =
        hook.calls().iter().map(|call| call.headers["authorization"].to_str().unwrap().to_owned()).collect();
    assert_eq!(shown, ["Bearer told-1", "Bearer told-2", "Bearer told-2"]);
    let told: Value = serde_json::from_slice(&std::fs::read(&*told.lock()).unwrap()).unwrap();
    assert_eq!(told["spec"]["cluster"]["server"], server);
    assert_eq!(told["spec"]["cluster"]["certificate-authority-data"], hook.ca_bundle());
    cluster.stop().await;
}

#[tokio::test]
async fn a_program_makes_certificates_for_a_webhook() {
    let hook = knowing("").await;
    let authority = Authority::new("programs");
    let said = Arc::<Mutex<PathBuf>>::default();
    let cluster = asking(|folder| {
        *said.lock() = folder.join("said");
        let cluster = json!({"server": format!("https://localhost:{}", hook.port),
                             "certificate-authority-data": hook.ca_bundle()});
        (cluster, program(&format!("cat {}", folder.join("said").display())))
    })
    .await;
    let say = |name: &str, expires: Value| {
        let identity = authority.client(name, &[]);
        let status = json!({"clientCertificateData": identity.certificate, "clientKeyData": identity.key,
                            "expirationTimestamp": expires});
        let all = json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
                         "status": status});
        std::fs::write(&*said.lock(), all.to_string()).unwrap();
    };
    // Nothing has been said yet.
    assert_eq!(cluster.with_token("jane").whoami().await.0, 401);
    say("first", json!("2006-01-02T15:04:05Z"));
    assert_eq!(cluster.with_token("jane").whoami().await.0, 201);
    say("second", Value::Null);
    assert_eq!(cluster.with_token("jane").whoami().await.0, 201);
    say("third", Value::Null);
    assert_eq!(cluster.with_token("jane").whoami().await.0, 201);
    let clients: Vec<_> = hook.calls().iter().map(|call| call.client.clone()).collect();
    assert_eq!(clients, ["first", "second", "second"], "what has not expired is kept");
    assert_eq!(hook.connections(), 2, "another certificate needs another connection");
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_has_another_name_and_a_proxy() {
    let hook = knowing("").await;
    let (proxy, port) = Tunnel::tcp().await;
    let cluster = asking(|_| {
        let cluster = json!({
            "server": format!("https://hook.example:{}/x", hook.port), "tls-server-name": "localhost",
            "proxy-url": format!("http://me:pass%20word@127.0.0.1:{port}"),
            "certificate-authority-data": hook.ca_bundle(),
        });
        let user = json!({"username": "u", "password": "p", "as": "other", "as-groups": ["g1", "g2"],
                          "as-user-extra": {"a/b": ["c"]}});
        (cluster, user)
    })
    .await;
    assert_eq!(cluster.with_token("jane").whoami().await.0, 201);
    let target = format!("hook.example:{}", hook.port);
    assert_eq!(
        proxy.asked(),
        [format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n\r\n"
        )]
    );
    let headers = &hook.calls()[0].headers;
    assert_eq!(headers["authorization"], "Basic dTpw");
    assert_eq!(headers["impersonate-user"], "other");
    let groups: Vec<_> = headers.get_all("impersonate-group").iter().collect();
    assert_eq!(groups, ["g1", "g2"]);
    assert_eq!(headers["impersonate-extra-a%2fb"], "c");
    cluster.stop().await;
}

/// Makes a webhook that allows, and waits until it is asked.
async fn validating(admin: &Asker, hook: &Hook, name: &str, client_config: Value) {
    let body =
        json!({"metadata": {"name": name}, "webhooks": [webhook(name, client_config, &["configmaps"])]});
    admin.create(VALIDATING, &body).await;
    let before = hook.calls().len();
    let ask = || async {
        let answer = admin.post("/api/v1/namespaces/shop/configmaps?dryRun=All", &map("probe")).await;
        (answer, hook.calls().len() > before)
    };
    let (answer, _) = eventually("the webhook is asked", ask, |(_, asked): &(Answer, bool)| *asked).await;
    assert_eq!(answer.0, 201, "{answer:?}");
}

/// What admission tells webhooks of this server, as a file says.
fn admission(folder: &Path, users: Value) -> PathBuf {
    let config = json!({"apiVersion": "v1", "kind": "Config", "users": users});
    let kubeconfig = folder.join("admission.kubeconfig");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let own = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
                     "kubeConfigFile": kubeconfig});
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
                      "plugins": [{"name": "ValidatingAdmissionWebhook", "configuration": own}]});
    let path = folder.join("admission.yaml");
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

#[tokio::test]
async fn webhooks_of_admission_are_shown_who_asks() {
    let (by_url, by_service) = (Hook::start(allow).await, Hook::start(allow).await);
    let cluster = Cluster::with(|config, folder| {
        let users = json!([
            {"name": format!("localhost:{}", by_url.port), "user": {"token": "for-the-url"}},
            {"name": format!("*.hooks.svc:{}", by_service.port), "user": {"username": "u", "password": "p"}},
        ]);
        config.admission_file = Some(admission(folder, users));
    })
    .await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    namespace(&admin, "hooks").await;
    service(&admin, "hook").await;
    validating(&admin, &by_url, "first", by_url.by_url("/x")).await;
    validating(&admin, &by_service, "second", by_service.by_service("/x")).await;
    assert_eq!(by_url.calls()[0].headers["authorization"], "Bearer for-the-url");
    assert_eq!(by_service.calls()[0].headers["authorization"], "Basic dTpw");
    cluster.stop().await;
}

/// A webhook that is an aggregated API: the server asks it through itself, and as itself.
#[tokio::test]
async fn a_webhook_may_be_behind_the_server() {
    let api = Hook::start(|call: &Call| match (call.body["kind"].as_str(), call.target.as_str()) {
        (Some("AdmissionReview"), _) => allow(call),
        (_, "/apis/wardle.example.com/v1") => json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1", "resources": []})
        .into(),
        _ => Reply::Raw(404, "text/plain", String::new()),
    })
    .await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    namespace(&admin, "hooks").await;
    service(&admin, "api").await;
    let registered = json!({"metadata": {"name": "v1.wardle.example.com"}, "spec": {
        "group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "caBundle": api.ca_bundle(), "service": {"namespace": "hooks", "name": "api", "port": api.port}}});
    admin.create("/apis/apiregistration.k8s.io/v1/apiservices", &registered).await;
    let found = || admin.get("/apis/wardle.example.com/v1");
    eventually("the API is served", found, |answer: &Answer| answer.0 == 200).await;
    let path = "/apis/wardle.example.com/v1/reviews";
    let own = json!({"service": {"namespace": "default", "name": "kubernetes", "path": path}});
    let body = json!({"metadata": {"name": "own"}, "webhooks": [webhook("own", own, &["configmaps"])]});
    admin.create(VALIDATING, &body).await;
    let reviews =
        || -> Vec<Call> { api.calls().into_iter().filter(|call| call.target.starts_with(path)).collect() };
    let probe = map("probe");
    let ask = || async {
        let answer = admin.post("/api/v1/namespaces/shop/configmaps?dryRun=All", &probe).await;
        (answer, reviews().len())
    };
    let (answer, _) =
        eventually("the webhook is asked", ask, |(_, asked): &(Answer, usize)| *asked > 0).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    let call = &reviews()[0];
    assert_eq!(call.headers["x-remote-user"], "system:apiserver");
    assert!(call.headers.get_all("x-remote-group").iter().any(|group| group == "system:masters"));
    cluster.stop().await;
}

/// A file that says how the networks are reached.
fn egress(folder: &Path, socket: &Path, port: u16) -> PathBuf {
    let connect = |transport: Value| json!({"proxyProtocol": "HTTPConnect", "transport": transport});
    let file = json!({"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
    "egressSelections": [
        {"name": "cluster", "connection": connect(json!({"uds": {"udsName": socket}}))},
        {"name": "controlplane", "connection": connect(json!({"tcp": {"url": format!("http://127.0.0.1:{port}")}}))},
    ]});
    let path = folder.join("egress.yaml");
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

#[tokio::test]
async fn each_network_is_reached_through_its_proxy() {
    let (by_url, by_service) = (Hook::start(allow).await, Hook::start(allow).await);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let (outside, port) = Tunnel::tcp().await;
    let inside = Tunnel::unix(&socket);
    let cluster =
        Cluster::with(|config, folder| config.egress_file = Some(egress(folder, &socket, port))).await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    namespace(&admin, "hooks").await;
    service(&admin, "hook").await;
    validating(&admin, &by_url, "first", by_url.by_url("/x")).await;
    validating(&admin, &by_service, "second", by_service.by_service("/x")).await;
    let of = |hook: &Hook| BTreeSet::from([format!("localhost:{}", hook.port)]);
    assert_eq!(outside.targets(), of(&by_url));
    assert_eq!(inside.targets(), of(&by_service));
    let head = &inside.asked()[0];
    assert!(head.contains("\r\nHost: 127.0.0.1\r\n"), "{head}");
    // Whoever cannot be reached through the proxy is not reached otherwise.
    let gone = json!({"url": "https://localhost:1/x", "caBundle": by_url.ca_bundle()});
    let body = json!({"metadata": {"name": "third"}, "webhooks": [webhook("third", gone, &["configmaps"])]});
    admin.create(VALIDATING, &body).await;
    let probe = map("probe");
    let ask = || admin.post("/api/v1/namespaces/shop/configmaps?dryRun=All", &probe);
    let refusal = eventually("it is asked", ask, |answer: &Answer| answer.0 == 500).await;
    let expected =
        format!("proxy error from 127.0.0.1:{port} while dialing localhost:1, code 502: 502 Bad Gateway");
    assert!(message(&refusal).ends_with(&expected), "{refusal:?}");
    cluster.stop().await;
}
