//! The etcd backend: several apiservers may share the data, and a cluster of machines replicates it.
//!
//! A thin client of our own over etcd's gRPC services (version 3.4 or later). Every write is one transaction that
//! compares the key's last revision; reads are linearizable. Tasks, all ended by dropping the last [`Etcd`]: the
//! one that answers [`Store::current_revision`] for many callers with one read, and the one that compacts history
//! ([`compact`]). Watches ([`watch`]) mend their own connections; leases ([`lease`]) are shared by keys of like
//! times to live.

mod client;
mod compact;
mod error;
mod lease;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use proto::etcd::etcdserverpb::{
    self as pb, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
    TxnResponse, compare, request_op, response_op,
};
use proto::etcd::mvccpb;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use self::client::{Client, Retry};
use crate::{Error, Expect, KeyValue, Range, RangeResult, Revision, Store, WatchStream};

/// Keys that are read with one request.
const PAGE: usize = 1000;
/// Callers that may wait for the current revision before more have to wait for room.
const REVISION_QUEUE: usize = 1024;

/// Certificates as PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// The authorities that may sign the servers' certificates; without it those of the system.
    pub ca: Option<Vec<u8>>,
    /// The client's certificate (with its chain).
    pub cert: Option<Vec<u8>>,
    /// The key of `cert`.
    pub key: Option<Vec<u8>>,
}

/// How to reach etcd.
#[derive(Clone)]
pub struct Config {
    /// `http://` or `https://` addresses of the members.
    pub endpoints: Vec<String>,
    /// For `https://` endpoints.
    pub tls: Option<Tls>,
    /// User name and password, when etcd demands them.
    pub auth: Option<(String, String)>,
    /// A request that takes longer has failed.
    pub request_timeout: Duration,
    /// History older than this is compacted; `None`: somebody else sees to it.
    pub compaction_interval: Option<Duration>,
    /// Idle watches report their progress this often.
    pub progress_interval: Duration,
    /// A key (it need not exist) to read when only the revision matters.
    pub probe_key: String,
    /// How connections are opened; `None`: straight.
    pub dial: Option<Dial>,
}

/// A connection to a member.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Opens a connection to a host and port.
pub type Dial = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Box<dyn Connection>>> + Send + Sync>;

impl Config {
    /// The usual settings.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            auth: None,
            request_timeout: Duration::from_secs(10),
            compaction_interval: Some(Duration::from_secs(300)),
            progress_interval: Duration::from_secs(5),
            probe_key: "/registry/health".to_owned(),
            dial: None,
        }
    }
}

/// The connection to an etcd cluster. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    client: Arc<Client>,
    leases: Arc<lease::Leases>,
    revisions: mpsc::Sender<oneshot::Sender<Result<Revision, Error>>>,
    nudges: Arc<tokio::sync::watch::Sender<u64>>,
    _tasks: Arc<DropGuard>,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.client.config.endpoints).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Connects, and makes sure that the cluster answers.
    ///
    /// # Errors
    /// A setting makes no sense, or no endpoint answers within the request timeout.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let client = Arc::new(Client::new(config)?);
        client.sign_in().await?;
        client.revision().await?;
        let token = CancellationToken::new();
        let (revisions, queue) = mpsc::channel(REVISION_QUEUE);
        tokio::spawn(answer_revisions(Arc::clone(&client), queue, token.clone()));
        if let Some(interval) = client.config.compaction_interval {
            tokio::spawn(compact::run(Arc::clone(&client), interval, token.clone()));
        }
        Ok(Self {
            leases: Arc::new(lease::Leases::new(Arc::clone(&client))),
            client,
            revisions,
            nudges: Arc::new(tokio::sync::watch::Sender::new(0)),
            _tasks: Arc::new(token.drop_guard()),
        })
    }

    async fn transaction(
        &self,
        transaction: TxnRequest,
        key: &str,
        size: usize,
    ) -> Result<TxnResponse, Error> {
        let send = |channel, request| async move { client::kv(channel).txn(request).await };
        let sent = self.client.call(Retry::NotSent, transaction, send).await;
        sent.map_err(|status| error::of_write(&status, key, size))
    }

    /// The error that a failed read becomes; those about revisions are filled in with what etcd leaves out.
    async fn read_error(&self, status: Status, requested: Revision) -> Error {
        if error::is_compacted(&status) {
            match watch::oldest_revision(&self.client).await {
                Ok(oldest) => Error::Compacted { requested, oldest },
                Err(error) => error,
            }
        } else if error::is_future(&status) {
            match self.current_revision().await {
                Ok(current) => Error::Future { requested, current },
                Err(error) => error,
            }
        } else {
            error::of(&status)
        }
    }
}

