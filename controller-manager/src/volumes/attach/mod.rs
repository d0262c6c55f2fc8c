//! Attaches volumes of CSI drivers to the nodes whose pods need them. As upstream's pkg/controller/volume/attachdetach.
//!
//! The work itself is a driver's: this controller makes and deletes VolumeAttachments, and says in the status of
//! nodes which volumes are attached, for which their kubelets wait. One queue has volumes, another nodes. A volume
//! goes in three steps, each of which the next look finds done: the node has let go (`volumesInUse`), the node is
//! told (`volumesAttached`), the attachment is deleted. A node that is not ready is made to let go after six minutes.
//! Volumes of drivers that need no attaching are left alone, and so are those that were made for plugins of
//! Kubernetes itself.

mod plan;

pub use plan::{csi, unique_name};

use super::claims::{self, pods_by_claim, pods_of};
use crate::common::errors::{self, IgnoreGone};
use crate::common::{meta, pods};
use crate::context::Context;
use client::controller::Action;
use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use client::{Api, Client, EventRecorder, EventType, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use parking_lot::Mutex;
use plan::{Held, Wanted};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const NAME: &str = "persistentvolume-attach-detach-controller";
/// Attachments by their volume, and by their node.
const BY_VOLUME: &str = "volume";
const BY_NODE: &str = "node";
const MAX_WAIT: Duration = Duration::from_mins(6);

#[derive(Clone)]
struct Attacher(Arc<Shared>);

struct Shared {
    client: Client,
    recorder: EventRecorder,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    attachments: Informer<VolumeAttachment>,
    drivers: Informer<CSIDriver>,
    force: bool,
    volume_queue: WorkQueue<ObjectKey>,
    node_queue: WorkQueue<ObjectKey>,
    /// Since when nodes hold volumes that no pod of theirs needs.
    unneeded: Mutex<HashMap<(String, String), Instant>>,
    /// Volumes and nodes of which it was said that another node has the volume.
    refused: Mutex<HashSet<(String, String)>>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let attachments = cx.informer::<VolumeAttachment>();
    attachments.add_index(BY_VOLUME, |attachment| {
        attachment.spec.source.persistent_volume_name.clone().into_iter().collect()
    });
    attachments.add_index(BY_NODE, |attachment| vec![attachment.spec.node_name.clone()]);
    let attacher = Attacher(Arc::new(Shared {
        client: cx.client.clone(),
        recorder: cx.recorder("attachdetach-controller"),
        volumes: cx.informer(),
        claims: cx.informer(),
        pods: pods_by_claim(cx),
        nodes: cx.informer(),
        attachments,
        drivers: cx.informer(),
        force: !cx.config.flags.disable_force_detach_on_timeout,
        volume_queue: WorkQueue::new("attach_detach_volumes"),
        node_queue: WorkQueue::new("attach_detach_nodes"),
        unneeded: Mutex::default(),
        refused: Mutex::default(),
    }));
    attacher.subscribe();
    let of_volumes = attacher.clone();
    cx.work(NAME, attacher.0.volume_queue.clone(), 1, attacher.clone().synced(), move |key| {
        let attacher = of_volumes.clone();
        async move { attacher.volume(key).await }
    });
    cx.work(NAME, attacher.0.node_queue.clone(), 1, attacher.clone().synced(), move |key| {
        let attacher = attacher.clone();
        async move { attacher.node(key).await }
    });
}

impl Attacher {
    async fn synced(self) {
        self.0.volumes.synced().await;
        self.0.claims.synced().await;
        self.0.pods.synced().await;
        self.0.nodes.synced().await;
        self.0.attachments.synced().await;
        self.0.drivers.synced().await;
    }

    fn subscribe(&self) {
        let shared = &self.0;
        let (keys, claims) = (shared.volume_queue.clone(), shared.claims.clone());
        shared.pods.subscribe(move |event| {
            let pod = event.object();
            if pods::node_name(pod).is_empty() {
                return;
            }
            for name in claims::claims_of(pod) {
                let claim = claims.store().get(&ObjectKey::new(meta::namespace(&pod.metadata), name));
                let volume = claim.as_deref().map(claims::volume_name).filter(|name| !name.is_empty());
                volume.into_iter().for_each(|name| keys.add(ObjectKey::new("", name)));
            }
        });
        let keys = shared.volume_queue.clone();
        shared.claims.subscribe(move |event| {
            let name = claims::volume_name(event.object());
            if !name.is_empty() {
                keys.add(ObjectKey::new("", name));
            }
        });
        let keys = shared.volume_queue.clone();
        shared.volumes.subscribe(move |event| {
            if plan::csi(event.object()).is_some() {
                keys.add(meta::key(&event.object().metadata));
            }
        });
        let (keys, nodes) = (shared.volume_queue.clone(), shared.node_queue.clone());
        shared.attachments.subscribe(move |event| {
            let spec = &event.object().spec;
            nodes.add(ObjectKey::new("", spec.node_name.as_str()));
            spec.source
                .persistent_volume_name
                .iter()
                .for_each(|name| keys.add(ObjectKey::new("", name.as_str())));
        });
        let (keys, nodes) = (shared.volume_queue.clone(), shared.node_queue.clone());
        let attachments = shared.attachments.clone();
        shared.nodes.subscribe(move |event| {
            let name = meta::name(&event.object().metadata);
            nodes.add(ObjectKey::new("", name));
            for attachment in attachments.store().indexed(BY_NODE, name) {
                let volume = attachment.spec.source.persistent_volume_name.iter();
                volume.for_each(|name| keys.add(ObjectKey::new("", name.as_str())));
            }
        });
    }

    fn find_node(&self, name: &str) -> Option<Arc<Node>> {
        self.0.nodes.store().get(&ObjectKey::new("", name))
    }

    /// The nodes whose pods need a volume.
    fn wanted(&self, volume: &PersistentVolume) -> Wanted {
        let mut wanted = Wanted::new();
        let Some(reference) = claims::claim_ref(volume) else { return wanted };
        let key = claims::key_of(reference);
        let claim = self.0.claims.store().get(&key);
        let bound = claim.is_some_and(|claim| {
            claims::volume_name(&claim) == meta::name(&volume.metadata)
                && meta::uid(&claim.metadata) == claims::uid_of(reference)
        });
        if !bound {
            return wanted;
        }
        for pod in pods_of(&self.0.pods, &key) {
            let node = pods::node_name(&pod).to_owned();
            let managed = self.find_node(&node).is_some_and(|node| plan::is_managed(&node));
            if managed && !claims::is_terminated(&pod) {
                wanted.entry(node).or_default().push(pod);
            }
        }
        wanted
    }

    /// Whether a driver wants its volumes attached.
    fn attaches(&self, driver: &str) -> bool {
        let driver = self.0.drivers.store().get(&ObjectKey::new("", driver));
        driver.is_none_or(|driver| driver.spec.attach_required.unwrap_or(true))
    }

    /// Whether a node held a volume without need for so long that it may be made to let go.
    fn patience_is_over(&self, volume: &str, node: &str) -> bool {
        let key = (volume.to_owned(), node.to_owned());
        let since = *self.0.unneeded.lock().entry(key).or_insert_with(Instant::now);
        self.0.force && since.elapsed() >= MAX_WAIT
    }

    async fn volume(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let attachments = self.0.attachments.store().indexed(BY_VOLUME, &key.name);
        let Some(volume) = self.0.volumes.store().get(&key) else {
            // Nothing says any more what the attachments were for.
            let goes = |held: &&Arc<VolumeAttachment>| {
                plan::is_named_by_us(held) && !meta::is_deleting(&held.metadata)
            };
            for attachment in attachments.iter().filter(goes) {
                self.detach(meta::name(&attachment.metadata)).await?;
            }
            return Ok(Action::Done);
        };
        let Some((driver, _)) = plan::csi(&volume).filter(|(driver, _)| self.attaches(driver)) else {
            return Ok(Action::Done);
        };
        let wanted = self.wanted(&volume);
        let held = |node: &String| attachments.iter().any(|held| held.spec.node_name == *node);
        let counts = |node: &String| held(node) && !wanted.contains_key(node);
        self.0.unneeded.lock().retain(|(name, node), _| *name != key.name || counts(node));
        let find = |name: &str| self.find_node(name);
        let patience = |node: &str| !wanted.contains_key(node) && self.patience_is_over(&key.name, node);
        let plan = plan::plan(&volume, &wanted, &attachments, find, patience);
        tracing::debug!(driver, ?plan, "looked at a volume");
        self.tell_refused(&key.name, &plan.refused, &wanted);
        self.tell_failed(&volume, &attachments, &wanted);
        for name in &plan.detach {
            self.detach(name).await?;
        }
        for node in &plan.attach {
            let Some(attachment) = plan::attachment(&volume, node) else { continue };
            let api: Api<VolumeAttachment> = Api::all(self.0.client.clone());
            match api.create(&PostParams::default(), &attachment).await {
                Err(error) if !errors::is_already_exists(&error) => return Err(error.into()),
                _ => {}
            }
        }
        for attachment in &attachments {
            self.0.node_queue.add(ObjectKey::new("", attachment.spec.node_name.as_str()));
        }
        Ok(if plan.in_use { Action::RequeueAfter(MAX_WAIT) } else { Action::Done })
    }

    async fn detach(&self, name: &str) -> anyhow::Result<()> {
        let api: Api<VolumeAttachment> = Api::all(self.0.client.clone());
        api.delete(name, &DeleteParams::default()).await.ignore_not_found()?;
        Ok(())
    }

    /// Says once to the pods of each refused node why they wait.
    fn tell_refused(&self, volume: &str, refused: &[String], wanted: &Wanted) {
        let mut told = self.0.refused.lock();
        told.retain(|(name, node)| name != volume || refused.contains(node));
        for node in refused {
            if !told.insert((volume.to_owned(), node.clone())) {
                continue;
            }
            let others: Vec<_> =
                wanted.iter().filter(|(other, _)| *other != node).flat_map(|(_, pods)| pods).collect();
            for pod in wanted.get(node).into_iter().flatten() {
                let message = format!("Multi-Attach error for volume \"{volume}\" {}", used_by(pod, &others));
                self.0.recorder.object_event(&**pod, EventType::Warning, "FailedAttachVolume", message);
            }
        }
    }

    fn tell_failed(&self, volume: &PersistentVolume, attachments: &[Arc<VolumeAttachment>], wanted: &Wanted) {
        for attachment in attachments {
            let status = attachment.status.as_ref().filter(|status| !status.attached);
            let error = status.and_then(|status| status.attach_error.as_ref()?.message.as_deref());
            let Some(error) = error else { continue };
            for pod in wanted.get(&attachment.spec.node_name).into_iter().flatten() {
                let name = meta::name(&volume.metadata);
                let message = format!("AttachVolume.Attach failed for volume \"{name}\" : {error}");
                self.0.recorder.object_event(&**pod, EventType::Warning, "FailedAttachVolume", message);
            }
        }
    }

    /// Brings the list of attached volumes in a node's status up to date.
    async fn node(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(node) = self.find_node(&key.name).filter(|node| plan::is_managed(node)) else {
            return Ok(Action::Done);
        };
        let mut held = Vec::new();
        let mut new = Vec::new();
        for attachment in self.0.attachments.store().indexed(BY_NODE, &key.name) {
            let name = attachment.spec.source.persistent_volume_name.clone().unwrap_or_default();
            let volume = self.0.volumes.store().get(&ObjectKey::new("", name.as_str()));
            let Some(volume) = volume else { continue };
            let Some(unique) = plan::unique_name(&volume) else { continue };
            let wanted = self.wanted(&volume);
            let needed = wanted.contains_key(&key.name);
            let patience = !needed && self.patience_is_over(&name, &key.name);
            let fate = plan::fate(&attachment, &unique, &wanted, Some(&node), patience);
            if needed && !plan::is_reported(&node, &unique) {
                new.push((unique.clone(), name, wanted));
            }
            held.push(Held { attachment, name: unique, fate });
        }
        let report = plan::report(&node, &held);
        if !plan::differs(&node, &report) {
            return Ok(Action::Done);
        }
        let list: Vec<_> = report.iter().map(|name| json!({ "name": name, "devicePath": "" })).collect();
        let patch =
            json!({ "metadata": { "uid": node.metadata.uid }, "status": { "volumesAttached": list } });
        let api: Api<Node> = Api::all(self.0.client.clone());
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        api.patch_status(&key.name, &params, &patch).await.ignore_not_found()?;
        for (unique, volume, wanted) in new.into_iter().filter(|(unique, ..)| report.contains(unique)) {
            tracing::debug!(unique, "attached");
            for pod in wanted.get(&key.name).into_iter().flatten() {
                let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
                self.0.recorder.object_event(&**pod, EventType::Normal, "SuccessfulAttachVolume", message);
            }
        }
        Ok(Action::Done)
    }
}

/// Who has a volume that `pod` waits for, as far as people of its namespace may know.
fn used_by(pod: &Pod, others: &[&Arc<Pod>]) -> String {
    let near = |other: &&&Arc<Pod>| other.metadata.namespace == pod.metadata.namespace;
    let names: Vec<_> = others.iter().filter(near).map(|other| meta::name(&other.metadata)).collect();
    let far = others.len() - names.len();
    match (names.is_empty(), far) {
        (true, 0) => {
            "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
        }
        (true, far) => format!("Volume is already used by {far} pod(s) in different namespaces"),
        (false, 0) => format!("Volume is already used by pod(s) {}", names.join(", ")),
        (false, far) => {
            let names = names.join(", ");
            format!("Volume is already used by pod(s) {names} and {far} pod(s) in different namespaces")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_other_namespaces_are_only_counted() {
        let pod = |namespace: &str, name: &str| -> Arc<Pod> {
            let metadata = json!({ "namespace": namespace, "name": name });
            Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap())
        };
        let (me, near, far) = (pod("a", "me"), pod("a", "near"), pod("b", "far"));
        for (others, expected) in [
            (vec![], "Volume is already exclusively attached to one node and can't be attached to another"),
            (vec![&near], "Volume is already used by pod(s) near"),
            (vec![&far], "Volume is already used by 1 pod(s) in different namespaces"),
            (vec![&near, &far], "Volume is already used by pod(s) near and 1 pod(s) in different namespaces"),
        ] {
            assert_eq!(used_by(&me, &others), expected);
        }
    }
}
