//! The audit log: who asked for what, and what came of it (upstream `apiserver/pkg/audit` and the filter `WithAudit`).
//!
//! A [`Policy`] says what is written down of a request; a [`Record`] accompanies the request and writes an
//! [`event::Event`] at each stage, which a [`backend`] hands on to the [`log`] or a webhook.

pub mod backend;
pub mod event;
pub mod log;
pub mod policy;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use api::status::ApiError;
use client::Tasks;
use http::header::USER_AGENT;
use http::{HeaderMap, Uri};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use metrics::counter;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::backend::{Backend, BackendConfig, Output, Written};
use self::event::{Event, ObjectRef};
use self::log::{Log, LogConfig};
pub use self::policy::{Level, Policy, Stage};
use crate::authn::User;
use crate::authz::Decision;
use crate::remote::Dialer;
use crate::request::RequestInfo;
use crate::server::listener::Peer;
use crate::webhook::{Client, Retry};

/// What is configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditConfig {
    /// The policy; without one nothing is written.
    pub policy_file: Option<PathBuf>,
    /// The file that events go to.
    pub log: Option<LogConfig>,
    /// How they get there.
    pub log_backend: BackendConfig,
    /// The webhook that events go to.
    pub webhook: Option<WebhookConfig>,
}

/// A webhook that hears of events.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookConfig {
    /// The kubeconfig file that names it.
    pub file: PathBuf,
    /// How long it is waited before it is called again after a failure.
    pub initial_backoff: Duration,
    /// How events get there.
    pub backend: BackendConfig,
}

/// Longer names of clients are cut.
const AGENT: usize = 1024;

/// The policy and where events go.
pub struct Audit {
    policy: Policy,
    backends: Vec<Backend>,
    /// Cancelled when no more requests come.
    stop: CancellationToken,
    _guard: DropGuard,
}

/// What a request says of itself beside its line.
pub struct Facts<'a> {
    /// Path and query.
    pub uri: &'a Uri,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Who is at the other end.
    pub peer: Option<&'a Peer>,
    /// The id that answer and events share.
    pub audit_id: &'a str,
}

impl Audit {
    /// Reads the policy and opens where events go, if both are configured. `dialer`: how the webhook is reached.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn open(config: &AuditConfig, tasks: &Tasks, dialer: Dialer) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(file) = &config.policy_file else { return Ok(None) };
        let text = std::fs::read(file)
            .with_context(|| format!("failed to read file path {:?}", file.display().to_string()))?;
        let policy = Policy::parse(&text).with_context(|| format!("audit policy {}", file.display()))?;
        let (stop, mut backends) = (CancellationToken::new(), Vec::new());
        if let Some(log) = &config.log {
            let opened = Log::open(log.clone());
            let opened = opened.with_context(|| format!("audit log {}", log.path.display()))?;
            let output = Output::Log(Arc::new(opened));
            backends.push(Backend::start(output, &config.log_backend, tasks, &stop));
        }
        if let Some(webhook) = &config.webhook {
            let client = Client::from_kubeconfig(&webhook.file, None, dialer).context("audit webhook")?;
            let retry = Retry { first: webhook.initial_backoff, always: true };
            let output = Output::Webhook(Arc::new(client), retry);
            backends.push(Backend::start(output, &webhook.backend, tasks, &stop));
        }
        if backends.is_empty() {
            return Ok(None);
        }
        let guard = stop.clone().drop_guard();
        Ok(Some(Arc::new(Self { policy, backends, stop, _guard: guard })))
    }

    /// Says that no more requests come: what waits is handed on.
    pub fn finish(&self) {
        self.stop.cancel();
    }

    fn write(&self, event: &Event) -> Written {
        counter!("apiserver_audit_event_total").increment(1);
        let mut written = Written::default();
        self.backends.iter().for_each(|backend| backend.write(event, &mut written));
        written
    }

    /// Begins the record of a request, unless the policy says that there is none.
    #[must_use]
    pub fn begin(self: &Arc<Self>, user: &User, info: &RequestInfo, facts: &Facts<'_>) -> Option<Record> {
        let verdict = self.policy.evaluate(user, info);
        let level: &'static str = verdict.level.into();
        counter!("apiserver_audit_level_total", "level" => level).increment(1);
        if verdict.level == Level::None {
            return None;
        }
        let mut event = Event::new(verdict.level, facts.audit_id.to_owned(), now());
        event.request_uri = facts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        event.verb.clone_from(&info.verb);
        event.user = user.into();
        event.source_ips = source_ips(facts);
        event.user_agent = agent(facts.headers);
        event.object_ref = info.is_resource.then(|| ObjectRef {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..ObjectRef::default()
        });
        let (audit, event) = (Arc::clone(self), Mutex::new(event));
        Some(Record { audit, verdict, event, ended: AtomicBool::new(false) })
    }
}

/// What is written down of one request. If it is dropped before its end, the handler was cut off or broke.
pub struct Record {
    audit: Arc<Audit>,
    verdict: policy::Verdict,
    event: Mutex<Event>,
    ended: AtomicBool,
}

impl Record {
    /// Writes the event of a stage, if the policy wants it.
    pub fn stage(&self, stage: Stage) -> Written {
        if matches!(stage, Stage::ResponseComplete | Stage::Panic) {
            self.ended.store(true, Ordering::Release);
        }
        if !self.verdict.wants(stage) {
            return Written::default();
        }
        let mut event = self.event.lock();
        event.stage = stage;
        if stage != Stage::RequestReceived {
            event.stage_timestamp = now();
        }
        self.audit.write(&event)
    }

