//! The whole scheduler against an API server made of a map.

mod devices;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use client::{Client, Tasks};
use futures::StreamExt;
use futures::channel::mpsc;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::run;
use crate::config::KubeSchedulerConfiguration;
use crate::flags::Config;
use crate::testing::{cpu, merge};

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct Objects {
    version: u64,
    /// By collection, then by namespace and name.
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(u64, String, String)>,
    watchers: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// Method and path of every write.
    writes: Vec<String>,
    /// What is gone, as it was at last.
    deleted: Vec<Value>,
    /// How many bindings are still to be refused.
    refuse_bindings: usize,
    /// How many statuses of pods that are bound are still to be refused, because somebody else writes them too.
    refuse_statuses: usize,
}

#[derive(Default)]
struct Api {
    objects: Mutex<Objects>,
    changed: Notify,
}

/// `/api/v1/namespaces/ns/pods/p/status` is `/api/v1/pods`, `ns/p` and `status`.
fn split(path: &str) -> (String, String, String) {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let group = if parts[0] == "api" { 2 } else { 3 };
    let (root, rest) = parts.split_at(group);
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let collection = format!("/{}/{}", root.join("/"), rest[0]);
    let name = rest.get(1).map(|name| format!("{namespace}/{name}")).unwrap_or_default();
    (collection, name, rest.get(2).unwrap_or(&"").to_string())
}

impl Objects {
    fn tell(&mut self, kind: &str, collection: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.events.push((self.version, collection.to_owned(), line.clone()));
        let here = |(c, _): &&(String, _)| c == collection;
        for (_, watcher) in self.watchers.iter().filter(here) {
            let _ = watcher.unbounded_send(Bytes::from(line.clone()));
        }
    }

    fn put(&mut self, collection: &str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = (collection.to_owned(), name.to_owned());
        let kind = if self.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(kind, collection, &object);
        object
    }

    fn delete(&mut self, collection: &str, name: &str) -> Option<Value> {
        let mut object = self.objects.remove(&(collection.to_owned(), name.to_owned()))?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell("DELETED", collection, &object);
        self.deleted.push(object.clone());
        Some(object)
    }
}

fn text(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

fn status(code: u16, reason: &str) -> (u16, Body) {
    (
        code,
        text(&json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "reason": reason, "message": reason, "code": code})),
    )
}

