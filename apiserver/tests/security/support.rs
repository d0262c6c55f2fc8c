//! A server with a fresh store, and those who ask it.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use apiserver::authn::{MASTERS, User};
use apiserver::config::{Config, ServingCert, StorageConfig};
use apiserver::{Running, start};
use base64::Engine;
use client::Client;
use http::Request;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SigningKey as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What was answered: status and body (text that is no JSON becomes a string).
pub type Answer = (u16, Value);

/// A certificate authority of the test.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    key: String,
}

/// A certificate and its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let own = key.serialize_pem();
        Self { pem, issuer: Issuer::new(params, key), key: own }
    }

    /// A certificate for a client, of version 1: it says nothing but names.
    pub fn old_client(&self, user: &str, groups: &[&str]) -> Identity {
        let new = self.client(user, groups);
        let der = CertificateDer::from_pem_slice(new.certificate.as_bytes()).unwrap();
        let certificate = elements(&elements(&der)[0].1);
        let fields = elements(&certificate[0].1);
        // Without version and extensions.
        let kept: Vec<u8> =
            fields.into_iter().filter(|(tag, _)| ![0xa0, 0xa3].contains(tag)).flat_map(element).collect();
        let to_sign = element((0x30, kept));
        let key = KeyPair::from_pem(&self.key).unwrap();
        let mut signature = vec![0];
        signature.extend(key.sign(&to_sign).unwrap());
        let body = [to_sign, element(certificate[1].clone()), element((0x03, signature))].concat();
        let encoded = base64::engine::general_purpose::STANDARD.encode(element((0x30, body)));
        let lines: Vec<&str> =
            encoded.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        let certificate =
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        Identity { certificate, key: new.key }
    }

    /// A certificate for a client.
    pub fn client(&self, user: &str, groups: &[&str]) -> Identity {
        self.issue(user, groups, |_| {})
    }

    pub fn issue(
        &self,
        user: &str,
        groups: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        // rcgen keeps one value of a type: further ones go by the number of the type.
        for (i, group) in groups.iter().enumerate() {
            let kind =
                if i == 0 { DnType::OrganizationName } else { DnType::CustomDnType(vec![2, 5, 4, 10]) };
            params.distinguished_name.push(kind, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// The parts of a DER value, each with its tag.
fn elements(mut der: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [tag, first, rest @ ..] = der {
        let (size, rest) = match first {
            short @ 0..=127 => (usize::from(*short), rest),
            0x81 => (usize::from(rest[0]), &rest[1..]),
            _ => (usize::from(rest[0]) << 8 | usize::from(rest[1]), &rest[2..]),
        };
        found.push((*tag, rest[..size].to_vec()));
        der = &rest[size..];
    }
    found
}

fn element((tag, body): (u8, Vec<u8>)) -> Vec<u8> {
    let size = body.len();
    let mut out = match size {
        0..=127 => vec![tag, size as u8],
        128..=255 => vec![tag, 0x81, size as u8],
        _ => vec![tag, 0x82, (size >> 8) as u8, size as u8],
    };
    out.extend(body);
    out
}

/// Makes aws-lc-rs the provider of TLS.
pub fn install_crypto_provider() {
    // An error says that this has been done.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A server of the test's own.
pub struct Cluster {
    pub running: Running,
    pub authority: Authority,
    pub front_proxy: Authority,
    token: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    /// With a configuration that is changed first; the path is a directory for files.
    pub async fn with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        install_crypto_provider();
        // From now on all is counted.
        client::observability::metrics_handle();
        let directory = tempfile::tempdir().unwrap();
        let (authority, front_proxy) = (Authority::new("clients"), Authority::new("front-proxy"));
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut config = Config {
            storage: StorageConfig::Embedded { data_dir: directory.path().join("data") },
            serving_cert: ServingCert::Directory(directory.path().to_owned()),
            bind_address: SocketAddr::from(([127, 0, 0, 1], 0)),
            // Endpoints may not be loopback addresses.
            advertise_address: Some(IpAddr::from([192, 0, 2, 7])),
            ..Config::default()
        };
        config.authentication.client_ca_file = Some(file("clients.crt", &authority.pem));
        config.authentication.request_header.client_ca_file = Some(file("proxy.crt", &front_proxy.pem));
        config.authentication.request_header.allowed_names = vec!["aggregator".to_owned()];
        config.authentication.request_header.username_headers = vec!["X-Remote-User".to_owned()];
        config.authentication.request_header.group_headers = vec!["X-Remote-Group".to_owned()];
        config.authentication.request_header.extra_headers_prefix = vec!["X-Remote-Extra-".to_owned()];
        config.authentication.token_auth_file = Some(file(
            "tokens.csv",
            "secret-of-bob,bob,4711,\"dev,ops\"\nsecret-of-root,root,0,system:masters\n",
        ));
        config.authentication.bootstrap_tokens = true;
        change(&mut config, directory.path());
        let token = CancellationToken::new();
        let running = start(config, token.clone()).await.expect("the server starts");
        let ready = tokio::time::timeout(Duration::from_secs(30), running.ready()).await;
        ready.expect("the server becomes ready");
        Self { running, authority, front_proxy, token, _directory: directory }
    }

    /// Who may do everything, without a socket.
    pub fn admin(&self) -> Asker {
        self.user("admin", &[MASTERS])
    }

    /// Anybody, without a socket.
    pub fn user(&self, name: &str, groups: &[&str]) -> Asker {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let user = User { name: name.to_owned(), groups, ..User::default() };
        Asker { client: self.running.client_as(user), headers: Vec::new() }
    }

    /// Over TLS, with the credentials of a kubeconfig's `user`.
    pub fn over_tls(&self, credentials: Value) -> Asker {
        let url = format!("https://{}", self.running.address()).parse().unwrap();
        let mut config = kube::Config::new(url);
        config.accept_invalid_certs = true;
        // The first answer counts.
        config.default_retry = false;
        config.auth_info = serde_json::from_value(credentials).unwrap();
        Asker { client: Client::try_from(config).unwrap(), headers: Vec::new() }
    }

    pub fn with_token(&self, token: &str) -> Asker {
        self.over_tls(json!({"token": token}))
    }

    pub fn with_certificate(&self, identity: &Identity) -> Asker {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        self.over_tls(json!({
            "client-certificate-data": encode(&identity.certificate),
            "client-key-data": encode(&identity.key),
        }))
    }

    pub async fn stop(self) {
        self.token.cancel();
        self.running.wait().await.expect("the server stops");
    }
}

/// Somebody who asks.
#[derive(Clone)]
pub struct Asker {
    pub client: Client,
    headers: Vec<(String, String)>,
}

impl Asker {
    /// The same with one more header on every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
        let own = self.headers.iter().any(|(name, _)| name == "Content-Type");
        let request = if own { request } else { request.header("Content-Type", kind) };
        let request = request.body(bytes.into()).unwrap();
        let response = self.client.send(request).await.expect("an answer");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.expect("a body");
        let value = serde_json::from_slice(&bytes);
        (status, value.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, None).await
    }

    /// Creates an object that must be accepted.
    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    }

    /// Who the server says this is.
    pub async fn whoami(&self) -> Answer {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let (status, answer) = self.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
        if status == 201 { (status, answer["status"]["userInfo"].clone()) } else { (status, answer) }
    }
}

/// Whether something with these labels has been counted in this process.
pub fn is_counted(metric: &str, labels: &[(&str, &str)]) -> bool {
    let text = client::observability::metrics_handle().render();
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let start = format!("{metric}{{");
    text.lines().any(|line| line.starts_with(&start) && labels.iter().all(|label| line.contains(label)))
}

/// Asks until the answer is as wanted: informers hear of a change a little later than its writer.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F, wanted: impl Fn(&T) -> bool) -> T
where
    F: Future<Output = T>,
    T: std::fmt::Debug,
{
    let mut last = ask().await;
    for _ in 0..500 {
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        last = ask().await;
    }
    panic!("{what}: still {last:?}");
}

pub fn message(answer: &Answer) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}

/// A namespace with its default service account, which a controller makes elsewhere.
pub async fn namespace(admin: &Asker, name: &str) {
    namespace_with(admin, name, json!({})).await;
}

pub async fn namespace_with(admin: &Asker, name: &str, labels: Value) {
    admin.create("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}})).await;
    let account = json!({"metadata": {"name": "default"}});
    admin.create(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await;
}

/// A pod of one container.
pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "example.com/main:1"}]},
    })
}

/// A pod, once admission has heard of the namespace's service account.
pub async fn create_pod(admin: &Asker, namespace: &str, pod: &Value) -> Value {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let create = || admin.post(&path, pod);
    eventually("the pod is created", create, |(status, _): &Answer| *status == 201).await.1
}
