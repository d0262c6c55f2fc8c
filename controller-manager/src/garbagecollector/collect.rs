//! Looks at one suspect: reads it and its owners live, decides, and deletes or lets go.

use super::graph::{Identity, Node};
use super::monitors::Kinds;
use super::{FOREGROUND, ORPHAN, Shared};
use crate::common::errors::IgnoreGone;
use crate::common::meta;
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::informer::PartialObject;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use client::kube::core::DynamicObject;
use client::{Api, Client};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

/// The hands of the collector.
pub struct Collector {
    client: Client,
    shared: Shared,
    kinds: Kinds,
    recorder: EventRecorder,
}

/// The owners of an object, by how they are.
#[derive(Debug, Default)]
struct Owners {
    /// There and staying, or going without waiting for dependents.
    solid: Vec<OwnerReference>,
    /// Not there.
    dangling: Vec<OwnerReference>,
    /// Waiting for this object to go.
    waiting: Vec<OwnerReference>,
}

/// What becomes of an object.
#[derive(Debug, PartialEq)]
enum Verdict {
    Keep,
    /// It stays, without the references to these UIDs.
    Unlink(Vec<String>),
    /// It goes, its own dependents before it; in a cycle its references must first stop blocking.
    Foreground {
        unblock: bool,
    },
    Delete(PropagationPolicy),
}

