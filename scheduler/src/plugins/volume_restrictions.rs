//! Volumes that only one pod can have: claims for one pod only, and disks that cannot be shared.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::framework::{Action, ClusterEvent, Filter, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, namespace};
use crate::snapshot::Snapshot;
use crate::volumes::Volumes;

const NAME: &str = "VolumeRestrictions";
const DISK: &str = "node(s) had no available disk";
const ONE_POD: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";

/// The plugin.
pub struct VolumeRestrictions {
    volumes: Volumes,
}

impl VolumeRestrictions {
    /// Over what is known of storage.
    #[must_use]
    pub fn new(volumes: &Volumes) -> Self {
        Self { volumes: volumes.clone() }
    }
}

fn volumes_of(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten())
}

/// The claims that a pod names.
pub(super) fn named_claims(pod: &Pod) -> impl Iterator<Item = &str> {
    volumes_of(pod).filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

fn is_exclusive(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// Whether two pods cannot have these volumes on one node.
fn conflict(one: &Volume, other: &Volume) -> bool {
    let both = |a: Option<bool>, b: Option<bool>| a.unwrap_or(false) && b.unwrap_or(false);
    if let (Some(a), Some(b)) = (&one.gce_persistent_disk, &other.gce_persistent_disk)
        && a.pd_name == b.pd_name
        && !both(a.read_only, b.read_only)
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&one.aws_elastic_block_store, &other.aws_elastic_block_store)
        && a.volume_id == b.volume_id
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&one.iscsi, &other.iscsi)
        && a.iqn == b.iqn
        && !both(a.read_only, b.read_only)
    {
        return true;
    }
    let (Some(a), Some(b)) = (&one.rbd, &other.rbd) else { return false };
    let pool = |pool: &'_ Option<String>| pool.clone().unwrap_or_else(|| "rbd".into());
    a.monitors.iter().any(|monitor| b.monitors.contains(monitor))
        && pool(&a.pool) == pool(&b.pool)
        && a.image == b.image
        && !both(a.read_only, b.read_only)
}

fn conflicts(pod: &Pod, other: &Pod) -> bool {
    volumes_of(pod).filter(|v| is_exclusive(v)).any(|v| volumes_of(other).any(|o| conflict(v, o)))
}

#[derive(Clone)]
struct Check {
    pod: Arc<PodInfo>,
    has_exclusive: bool,
    /// The pod's claims that only one pod may use.
    claims: BTreeSet<String>,
    /// How often other pods use them.
    used: i64,
}

impl Check {
    fn uses(&self, other: &PodInfo) -> i64 {
        if self.claims.is_empty() || other.namespace() != self.pod.namespace() {
            return 0;
        }
        let used = named_claims(&other.pod).filter(|name| self.claims.contains(*name));
        i64::try_from(used.count()).unwrap_or(i64::MAX)
    }
}

impl Filter for Check {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.has_exclusive && node.pods.iter().any(|other| conflicts(&self.pod.pod, &other.pod)) {
            return Err(Rejection::new(NAME, DISK));
        }
        if self.used > 0 {
            return Err(Rejection::new(NAME, ONE_POD));
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.used += self.uses(pod);
    }

    fn remove_pod(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.used -= self.uses(pod);
    }

    fn counts_pods(&self) -> bool {
        true
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![
            Interest::pods(Action::DELETE),
            Interest::of(Resource::Node, Action::ADD),
            Interest::of(Resource::PersistentVolumeClaim, Action::ADD),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let (Some(gone), None) = event.pods() {
            let mut theirs = named_claims(gone);
            return namespace(gone) == pod.namespace()
                && (conflicts(&pod.pod, gone)
                    || theirs.any(|claim| named_claims(&pod.pod).any(|own| own == claim)));
        }
        if let (None, Some(claim)) = event.claims() {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            return claim.metadata.namespace.as_deref() == Some(pod.namespace())
                && named_claims(&pod.pod).any(|own| own == name);
        }
        true
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<PreFilter, Rejection> {
        let has_exclusive = volumes_of(&pod.pod).any(is_exclusive);
        let mut check = Check { pod: pod.clone(), has_exclusive, claims: BTreeSet::new(), used: 0 };
        for name in named_claims(&pod.pod) {
            let claim = self.volumes.claims.get(&ObjectKey::new(pod.namespace(), name)).ok_or_else(|| {
                Rejection::unresolvable(NAME, format!("persistentvolumeclaim {name:?} not found"))
            })?;
            let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
            if modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod")) {
                check.claims.insert(name.to_owned());
            }
        }
        if !check.claims.is_empty() {
            let others = snapshot.nodes.iter().flat_map(|node| &node.pods);
            check.used = others.map(|other| check.uses(other)).sum();
        }
        let idle = !has_exclusive && check.used == 0;
        Ok(if idle { PreFilter::skip() } else { PreFilter::with(check) })
    }
}
