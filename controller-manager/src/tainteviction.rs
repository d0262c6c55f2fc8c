//! Evicts pods from nodes with NoExecute taints that they do not tolerate, or no longer.
//! As upstream's pkg/controller/tainteviction.

use crate::clock::Clock;
use crate::common::disruption::{self, Reason};
use crate::common::errors::IgnoreGone;
use crate::common::{meta, nodes, pods};
use crate::context::{Context, NODE_INDEX};
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{DeleteParams, Preconditions};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Taint, Toleration};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const REASON: Reason =
    Reason { reason: "DeletionByTaintManager", message: "Taint manager: deleting due to NoExecute taint" };

struct Controller {
    client: Client,
    clock: Clock,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    recorder: EventRecorder,
    /// Since when each pod is to be evicted.
    scheduled: Mutex<HashMap<ObjectKey, (String, Instant)>>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (pods, nodes) = (cx.pods(), cx.informer::<Node>());
    let queue = WorkQueue::new("noexec_taint_pod");
    let keys = queue.clone();
    pods.subscribe(move |event| {
        let matters = match event {
            Event::Updated { old, new } => {
                pods::node_name(old) != pods::node_name(new) || tolerations(old) != tolerations(new)
            }
            _ => true,
        };
        if matters && !pods::node_name(event.object()).is_empty() {
            keys.add(meta::key(&event.object().metadata));
        }
    });
    let (keys, on_node) = (queue.clone(), pods.clone());
    nodes.subscribe(move |event| {
        let changed = match event {
            Event::Updated { old, new } => no_execute(old) != no_execute(new),
            Event::Added(node) => !no_execute(node).is_empty(),
            Event::Deleted(_) => false,
        };
        if changed {
            for pod in on_node.store().indexed(NODE_INDEX, meta::name(&event.object().metadata)) {
                keys.add(meta::key(&pod.metadata));
            }
        }
    });
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder: cx.recorder("taint-eviction-controller"),
        scheduled: Mutex::default(),
        pods: pods.clone(),
        nodes: nodes.clone(),
    });
    let synced = async move {
        pods.synced().await;
        nodes.synced().await;
    };
    cx.work("taint-eviction-controller", queue, 8, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

fn no_execute(node: &Node) -> Vec<&Taint> {
    nodes::taints(node).iter().filter(|taint| taint.effect == "NoExecute").collect()
}

/// For how long a pod may stay.
#[derive(Debug, PartialEq)]
enum Stay {
    Forever,
    For(Duration),
}

fn stay(taints: &[&Taint], tolerations: &[Toleration]) -> Stay {
    let mut shortest = None;
    for taint in taints {
        let mut covering = tolerations.iter().filter(|toleration| nodes::tolerates(toleration, taint));
        let Some(toleration) = covering.next() else { return Stay::For(Duration::ZERO) };
        if let Some(seconds) = toleration.toleration_seconds {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            shortest = Some(shortest.map_or(seconds, |other: u64| other.min(seconds)));
        }
    }
    shortest.map_or(Stay::Forever, |seconds| Stay::For(Duration::from_secs(seconds)))
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(pod) = self.pods.store().get(&key).filter(|pod| !meta::is_deleting(&pod.metadata)) else {
            self.scheduled.lock().remove(&key);
            return Ok(Action::Done);
        };
        let node = self.nodes.store().get(&ObjectKey::new("", pods::node_name(&pod)));
        let Some(node) = node else { return Ok(Action::Done) };
        let stay = stay(&no_execute(&node), tolerations(&pod));
        let Stay::For(time) = stay else {
            if self.scheduled.lock().remove(&key).is_some() {
                self.say(&key, &pod, "Cancelling deletion of Pod");
            }
            return Ok(Action::Done);
        };
        let uid = meta::uid(&pod.metadata).to_owned();
        let since = {
            let mut scheduled = self.scheduled.lock();
            let entry = scheduled.entry(key.clone()).or_insert_with(|| (uid.clone(), Instant::now()));
            if entry.0 != uid {
                *entry = (uid, Instant::now());
            }
            entry.1
        };
        let waited = since.elapsed();
        let left = time.saturating_sub(waited);
        if !left.is_zero() {
            return Ok(Action::RequeueAfter(left));
        }
        self.evict(&key, &pod, waited - time).await
    }

    /// Deletes a pod whose time ended so long ago.
    async fn evict(&self, key: &ObjectKey, pod: &Pod, late: Duration) -> anyhow::Result<Action> {
        self.say(key, pod, "Marking for deletion Pod");
        if disruption::mark(&self.client, pod, Some(REASON), false, self.clock.now()).await? {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
            if api.delete(&key.name, &params).await.ignore_gone()?.is_some() {
                metrics::counter!("taint_eviction_controller_pod_deletions_total").increment(1);
                metrics::histogram!("taint_eviction_controller_pod_deletion_duration_seconds")
                    .record(late.as_secs_f64());
            }
        }
        self.scheduled.lock().remove(key);
        Ok(Action::Done)
    }

    fn say(&self, key: &ObjectKey, pod: &Pod, what: &str) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            ..Default::default()
        };
        self.recorder.event(&about, EventType::Normal, "TaintManagerEviction", format!("{what} {key}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_toleration_counts() {
        let taint = |key: &str| Taint { key: key.into(), effect: "NoExecute".into(), ..Default::default() };
        let toleration = |key: &str, seconds| Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Default::default()
        };
        let seconds = |seconds| Stay::For(Duration::from_secs(seconds));
        let (a, b) = (taint("a"), taint("b"));
        for (taints, tolerations, expected) in [
            (vec![], vec![], Stay::Forever),
            (vec![&a], vec![], seconds(0)),
            (vec![&a], vec![toleration("a", None)], Stay::Forever),
            (vec![&a], vec![toleration("a", Some(300))], seconds(300)),
            (vec![&a], vec![toleration("a", Some(-1))], seconds(0)),
            (vec![&a, &b], vec![toleration("a", Some(300)), toleration("b", Some(20))], seconds(20)),
            (vec![&a, &b], vec![toleration("a", Some(300))], seconds(0)),
        ] {
            assert_eq!(stay(&taints, &tolerations), expected);
        }
    }
}
