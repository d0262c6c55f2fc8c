//! Tokens that others sign or know.

use std::path::Path;
use std::sync::Arc;

use apiserver::authn::structured::OidcFlags;
use apiserver::authn::webhook::WebhookConfig;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::hook::{Call, Hook, Reply};
use super::support::{Answer, Cluster, eventually, is_counted};
use super::ways::Tunnel;

/// A key of an issuer.
struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        Self { id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = &self.pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(32);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": encode(x), "y": encode(y)})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id}).to_string();
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(&header), encode(&claims.to_string()));
        let signed = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed.as_ref()))
    }
}

/// An issuer of tokens: it publishes keys, and distributed claims.
struct Issuer {
    hook: Hook,
    published: Arc<Mutex<Vec<Value>>>,
    distributed: Arc<Mutex<String>>,
}

impl Issuer {
    async fn start() -> Self {
        let (published, distributed) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<String>>::default());
        let (keys, groups) = (Arc::clone(&published), Arc::clone(&distributed));
        let hook = Hook::start(move |call: &Call| {
            let host = call.headers["host"].to_str().unwrap();
            match call.target.as_str() {
                "/.well-known/openid-configuration" => {
                    let url = format!("https://{host}");
                    json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).into()
                }
                "/elsewhere" => {
                    json!({"issuer": "https://issuer.example", "jwks_uri": format!("https://{host}/keys")})
                        .into()
                }
                "/keys" => json!({"keys": *keys.lock()}).into(),
                "/groups" => Reply::Raw(200, "application/jwt", groups.lock().clone()),
                _ => Reply::Raw(404, "text/plain", String::new()),
            }
        })
        .await;
        Self { hook, published, distributed }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.hook.port)
    }

    fn publish(&self, keys: &[&Key]) {
        *self.published.lock() = keys.iter().map(|key| key.jwk()).collect();
    }

    /// Claims of a token that is good for an hour.
    fn claims(&self, more: Value) -> Value {
        let now = jiff::Timestamp::now().as_second();
        let mut claims =
            json!({"iss": self.url(), "aud": "cluster", "sub": "jane", "iat": now, "exp": now + 3600});
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        claims
    }

    /// A configuration file with this issuer, and what else is said of it.
    fn file(&self, folder: &Path, issuer: Value, more: Value) -> std::path::PathBuf {
        let mut issuer_config = json!({
            "url": self.url(), "audiences": ["cluster"], "certificateAuthority": self.hook.authority.pem,
        });
        if let (Some(config), Value::Object(issuer)) = (issuer_config.as_object_mut(), issuer) {
            config.extend(issuer);
        }
        let mut jwt = json!({
            "issuer": issuer_config,
            "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}},
        });
        if let (Some(jwt), Value::Object(more)) = (jwt.as_object_mut(), more) {
            jwt.extend(more);
        }
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [jwt],
        });
        let path = folder.join("authentication.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

/// Asks until the issuer has been reached.
async fn known(cluster: &Cluster, token: &str) -> Value {
    let asker = cluster.with_token(token);
    eventually("the token is believed", || asker.whoami(), |(status, _): &Answer| *status == 201).await.1
}

async fn refused(cluster: &Cluster, token: &str) {
    assert_eq!(cluster.with_token(token).whoami().await.0, 401, "{token}");
}

#[tokio::test]
async fn issuers_of_a_file() {
    let issuer = Issuer::start().await;
    let (first, second, stranger) = (Key::new("1"), Key::new("2"), Key::new("1"));
    issuer.publish(&[&first]);
    let cluster = Cluster::with(|config, folder| {
        let more = json!({
            "claimMappings": {
                "username": {"expression": "'oidc:' + claims.sub"},
                "groups": {"expression": "dyn(claims.roles).map(role, 'oidc:' + role)"},
                "uid": {"claim": "uid"},
                "extra": [{"key": "example.com/team", "valueExpression": "claims.?team.orValue('')"}],
            },
            "claimValidationRules": [{"expression": "claims.exp - claims.iat <= 86400", "message": "too long"}],
            "userValidationRules": [{"expression": "!('oidc:root' in user.groups)", "message": "no roots"}],
        });
        config.authentication.configuration_file = Some(issuer.file(folder, json!({}), more));
    })
    .await;
    let claims = |more: Value| {
        let mut all = issuer.claims(json!({"roles": ["dev"], "uid": "7", "team": "red", "jti": "id"}));
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let jane = known(&cluster, &first.sign(&claims(json!({})))).await;
    assert_eq!((jane["username"].as_str(), jane["uid"].as_str()), (Some("oidc:jane"), Some("7")));
    assert_eq!(jane["groups"], json!(["oidc:dev", "system:authenticated"]));
    assert_eq!(jane["extra"]["example.com/team"], json!(["red"]));
    assert_eq!(jane["extra"]["authentication.kubernetes.io/credential-id"], json!(["JTI=id"]));
    let now = jiff::Timestamp::now().as_second();
    for wrong in [
        first.sign(&claims(json!({"aud": "other"}))),
        first.sign(&claims(json!({"exp": now - 1}))),
        first.sign(&claims(json!({"nbf": now + 600}))),
        first.sign(&claims(json!({"exp": now + 90_000}))),
        first.sign(&claims(json!({"roles": ["root"]}))),
        first.sign(&claims(json!({"iss": "https://others.example"}))),
        stranger.sign(&claims(json!({}))),
    ] {
        refused(&cluster, &wrong).await;
    }
    // Keys are read anew for a token that none of them has signed.
    issuer.publish(&[&first, &second]);
    assert_eq!(known(&cluster, &second.sign(&claims(json!({})))).await["username"], "oidc:jane");
    cluster.stop().await;
}

#[tokio::test]
async fn an_issuer_is_reached_through_its_network() {
    let (issuer, key) = (Issuer::start().await, Key::new("1"));
    issuer.publish(&[&key]);
    let (proxy, port) = Tunnel::tcp().await;
    let cluster = Cluster::with(|config, folder| {
        let network = json!({"egressSelectorType": "controlplane"});
        config.authentication.configuration_file = Some(issuer.file(folder, network, json!({})));
        let path = folder.join("egress.yaml");
        let transport = json!({"tcp": {"url": format!("http://127.0.0.1:{port}")}});
        let file = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "controlplane", "connection": {
                "proxyProtocol": "HTTPConnect", "transport": transport}}],
        });
        std::fs::write(&path, file.to_string()).unwrap();
        config.egress_file = Some(path);
    })
    .await;
    let jane = known(&cluster, &key.sign(&issuer.claims(json!({})))).await;
    assert_eq!(jane["username"], "oidc:jane");
    let targets: Vec<String> = proxy.targets().into_iter().collect();
    assert_eq!(targets, [format!("localhost:{}", issuer.hook.port)]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_discovery_document_may_be_elsewhere_and_claims_too() {
    let issuer = Issuer::start().await;
    let key = Key::new("1");
    issuer.publish(&[&key]);
    let own = "https://issuer.example";
    let cluster = Cluster::with(|config, folder| {
        let elsewhere = json!({"url": own, "discoveryURL": format!("{}/elsewhere", issuer.url())});
        let mappings = json!({"claimMappings": {
            "username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": "g:"},
        }});
        config.authentication.configuration_file = Some(issuer.file(folder, elsewhere, mappings));
    })
    .await;
    let sources = json!({"src": {"endpoint": format!("{}/groups", issuer.url()), "access_token": "secret"}});
    let claims = issuer.claims(json!({
        "iss": own, "_claim_names": {"groups": "src"}, "_claim_sources": sources,
    }));
    // The claims are signed by whoever is found by its own URL.
    *issuer.distributed.lock() = key.sign(&issuer.claims(json!({"groups": ["a", "b"]})));
    let jane = known(&cluster, &key.sign(&claims)).await;
    assert_eq!(jane["username"], "jane");
    assert_eq!(jane["groups"], json!(["g:a", "g:b", "system:authenticated"]));
    let calls = issuer.hook.calls();
    let asked = calls.iter().find(|call| call.target == "/groups").expect("the claims are fetched");
    assert_eq!(asked.headers["authorization"], "Bearer secret");
    *issuer.distributed.lock() = key.sign(&issuer.claims(json!({"groups": ["a"], "aud": "other"})));
    refused(&cluster, &key.sign(&claims)).await;
    let nowhere = issuer.claims(json!({"iss": own, "_claim_names": {"groups": "x"}, "_claim_sources": {}}));
    refused(&cluster, &key.sign(&nowhere)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_issuer_of_flags() {
    let issuer = Issuer::start().await;
    let key = Key::new("1");
    issuer.publish(&[&key]);
    let flags = |algorithm: &str| OidcFlags {
        issuer_url: issuer.url(),
        client_id: "cluster".to_owned(),
        certificate_authority: issuer.hook.authority.pem.clone(),
        username_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        required_claims: vec![("hd".to_owned(), "example.com".to_owned())],
        signing_algorithms: vec![algorithm.to_owned()],
        ..OidcFlags::default()
    };
    let cluster = Cluster::with(|config, _| config.authentication.oidc = Some(flags("ES256"))).await;
    let jane =
        known(&cluster, &key.sign(&issuer.claims(json!({"hd": "example.com", "groups": "staff"})))).await;
    assert_eq!(jane["username"], format!("{}#jane", issuer.url()));
    assert_eq!(jane["groups"], json!(["staff", "system:authenticated"]));
    refused(&cluster, &key.sign(&issuer.claims(json!({"hd": "example.org"})))).await;
    refused(&cluster, &key.sign(&issuer.claims(json!({})))).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_changed_file_comes_into_effect_if_it_is_good() {
    let (before, after) = (Issuer::start().await, Issuer::start().await);
    let key = Key::new("1");
    before.publish(&[&key]);
    after.publish(&[&key]);
    let mut folder = std::path::PathBuf::new();
    let cluster = Cluster::with(|config, path| {
        folder = path.to_owned();
        config.authentication.configuration_file = Some(before.file(path, json!({}), json!({})));
    })
    .await;
    let (old, new) = (key.sign(&before.claims(json!({}))), key.sign(&after.claims(json!({}))));
    assert_eq!(known(&cluster, &old).await["username"], "oidc:jane");
    refused(&cluster, &new).await;
    // A file that is wrong changes nothing.
    after.file(&folder, json!({"audiences": []}), json!({}));
    let metric = "apiserver_authentication_config_controller_automatic_reloads_total";
    let refused_file = || async { is_counted(metric, &[("status", "failure")]) };
    eventually("the file is refused", refused_file, |counted| *counted).await;
    assert_eq!(known(&cluster, &old).await["username"], "oidc:jane");
    after.file(&folder, json!({}), json!({}));
    assert_eq!(known(&cluster, &new).await["username"], "oidc:jane");
    refused(&cluster, &old).await;
    cluster.stop().await;
}

#[tokio::test]
async fn anonymous_requests_pass_where_a_file_says() {
    let cluster = Cluster::with(|config, folder| {
        let file = folder.join("authentication.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
                    anonymous: {enabled: true, conditions: [{path: /livez}]}";
        std::fs::write(&file, text).unwrap();
        config.authentication.configuration_file = Some(file);
    })
    .await;
    let nobody = cluster.over_tls(json!({}));
    for (path, status) in [
        ("/livez", 200),
        ("/livez?verbose", 200),
        ("/readyz", 401),
        ("/livez/", 401),
        ("/livez/ping", 401),
        ("/version", 401),
        ("/api/v1/namespaces", 401),
    ] {
        assert_eq!(nobody.get(path).await.0, status, "{path}");
    }
    cluster.stop().await;
}

/// A kubeconfig file that names a webhook.
pub fn kubeconfig(hook: &Hook, folder: &Path, path: &str) -> std::path::PathBuf {
    let server = format!("https://localhost:{}{path}", hook.port);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "hook",
        "clusters": [{"name": "hook", "cluster": {"server": server, "certificate-authority-data": hook.ca_bundle()}}],
        "users": [{"name": "server", "user": {"token": "secret-of-the-server"}}],
        "contexts": [{"name": "hook", "context": {"cluster": "hook", "user": "server"}}],
    });
    let file = folder.join(format!("{}.kubeconfig", path.trim_matches('/').replace('/', "-")));
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let answers = Arc::new(Mutex::new(0));
    let failing = Arc::clone(&answers);
    let hook = Hook::start(move |call: &Call| {
        let token = call.body["spec"]["token"].as_str().unwrap_or_default();
        let status = match token {
            "good" => json!({"authenticated": true, "user": {
                "username": "hooked", "uid": "9", "groups": ["g"], "extra": {"k": ["v"]},
            }}),
            "of-others" => json!({"authenticated": true, "audiences": ["others"], "user": {"username": "x"}}),
            "flaky" => {
                let mut answers = failing.lock();
                *answers += 1;
                if *answers < 3 {
                    return Reply::Raw(500, "text/plain", "not now".to_owned());
                }
                json!({"authenticated": true, "user": {"username": "flaky"}})
            }
            "broken" => return Reply::Raw(400, "text/plain", "never".to_owned()),
            _ => json!({"authenticated": false}),
        };
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}).into()
    })
    .await;
    let cluster = Cluster::with(|config, folder| {
        config.authentication.api_audiences = vec!["cluster".to_owned()];
        config.authentication.webhook = Some(WebhookConfig {
            file: kubeconfig(&hook, folder, "/authenticate"),
            version: "v1".to_owned(),
            ttl: std::time::Duration::from_secs(60),
        });
    })
    .await;
    let (status, user) = cluster.with_token("good").whoami().await;
    assert_eq!((status, user["username"].as_str(), user["uid"].as_str()), (201, Some("hooked"), Some("9")));
    assert_eq!(user["groups"], json!(["g", "system:authenticated"]));
    assert_eq!(user["extra"], json!({"k": ["v"]}));
    let call = &hook.calls()[0];
    assert_eq!(call.target, "/authenticate?timeout=30s");
    assert_eq!(call.headers["authorization"], "Bearer secret-of-the-server");
    assert_eq!(call.body["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(call.body["spec"], json!({"token": "good", "audiences": ["cluster"]}));
    // The answer is kept.
    assert_eq!(cluster.with_token("good").whoami().await.0, 201);
    assert_eq!(hook.calls().len(), 1);
    for token in ["bad", "of-others", "broken"] {
        refused(&cluster, token).await;
        refused(&cluster, token).await;
    }
    let asked = |token: &str| hook.calls().iter().filter(|call| call.body["spec"]["token"] == token).count();
    assert_eq!((asked("bad"), asked("of-others")), (1, 1), "refusals are kept");
    assert_eq!(asked("broken"), 2, "failures are not");
    assert_eq!(cluster.with_token("flaky").whoami().await.1["username"], "flaky");
    assert_eq!(asked("flaky"), 3, "it was asked again");
    // Tokens of others are not sent to the webhook.
    assert_eq!(cluster.with_token("secret-of-bob").whoami().await.1["username"], "bob");
    assert_eq!(asked("secret-of-bob"), 0);
    cluster.stop().await;
}
