//! The client of webhooks (upstream `apiserver/pkg/util/webhook` with `client-go/rest`): a JSON body is posted, a JSON
//! object is answered. Clients are kept by what they are made of, so that their connections are used again.

mod access;
mod answer;
mod exec;
mod kubeconfig;
mod logins;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::Value;

use self::access::{Access, Base};
pub use self::logins::Logins;
pub use self::retry::Retry;
use crate::egress::Egress;
use crate::remote::{Resolver, ServicePort, Trust, describe};

/// Where clients in the cluster find this server.
const OWN: &str = "https://kubernetes.default.svc:443";
/// How many clients are kept.
const KEPT: usize = 200;
/// How long a call may take that has no limit of its own.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer that is read: larger than any object.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

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
#[error("{message}")]
pub struct CallError {
    message: String,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Whether it took too long.
    pub late: bool,
    /// Whether the same call may succeed a moment later.
    again: bool,
}

impl CallError {
    fn new(message: String) -> Self {
        Self { message, status: None, late: false, again: false }
    }
}

/// Reads an answer: its status, the type of its body, the body.
type Reader<T> = fn(u16, Option<&str>, &[u8]) -> Result<T, String>;

/// Makes clients. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Clients {
    own: client::Client,
    resolver: Resolver,
    egress: Egress,
    logins: Logins,
    kept: Arc<Mutex<IndexMap<ClientConfig, Client>>>,
}

/// The client of one webhook.
#[derive(Clone)]
pub struct Client {
    url: String,
    access: Access,
    agent: &'static str,
    /// How long a call may take that has no limit of its own.
    limit: Duration,
}

impl Clients {
    /// None has been made yet. `own`: the client of this server, for webhooks that are behind it.
    #[must_use]
    pub fn new(own: client::Client, resolver: Resolver, egress: Egress) -> Self {
        Self { own, resolver, egress, logins: Logins::default(), kept: Arc::default() }
    }

    /// Clients that show what is known for each webhook; they are kept apart from these.
    #[must_use]
    pub fn with_logins(&self, logins: Logins) -> Self {
        Self { logins, kept: Arc::default(), ..self.clone() }
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
        let (service, dialer, url) = match &config.place {
            // The query belongs to this client.
            Place::Url(url) => {
                let url = url.split(['?', '#']).next().unwrap_or_default().to_owned();
                (None, self.egress.control_plane(), url)
            }
            Place::Service { service, path } => {
                let url = format!("https://{}:{}/{path}", service.host(), service.port);
                (Some((service.clone(), self.resolver.clone())), self.egress.cluster(), url)
            }
        };
        let (url, agent) = (cleaned(&url), "kube-apiserver-admission");
        // As upstream: it is asked with this server's own identity, by whatever way it has.
        if let Some(path) = url.strip_prefix(OWN).filter(|path| path.starts_with('/')) {
            return Ok(Client {
                url: path.to_owned(),
                access: Access::own(self.own.clone()),
                agent,
                limit: LIMIT,
            });
        }
        let base = Base { service, dialer, trust: Trust::Bundle(config.ca_bundle.clone()), name: None };
        let access = self.logins.access(base, &url).map_err(CallError::new)?;
        Ok(Client { url, access, agent, limit: LIMIT })
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
        self.call(body, limit, answer::read).await
    }

    /// Posts a body; of the answer its status counts only.
    async fn post_unheard(&self, body: Bytes) -> Result<(), CallError> {
        self.call(body, None, answer::check).await
    }

    async fn call<T>(&self, body: Bytes, limit: Option<Duration>, read: Reader<T>) -> Result<T, CallError> {
        // As upstream, a limit is told in whole seconds.
        let told = limit.unwrap_or(self.limit);
        let told = told.as_secs() + u64::from(told.subsec_nanos() > 0);
        let url = format!("{}?timeout={told}s", self.url);
        let call = async {
            let answer = self.exchange(&url, body).await?;
            read(answer.status, answer.content_type.as_deref(), &answer.body).map_err(|message| CallError {
                message,
                status: Some(answer.status),
                late: answer.status == 504,
                again: answer.again,
            })
        };
        let late = || {
            let who = if limit.is_some() { "" } else { " (Client.Timeout exceeded while awaiting headers)" };
            let message = format!("Post {url:?}: context deadline exceeded{who}");
            CallError { late: true, ..CallError::new(message) }
        };
        tokio::time::timeout(limit.unwrap_or(self.limit), call).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, url: &str, body: Bytes) -> Result<Answer, CallError> {
        let failed = |why: String| CallError::new(format!("Post {url:?}: {why}"));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(ACCEPT, "application/json, */*")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, self.agent);
        let pass = self.access.pass().await.map_err(failed)?;
        request = pass.show(request);
        let request = request.body(body).map_err(|error| failed(error.to_string()))?;
        let response = pass.send(request, MAX_ANSWER).await.map_err(|error| {
            let again = retry::is_reset(error.as_ref());
            CallError { again, ..failed(describe(error.as_ref())) }
        })?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        if response.status() == StatusCode::UNAUTHORIZED {
            pass.refused().await;
        }
        let status = response.status().as_u16();
        let again = matches!(status, 429 | 500 | 504) || response.headers().contains_key(RETRY_AFTER);
        let collected = response.into_body().collect().await.map_err(|error| {
            CallError::new(format!(
                "unexpected error when reading response body. Please retry. Original error: {}",
                describe(error.as_ref())
            ))
        })?;
        Ok(Answer { status, content_type, body: collected.to_bytes(), again })
    }
}

/// What was answered.
struct Answer {
    status: u16,
    content_type: Option<String>,
    body: Bytes,
    /// Whether the same call may be answered otherwise a moment later.
    again: bool,
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
