//! Compaction of etcd's history, once per interval for all apiservers together (upstream's `etcd3/compact.go`, and
//! with its key, so that both may run side by side): whoever first moves the version of a certain key compacts to
//! the revision that was current one interval before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::etcd::etcdserverpb::{
    CompactionRequest, Compare, PutRequest, TxnRequest, compare, request_op, response_op,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, warn};

use super::client::{self, Client, Retry};
use super::{error, first_response, operation, read_of};

const KEY: &str = "compact_rev_key";

/// What is known from the last round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    /// The version of the key: a clock that all apiservers share.
    time: i64,
    /// The revision of the store then.
    revision: i64,
}

/// Compacts every `interval` until `token` ends it.
pub(super) async fn run(client: Arc<Client>, interval: Duration, token: CancellationToken) {
    let mut round = Round::default();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match advance(&client, round).await {
            Ok(next) => round = next,
            Err(status) => warn!(error = %status, "could not compact the history of etcd"),
        }
    }
}

/// One round: moves the shared clock, and compacts if nobody else has moved it.
async fn advance(client: &Client, round: Round) -> Result<Round, Status> {
    let key = Bytes::from_static(KEY.as_bytes());
    let condition = Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Version.into(),
        key: key.clone(),
        target_union: Some(compare::TargetUnion::Version(round.time)),
    };
    let value = round.revision.to_string().into();
    let put = PutRequest { key, value, ..PutRequest::default() };
    let transaction = TxnRequest {
        compare: vec![condition],
        success: vec![operation(request_op::Request::RequestPut(put))],
        failure: vec![operation(request_op::Request::RequestRange(read_of(KEY)))],
    };
    let send = |channel, request| async move { client::kv(channel).txn(request).await };
    let response = client.call(Retry::NotSent, transaction, send).await?;
    let revision = response.header.map(|header| header.revision).unwrap_or_default();
    if !response.succeeded {
        let time = match first_response(response.responses) {
            Some(response_op::Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.version),
            _ => 0,
        };
        return Ok(Round { time, revision });
    }
    if round.revision > 0 {
        match compact(client, round.revision).await {
            Ok(()) => debug!(revision = round.revision, "compacted the history of etcd"),
            Err(status) if error::is_compacted(&status) => {}
            Err(status) => return Err(status),
        }
    }
    Ok(Round { time: round.time + 1, revision })
}

/// Forgets the history before `revision`.
pub(super) async fn compact(client: &Client, revision: i64) -> Result<(), Status> {
    let send = |channel, request| async move { client::kv(channel).compact(request).await };
    client.call(Retry::Always, CompactionRequest { revision, physical: false }, send).await.map(drop)
}
