//! Talking to the API server with plain JSON values, so that nothing a type does not know is lost.

use std::path::PathBuf;

use bytes::Bytes;
use client::Client;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Asks for a table, and takes plain objects from those that cannot make one.
pub const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

/// Where the server is and who we are, as flags say.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// Path to the kubeconfig file to use for CLI requests.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The name of the kubeconfig cluster to use.
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// The name of the kubeconfig user to use.
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// If present, the namespace scope for this CLI request.
    #[arg(long, short = 'n', global = true)]
    pub namespace: Option<String>,
    /// The address and port of the Kubernetes API server.
    #[arg(long, short = 's', global = true)]
    pub server: Option<String>,
    /// Bearer token for authentication to the API server.
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// Path to a cert file for the certificate authority.
    #[arg(long, global = true)]
    pub certificate_authority: Option<PathBuf>,
    /// Path to a client certificate file for TLS.
    #[arg(long, global = true)]
    pub client_certificate: Option<String>,
    /// Path to a client key file for TLS.
    #[arg(long, global = true)]
    pub client_key: Option<String>,
    /// If true, the server's certificate will not be checked for validity.
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Username to impersonate for the operation.
    #[arg(long = "as", global = true)]
    pub as_user: Option<String>,
    /// Group to impersonate for the operation, this flag can be repeated.
    #[arg(long = "as-group", global = true)]
    pub as_group: Vec<String>,
    /// The length of time to wait before giving up on a single server request.
    #[arg(long, global = true, default_value = "0")]
    pub request_timeout: String,
    /// Log level verbosity.
    #[arg(short = 'v', long = "v", global = true, default_value_t = 0)]
    pub verbosity: u8,
}

/// The kubeconfig files, merged: the flag's, or those of KUBECONFIG, or the usual one. Empty if there are none.
pub fn read_kubeconfig(path: Option<&PathBuf>) -> Result<Kubeconfig> {
    let read = match path {
        Some(path) => Kubeconfig::read_from(path),
        None => match Kubeconfig::read() {
            Err(kube::config::KubeconfigError::FindPath) => return Ok(Kubeconfig::default()),
            Err(kube::config::KubeconfigError::ReadConfig(error, _))
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(Kubeconfig::default());
            }
            other => other,
        },
    };
    read.map_err(|error| Failure::local(client::chain(&error)))
}

/// A server, and the namespace that is meant when none is said.
#[derive(Clone)]
pub struct Server {
    /// The client underneath.
    pub client: Client,
    /// The namespace in force.
    pub namespace: String,
    /// Whether the user named it.
    pub namespace_given: bool,
    host: String,
}

