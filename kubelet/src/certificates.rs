//! Certificates of the kubelet: the one it serves with, and the one it shows to the API.
//!
//! Both are files of certificate and key that may be replaced while the kubelet runs; the serving side reads them anew
//! when they have changed. Certificates come from the API by certificate signing requests, as upstream's bootstrap and
//! certificate manager ask for them, or, for serving without any, from the kubelet itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use client::kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use client::{Api, Client};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// How long a request may wait for its certificate before it is made anew.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const RETRY: Duration = Duration::from_secs(5);

/// The certificate the kubelet serves with, read from its files whenever they have changed.
#[derive(Clone, Debug)]
pub struct ServingConfig {
    resolver: Arc<FileResolver>,
}

#[derive(Debug)]
struct FileResolver {
    /// Certificate and key, best first: what the API has issued goes before what the kubelet has made itself.
    files: Vec<(PathBuf, PathBuf)>,
    current: RwLock<Current>,
}

/// What was read, and from which state of the files.
#[derive(Debug)]
struct Current {
    state: Option<(usize, SystemTime)>,
    pair: Arc<CertifiedKey>,
}

fn read_pair(certificate: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .with_context(|| format!("read {}", certificate.display()))?
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("parse {}", certificate.display()))?;
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("read {}", key.display()))?;
    let signer =
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&private).context("use the private key")?;
    Ok(CertifiedKey::new(chain, signer))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

impl ServingConfig {
    fn from_files(files: Vec<(PathBuf, PathBuf)>) -> anyhow::Result<Self> {
        let state = newest(&files);
        let (certificate, key) = state.map(|(at, _)| &files[at]).context("no serving certificate")?;
        let pair = Arc::new(read_pair(certificate, key)?);
        Ok(Self { resolver: Arc::new(FileResolver { files, current: RwLock::new(Current { state, pair }) }) })
    }

    /// The files given; else what the API has issued or will issue into `cert_dir`, and until then a certificate signed by
    /// itself and kept there.
    pub fn load_or_create(
        cert_dir: &Path,
        tls_cert_file: &str,
        tls_key_file: &str,
        hostname: &str,
        ips: &[IpAddr],
    ) -> anyhow::Result<Self> {
        if !tls_cert_file.is_empty() && !tls_key_file.is_empty() {
            return Self::from_files(vec![(tls_cert_file.into(), tls_key_file.into())]);
        }
        let issued = cert_dir.join("kubelet-server-current.pem");
        let (certificate, key) = (cert_dir.join("kubelet.crt"), cert_dir.join("kubelet.key"));
        if !issued.exists() && read_pair(&certificate, &key).is_err() {
            let (certificate_pem, key_pem) = self_signed(hostname, ips)?;
            std::fs::create_dir_all(cert_dir).with_context(|| format!("create {}", cert_dir.display()))?;
            write_private(&key, &key_pem)?;
            std::fs::write(&certificate, certificate_pem)
                .with_context(|| format!("write {}", certificate.display()))?;
            info!(certificate = %certificate.display(), "made a self-signed serving certificate");
        }
        Self::from_files(vec![(issued.clone(), issued), (certificate, key)])
    }

    /// For the TLS library.
    #[must_use]
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.resolver.clone()
    }
}

/// The best certificate that is there, and when it was written.
fn newest(files: &[(PathBuf, PathBuf)]) -> Option<(usize, SystemTime)> {
    files.iter().enumerate().find_map(|(at, (certificate, _))| Some((at, modified(certificate)?)))
}

impl ResolvesServerCert for FileResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl FileResolver {
    fn current(&self) -> Arc<CertifiedKey> {
        let state = newest(&self.files);
        if let Some((at, _)) = state.filter(|_| self.current.read().state != state) {
            match read_pair(&self.files[at].0, &self.files[at].1) {
                Ok(pair) => *self.current.write() = Current { state, pair: Arc::new(pair) },
                // Half-written: the next connection looks again, this one gets what there was.
                Err(error) => {
                    warn!(error = %format!("{error:#}"), "could not read the serving certificate again")
                }
            }
        }
        self.current.read().pair.clone()
    }
}

fn self_signed(hostname: &str, ips: &[IpAddr]) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![hostname.to_owned()])?;
    params.subject_alt_names.extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{hostname}@{}", Timestamp::now().as_second()));
    params.not_before = std::time::SystemTime::now().into();
    params.not_after = (std::time::SystemTime::now() + Duration::from_secs(365 * 24 * 3600)).into();
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, content.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