impl Api {
    async fn answer(&self, request: Request<client::kube::client::Body>) -> (u16, Body) {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (collection, name, subresource) = split(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default();
        let mut objects = self.objects.lock();
        if parts.method == Method::GET {
            return read(&mut objects, &collection, &name, query);
        }
        objects.writes.push(format!("{} {collection} {name} {subresource}", parts.method));
        let answer = write(&mut objects, &parts.method, (&collection, &name, &subresource), &body);
        self.changed.notify_waiters();
        answer
    }

    /// Waits until the objects are so.
    async fn until<T>(&self, what: impl Fn(&Objects) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            if let Some(found) = what(&self.objects.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn put(&self, collection: &str, name: &str, object: Value) {
        self.objects.lock().put(collection, name, object);
    }
}

fn read(objects: &mut Objects, collection: &str, name: &str, query: &str) -> (u16, Body) {
    if !name.is_empty() {
        let found = objects.objects.get(&(collection.to_owned(), name.to_owned()));
        return found.map_or_else(|| status(404, "NotFound"), |object| (200, text(object)));
    }
    if query.contains("watch=true") {
        let from = query.split('&').find_map(|q| q.strip_prefix("resourceVersion=")).unwrap_or("0");
        let from: u64 = from.parse().unwrap_or(0);
        let (sender, receiver) = mpsc::unbounded();
        let missed = objects.events.iter().filter(|(version, c, _)| *version > from && c == collection);
        for (_, _, line) in missed {
            let _ = sender.unbounded_send(Bytes::from(line.clone()));
        }
        objects.watchers.push((collection.to_owned(), sender));
        let frames = receiver.map(|line| Ok::<_, Infallible>(Frame::data(line)));
        return (200, StreamBody::new(frames).boxed_unsync());
    }
    let here = objects.objects.iter().filter(|((c, _), _)| c == collection);
    let items: Vec<_> = here.map(|(_, object)| object.clone()).collect();
    let version = objects.version.to_string();
    (
        200,
        text(
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
        ),
    )
}

fn write(objects: &mut Objects, method: &Method, at: (&str, &str, &str), body: &Value) -> (u16, Body) {
    let (collection, name, subresource) = at;
    if collection.ends_with("/events") {
        return (201, text(body));
    }
    if let ("POST", "") = (method.as_str(), name) {
        return create(objects, collection, body);
    }
    let known = objects.objects.get(&(collection.to_owned(), name.to_owned())).cloned();
    let Some(mut object) = known else { return status(404, "NotFound") };
    match (method.as_str(), subresource) {
        ("DELETE", _) => {
            objects.delete(collection, name).map_or(status(404, "NotFound"), |o| (200, text(&o)))
        }
        ("POST", "binding") if objects.refuse_bindings > 0 => {
            objects.refuse_bindings -= 1;
            status(500, "InternalError")
        }
        ("POST", "binding") => {
            object["spec"]["nodeName"] = body["target"]["name"].clone();
            objects.put(collection, name, object);
            (201, text(&json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})))
        }
        ("PATCH", "status") if objects.refuse_statuses > 0 && object["spec"]["nodeName"].is_string() => {
            objects.refuse_statuses -= 1;
            status(409, "Conflict")
        }
        ("PATCH", "status") => {
            let status = &body["status"];
            if let Some(node) = status.get("nominatedNodeName") {
                object["status"]["nominatedNodeName"] = node.clone();
            }
            for (field, value) in status.as_object().into_iter().flatten() {
                match field.as_str() {
                    "conditions" | "nominatedNodeName" => {}
                    "reservedFor" => without_users(&mut object["status"], value),
                    _ => object["status"][field] = value.clone(),
                }
            }
            for condition in status["conditions"].as_array().into_iter().flatten() {
                let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
                all.retain(|known| known["type"] != condition["type"]);
                all.push(condition.clone());
                object["status"]["conditions"] = json!(all);
            }
            (200, text(&objects.put(collection, name, object)))
        }
        ("PUT", "" | "status") => {
            if object["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                return status(409, "Conflict");
            }
            (200, text(&objects.put(collection, name, body.clone())))
        }
        _ => status(405, "MethodNotAllowed"),
    }
}

fn create(objects: &mut Objects, collection: &str, body: &Value) -> (u16, Body) {
    let mut new = body.clone();
    let number = objects.version;
    let prefix = new["metadata"]["generateName"].as_str().unwrap_or_default();
    let name = format!("{prefix}{number}");
    let namespace = new["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    new["metadata"]["name"] = json!(name);
    new["metadata"]["uid"] = json!(name);
    (201, text(&objects.put(collection, &format!("{namespace}/{name}"), new)))
}

/// Takes users of a claim away, as a patch says.
fn without_users(status: &mut Value, patch: &Value) {
    let gone: Vec<_> = patch.as_array().into_iter().flatten().map(|user| user["uid"].clone()).collect();
    if let Some(users) = status["reservedFor"].as_array_mut() {
        users.retain(|user| !gone.contains(&user["uid"]));
    }
}

/// A scheduler at work on these objects.
struct Running {
    api: Arc<Api>,
    tasks: Tasks,
}

const PODS: &str = "/api/v1/pods";
const NODES: &str = "/api/v1/nodes";

impl Running {
    fn start() -> Self {
        let api = Arc::new(Api::default());
        let server = api.clone();
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move {
                let (code, body) = server.answer(request).await;
                Response::builder().status(code).body(body)
            }
        });
        let client = Client::new(service, "default");
        let configuration = KubeSchedulerConfiguration::default_for("default-scheduler");
        let config = Config { configuration, election: None, serving: None };
        let tasks = Tasks::new();
        tasks.spawn_critical("scheduler", |token| run(config, client, token));
        Self { api, tasks }
    }

