//! Which requests a simulation makes, and when, against an API that only writes them down. Time is paused.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::kube::client::Body;
use client::{Client, Tasks};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use simulation::node::{Names, Shape};
use simulation::pod::Durations;
use tokio::sync::Notify;
use tokio::time::Instant;

const NODES: u32 = 4;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// A request: when, method and path, body.
#[derive(Clone, Debug)]
struct Asked {
    at: Duration,
    what: String,
    body: Value,
}

/// The API: everything that is written succeeds and changes nothing; what watches tell the test says.
#[derive(Clone)]
struct Api {
    began: Instant,
    asked: Arc<Mutex<Vec<Asked>>>,
    changed: Arc<Notify>,
    pods: Arc<Vec<Value>>,
    watchers: Arc<Mutex<BTreeMap<String, UnboundedSender<Value>>>>,
    refuses: Arc<AtomicBool>,
}

impl Api {
    fn with(pods: Vec<Value>) -> Self {
        Self {
            began: Instant::now(),
            asked: Arc::default(),
            changed: Arc::default(),
            pods: Arc::new(pods),
            watchers: Arc::default(),
            refuses: Arc::default(),
        }
    }

    fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.serve(request).await) }
        });
        Client::new(service, "default")
    }

    async fn serve(&self, request: http::Request<Body>) -> http::Response<Answer> {
        let path = request.uri().path().to_owned();
        let (method, query) =
            (request.method().clone(), request.uri().query().unwrap_or_default().to_owned());
        let bytes = request.into_body().collect().await.expect("a body").to_bytes();
        let mut body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let answer = if method == http::Method::GET && query.contains("watch=true") {
            let (sender, events) = unbounded();
            self.watchers.lock().insert(path, sender);
            let line = |event: Value| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n"))));
            self.changed.notify_waiters();
            StreamBody::new(events.map(line)).boxed_unsync()
        } else if method == http::Method::GET {
            let items = if path.ends_with("/pods") { (*self.pods).clone() } else { vec![] };
            let list = json!({"kind": "List", "metadata": {"resourceVersion": "100"}, "items": items});
            whole(&list)
        } else {
            let what = format!("{method} {path}");
            self.asked.lock().push(Asked { at: self.began.elapsed(), what, body: body.clone() });
            self.changed.notify_waiters();
            if self.refuses.load(Ordering::Relaxed) {
                return http::Response::builder().status(503).body(whole(&json!({}))).expect("a response");
            }
            body["metadata"]["resourceVersion"] = json!("200");
            if body["metadata"]["uid"].is_null() {
                body["metadata"]["uid"] = json!("uid");
            }
            let nothing = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
            let answer = if method == http::Method::DELETE { nothing } else { without_directives(body) };
            whole(&answer)
        };
        http::Response::builder().header("content-type", "application/json").body(answer).expect("a response")
    }

    /// Waits until the requests are good, and returns them.
    async fn until(&self, is_good: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                let asked = self.asked.lock().clone();
                if is_good(&asked) {
                    return asked;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(3600), waiting).await {
            Ok(asked) => asked,
            Err(_) => panic!("in an hour nothing else: {:#?}", self.asked.lock()),
        }
    }

    /// Tells whoever watches `path`.
    async fn tell(&self, path: &str, kind: &str, object: Value) {
        loop {
            let changed = self.changed.notified();
            if let Some(watcher) = self.watchers.lock().get(path) {
                watcher.unbounded_send(json!({"type": kind, "object": object})).expect("it watches");
                return;
            }
            changed.await;
        }
    }
}

fn whole(value: &Value) -> Answer {
    Full::from(value.to_string()).boxed_unsync()
}

fn without_directives(mut value: Value) -> Value {
    match &mut value {
        Value::Array(list) => {
            list.retain(|item| item.get("$patch").is_none());
            list.iter_mut().for_each(|item| *item = without_directives(item.take()));
        }
        Value::Object(map) => map.values_mut().for_each(|item| *item = without_directives(item.take())),
        _ => {}
    }
    value
}

