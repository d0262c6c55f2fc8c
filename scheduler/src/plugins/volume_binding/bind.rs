//! Keeping what was promised to a pod: its volumes are written down, and waited for.

use std::sync::Arc;
use std::time::Duration;

use client::kube::api::PostParams;
use client::kube::core::NamespaceResourceScope;
use client::{Api, Client, Object, ObjectKey};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use serde::Serialize;

use super::find::Found;
use crate::volumes::matching::{bound_to, is_fully_bound, is_reachable, volume_of};
use crate::volumes::{SELECTED_NODE, Volumes, global};

/// Volumes and claims as they are to become for a pod.
#[derive(Clone)]
pub(super) struct Promise {
    node: Arc<Node>,
    bindings: Vec<(PersistentVolume, ObjectKey)>,
    provisions: Vec<PersistentVolumeClaim>,
}

impl Promise {
    /// From now on nobody else gets these volumes.
    pub(super) fn make(volumes: &Volumes, found: Found, node: Arc<Node>) -> Self {
        let bindings = found.bindings.iter().map(|(volume, claim)| {
            let bound = bound_to(volume, claim);
            volumes.volumes.assume(bound.clone());
            (bound, ObjectKey::of(&**claim))
        });
        let name = node.metadata.name.clone().unwrap_or_default();
        let provisions = found.provisions.iter().map(|claim| {
            let mut claim = PersistentVolumeClaim::clone(claim);
            claim.metadata.annotations.get_or_insert_default().insert(SELECTED_NODE.into(), name.clone());
            volumes.claims.assume(claim.clone());
            claim
        });
        Self { bindings: bindings.collect(), provisions: provisions.collect(), node: node.clone() }
    }

    /// The volumes are free again.
    pub(super) fn take_back(&self, volumes: &Volumes) {
        self.bindings.iter().for_each(|(volume, _)| volumes.volumes.restore(&ObjectKey::of(volume)));
        self.provisions.iter().for_each(|claim| volumes.claims.restore(&ObjectKey::of(claim)));
    }

    /// Writes it down, and waits until all claims are bound.
    pub(super) async fn keep(
        &mut self,
        client: &Client,
        volumes: &Volumes,
        patience: Duration,
    ) -> Result<(), String> {
        for (volume, _) in &mut self.bindings {
            *volume = write(&Api::all(client.clone()), volume).await?;
        }
        for claim in &mut self.provisions {
            let namespace = claim.metadata.namespace.clone().unwrap_or_default();
            *claim = write(&namespaced(client, &namespace), claim).await?;
        }
        let mut changes = volumes.changes.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if self.is_kept(volumes)? {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Err("binding volumes: the scheduler stops".to_owned());
                }
            }
        };
        let late = || Err("binding volumes: context deadline exceeded".to_owned());
        tokio::time::timeout(patience, wait).await.unwrap_or_else(|_| late())
    }

    /// Whether all is as promised. The error says why it will not come to that.
    fn is_kept(&self, volumes: &Volumes) -> Result<bool, String> {
        for (written, claim) in &self.bindings {
            let name = written.metadata.name.as_deref().unwrap_or_default();
            let volume = volumes.volumes.seen.get(&global(name));
            let volume = volume.ok_or_else(|| format!("failed to check binding: pv {name:?} not found"))?;
            let claim = volumes.claims.seen.get(claim);
            let claim = claim.ok_or_else(|| "failed to check binding: pvc not found".to_owned())?;
            if is_newer(written, &*volume) {
                return Ok(false);
            }
            self.reaches(&volume)?;
            let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
            if reference.and_then(|r| r.uid.as_deref()).unwrap_or_default().is_empty() {
                return Err(format!("ClaimRef got reset for pv {name:?}"));
            }
            if !is_fully_bound(&claim) {
                return Ok(false);
            }
        }
        for written in &self.provisions {
            let name = written.metadata.name.as_deref().unwrap_or_default();
            let claim = volumes.claims.seen.get(&ObjectKey::of(written));
            let claim =
                claim.ok_or_else(|| format!("failed to check provisioning pvc: {name:?} not found"))?;
            if is_newer(written, &*claim) {
                return Ok(false);
            }
            let selected = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
            if selected != self.node.metadata.name.as_ref() {
                return Err(format!("provisioning failed for PVC {name:?}"));
            }
            let volume = volumes.volumes.seen.get(&global(volume_of(&claim)));
            match volume.filter(|_| !volume_of(&claim).is_empty()) {
                Some(volume) => self.reaches(&volume)?,
                None => return Ok(false),
            }
            if !is_fully_bound(&claim) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn reaches(&self, volume: &PersistentVolume) -> Result<(), String> {
        if is_reachable(volume, &self.node) {
            return Ok(());
        }
        let (volume, node) = (volume.metadata.name.as_deref(), self.node.metadata.name.as_deref());
        let (volume, node) = (volume.unwrap_or_default(), node.unwrap_or_default());
        Err(format!("pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"))
    }
}

fn is_newer<K: Object>(one: &K, other: &K) -> bool {
    client::object::resource_version(one) > client::object::resource_version(other)
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Object + client::kube::Resource<Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn write<K: Object + Serialize>(api: &Api<K>, object: &K) -> Result<K, String> {
    let name = object.meta().name.clone().unwrap_or_default();
    api.replace(&name, &PostParams::default(), object).await.map_err(|error| client::chain(&error))
}
