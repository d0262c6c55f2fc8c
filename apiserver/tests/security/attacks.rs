//! What those try who want more than they may have.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::{Answer, Asker, Cluster, eventually, message, namespace};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A connection over TLS, for what no client library would send.
async fn connect(cluster: &Cluster) -> TlsStream<TcpStream> {
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(client::tls::anybody())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(cluster.running.address()).await.unwrap();
    connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
}

/// Sends bytes, and all that is answered until the server closes.
async fn raw(cluster: &Cluster, bytes: &[u8]) -> String {
    let mut stream = connect(cluster).await;
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count) = stream.read(&mut buffer).await
            && count > 0
        {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(ended.is_ok(), "the server keeps the connection: {:?}", String::from_utf8_lossy(bytes));
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// Somebody with these rules, everywhere or in one namespace.
async fn permit(admin: &Asker, user: &str, namespace: Option<&str>, rules: Value) {
    let base = namespace.map_or(RBAC.to_owned(), |namespace| format!("{RBAC}/namespaces/{namespace}"));
    let (kind, roles, bindings) = match namespace {
        Some(_) => ("Role", "roles", "rolebindings"),
        None => ("ClusterRole", "clusterroles", "clusterrolebindings"),
    };
    let name = format!("of-{user}");
    admin.create(&format!("{base}/{roles}"), &json!({"metadata": {"name": name}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    });
    admin.create(&format!("{base}/{bindings}"), &binding).await;
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

#[tokio::test]
async fn tokens_that_are_forged_or_old() {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cluster = Cluster::with(|config, folder| {
        let path = folder.join("signer.key");
        std::fs::write(&path, &pem).unwrap();
        config.authentication.service_account_signing_key_file = Some(path);
        config.authentication.service_account_issuers = vec!["https://issuer".to_owned()];
    })
    .await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let account = admin.get("/api/v1/namespaces/shop/serviceaccounts/default").await.1;
    let now = jiff::Timestamp::now().as_second();
    let claims = |change: Value| {
        let mut claims = json!({
            "iss": "https://issuer", "aud": ["https://issuer"], "iat": now, "nbf": now, "exp": now + 600,
            "sub": "system:serviceaccount:shop:default",
            "kubernetes.io": {"namespace": "shop",
                "serviceaccount": {"name": "default", "uid": account["metadata"]["uid"]}},
        });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        claims
    };
    let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    let sign = |claims: &Value| jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &key).unwrap();
    let good = sign(&claims(json!({})));
    let robot = cluster.with_token(&good);
    eventually("the token is good", || robot.whoami(), |(status, _): &Answer| *status == 201).await;

    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |algorithm: &str| {
        format!("{}.{}.", encode(&json!({"alg": algorithm, "typ": "JWT"})), encode(&claims(json!({}))))
    };
    // A public key is no secret: a token "signed" with it by HMAC is not signed.
    let public = rcgen::KeyPair::from_pem(&pem).unwrap().public_key_pem();
    let secret = EncodingKey::from_secret(public.as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(json!({})), &secret).unwrap();
    let other =
        EncodingKey::from_ec_pem(rcgen::KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap();
    let foreign = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims(json!({})), &other).unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let raised = encode(&claims(json!({"sub": "system:serviceaccount:kube-system:default"})));
    let bound = |what: Value| {
        let mut all = claims(json!({}));
        all["kubernetes.io"].as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        sign(&all)
    };
    for (what, token) in [
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("no algorithm", unsigned("")),
        ("the public key as a secret", confused),
        ("another key", foreign),
        ("other claims under the signature", format!("{}.{raised}.{}", parts[0], parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two tokens", format!("{good}.{good}")),
        ("expired", sign(&claims(json!({"exp": now - 120})))),
        ("not yet good", sign(&claims(json!({"nbf": now + 600})))),
        ("made in the future", sign(&claims(json!({"iat": now + 600})))),
        ("for others", sign(&claims(json!({"aud": ["vault"]})))),
        ("of others", sign(&claims(json!({"iss": "https://others"})))),
        ("another account's uid", bound(json!({"serviceaccount": {"name": "default", "uid": "x"}}))),
        ("a pod that never was", bound(json!({"pod": {"name": "web", "uid": "x"}}))),
        ("a node that never was", bound(json!({"node": {"name": "n", "uid": "x"}}))),
    ] {
        let (status, answer) = cluster.with_token(&token).get("/api/v1/namespaces").await;
        assert_eq!((status, answer["message"].as_str()), (401, Some("Unauthorized")), "{what}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn paths_lead_nowhere_else() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    admin.create("/api/v1/namespaces/kube-system/secrets", &secret).await;
    permit(&admin, "bob", Some("shop"), json!([rule(&[""], &["*"], &["*"])])).await;
    let bob = cluster.with_token("secret-of-bob");
    let own = || bob.get("/api/v1/namespaces/shop/secrets");
    eventually("bob has his own", own, |(status, _): &Answer| *status == 200).await;
    for path in [
        "/api/v1/namespaces/shop/../kube-system/secrets",
        "/api/v1/namespaces/shop/%2e%2e/kube-system/secrets",
        "/api/v1/namespaces/shop/secrets/../../kube-system/secrets",
        "/api/v1/namespaces/shop/secrets/..%2f..%2fkube-system%2fsecrets%2fs",
        "/api/v1/namespaces/shop%2f..%2fkube-system/secrets/s",
        "/api/v1/namespaces/shop%2fsecrets/../kube-system/secrets",
        "//api/v1/namespaces/kube-system/secrets",
        "/api//v1/namespaces/kube-system/secrets",
        "/api/v1/namespaces//kube-system/secrets",
        "/api/v1/namespaces/kube-system//secrets",
        "/api/v1/namespaces/kube-system/secrets/",
        "/api/v1/./namespaces/kube-system/secrets",
        "/api/v1/namespaces/kube-system/secrets;x=/namespaces/shop/secrets",
        "/api/v1/namespaces/kube-system/secrets%00",
        "/api/v1/namespaces/kube-system%2fsecrets",
        "/api/v1/watch/namespaces/shop/../kube-system/secrets",
        "/api/v1/namespaces/shop/pods/x/proxy/../../../../kube-system/secrets",
        "/livez/../api/v1/namespaces/kube-system/secrets",
        "/version/../api/v1/namespaces/kube-system/secrets",
        "/openid/v1/jwks/../../../api/v1/namespaces/kube-system/secrets",
        "/apis/rbac.authorization.k8s.io/v1/../../../api/v1/namespaces/kube-system/secrets",
        "http://localhost/api/v1/namespaces/kube-system/secrets",
        "/API/v1/namespaces/kube-system/secrets",
        "/%61pi/v1/namespaces/kube-system/secrets",
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret-of-bob\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(&cluster, request.as_bytes()).await;
        assert!(["400", "403", "404", "503"].contains(&status(&answer)), "{path}: {answer}");
        assert!(!answer.contains("\"dg==\""), "{path}: {answer}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn roles_do_not_lead_upwards() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let writes = json!([
        rule(
            &["rbac.authorization.k8s.io"],
            &["clusterroles", "clusterrolebindings", "rolebindings"],
            &["get", "list", "create", "update", "patch"]
        ),
        rule(&[""], &["configmaps"], &["get"]),
    ]);
    permit(&admin, "bob", None, writes).await;
    let bob = cluster.with_token("secret-of-bob");
    let roles = format!("{RBAC}/clusterroles");
    eventually("bob may make roles", || bob.get(&roles), |(status, _): &Answer| *status == 200).await;

    let role = |name: &str, more: Value| {
        let mut role = json!({"metadata": {"name": name}});
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        role
    };
    let secrets = json!([rule(&[""], &["secrets"], &["get"])]);
    let label = json!({"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}});
    // Through roles that others are made of, by what they select, or by changing them.
    for (what, attempt) in [
        ("rules", role("more", json!({"rules": secrets}))),
        ("an aggregated role", json!({"metadata": label, "rules": secrets})),
        ("all rules", role("more", json!({"rules": [rule(&["*"], &["*"], &["*"])]}))),
        ("all paths", role("more", json!({"rules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}]}))),
        (
            "what it selects",
            role("more", json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}})),
        ),
    ] {
        let answer = bob.post(&roles, &attempt).await;
        assert_eq!(answer.0, 403, "{what}: {answer:?}");
    }
    let mine = role("mine", json!({"rules": [rule(&[""], &["configmaps"], &["get"])]}));
    assert_eq!(bob.post(&roles, &mine).await.0, 201, "what one has one may give");
    let aggregates = json!({"aggregationRule": {"clusterRoleSelectors": [{}]}});
    let answer = bob.ask("PATCH", &format!("{roles}/mine"), Some(&aggregates)).await;
    assert_eq!(answer.0, 403);
    assert!(
        message(&answer).contains("must have cluster-admin privileges to use the aggregationRule"),
        "{answer:?}"
    );
    for name in ["mine", "view", "system:basic-user"] {
        let answer = bob.ask("PATCH", &format!("{roles}/{name}"), Some(&json!({"rules": secrets}))).await;
        assert_eq!(answer.0, 403, "{name}");
    }
    // Through bindings to roles that have more.
    let subject = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}]);
    let stronger = ["cluster-admin", "system:node", "system:aggregate-to-edit", "system:aggregate-to-view"];
    for target in stronger.into_iter().chain(["missing"]) {
        let reference =
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": target});
        let binding = json!({"metadata": {"name": "up"}, "roleRef": reference, "subjects": subject});
        for path in [format!("{RBAC}/clusterrolebindings"), format!("{RBAC}/namespaces/shop/rolebindings")] {
            let (status, answer) = bob.post(&path, &binding).await;
            assert!([403, 404].contains(&status), "{target}: {answer}");
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn nobody_becomes_a_master() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rules = json!([
        rule(&[""], &["users"], &["impersonate"]),
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["dev"], "verbs": ["impersonate"]},
        rule(&["authentication.k8s.io"], &["users", "groups", "uids"], &["impersonate:user-info"]),
        rule(&["*"], &["*"], &["impersonate-on:user-info:create", "impersonate-on:user-info:list"]),
    ]);
    permit(&admin, "bob", None, rules).await;
    let bob = || cluster.with_token("secret-of-bob");
    let eve = bob().header("Impersonate-User", "eve").header("Impersonate-Group", "dev");
    let known = eventually("bob may be eve", || eve.whoami(), |(status, _): &Answer| *status == 201).await.1;
    assert_eq!(known["username"], "eve");
    for headers in [
        vec![("Impersonate-User", "eve"), ("Impersonate-Group", "system:masters")],
        vec![
            ("Impersonate-User", "eve"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Group", "system:masters"),
        ],
        vec![("Impersonate-User", "system:apiserver"), ("Impersonate-Group", "system:masters")],
        vec![("Impersonate-Group", "system:masters")],
        vec![("Impersonate-User", "eve"), ("Impersonate-Extra-Scopes", "all")],
    ] {
        let asker = headers.iter().fold(bob(), |asker, (name, value)| asker.header(name, value));
        let (status, answer) = asker.whoami().await;
        assert!([400, 403].contains(&status), "{headers:?}: {answer}");
        assert_ne!(asker.get("/api/v1/secrets").await.0, 200, "{headers:?}");
    }
    // A name gives nothing that its owner has by his groups.
    for name in ["root", "admin", "system:apiserver", "kubernetes-admin"] {
        let asker = bob().header("Impersonate-User", name);
        let known = asker.whoami().await;
        assert_eq!((known.0, &known.1["groups"]), (201, &json!(["system:authenticated"])), "{name}");
        assert_eq!(asker.get("/api/v1/secrets").await.0, 403, "{name}");
    }
    // Headers of a front proxy are a front proxy's alone.
    let pretender = bob().header("X-Remote-User", "root").header("X-Remote-Group", "system:masters");
    assert_eq!(pretender.whoami().await.1["username"], "bob");
    cluster.stop().await;
}

#[tokio::test]
async fn requests_do_not_hide_in_others() {
    let cluster = Cluster::start().await;
    let hidden = "GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-of-root\r\n\r\n";
    let head = "POST /version HTTP/1.1\r\nHost: localhost\r\n";
    for (what, request) in [
        ("two lengths", format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello{hidden}")),
        ("a list of lengths", format!("{head}Content-Length: 5, 6\r\n\r\nhello{hidden}")),
        ("a signed length", format!("{head}Content-Length: +5\r\n\r\nhello{hidden}")),
        ("a negative length", format!("{head}Content-Length: -5\r\n\r\nhello{hidden}")),
        ("a length in hex", format!("{head}Content-Length: 0x5\r\n\r\nhello{hidden}")),
        ("an unknown coding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("chunked not last", format!("{head}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{hidden}")),
        ("a blank before the colon", format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("a header that goes on", format!("{head}X: a\r\n b: c\r\n\r\n{hidden}")),
        ("no version", format!("GET /version\r\n\r\n{hidden}")),
        ("two blanks", format!("GET  /version HTTP/1.1\r\nHost: x\r\n\r\n{hidden}")),
        ("an unknown version", format!("GET /version HTTP/3.9\r\nHost: x\r\n\r\n{hidden}")),
    ] {
        let answer = raw(&cluster, request.as_bytes()).await;
        assert!(!answer.contains("NamespaceList"), "{what}: {answer}");
        assert!(answer.is_empty() || status(&answer) == "400", "{what}: {answer}");
    }
    // Broken chunks end the request, and with it the connection.
    for chunk in
        ["5\r\nhello", "zz\r\nhello\r\n0\r\n\r\n", "-1\r\n\r\n0\r\n\r\n", "ffffffffffffffffff\r\nhello"]
    {
        let request = format!(
            "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-of-root\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\r\n{hidden}"
        );
        let answer = raw(&cluster, request.as_bytes()).await;
        assert!(!answer.contains("NamespaceList"), "{chunk}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 2"), "{chunk}: {answer}");
    }
    // Where both are said, the chunks count, and what follows them is a request of its own and nobody else's.
    let both = format!(
        "{head}Content-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n{hidden}"
    );
    let answer = raw(&cluster, both.as_bytes()).await;
    assert!(!answer.contains("NamespaceList"), "{answer}");
    cluster.stop().await;
}

#[tokio::test]
async fn large_and_slow_clients_do_not_keep_others_out() {
    let cluster = Cluster::start().await;
    let root = cluster.with_token("secret-of-root");
    // Open connections that say nothing, or only the beginning of something.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(cluster.running.address()).await.unwrap());
    }
    let mut slow = Vec::new();
    for i in 0..50 {
        let mut stream = connect(&cluster).await;
        let part = match i % 3 {
            0 => "GET /version HT",
            1 => "GET /version HTTP/1.1\r\nX-A: b\r\n",
            _ => {
                "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-of-root\r\n\
                  Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            }
        };
        stream.write_all(part.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let begin = Instant::now();
    let answers = join_all((0..50).map(|_| root.get("/api/v1/namespaces"))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());

    let long = "x".repeat(2 * 1024 * 1024);
    let many: String = (0..5000).map(|i| format!("X-{i}: y\r\n")).collect();
    for request in [
        format!("GET /version HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /version HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        format!("{long}\r\n\r\n"),
    ] {
        let answer = raw(&cluster, request.as_bytes()).await;
        let refused = ["", "400", "413", "414", "431"].contains(&status(&answer));
        assert!(refused, "{}", answer.chars().take(200).collect::<String>());
    }
    assert_eq!(root.get("/version").await.0, 200);
    cluster.stop().await;
}

/// Posts a body of some kind.
async fn send(asker: &Asker, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
    let request = http::Request::builder().method("POST").uri("/api/v1/namespaces/shop/configmaps");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = asker.client.send(request.body(Body::from(body)).unwrap()).await.expect("an answer");
    let status = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.expect("a body");
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn bodies_do_not_grow() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let kind = "Content-Type";
    let begin = Instant::now();

    // Zeros without end, packed.
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![b' '; 1024 * 1024];
    for _ in 0..100 {
        packer.write_all(&zeros).unwrap();
    }
    let packed = packer.finish().unwrap();
    let headers = [(kind, "application/json"), ("Content-Encoding", "gzip")];
    let (status, answer) = send(&admin, &headers, packed).await;
    assert!((400..500).contains(&status), "{status} {answer}");

    // Lists of lists, each ten times the one before.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let item = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![item; 10].join(",")));
    }
    let (status, answer) = send(&admin, &[(kind, "application/yaml")], bomb.into_bytes()).await;
    assert_eq!(status, 400, "{answer}");

    // Depth without end.
    for (kind_of_body, open, close) in [
        ("application/json", "[", "]"),
        ("application/json", "{\"a\":", "}"),
        ("application/yaml", "[", "]"),
        ("application/yaml", "{a: ", "}"),
    ] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let (status, answer) = send(&admin, &[(kind, kind_of_body)], deep.into_bytes()).await;
        assert!((400..500).contains(&status), "{kind_of_body} {open}: {status} {answer}");
    }
    let nested = "\x0a\x08".repeat(50_000);
    let mut protobuf = b"k8s\0".to_vec();
    protobuf.extend_from_slice(nested.as_bytes());
    let (status, answer) = send(&admin, &[(kind, "application/vnd.kubernetes.protobuf")], protobuf).await;
    assert!((400..500).contains(&status), "{status} {answer}");

    // More than is read at all.
    let huge = json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(4 * 1024 * 1024)}}).to_string();
    let (status, answer) = send(&admin, &[(kind, "application/json")], huge.into_bytes()).await;
    assert_eq!(status, 413, "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(admin.get("/livez").await.0, 200);
    cluster.stop().await;
}

#[tokio::test]
async fn two_hundred_at_once_do_not_exceed_a_quota() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let quotas = "/api/v1/namespaces/shop/resourcequotas";
    let hard = json!({"count/configmaps": "20", "count/secrets": "0"});
    let made = admin.create(quotas, &json!({"metadata": {"name": "few"}, "spec": {"hard": hard}})).await;
    let mut counted = made.clone();
    counted["status"] = json!({"hard": hard, "used": {"count/configmaps": "0", "count/secrets": "0"}});
    assert_eq!(admin.ask("PUT", &format!("{quotas}/few/status"), Some(&counted)).await.0, 200);
    let body = json!({"metadata": {"name": "probe"}});
    let probe = || admin.post("/api/v1/namespaces/shop/secrets?dryRun=All", &body);
    eventually("the quota is seen", probe, |answer: &Answer| message(answer).contains("exceeded quota"))
        .await;

    let maps = "/api/v1/namespaces/shop/configmaps";
    let stored = async || admin.get(maps).await.1["items"].as_array().map_or(0, Vec::len);
    let creators = (0..200).map(|i| {
        let (admin, body) = (admin.clone(), json!({"metadata": {"name": format!("m{i}")}}));
        tokio::spawn(async move { admin.post(maps, &body).await.0 })
    });
    let statuses: Vec<u16> = join_all(creators).await.into_iter().map(|joined| joined.unwrap()).collect();
    let accepted = statuses.iter().filter(|status| **status == 201).count();
    assert_eq!((accepted, stored().await), (20, 20), "{statuses:?}");
    assert_eq!(admin.get(&format!("{quotas}/few")).await.1["status"]["used"]["count/configmaps"], "20");
    cluster.stop().await;
}
