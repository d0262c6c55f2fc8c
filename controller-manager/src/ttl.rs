//! Tells kubelets for how long they may keep Secrets and ConfigMaps: longer in large clusters.
//! As upstream's pkg/controller/ttl.

use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::Context;
use client::controller::Action;
use client::kube::api::{Patch, PatchParams};
use client::{Api, Event, WorkQueue};
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;

const TTL: &str = "node.alpha.kubernetes.io/ttl";

/// From how many nodes on, up to how many, and the seconds for a cluster in between. The ranges overlap, so that a
/// cluster at a border does not change back and forth.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

fn step(mut at: usize, nodes: usize) -> usize {
    while nodes > STEPS[at].1 {
        at += 1;
    }
    while at > 0 && nodes < STEPS[at].0 {
        at -= 1;
    }
    at
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let nodes = cx.informer::<Node>();
    let queue = WorkQueue::new("ttlcontroller");
    let at: Arc<Mutex<usize>> = Arc::default();
    let (all, keys, current) = (nodes.clone(), queue.clone(), at.clone());
    nodes.subscribe(move |event| {
        if !matches!(event, Event::Updated { .. }) {
            let mut at = current.lock();
            let before = *at;
            *at = step(before, all.store().len());
            if *at != before {
                all.store().list().iter().for_each(|node| keys.add(meta::key(&node.metadata)));
            }
        }
        keys.add(meta::key(&event.object().metadata));
    });
    let (client, synced) = (cx.client.clone(), nodes.clone());
    let synced = async move { synced.synced().await };
    cx.work("ttl-controller", queue, 5, synced, move |key| {
        let (client, nodes) = (client.clone(), nodes.clone());
        let seconds = STEPS[*at.lock()].2.to_string();
        async move {
            let Some(node) = nodes.store().get(&key) else { return Ok(Action::Done) };
            if meta::annotation(&node.metadata, TTL) != Some(seconds.as_str()) {
                let api: Api<Node> = Api::all(client);
                let patch = Patch::Merge(json!({ "metadata": { "annotations": { TTL: seconds } } }));
                api.patch(&key.name, &PatchParams::default(), &patch).await.ignore_not_found()?;
            }
            Ok(Action::Done)
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        for (at, nodes, expected) in
            [(0, 1, 0), (0, 100, 0), (0, 101, 1), (1, 95, 1), (1, 89, 0), (0, 5000, 4), (4, 10, 0)]
        {
            assert_eq!(step(at, nodes), expected, "{nodes} nodes from step {at}");
        }
    }
}
