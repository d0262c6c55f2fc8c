//! Removes pods that nobody else can: too many that ended, those of nodes that are gone, and those that were deleted
//! before they had a node. As upstream's pkg/controller/podgc, but driven by events instead of a scan.

use crate::clock::Clock;
use crate::common::disruption::{self, Reason};
use crate::common::errors::IgnoreGone;
use crate::common::{batch, meta, nodes, pods};
use crate::context::{Context, NODE_INDEX};
use client::controller::Action;
use client::kube::api::{DeleteParams, Preconditions};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue, kube};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For how long a node may be missing before its pods go.
const QUARANTINE: Duration = Duration::from_secs(40);
const NODE_GONE: Reason = Reason { reason: "DeletionByPodGC", message: "PodGC: node no longer exists" };
/// The key that stands for all ended pods.
const ENDED: &str = "*";

struct Controller {
    client: Client,
    clock: Clock,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    threshold: usize,
    missing: Mutex<HashMap<String, Instant>>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (pods, nodes) = (cx.pods(), cx.informer::<Node>());
    let threshold = usize::try_from(cx.config.flags.terminated_pod_gc_threshold).unwrap_or(0);
    let queue = WorkQueue::new("podgc");
    enqueue_pods(&pods, &nodes, &queue);
    enqueue_for_nodes(&nodes, &pods, &queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        threshold,
        missing: Mutex::default(),
        pods: pods.clone(),
        nodes: nodes.clone(),
    });
    let synced = async move {
        pods.synced().await;
        nodes.synced().await;
    };
    cx.work("pod-garbage-collector-controller", queue, 2, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn enqueue_pods(pods: &Informer<Pod>, nodes: &Informer<Node>, queue: &WorkQueue<ObjectKey>) {
    let (nodes, queue) = (nodes.clone(), queue.clone());
    pods.subscribe(move |event| {
        let (Event::Added(pod) | Event::Updated { new: pod, .. }) = event else { return };
        let node = pods::node_name(pod);
        let ended = |pod: &Pod| is_ended(pod);
        let newly_ended = match event {
            Event::Updated { old, .. } => ended(pod) && !ended(old),
            _ => ended(pod),
        };
        if newly_ended {
            queue.add(ObjectKey::new("", ENDED));
        }
        let missing = !node.is_empty() && nodes.store().get(&ObjectKey::new("", node)).is_none();
        if missing || meta::is_deleting(&pod.metadata) {
            queue.add(meta::key(&pod.metadata));
        }
    });
}

/// The pods of a node that goes, or goes out of service, are looked at.
fn enqueue_for_nodes(nodes: &Informer<Node>, pods: &Informer<Pod>, queue: &WorkQueue<ObjectKey>) {
    let (pods, queue) = (pods.clone(), queue.clone());
    nodes.subscribe(move |event| {
        let node = event.object();
        if matches!(event, Event::Deleted(_)) || is_out_of_service(node) {
            for pod in pods.store().indexed(NODE_INDEX, meta::name(&node.metadata)) {
                queue.add(meta::key(&pod.metadata));
            }
        }
    });
}

fn is_ended(pod: &Pod) -> bool {
    !matches!(pods::phase(pod), "" | "Pending" | "Running" | "Unknown")
}

fn is_out_of_service(node: &Node) -> bool {
    nodes::condition(node, "Ready") != Some("True")
        && nodes::taints(node).iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service")
}

/// What becomes of one pod.
#[derive(Debug, PartialEq)]
enum Verdict {
    Keep,
    /// It goes at once.
    Delete,
    /// It goes if its node stays away.
    Orphaned,
}

fn judge(pod: &Pod, node: Option<&Node>) -> Verdict {
    let deleting = meta::is_deleting(&pod.metadata);
    match (pods::node_name(pod), node) {
        ("", _) if deleting => Verdict::Delete,
        ("", _) => Verdict::Keep,
        (_, None) => Verdict::Orphaned,
        (_, Some(node)) if deleting && is_out_of_service(node) => Verdict::Delete,
        _ => Verdict::Keep,
    }
}

/// Of more ended pods than may be, those to delete: evicted ones first, then the oldest.
fn surplus(mut ended: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    let count = ended.len().saturating_sub(threshold);
    if threshold == 0 || count == 0 {
        return Vec::new();
    }
    let evicted = |pod: &Pod| {
        let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
        pods::phase(pod) == "Failed" && reason == Some("Evicted")
    };
    ended.sort_by_key(|pod| {
        (!evicted(pod), meta::created_at(&pod.metadata), meta::name(&pod.metadata).to_owned())
    });
    ended.truncate(count);
    ended
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        if key.name == ENDED && key.namespace.is_empty() {
            if self.threshold > 0 && self.pods.store().len() > self.threshold {
                let ended = self.pods.store().list().into_iter().filter(|pod| is_ended(pod)).collect();
                let surplus = surplus(ended, self.threshold);
                batch::all_at_once(surplus, async |pod: Arc<Pod>| self.force_delete(&pod, None).await)
                    .await?;
            }
            return Ok(Action::Done);
        }
        let Some(pod) = self.pods.store().get(&key) else { return Ok(Action::Done) };
        let node_key = ObjectKey::new("", pods::node_name(&pod));
        let node = self.nodes.store().get(&node_key);
        if node.is_some() {
            self.missing.lock().remove(&node_key.name);
        }
        match judge(&pod, node.as_deref()) {
            Verdict::Keep => Ok(Action::Done),
            Verdict::Delete => {
                self.force_delete(&pod, None).await?;
                Ok(Action::Done)
            }
            Verdict::Orphaned => {
                let since = *self.missing.lock().entry(node_key.name.clone()).or_insert_with(Instant::now);
                let left = QUARANTINE.saturating_sub(since.elapsed());
                if !left.is_zero() {
                    return Ok(Action::RequeueAfter(left));
                }
                let api: Api<Node> = Api::all(self.client.clone());
                if api.get_opt(&node_key.name).await?.is_none() {
                    self.force_delete(&pod, Some(NODE_GONE)).await?;
                }
                Ok(Action::Done)
            }
        }
    }

    /// Says that the pod failed, unless it ended by itself, and deletes it without grace.
    async fn force_delete(&self, pod: &Pod, reason: Option<Reason>) -> Result<(), kube::Error> {
        if !pods::is_terminal(pod) {
            disruption::mark(&self.client, pod, reason, true, self.clock.now()).await?;
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace(&pod.metadata));
        let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(exactly),
            ..Default::default()
        };
        api.delete(meta::name(&pod.metadata), &params).await.ignore_gone().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::core::v1::{NodeSpec, Taint};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn verdicts() {
        let taint = Taint {
            key: "node.kubernetes.io/out-of-service".into(),
            effect: "NoExecute".into(),
            ..Default::default()
        };
        let spec = NodeSpec { taints: Some(vec![taint]), ..Default::default() };
        let broken = Node { spec: Some(spec), ..Default::default() };
        let fine = Node::default();
        for (bound, deleting, node, expected) in [
            ("", false, None, Verdict::Keep),
            ("", true, None, Verdict::Delete),
            ("n", false, None, Verdict::Orphaned),
            ("n", true, None, Verdict::Orphaned),
            ("n", true, Some(&fine), Verdict::Keep),
            ("n", true, Some(&broken), Verdict::Delete),
            ("n", false, Some(&broken), Verdict::Keep),
        ] {
            let mut pod = pod("p", bound, "Running", None);
            pod.metadata.deletion_timestamp = deleting.then(|| Time(at(1)));
            assert_eq!(judge(&pod, node), expected, "{bound} {deleting}");
        }
    }

    #[test]
    fn oldest_ended_pods_go_and_evicted_ones_before_them() {
        let made = |name: &str, second, evicted: bool| {
            let mut pod = pod(name, "n", "Failed", None);
            pod.metadata.creation_timestamp = Some(Time(at(second)));
            if let Some(status) = &mut pod.status {
                status.reason = evicted.then(|| "Evicted".into());
            }
            Arc::new(pod)
        };
        let ended = vec![made("new", 9, false), made("old", 1, false), made("evicted", 8, true)];
        let names = |threshold| -> Vec<String> {
            let gone = surplus(ended.clone(), threshold);
            gone.iter().map(|pod| meta::name(&pod.metadata).to_owned()).collect()
        };
        assert_eq!(names(1), ["evicted", "old"]);
        assert_eq!(names(3), Vec::<String>::new());
        assert_eq!(names(0), Vec::<String>::new());
    }
}
