//! The scheduler at work: informers feed the cache and the queue, one task decides, binds go their own way.

use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::serving::{self, Health};
use client::{Api, Client, Event, EventRecorder, EventType, SharedInformerFactory, Tasks};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cache::Cache;
use crate::flags::Config;
use crate::framework::{ClusterEvent, FitError, Framework};
use crate::node_info::PodInfo;
use crate::queue::{Queue, Waiting};

/// How many binds may be on their way at once.
const BINDS: usize = 256;
const BIND_PATIENCE: Duration = Duration::from_secs(30);

/// Runs until `token` is cancelled.
///
/// # Errors
/// The serving address cannot be bound, or leadership was lost.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    if let Some(address) = config.serving {
        tasks.spawn_critical("serving", |token| serving::serve(address, Health::new(), token));
    }
    tasks.spawn_critical("scheduler", |token| async move {
        match config.election.clone() {
            None => lead(config, client, token).await,
            Some(election) => {
                election
                    .run(client.clone(), token, |leading| async move {
                        if let Err(error) = lead(config, client, leading).await {
                            warn!(error = %format!("{error:#}"), "scheduling ended");
                        }
                    })
                    .await?;
                Ok(())
            }
        }
    });
    Ok(tasks.wait().await?)
}

/// Schedules while we lead.
async fn lead(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    let factory = SharedInformerFactory::new(client.clone(), &tasks);
    let recorder = EventRecorder::new(client.clone(), &config.scheduler_name, "", &tasks);
    let shared = Arc::new(Shared {
        name: config.scheduler_name,
        framework: Framework::default(),
        state: Mutex::default(),
        changed: Notify::new(),
        client,
        recorder,
        binds: Arc::new(Semaphore::new(BINDS)),
    });
    watch(&factory, &shared);
    if factory.wait_for_sync(&token).await {
        info!("scheduling");
        schedule_all(&shared, &tasks, &token).await;
    }
    Ok(tasks.shut_down().await?)
}

#[derive(Default)]
struct State {
    cache: Cache,
    queue: Queue,
}

struct Shared {
    name: String,
    framework: Framework,
    state: Mutex<State>,
    /// Something may have become ready to be tried.
    changed: Notify,
    client: Client,
    recorder: EventRecorder,
    binds: Arc<Semaphore>,
}

fn watch(factory: &SharedInformerFactory, shared: &Arc<Shared>) {
    let to = shared.clone();
    factory.informer::<Node>().subscribe(move |event| to.node_changed(event));
    let to = shared.clone();
    factory.informer::<Namespace>().subscribe(move |event| to.namespace_changed(event));
    let to = shared.clone();
    factory.informer::<Pod>().subscribe(move |event| to.pod_changed(event));
}

fn is_assigned(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty())
}

impl Shared {
    /// Tells the queue what happened.
    fn happened(&self, state: &mut State, event: ClusterEvent) {
        state.queue.happened(self.framework.interested_in(event), Instant::now());
        self.changed.notify_one();
    }

