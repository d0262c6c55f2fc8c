//! What a pod's claims need on one node.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};

use super::NAME;
use crate::framework::Rejection;
use crate::volumes::matching::{
    by_size, class_of, find, is_allowed, is_delayed, is_fully_bound, is_reachable, requested, volume_of,
};
use crate::volumes::{SELECTED_NODE, Volumes, global};

/// A class of volumes that nobody makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const UNREACHABLE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NONE_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_ROOM: &str = "node(s) did not have enough free storage";
const LOST: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// A pod's claims, by what is to be done about them.
pub(super) struct Claims {
    bound: Vec<Arc<PersistentVolumeClaim>>,
    /// To get a volume that is made for the node that was chosen for them before.
    selected: Vec<Arc<PersistentVolumeClaim>>,
    /// To be bound once the node is known, the smallest first.
    delayed: Vec<Arc<PersistentVolumeClaim>>,
    /// Volumes of the delayed claims' classes.
    candidates: Vec<Arc<PersistentVolume>>,
}

/// What delayed claims get on a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Volumes that are there.
    pub(super) bindings: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    /// Volumes to be made.
    pub(super) provisions: Vec<Arc<PersistentVolumeClaim>>,
}

impl Found {
    pub(super) fn is_nothing(&self) -> bool {
        self.bindings.is_empty() && self.provisions.is_empty()
    }
}

impl Claims {
    /// None if one of them should be bound already and is not.
    pub(super) fn sort(volumes: &Volumes, claims: Vec<Arc<PersistentVolumeClaim>>) -> Option<Self> {
        let (bound, unbound): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| is_fully_bound(claim));
        let waits =
            |claim: &Arc<PersistentVolumeClaim>| is_delayed(claim, volumes) && volume_of(claim).is_empty();
        if !unbound.iter().all(waits) {
            return None;
        }
        let (selected, mut delayed): (Vec<_>, Vec<_>) =
            unbound.into_iter().partition(|claim| selected_node(claim).is_some());
        delayed.sort_by(|one, other| by_size(one, other));
        let candidates = if delayed.is_empty() { Vec::new() } else { volumes.volumes.all() };
        Some(Self { bound, selected, delayed, candidates })
    }

    /// What is to be done if the pod goes to the node.
    ///
    /// # Errors
    /// It cannot go there; what is wrong with bound claims and with others is told together.
    pub(super) fn find(&self, volumes: &Volumes, node: &Node) -> Result<Found, Rejection> {
        match (self.bound_fault(volumes, node), self.find_unbound(volumes, node)) {
            (None, found) => found,
            (Some(fault), Ok(_)) => Err(Rejection::unresolvable(NAME, fault)),
            (Some(_), Err(other)) if !other.is_unresolvable() => Err(other),
            (Some(LOST), Err(mut other)) => {
                other.push(LOST);
                Err(other)
            }
            (Some(fault), Err(other)) => {
                let mut both = Rejection::unresolvable(NAME, fault);
                other.reasons().for_each(|reason| both.push(reason.to_owned()));
                Err(both)
            }
        }
    }

    /// What is wrong with the claims that are bound.
    fn bound_fault(&self, volumes: &Volumes, node: &Node) -> Option<&'static str> {
        self.bound.iter().find_map(|claim| match volumes.volumes.get(&global(volume_of(claim))) {
            None => Some(LOST),
            Some(volume) => (!is_reachable(&volume, node)).then_some(UNREACHABLE),
        })
    }

    fn find_unbound(&self, volumes: &Volumes, node: &Node) -> Result<Found, Rejection> {
        let here = node.metadata.name.as_deref();
        if self.selected.iter().any(|claim| selected_node(claim) != here) {
            return Err(Rejection::unresolvable(NAME, NONE_TO_BIND));
        }
        let mut found = Found { provisions: self.selected.clone(), ..Found::default() };
        let mut chosen = BTreeSet::new();
        for claim in &self.delayed {
            match find(claim, &self.candidates, node, &chosen) {
                Some(volume) => {
                    chosen.insert(volume.metadata.name.clone().unwrap_or_default());
                    found.bindings.push((volume.clone(), claim.clone()));
                }
                None => found.provisions.push(claim.clone()),
            }
        }
        for claim in &found.provisions {
            can_be_made(volumes, claim, node)?;
        }
        Ok(found)
    }
}

/// The node that was chosen for a claim before.
fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str)
}

/// Whether a volume for the claim can be made for the node.
fn can_be_made(volumes: &Volumes, claim: &PersistentVolumeClaim, node: &Node) -> Result<(), Rejection> {
    let name = class_of(claim);
    let class = volumes
        .classes
        .get(&global(name))
        .ok_or_else(|| Rejection::error(NAME, format!("failed to find storage class {name:?}")))?;
    let provisioner = class.provisioner.as_str();
    if provisioner.is_empty() || provisioner == NO_PROVISIONER || !is_allowed(&class, node) {
        return Err(Rejection::unresolvable(NAME, NONE_TO_BIND));
    }
    if !has_room(volumes, claim, &class, node) {
        return Err(Rejection::unresolvable(NAME, NO_ROOM));
    }
    Ok(())
}

/// Whether the driver has room for the claim where the node reaches it; one that does not say has.
fn has_room(volumes: &Volumes, claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node) -> bool {
    let Some(wanted) = requested(claim) else { return true };
    let says =
        |driver: &Arc<k8s_openapi::api::storage::v1::CSIDriver>| driver.spec.storage_capacity == Some(true);
    if !volumes.csi_drivers.get(&global(&class.provisioner)).as_ref().is_some_and(says) {
        return true;
    }
    let labels = node.metadata.labels.clone().unwrap_or_default();
    volumes.capacities.all().iter().any(|capacity| {
        let reaches = capacity.node_topology.as_ref().is_some_and(|topology| {
            LabelSelector::from_meta(Some(topology)).is_ok_and(|selector| selector.matches(&labels))
        });
        Some(&capacity.storage_class_name) == class.metadata.name.as_ref()
            && limit(capacity).is_some_and(|limit| limit.value() >= wanted.value())
            && reaches
    })
}

/// The largest volume that can be made.
pub(super) fn limit(capacity: &CSIStorageCapacity) -> Option<Quantity> {
    let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
    Quantity::parse(&limit.0).ok()
}
