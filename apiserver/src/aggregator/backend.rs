//! A server that serves a group and version, and requests to it on behalf of a user.

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::BodyExt;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt;

use super::Inner;
use crate::authn::User;
use crate::body;
use crate::remote::{Identity, ServicePort, Target, Transport, Trust, describe};

/// The condition that says whether a backend can be reached.
pub(super) const AVAILABLE: &str = "Available";

/// A group and version that another server serves.
pub struct Backend {
    /// The name of its APIService.
    pub name: String,
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// The server.
    pub service: ServicePort,
    /// Whether the server could be reached lately.
    pub available: bool,
    /// Where the group stands among groups; higher ones come first.
    pub group_priority: i32,
    /// Where the version stands among those of its group.
    pub version_priority: i32,
    /// Connections to it; or why there can be none.
    pub transport: Result<Transport, String>,
    trust: Trust,
}

/// An answer that was read whole.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Backend {
    /// The backend of an APIService; `None` if this server serves it itself. Connections of a `known` one are used on.
    pub(super) fn new(service: &APIService, known: Option<&Self>, inner: &Inner) -> Option<Self> {
        let spec = service.spec.clone()?;
        let reference = spec.service?;
        let port = reference.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let server = ServicePort {
            namespace: reference.namespace.unwrap_or_default(),
            name: reference.name.unwrap_or_default(),
            port,
        };
        let trust = match spec.insecure_skip_tls_verify {
            Some(true) => Trust::Anybody,
            _ => Trust::Bundle(spec.ca_bundle.map(|bundle| bundle.0).unwrap_or_default()),
        };
        let same = known.filter(|known| known.service == server && known.trust == trust);
        let transport = match same.map(|known| known.transport.clone()) {
            Some(Ok(transport)) => Ok(transport),
            _ => inner.transport(&server, &trust),
        };
        let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        Some(Self {
            name: service.name_any(),
            group: spec.group.unwrap_or_default(),
            version: spec.version.unwrap_or_default(),
            service: server,
            available: conditions.any(|condition| condition.type_ == AVAILABLE && condition.status == "True"),
            group_priority: spec.group_priority_minimum,
            version_priority: spec.version_priority,
            transport,
            trust,
        })
    }

    /// A path of it as a URL.
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", self.service.host(), self.service.port)
    }

    /// Asks for a path on behalf of `user`, and reads the answer whole.
    ///
    /// # Errors
    /// When there is none, in upstream's words.
    pub(super) async fn get(&self, path: &str, accept: &str, user: &User) -> Result<Answer, String> {
        let transport = self.transport.as_ref().map_err(Clone::clone)?;
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(self.url(path))
            .header(ACCEPT, accept)
            .body(body::empty())
            .map_err(|error| error.to_string())?;
        set_user(request.headers_mut(), user);
        let response = transport.send(request).await.map_err(|error| describe(&error))?;
        let (parts, incoming) = response.into_parts();
        let body = incoming.collect().await.map_err(|error| describe(&error))?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

impl Inner {
    fn transport(&self, service: &ServicePort, trust: &Trust) -> Result<Transport, String> {
        let identity = match &self.identity {
            Some((certificate, key)) => {
                Some(Identity::load(certificate, key).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let tls = trust.client(identity.as_ref())?;
        Ok(Transport::new(Target::Service(service.clone()), self.resolver.clone(), self.dialer.clone(), tls))
    }
}

#[cfg(test)]
impl Backend {
    /// One that cannot be connected to.
    pub(super) fn for_tests(service: ServicePort, trust: Trust) -> Self {
        Self {
            name: "v1.example.com".to_owned(),
            group: "example.com".to_owned(),
            version: "v1".to_owned(),
            service,
            available: false,
            group_priority: 1,
            version_priority: 1,
            transport: Err("none".to_owned()),
            trust,
        }
    }
}

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Says who asks (upstream `transport.SetAuthProxyHeaders`). Whatever the client says of that is taken away.
pub(super) fn set_user(headers: &mut HeaderMap, user: &User) {
    let claims = |name: &&HeaderName| [USER, UID, GROUP].contains(name) || name.as_str().starts_with(EXTRA);
    let claimed: Vec<HeaderName> = headers.keys().filter(claims).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        if let Ok(name) = format!("{EXTRA}{}", escaped(key)).parse::<HeaderName>() {
            values.iter().for_each(|value| add(name.clone(), value));
        }
    }
}

/// A key in the form that fits into the name of a header.
fn escaped(key: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    key.bytes()
        .map(|byte| if legal(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_and_claims_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for name in ["X-Remote-User", "X-Remote-Group", "X-Remote-Extra-Admin", "Accept"] {
            headers.insert(name.parse::<HeaderName>().expect("a name"), HeaderValue::from_static("claimed"));
        }
        let user = User {
            name: "jane".into(),
            groups: vec!["a".into(), "b".into()],
            extra: [("example.com/x y".to_owned(), vec!["1".to_owned()])].into(),
            ..User::default()
        };
        set_user(&mut headers, &user);
        let all: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        for wanted in [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fx%20y", "1"),
            ("accept", "claimed"),
        ] {
            assert!(all.contains(&wanted), "{wanted:?} in {all:?}");
        }
        assert_eq!(all.len(), 5);
    }
}