impl Server {
    /// Makes the connection that `flags` ask for. Does not talk yet.
    pub async fn connect(flags: &Connection) -> Result<Self> {
        let mut config = Self::config(flags).await?;
        if let Some(server) = &flags.server {
            let url = if server.contains("://") { server.clone() } else { format!("http://{server}") };
            config.cluster_url =
                url.parse().map_err(|e| Failure::local(format!("--server {server:?}: {e}")))?;
        }
        if let Some(token) = &flags.token {
            config.auth_info.token = Some(token.clone().into());
        }
        if let Some(ca) = &flags.certificate_authority {
            config.root_cert_file = Some(ca.clone());
        }
        let auth = &mut config.auth_info;
        auth.client_certificate = flags.client_certificate.clone().or(auth.client_certificate.take());
        auth.client_key = flags.client_key.clone().or(auth.client_key.take());
        auth.impersonate = flags.as_user.clone().or(auth.impersonate.take());
        if !flags.as_group.is_empty() {
            auth.impersonate_groups = Some(flags.as_group.clone());
        }
        config.accept_invalid_certs |= flags.insecure_skip_tls_verify;
        config.disable_compression = true;
        let agent = format!("kubectl/v{}", env!("CARGO_PKG_VERSION"));
        if let Ok(agent) = http::HeaderValue::from_str(&agent) {
            config.headers.push((header::USER_AGENT, agent));
        }
        let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let namespace = flags.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Failure::local(client::chain(&error)))?;
        Ok(Self { client, namespace, namespace_given: flags.namespace.is_some(), host })
    }

    /// A server behind a client, for tests.
    #[cfg(test)]
    pub fn of(client: Client) -> Self {
        Self { client, namespace: "default".to_owned(), namespace_given: false, host: "test".to_owned() }
    }

    async fn config(flags: &Connection) -> Result<kube::Config> {
        let kubeconfig = read_kubeconfig(flags.kubeconfig.as_ref())?;
        if kubeconfig.contexts.is_empty() && flags.context.is_none() {
            if flags.server.is_none()
                && let Ok(config) = kube::Config::incluster()
            {
                return Ok(config);
            }
            return Ok(kube::Config::new(http::Uri::from_static("http://localhost:8080")));
        }
        let options = KubeConfigOptions {
            context: flags.context.clone(),
            cluster: flags.cluster.clone(),
            user: flags.user.clone(),
        };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        config.map_err(|error| Failure::local(client::chain(&error)))
    }

    /// One request; the answer once its headers are here.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        if let Some((kind, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *kind);
        }
        let body = body.map(|(_, bytes)| bytes).unwrap_or_default();
        let request = request.body(Body::from(body)).map_err(|e| Failure::local(e.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| self.unreachable(&error))?;
        for warning in response.headers().get_all(header::WARNING) {
            if let Some(text) = warning.to_str().ok().and_then(|t| t.split('"').nth(1)) {
                eprintln!("Warning: {text}");
            }
        }
        if response.status().is_success() || response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    fn unreachable(&self, error: &kube::Error) -> Failure {
        Failure::Refused { host: self.host.clone(), reason: client::chain(error).to_lowercase() }
    }

    /// A request with a JSON answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Value> {
        let response = self.send(method, path, accept, body).await?;
        let bytes =
            response.into_body().collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        if bytes.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&bytes)?) }
    }

    /// Reads JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, "application/json", None).await
    }

    /// Creates an object.
    pub async fn post(&self, path: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object)?;
        self.call(Method::POST, path, "application/json", Some(("application/json", body))).await
    }

    /// Replaces an object.
    pub async fn put(&self, path: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object)?;
        self.call(Method::PUT, path, "application/json", Some(("application/json", body))).await
    }

    /// Changes an object.
    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Result<Value> {
        let body = serde_json::to_vec(patch)?;
        self.call(Method::PATCH, path, "application/json", Some((kind, body))).await
    }

    /// Deletes an object.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value> {
        let body = serde_json::to_vec(options)?;
        self.call(Method::DELETE, path, "application/json", Some(("application/json", body))).await
    }

    /// The text of an answer.
    pub async fn text(&self, path: &str) -> Result<String> {
        let response = self.send(Method::GET, path, "*/*", None).await?;
        let bytes =
            response.into_body().collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The lines of an answer that goes on for as long as the server likes.
    pub async fn lines(&self, path: &str, accept: &str) -> Result<impl Stream<Item = Result<Bytes>> + use<>> {
        let response = self.send(Method::GET, path, accept, None).await?;
        let (chunks, host) = (response.into_body().into_data_stream(), self.host.clone());
        let state = (Box::pin(chunks), bytes::BytesMut::new(), false);
        Ok(futures::stream::unfold(state, move |(mut chunks, mut buffer, mut ended)| {
            let host = host.clone();
            async move {
                loop {
                    if let Some(at) = buffer.iter().position(|byte| *byte == b'\n') {
                        let line = buffer.split_to(at + 1).freeze();
                        return Some((Ok(line.slice(..at)), (chunks, buffer, ended)));
                    }
                    if ended {
                        let rest = buffer.split().freeze();
                        return (!rest.is_empty()).then_some((Ok(rest), (chunks, buffer, ended)));
                    }
                    match chunks.next().await {
                        Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                        Some(Err(error)) => {
                            ended = true;
                            let reason = client::chain(&error);
                            return Some((Err(Failure::Refused { host, reason }), (chunks, buffer, ended)));
                        }
                        None => ended = true,
                    }
                }
            }
        }))
    }
}

async fn refusal(response: Response<Body>) -> Failure {
    let code = response.status();
    let bytes = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if let Ok(status) = serde_json::from_slice::<Status>(&bytes)
        && status.message.is_some()
    {
        return Failure::Server(Box::new(status));
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let status = Status {
        code: Some(code.as_u16().into()),
        message: Some(if text.is_empty() { code.to_string() } else { text }),
        reason: code.canonical_reason().map(|reason| reason.replace(' ', "")),
        ..Status::default()
    };
    Failure::Server(Box::new(status))
}
