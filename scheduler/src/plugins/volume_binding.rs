//! The volumes of a pod's claims must be reachable from its node. Claims that wait for their pod get a volume, or
//! the order to make one, once the node is chosen (KEP-490).

mod bind;
#[cfg(test)]
mod cases;
mod find;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, ObjectKey};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use parking_lot::Mutex;

use self::bind::Promise;
use self::find::Claims;
use crate::config::args::VolumeBindingArgs;
use crate::framework::{Action, ClusterEvent, Filter, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::Volumes;

const NAME: &str = "VolumeBinding";

/// The plugin.
pub struct VolumeBinding {
    volumes: Volumes,
    patience: Duration,
    /// What was promised to pods on their way to their nodes, by UID.
    promised: Mutex<HashMap<String, Promise>>,
}

impl VolumeBinding {
    /// Over what is known of storage.
    #[must_use]
    pub fn new(args: &VolumeBindingArgs, volumes: &Volumes) -> Self {
        let seconds = u64::try_from(args.bind_timeout_seconds).unwrap_or(0);
        Self { volumes: volumes.clone(), patience: Duration::from_secs(seconds), promised: Mutex::default() }
    }

    /// The pod's claims; all must exist and be in order. None: it has none.
    fn claims(&self, pod: &PodInfo) -> Result<Option<Vec<Arc<PersistentVolumeClaim>>>, String> {
        let mut claims = Vec::new();
        let spec = pod.pod.spec.as_ref();
        for volume in spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            let made_for_pod = volume.ephemeral.is_some();
            let name = match &volume.persistent_volume_claim {
                Some(claim) => claim.claim_name.clone(),
                None if made_for_pod => format!("{}-{}", pod.name(), volume.name),
                None => continue,
            };
            let claim = self.volumes.claims.get(&ObjectKey::new(pod.namespace(), &name));
            let claim = claim.ok_or_else(|| {
                if made_for_pod {
                    format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    )
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                }
            })?;
            check_claim(&claim, &name)?;
            if made_for_pod && !is_owned_by(&claim, pod) {
                let place = pod.namespace();
                return Err(format!(
                    "PVC {place}/{name} was not created for pod {place}/{} (pod is not owner)",
                    pod.name()
                ));
            }
            claims.push(claim);
        }
        Ok((!claims.is_empty()).then_some(claims))
    }
}

fn check_claim(claim: &PersistentVolumeClaim, name: &str) -> Result<(), String> {
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
        let volume = crate::volumes::matching::volume_of(claim);
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    Ok(())
}

fn is_owned_by(claim: &PersistentVolumeClaim, pod: &PodInfo) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == pod.uid())
}

#[derive(Clone)]
struct Check {
    volumes: Volumes,
    claims: Arc<Claims>,
}

impl Filter for Check {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.claims.find(&self.volumes, &node.node).map(drop)
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        let changes = Action::ADD.or(Action::UPDATE);
        vec![
            Interest::of(Resource::StorageClass, changes),
            Interest::of(Resource::PersistentVolumeClaim, changes),
            Interest::of(Resource::PersistentVolume, changes),
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_LABEL)),
            Interest::of(Resource::CsiDriver, Action::UPDATE),
            Interest::of(Resource::CsiStorageCapacity, changes),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let (_, Some(claim)) = event.claims() {
            return claim.metadata.namespace.as_deref() == Some(pod.namespace())
                && pod.claims().any(|own| Some(&own) == claim.metadata.name.as_ref());
        }
        if let (Some(old), Some(new)) = event.classes() {
            return old.allowed_topologies != new.allowed_topologies;
        }
        if let (Some(old), Some(new)) = event.csi_capacities() {
            return find::limit(new) > find::limit(old);
        }
        if let (Some(old), Some(new)) = event.csi_drivers() {
            return old.spec.storage_capacity == Some(true) && new.spec.storage_capacity != Some(true);
        }
        true
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let claims = self.claims(pod).map_err(|reason| Rejection::unresolvable(NAME, reason))?;
        let Some(claims) = claims else { return Ok(PreFilter::skip()) };
        let claims = Claims::sort(&self.volumes, claims).ok_or_else(|| {
            Rejection::unresolvable(NAME, "pod has unbound immediate PersistentVolumeClaims")
        })?;
        Ok(PreFilter::with(Check { volumes: self.volumes.clone(), claims: Arc::new(claims) }))
    }

    fn reserve(&self, pod: &Arc<PodInfo>, node: &NodeInfo) -> Result<(), Rejection> {
        let claims = self.claims(pod).map_err(|reason| Rejection::unresolvable(NAME, reason))?;
        let Some(claims) = claims.and_then(|claims| Claims::sort(&self.volumes, claims)) else {
            return Ok(());
        };
        let found = claims.find(&self.volumes, &node.node)?;
        if !found.is_nothing() {
            let promise = Promise::make(&self.volumes, found, node.node.clone());
            self.promised.lock().insert(pod.uid().to_owned(), promise);
        }
        Ok(())
    }

    fn unreserve(&self, pod: &PodInfo, _node: &str) {
        if let Some(promise) = self.promised.lock().remove(pod.uid()) {
            promise.take_back(&self.volumes);
        }
    }

    fn has_pre_bind(&self, pod: &PodInfo, _node: &str) -> bool {
        self.promised.lock().contains_key(pod.uid())
    }

    fn pre_bind<'a>(
        &'a self,
        client: &'a Client,
        pod: &'a PodInfo,
        _node: &'a str,
    ) -> BoxFuture<'a, Result<(), Rejection>> {
        let promise = self.promised.lock().get(pod.uid()).cloned();
        Box::pin(async move {
            let Some(mut promise) = promise else { return Ok(()) };
            let kept = promise.keep(client, &self.volumes, self.patience).await;
            kept.map_err(|error| Rejection::error(NAME, error))
        })
    }

    fn post_bind(&self, pod: &PodInfo, _node: &str) {
        self.promised.lock().remove(pod.uid());
    }
}