    fn node(&self, name: &str) {
        self.api.put(
            NODES,
            &format!("/{name}"),
            json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}}),
        );
    }

    fn pod(&self, name: &str, extra: Value) {
        let mut pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c"}]}, "status": {"phase": "Pending"}});
        merge(&mut pod, extra);
        self.api.put(PODS, &format!("ns/{name}"), pod);
    }

    /// Waits until the pod, if it is there, is so.
    async fn pod_until<T>(&self, name: &str, what: impl Fn(Option<&Value>) -> Option<T>) -> T {
        let key = (PODS.to_owned(), format!("ns/{name}"));
        self.api.until(|objects| what(objects.objects.get(&key))).await
    }

    async fn bound_to(&self, name: &str) -> String {
        self.pod_until(name, |pod| Some(pod?["spec"]["nodeName"].as_str()?.to_owned())).await
    }

    async fn end(self) {
        self.tasks.shut_down().await.expect("the scheduler stops in good order");
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn sized(amount: &str, more: Value) -> Value {
    let mut spec = cpu(amount);
    merge(&mut spec, more);
    json!({"spec": spec})
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_why_and_is_bound_once_a_node_comes() {
    let running = Running::start();
    running.pod("p", sized("1", json!({})));
    let message = running
        .pod_until("p", |pod| Some(condition(pod?, "PodScheduled")?["message"].as_str()?.to_owned()))
        .await;
    assert_eq!(message, "no nodes available to schedule pods");
    running.node("n1");
    assert_eq!(running.bound_to("p").await, "n1");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_more_important_pod_takes_the_place_of_a_less_important_one() {
    let running = Running::start();
    running.node("n1");
    running.pod("low", sized("2", json!({"nodeName": "n1", "priority": 1})));
    running.pod("high", sized("2", json!({"priority": 10})));
    let gone = running.api.until(|objects| objects.deleted.first().cloned()).await;
    assert_eq!(gone["metadata"]["name"], "low");
    let condition = condition(&gone, "DisruptionTarget").expect("a condition");
    assert_eq!(condition["reason"], "PreemptionByScheduler");
    assert_eq!(condition["message"], "default-scheduler: preempting to accommodate a higher priority pod");
    assert_eq!(running.bound_to("high").await, "n1");
    let nominated = running.pod_until("high", |pod| Some(pod?["status"]["nominatedNodeName"].clone())).await;
    assert_eq!(nominated, "n1");
    let writes = running.api.objects.lock().writes.clone();
    let deletes = writes.iter().filter(|write| write.starts_with("DELETE")).count();
    assert_eq!(deletes, 1, "{writes:?}");
    running.end().await;
}

/// A status that somebody else wrote at the same time does not mean that the victim is gone.
#[tokio::test(start_paused = true)]
async fn an_eviction_that_conflicts_is_tried_again() {
    let running = Running::start();
    running.api.objects.lock().refuse_statuses = 1;
    running.node("n1");
    running.pod("low", sized("2", json!({"nodeName": "n1", "priority": 1})));
    running.pod("high", sized("2", json!({"priority": 10})));
    let begun = tokio::time::Instant::now();
    assert_eq!(running.bound_to("high").await, "n1");
    // Not only when everything that waits is tried again, after five minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    assert_eq!(running.api.objects.lock().refuse_statuses, 0);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_binding_failed_is_tried_again() {
    let running = Running::start();
    running.api.objects.lock().refuse_bindings = 1;
    running.node("n1");
    running.pod("p", sized("2", json!({})));
    let reason = running
        .pod_until("p", |pod| Some(condition(pod?, "PodScheduled")?["reason"].as_str()?.to_owned()))
        .await;
    assert_eq!(reason, "SchedulerError");
    assert_eq!(running.bound_to("p").await, "n1", "what was taken for it was given back");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_makes_room() {
    let running = Running::start();
    running.node("n1");
    running.pod("first", sized("2", json!({"nodeName": "n1"})));
    running.pod("second", sized("2", json!({})));
    running.pod_until("second", |pod| condition(pod?, "PodScheduled").map(drop)).await;
    running.api.objects.lock().delete(PODS, "ns/first");
    assert_eq!(running.bound_to("second").await, "n1");
    running.end().await;
}