/// What a certificate is asked for.
struct Wanted<'a> {
    node: &'a str,
    signer: &'static str,
    usages: &'static [&'static str],
    names: Vec<SanType>,
}

impl<'a> Wanted<'a> {
    fn client(node: &'a str) -> Self {
        Self { node, signer: CLIENT_SIGNER, usages: &["digital signature", "client auth"], names: Vec::new() }
    }

    fn serving(node: &'a str, hostname: &str, ips: &[IpAddr]) -> anyhow::Result<Self> {
        let mut names = vec![SanType::DnsName(hostname.try_into().context("host name")?)];
        names.extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
        Ok(Self { node, signer: SERVING_SIGNER, usages: &["digital signature", "server auth"], names })
    }

    fn request(&self, key: &KeyPair) -> anyhow::Result<CertificateSigningRequest> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", self.node));
        params.subject_alt_names.clone_from(&self.names);
        let pem = params.serialize_request(key)?.pem()?;
        Ok(CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: self.signer.to_owned(),
                usages: Some(self.usages.iter().map(|usage| (*usage).to_owned()).collect()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        })
    }
}

/// What became of a request so far.
fn outcome(request: &CertificateSigningRequest) -> anyhow::Result<Option<String>> {
    let Some(status) = &request.status else { return Ok(None) };
    for condition in status.conditions.iter().flatten() {
        if matches!(condition.type_.as_str(), "Denied" | "Failed") {
            let why = condition.message.as_deref().unwrap_or_default();
            bail!("certificate signing request is {}: {why}", condition.type_.to_lowercase());
        }
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty());
    Ok(certificate.map(|certificate| String::from_utf8_lossy(&certificate.0).into_owned()))
}

/// Asks for a certificate and waits for it; certificate and key in one text.
async fn obtain(client: &Client, wanted: &Wanted<'_>) -> anyhow::Result<String> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let created = api
        .create(&PostParams::default(), &wanted.request(&key)?)
        .await
        .context("create a certificate signing request")?;
    let name = created.metadata.name.clone().unwrap_or_default();
    info!(request = name, signer = wanted.signer, "waiting for the certificate");
    let certificate = tokio::time::timeout(ISSUE_TIMEOUT, issued(&api, &name))
        .await
        .context("certificate was not issued in time")??;
    Ok(format!("{}\n{}", certificate.trim_end(), key.serialize_pem()))
}

async fn issued(api: &Api<CertificateSigningRequest>, name: &str) -> anyhow::Result<String> {
    let field = format!("metadata.name={name}");
    loop {
        let list = api.list(&ListParams::default().fields(&field)).await?;
        let Some(request) = list.items.first() else {
            bail!("certificate signing request {name} was deleted")
        };
        if let Some(certificate) = outcome(request)? {
            return Ok(certificate);
        }
        let version = list.metadata.resource_version.unwrap_or_default();
        let mut stream = api.watch(&WatchParams::default().fields(&field), &version).await?.boxed();
        while let Some(event) = stream.next().await {
            match event {
                Ok(WatchEvent::Added(request) | WatchEvent::Modified(request)) => {
                    if let Some(certificate) = outcome(&request)? {
                        return Ok(certificate);
                    }
                }
                Ok(WatchEvent::Bookmark(_)) => {}
                _ => break,
            }
        }
    }
}

/// Keeps `pem` as `NAME-TIME.pem` and makes `NAME-current.pem` point to it.
fn keep(cert_dir: &Path, name: &str, pem: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(cert_dir).with_context(|| format!("create {}", cert_dir.display()))?;
    let file = cert_dir.join(format!("{name}-{}.pem", Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S")));
    write_private(&file, pem)?;
    let current = cert_dir.join(format!("{name}-current.pem"));
    let new = cert_dir.join(format!("{name}-updated.pem"));
    let _ = std::fs::remove_file(&new);
    std::os::unix::fs::symlink(&file, &new)?;
    std::fs::rename(&new, &current)?;
    Ok(current)
}

/// First and last moment of the first certificate in `pem`.
fn validity(pem: &[u8]) -> anyhow::Result<(Timestamp, Timestamp)> {
    let der = CertificateDer::from_pem_slice(pem).context("no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).context("parse the certificate")?;
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp());
    Ok((time(certificate.validity().not_before)?, time(certificate.validity().not_after)?))
}

/// When to renew a certificate: as upstream, between 70 % and 90 % of its life, `share` (0 to 1) in between.
fn renewal(from: Timestamp, to: Timestamp, share: f64) -> Timestamp {
    let life = to.duration_since(from).as_secs();
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "seconds of a life fit")]
    let after = (life as f64 * (0.7 + 0.2 * share)).round() as i64;
    from.checked_add(SignedDuration::from_secs(after)).unwrap_or(to)
}

