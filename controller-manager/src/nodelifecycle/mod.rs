//! Watches whether nodes still beat, and taints those that do not.
//!
//! `health.rs` decides when silence is too long, `taints.rs` which taints a node should have, `zones.rs` how fast
//! nodes may be given up when many fail at once. As upstream's pkg/controller/nodelifecycle; heartbeats set timers
//! instead of a periodic look at all nodes.

mod health;
mod taints;
mod zones;

use crate::clock::Clock;
use crate::common::errors::IgnoreGone;
use crate::common::{batch, conditions, meta, nodes, pods};
use crate::context::{Context, NODE_INDEX};
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Api, Client, Event, Informer, ObjectKey, Selection, WorkQueue, kube};
use health::{Health, Verdict};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use zones::Zones;

struct Controller {
    client: Client,
    clock: Clock,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: EventRecorder,
    queue: WorkQueue<ObjectKey>,
    health: Arc<Mutex<HashMap<String, Health>>>,
    zones: Mutex<Zones>,
    grace: health::Grace,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (nodes, pods) = (cx.informer::<Node>(), cx.pods());
    let of_nodes = Selection { namespace: Some("kube-node-lease".to_owned()), ..Default::default() };
    let leases = cx.informers.informer_selected::<Lease>(of_nodes);
    let queue = WorkQueue::new("node_lifecycle_controller");
    let health: Arc<Mutex<HashMap<String, Health>>> = Arc::default();
    let flags = &cx.config.flags;
    let recorder = cx.recorder("node-controller");
    follow_nodes(&nodes, &queue, &health, &recorder, cx.config.clock);
    follow_leases(&leases, &health, cx.config.clock);
    follow_pods(&pods, &nodes, &queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder,
        queue: queue.clone(),
        health,
        zones: Mutex::new(Zones::new(zones::Limits {
            rate: flags.node_eviction_rate,
            secondary_rate: flags.secondary_node_eviction_rate,
            large_cluster: flags.large_cluster_size_threshold,
            unhealthy: flags.unhealthy_zone_threshold,
        })),
        grace: health::Grace {
            running: flags.node_monitor_grace_period,
            starting: flags.node_startup_grace_period,
        },
        nodes: nodes.clone(),
        pods: pods.clone(),
    });
    let synced = async move {
        nodes.synced().await;
        leases.synced().await;
        pods.synced().await;
    };
    cx.work("node-lifecycle-controller", queue, 8, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn follow_nodes(
    nodes: &Informer<Node>,
    queue: &WorkQueue<ObjectKey>,
    health: &Arc<Mutex<HashMap<String, Health>>>,
    recorder: &EventRecorder,
    clock: Clock,
) {
    let (queue, health, recorder) = (queue.clone(), health.clone(), recorder.clone());
    nodes.subscribe(move |event| {
        let node = event.object();
        let name = meta::name(&node.metadata);
        match event {
            Event::Added(_) => {
                health.lock().entry(name.to_owned()).or_default().observe_node(node, clock.now());
                node_event(
                    &recorder,
                    node,
                    "RegisteredNode",
                    &format!("Registered Node {name} in Controller"),
                );
            }
            Event::Updated { old, new } => {
                health.lock().entry(name.to_owned()).or_default().observe_node(new, clock.now());
                if taints::decide_alike(old, new) {
                    return;
                }
            }
            Event::Deleted(_) => {
                health.lock().remove(name);
                node_event(&recorder, node, "RemovingNode", &format!("Removing Node {name} from Controller"));
            }
        }
        queue.add(meta::key(&node.metadata));
    });
}

fn follow_leases(leases: &Informer<Lease>, health: &Arc<Mutex<HashMap<String, Health>>>, clock: Clock) {
    let health = health.clone();
    leases.subscribe(move |event| {
        if let Event::Added(lease) | Event::Updated { new: lease, .. } = event {
            let mut health = health.lock();
            health
                .entry(meta::name(&lease.metadata).to_owned())
                .or_default()
                .observe_lease(lease, clock.now());
        }
    });
}

/// A pod that is bound to a node that does not answer is not ready, whatever it says.
fn follow_pods(pods: &Informer<Pod>, nodes: &Informer<Node>, queue: &WorkQueue<ObjectKey>) {
    let (nodes, queue) = (nodes.clone(), queue.clone());
    pods.subscribe(move |event| {
        let (Event::Added(pod) | Event::Updated { new: pod, .. }) = event else { return };
        if !pods::is_ready(pod) {
            return;
        }
        let key = ObjectKey::new("", pods::node_name(pod));
        let silent =
            nodes.store().get(&key).is_some_and(|node| nodes::condition(&node, "Ready") == Some("Unknown"));
        if silent {
            queue.add(key);
        }
    });
}

fn node_event(recorder: &EventRecorder, node: &Node, reason: &str, what: &str) {
    let name = meta::name(&node.metadata);
    recorder.event(&reference(node), EventType::Normal, reason, format!("Node {name} event: {what}"));
}

fn reference(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        ..Default::default()
    }
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(node) = self.nodes.store().get(&key) else { return Ok(Action::Done) };
        let now = self.clock.now();
        let state = self.health.lock().entry(key.name.clone()).or_default().clone();
        let verdict = health::judge(&node, &state, self.grace, now);
        let (node, next_look) = match verdict {
            Verdict::Beats { look_after } => (node, Some(look_after)),
            Verdict::Known => (node, None),
            Verdict::Silent(changed) => {
                let api: Api<Node> = Api::all(self.client.clone());
                let written = api.replace_status(&key.name, &PostParams::default(), &changed).await?;
                if nodes::condition(&node, "Ready") == Some("True") {
                    let message = format!("Node {} status is now: NodeNotReady", key.name);
                    self.recorder.event(&reference(&node), EventType::Normal, "NodeNotReady", message);
                }
                (Arc::new(written), None)
            }
        };
        if nodes::condition(&node, "Ready") == Some("Unknown") {
            self.mark_pods(&key.name, now).await?;
        }
        let wait = self.taint(&node, now).await?;
        self.relabel(&node).await?;
        Ok([next_look, wait].into_iter().flatten().min().map_or(Action::Done, Action::RequeueAfter))
    }

    /// Gives the node the taints that its conditions call for.
    async fn taint(&self, node: &Node, now: Timestamp) -> anyhow::Result<Option<std::time::Duration>> {
        let all = self.nodes.store().list();
        let permit = {
            let mut zones = self.zones.lock();
            if zones.update(&all) {
                // The rules changed for everybody.
                if zones.recovered() {
                    self.health.lock().values_mut().for_each(|health| health.restart(now));
                }
                all.iter().for_each(|node| self.queue.add(meta::key(&node.metadata)));
            }
            zones.permit(node, now)
        };
        let plan = taints::plan(node, permit.evict(), now);
        if let Some(taints) = plan {
            let patch = Patch::Merge(json!({
                "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
                "spec": { "taints": taints },
            }));
            let api: Api<Node> = Api::all(self.client.clone());
            let patched = api.patch(meta::name(&node.metadata), &PatchParams::default(), &patch).await;
            patched.ignore_not_found()?;
        }
        Ok(permit.wait())
    }

    async fn mark_pods(&self, node: &str, now: Timestamp) -> Result<(), kube::Error> {
        let pods = self.pods.store().indexed(NODE_INDEX, node).into_iter().filter(|pod| pods::is_ready(pod));
        batch::all_at_once(pods, async |pod: Arc<Pod>| {
            let mut changed = Pod::clone(&pod);
            if let Some(list) = changed.status.as_mut().and_then(|status| status.conditions.as_mut())
                && let Some(ready) = list.iter_mut().find(|condition| condition.type_ == "Ready")
            {
                ready.status = "False".to_owned();
                ready.last_transition_time = conditions::time(now);
            }
            let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace(&pod.metadata));
            let written =
                api.replace_status(meta::name(&pod.metadata), &PostParams::default(), &changed).await;
            if written.ignore_not_found()?.is_some() {
                self.recorder.object_event(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
            }
            Ok(())
        })
        .await
    }

    /// The old names of the labels for system and architecture follow the new ones.
    async fn relabel(&self, node: &Node) -> Result<(), kube::Error> {
        let mut labels = serde_json::Map::new();
        for name in ["os", "arch"] {
            let old = format!("beta.kubernetes.io/{name}");
            let Some(value) = meta::label(&node.metadata, &format!("kubernetes.io/{name}")) else { continue };
            if meta::label(&node.metadata, &old) != Some(value) {
                labels.insert(old, json!(value));
            }
        }
        if labels.is_empty() {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let api: Api<Node> = Api::all(self.client.clone());
        let patched = api.patch(meta::name(&node.metadata), &PatchParams::default(), &patch).await;
        patched.ignore_not_found().map(drop)
    }
}

/// A moment as conditions and taints hold it.
fn time(at: Timestamp) -> Option<Time> {
    Some(Time(at))
}