fn simulate(api: &Api, keep: bool) -> Tasks {
    let shape = Shape {
        cpu: 1,
        memory: 1 << 30,
        ephemeral_storage: 1 << 30,
        max_pods: 10,
        resources: [].into(),
        labels: [].into(),
        zones: 0,
        taints: vec![],
    };
    let durations = Durations { start: Duration::ZERO, run: Duration::ZERO, stop: Duration::ZERO };
    let names = Names { prefix: "sim".into(), count: NODES };
    let config = simulation::Config { names, shape, durations, concurrency: 2, keep };
    let (tasks, client) = (Tasks::new(), api.client());
    tasks.spawn_critical("simulation", |token| simulation::run(config, client, token));
    tasks
}

fn count(asked: &[Asked], what: &str) -> usize {
    asked.iter().filter(|asked| asked.what.starts_with(what)).count()
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

#[tokio::test(start_paused = true)]
async fn nodes_register_beat_in_turn_and_leave() {
    let api = Api::with(vec![]);
    let simulation = simulate(&api, false);
    let nodes = NODES as usize;
    let asked = api.until(|asked| count(asked, "PATCH /api/v1/nodes/") == 2 * nodes).await;
    assert_eq!(count(&asked, "POST /api/v1/nodes"), nodes, "each registers once");
    assert_eq!(count(&asked, &format!("POST {LEASES}")), nodes, "each has one lease");
    let owner = asked.iter().find(|asked| asked.what == format!("POST {LEASES}")).expect("a lease");
    assert_eq!(owner.body["metadata"]["ownerReferences"][0]["uid"], "uid");
    // Each at its own place of the interval, and there every time.
    for (prefix, interval, least) in
        [(format!("PATCH {LEASES}/"), 10, 25), ("PATCH /api/v1/nodes/".into(), 300, 2)]
    {
        let mut places = BTreeSet::new();
        for number in 0..NODES {
            let own = format!("{prefix}sim-{number}");
            let at = asked
                .iter()
                .filter(|asked| asked.what.trim_end_matches("/status") == own)
                .map(|asked| asked.at);
            let at: Vec<u128> = at.map(|at| at.as_millis()).collect();
            assert!(at.len() >= least, "{own}: {at:?}");
            let own: BTreeSet<_> = at.iter().map(|at| (at + 100) % (interval * 1000) / 1000).collect();
            assert_eq!(own.len(), 1, "sim-{number} beats at {at:?}");
            places.extend(own);
        }
        assert_eq!(places.len(), nodes, "{prefix}: all at {places:?} s of {interval}");
    }
    simulation.shut_down().await.expect("no failure");
    let last = api.asked.lock().last().cloned().expect("requests");
    assert_eq!(last.what, "DELETE /api/v1/nodes");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_others_give_up_speaks_and_one_they_delete_is_silent() {
    let api = Api::with(vec![]);
    let simulation = simulate(&api, true);
    let nodes = NODES as usize;
    api.until(|asked| count(asked, &format!("POST {LEASES}")) == nodes).await;
    let node = |name: &str, version: u32, status: &str| {
        json!({"kind": "Node", "apiVersion": "v1",
               "metadata": {"name": name, "uid": "uid", "resourceVersion": version.to_string()},
               "status": {"conditions": [{"type": "Ready", "status": status}]}})
    };
    api.tell("/api/v1/nodes", "ADDED", node("sim-1", 300, "Unknown")).await;
    let began = api.began.elapsed();
    let asked = api.until(|asked| count(asked, "PATCH /api/v1/nodes/sim-1/status") == 1).await;
    let answer = asked.last().expect("an answer");
    assert_eq!(answer.at, began, "at once");
    let conditions = answer.body["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    api.tell("/api/v1/nodes", "DELETED", node("sim-1", 301, "True")).await;
    let renewed = |asked: &[Asked], name: &str| count(asked, &format!("PATCH {LEASES}/{name}"));
    api.until(|asked| renewed(asked, "sim-2") == 100).await;
    assert!(renewed(&api.asked.lock(), "sim-1") <= 2, "a machine that was taken away says nothing");
    assert_eq!(count(&api.asked.lock(), "POST /api/v1/nodes"), nodes, "nor does it come back");
    simulation.shut_down().await.expect("no failure");
    assert_eq!(count(&api.asked.lock(), "DELETE"), 0, "they are kept");
}

#[tokio::test(start_paused = true)]
async fn a_server_in_trouble_is_not_asked_more_often() {
    let api = Api::with(vec![]);
    let simulation = simulate(&api, true);
    let nodes = NODES as usize;
    let asked = api.until(|asked| count(asked, &format!("PATCH {LEASES}/")) == 2 * nodes).await;
    let began = asked.last().expect("requests").at;
    api.refuses.store(true, Ordering::Relaxed);
    let asked = api.until(|asked| count(asked, &format!("PATCH {LEASES}/")) == 8 * nodes).await;
    let took = asked.last().expect("requests").at - began;
    assert_eq!(took.as_secs(), 60, "six turns of each node");
    api.refuses.store(false, Ordering::Relaxed);
    api.until(|asked| count(asked, &format!("PATCH {LEASES}/")) == 9 * nodes).await;
    simulation.shut_down().await.expect("no failure");
}

fn pod(name: &str, version: u32, node: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
           "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": version.to_string()},
           "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
           "status": {"phase": "Pending"}})
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_written_once_whatever_old_news_come() {
    let api = Api::with(vec![pod("a", 90, "sim-3"), pod("other", 91, "elsewhere")]);
    let simulation = simulate(&api, true);
    let asked = api.until(|asked| count(asked, "PATCH /api/v1/namespaces/") == 1).await;
    let written =
        asked.iter().find(|asked| asked.what.starts_with("PATCH /api/v1/namespaces/")).expect("a write");
    assert_eq!(written.what, "PATCH /api/v1/namespaces/default/pods/a/status");
    assert_eq!(written.body["metadata"]["uid"], "a");
    assert_eq!(written.body["status"]["phase"], "Running");
    assert_eq!(written.body["status"]["podIP"], "100.64.3.2");
    // The write is version 200: what is older was before it.
    for version in 101..105 {
        api.tell("/api/v1/pods", "MODIFIED", pod("a", version, "sim-3")).await;
    }
    let mut now = pod("a", 200, "sim-3");
    now["status"] = without_directives(written.body["status"].clone());
    api.tell("/api/v1/pods", "MODIFIED", now.clone()).await;
    api.tell("/api/v1/pods", "ADDED", pod("b", 201, "sim-3")).await;
    let asked = api.until(|asked| count(asked, "PATCH /api/v1/namespaces/default/pods/b") == 1).await;
    assert_eq!(asked.last().expect("a write").body["status"]["podIP"], "100.64.3.3");
    assert_eq!(count(&asked, "PATCH /api/v1/namespaces/default/pods/a"), 1);
    // Deleted, it goes at once, and only it.
    now["metadata"]["resourceVersion"] = json!("202");
    now["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    now["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    api.tell("/api/v1/pods", "MODIFIED", now).await;
    let asked = api.until(|asked| count(asked, "DELETE") == 1).await;
    let deleted = asked.last().expect("a deletion");
    assert_eq!(deleted.what, "DELETE /api/v1/namespaces/default/pods/a");
    assert_eq!(deleted.body["gracePeriodSeconds"], 0);
    assert_eq!(deleted.body["preconditions"]["uid"], "a");
    assert_eq!(count(&asked, "PATCH /api/v1/namespaces/default/pods/"), 2);
    simulation.shut_down().await.expect("no failure");
}