    fn node_changed(&self, event: &Event<Node>) {
        let state = &mut *self.state.lock();
        match event {
            Event::Added(node) => {
                state.cache.set_node(node.clone());
                self.happened(state, ClusterEvent::NodeAdded);
            }
            Event::Updated { old, new } => {
                state.cache.set_node(new.clone());
                for event in node_events(old, new) {
                    self.happened(state, event);
                }
            }
            Event::Deleted(node) => {
                state.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default())
            }
        }
    }

    fn namespace_changed(&self, event: &Event<Namespace>) {
        let object = event.object();
        let name = object.metadata.name.clone().unwrap_or_default();
        let labels = match event {
            Event::Deleted(_) => None,
            _ => Some(object.metadata.labels.clone().unwrap_or_default()),
        };
        let relabelled = match event {
            Event::Updated { old, new } => old.metadata.labels != new.metadata.labels,
            _ => true,
        };
        if relabelled {
            let state = &mut *self.state.lock();
            state.cache.set_namespace(&name, labels);
            self.happened(state, ClusterEvent::Namespace);
        }
    }

    fn pod_changed(&self, event: &Event<Pod>) {
        let pod = event.object();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let state = &mut *self.state.lock();
        let gone = matches!(event, Event::Deleted(_)) || api::pod::is_terminal(pod);
        if gone {
            state.queue.remove(&uid);
            if state.cache.has_pod(&uid) {
                state.cache.remove_pod(&uid);
                self.happened(state, ClusterEvent::PodRemoved);
            }
        } else if is_assigned(pod) {
            let new_there = !matches!(event, Event::Updated { old, .. } if is_assigned(old));
            let relabelled =
                matches!(event, Event::Updated { old, new } if old.metadata.labels != new.metadata.labels);
            state.queue.remove(&uid);
            state.cache.set_pod(pod.clone());
            if new_there {
                self.happened(state, ClusterEvent::PodAssigned);
            }
            if relabelled {
                self.happened(state, ClusterEvent::PodLabels);
            }
            if matches!(event, Event::Updated { old, new } if needs_less(old, new)) {
                self.happened(state, ClusterEvent::PodRemoved);
            }
        } else if self.is_ours(pod) && !state.cache.has_pod(&uid) {
            self.pod_waits(state, event);
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let wanted =
            pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        wanted == self.name && pod.metadata.deletion_timestamp.is_none()
    }

    fn pod_waits(&self, state: &mut State, event: &Event<Pod>) {
        // A change of status (our own condition, above all) is no reason to try again.
        let matters = match event {
            Event::Updated { old, new } => old.spec != new.spec || old.metadata.labels != new.metadata.labels,
            _ => true,
        };
        let info = Arc::new(PodInfo::new(event.object().clone()));
        if matters || !state.queue.contains(info.uid()) {
            let gated = self.framework.pre_enqueue(&info).is_err();
            state.queue.set(info, gated);
            self.changed.notify_one();
        }
    }
}

/// What about a node has changed for the better, or at all.
fn node_events(old: &Node, new: &Node) -> Vec<ClusterEvent> {
    let mut events = vec![];
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    let taints = |n: &Node| n.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
    if allocatable(old) != allocatable(new) {
        events.push(ClusterEvent::NodeAllocatable);
    }
    if old.metadata.labels != new.metadata.labels {
        events.push(ClusterEvent::NodeLabels);
    }
    if taints(old) != taints(new) {
        events.push(ClusterEvent::NodeTaints);
    }
    events
}

fn needs_less(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec && {
        use crate::resources::Resources;
        let (before, after) = (Resources::requested_by(old), Resources::requested_by(new));
        after.cpu < before.cpu || after.memory < before.memory
    }
}

async fn schedule_all(shared: &Arc<Shared>, tasks: &Tasks, token: &CancellationToken) {
    let mut start = 0;
    loop {
        let (next, wake) = {
            let mut state = shared.state.lock();
            let next = state.queue.pop(Instant::now());
            let snapshot = next.is_some().then(|| state.cache.snapshot());
            (next.zip(snapshot), state.queue.next_wake())
        };
        let Some((waiting, snapshot)) = next else {
            let asleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = shared.changed.notified() => {}
                () = asleep => {}
            }
            continue;
        };
        if token.is_cancelled() {
            return;
        }
        let started = std::time::Instant::now();
        let outcome = shared.framework.find_node(&waiting.pod, &snapshot, start);
        let seconds = started.elapsed().as_secs_f64();
        metrics::histogram!("scheduler_scheduling_algorithm_duration_seconds").record(seconds);
        match outcome {
            Ok((node, next_start)) => {
                start = next_start % snapshot.nodes.len().max(1);
                place(shared, tasks, waiting, node);
            }
            Err(error) => refuse(shared, tasks, &waiting, error),
        }
        // Deciding is computing only; let informers and binds have their turn.
        tokio::task::yield_now().await;
    }
}

