//! Volumes with zone labels are used in their zone.

use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};

use super::selector::label;
use super::volume_restrictions::named_claims;
use crate::framework::{Action, ClusterEvent, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::pod_info::{PodInfo, namespace};
use crate::snapshot::Snapshot;
use crate::volumes::matching::{class_of, volume_of, waits_for_consumer};
use crate::volumes::{Volumes, global};

const NAME: &str = "VolumeZone";
const LABELS: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// The plugin.
pub struct VolumeZone {
    volumes: Volumes,
}

/// A label and the values that will do.
type Topology = (&'static str, Vec<String>);

impl VolumeZone {
    /// Over what is known of storage.
    #[must_use]
    pub fn new(volumes: &Volumes) -> Self {
        Self { volumes: volumes.clone() }
    }

    /// Where the volumes of the pod's claims are.
    fn topologies(&self, pod: &Pod) -> Result<Vec<Topology>, Rejection> {
        let refuse = |reason: String| Rejection::unresolvable(NAME, reason);
        let mut topologies = Vec::new();
        for name in named_claims(pod) {
            if name.is_empty() {
                return Err(refuse("PersistentVolumeClaim had no name".into()));
            }
            let claim = self.volumes.claims.seen.get(&ObjectKey::new(namespace(pod), name));
            let claim = claim.ok_or_else(|| refuse(format!("persistentvolumeclaim {name:?} not found")))?;
            let volume = volume_of(&claim);
            if volume.is_empty() {
                self.may_come_later(class_of(&claim)).map_err(refuse)?;
                continue;
            }
            let found = self.volumes.volumes.seen.get(&global(volume));
            let found = found.ok_or_else(|| refuse(format!("persistentvolume {volume:?} not found")))?;
            topologies.extend(of_volume(&found));
        }
        Ok(topologies)
    }

    fn may_come_later(&self, class: &str) -> Result<(), String> {
        if class.is_empty() {
            return Err("PersistentVolumeClaim had no pv name and storageClass name".into());
        }
        let found = self.volumes.classes.get(&global(class));
        let found = found.ok_or_else(|| format!("storageclass.storage.k8s.io {class:?} not found"))?;
        if found.volume_binding_mode.is_none() {
            return Err(format!("VolumeBindingMode not set for StorageClass {class:?}"));
        }
        if waits_for_consumer(&found) { Ok(()) } else { Err("PersistentVolume had no name".into()) }
    }
}

fn of_volume(volume: &PersistentVolume) -> Vec<Topology> {
    let labels = volume.metadata.labels.as_ref();
    let known = LABELS.iter().filter_map(|key| Some((*key, labels?.get(*key)?)));
    // One label can name several zones.
    known.map(|(key, value)| (key, value.split("__").map(|zone| zone.trim().to_owned()).collect())).collect()
}

fn of_today(key: &'static str) -> &'static str {
    match key {
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        other => other,
    }
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        let changes = Action::ADD.or(Action::UPDATE);
        vec![
            Interest::of(Resource::StorageClass, Action::ADD),
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_LABEL)),
            Interest::of(Resource::PersistentVolumeClaim, changes),
            Interest::of(Resource::PersistentVolume, changes),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let (_, Some(claim)) = event.claims() {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            return claim.metadata.namespace.as_deref() == Some(pod.namespace())
                && named_claims(&pod.pod).any(|own| own == name);
        }
        if let (_, Some(class)) = event.classes() {
            return waits_for_consumer(class);
        }
        if let (Some(old), Some(new)) = event.volumes() {
            return of_volume(old) != of_volume(new);
        }
        true
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let topologies = self.topologies(&pod.pod)?;
        if topologies.is_empty() {
            return Ok(PreFilter::skip());
        }
        let topologies = Arc::new(topologies);
        Ok(PreFilter::check(move |node| {
            let node = &*node.node;
            if LABELS.iter().all(|key| label(node, key).is_none()) {
                return Ok(());
            }
            let fits = |(key, values): &Topology| {
                let value = label(node, key).or_else(|| label(node, of_today(key)));
                value.is_some_and(|value| values.iter().any(|v| v == value))
            };
            if topologies.iter().all(fits) {
                return Ok(());
            }
            Err(Rejection::unresolvable(NAME, "node(s) had no available volume zone"))
        }))
    }
}
