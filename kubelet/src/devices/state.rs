//! What is known of devices: which there are, how they are, and who has them. Pure but for the clock it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::device_plugin as api;
use tokio::time::Instant;

use super::plugin::Plugin;
use super::pods::{Allocation, ByResource, NOWHERE, PodDevices, Sets};

/// After its plugin ended, a resource is remembered for so long: the plugin may only be starting anew.
pub(super) const GRACE: Duration = Duration::from_secs(300);
/// What a plugin calls a device that can be used.
pub(super) const HEALTHY: &str = "Healthy";

/// One device, as its plugin tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// `Healthy` or another word.
    pub(super) health: String,
    /// NUMA nodes it is near to.
    pub(super) numa: Vec<i64>,
}

/// One resource that has, or lately had, a plugin.
#[derive(Debug, Default)]
pub(super) struct Resource {
    /// The plugin; none yet after a restart of the kubelet.
    pub(super) plugin: Option<Plugin>,
    /// Since when it is gone.
    pub(super) stopped: Option<Instant>,
    /// Devices by identifier.
    pub(super) devices: BTreeMap<String, Device>,
    /// Devices that may be given.
    pub(super) healthy: BTreeSet<String>,
    /// Devices that may not.
    pub(super) unhealthy: BTreeSet<String>,
}

impl Resource {
    /// Some device says where it is.
    pub(super) fn has_topology(&self) -> bool {
        self.devices.values().any(|device| !device.numa.is_empty())
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.stopped.is_some_and(|since| now.duration_since(since) > GRACE)
    }
}

/// How many devices the node has: by resource, all and those that work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// All devices, and the healthy ones.
    pub resources: BTreeMap<String, (usize, usize)>,
    /// Resources that had a plugin and have none any more.
    pub removed: BTreeSet<String>,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Resources by name.
    pub(super) resources: BTreeMap<String, Resource>,
    /// Who has what.
    pub(super) pods: PodDevices,
    /// Devices of init containers that later containers of the same pod may have; of one pod at a time.
    pub(super) reusable: (String, Sets),
    removed: BTreeSet<String>,
}

impl State {
    /// After a restart: what was given is known, and nothing may be given until its plugin is back.
    pub(super) fn restored(pods: PodDevices, registered: Vec<String>, now: Instant) -> Self {
        let stopped = |name| (name, Resource { stopped: Some(now), ..Resource::default() });
        Self { pods, resources: registered.into_iter().map(stopped).collect(), ..Self::default() }
    }

    /// A plugin is there. Its devices stay as they are until it tells of them.
    pub(super) fn connected(&mut self, name: &str, plugin: Plugin) {
        self.removed.remove(name);
        let resource = self.resources.entry(name.to_owned()).or_default();
        resource.plugin = Some(plugin);
        resource.stopped = None;
    }

    /// A plugin is gone, unless another took its place: none of its devices may be given. Whether it was so.
    pub(super) fn disconnected(&mut self, name: &str, generation: u64, now: Instant) -> bool {
        let Some(resource) = self.resources.get_mut(name) else { return false };
        if resource.plugin.as_ref().is_none_or(|p| p.generation != generation) || resource.stopped.is_some() {
            return false;
        }
        resource.unhealthy.append(&mut resource.healthy);
        resource.stopped = Some(now);
        true
    }

    /// A plugin told of its devices. Answers the pods that have a device whose health changed.
    pub(super) fn update(&mut self, name: &str, devices: Vec<api::Device>) -> BTreeSet<String> {
        let resource = self.resources.entry(name.to_owned()).or_default();
        let before = std::mem::take(&mut resource.devices);
        resource.healthy.clear();
        resource.unhealthy.clear();
        let mut changed = BTreeSet::new();
        for device in devices {
            let numa = device.topology.map(|t| t.nodes.iter().map(|n| n.id).collect()).unwrap_or_default();
            if before.get(&device.id).is_none_or(|known| known.health != device.health) {
                changed.insert(device.id.clone());
            }
            let set = if device.health == HEALTHY { &mut resource.healthy } else { &mut resource.unhealthy };
            set.insert(device.id.clone());
            resource.devices.insert(device.id, Device { health: device.health, numa });
        }
        self.pods.holders(name, &changed)
    }