    /// Whether bodies of answers are written down.
    #[must_use]
    pub fn wants_answers(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    /// Notes whom the user acts as.
    pub fn impersonated(&self, user: &User) {
        self.event.lock().impersonated_user = Some(user.into());
    }

    /// Notes what the authorizers said.
    pub fn decided(&self, decision: &Decision) {
        let word = if decision.allowed() { "allow" } else { "forbid" };
        let note = |name: &str, value: &str| (format!("authorization.k8s.io/{name}"), value.to_owned());
        self.annotate(match decision {
            // What went wrong is nobody's business.
            Decision::Failed { .. } => [note("reason", "internal error")].into(),
            decision => [note("decision", word), note("reason", decision.reason())].into(),
        });
    }

    /// Notes what plugins have to say. What was said first stays.
    pub fn annotate(&self, annotations: BTreeMap<String, String>) {
        let mut event = self.event.lock();
        for (name, value) in annotations {
            event.annotations.entry(name).or_insert(value);
        }
    }

    /// Notes the object that the client sent.
    pub fn request_object(&self, object: &Value) {
        let mut event = self.event.lock();
        if let Some(object_ref) = &mut event.object_ref {
            object_ref.complete(object);
        }
        if self.verdict.level >= Level::Request {
            event.request_object = self.shown(object);
        }
    }

    /// Notes the patch that the client sent, if it is JSON.
    pub fn request_patch(&self, patch: &[u8]) {
        if self.verdict.level >= Level::Request {
            let value = api::codec::yaml::decode(patch).ok();
            self.event.lock().request_object = value.as_ref().and_then(event::raw);
        }
    }

    /// Notes the code of the answer and, if it is one, the Status that it is. What an error said stays.
    pub fn answered(&self, code: u16, status: Option<&Status>) {
        let mut event = self.event.lock();
        if status.is_some() || event.response_status.is_none() {
            event.answered(code, status);
        }
    }

    /// Notes the error that the handler answered with.
    pub fn refused(&self, error: &Status) {
        let code = error.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
        self.answered(code, Some(error));
    }

    /// Says that nothing more is written.
    pub fn close(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Notes the body of the answer.
    pub fn response_object(&self, object: &Value) {
        self.event.lock().response_object = self.shown(object);
    }

    fn shown(&self, object: &Value) -> Option<Box<RawValue>> {
        if !self.verdict.omit_managed_fields {
            return event::raw(object);
        }
        let mut object = object.clone();
        event::forget_managers(&mut object);
        event::raw(&object)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        if std::thread::panicking() {
            let error = ApiError::internal("APIServer panic'd");
            self.answered(500, Some(&error.status));
            drop(self.stage(Stage::Panic));
        } else {
            let error = ApiError::timeout("the request was given up before it was answered", 0);
            self.answered(error.code(), Some(&error.status));
            drop(self.stage(Stage::ResponseComplete));
        }
    }
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    api::schema::format_micro_time(now.as_second(), now.subsec_nanosecond().unsigned_abs())
}

/// Where the request came from: what proxies say, then the other end of the connection (upstream `SourceIPs`).
fn source_ips(facts: &Facts<'_>) -> Vec<String> {
    let header =
        |name: &str| facts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut found: Vec<std::net::IpAddr> =
        header("x-forwarded-for").split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    if found.is_empty() {
        found.extend(header("x-real-ip").trim().parse::<std::net::IpAddr>().ok());
    }
    let peer = facts.peer.and_then(|peer| peer.address).map(|address| address.ip());
    if let Some(peer) = peer.filter(|peer| found.last() != Some(peer)) {
        found.push(peer);
    }
    found.iter().map(ToString::to_string).collect()
}

fn agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut agent = agent.unwrap_or_default();
    if agent.len() > AGENT {
        let end = (0..=AGENT).rev().find(|at| agent.is_char_boundary(*at)).unwrap_or_default();
        agent.truncate(end);
        agent.push_str("...TRUNCATED");
    }
    agent
}

#[cfg(test)]
mod tests {
    use super::*;

    // After upstream's TestSourceIPs.
    #[test]
    fn proxies_come_first_and_the_peer_last() {
        for (headers, peer, expected) in [
            (vec![], "192.0.2.9", vec!["192.0.2.9"]),
            (
                vec![("x-forwarded-for", "172.16.0.1, 10.0.0.1")],
                "192.0.2.9",
                vec!["172.16.0.1", "10.0.0.1", "192.0.2.9"],
            ),
            (vec![("x-forwarded-for", "172.16.0.1,nonsense")], "172.16.0.1", vec!["172.16.0.1"]),
            (vec![("x-real-ip", "172.16.0.1")], "192.0.2.9", vec!["172.16.0.1", "192.0.2.9"]),
        ] {
            let headers: HeaderMap = headers
                .into_iter()
                .map(|(name, value)| {
                    (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
                })
                .collect();
            let address = Some(format!("{peer}:1").parse().expect("an address"));
            let peer = Peer { address, chain: Arc::default(), trusted: false };
            let facts =
                Facts { uri: &Uri::from_static("/"), headers: &headers, peer: Some(&peer), audit_id: "" };
            assert_eq!(source_ips(&facts), expected);
        }
    }

    #[test]
    fn long_agents_are_cut() {
        let headers = |agent: &str| {
            HeaderMap::from_iter([(USER_AGENT, http::HeaderValue::from_str(agent).expect("a header"))])
        };
        assert_eq!(agent(&headers("kubectl/v1")), "kubectl/v1");
        let cut = agent(&headers(&"a".repeat(2000)));
        assert_eq!(cut, format!("{}...TRUNCATED", "a".repeat(1024)));
    }
}
