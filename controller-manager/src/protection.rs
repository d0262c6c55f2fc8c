//! Claims and volumes that are in use are not deleted before their use ends: a finalizer holds them.
//! As upstream's pkg/controller/volume/pvcprotection and pvprotection.

use crate::common::errors::IgnoreGone;
use crate::common::{meta, pods};
use crate::context::{Context, enqueue_all, states};
use client::controller::Action;
use client::kube::api::{ListParams, Patch, PatchParams};
use client::{Api, Client, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
/// Pods by `namespace/claim`.
const BY_CLAIM: &str = "claim";

/// What to do about a finalizer.
#[derive(Debug, PartialEq)]
enum Plan {
    Keep,
    Add,
    Remove,
}

fn plan(metadata: &ObjectMeta, finalizer: &str, in_use: bool) -> Plan {
    match (meta::is_deleting(metadata), meta::has_finalizer(metadata, finalizer)) {
        (false, false) => Plan::Add,
        (true, true) if !in_use => Plan::Remove,
        _ => Plan::Keep,
    }
}

/// The change that adds or removes the finalizer of exactly this state of the object.
fn patch(metadata: &ObjectMeta, finalizer: &str, plan: &Plan) -> Value {
    let mut finalizers = meta::finalizers(metadata).to_vec();
    match plan {
        Plan::Add => finalizers.push(finalizer.to_owned()),
        _ => finalizers.retain(|held| held != finalizer),
    }
    json!({ "metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }})
}

/// The claims that a pod uses; those of ephemeral volumes are named after it.
fn claims_of(pod: &Pod) -> BTreeSet<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(claim.claim_name.clone());
        }
        volume.ephemeral.as_ref().map(|_| format!("{}-{}", meta::name(&pod.metadata), volume.name))
    };
    volumes.iter().filter_map(claim).collect()
}

/// Whether the pod uses its claims: it has a node, and has not ended.
fn uses(pod: &Pod) -> bool {
    !pods::node_name(pod).is_empty() && !pods::is_terminal(pod)
}

/// Starts the protection of claims.
pub fn start_claims(cx: &Context) {
    let (claims, pods) = (cx.informer::<PersistentVolumeClaim>(), cx.pods());
    pods.add_index(BY_CLAIM, |pod| {
        let namespace = meta::namespace(&pod.metadata);
        claims_of(pod).into_iter().map(|claim| format!("{namespace}/{claim}")).collect()
    });
    let queue = WorkQueue::new("pvcprotection");
    enqueue_all(&claims, &queue);
    let keys = queue.clone();
    pods.subscribe(move |event| {
        // Only the end of a use can change anything.
        for pod in
            states(event).into_iter().filter(|pod| !uses(pod) || matches!(event, client::Event::Deleted(_)))
        {
            let namespace = meta::namespace(&pod.metadata);
            claims_of(pod).into_iter().for_each(|claim| keys.add(ObjectKey::new(namespace, claim)));
        }
    });
    let client = cx.client.clone();
    let both = (claims.clone(), pods.clone());
    let synced = async move {
        both.0.synced().await;
        both.1.synced().await;
    };
    cx.work("persistentvolumeclaim-protection-controller", queue, 1, synced, move |key| {
        let (client, claims, pods) = (client.clone(), claims.clone(), pods.clone());
        async move { claim(&client, &claims, &pods, key).await }
    });
}

async fn claim(
    client: &Client,
    claims: &Informer<PersistentVolumeClaim>,
    pods: &Informer<Pod>,
    key: ObjectKey,
) -> anyhow::Result<Action> {
    let Some(claim) = claims.store().get(&key) else { return Ok(Action::Done) };
    let in_use = pods.store().indexed(BY_CLAIM, &key.to_string()).iter().any(|pod| uses(pod));
    let plan = plan(&claim.metadata, CLAIM, in_use);
    if plan == Plan::Remove {
        // A pod may have come that the cache does not show yet.
        let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
        let live = api.list(&ListParams::default()).await?;
        if live.items.iter().any(|pod| uses(pod) && claims_of(pod).contains(&key.name)) {
            return Ok(Action::Done);
        }
    }
    if plan != Plan::Keep {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.namespace);
        let patch = Patch::Merge(patch(&claim.metadata, CLAIM, &plan));
        api.patch(&key.name, &PatchParams::default(), &patch).await.ignore_not_found()?;
    }
    Ok(Action::Done)
}

/// Starts the protection of volumes.
pub fn start_volumes(cx: &Context) {
    let volumes = cx.informer::<PersistentVolume>();
    let queue = WorkQueue::new("pvprotection");
    enqueue_all(&volumes, &queue);
    let (client, synced) = (cx.client.clone(), volumes.clone());
    let synced = async move { synced.synced().await };
    cx.work("persistentvolume-protection-controller", queue, 1, synced, move |key| {
        let (client, volumes) = (client.clone(), volumes.clone());
        async move {
            let Some(volume) = volumes.store().get(&key) else { return Ok(Action::Done) };
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            let plan = plan(&volume.metadata, VOLUME, phase == Some("Bound"));
            if plan != Plan::Keep {
                let api: Api<PersistentVolume> = Api::all(client);
                let patch = Patch::Merge(patch(&volume.metadata, VOLUME, &plan));
                api.patch(&key.name, &PatchParams::default(), &patch).await.ignore_not_found()?;
            }
            Ok(Action::Done)
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn finalizer_stays_while_the_object_is_used() {
        for (deleting, held, in_use, expected) in [
            (false, false, false, Plan::Add),
            (false, true, false, Plan::Keep),
            (true, true, true, Plan::Keep),
            (true, true, false, Plan::Remove),
            (true, false, false, Plan::Keep),
        ] {
            let metadata = ObjectMeta {
                deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
                finalizers: held.then(|| vec![CLAIM.to_owned()]),
                ..Default::default()
            };
            assert_eq!(plan(&metadata, CLAIM, in_use), expected);
        }
    }

    #[test]
    fn other_finalizers_stay() {
        let metadata = ObjectMeta { finalizers: Some(vec!["a".into(), CLAIM.into()]), ..Default::default() };
        assert_eq!(patch(&metadata, CLAIM, &Plan::Remove)["metadata"]["finalizers"], json!(["a"]));
        assert_eq!(patch(&metadata, "b", &Plan::Add)["metadata"]["finalizers"], json!(["a", CLAIM, "b"]));
    }
}
