//! A cluster in memory: the API server, the controllers, and nodes that run pods.

use super::faults::Faults;
use super::server::{self, Log};
use super::store::{Key, Store, text};
use clap::Parser;
use client::Client;
use controller_manager::{Clock, Flags};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The time of day when a cluster begins. It passes as everybody waits.
const BEGIN: &str = "2026-06-01T00:00:00Z";
/// How often nodes say that they live.
const BEAT: Duration = Duration::from_secs(20);

/// Nodes that do nothing and say nothing.
pub type Silent = Arc<Mutex<BTreeSet<String>>>;

/// A cluster with nodes.
pub struct Cluster {
    /// What the API server has.
    pub store: Store,
    /// The writes that were made.
    pub writes: Log,
    /// Ends the controllers.
    pub token: CancellationToken,
    /// Whether the controllers reach the API server.
    pub network: watch::Sender<bool>,
    /// Nodes that do nothing and say nothing.
    pub silent: Silent,
    seed: Option<u64>,
    running: Process,
    nodes: [JoinHandle<()>; 2],
}

/// The key of an object.
pub fn key(group_version: &str, plural: &str, name: &str) -> Key {
    let namespaced = !matches!(
        plural,
        "namespaces"
            | "nodes"
            | "clusterroles"
            | "persistentvolumes"
            | "storageclasses"
            | "volumeattachments"
            | "resourceslices"
    );
    let namespace = if namespaced { "default" } else { "" };
    (group_version.to_owned(), plural.to_owned(), namespace.to_owned(), name.to_owned())
}

impl Cluster {
    /// Starts with these flags beyond the usual, and one node.
    pub async fn start(flags: &'static [&'static str]) -> Self {
        Self::start_with(flags, vec!["n1"], None)
    }

    /// Starts with nodes that take their time, and a network in which things go wrong as the seed has it.
    pub fn start_with(flags: &'static [&'static str], nodes: Vec<&'static str>, seed: Option<u64>) -> Self {
        let store = Store::new(Clock::starting_at(BEGIN.parse().expect("a time")));
        let network = watch::Sender::new(true);
        let (client, writes) = server::connect(&store, seed.map(Faults::new), network.subscribe());
        for name in &nodes {
            let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "labels": {} } });
            store.create(key("v1", "nodes", name), node).expect("a node");
        }
        store
            .create(key("v1", "namespaces", "default"), json!({ "apiVersion": "v1", "kind": "Namespace" }))
            .expect("a namespace");
        let silent = Silent::default();
        // Where nobody looks at it, nobody says it.
        let beats = !flags.iter().any(|flag| flag.contains("-node-lifecycle-controller"));
        let nodes = [
            tokio::spawn(run_node(store.clone(), nodes, seed.map(Faults::new), silent.clone())),
            tokio::spawn(beat(store.clone(), silent.clone(), beats)),
        ];
        let token = CancellationToken::new();
        let running = tokio::spawn(run(client, flags, store.clock, token.clone()));
        Self { store, writes, token, network, silent, seed, running, nodes }
    }

    /// Creates an object as a user would.
    pub fn create(&self, group_version: &str, plural: &str, object: Value) {
        let name = text(&object, "/metadata/name").to_owned();
        let mut object = object;
        object["apiVersion"] = json!(group_version);
        self.store.create(key(group_version, plural, &name), object).expect("it is new");
    }

    /// Changes an object as a user would.
    pub fn change(&self, group_version: &str, plural: &str, name: &str, patch: Value) {
        self.store.patch(&key(group_version, plural, name), "", &patch).expect("it is there");
    }

    /// Deletes an object as a user would.
    pub fn delete(&self, group_version: &str, plural: &str, name: &str, options: Value) {
        self.store.delete(&key(group_version, plural, name), &options).expect("it is there");
    }

    /// An object; null if it is not there.
    pub fn get(&self, group_version: &str, plural: &str, name: &str) -> Value {
        self.store.get(&key(group_version, plural, name)).unwrap_or_default()
    }

    /// The objects of a kind in the namespace `default`.
    pub fn list(&self, group_version: &str, plural: &str) -> Vec<Value> {
        self.store.list(group_version, plural, "default").1
    }

    /// Waits until a condition holds; a day without it is a failure.
    pub async fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut head = self.store.head();
        let waiting = async {
            while !holds(self) {
                head.changed().await.expect("the store lives");
            }
        };
        if tokio::time::timeout(Duration::from_secs(86_400), waiting).await.is_err() {
            panic!("{what} did not happen (seed {:?})\n{}", self.seed, self.state());
        }
    }

    /// What there is in the namespace `default`, and what was written last.
    fn state(&self) -> String {
        let changes = self.store.changes(0);
        let mut latest = BTreeMap::new();
        for change in changes.iter().filter(|change| change.key.2 == "default" && change.key.1 != "events") {
            latest.insert(&change.key, change);
        }
        latest.retain(|_, change| change.kind != "DELETED");
        let objects = latest.into_values().map(|change| format!("{:?}: {}", change.key, change.object));
        let (writes, changed) = (self.writes.lock(), changes.iter().rev().take(20).rev());
        let writes = writes.iter().rev().take(20).rev().cloned();
        let changed = changed.map(|change| format!("{} {} {:?}", change.version, change.kind, change.key));
        let parts = [
            ("objects", objects.collect::<Vec<_>>()),
            ("last writes", writes.collect()),
            ("last changes", changed.collect()),
        ];
        parts.map(|(what, lines)| format!("{what}:\n  {}", lines.join("\n  "))).join("\n")
    }

    /// Nothing is written any more for ten minutes, beyond what is under way.
    pub async fn rests(&self) {
        let mut seen = usize::MAX;
        for _ in 0..100 {
            let now = self.writes.lock().len();
            if now == seen {
                return;
            }
            seen = now;
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        let last: Vec<_> = self.writes.lock().iter().rev().take(5).cloned().collect();
        panic!("writes go on: {last:?}");
    }

    /// Another process of controllers beside, with a network that works; and the log of its writes.
    pub fn another(&self, flags: &'static [&'static str], token: &CancellationToken) -> (Process, Log) {
        let (client, writes) = server::connect(&self.store, None, watch::Sender::new(true).subscribe());
        (tokio::spawn(run(client, flags, self.store.clock, token.clone())), writes)
    }

    /// Stops in good order.
    pub async fn stop(self) {
        self.token.cancel();
        self.running.await.expect("it does not panic").expect("no controller fails");
        self.nodes.iter().for_each(JoinHandle::abort);
    }

    /// Waits until the controllers end by themselves, and ends the nodes; what the controllers ended with.
    pub async fn ended(self) -> anyhow::Result<()> {
        let outcome = self.running.await.expect("it does not panic");
        self.nodes.iter().for_each(JoinHandle::abort);
        outcome
    }
}

