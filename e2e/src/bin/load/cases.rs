//! The cases, in the order in which they run: each finds what those before it left.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};

use crate::Settings;
use crate::connection::{Connection, Content};
use crate::figures::{Figure, Requests};
use crate::target::Target;
use crate::{flood, watchers};

type Run = fn(Target, Settings) -> Pin<Box<dyn Future<Output = Result<Figure>> + Send>>;

/// One case.
pub struct Case {
    /// What it does.
    pub name: &'static str,
    /// Whether others need what it leaves.
    pub always: bool,
    /// Does it.
    pub run: Run,
}

macro_rules! case {
    ($name:literal, $run:expr) => {
        Case { name: $name, always: false, run: |target, settings| Box::pin($run(target, settings)) }
    };
}

/// All cases.
pub const CASES: &[Case] = &[
    case!("memory, empty", memory),
    Case { always: true, ..case!("create pods", create) },
    case!("memory, pods stored", memory),
    case!("get pod", get),
    case!("update pod", update),
    case!("merge patch of pod", merge_patch),
    case!("strategic merge patch of pod", strategic_patch),
    case!("apply of config map", apply),
    case!("LIST all, JSON", list_json),
    case!("LIST all, protobuf", list_protobuf),
    case!("LIST all, 8 clients", list_together),
    case!("LIST limit=500, 8 clients", list_chunked),
    case!("LIST by label, 8 clients", list_by_label),
    case!("LIST by node, 8 clients", list_by_node),
    case!("memory, after the lists", memory),
    case!("watch, from event to every watcher", watchers::fan_out),
    case!("memory, after the watches", memory),
    case!("lease of a node, calm", flood::calm),
    case!("lease of a node, in a flood", flood::flooded),
];

/// How many nodes the pods are spread over.
const NODES: usize = 100;

/// A pod as large as those of the design's measure: 2.7 kB as it is listed.
pub fn pod(number: usize) -> Value {
    let variable = |i: usize| json!({"name": format!("VARIABLE_{i}"), "value": format!("the value of {i}")});
    let container = json!({
        "name": "app", "image": "registry.example/team/app:1.2.3", "args": ["--port=8080", "--verbose"],
        "env": (0..3).map(variable).collect::<Vec<_>>(),
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name(number), "labels": {"app": format!("app-{}", number % 50), "tier": "load"},
                     "annotations": {"example.com/owner": "the team that owns this pod"}},
        "spec": {"serviceAccountName": "default", "automountServiceAccountToken": false, "containers": [container],
                 "nodeName": format!("node-{}", number % NODES)},
    })
}

fn name(number: usize) -> String {
    format!("pod-{number:06}")
}

/// Runs `clients` at once, each on its own connection, until there are no more numbers or the time is up.
pub async fn drive<F>(target: &Target, clients: usize, until: Until, request: F) -> Result<Figure>
where
    F: Fn(usize) -> (Method, String, &'static str, String) + Clone + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let connections = try_join_all((0..clients).map(|_| Connection::open(target))).await?;
    let began = Instant::now();
    let tasks = connections.into_iter().map(|mut connection| {
        let (next, request) = (next.clone(), request.clone());
        tokio::spawn(async move {
            let mut outcome = Requests::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if until.reached(number, began) {
                    outcome.elapsed = began.elapsed();
                    return anyhow::Ok(outcome);
                }
                let (method, path, kind, body) = request(number);
                let accept = if method == Method::GET { kind } else { "" };
                let content = Content { accept, content_type: kind, body: &body, identity: None };
                let sent = Instant::now();
                match connection.count(method, &path, content).await? {
                    (status, bytes) if status.is_success() => {
                        outcome.latencies.push(sent.elapsed());
                        outcome.bytes += bytes;
                    }
                    _ => outcome.errors += 1,
                }
            }
        })
    });
    let mut sum = Requests::default();
    for outcome in try_join_all(tasks).await? {
        sum.absorb(outcome?);
    }
    Ok(Figure::Requests(sum))
}

/// When a case ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so many requests.
    Number(usize),
    /// After some time.
    Time(Duration),
}

impl Until {
    fn reached(self, number: usize, began: Instant) -> bool {
        match self {
            Self::Number(last) => number >= last,
            Self::Time(duration) => began.elapsed() >= duration,
        }
    }
}

fn time(settings: &Settings) -> Until {
    Until::Time(Duration::from_secs(settings.seconds))
}

/// Numbers that look like chance, the same in every run.
fn scattered(number: usize, below: usize) -> usize {
    number.wrapping_mul(2_654_435_761) % below.max(1)
}

async fn memory(target: Target, _: Settings) -> Result<Figure> {
    Ok(Figure::Memory(target.memory()))
}

async fn create(target: Target, settings: Settings) -> Result<Figure> {
    let namespace = target.namespace.clone();
    let bodies: Arc<[String]> = (0..settings.pods).map(|number| pod(number).to_string()).collect();
    let request =
        move |number: usize| (Method::POST, format!("{namespace}/pods"), "", bodies[number].clone());
    drive(&target, settings.clients, Until::Number(settings.pods), request).await
}

async fn get(target: Target, settings: Settings) -> Result<Figure> {
    let namespace = target.namespace.clone();
    let pods = settings.pods;
    let request = move |number: usize| {
        let path = format!("{namespace}/pods/{}", name(scattered(number, pods)));
        (Method::GET, path, "", String::new())
    };
    drive(&target, settings.clients, time(&settings), request).await
}

