//! Connections to the members of the cluster, and the way a request takes over them: the member that answered last
//! is asked first, then the others; an expired session is renewed once.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use proto::etcd::etcdserverpb::auth_client::AuthClient;
use proto::etcd::etcdserverpb::kv_client::KvClient;
use proto::etcd::etcdserverpb::lease_client::LeaseClient;
use proto::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcd::etcdserverpb::watch_client::WatchClient;
use proto::etcd::etcdserverpb::{AuthenticateRequest, RangeRequest};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Response, Status};

use super::{Config, error, header_revision};
use crate::{Error, Revision};

/// A connection attempt that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is probed this often, as upstream's etcd client does,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// and is dead when the probe is not answered in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts when all members have refused.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// When a failed request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Reads.
    Always,
    /// Writes: only when it cannot have been carried out.
    NotSent,
}

/// The members of the cluster.
pub(super) struct Client {
    pub(super) config: Config,
    channels: Vec<Channel>,
    /// Index of the member that is asked first.
    preferred: AtomicUsize,
    session: RwLock<Option<MetadataValue<Ascii>>>,
}

pub(super) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

pub(super) fn lease(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel)
}

pub(super) fn maintenance(channel: Channel) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel)
}

pub(super) fn watch(channel: Channel) -> WatchClient<Channel> {
    WatchClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// Prepares connections; they are made when they are needed.
    pub(super) fn new(config: Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::Unavailable { reason: "no etcd endpoint is given".into() });
        }
        let channels =
            config.endpoints.iter().map(|endpoint| channel(endpoint, &config)).collect::<Result<_, _>>()?;
        Ok(Self { config, channels, preferred: AtomicUsize::new(0), session: RwLock::default() })
    }

    /// Sends a request to the members, one after the other, until one answers.
    pub(super) async fn call<M, R, F>(
        &self,
        retry: Retry,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R, Status>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = tokio::time::Instant::now() + self.config.request_timeout;
        let mut renewed = false;
        let mut attempt = 0;
        loop {
            let (member, channel) = self.member();
            let sent = tokio::time::timeout_at(deadline, send(channel, self.request(message.clone())));
            let status = match sent.await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => {
                    self.give_up(member);
                    return Err(Status::deadline_exceeded(format!(
                        "{} did not answer within {:?}",
                        self.config.endpoints[member], self.config.request_timeout
                    )));
                }
            };
            if error::is_signed_out(&status) && self.config.auth.is_some() && !renewed {
                renewed = true;
                self.renew_session().await?;
                continue;
            }
            let again = match retry {
                Retry::Always => error::is_passing(&status),
                Retry::NotSent => error::is_not_sent(&status),
            };
            if !again {
                return Err(status);
            }
            self.give_up(member);
            attempt += 1;
            if attempt % self.channels.len() == 0 {
                if attempt >= 2 * self.channels.len() || tokio::time::Instant::now() + RETRY_PAUSE > deadline
                {
                    return Err(status);
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// The member to ask, by index and connection.
    pub(super) fn member(&self) -> (usize, Channel) {
        let member = self.preferred.load(Ordering::Relaxed) % self.channels.len();
        (member, self.channels[member].clone())
    }

    /// Lets the next request go to another member, unless that has been decided already.
    pub(super) fn give_up(&self, member: usize) {
        let next = (member + 1) % self.channels.len();
        // A lost race means that somebody else has moved on.
        let _ = self.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A request with what belongs to all of them.
    pub(super) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(session) = &*self.session.read() {
            request.metadata_mut().insert("token", session.clone());
        }
        request
    }

    /// Starts a session if etcd is used with a password.
    pub(super) async fn sign_in(&self) -> Result<(), Error> {
        if self.config.auth.is_none() {
            return Ok(());
        }
        self.renew_session().await.map_err(|status| error::of(&status))
    }

    pub(super) async fn renew_session(&self) -> Result<(), Status> {
        let Some((name, password)) = self.config.auth.clone() else { return Ok(()) };
        let mut last = Status::unavailable("no endpoint");
        for _ in 0..self.channels.len() {
            let (member, channel) = self.member();
            let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
            let mut auth = AuthClient::new(channel);
            let answer = auth.authenticate(request);
            match tokio::time::timeout(self.config.request_timeout, answer).await {
                Ok(Ok(answer)) => {
                    let token = answer.into_inner().token;
                    let session =
                        token.parse().map_err(|_| Status::internal("the session's token is malformed"))?;
                    *self.session.write() = Some(session);
                    return Ok(());
                }
                Ok(Err(status)) if error::is_passing(&status) => last = status,
                Ok(Err(status)) => return Err(status),
                Err(_) => last = Status::deadline_exceeded("no answer to the sign-in"),
            }
            self.give_up(member);
        }
        Err(last)
    }

    /// The revision of the store, by a read through the leader.
    pub(super) async fn revision(&self) -> Result<Revision, Error> {
        let request = RangeRequest {
            key: Bytes::copy_from_slice(self.config.probe_key.as_bytes()),
            count_only: true,
            ..RangeRequest::default()
        };
        let send = |channel, request| async move { kv(channel).range(request).await };
        let answer = self.call(Retry::Always, request, send).await.map_err(|status| error::of(&status))?;
        header_revision(answer.header)
    }
}

fn channel(endpoint: &str, config: &Config) -> Result<Channel, Error> {
    let wrong = |reason: &dyn std::fmt::Display| Error::Unavailable {
        reason: format!("etcd endpoint {endpoint}: {reason}"),
    };
    let mut prepared = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|error| wrong(&error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    match prepared.uri().scheme_str() {
        Some("http") => {}
        Some("https") => {
            prepared = prepared.tls_config(tls(config)).map_err(|error| {
                wrong(&format!("the certificates cannot be used: {}", source_or_self(&error)))
            })?;
        }
        _ => return Err(wrong(&"it must begin with http:// or https://")),
    }
    let Some(dial) = config.dial.clone() else { return Ok(prepared.connect_lazy()) };
    Ok(prepared.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let opened = dial(host, uri.port_u16().unwrap_or(usual));
        async move { opened.await.map(TokioIo::new) }
    })))
}

fn source_or_self(error: &tonic::transport::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn tls(config: &Config) -> ClientTlsConfig {
    let given = config.tls.clone().unwrap_or_default();
    let tls = match given.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match (given.cert, given.key) {
        (Some(cert), Some(key)) => tls.identity(Identity::from_pem(cert, key)),
        _ => tls,
    }
}
