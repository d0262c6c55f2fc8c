//! TLS: old certificates, and new ones while the server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::config::ServingCert;
use apiserver::server::tls::{SniCert, Version};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::support::{Answer, Authority, Cluster, Identity, eventually};

/// Writes a certificate for these names, signed by itself.
fn serving(folder: &Path, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

/// The first name of the certificate that is shown to who asks for `name`; an error if there is no agreement.
async fn shown(
    cluster: &Cluster,
    name: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<String, std::io::Error> {
    let config = ClientConfig::builder_with_provider(client::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(client::tls::anybody())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(cluster.running.address()).await?;
    let stream = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), socket).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, certificate) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    Ok(match &names.general_names[0] {
        GeneralName::DNSName(name) => (*name).to_owned(),
        other => other.to_string(),
    })
}

/// Shows a certificate, whatever it is.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What is answered to who shows this certificate, which no client library would; nothing if that is refused.
async fn asked(
    cluster: &Cluster,
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
) -> Option<(String, Value)> {
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let config = ClientConfig::builder_with_provider(client::tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(client::tls::anybody())
        .with_client_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key)))));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(cluster.running.address()).await.unwrap();
    let mut stream = connector.connect("localhost".try_into().unwrap(), socket).await.ok()?;
    let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let request = format!(
        "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    // How the other side closes is not of interest.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), serde_json::from_str(body).unwrap()))
}

#[tokio::test]
async fn certificates_of_version_1_name_users_too() {
    let cluster = Cluster::start().await;
    for version in [&TLS12, &TLS13] {
        let old = cluster.authority.old_client("alice", &["dev"]);
        let (head, answer) = asked(&cluster, &old, version).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 201"), "{head} {answer}");
        let alice = &answer["status"]["userInfo"];
        assert_eq!(alice["username"], "alice");
        assert_eq!(alice["groups"], json!(["dev", "system:authenticated"]));
        let others = Authority::new("clients").old_client("alice", &["system:masters"]);
        let (head, answer) = asked(&cluster, &others, version).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 401"), "{head} {answer}");
        // Who has another's certificate has not its key.
        let thief = Identity { certificate: old.certificate.clone(), key: others.key.clone() };
        assert_eq!(asked(&cluster, &thief, version).await, None);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn clients_see_the_certificate_of_the_name_that_they_ask_for() {
    let cluster = Cluster::with(|config, folder| {
        let (cert, key) = serving(folder, "usual", &["usual.example"]);
        config.serving_cert = ServingCert::Files { cert, key };
        let (cert, key) = serving(folder, "other", &["other.example"]);
        config.tls.sni = vec![SniCert { cert, key, names: vec!["*.apps.example".to_owned()] }];
        config.tls.min_version = Version::Tls13;
    })
    .await;
    let both = [&TLS12, &TLS13];
    assert_eq!(shown(&cluster, "localhost", &both).await.unwrap(), "usual.example");
    assert_eq!(shown(&cluster, "web.apps.example", &both).await.unwrap(), "other.example");
    assert_eq!(shown(&cluster, "a.web.apps.example", &both).await.unwrap(), "usual.example");
    assert!(shown(&cluster, "localhost", &[&TLS12]).await.is_err(), "too old");
    cluster.stop().await;
}

#[tokio::test]
async fn new_files_count_while_the_server_runs() {
    let mut folder = PathBuf::new();
    let cluster = Cluster::with(|config, path| {
        folder = path.to_owned();
        let (cert, key) = serving(path, "serving", &["first.example"]);
        config.serving_cert = ServingCert::Files { cert, key };
    })
    .await;
    let see = || async { shown(&cluster, "localhost", &[&TLS13]).await.unwrap() };
    assert_eq!(see().await, "first.example");
    // A certificate whose key is another one's is not shown.
    let (cert, key) = serving(&folder, "next", &["second.example"]);
    std::fs::copy(cert, folder.join("serving.crt")).unwrap();
    let ours = cluster.authority.client("alice", &[]);
    let others = Authority::new("others");
    let theirs = others.client("mallory", &[]);
    assert_eq!(cluster.with_certificate(&theirs).whoami().await.0, 401);
    assert_eq!(see().await, "first.example");
    std::fs::copy(key, folder.join("serving.key")).unwrap();
    eventually("the new certificate is shown", see, |name| name == "second.example").await;

    std::fs::write(folder.join("clients.crt"), &others.pem).unwrap();
    let new = || async { cluster.with_certificate(&theirs).whoami().await };
    eventually("the new authority is believed", new, |(status, _): &Answer| *status == 201).await;
    assert_eq!(cluster.with_certificate(&ours).whoami().await.0, 401);
    // Nonsense changes nothing.
    std::fs::write(folder.join("clients.crt"), "nonsense").unwrap();
    std::fs::write(folder.join("proxy.crt"), &others.pem).unwrap();
    let front = others.client("aggregator", &[]);
    let speak = || async { cluster.with_certificate(&front).header("X-Remote-User", "carol").whoami().await };
    let carol = |answer: &Answer| answer.1["username"] == "carol";
    eventually("the new front proxy is believed", speak, carol).await;
    assert_eq!(cluster.with_certificate(&theirs).whoami().await.0, 201);
    cluster.stop().await;
}
