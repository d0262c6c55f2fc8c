//! How events get to where they go: at once, or gathered and later (upstream `plugin/pkg/audit/{buffered,truncate,
//! webhook}`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Tasks;
use metrics::counter;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::Event;
use super::log::Log;
use super::policy::Level;
use crate::webhook::{Client, Retry};

/// When events are handed on.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// Later, many together; if there are too many of them, some get lost.
    Batch(Batch),
    /// Before the request goes on; failures are written to the server's own log.
    Blocking,
    /// The same, but a request that cannot be written down when it comes in is refused.
    BlockingStrict,
}

/// How events are gathered.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// How many may wait.
    pub buffer: usize,
    /// How many are handed on together.
    pub most: usize,
    /// How long it is waited until there are as many.
    pub wait: Duration,
    /// How many batches there may be in a second, and how many at once after a quiet time.
    pub throttle: Option<(f32, u32)>,
}

/// What of large events is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truncate {
    /// The size in bytes from which on bodies are left out, and events that are still larger.
    pub event: usize,
}

/// How events are handed on.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// When.
    pub mode: Mode,
    /// What of large ones is left out; nothing if not given.
    pub truncate: Option<Truncate>,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self { mode: Mode::Blocking, truncate: None }
    }
}

/// Where events go.
#[derive(Clone)]
pub(super) enum Output {
    /// To a file.
    Log(Arc<Log>),
    /// To a webhook.
    Webhook(Arc<Client>, Retry),
}

/// The most batches that are on their way to a webhook at once.
const UNDER_WAY: usize = 100;
/// What the list of events is before its items ...
const LIST: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
/// ... and what items have of their own that items of a list have not.
const ITEM: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;

impl Output {
    fn name(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Webhook(..) => "webhook",
        }
    }

    /// Hands events on; says whether that went well.
    async fn process(&self, lines: Vec<Bytes>) -> bool {
        let (count, outcome) = (
            lines.len(),
            match self {
                Self::Log(log) => write(log, &lines),
                Self::Webhook(client, retry) => {
                    let sent = client.deliver(list(&lines), *retry).await;
                    sent.map_err(|error| error.to_string())
                }
            },
        );
        if let Err(error) = &outcome {
            failed(self.name(), error, count);
        }
        outcome.is_ok()
    }
}

fn write(log: &Log, lines: &[Bytes]) -> Result<(), String> {
    lines.iter().try_for_each(|line| log.write(line)).map_err(|error| error.to_string())
}

