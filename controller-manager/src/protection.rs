//! Claims and volumes that are in use are not deleted before their use ends: a finalizer holds them.
//! As upstream's pkg/controller/volume/pvcprotection and pvprotection.

use crate::common::errors::IgnoreGone;
use crate::common::{meta, pods};
use crate::context::{Context, enqueue_all, states};
use crate::volumes::claims::{claims_of, pods_by_claim, pods_of};
use client::controller::Action;
use client::kube::Resource;
use client::kube::api::{ListParams, PostParams};
use client::{Api, Client, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";
/// Claims and volumes by the attributes classes they name.
const BY_CLASS: &str = "attributes class";

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

/// The object as it is meant to be, with the finalizer or without it.
fn settled<K: Resource + Clone>(object: &K, finalizer: &str, plan: &Plan) -> K {
    let mut object = object.clone();
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    match plan {
        Plan::Add => finalizers.push(finalizer.to_owned()),
        _ => finalizers.retain(|held| held != finalizer),
    }
    object
}

/// Whether the pod uses its claims: it has a node, and has not ended.
fn uses(pod: &Pod) -> bool {
    !pods::node_name(pod).is_empty() && !pods::is_terminal(pod)
}

/// Starts the protection of claims.
pub fn start_claims(cx: &Context) {
    let (claims, pods) = (cx.informer::<PersistentVolumeClaim>(), pods_by_claim(cx));
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
    let in_use = pods_of(pods, &key).iter().any(|pod| uses(pod));
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
        let claim = settled(&*claim, CLAIM, &plan);
        api.replace(&key.name, &PostParams::default(), &claim).await.ignore_not_found()?;
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
                let volume = settled(&*volume, VOLUME, &plan);
                api.replace(&key.name, &PostParams::default(), &volume).await.ignore_not_found()?;
            }
            Ok(Action::Done)
        }
    });
}

/// The attributes classes that a claim names: wants, has, or is on its way to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> BTreeSet<String> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let target = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = target.and_then(|modify| modify.target_volume_attributes_class_name.clone());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn classes_of_volume(volume: &PersistentVolume) -> BTreeSet<String> {
    let name = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    name.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Adds the classes that an event leaves unused by its object.
fn released<K>(event: &client::Event<K>, classes: fn(&K) -> BTreeSet<String>, queue: &WorkQueue<ObjectKey>) {
    let names = match event {
        client::Event::Added(_) => return,
        client::Event::Updated { old, new } => &classes(old) - &classes(new),
        client::Event::Deleted(last) => classes(last),
    };
    names.into_iter().for_each(|name| queue.add(ObjectKey::new("", name)));
}

/// Starts the protection of volume attributes classes, which claims and volumes use. As upstream's
/// pkg/controller/volume/vacprotection.
pub fn start_attributes_classes(cx: &Context) {
    let classes = cx.informer::<VolumeAttributesClass>();
    let (claims, volumes) = (cx.informer::<PersistentVolumeClaim>(), cx.informer::<PersistentVolume>());
    claims.add_index(BY_CLASS, |claim| classes_of_claim(claim).into_iter().collect());
    volumes.add_index(BY_CLASS, |volume| classes_of_volume(volume).into_iter().collect());
    let queue = WorkQueue::new("vacprotection");
    enqueue_all(&classes, &queue);
    let keys = queue.clone();
    claims.subscribe(move |event| released(event, classes_of_claim, &keys));
    let keys = queue.clone();
    volumes.subscribe(move |event| released(event, classes_of_volume, &keys));
    let client = cx.client.clone();
    let all = (classes.clone(), claims.clone(), volumes.clone());
    let synced = async move {
        all.0.synced().await;
        all.1.synced().await;
        all.2.synced().await;
    };
    cx.work("volumeattributesclass-protection-controller", queue, 1, synced, move |key| {
        let (client, classes, claims, volumes) =
            (client.clone(), classes.clone(), claims.clone(), volumes.clone());
        async move {
            let Some(class) = classes.store().get(&key) else { return Ok(Action::Done) };
            let in_use = !volumes.store().indexed(BY_CLASS, &key.name).is_empty()
                || !claims.store().indexed(BY_CLASS, &key.name).is_empty();
            let plan = plan(&class.metadata, CLASS, in_use);
            if plan != Plan::Keep {
                let api: Api<VolumeAttributesClass> = Api::all(client);
                let class = settled(&*class, CLASS, &plan);
                api.replace(&key.name, &PostParams::default(), &class).await.ignore_not_found()?;
            }
            Ok(Action::Done)
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

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
    fn claims_name_classes_that_they_want_have_and_move_to() {
        let claim = |wanted: Value, status: Value| -> PersistentVolumeClaim {
            serde_json::from_value(
                json!({"metadata": {"name": "a"}, "spec": {"volumeAttributesClassName": wanted},
                                          "status": status}),
            )
            .unwrap()
        };
        let moving = json!({"currentVolumeAttributesClassName": "b",
                            "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "c"}});
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(classes_of_claim(&claim(json!("a"), moving.clone())), names(&["a", "b", "c"]));
        assert_eq!(classes_of_claim(&claim(json!(""), json!({}))), names(&[]));
        let queue = WorkQueue::new("test");
        let (old, new) = (claim(json!("a"), moving), claim(json!("b"), json!({})));
        released(&client::Event::Updated { old: old.into(), new: new.into() }, classes_of_claim, &queue);
        assert_eq!(queue.len(), 2, "what is named no more may be free");
    }

    #[test]
    fn other_finalizers_stay() {
        let metadata = ObjectMeta { finalizers: Some(vec!["a".into(), CLAIM.into()]), ..Default::default() };
        let claim = PersistentVolumeClaim { metadata, ..Default::default() };
        let finalizers =
            |plan: Plan, name: &str| meta::finalizers(&settled(&claim, name, &plan).metadata).to_vec();
        assert_eq!(finalizers(Plan::Remove, CLAIM), ["a"]);
        assert_eq!(finalizers(Plan::Add, "b"), ["a", CLAIM, "b"]);
    }
}
