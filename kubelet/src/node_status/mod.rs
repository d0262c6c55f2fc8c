//! The node in the API: registration, status, and the lease.
//!
//! One task registers and then reports: at once when something changed, else every `nodeStatusReportFrequency`.

pub mod lease;
pub mod machine;
pub mod setters;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Api, Client, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::events::{Events, node_reference};
pub use setters::{Facts, Pressure};

const ATTACH_ANNOTATION: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const REGISTER_RETRY: Duration = Duration::from_millis(100);
const REGISTER_RETRY_MAX: Duration = Duration::from_secs(7);
/// Labels the kubelet sets again when somebody changed them.
const DEFAULT_LABELS: [&str; 5] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// How this node registers.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Name of the node.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// Labels on top of the default ones.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Identity at a cloud provider.
    pub provider_id: String,
    /// Volumes are attached by the controller.
    pub controller_attaches: bool,
}

/// Finds the facts of this moment.
#[async_trait::async_trait]
pub trait FactSource: Send + Sync {
    /// The facts.
    async fn facts(&self) -> Facts;
}

/// Reports the node.
pub struct NodeReporter {
    /// The API.
    pub client: Client,
    /// How the node registers.
    pub registration: Registration,
    /// Where facts come from.
    pub source: Arc<dyn FactSource>,
    /// Events.
    pub events: Events,
    /// Between two looks at the facts.
    pub update: Duration,
    /// Between two reports when nothing changed.
    pub report: Duration,
    /// Register at all, or expect the node to be there.
    pub register: bool,
    /// What the API's node says of devices is of another life of this node.
    pub reset_devices: bool,
    /// Told when the facts may have changed.
    pub poke: Arc<Notify>,
    /// The node as the API has it, from a watch.
    pub current: Box<dyn Fn() -> Option<Arc<Node>> + Send + Sync>,
}

/// The node as it registers, without status.
#[must_use]
pub fn initial_node(registration: &Registration) -> Node {
    let (os, arch) = ("linux".to_owned(), setters::architecture().to_owned());
    let mut labels: BTreeMap<String, String> = DEFAULT_LABELS
        .into_iter()
        .zip([registration.hostname.clone(), os.clone(), arch.clone(), os, arch])
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
    labels.extend(registration.labels.clone());
    let mut node = Node::default();
    node.metadata.name = Some(registration.name.clone());
    node.metadata.labels = Some(labels);
    if registration.controller_attaches {
        node.metadata.annotations = Some(BTreeMap::from([(ATTACH_ANNOTATION.to_owned(), "true".to_owned())]));
    }
    let spec = node.spec.get_or_insert_default();
    spec.taints = (!registration.taints.is_empty()).then(|| registration.taints.clone());
    spec.provider_id = (!registration.provider_id.is_empty()).then(|| registration.provider_id.clone());
    node
}

impl NodeReporter {
    /// Starts reporting.
    pub fn run(self, tasks: &Tasks) {
        tasks.spawn("node-status", |token| async move {
            tokio::select! { () = token.cancelled() => {}, () = self.work() => {} }
        });
    }

    async fn work(&self) {
        let mut node = self.register_until_done().await;
        let mut reported: Option<Instant> = None;
        let mut reset = self.reset_devices;
        loop {
            let facts = self.source.facts().await;
            // The watch may lag behind our own write: the newer of the two is the one to build on.
            let known = match (self.current)() {
                Some(current) if newer(&current, &node) => (*current).clone(),
                _ => node.clone(),
            };
            let mut wanted = known.clone();
            if reset {
                setters::reset_devices(&mut wanted);
            }
            let events = setters::set_status(&mut wanted, &facts, Timestamp::now());
            let status = wanted.status.clone().unwrap_or_default();
            let due = reported.is_none_or(|at| at.elapsed() >= self.report);
            if due || setters::differs(known.status.as_ref(), &status) {
                match self.patch(&status).await {
                    Ok(now) => {
                        node = now;
                        reported = Some(Instant::now());
                        reset = false;
                        self.tell(&events);
                    }
                    Err(error) => {
                        tracing::error!(
                            error = client::chain(&error),
                            "error updating node status, will retry"
                        );
                        if client::is_not_found(&error) {
                            node = self.register_until_done().await;
                        }
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.update) => {}
                () = self.poke.notified() => {}
            }
        }
    }

    fn tell(&self, events: &[setters::NodeEvent]) {
        let about = node_reference(&self.registration.name);
        for event in events {
            let kind = if event.warning { client::EventType::Warning } else { client::EventType::Normal };
            self.events.about(&about, kind, &event.reason, event.message.clone());
        }
    }

    async fn patch(&self, status: &NodeStatus) -> Result<Node, client::kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch_status(
            &self.registration.name,
            &PatchParams::default(),
            &Patch::Strategic(status_patch(status)),
        )
        .await
    }