    /// What the node has now. Resources whose plugin stays away are forgotten; whether there were any.
    pub(super) fn capacity(&mut self, now: Instant) -> (Capacity, bool) {
        let expired: Vec<String> =
            self.resources.iter().filter(|(_, r)| r.is_expired(now)).map(|(name, _)| name.clone()).collect();
        for name in &expired {
            self.resources.remove(name);
        }
        let any = !expired.is_empty();
        self.removed.extend(expired);
        let counts = self.resources.iter().map(|(name, resource)| {
            let healthy = resource.healthy.len();
            (name.clone(), (healthy + resource.unhealthy.len(), healthy))
        });
        (Capacity { resources: counts.collect(), removed: self.removed.clone() }, any)
    }

    /// Whether a resource is one of plugins: one has it, or it was given to somebody.
    pub(super) fn is_ours(&self, name: &str) -> bool {
        let given =
            |containers: &BTreeMap<String, ByResource>| containers.values().any(|c| c.contains_key(name));
        self.resources.contains_key(name) || self.pods.0.values().any(given)
    }

    /// Devices that may be given and that nobody has.
    pub(super) fn available(&self, name: &str) -> BTreeSet<String> {
        let Some(resource) = self.resources.get(name) else { return BTreeSet::new() };
        match self.pods.in_use().get(name) {
            Some(used) => resource.healthy.difference(used).cloned().collect(),
            None => resource.healthy.clone(),
        }
    }

    /// Devices of init containers of this pod that may be given again.
    pub(super) fn reusable(&self, uid: &str, name: &str) -> BTreeSet<String> {
        if self.reusable.0 == uid {
            self.reusable.1.get(name).cloned().unwrap_or_default()
        } else {
            BTreeSet::new()
        }
    }

    /// Records what a container was given.
    pub(super) fn give(
        &mut self,
        (uid, container): (&str, &str),
        name: &str,
        devices: &BTreeSet<String>,
        response: api::ContainerAllocateResponse,
    ) {
        let known = self.resources.get(name).map(|r| &r.devices);
        let mut ids: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for device in devices {
            let numa = known.and_then(|k| k.get(device)).map(|d| d.numa.as_slice()).unwrap_or_default();
            for node in if numa.is_empty() { &[NOWHERE] } else { numa } {
                ids.entry(*node).or_default().push(device.clone());
            }
        }
        self.pods.insert(uid, container, name, Allocation { ids, response });
    }

    /// A container has all it asked for. What an init container had, those after it may have too, unless it stays.
    pub(super) fn settled(&mut self, uid: &str, container: &str, passes_on: bool) {
        if self.reusable.0 != uid {
            self.reusable = (uid.to_owned(), Sets::new());
        }
        for (name, allocation) in self.pods.container(uid, container).into_iter().flatten() {
            let set = self.reusable.1.entry(name.clone()).or_default();
            let devices = allocation.devices();
            if passes_on {
                set.extend(devices);
            } else {
                set.retain(|device| !devices.contains(device));
            }
        }
    }

    /// Takes back what pods had that are not kept. Whether there were any.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) -> bool {
        let before = self.pods.0.len();
        self.pods.0.retain(|uid, _| keep(uid));
        before != self.pods.0.len()
    }

    /// How the devices of a container are, by resource and identifier. One that its plugin no longer lists is well.
    pub(super) fn health(&self, uid: &str, container: &str) -> BTreeMap<String, BTreeMap<String, bool>> {
        let resources = self.pods.container(uid, container).into_iter().flatten();
        let healths = resources.map(|(name, allocation)| {
            let known = self.resources.get(name).map(|r| &r.devices);
            let well = |id: &String| known.and_then(|k| k.get(id)).is_none_or(|d| d.health == HEALTHY);
            (name.clone(), allocation.devices().into_iter().map(|id| (id.clone(), well(&id))).collect())
        });
        healths.collect()
    }
}