/// Answers all who ask for the current revision with one read that began after they asked.
async fn answer_revisions(
    client: Arc<Client>,
    mut queue: mpsc::Receiver<oneshot::Sender<Result<Revision, Error>>>,
    token: CancellationToken,
) {
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            count = queue.recv_many(&mut waiting, REVISION_QUEUE) => if count == 0 { return },
        }
        let answer = client.revision().await;
        for caller in waiting.drain(..) {
            // Whoever does not wait any more needs no answer.
            let _ = caller.send(match &answer {
                Ok(revision) => Ok(*revision),
                Err(error) => Err(Error::Unavailable { reason: reason(error) }),
            });
        }
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Unavailable { reason } => reason.clone(),
        other => other.to_string(),
    }
}

/// A pair as etcd holds it.
fn key_value(kv: mvccpb::KeyValue) -> Result<KeyValue, Error> {
    let key = String::from_utf8(kv.key.into()).map_err(|bad| Error::Damaged {
        reason: format!("key {:?} is not UTF-8", String::from_utf8_lossy(bad.as_bytes())),
    })?;
    Ok(KeyValue {
        key,
        // Not a slice of the answer: that would be kept as long as one of its values.
        value: Bytes::copy_from_slice(&kv.value),
        created: revision(kv.create_revision),
        modified: revision(kv.mod_revision),
    })
}

/// etcd counts in signed numbers that are never negative.
fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn header_revision(header: Option<pb::ResponseHeader>) -> Result<Revision, Error> {
    header.map(|header| revision(header.revision)).ok_or_else(|| error::broken("an answer without a header"))
}

/// The condition that `key` was last changed at `at` (0: that it does not exist).
fn modified_at(key: &str, at: i64) -> Compare {
    Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(compare::TargetUnion::ModRevision(at)),
    }
}

fn read_of(key: &str) -> RangeRequest {
    RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() }
}

