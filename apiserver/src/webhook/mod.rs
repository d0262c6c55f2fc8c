//! The client of webhooks (upstream `apiserver/pkg/util/webhook` with `client-go/rest`): a JSON body is posted, a JSON
//! object is answered. Clients are kept by what they are made of, so that their connections are used again.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};
use http_body_util::BodyExt;
use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::Value;

use crate::body;
use crate::remote::{Resolver, ServicePort, Target, Transport, Trust, describe};

/// How many clients are kept.
const KEPT: usize = 200;
/// How long a call may take that has no limit of its own.
const LIMIT: Duration = Duration::from_secs(30);

/// Where a webhook is, and how it is recognized.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// Its place.
    pub place: Place,
    /// The authorities of its certificate (PEM); those of the system if empty.
    pub ca_bundle: Vec<u8>,
}

/// The place of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A URL.
    Url(String),
    /// A path of a Service.
    Service {
        /// The Service.
        service: ServicePort,
        /// The path; may be empty.
        path: String,
    },
}

impl ClientConfig {
    /// From what configurations of webhooks have in common. `service`: namespace, name, path and port.
    ///
    /// # Errors
    /// When there is neither a Service nor a URL.
    pub fn new(
        service: Option<(String, String, Option<String>, Option<i32>)>,
        url: Option<String>,
        ca_bundle: Vec<u8>,
    ) -> Result<Self, String> {
        let place = match (service, url) {
            (Some((namespace, name, path, port)), _) => Place::Service {
                service: ServicePort {
                    namespace,
                    name,
                    port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
                },
                path: path.unwrap_or_default(),
            },
            (None, Some(url)) if !url.is_empty() => Place::Url(url),
            _ => return Err("webhook configuration must have either service or URL".to_owned()),
        };
        Ok(Self { place, ca_bundle })
    }
}

/// Why a webhook gave no answer that could be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CallError(String);

/// Makes clients. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Clients {
    resolver: Resolver,
    kept: Arc<Mutex<IndexMap<ClientConfig, Client>>>,
}

/// The client of one webhook.
#[derive(Clone)]
pub struct Client {
    url: String,
    transport: Transport,
}

impl Clients {
    /// None has been made yet.
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver, kept: Arc::default() }
    }

    /// The client of a webhook.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn client(&self, config: &ClientConfig) -> Result<Client, CallError> {
        let mut kept = self.kept.lock();
        if let Some(client) = kept.get(config) {
            return Ok(client.clone());
        }
        let client = self.make(config)?;
        if kept.len() >= KEPT {
            kept.shift_remove_index(0);
        }
        kept.insert(config.clone(), client.clone());
        Ok(client)
    }

    fn make(&self, config: &ClientConfig) -> Result<Client, CallError> {
        let (target, url) = match &config.place {
            // The query belongs to this client.
            Place::Url(url) => (Target::Host, url.split(['?', '#']).next().unwrap_or_default().to_owned()),
            Place::Service { service, path } => {
                let url = format!("https://{}:{}/{path}", service.host(), service.port);
                (Target::Service(service.clone()), url)
            }
        };
        let tls = Trust::Bundle(config.ca_bundle.clone()).client(None).map_err(CallError)?;
        let url = cleaned(&url);
        Ok(Client { url, transport: Transport::new(target, self.resolver.clone(), tls) })
    }
}

/// A URL as upstream's client has it: its path begins with a slash, does not end with one, and has none twice.
fn cleaned(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let mut parts = rest.split('/');
    let host = parts.next().unwrap_or_default();
    let path: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    format!("{scheme}://{host}/{}", path.join("/"))
}

impl Client {
    /// Posts a body and reads the object that is answered. `limit`: how long that may take; the webhook is told.
    ///
    /// # Errors
    /// When there is no such answer, in upstream's words.
    pub async fn post(&self, body: Bytes, limit: Option<Duration>) -> Result<Value, CallError> {
        // As upstream, a limit is told in whole seconds.
        let told = limit.unwrap_or(LIMIT);
        let told = told.as_secs() + u64::from(told.subsec_nanos() > 0);
        let url = format!("{}?timeout={told}s", self.url);
        let call = async {
            let (status, content_type, bytes) = self.exchange(&url, body).await?;
            answer::read(status, content_type.as_deref(), &bytes).map_err(CallError)
        };
        let late = || {
            let who = if limit.is_some() { "" } else { " (Client.Timeout exceeded while awaiting headers)" };
            CallError(format!("Post {url:?}: context deadline exceeded{who}"))
        };
        tokio::time::timeout(limit.unwrap_or(LIMIT), call).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, url: &str, body: Bytes) -> Result<(u16, Option<String>, Bytes), CallError> {
        let failed = |why: String| CallError(format!("Post {url:?}: {why}"));
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(ACCEPT, "application/json, */*")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "kube-apiserver-admission")
            .body(body::full(body))
            .map_err(|error| failed(error.to_string()))?;
        let response = self.transport.send(request).await.map_err(|error| failed(describe(&error)))?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let collected = response.into_body().collect().await.map_err(|error| {
            CallError(format!(
                "unexpected error when reading response body. Please retry. Original error: {}",
                describe(&error)
            ))
        })?;
        Ok((status, content_type, collected.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_cleaned() {
        for (url, expected) in [
            ("https://a.b.svc:443/", "https://a.b.svc:443/"),
            ("https://a", "https://a/"),
            ("https://a:1//x//y/", "https://a:1/x/y"),
        ] {
            assert_eq!(cleaned(url), expected);
        }
    }
}
