//! Watches of etcd that mend themselves: when the connection breaks, another member is asked to go on after the
//! last revision that was delivered. Only a compaction of what comes next ends a watch.
//!
//! Progress. A member from 3.4.31, 3.5.13 or 3.6 on answers a request for progress only after all events up to the
//! revision it names. Older ones may name a revision too early, so they are never asked: there the watch covers all
//! keys, and each event, wanted or not, is progress.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use proto::etcd::etcdserverpb::watch_request::RequestUnion;
use proto::etcd::etcdserverpb::{
    StatusRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use proto::etcd::mvccpb;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::client::{self, Client};
use super::{error, key_value, number, revision};
use crate::{Error, Event, Revision, WatchStream, prefix_end};

/// Requests on their way to etcd; progress requests that find no room are not needed.
const REQUESTS: usize = 8;
/// Between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A member that leaves this many requests for progress unanswered is given up.
const PATIENCE: u32 = 3;
/// etcd's mark for an answer that concerns all watches of a connection.
const ALL_WATCHES: i64 = -1;

/// Streams the changes under `prefix` from `from` on.
pub(super) fn stream(
    client: Arc<Client>,
    nudges: watch::Receiver<u64>,
    prefix: &str,
    from: Revision,
) -> WatchStream {
    let watcher = Watcher {
        client,
        nudges,
        prefix: prefix.to_owned(),
        // etcd takes 0 for "from now on".
        next: from.max(Revision(1)),
        connection: None,
        pause: FIRST_PAUSE,
        ended: false,
    };
    futures::stream::unfold(watcher, |mut watcher| async move {
        if watcher.ended {
            return None;
        }
        let batch = watcher.batch().await;
        watcher.ended = batch.is_err();
        Some((batch, watcher))
    })
    .boxed()
}

/// The oldest revision that etcd still keeps: what it answers to a watch from the beginning.
pub(super) async fn oldest_revision(client: &Client) -> Result<Revision, Error> {
    let probe = async {
        let mut connection = Connection::open(client, "\0", Revision(1)).await?;
        while let Some(response) = connection.responses.message().await? {
            if response.canceled {
                return Ok(revision(response.compact_revision));
            }
            if !response.events.is_empty() {
                break;
            }
        }
        Ok(Revision(1))
    };
    let probed = tokio::time::timeout(client.config.request_timeout, probe).await;
    let late = || Status::deadline_exceeded("etcd does not answer");
    probed.unwrap_or_else(|_| Err(late())).map_err(|status| error::of(&status))
}

struct Watcher {
    client: Arc<Client>,
    nudges: watch::Receiver<u64>,
    prefix: String,
    /// Everything before this revision has been delivered.
    next: Revision,
    connection: Option<Connection>,
    pause: Duration,
    ended: bool,
}

/// One stream of one member.
struct Connection {
    member: usize,
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    /// Whether the member's progress reports can be trusted; if not, the watch covers all keys.
    reports: bool,
    /// Parts of a response that is not complete.
    parts: Vec<mvccpb::Event>,
    heard: Instant,
    unanswered: u32,
}

/// What happened on a connection.
enum Step {
    Response(Box<WatchResponse>),
    Broken(Status),
    /// Somebody asks how far the watch is, or it has been silent for long.
    Progress,
}

impl Watcher {
    /// The next batch that is worth delivering.
    async fn batch(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let step = self.step().await;
            let events = match step {
                Step::Response(response) => self.receive(*response)?,
                Step::Progress => self.progress(),
                Step::Broken(status) => {
                    self.disconnect(&status).await;
                    None
                }
            };
            if let Some(events) = events {
                return Ok(events);
            }
        }
    }

    async fn step(&mut self) -> Step {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => match Connection::open(&self.client, &self.prefix, self.next).await {
                Ok(connection) => self.connection.insert(connection),
                Err(status) => return Step::Broken(status),
            },
        };
        let silent = connection.heard + self.client.config.progress_interval;
        tokio::select! {
            biased;
            message = connection.responses.message() => match message {
                Ok(Some(response)) => {
                    connection.heard = Instant::now();
                    connection.unanswered = 0;
                    Step::Response(Box::new(response))
                }
                Ok(None) => Step::Broken(Status::unavailable("the stream ended")),
                Err(status) => Step::Broken(status),
            },
            Ok(()) = self.nudges.changed() => Step::Progress,
            () = tokio::time::sleep_until(silent) => {
                connection.heard = Instant::now();
                connection.unanswered += 1;
                if connection.reports && connection.unanswered > PATIENCE {
                    Step::Broken(Status::unavailable("the stream is silent"))
                } else {
                    Step::Progress
                }
            }
        }
    }

    /// What a response means: events, progress, nothing yet, or the end.
    fn receive(&mut self, response: WatchResponse) -> Result<Option<Vec<Event>>, Error> {
        self.pause = FIRST_PAUSE;
        if response.canceled {
            self.ended = true;
            return Err(match response.compact_revision {
                0 => {
                    Error::Unavailable { reason: format!("etcd ended the watch: {}", response.cancel_reason) }
                }
                oldest => Error::Compacted { requested: self.next, oldest: revision(oldest) },
            });
        }
        let Some(connection) = &mut self.connection else { return Ok(None) };
        if response.watch_id == ALL_WATCHES {
            let reached = response.header.map(|header| revision(header.revision)).unwrap_or_default();
            return Ok(self.reached(reached));
        }
        connection.parts.extend(response.events);
        if response.fragment || connection.parts.is_empty() {
            return Ok(None);
        }
        let parts = std::mem::take(&mut connection.parts);
        self.events(parts)
    }

    /// The wanted ones of complete events; if none is wanted, they are progress.
    fn events(&mut self, parts: Vec<mvccpb::Event>) -> Result<Option<Vec<Event>>, Error> {
        let mut wanted = Vec::with_capacity(parts.len());
        let mut last = Revision(0);
        for part in parts {
            let Some(kv) = part.kv.as_ref() else { return Err(error::broken("an event without a key")) };
            let modified = revision(kv.mod_revision);
            last = last.max(modified);
            if modified >= self.next && kv.key.starts_with(self.prefix.as_bytes()) {
                wanted.push(event(part)?);
            }
        }
        if wanted.is_empty() {
            return Ok(self.reached(last));
        }
        self.next = last.next();
        Ok(Some(wanted))
    }

    /// Everything up to `revision` has come.
    fn reached(&mut self, revision: Revision) -> Option<Vec<Event>> {
        if revision < self.next {
            // Nothing new, but a sign of life that may be waited for.
            return Some(vec![Event::Progress { revision: Revision(self.next.0 - 1) }]);
        }
        self.next = revision.next();
        Some(vec![Event::Progress { revision }])
    }

    /// Asks the member how far it is; where that is no use, all that is known is what has come.
    fn progress(&mut self) -> Option<Vec<Event>> {
        match &self.connection {
            Some(connection) if connection.reports => {
                let union = RequestUnion::ProgressRequest(WatchProgressRequest {});
                // No room: the requests before this one will be answered as well.
                let _ = connection.requests.try_send(WatchRequest { request_union: Some(union) });
                None
            }
            Some(_) => Some(vec![Event::Progress { revision: Revision(self.next.0 - 1) }]),
            None => None,
        }
    }

    async fn disconnect(&mut self, status: &Status) {
        let member = self.connection.take().map_or_else(|| self.client.member().0, |lost| lost.member);
        self.client.give_up(member);
        if error::is_signed_out(status)
            && let Err(status) = self.client.renew_session().await
        {
            warn!(error = %status, "could not sign in to etcd");
        }
        debug!(error = %status, next = %self.next, "watch of etcd broke, connecting again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

impl Connection {
    async fn open(client: &Client, prefix: &str, from: Revision) -> Result<Self, Status> {
        let (member, channel) = client.member();
        let late = |_| Status::deadline_exceeded("the watch was not answered");
        let timeout = client.config.request_timeout;
        let mut maintenance = client::maintenance(channel.clone());
        let status = maintenance.status(client.request(StatusRequest {}));
        let version = tokio::time::timeout(timeout, status).await.map_err(late)??;
        let reports = reports_progress(&version.into_inner().version);
        let (key, range_end) = match reports {
            true => (Bytes::copy_from_slice(prefix.as_bytes()), Bytes::from(prefix_end(prefix))),
            false => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        };
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: number(from),
            progress_notify: reports,
            prev_kv: false,
            watch_id: 0,
            fragment: true,
        };
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let union = Some(RequestUnion::CreateRequest(create));
        // There is room, and the other end is in the next line.
        let _ = requests.try_send(WatchRequest { request_union: union });
        let mut request = client.request(ReceiverStream::new(outgoing));
        // A member that has lost its leader ends the watch instead of being silent.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut watch = client::watch(channel);
        let responses =
            tokio::time::timeout(timeout, watch.watch(request)).await.map_err(late)??.into_inner();
        let (parts, heard) = (Vec::new(), Instant::now());
        Ok(Self { member, requests, responses, reports, parts, heard, unanswered: 0 })
    }
}

/// Whether a member of this version reports progress truthfully (upstream's `feature_support_checker.go`).
fn reports_progress(version: &str) -> bool {
    let numbers = version.split(['.', '-', '+']).map(str::parse::<u32>);
    let numbers: Vec<u32> = numbers.take(3).map_while(Result::ok).collect();
    match numbers[..] {
        [3, 4, patch] => patch >= 31,
        [3, 5, patch] => patch >= 13,
        [major, minor, ..] => (major, minor) >= (3, 6),
        _ => false,
    }
}

fn event(part: mvccpb::Event) -> Result<Event, Error> {
    let kind = part.r#type();
    let current = key_value(part.kv.unwrap_or_default())?;
    Ok(match kind {
        mvccpb::event::EventType::Put => Event::Put(current),
        mvccpb::event::EventType::Delete => Event::Delete { key: current.key, revision: current.modified },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repaired_versions_report_progress() {
        for (version, wanted) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.5.21-rc.0", true),
            ("3.6.0-rc.1", true),
            ("3.6.2", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("", false),
        ] {
            assert_eq!(reports_progress(version), wanted, "{version}");
        }
    }
}
