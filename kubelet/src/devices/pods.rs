//! Which devices the containers of pods have, and what came with them. Values only.

use std::collections::{BTreeMap, BTreeSet};

use proto::device_plugin::ContainerAllocateResponse;

/// The NUMA node of devices that belong to none.
pub(super) const NOWHERE: i64 = -1;

/// Devices of one resource that a container has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Allocation {
    /// Identifiers by NUMA node; a device near several is listed with each.
    pub(super) ids: BTreeMap<i64, Vec<String>>,
    /// What the plugin said a container needs to use them.
    pub(super) response: ContainerAllocateResponse,
}

impl Allocation {
    /// All devices.
    pub(super) fn devices(&self) -> BTreeSet<String> {
        self.ids.values().flatten().cloned().collect()
    }
}

/// Allocations by resource.
pub(super) type ByResource = BTreeMap<String, Allocation>;

/// Devices by resource.
pub(super) type Sets = BTreeMap<String, BTreeSet<String>>;

/// Allocations by UID of the pod and name of the container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PodDevices(pub(super) BTreeMap<String, BTreeMap<String, ByResource>>);

impl PodDevices {
    pub(super) fn insert(&mut self, uid: &str, container: &str, resource: &str, allocation: Allocation) {
        let pod = self.0.entry(uid.to_owned()).or_default();
        pod.entry(container.to_owned()).or_default().insert(resource.to_owned(), allocation);
    }

    /// What a container has; `None` when nothing was ever given to it.
    pub(super) fn container(&self, uid: &str, container: &str) -> Option<&ByResource> {
        self.0.get(uid)?.get(container)
    }

    /// Devices of one resource that a container has.
    pub(super) fn devices(&self, uid: &str, container: &str, resource: &str) -> Option<BTreeSet<String>> {
        self.container(uid, container)?.get(resource).map(Allocation::devices)
    }

    /// Devices of one resource that any container of a pod has.
    pub(super) fn pod_devices(&self, uid: &str, resource: &str) -> BTreeSet<String> {
        let containers = self.0.get(uid).into_iter().flat_map(BTreeMap::values);
        containers.filter_map(|c| c.get(resource)).flat_map(Allocation::devices).collect()
    }

    /// All devices that somebody has, by resource.
    pub(super) fn in_use(&self) -> Sets {
        let mut used = Sets::new();
        for (resource, allocation) in self.0.values().flat_map(BTreeMap::values).flatten() {
            used.entry(resource.clone()).or_default().extend(allocation.devices());
        }
        used
    }

    /// The pods that have one of these devices.
    pub(super) fn holders(&self, resource: &str, devices: &BTreeSet<String>) -> BTreeSet<String> {
        let has = |containers: &BTreeMap<String, ByResource>| {
            let mut all = containers.values().filter_map(|c| c.get(resource));
            all.any(|a| !a.devices().is_disjoint(devices))
        };
        self.0.iter().filter(|(_, containers)| has(containers)).map(|(uid, _)| uid.clone()).collect()
    }
}