/// Assumes the choice and binds in a task of its own.
fn place(shared: &Arc<Shared>, tasks: &Tasks, waiting: Waiting, node: String) {
    shared.state.lock().cache.assume(&waiting.pod, &node);
    let shared = shared.clone();
    tasks.spawn("bind", |_| async move {
        let bound = match shared.binds.acquire().await {
            Ok(_slot) => {
                tokio::time::timeout(BIND_PATIENCE, bind(&shared.client, &waiting.pod.pod, &node)).await
            }
            Err(_) => return,
        };
        let (name, uid) = (pod_name(&waiting.pod.pod), waiting.pod.uid().to_owned());
        let error = match bound {
            Ok(Ok(())) => {
                debug!(pod = name, node, "bound");
                metrics::counter!("scheduler_schedule_attempts_total", "result" => "scheduled").increment(1);
                let message = format!("Successfully assigned {name} to {node}");
                shared.recorder.object_event(&*waiting.pod.pod, EventType::Normal, "Scheduled", message);
                shared.state.lock().queue.remove(&uid);
                return;
            }
            Ok(Err(error)) if client::is_not_found(&error) => {
                let mut state = shared.state.lock();
                state.cache.forget(&uid);
                state.queue.remove(&uid);
                return;
            }
            Ok(Err(error)) => client::chain(&error),
            Err(_) => "binding took too long".to_owned(),
        };
        warn!(pod = name, node, error, "could not bind, will retry");
        metrics::counter!("scheduler_schedule_attempts_total", "result" => "error").increment(1);
        let state = &mut *shared.state.lock();
        state.cache.forget(&uid);
        state.queue.failed(&uid, Instant::now());
        shared.happened(state, ClusterEvent::PodRemoved);
    });
}

fn pod_name(pod: &Pod) -> String {
    client::ObjectKey::of(pod).to_string()
}

async fn bind(client: &Client, pod: &Pod, node: &str) -> client::kube::Result<()> {
    let (namespace, name) = (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
    );
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.create_subresource::<_, serde_json::Value>("binding", name, &PostParams::default(), &binding)
        .await
        .map(drop)
}

/// Says why the pod fits nowhere, in an event and in its condition, and lets it wait.
fn refuse(shared: &Arc<Shared>, tasks: &Tasks, waiting: &Waiting, error: FitError) {
    let (pod, message) = (waiting.pod.pod.clone(), error.to_string());
    metrics::counter!("scheduler_schedule_attempts_total", "result" => "unschedulable").increment(1);
    debug!(pod = pod_name(&pod), message, "fits nowhere");
    shared.recorder.object_event(&*pod, EventType::Warning, "FailedScheduling", message.clone());
    let plugins = if error.nodes == 0 {
        shared.framework.interested_in(ClusterEvent::NodeAdded)
    } else {
        error.plugins
    };
    shared.state.lock().queue.unschedulable(waiting.pod.uid(), plugins, Instant::now());
    if !says_so(&pod, &message) {
        let client = shared.client.clone();
        tasks.spawn("condition", |_| async move {
            if let Err(error) = write_condition(&client, &pod, &message).await {
                debug!(pod = pod_name(&pod), error = %client::chain(&error), "could not write condition");
            }
        });
    }
}

fn says_so(pod: &Pod, message: &str) -> bool {
    let condition = api::pod::condition(pod, "PodScheduled");
    condition.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message))
}

async fn write_condition(client: &Client, pod: &Pod, message: &str) -> client::kube::Result<()> {
    let (namespace, name) = (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
    );
    let since = api::pod::condition(pod, "PodScheduled").filter(|c| c.status == "False");
    let since = since.and_then(|c| c.last_transition_time.as_ref()).map_or_else(Timestamp::now, |t| t.0);
    let since = client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since);
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": since, "lastProbeTime": null, "observedGeneration": pod.metadata.generation});
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}