/// A process of controllers.
pub type Process = JoinHandle<anyhow::Result<()>>;

/// Runs the controllers.
async fn run(
    client: Client,
    flags: &'static [&'static str],
    clock: Clock,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let usual = ["kube-controller-manager"];
    let served = flags.iter().any(|flag| flag.starts_with("--secure-port="));
    let silent = (!served).then_some(&"--secure-port=0");
    let alone = (!flags.contains(&"--leader-elect=true")).then_some(&"--leader-elect=false");
    let flags =
        Flags::try_parse_from(usual.iter().chain(silent).chain(alone).chain(flags)).expect("flags are valid");
    let mut config = flags.into_config().expect("configuration is valid");
    config.clock = clock;
    if config.flags.use_service_account_credentials {
        config.anonymous = Some(client.clone());
    }
    controller_manager::run(config, client, token).await
}

/// Whether a pod has been told of the claims that were made for it. Until then no scheduler gives it a node.
fn knows_claims(pod: &Value) -> bool {
    let many = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    let claims = pod.pointer("/spec/resourceClaims").and_then(Value::as_array).into_iter().flatten();
    let made = claims.filter(|claim| claim["resourceClaimTemplateName"].is_string()).count();
    many("/status/resourceClaimStatuses") >= made
}

/// Nodes say that they live, by their leases and by their condition.
async fn beat(store: Store, silent: Silent, beats: bool) {
    if !beats {
        return;
    }
    loop {
        for node in store.list("v1", "nodes", "").1 {
            let name = text(&node, "/metadata/name");
            if silent.lock().contains(name) {
                continue;
            }
            let lease = (
                "coordination.k8s.io/v1".to_owned(),
                "leases".to_owned(),
                "kube-node-lease".to_owned(),
                name.to_owned(),
            );
            let spec = json!({ "spec": { "holderIdentity": name, "renewTime": store.now_exactly() } });
            if store.patch(&lease, "", &spec).is_err() {
                let mut new = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease" });
                new["spec"] = spec["spec"].clone();
                store.create(lease, new).expect("it is new");
            }
            let is_ready = |held: &Value| held["type"] == "Ready" && held["status"] == "True";
            let held = node.pointer("/status/conditions").and_then(Value::as_array);
            if !held.is_some_and(|held| held.iter().any(is_ready)) {
                let now = store.now();
                let ready = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": now,
                                    "lastTransitionTime": now });
                let status = json!({ "status": { "conditions": [ready] } });
                store.patch(&key("v1", "nodes", name), "status", &status).expect("it is there");
            }
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Runs every pod: binds it to the first node that lives, makes it ready with an address, and ends it when it is
/// deleted. Pods of jobs succeed, but for some of the image `flaky`; those of the image `stuck` never get ready, and
/// those of the image `long` go on. A slow one takes its time about every step.
pub async fn run_node(store: Store, nodes: Vec<&'static str>, slow: Option<Faults>, silent: Silent) {
    let mut head = store.head();
    let mut address = 0;
    loop {
        let mut left = false;
        let alive = |name: &str| !silent.lock().contains(name);
        for pod in store.list("v1", "pods", "").1 {
            if slow.as_ref().is_some_and(|slow| slow.happens(0.5)) {
                left = true;
                continue;
            }
            let exists = |name: &str| store.get(&key("v1", "nodes", name)).is_some();
            let fits = |name: &str| alive(name) && exists(name);
            let wanted = pod.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0");
            let wanted = wanted.and_then(Value::as_str);
            let node = wanted.or_else(|| nodes.iter().copied().find(|node| fits(node)));
            let on = text(&pod, "/spec/nodeName");
            if on.is_empty() {
                if let Some(node) = node.filter(|node| fits(node)) {
                    bind(&store, &pod, node);
                }
            } else if alive(on)
                && (is_deleted(&pod) || exists(on))
                && drive(&store, &pod, address + 1, slow.as_ref())
            {
                address += 1;
            }
        }
        match slow.as_ref().filter(|_| left) {
            Some(slow) => tokio::time::sleep(slow.delay(2000)).await,
            None if head.changed().await.is_err() => return,
            None => {}
        }
    }
}

fn key_of(pod: &Value) -> Key {
    let part = |pointer: &str| text(pod, pointer).to_owned();
    ("v1".to_owned(), "pods".to_owned(), part("/metadata/namespace"), part("/metadata/name"))
}

fn is_deleted(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// As the scheduler would, once the pod knows its claims.
fn bind(store: &Store, pod: &Value, node: &str) {
    if text(pod, "/status/phase") == "Pending" && !is_deleted(pod) && knows_claims(pod) {
        let _ = store.patch(&key_of(pod), "", &json!({ "spec": { "nodeName": node } }));
    }
}

/// Takes the next step in the life of a pod, as the kubelet would; whether it got the address.
fn drive(store: &Store, pod: &Value, address: usize, slow: Option<&Faults>) -> bool {
    let key = key_of(pod);
    if is_deleted(pod) {
        if pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            let _ = store.delete(&key, &json!({ "gracePeriodSeconds": 0 }));
        }
        return false;
    }
    let ready = |now: &str| json!([{ "type": "Ready", "status": "True", "lastTransitionTime": now }]);
    if text(pod, "/status/phase") == "Running" && text(pod, "/status/conditions/0/status") == "False" {
        // Somebody thought the node was gone.
        let conditions = json!({ "status": { "conditions": ready(&store.now()) } });
        let _ = store.patch(&key, "status", &conditions);
        return false;
    }
    let image = text(pod, "/spec/containers/0/image");
    let job = text(pod, "/metadata/ownerReferences/0/kind") == "Job" && image != "long";
    if job && text(pod, "/status/phase") == "Running" {
        // It was nobody's when it began.
        let _ = store.patch(&key, "status", &json!({ "status": { "phase": "Succeeded" } }));
        return false;
    }
    if text(pod, "/status/phase") != "Pending" || image == "stuck" {
        return false;
    }
    let now = store.now();
    let status = if job && image == "flaky" && slow.is_some_and(|slow| slow.happens(0.4)) {
        let ended = json!({ "terminated": { "exitCode": 1, "finishedAt": now } });
        json!({ "phase": "Failed", "containerStatuses": [{ "name": "c", "state": ended }] })
    } else if job {
        json!({ "phase": "Succeeded" })
    } else {
        json!({
            "phase": "Running", "startTime": now,
            "podIPs": [{ "ip": format!("10.1.{}.{}", address / 250, address % 250 + 1) }],
            "conditions": ready(&now),
        })
    };
    let _ = store.patch(&key, "status", &json!({ "status": status }));
    true
}
