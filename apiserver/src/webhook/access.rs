//! Connections to a webhook, and what this server shows of itself there.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Builder;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use kube::config::AuthInfo;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::exec::{Held, Plugin};
use crate::body::{self, Body, BoxError};
use crate::remote::{Dialer, Identity, Resolver, ServicePort, Target, Transport, Trust};

/// What connections to a webhook are made of, but for the certificate that is shown.
pub(super) struct Base {
    /// The Service that it is, and who knows where that is; else the host of its URL.
    pub service: Option<(ServicePort, Resolver)>,
    pub dialer: Dialer,
    pub trust: Trust,
    /// The name that its certificate is for, if it is not the host's.
    pub name: Option<ServerName<'static>>,
}

impl Base {
    pub(super) fn transport(&self, identity: Option<&Identity>) -> Result<Transport, String> {
        let tls = self.trust.client(identity)?;
        Ok(match self.service.clone() {
            Some((service, resolver)) => {
                Transport::new(Target::Service(service), resolver, self.dialer.clone(), tls)
            }
            None => Transport::to_hosts(self.dialer.clone(), tls, self.name.clone()),
        })
    }
}

/// Connections, and who this server is there. Cheap to clone.
#[derive(Clone)]
pub(super) struct Access {
    way: Way,
    /// As whom it wants to be seen.
    impersonation: Arc<[(HeaderName, HeaderValue)]>,
}

#[derive(Clone)]
enum Way {
    Fixed {
        transport: Transport,
        credential: Option<Credential>,
    },
    Exec(Arc<Plugin>),
    /// It is this server itself, or one that it passes requests on to.
    Own(client::Client),
}

/// What this server shows of itself besides a certificate.
#[derive(Clone)]
enum Credential {
    /// A header that stays the same.
    Fixed(HeaderValue),
    /// A token in a file, which may change.
    File(PathBuf),
}

/// What a request goes over.
enum Carrier {
    Transport(Transport),
    Own(client::Client),
}

/// What one call is made with.
pub(super) struct Pass {
    carrier: Carrier,
    authorization: Option<HeaderValue>,
    impersonation: Arc<[(HeaderName, HeaderValue)]>,
    /// The program that has made it, and what it said.
    made: Option<(Arc<Plugin>, Arc<Held>)>,
}

impl Access {
    /// Shows nothing.
    pub(super) fn anonymous(base: &Base) -> Result<Self, String> {
        let way = Way::Fixed { transport: base.transport(None)?, credential: None };
        Ok(Self { way, impersonation: Arc::default() })
    }

    /// Asks as this server's own client does.
    pub(super) fn own(client: client::Client) -> Self {
        Self { way: Way::Own(client), impersonation: Arc::default() }
    }

    /// Shows what a user of a kubeconfig has. `cluster`: what a program that makes credentials may be told.
    pub(super) fn of_user(base: Base, user: &AuthInfo, cluster: Value) -> Result<Self, String> {
        if user.auth_provider.is_some() {
            return Err("auth provider not supported".to_owned());
        }
        let (identity, credential) = (identity(user)?, credential(user)?);
        // As upstream, a program is not asked for what is there.
        let way = match &user.exec {
            Some(exec) if identity.is_none() && credential.is_none() => {
                Way::Exec(Arc::new(Plugin::new(base, exec, cluster)?))
            }
            _ => Way::Fixed { transport: base.transport(identity.as_ref())?, credential },
        };
        Ok(Self { way, impersonation: impersonation(user)?.into() })
    }

    /// What a call is made with.
    pub(super) async fn pass(&self) -> Result<Pass, String> {
        let impersonation = Arc::clone(&self.impersonation);
        match &self.way {
            Way::Fixed { transport, credential } => {
                let authorization = credential.as_ref().map(Credential::header).transpose()?;
                let carrier = Carrier::Transport(transport.clone());
                Ok(Pass { carrier, authorization, impersonation, made: None })
            }
            Way::Exec(plugin) => {
                let held = plugin.get().await.map_err(|why| format!("getting credentials: {why}"))?;
                let carrier = Carrier::Transport(held.transport.clone());
                let authorization = held.authorization.clone();
                let made = Some((Arc::clone(plugin), held));
                Ok(Pass { carrier, authorization, impersonation, made })
            }
            Way::Own(client) => {
                let carrier = Carrier::Own(client.clone());
                Ok(Pass { carrier, authorization: None, impersonation, made: None })
            }
        }
    }
}

