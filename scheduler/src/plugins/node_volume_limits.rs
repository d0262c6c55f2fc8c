//! A storage driver can attach only so many volumes to a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSINode;

use super::is_placed;
use crate::framework::{Action, ClusterEvent, Filter, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, claim_names, namespace};
use crate::snapshot::Snapshot;
use crate::volumes::matching::{class_of, volume_of};
use crate::volumes::{Volumes, global};

const NAME: &str = "NodeVolumeLimits";

/// The plugin.
pub struct NodeVolumeLimits {
    volumes: Volumes,
}

impl NodeVolumeLimits {
    /// Over what is known of storage.
    #[must_use]
    pub fn new(volumes: &Volumes) -> Self {
        Self { volumes: volumes.clone() }
    }
}

/// Drivers by the handle of each volume that is theirs.
type Attached = BTreeMap<String, String>;

#[derive(Clone)]
struct Check {
    volumes: Volumes,
    wanted: Arc<Attached>,
}

/// The volumes that a pod uses. `new`: its claims must exist.
fn attachable(volumes: &Volumes, pod: &Pod, new: bool) -> Result<Attached, Rejection> {
    let mut attached = Attached::new();
    for name in claim_names(pod) {
        let Some(claim) = volumes.claims.seen.get(&ObjectKey::new(namespace(pod), &name)) else {
            if new {
                let place = namespace(pod);
                let reason =
                    format!("looking up PVC {place}/{name}: persistentvolumeclaim {name:?} not found");
                return Err(Rejection::unresolvable(NAME, reason));
            }
            continue;
        };
        if let Some((driver, handle)) = driver_of(volumes, &claim) {
            attached.insert(format!("{driver}/{handle}"), driver);
        }
    }
    Ok(attached)
}

/// The driver of a claim's volume, and its handle; one that is still to be made gets a handle of its own.
fn driver_of(volumes: &Volumes, claim: &PersistentVolumeClaim) -> Option<(String, String)> {
    let name = volume_of(claim);
    match volumes.volumes.seen.get(&global(name)).filter(|_| !name.is_empty()) {
        Some(volume) => {
            let source = volume.spec.as_ref()?.csi.as_ref()?;
            Some((source.driver.clone(), source.volume_handle.clone()))
        }
        None => {
            let class = volumes.classes.get(&global(class_of(claim)))?;
            let meta = &claim.metadata;
            let handle = format!("\0to-be-made/{}/{}", meta.namespace.as_deref()?, meta.name.as_deref()?);
            Some((class.provisioner.clone(), handle))
        }
    }
}

fn limits(node: &CSINode) -> BTreeMap<&str, i32> {
    let drivers = node.spec.drivers.iter();
    drivers.filter_map(|d| Some((d.name.as_str(), d.allocatable.as_ref()?.count?))).collect()
}

impl Check {
    /// Volumes that are attached to the node, says the API.
    fn attached_to(&self, node: &str) -> Attached {
        let all = self.volumes.attachments.all();
        let here = all.iter().filter(|attachment| attachment.spec.node_name == node);
        here.filter_map(|attachment| {
            let volume = attachment.spec.source.persistent_volume_name.as_deref()?;
            let volume = self.volumes.volumes.seen.get(&global(volume))?;
            let handle = &volume.spec.as_ref()?.csi.as_ref()?.volume_handle;
            let driver = attachment.spec.attacher.clone();
            (!driver.is_empty()).then(|| (format!("{driver}/{handle}"), driver))
        })
        .collect()
    }
}

impl Filter for Check {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(csi_node) = self.volumes.csi_nodes.get(&global(node.name())) else { return Ok(()) };
        let limits = limits(&csi_node);
        if limits.is_empty() {
            return Ok(());
        }
        let mut used_by_pods = Attached::new();
        for pod in &node.pods {
            used_by_pods.append(&mut attachable(&self.volumes, &pod.pod, false)?);
        }
        let mut there = self.attached_to(node.name());
        there.extend(used_by_pods.clone());
        // A volume that is attached for nobody is on its way out, and comes anew.
        let new = || self.wanted.iter().filter(|(handle, _)| !used_by_pods.contains_key(*handle));
        for (driver, limit) in limits {
            let wanted = new().filter(|(_, d)| *d == driver).count();
            let used = there.values().filter(|d| *d == driver).count();
            if wanted > 0 && used + wanted > usize::try_from(limit).unwrap_or(0) {
                return Err(Rejection::new(NAME, "node(s) exceed max volume count"));
            }
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![
            Interest::of(Resource::CsiNode, Action::ADD.or(Action::UPDATE)),
            Interest::pods(Action::DELETE),
            Interest::of(Resource::PersistentVolumeClaim, Action::ADD),
            Interest::of(Resource::VolumeAttachment, Action::DELETE),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let (Some(gone), None) = event.pods() {
            return is_placed(gone) && claim_names(gone).next().is_some();
        }
        if let (None, Some(claim)) = event.claims() {
            return claim.metadata.namespace.as_deref() == Some(pod.namespace())
                && pod.claims().any(|own| Some(&own) == claim.metadata.name.as_ref());
        }
        if let (Some(old), Some(new)) = event.csi_nodes() {
            let before = limits(old);
            return limits(new).iter().any(|(driver, limit)| before.get(driver).unwrap_or(&0) < limit);
        }
        true
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let wanted = match attachable(&self.volumes, &pod.pod, true) {
            Ok(wanted) => wanted,
            // Others have better words for it, and say so before any node is looked at.
            Err(rejection) => return Ok(PreFilter::check(move |_| Err(rejection.clone()))),
        };
        if wanted.is_empty() {
            return Ok(PreFilter::skip());
        }
        Ok(PreFilter::with(Check { volumes: self.volumes.clone(), wanted: Arc::new(wanted) }))
    }
}