/// Makes `kubeconfig` usable: returns at once when its certificate is, else asks for one with the bootstrap credentials.
pub async fn bootstrap(
    bootstrap_kubeconfig: &Path,
    kubeconfig: &Path,
    cert_dir: &Path,
    node_name: &str,
) -> anyhow::Result<()> {
    let current = cert_dir.join("kubelet-client-current.pem");
    let usable = std::fs::read(&current)
        .ok()
        .and_then(|pem| validity(&pem).ok())
        .is_some_and(|(_, to)| to > Timestamp::now());
    if kubeconfig.exists() && (usable || !current.exists()) {
        return Ok(());
    }
    let options = client::ConnectOptions {
        kubeconfig: Some(bootstrap_kubeconfig.to_owned()),
        master: None,
        user_agent: "kubelet".to_owned(),
    };
    let client = client::connect(&options).await.context("use the bootstrap kubeconfig")?;
    let pem = loop {
        match obtain(&client, &Wanted::client(node_name)).await {
            Ok(pem) => break pem,
            Err(error) => {
                warn!(error = %format!("{error:#}"), "could not get a client certificate, will retry")
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    let current = keep(cert_dir, "kubelet-client", &pem)?;
    let bootstrap = std::fs::read_to_string(bootstrap_kubeconfig).context("read the bootstrap kubeconfig")?;
    let text = kubeconfig_with(&bootstrap, &current)?;
    if let Some(parent) = kubeconfig.parent() {
        std::fs::create_dir_all(parent)?;
    }
    write_private(kubeconfig, &text)
}

/// The cluster of a bootstrap kubeconfig, with the certificate in `pem` as the user.
fn kubeconfig_with(bootstrap: &str, pem: &Path) -> anyhow::Result<String> {
    let config: serde_json::Value =
        serde_saphyr::from_str(bootstrap).context("parse the bootstrap kubeconfig")?;
    let current = config["current-context"].as_str().unwrap_or_default();
    let named = |list: &str, name: &str| {
        let mut items = config[list].as_array().into_iter().flatten();
        items.find(|item| name.is_empty() || item["name"] == name).cloned()
    };
    let context = named("contexts", current).context("the bootstrap kubeconfig has no context")?;
    let cluster = context["context"]["cluster"].as_str().unwrap_or_default();
    let cluster = named("clusters", cluster).context("the bootstrap kubeconfig has no cluster")?;
    let pem = pem.display().to_string();
    let result = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster["cluster"]}],
        "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"}}],
        "current-context": "default-context",
        "users": [{"name": "default-auth", "user": {"client-certificate": pem, "client-key": pem}}],
    });
    Ok(serde_json::to_string_pretty(&result)?)
}

/// Renews the client certificate in `cert_dir` before it ends; `renewed` is told each time.
pub async fn rotate(
    client: Client,
    cert_dir: PathBuf,
    node_name: String,
    renewed: impl Fn() + Send,
    token: CancellationToken,
) {
    let current = cert_dir.join("kubelet-client-current.pem");
    loop {
        // Without a certificate of its own there is nothing to renew.
        let Some((from, to)) = std::fs::read(&current).ok().and_then(|pem| validity(&pem).ok()) else {
            return;
        };
        if !wait_until(renewal(from, to, rand::random()), &token).await {
            return;
        }
        let wanted = Wanted::client(&node_name);
        if renew(&client, &wanted, &cert_dir, "kubelet-client", &token).await {
            renewed();
        }
    }
}