fn operation(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// The first answer of a transaction.
fn first_response(responses: Vec<ResponseOp>) -> Option<response_op::Response> {
    responses.into_iter().next()?.response
}

/// The refusal of a transaction whose condition did not hold: its alternative has read the key.
fn conflict(key: &str, response: TxnResponse) -> Error {
    match first_response(response.responses) {
        Some(response_op::Response::ResponseRange(range)) => {
            match range.kvs.into_iter().next().map(key_value).transpose() {
                Ok(current) => Error::Conflict { key: key.to_owned(), current },
                Err(error) => error,
            }
        }
        _ => error::broken("a transaction without its answer"),
    }
}

#[async_trait::async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), Error> {
        let send = |channel, request| async move { client::kv(channel).range(request).await };
        let answer = self.client.call(Retry::Always, read_of(key), send).await;
        let answer = answer.map_err(|status| error::of(&status))?;
        let found = answer.kvs.into_iter().next().map(key_value).transpose()?;
        Ok((found, header_revision(answer.header)?))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let mut result =
            RangeResult { revision: range.revision.unwrap_or_default(), ..RangeResult::default() };
        if range.start >= range.end {
            if range.revision.is_none() {
                result.revision = self.current_revision().await?;
            }
            return Ok(result);
        }
        let mut start = range.start;
        // Every page is read as of the revision of the first one.
        let mut pinned = range.revision;
        loop {
            let wanted = match range.limit {
                0 => PAGE,
                limit => (limit - result.items.len()).min(PAGE),
            };
            let request = RangeRequest {
                key: start.clone().into(),
                range_end: range.end.clone().into(),
                limit: i64::try_from(wanted).unwrap_or(i64::MAX),
                revision: pinned.map_or(0, number),
                ..RangeRequest::default()
            };
            let send = |channel, request| async move { client::kv(channel).range(request).await };
            let page = match self.client.call(Retry::Always, request, send).await {
                Ok(page) => page,
                Err(status) => return Err(self.read_error(status, pinned.unwrap_or_default()).await),
            };
            if result.items.is_empty() {
                result.count = u64::try_from(page.count).unwrap_or_default();
                if pinned.is_none() {
                    result.revision = header_revision(page.header)?;
                    pinned = Some(result.revision);
                }
            }
            for kv in page.kvs {
                result.items.push(key_value(kv)?);
            }
            let full = range.limit != 0 && result.items.len() >= range.limit;
            match result.items.last() {
                Some(last) if page.more && !full => start = format!("{}\0", last.key),
                _ => return Ok(result),
            }
        }
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, Error> {
        let size = value.len();
        let lease = match ttl {
            Some(ttl) => self.leases.lease_for(ttl).await?,
            None => 0,
        };
        let at = match expect {
            Expect::Absent => 0,
            Expect::At(revision) => number(revision),
        };
        let put = PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value, lease, prev_kv: false };
        let transaction = TxnRequest {
            compare: vec![modified_at(key, at)],
            success: vec![operation(request_op::Request::RequestPut(put))],
            failure: vec![operation(request_op::Request::RequestRange(read_of(key)))],
        };
        let response = self.transaction(transaction, key, size).await?;
        if response.succeeded { header_revision(response.header) } else { Err(conflict(key, response)) }
    }

    async fn delete(&self, key: &str, expect: Option<Revision>) -> Result<(KeyValue, Revision), Error> {
        let delete = DeleteRangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::new(),
            prev_kv: true,
        };
        let transaction = TxnRequest {
            compare: expect.map(|at| modified_at(key, number(at))).into_iter().collect(),
            success: vec![operation(request_op::Request::RequestDeleteRange(delete))],
            failure: vec![operation(request_op::Request::RequestRange(read_of(key)))],
        };
        let response = self.transaction(transaction, key, 0).await?;
        if !response.succeeded {
            return Err(conflict(key, response));
        }
        let at = header_revision(response.header)?;
        match first_response(response.responses) {
            Some(response_op::Response::ResponseDeleteRange(deleted)) => {
                match deleted.prev_kvs.into_iter().next() {
                    Some(previous) => Ok((key_value(previous)?, at)),
                    None => Err(Error::Conflict { key: key.to_owned(), current: None }),
                }
            }
            _ => Err(error::broken("a delete without its answer")),
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        Ok(watch::stream(Arc::clone(&self.client), self.nudges.subscribe(), prefix, from))
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.nudges.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision, Error> {
        let gone = || Error::Unavailable { reason: "the connection is shut down".into() };
        let (caller, answer) = oneshot::channel();
        self.revisions.send(caller).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        match compact::compact(&self.client, number(revision)).await {
            Ok(()) => Ok(()),
            // It has been compacted further already.
            Err(status) if error::is_compacted(&status) => Ok(()),
            Err(status) => Err(self.read_error(status, revision).await),
        }
    }

    async fn size(&self) -> Result<u64, Error> {
        let send = |channel, request| async move { client::maintenance(channel).status(request).await };
        let status = self.client.call(Retry::Always, pb::StatusRequest {}, send).await;
        let status = status.map_err(|status| error::of(&status))?;
        Ok(u64::try_from(status.db_size).unwrap_or_default())
    }
}