    async fn register_until_done(&self) -> Node {
        let mut wait = REGISTER_RETRY;
        loop {
            let registered = if self.register { self.register().await } else { self.existing().await };
            match registered {
                Ok(node) => return node,
                Err(error) => {
                    tracing::warn!(
                        node = self.registration.name,
                        error = client::chain(&error),
                        "unable to register node with API server"
                    );
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(REGISTER_RETRY_MAX);
        }
    }

    async fn existing(&self) -> Result<Node, client::kube::Error> {
        Api::<Node>::all(self.client.clone()).get(&self.registration.name).await
    }

    async fn register(&self) -> Result<Node, client::kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let mut wanted = initial_node(&self.registration);
        let facts = self.source.facts().await;
        let events = setters::set_status(&mut wanted, &facts, Timestamp::now());
        match api.create(&PostParams::default(), &wanted).await {
            Ok(node) => {
                tracing::info!(node = self.registration.name, "successfully registered node");
                self.tell(&events);
                Ok(node)
            }
            Err(error) if client::is_already_exists(&error) => {
                let existing = self.existing().await?;
                tracing::info!(node = self.registration.name, "node was previously registered");
                match label_patch(&wanted, &existing) {
                    None => Ok(existing),
                    Some(patch) => {
                        api.patch(&self.registration.name, &PatchParams::default(), &Patch::Merge(patch))
                            .await
                    }
                }
            }
            Err(error) => Err(error),
        }
    }
}

fn newer(a: &Node, b: &Node) -> bool {
    client::object::resource_version(a) > client::object::resource_version(b)
        || a.metadata.uid != b.metadata.uid
}

/// The default labels and the annotation that the node in the API lacks.
fn label_patch(wanted: &Node, existing: &Node) -> Option<Value> {
    let empty = BTreeMap::new();
    let (want, have) =
        (wanted.metadata.labels.as_ref()?, existing.metadata.labels.as_ref().unwrap_or(&empty));
    let labels: BTreeMap<_, _> = DEFAULT_LABELS
        .iter()
        .filter_map(|key| want.get(*key).map(|value| (*key, value)))
        .filter(|(key, value)| have.get(*key) != Some(*value))
        .collect();
    let annotation =
        |node: &Node| node.metadata.annotations.as_ref().and_then(|a| a.get(ATTACH_ANNOTATION).cloned());
    let mut metadata = serde_json::Map::new();
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), json!(labels));
    }
    if annotation(wanted) != annotation(existing) {
        metadata.insert("annotations".to_owned(), json!({ ATTACH_ANNOTATION: annotation(wanted) }));
    }
    (!metadata.is_empty()).then(|| json!({ "metadata": metadata }))
}