/// Gets a serving certificate from the API, and renews it before it ends.
pub async fn serving(
    client: Client,
    cert_dir: PathBuf,
    node_name: String,
    hostname: String,
    ips: Vec<IpAddr>,
    token: CancellationToken,
) {
    let current = cert_dir.join("kubelet-server-current.pem");
    loop {
        if let Some((from, to)) = std::fs::read(&current).ok().and_then(|pem| validity(&pem).ok())
            && !wait_until(renewal(from, to, rand::random()), &token).await
        {
            return;
        }
        match Wanted::serving(&node_name, &hostname, &ips) {
            Ok(wanted) => {
                if !renew(&client, &wanted, &cert_dir, "kubelet-server", &token).await && token.is_cancelled()
                {
                    return;
                }
            }
            Err(error) => return warn!(error = %format!("{error:#}"), "cannot ask for a serving certificate"),
        }
    }
}

async fn wait_until(moment: Timestamp, token: &CancellationToken) -> bool {
    let wait = Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::select! {
        () = token.cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

async fn renew(
    client: &Client,
    wanted: &Wanted<'_>,
    cert_dir: &Path,
    name: &str,
    token: &CancellationToken,
) -> bool {
    let obtained = tokio::select! {
        () = token.cancelled() => return false,
        obtained = obtain(client, wanted) => obtained.and_then(|pem| keep(cert_dir, name, &pem)),
    };
    match obtained {
        Ok(path) => {
            info!(certificate = %path.display(), "certificate renewed");
            true
        }
        Err(error) => {
            warn!(error = %format!("{error:#}"), name, "could not renew a certificate, will retry");
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    #[test]
    fn self_signed_certificate_is_made_once_and_served() {
        let scratch = Scratch::new();
        let ips = ["127.0.0.1".parse().unwrap()];
        let make = || ServingConfig::load_or_create(scratch.path(), "", "", "node-1", &ips).unwrap();
        make();
        let first = std::fs::read(scratch.path().join("kubelet.crt")).unwrap();
        make();
        assert_eq!(std::fs::read(scratch.path().join("kubelet.crt")).unwrap(), first);
        let (from, to) = validity(&first).unwrap();
        assert!(to.duration_since(from) > SignedDuration::from_hours(24 * 360));
    }

    #[test]
    fn issued_certificate_takes_over_while_serving() {
        let scratch = Scratch::new();
        let serving = ServingConfig::load_or_create(scratch.path(), "", "", "node-1", &[]).unwrap();
        let before = serving.resolver.current();
        let (certificate, key) = self_signed("issued", &[]).unwrap();
        keep(scratch.path(), "kubelet-server", &format!("{certificate}{key}")).unwrap();
        let after = serving.resolver.current();
        assert_ne!(before.cert, after.cert);
        assert_eq!(serving.resolver.current().cert, after.cert);
    }

    #[test]
    fn request_names_the_node() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = Wanted::client("n1").request(&key).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&request.spec.request.0).unwrap();
        let (_, csr) =
            <x509_parser::certification_request::X509CertificationRequest as x509_parser::prelude::FromDer<
                _,
            >>::from_der(&pem.contents)
            .unwrap();
        assert_eq!(csr.certification_request_info.subject.to_string(), "O=system:nodes, CN=system:node:n1");
        assert_eq!(request.spec.usages.unwrap(), ["digital signature", "client auth"]);
    }

    #[test]
    fn renewal_is_between_seven_and_nine_tenths() {
        let from = Timestamp::from_second(1000).unwrap();
        let to = Timestamp::from_second(2000).unwrap();
        assert_eq!(renewal(from, to, 0.0).as_second(), 1700);
        assert_eq!(renewal(from, to, 1.0).as_second(), 1900);
    }

    #[test]
    fn bootstrap_cluster_is_kept_with_the_new_user() {
        let bootstrap = "apiVersion: v1\nkind: Config\ncurrent-context: b\ncontexts:\n- name: a\n  context: {cluster: c-x, user: u}\n- name: b\n  context: {cluster: c-y, user: u}\nclusters:\n- name: c-x\n  cluster: {server: 'https://x'}\n- name: c-y\n  cluster: {server: 'https://y'}\nusers:\n- name: u\n  user: {token: t}\n";
        let text = kubeconfig_with(bootstrap, Path::new("/pki/c.pem")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://y");
        assert_eq!(config["users"][0]["user"]["client-key"], "/pki/c.pem");
        assert!(!text.contains("\"t\""));
    }

    #[test]
    fn kept_certificate_is_the_current_one() {
        let scratch = Scratch::new();
        let current = keep(scratch.path(), "kubelet-client", "one").unwrap();
        assert_eq!(std::fs::read_to_string(&current).unwrap(), "one");
        assert_eq!(current.file_name().unwrap(), "kubelet-client-current.pem");
    }
}
