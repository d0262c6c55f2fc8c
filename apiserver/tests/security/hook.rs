//! A webhook (or an aggregated server) of the test's own: TLS on loopback, answers from a closure.

use std::convert::Infallible;
use std::sync::Arc;

use apiserver::server::tls::AskForCertificate;
use base64::Engine as _;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::support::{Asker, Authority, install_crypto_provider};

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// Null if it is no JSON.
    pub body: Value,
    /// The common name of the client's certificate; empty for none.
    pub client: String,
}

/// What is answered.
pub enum Reply {
    /// 200 with an object.
    Object(Value),
    /// Something else.
    Raw(u16, &'static str, String),
    /// Nothing, for ever.
    Silence,
    /// 200 with an object, when it is let.
    Late(tokio::sync::watch::Receiver<bool>, Value),
    /// A protocol that echoes.
    Echo,
}

impl From<Value> for Reply {
    fn from(object: Value) -> Self {
        Self::Object(object)
    }
}

type Answer = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// The server.
pub struct Hook {
    pub port: u16,
    pub authority: Authority,
    calls: Arc<Mutex<Vec<Call>>>,
    connections: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// Listens at `localhost`, and as the Services `hook` and `api` of the namespace `hooks`.
    pub async fn start(answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        install_crypto_provider();
        let authority = Authority::new("hooks");
        let names = ["localhost", "hook.hooks.svc", "api.hooks.svc"];
        let identity = authority.issue("hook", &[], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names =
                names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        });
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let tls = rustls::ServerConfig::builder()
            .with_client_cert_verifier(Arc::new(AskForCertificate::new(vec![])))
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (calls, connections) = (Arc::<Mutex<Vec<Call>>>::default(), Arc::<Mutex<usize>>::default());
        let accept = Accept {
            tls: TlsAcceptor::from(Arc::new(tls)),
            answer: Arc::new(answer),
            calls: Arc::clone(&calls),
            connections: Arc::clone(&connections),
        };
        let task = tokio::spawn(accept.run(listener));
        Self { port, authority, calls, connections, task }
    }

    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.authority.pem)
    }

    /// The client configuration of a webhook by URL.
    pub fn by_url(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.port), "caBundle": self.ca_bundle()})
    }

    /// The client configuration of a webhook by the Service `hook`.
    pub fn by_service(&self, path: &str) -> Value {
        let service = json!({"namespace": "hooks", "name": "hook", "path": path, "port": self.port});
        json!({"service": service, "caBundle": self.ca_bundle()})
    }

    /// The requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    /// How many connections have been opened.
    pub fn connections(&self) -> usize {
        *self.connections.lock()
    }
}

/// A Service that leads to this machine.
pub async fn service(admin: &Asker, name: &str) {
    let spec = json!({"type": "ExternalName", "externalName": "localhost"});
    let service = json!({"metadata": {"name": name}, "spec": spec});
    admin.create("/api/v1/namespaces/hooks/services", &service).await;
}

struct Accept {
    tls: TlsAcceptor,
    answer: Answer,
    calls: Arc<Mutex<Vec<Call>>>,
    connections: Arc<Mutex<usize>>,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, answer, calls) = (self.tls.clone(), Arc::clone(&self.answer), Arc::clone(&self.calls));
            let connections = Arc::clone(&self.connections);
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                *connections.lock() += 1;
                let client = common_name(stream.get_ref().1.peer_certificates());
                let service = service_fn(move |request| {
                    serve(request, client.clone(), Arc::clone(&answer), Arc::clone(&calls))
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    }
}

async fn serve(
    mut request: Request<Incoming>,
    client: String,
    answer: Answer,
    calls: Arc<Mutex<Vec<Call>>>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call = Call {
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
        client,
    };
    calls.lock().push(call.clone());
    let response = |status: u16, media: &str, body: String| {
        let builder = Response::builder().status(status).header("Content-Type", media);
        builder.body(Full::new(body.into())).unwrap()
    };
    Ok(match answer(&call) {
        Reply::Object(object) => response(200, "application/json", object.to_string()),
        Reply::Raw(status, media, body) => response(status, media, body),
        Reply::Silence => std::future::pending().await,
        Reply::Late(mut gate, object) => {
            let _ = gate.wait_for(|open| *open).await;
            response(200, "application/json", object.to_string())
        }
        Reply::Echo => {
            tokio::spawn(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            let builder =
                Response::builder().status(101).header("Connection", "Upgrade").header("Upgrade", "echo");
            builder.body(Full::default()).unwrap()
        }
    })
}

/// The common name of a chain's first certificate; empty for none.
fn common_name(chain: Option<&[CertificateDer<'_>]>) -> String {
    let Some(leaf) = chain.and_then(|chain| chain.first()) else { return String::new() };
    let (_, certificate) = X509Certificate::from_der(leaf).unwrap();
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.unwrap_or_default().to_owned()
}
