//! Writes to the status of pods.

use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::kube::api::{Patch, PatchParams};
use client::{Api, Client};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::pod_info::{namespace, nominated_node};
use crate::preemption::Nomination;

/// A condition to be written.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    fn is_there(&self, pod: &Pod) -> bool {
        api::pod::condition(pod, self.kind).is_some_and(|known| {
            known.status == self.status
                && known.reason.as_deref() == Some(self.reason)
                && known.message.as_deref() == Some(&self.message)
        })
    }

    fn to_json(&self, pod: &Pod) -> Value {
        let known = api::pod::condition(pod, self.kind).filter(|known| known.status == self.status);
        let since = known.and_then(|c| c.last_transition_time.as_ref()).map_or_else(Timestamp::now, |t| t.0);
        json!({"type": self.kind, "status": self.status, "reason": self.reason, "message": self.message,
               "lastTransitionTime": Time(since), "lastProbeTime": null,
               "observedGeneration": pod.metadata.generation})
    }
}

/// Whether the status does not yet say so.
pub(super) fn needs_status(pod: &Pod, condition: Option<&Condition>, nomination: &Nomination) -> bool {
    condition.is_some_and(|condition| !condition.is_there(pod)) || new_node(pod, nomination).is_some()
}

fn new_node<'a>(pod: &Pod, nomination: &'a Nomination) -> Option<&'a str> {
    match nomination {
        Nomination::Set(node) if node != nominated_node(pod) => Some(node),
        _ => None,
    }
}

/// Writes a condition and the nominated node, as far as the status does not yet say so.
pub(super) async fn status(
    client: &Client,
    pod: &Pod,
    condition: Option<&Condition>,
    nomination: &Nomination,
) -> client::kube::Result<()> {
    let mut status = json!({});
    if let Some(condition) = condition.filter(|condition| !condition.is_there(pod)) {
        status["conditions"] = json!([condition.to_json(pod)]);
    }
    if let Some(node) = new_node(pod, nomination) {
        status["nominatedNodeName"] = if node.is_empty() { Value::Null } else { json!(node) };
    }
    if status.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace(pod));
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}