fn verdict(owners: &Owners, has_dependents: bool, in_cycle: bool, metadata: &ObjectMeta) -> Verdict {
    if !owners.solid.is_empty() {
        let gone: Vec<_> =
            owners.dangling.iter().chain(&owners.waiting).map(|owner| owner.uid.clone()).collect();
        return if gone.is_empty() { Verdict::Keep } else { Verdict::Unlink(gone) };
    }
    if owners.dangling.is_empty() && owners.waiting.is_empty() {
        return Verdict::Keep;
    }
    if !owners.waiting.is_empty() && has_dependents {
        return Verdict::Foreground { unblock: in_cycle };
    }
    // A wish that the object already carries is honoured.
    Verdict::Delete(if meta::has_finalizer(metadata, ORPHAN) {
        PropagationPolicy::Orphan
    } else if meta::has_finalizer(metadata, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

impl Collector {
    /// A collector over the shared graph.
    pub fn new(client: Client, shared: Shared, kinds: Kinds, recorder: EventRecorder) -> Self {
        Self { client, shared, kinds, recorder }
    }

    fn api(&self, identity: &Identity) -> Option<Api<DynamicObject>> {
        let resource = self.kinds.resource(&identity.api_version, &identity.kind)?;
        let client = self.client.clone();
        Some(if resource.namespaced {
            Api::namespaced_with(client, &identity.namespace, &resource.api)
        } else {
            Api::all_with(client, &resource.api)
        })
    }

    /// The object as the server has it now; `None` when it is gone or another one.
    async fn latest(&self, identity: &Identity) -> anyhow::Result<Option<PartialObject>> {
        let api = self.api(identity).ok_or_else(|| unknown(&identity.api_version, &identity.kind))?;
        let found = api.get_metadata_opt(&identity.name).await?;
        Ok(found.filter(|object| meta::uid(&object.metadata) == identity.uid))
    }

    /// Deletes the object if none of its owners is left, or goes on with its deletion.
    pub async fn attempt_to_delete(&self, uid: &str) -> anyhow::Result<Action> {
        let Some(node) = self.shared.graph.lock().node(uid).cloned() else { return Ok(Action::Done) };
        if node.deleting && !node.deleting_dependents {
            return Ok(Action::Done);
        }
        let Some(latest) = self.latest(&node.identity).await? else {
            self.shared.change(|graph| graph.forget(uid));
            // What depends on it keeps a virtual node alive; it goes with them.
            return Ok(Action::Done);
        };
        if node.deleting_dependents {
            self.finish_foreground(&node, &latest.metadata).await?;
            return Ok(Action::Done);
        }
        let references = latest.metadata.owner_references.clone().unwrap_or_default();
        if !references.is_empty() {
            self.collect(&node, &latest.metadata, &references).await?;
        }
        if !node.observed {
            // Its kind is not watched (yet): look again later, for nobody will tell.
            anyhow::bail!("{} {} was not seen by a watch yet", node.identity.kind, node.identity.name);
        }
        Ok(Action::Done)
    }

    async fn collect(
        &self,
        node: &Node,
        metadata: &ObjectMeta,
        references: &[OwnerReference],
    ) -> anyhow::Result<()> {
        let owners = self.classify(&node.identity, references).await?;
        let (has_dependents, in_cycle) = {
            let graph = self.shared.graph.lock();
            let dependents = graph.dependents(&node.identity.uid);
            (!dependents.is_empty(), dependents.iter().any(|dependent| dependent.deleting_dependents))
        };
        match verdict(&owners, has_dependents, in_cycle, metadata) {
            Verdict::Keep => Ok(()),
            Verdict::Unlink(uids) => self.unlink(&node.identity, metadata, &uids).await,
            Verdict::Foreground { unblock } => {
                let metadata =
                    if unblock { self.unblock(&node.identity, metadata).await? } else { metadata.clone() };
                self.delete(&node.identity, &metadata, PropagationPolicy::Foreground).await
            }
            Verdict::Delete(policy) => self.delete(&node.identity, metadata, policy).await,
        }
    }

    async fn classify(&self, item: &Identity, references: &[OwnerReference]) -> anyhow::Result<Owners> {
        let mut owners = Owners::default();
        for reference in references {
            match self.owner(item, reference).await? {
                None => owners.dangling.push(reference.clone()),
                Some(owner) if meta::is_deleting(&owner) && meta::has_finalizer(&owner, FOREGROUND) => {
                    owners.waiting.push(reference.clone());
                }
                Some(_) => owners.solid.push(reference.clone()),
            }
        }
        Ok(owners)
    }

    /// The owner's metadata, read live; `None` when that very object does not exist where the reference points.
    async fn owner(&self, item: &Identity, reference: &OwnerReference) -> anyhow::Result<Option<ObjectMeta>> {
        let Some(resource) = self.kinds.resource(&reference.api_version, &reference.kind) else {
            return Err(unknown(&reference.api_version, &reference.kind));
        };
        if resource.namespaced && item.namespace.is_empty() {
            // Not valid, and not to be acted upon: the owner counts as there.
            self.invalid_namespace(item, reference);
            return Ok(Some(ObjectMeta::default()));
        }
        let identity = Identity {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            namespace: if resource.namespaced { item.namespace.clone() } else { String::new() },
            name: reference.name.clone(),
            uid: reference.uid.clone(),
        };
        if self.shared.graph.lock().is_absent(&identity) {
            return Ok(None);
        }
        let owner = self.latest(&identity).await?;
        if owner.is_none() {
            self.shared.graph.lock().remember_absent(identity);
        }
        Ok(owner.map(|owner| owner.metadata))
    }

    fn invalid_namespace(&self, item: &Identity, reference: &OwnerReference) {
        let about = ObjectReference {
            api_version: Some(item.api_version.clone()),
            kind: Some(item.kind.clone()),
            name: Some(item.name.clone()),
            uid: Some(item.uid.clone()),
            ..Default::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            reference.api_version,
            reference.kind,
            item.namespace,
            reference.name,
            reference.uid,
            item.namespace
        );
        self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    /// Deletes exactly what was read, or nothing: a conflict is looked at again.
    async fn delete(
        &self,
        identity: &Identity,
        metadata: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> anyhow::Result<()> {
        let Some(api) = self.api(identity) else { return Ok(()) };
        let exactly =
            Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let params = DeleteParams {
            preconditions: Some(exactly),
            propagation_policy: Some(policy),
            ..Default::default()
        };
        api.delete(&identity.name, &params).await.ignore_not_found()?;
        tracing::debug!(
            kind = identity.kind,
            namespace = identity.namespace,
            name = identity.name,
            "collected"
        );
        Ok(())
    }

    async fn patch(
        &self,
        identity: &Identity,
        metadata: serde_json::Value,
    ) -> anyhow::Result<Option<ObjectMeta>> {
        let Some(api) = self.api(identity) else { return Ok(None) };
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched =
            api.patch_metadata(&identity.name, &PatchParams::default(), &patch).await.ignore_not_found()?;
        Ok(patched.map(|object| object.metadata))
    }

    async fn unlink(
        &self,
        identity: &Identity,
        metadata: &ObjectMeta,
        uids: &[String],
    ) -> anyhow::Result<()> {
        let references = metadata.owner_references.iter().flatten();
        let left: Vec<_> = references.filter(|reference| !uids.contains(&reference.uid)).collect();
        let change = json!({
            "uid": identity.uid,
            "resourceVersion": metadata.resource_version,
            "ownerReferences": left,
        });
        self.patch(identity, change).await.map(drop)
    }

    async fn unblock(&self, identity: &Identity, metadata: &ObjectMeta) -> anyhow::Result<ObjectMeta> {
        let mut references = metadata.owner_references.clone().unwrap_or_default();
        references.iter_mut().for_each(|reference| reference.block_owner_deletion = Some(false));
        let change = json!({
            "uid": identity.uid,
            "resourceVersion": metadata.resource_version,
            "ownerReferences": references,
        });
        Ok(self.patch(identity, change).await?.unwrap_or_else(|| metadata.clone()))
    }

    async fn remove_finalizer(
        &self,
        identity: &Identity,
        metadata: &ObjectMeta,
        finalizer: &str,
    ) -> anyhow::Result<()> {
        if !meta::has_finalizer(metadata, finalizer) {
            return Ok(());
        }
        let left: Vec<_> = meta::finalizers(metadata).iter().filter(|held| *held != finalizer).collect();
        let change = json!({ "resourceVersion": metadata.resource_version, "finalizers": left });
        self.patch(identity, change).await.map(drop)
    }

    /// An owner in foreground deletion goes when nothing blocks it; until then its dependents are looked at.
    async fn finish_foreground(&self, node: &Node, metadata: &ObjectMeta) -> anyhow::Result<()> {
        let blocking: Vec<_> = {
            let graph = self.shared.graph.lock();
            graph.blocking_dependents(&node.identity.uid).into_iter().cloned().collect()
        };
        if blocking.is_empty() {
            return self.remove_finalizer(&node.identity, metadata, FOREGROUND).await;
        }
        for dependent in blocking.iter().filter(|dependent| !dependent.deleting_dependents) {
            self.shared.to_delete.add(client::ObjectKey::new("", dependent.identity.uid.as_str()));
        }
        Ok(())
    }

    /// Takes the object's reference off all its dependents, then lets it go.
    pub async fn attempt_to_orphan(&self, uid: &str) -> anyhow::Result<()> {
        let (owner, dependents) = {
            let graph = self.shared.graph.lock();
            let Some(owner) = graph.node(uid) else { return Ok(()) };
            let dependents: Vec<_> =
                graph.dependents(uid).into_iter().map(|node| node.identity.clone()).collect();
            (owner.identity.clone(), dependents)
        };
        let uids = [uid.to_owned()];
        try_join_all(dependents.iter().map(|dependent| async {
            match self.latest(dependent).await? {
                Some(latest) => self.unlink(dependent, &latest.metadata, &uids).await,
                None => Ok(()),
            }
        }))
        .await?;
        match self.latest(&owner).await? {
            Some(latest) => self.remove_finalizer(&owner, &latest.metadata, ORPHAN).await,
            None => Ok(()),
        }
    }
}

fn unknown(api_version: &str, kind: &str) -> anyhow::Error {
    anyhow::anyhow!("unable to get REST mapping for {api_version}/{kind}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(count: usize) -> Vec<OwnerReference> {
        (0..count).map(|i| OwnerReference { uid: format!("u{i}"), ..Default::default() }).collect()
    }

    #[test]
    fn verdicts() {
        let delete = |policy| Verdict::Delete(policy);
        for (solid, dangling, waiting, dependents, cycle, finalizer, expected) in [
            (1, 0, 0, false, false, "", Verdict::Keep),
            (1, 1, 0, false, false, "", Verdict::Unlink(vec!["u0".into()])),
            (1, 0, 1, true, false, "", Verdict::Unlink(vec!["u0".into()])),
            (0, 0, 0, false, false, "", Verdict::Keep),
            (0, 1, 0, true, false, "", delete(PropagationPolicy::Background)),
            (0, 1, 1, true, false, "", Verdict::Foreground { unblock: false }),
            (0, 0, 1, true, true, "", Verdict::Foreground { unblock: true }),
            (0, 0, 1, false, false, "", delete(PropagationPolicy::Background)),
            (0, 1, 0, false, false, ORPHAN, delete(PropagationPolicy::Orphan)),
            (0, 1, 0, false, false, FOREGROUND, delete(PropagationPolicy::Foreground)),
        ] {
            let owners = Owners {
                solid: references(solid),
                dangling: references(dangling),
                waiting: references(waiting),
            };
            let metadata = ObjectMeta { finalizers: Some(vec![finalizer.to_owned()]), ..Default::default() };
            assert_eq!(
                verdict(&owners, dependents, cycle, &metadata),
                expected,
                "{solid} {dangling} {waiting}"
            );
        }
    }
}