/// The patch that brings the API's status to `status`. Maps are merged key by key, so what others add survives.
#[must_use]
pub fn status_patch(status: &NodeStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(Value::Array(addresses)) = value.get_mut("addresses") {
        // Merged by type upstream, though two may have the same: replaced as a whole.
        addresses.push(json!({ "$patch": "replace" }));
    }
    if let Value::Object(map) = &mut value {
        // What is empty is left out, and what is left out would stay.
        map.entry("volumesInUse").or_insert(Value::Null);
    }
    json!({ "status": value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;

    #[test]
    fn a_node_registers_with_labels_and_taints() {
        let node = initial_node(&Registration {
            name: "n1".into(),
            hostname: "n1.example".into(),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            taints: vec![Taint { key: "k".into(), effect: "NoSchedule".into(), ..Taint::default() }],
            provider_id: String::new(),
            controller_attaches: true,
        });
        let labels = node.metadata.labels.clone().expect("set");
        assert_eq!(labels["kubernetes.io/hostname"], "n1.example");
        assert_eq!(labels["kubernetes.io/os"], "linux");
        assert_eq!(labels["zone"], "a");
        assert_eq!(node.spec.and_then(|s| s.taints).map(|t| t.len()), Some(1));
    }

    #[test]
    fn only_default_labels_are_reconciled() {
        let wanted = initial_node(&Registration {
            name: "n".into(),
            hostname: "n".into(),
            labels: BTreeMap::from([("mine".to_owned(), "1".to_owned())]),
            ..Registration::default()
        });
        let mut existing = wanted.clone();
        assert_eq!(label_patch(&wanted, &existing), None);
        existing.metadata.labels =
            Some(BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]));
        let patch = label_patch(&wanted, &existing).expect("differs");
        let labels = patch["metadata"]["labels"].as_object().expect("labels");
        assert!(labels.contains_key("kubernetes.io/hostname"));
        assert!(!labels.contains_key("mine") && !labels.contains_key("kubernetes.io/os"));
    }

    struct Still;

    #[async_trait::async_trait]
    impl FactSource for Still {
        async fn facts(&self) -> Facts {
            Facts { max_pods: 9, ..Facts::default() }
        }
    }

    fn reporter(api: &FakeApi, poke: &Arc<Notify>) -> NodeReporter {
        NodeReporter {
            client: api.client(),
            registration: Registration {
                name: "n1".into(),
                hostname: "n1".into(),
                ..Registration::default()
            },
            source: Arc::new(Still),
            events: Events::new(crate::events::testing::Recorded::default()),
            update: Duration::from_secs(10),
            report: Duration::from_secs(300),
            register: true,
            reset_devices: false,
            poke: poke.clone(),
            current: Box::new(|| None),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_registers_until_it_can_and_then_reports_rarely() {
        let (api, poke, tasks) = (FakeApi::default(), Arc::new(Notify::new()), Tasks::new());
        api.refuse(503, "ServiceUnavailable");
        reporter(&api, &poke).run(&tasks);
        let asked = api.asked(3).await;
        let what: Vec<_> = asked.iter().map(|a| a.what.as_str()).collect();
        assert_eq!(what, ["POST /api/v1/nodes", "POST /api/v1/nodes", "PATCH /api/v1/nodes/n1/status"]);
        assert_eq!(asked[1].body["status"]["capacity"]["pods"], "9");
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(api.asked(3).await.len(), 3, "nothing changed");
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(api.asked(4).await.len(), 4);
        tasks.shut_down().await.expect("no failure");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_exists_keeps_what_it_has() {
        let (api, poke, tasks) = (FakeApi::default(), Arc::new(Notify::new()), Tasks::new());
        api.refuse(409, "AlreadyExists");
        let labels: BTreeMap<_, _> =
            initial_node(&Registration { hostname: "n1".into(), ..Registration::default() })
                .metadata
                .labels
                .unwrap_or_default();
        api.answer(
            200,
            json!({
                "metadata": {"name": "n1", "uid": "x", "resourceVersion": "7", "labels": labels},
                "status": {"capacity": {"example.com/dongle": "4"}},
            }),
        );
        reporter(&api, &poke).run(&tasks);
        let asked = api.asked(3).await;
        assert_eq!(asked[1].what, "GET /api/v1/nodes/n1");
        assert_eq!(asked[2].what, "PATCH /api/v1/nodes/n1/status");
        assert_eq!(asked[2].body["status"]["allocatable"]["example.com/dongle"], "4");
        tasks.shut_down().await.expect("no failure");
    }
}