async fn update(target: Target, settings: Settings) -> Result<Figure> {
    let namespace = target.namespace.clone();
    let pods = settings.pods;
    let bodies: Arc<[String]> = (0..pods).map(|number| pod(number).to_string()).collect();
    let request = move |number: usize| {
        let body = bodies[scattered(number, pods)].replacen("the team", &format!("team {number}"), 1);
        let path = format!("{namespace}/pods/{}", name(scattered(number, pods)));
        (Method::PUT, path, "", body)
    };
    drive(&target, settings.clients, time(&settings), request).await
}

async fn patch(target: Target, settings: Settings, kind: &'static str) -> Result<Figure> {
    let namespace = target.namespace.clone();
    let pods = settings.pods;
    let request = move |number: usize| {
        let body = json!({"metadata": {"annotations": {"example.com/patched": number.to_string()}}});
        let path = format!("{namespace}/pods/{}", name(scattered(number, pods)));
        (Method::PATCH, path, kind, body.to_string())
    };
    drive(&target, settings.clients, time(&settings), request).await
}

async fn merge_patch(target: Target, settings: Settings) -> Result<Figure> {
    patch(target, settings, "application/merge-patch+json").await
}

async fn strategic_patch(target: Target, settings: Settings) -> Result<Figure> {
    patch(target, settings, "application/strategic-merge-patch+json").await
}

async fn apply(target: Target, settings: Settings) -> Result<Figure> {
    let namespace = target.namespace.clone();
    let request = move |number: usize| {
        let name = format!("applied-{}", number % 500);
        let path = format!("{namespace}/configmaps/{name}?fieldManager=load&force=true");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                          "data": {"number": number.to_string(), "text": "some words"}});
        (Method::PATCH, path, "application/apply-patch+yaml", body.to_string())
    };
    drive(&target, settings.clients, time(&settings), request).await
}

async fn list(target: Target, settings: Settings, clients: usize, of: List) -> Result<Figure> {
    let namespace = target.namespace.clone();
    let request = move |number: usize| {
        let query = match of {
            List::All(_) => String::new(),
            List::ByLabel => format!("?labelSelector=app%3Dapp-{}", number % 50),
            List::ByNode => format!("?fieldSelector=spec.nodeName%3Dnode-{}", number % NODES),
        };
        let kind = if let List::All(kind) = of { kind } else { "" };
        (Method::GET, format!("{namespace}/pods{query}"), kind, String::new())
    };
    drive(&target, clients, time(&settings), request).await
}

#[derive(Clone, Copy)]
enum List {
    All(&'static str),
    ByLabel,
    ByNode,
}

async fn list_json(target: Target, settings: Settings) -> Result<Figure> {
    list(target, settings, 1, List::All("")).await
}

async fn list_protobuf(target: Target, settings: Settings) -> Result<Figure> {
    list(target, settings, 1, List::All("application/vnd.kubernetes.protobuf")).await
}

async fn list_together(target: Target, settings: Settings) -> Result<Figure> {
    list(target, settings, 8, List::All("")).await
}

async fn list_by_label(target: Target, settings: Settings) -> Result<Figure> {
    list(target, settings, 8, List::ByLabel).await
}

async fn list_by_node(target: Target, settings: Settings) -> Result<Figure> {
    list(target, settings, 8, List::ByNode).await
}

/// Each client goes through the whole list in chunks, again and again.
async fn list_chunked(target: Target, settings: Settings) -> Result<Figure> {
    let mut sum = Requests::default();
    let tasks = (0..8).map(|_| tokio::spawn(chunks(target.clone(), settings.seconds)));
    for outcome in try_join_all(tasks).await? {
        sum.absorb(outcome?);
    }
    Ok(Figure::Requests(sum))
}

async fn chunks(target: Target, seconds: u64) -> Result<Requests> {
    let (mut connection, namespace) = (Connection::open(&target).await?, &target.namespace);
    let (mut outcome, began) = (Requests::default(), Instant::now());
    let mut token = String::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        let path = format!("{namespace}/pods?limit=500&continue={token}");
        let sent = Instant::now();
        let mut ends = Ends::default();
        let (status, bytes) =
            connection.each(Method::GET, &path, Content::default(), |piece| ends.see(piece)).await?;
        ensure!(status.is_success(), "{path}: {status}");
        outcome.latencies.push(sent.elapsed());
        outcome.bytes += bytes;
        token = ends.continue_token().unwrap_or_default();
    }
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}

/// The beginning and the end of an answer. Nothing else of it is kept: what the client does is not to be measured.
#[derive(Default)]
struct Ends {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Ends {
    /// At least so much is kept of each.
    const ENOUGH: usize = 400;

    fn see(&mut self, piece: &[u8]) {
        let missing = Self::ENOUGH.saturating_sub(self.first.len());
        self.first.extend_from_slice(&piece[..missing.min(piece.len())]);
        let tail = &piece[piece.len().saturating_sub(Self::ENOUGH)..];
        self.last.drain(..(self.last.len() + tail.len()).saturating_sub(Self::ENOUGH).min(self.last.len()));
        self.last.extend_from_slice(tail);
    }

    /// The token in a list's metadata, which may stand before or after the items.
    fn continue_token(&self) -> Option<String> {
        let key = "\"continue\":\"";
        let ends = [&self.first, &self.last].map(|end| String::from_utf8_lossy(end));
        let end = ends.iter().find(|end| end.contains(key))?;
        let rest = &end[end.find(key)? + key.len()..];
        rest.find('"').map(|length| rest[..length].to_owned())
    }
}
