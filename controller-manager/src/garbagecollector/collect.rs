//! Looks at one suspect: reads it and its owners live, decides, and deletes or lets go.

use super::graph::{Identity, Node};
use super::monitors::Kinds;
use super::{FOREGROUND, ORPHAN, Shared};
use crate::common::errors::{self, IgnoreGone};
use crate::common::meta;
use client::controller::Action;
use client::informer::PartialObject;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use client::kube::core::DynamicObject;
use client::{Api, Client};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

/// The hands of the collector.
pub struct Collector {
    client: Client,
    shared: Shared,
    kinds: Kinds,
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

/// An owner, as it was found.
enum Owner {
    /// That very object does not exist where the reference points.
    Absent,
    /// It exists.
    There(Box<ObjectMeta>),
    /// It would be in a namespace, and the object is in none.
    Impossible,
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
    pub fn new(client: Client, shared: Shared, kinds: Kinds) -> Self {
        Self { client, shared, kinds }
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
        if self.is_nowhere(&node.identity) {
            return Ok(Action::Done);
        }
        let Some(latest) = self.latest(&node.identity).await? else { return self.not_found(&node.identity) };
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

    /// Whether the kind has namespaces and the object, known by name only, none: one that does not live in a namespace
    /// names an owner that does.
    fn is_nowhere(&self, identity: &Identity) -> bool {
        let resource = self.kinds.resource(&identity.api_version, &identity.kind);
        identity.namespace.is_empty() && resource.is_some_and(|resource| resource.namespaced)
    }

    /// The server has no such object. What depends on it keeps a node of it alive, which goes with them.
    fn not_found(&self, identity: &Identity) -> anyhow::Result<Action> {
        let mut again = false;
        self.shared.change(|graph| {
            let (work, other_name) = graph.not_found(identity);
            again = other_name;
            work
        });
        if again {
            anyhow::bail!("{} {} may be what its dependents call otherwise", identity.kind, identity.name);
        }
        Ok(Action::Done)
    }

    async fn collect(
        &self,
        node: &Node,
        metadata: &ObjectMeta,
        references: &[OwnerReference],
    ) -> anyhow::Result<()> {
        let Some(owners) = self.classify(&node.identity, references).await? else { return Ok(()) };
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

    /// The owners, by how they are; `None`: the references are not valid, and not to be acted upon.
    async fn classify(
        &self,
        item: &Identity,
        references: &[OwnerReference],
    ) -> anyhow::Result<Option<Owners>> {
        let mut owners = Owners::default();
        for reference in references {
            match self.owner(item, reference).await? {
                Owner::Impossible => return Ok(None),
                Owner::Absent => owners.dangling.push(reference.clone()),
                Owner::There(owner)
                    if meta::is_deleting(&owner) && meta::has_finalizer(&owner, FOREGROUND) =>
                {
                    owners.waiting.push(reference.clone());
                }
                Owner::There(_) => owners.solid.push(reference.clone()),
            }
        }
        Ok(Some(owners))
    }

    /// The owner, read live.
    async fn owner(&self, item: &Identity, reference: &OwnerReference) -> anyhow::Result<Owner> {
        let mut identity = Identity::of_owner(reference, "");
        let in_namespace = Identity::of_owner(reference, &item.namespace);
        {
            // Before the kind is looked up, which may be gone, too.
            let graph = self.shared.graph.lock();
            if graph.is_absent(&identity) || graph.is_absent(&in_namespace) {
                return Ok(Owner::Absent);
            }
        }
        let Some(resource) = self.kinds.resource(&reference.api_version, &reference.kind) else {
            return Err(unknown(&reference.api_version, &reference.kind));
        };
        if resource.namespaced {
            if item.namespace.is_empty() {
                return Ok(Owner::Impossible);
            }
            identity = in_namespace;
        }
        let owner = self.latest(&identity).await?;
        if owner.is_none() {
            self.shared.graph.lock().remember_absent(identity);
        }
        Ok(owner.map_or(Owner::Absent, |owner| Owner::There(Box::new(owner.metadata))))
    }

    /// Deletes what was read, or nothing: one whose owners have changed is looked at again.
    async fn delete(
        &self,
        identity: &Identity,
        metadata: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> anyhow::Result<()> {
        let Some(api) = self.api(identity) else { return Ok(()) };
        let exactly =
            Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let mut params = DeleteParams {
            preconditions: Some(exactly),
            propagation_policy: Some(policy),
            ..Default::default()
        };
        let mut outcome = api.delete(&identity.name, &params).await;
        if outcome.as_ref().is_err_and(errors::is_conflict)
            && let Some(latest) = self.latest(identity).await?
            && latest.metadata.owner_references == metadata.owner_references
        {
            // It changes all the time; as long as its owners do not, it goes.
            params.preconditions = Some(Preconditions { uid: metadata.uid.clone(), resource_version: None });
            outcome = api.delete(&identity.name, &params).await;
        }
        outcome.ignore_not_found()?;
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
#[path = "collect_tests.rs"]
mod tests;