/// The list of these events, as JSON.
fn list(lines: &[Bytes]) -> Bytes {
    let mut out = LIST.to_vec();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match line.strip_prefix(ITEM) {
            Some(rest) => {
                out.push(b'{');
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(line),
        }
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// Counts events that got lost.
fn failed(plugin: &'static str, error: &str, count: usize) {
    counter!("apiserver_audit_error_total", "plugin" => plugin).increment(count as u64);
    tracing::error!(plugin, error, events = count, "audit events were lost");
}

/// An event that is on its way.
#[derive(Default)]
pub struct Written {
    refused: bool,
    pending: Vec<JoinHandle<bool>>,
}

impl Written {
    /// Waits until it is where it goes, if that is to be waited for; says whether the request may go on.
    pub async fn ok(self) -> bool {
        let mut ok = !self.refused;
        for pending in self.pending {
            ok &= pending.await.unwrap_or(false);
        }
        ok
    }
}

/// Hands events on to one output.
pub(super) struct Backend {
    output: Output,
    strict: bool,
    truncate: Option<Truncate>,
    /// Where they wait, if they do.
    buffer: Option<mpsc::Sender<Bytes>>,
}

impl Backend {
    /// Hands events on as configured. What gathers them ends when `stop` is cancelled and nothing waits any more.
    pub(super) fn start(
        output: Output,
        config: &BackendConfig,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Self {
        let buffer = match &config.mode {
            Mode::Batch(batch) => {
                let (sender, receiver) = mpsc::channel(batch.buffer.max(1));
                let worker = Worker { output: output.clone(), batch: batch.clone(), receiver };
                let stop = stop.clone();
                tasks.spawn("audit", |_| worker.run(stop));
                Some(sender)
            }
            Mode::Blocking | Mode::BlockingStrict => None,
        };
        let (strict, truncate) = (config.mode == Mode::BlockingStrict, config.truncate.clone());
        Self { output, strict, truncate, buffer }
    }

    /// Hands an event on.
    pub(super) fn write(&self, event: &Event, written: &mut Written) {
        let Some(line) = self.line(event) else { return };
        if let Some(buffer) = &self.buffer {
            if buffer.try_send(line).is_err() {
                let closed = buffer.is_closed();
                let why = if closed { "audit backend shut down" } else { "audit buffer queue blocked" };
                failed("buffered", why, 1);
            }
            return;
        }
        match &self.output {
            Output::Log(log) => {
                let outcome = write(log, std::slice::from_ref(&line));
                if let Err(error) = outcome {
                    failed("log", &error, 1);
                    written.refused |= self.strict;
                }
            }
            Output::Webhook(..) => {
                let (output, strict) = (self.output.clone(), self.strict);
                written
                    .pending
                    .push(tokio::spawn(async move { output.process(vec![line]).await || !strict }));
            }
        }
    }

    /// The event as a line, without what makes it too large; `None` if it is too large anyway.
    fn line(&self, event: &Event) -> Option<Bytes> {
        let line = event.line();
        let Some(most) = self.truncate.as_ref().map(|truncate| truncate.event) else {
            return Some(line.into());
        };
        if line.len() <= most {
            return Some(line.into());
        }
        if event.level >= Level::Request {
            let mut event = event.clone();
            (event.request_object, event.response_object) = (None, None);
            event.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
            let line = event.line();
            if line.len() <= most {
                return Some(line.into());
            }
        }
        failed("truncate", "event is too large even after truncating", 1);
        None
    }
}

/// Gathers events.
struct Worker {
    output: Output,
    batch: Batch,
    receiver: mpsc::Receiver<Bytes>,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        let (under_way, places) = (TaskTracker::new(), Arc::new(Semaphore::new(UNDER_WAY)));
        let mut throttle = self.batch.throttle.map(|(qps, burst)| Throttle::new(qps, burst));
        loop {
            let (lines, last) = self.collect(&stop).await;
            if !lines.is_empty() {
                if let Some(throttle) = &mut throttle {
                    tokio::time::sleep_until(throttle.next(Instant::now())).await;
                }
                match &self.output {
                    Output::Log(_) => {
                        self.output.process(lines).await;
                    }
                    Output::Webhook(..) => {
                        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                        let output = self.output.clone();
                        under_way.spawn(async move {
                            output.process(lines).await;
                            drop(place);
                        });
                    }
                }
            }
            if last {
                break;
            }
        }
        under_way.close();
        under_way.wait().await;
    }

    /// The next batch, and whether it is the last one.
    async fn collect(&mut self, stop: &CancellationToken) -> (Vec<Bytes>, bool) {
        let deadline = Instant::now() + self.batch.wait;
        let mut lines = Vec::new();
        while lines.len() < self.batch.most.max(1) {
            tokio::select! {
                biased;
                line = self.receiver.recv() => match line {
                    Some(line) => lines.push(line),
                    None => return (lines, true),
                },
                // Nothing new comes in; what waits is still handed on.
                () = stop.cancelled(), if !self.receiver.is_closed() => self.receiver.close(),
                () = tokio::time::sleep_until(deadline), if self.batch.most > 1 => break,
            }
        }
        (lines, false)
    }
}

/// Says when a batch may go: a bucket of tokens.
struct Throttle {
    every: Duration,
    burst: u32,
    /// When the bucket is full again.
    full: Option<Instant>,
}

impl Throttle {
    fn new(qps: f32, burst: u32) -> Self {
        let every = if qps > 0.0 { Duration::from_secs_f32(1.0 / qps) } else { Duration::ZERO };
        Self { every, burst: burst.max(1), full: None }
    }

    /// When the next one may go.
    fn next(&mut self, now: Instant) -> Instant {
        let full = self.full.map_or(now, |full| full.max(now)) + self.every;
        self.full = Some(full);
        // As many as the bucket holds may be owed.
        full.checked_sub(self.every * self.burst).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::LogConfig;
    use super::*;

    fn event(id: &str, level: Level) -> Event {
        Event::new(level, id.to_owned(), String::new())
    }

    fn logged(mode: Mode, truncate: Option<usize>) -> (tempfile::TempDir, Backend, Tasks, CancellationToken) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let log = Log::open(LogConfig { path, ..LogConfig::default() }).expect("a log");
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let config = BackendConfig { mode, truncate: truncate.map(|event| Truncate { event }) };
        let backend = Backend::start(Output::Log(Arc::new(log)), &config, &tasks, &stop);
        (folder, backend, tasks, stop)
    }

    fn lines(folder: &tempfile::TempDir) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(folder.path().join("audit.log")).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn batch(buffer: usize, most: usize) -> Mode {
        Mode::Batch(Batch { buffer, most, wait: Duration::from_secs(30), throttle: None })
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_written_in_the_end_and_what_is_too_much_is_lost() {
        let (folder, backend, tasks, stop) = logged(batch(3, 2), None);
        let mut written = Written::default();
        for id in ["1", "2", "3", "4"] {
            backend.write(&event(id, Level::Metadata), &mut written);
        }
        assert!(written.ok().await, "nobody waits");
        stop.cancel();
        tasks.shut_down().await.expect("the worker ends");
        let ids: Vec<_> = lines(&folder).iter().map(|line| line["auditID"].clone()).collect();
        assert_eq!(ids, ["1", "2", "3"], "the buffer was full");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_old() {
        let (folder, backend, _tasks, _stop) = logged(batch(10, 2), None);
        let mut written = Written::default();
        let begin = Instant::now();
        for id in ["1", "2", "3"] {
            backend.write(&event(id, Level::Metadata), &mut written);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(lines(&folder).len(), 2);
        tokio::time::sleep_until(begin + Duration::from_secs(31)).await;
        assert_eq!(lines(&folder).len(), 3);
    }

    #[tokio::test]
    async fn large_events_lose_their_bodies() {
        let (folder, backend, ..) = logged(Mode::Blocking, Some(400));
        let mut written = Written::default();
        let body = super::super::event::raw(&serde_json::json!({"data": "x".repeat(300)}));
        backend.write(&event("small", Level::Request), &mut written);
        let mut large = event("large", Level::Request);
        large.request_object = body;
        backend.write(&large, &mut written);
        backend.write(&event(&"x".repeat(400), Level::Request), &mut written);
        let found = lines(&folder);
        assert_eq!(found.len(), 2, "what is too large without bodies is lost");
        assert_eq!(found[0].get("annotations"), None);
        assert_eq!(found[1]["annotations"]["audit.k8s.io/truncated"], "true");
        assert_eq!(found[1].get("requestObject"), None);
    }

    #[test]
    fn lists_have_items_without_types() {
        let lines: Vec<Bytes> =
            ["a", "b"].iter().map(|id| event(id, Level::Metadata).line().into()).collect();
        let list: serde_json::Value = serde_json::from_slice(&list(&lines)).expect("JSON");
        assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&"EventList".into(), Some(2)));
        assert_eq!(list["items"][1]["auditID"], "b");
        assert_eq!(list["items"][1].get("kind"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_throttled() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(10.0, 3);
        let waits: Vec<u128> = (0..6).map(|_| (throttle.next(begin) - begin).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        let later = begin + Duration::from_secs(10);
        assert_eq!(throttle.next(later), later, "the bucket has filled");
    }
}