impl Pass {
    /// A request that says who this server is.
    pub(super) fn show(&self, mut request: Builder) -> Builder {
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        for (name, value) in self.impersonation.iter() {
            request = request.header(name, value);
        }
        request
    }

    /// Sends a request; of the answer's body no more than `most` bytes are read.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        most: usize,
    ) -> Result<Response<Body>, BoxError> {
        match &self.carrier {
            Carrier::Transport(transport) => {
                let response = transport.send(request.map(body::full)).await?;
                Ok(response.map(|body| Limited::new(body, most).boxed_unsync()))
            }
            Carrier::Own(client) => {
                let response = client.send(request.map(|body| body.to_vec().into())).await?;
                Ok(response.map(|body| Limited::new(body, most).boxed_unsync()))
            }
        }
    }

    /// Says that it was refused: the next one may be another.
    pub(super) async fn refused(&self) {
        if let Some((plugin, held)) = &self.made {
            plugin.refused(held).await;
        }
    }
}

impl Credential {
    fn header(&self) -> Result<HeaderValue, String> {
        match self {
            Self::Fixed(value) => Ok(value.clone()),
            Self::File(path) => {
                let token = std::fs::read_to_string(path)
                    .map_err(|error| format!("failed to read token file {:?}: {error}", path.display()))?;
                bearer(token.trim())
            }
        }
    }
}

/// A token, or a password, in a header.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, String> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

fn identity(user: &AuthInfo) -> Result<Option<Identity>, String> {
    let certificate = pem(user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
    let key_data = user.client_key_data.as_ref().map(|data| data.expose_secret().to_owned());
    let key = pem(key_data.as_deref(), user.client_key.as_deref())?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Identity::parse(&certificate, &key).map(Some).map_err(|error| error.to_string())
        }
        (None, None) => Ok(None),
        _ => Err("a client certificate and its key belong together".to_owned()),
    }
}

fn credential(user: &AuthInfo) -> Result<Option<Credential>, String> {
    if let Some(path) = user.token_file.as_ref().filter(|path| !path.is_empty()) {
        let credential = Credential::File(PathBuf::from(path));
        credential.header()?;
        return Ok(Some(credential));
    }
    if let Some(token) = user.token.as_ref().map(|token| token.expose_secret()).filter(|t| !t.is_empty()) {
        return bearer(token).map(|value| Some(Credential::Fixed(value)));
    }
    let name = user.username.as_deref().unwrap_or_default();
    let password = user.password.as_ref().map(|password| password.expose_secret()).unwrap_or_default();
    if name.is_empty() && password.is_empty() {
        return Ok(None);
    }
    let value = secret(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))?;
    Ok(Some(Credential::Fixed(value)))
}

/// As whom a user wants to be seen.
fn impersonation(user: &AuthInfo) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.push((name, HeaderValue::from_str(value).map_err(|error| error.to_string())?));
        }
        Ok::<_, String>(())
    };
    add("Impersonate-User", user.impersonate.as_deref().unwrap_or_default())?;
    add("Impersonate-Uid", user.impersonate_uid.as_deref().unwrap_or_default())?;
    for group in user.impersonate_groups.iter().flatten() {
        add("Impersonate-Group", group)?;
    }
    for (key, values) in user.impersonate_user_extra.iter().flatten() {
        for value in values {
            add(&format!("Impersonate-Extra-{}", escaped(key)), value)?;
        }
    }
    Ok(headers)
}

/// A key as a part of a header's name (upstream `headerKeyEscape`).
fn escaped(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    key.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Data in base64, or what is in a file.
pub(super) fn pem(data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        return STANDARD.decode(data.trim()).map(Some).map_err(|error| error.to_string());
    }
    let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(None) };
    std::fs::read(file).map(Some).map_err(|error| format!("unable to read {file}: {error}"))
}
