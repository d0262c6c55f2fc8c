//! From which NUMA nodes devices could come. Pure; as upstream's `devicemanager/topology_hints.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::state::{Resource, State};
use crate::topology::{Hint, Hints, NumaMask};
use crate::{qos, quantity};

impl State {
    /// What could be given to one container.
    pub(super) fn container_hints(&self, uid: &str, container: &Container, machine: &[usize]) -> Hints {
        let requests = requests(container).filter(|(name, _)| self.is_ours(name));
        let hints = requests.map(|(name, wanted)| {
            let had = self.pods.devices(uid, &container.name, &name).unwrap_or_default();
            let reusable = self.reusable(uid, &name);
            let hints = self.resource_hints(&name, wanted, &had, &reusable, machine);
            (name, hints)
        });
        hints.collect()
    }

    /// What could be given to all containers of a pod together.
    pub(super) fn pod_hints(&self, uid: &str, pod: &Pod, machine: &[usize]) -> Hints {
        let mut bare = pod.clone();
        if let Some(spec) = bare.spec.as_mut() {
            spec.overhead = None;
        }
        let limits = qos::pod_limits(&bare).into_iter().filter(|(name, _)| self.is_ours(name));
        let hints = limits.map(|(name, milli)| {
            let wanted = usize::try_from(milli / 1000).unwrap_or_default();
            let had = self.pods.pod_devices(uid, &name);
            let hints = self.resource_hints(&name, wanted, &had, &BTreeSet::new(), machine);
            (name, hints)
        });
        hints.collect()
    }

    fn resource_hints(
        &self,
        name: &str,
        wanted: usize,
        had: &BTreeSet<String>,
        reusable: &BTreeSet<String>,
        machine: &[usize],
    ) -> Option<Vec<Hint>> {
        let resource = self.resources.get(name).filter(|r| r.has_topology())?;
        if !had.is_empty() {
            let same = had.len() == wanted;
            return Some(if same {
                hints(resource, had, &BTreeSet::new(), wanted, machine)
            } else {
                Vec::new()
            });
        }
        let available = self.available(name);
        if available.union(reusable).count() < wanted {
            return Some(Vec::new());
        }
        Some(hints(resource, &available, reusable, wanted, machine))
    }
}

/// One hint for each set of NUMA nodes that has enough; the smallest that could ever do are preferred.
fn hints(
    resource: &Resource,
    available: &BTreeSet<String>,
    reusable: &BTreeSet<String>,
    wanted: usize,
    machine: &[usize],
) -> Vec<Hint> {
    let numa = |id: &String| -> Vec<usize> {
        let nodes = resource.devices.get(id).map(|d| d.numa.as_slice()).unwrap_or_default();
        nodes.iter().filter_map(|n| usize::try_from(*n).ok()).collect()
    };
    // Nodes without such devices only multiply the combinations.
    let bearing: BTreeSet<usize> =
        resource.devices.keys().flat_map(numa).filter(|node| machine.contains(node)).collect();
    let nodes: Vec<usize> = if bearing.is_empty() { machine.to_vec() } else { bearing.into_iter().collect() };
    let mut least = nodes.len();
    let mut found = Vec::new();
    for mask in NumaMask::subsets(&nodes) {
        let inside = |id: &&String| mask.contains_any(&numa(id));
        if resource.devices.keys().filter(inside).count() >= wanted {
            least = least.min(mask.count());
        }
        let placed: Vec<&String> = reusable.iter().filter(|id| !numa(id).is_empty()).collect();
        if placed.iter().all(inside) && placed.len() + available.iter().filter(inside).count() >= wanted {
            found.push(mask);
        }
    }
    found.into_iter().map(|mask| Hint { affinity: Some(mask), preferred: mask.count() == least }).collect()
}

/// How many devices of each resource a container asks for.
pub(super) fn requests(container: &Container) -> impl Iterator<Item = (String, usize)> + '_ {
    // Of such resources requests and limits are the same.
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    limits
        .into_iter()
        .flatten()
        .map(|(name, amount)| (name.clone(), usize::try_from(quantity::value(amount)).unwrap_or_default()))
}
