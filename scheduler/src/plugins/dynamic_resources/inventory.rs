//! What devices there are, and which of them are taken (upstream `pools_incubating.go`, `allocateddevices.go`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelector};
use k8s_openapi::api::resource::v1::{AllocationResult, Device, ResourceSlice};

use super::capacity::{Amounts, amount};
use super::{Devices, allocation};
use crate::plugins::selector::selector_matches;

/// Driver, pool and name of a device.
pub(super) type DeviceId = (String, String, String);

/// The devices of one driver that belong together.
pub(super) struct Pool {
    pub(super) driver: String,
    pub(super) name: String,
    /// Those of the newest generation, by name.
    pub(super) slices: Vec<Arc<ResourceSlice>>,
    /// Whether all of its newest generation is there.
    pub(super) is_complete: bool,
    /// Whether its counters contradict each other.
    is_contradictory: bool,
}

/// One device.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) pool: &'a Pool,
    pub(super) slice: &'a ResourceSlice,
    pub(super) device: &'a Device,
}

impl Item<'_> {
    pub(super) fn id(&self) -> DeviceId {
        (self.pool.driver.clone(), self.pool.name.clone(), self.device.name.clone())
    }
}

/// A pool as one node sees it.
pub(super) struct View<'a> {
    pub(super) pool: &'a Pool,
    /// The devices that can be used on the node.
    pub(super) items: Vec<Item<'a>>,
    /// Whether the pool says nothing that cannot be.
    pub(super) is_valid: bool,
}

impl View<'_> {
    /// Whether devices may be taken from it.
    pub(super) fn is_usable(&self) -> bool {
        self.pool.is_complete && self.is_valid
    }
}

/// What is taken of devices.
#[derive(Default)]
pub(super) struct Taken {
    /// Devices that one claim has for itself.
    whole: HashSet<DeviceId>,
    /// Devices that claims share, and how much of them they have.
    shared: HashMap<DeviceId, Amounts>,
}

impl Taken {
    /// Whether a claim has the device for itself.
    pub(super) fn whole(&self, id: &DeviceId) -> bool {
        self.whole.contains(id)
    }

    /// What claims have of a device that they share.
    pub(super) fn shared(&self, id: &DeviceId) -> Option<&Amounts> {
        self.shared.get(id)
    }

    /// Whether anybody has some of the device.
    pub(super) fn any(&self, id: &DeviceId) -> bool {
        self.whole(id) || self.shared.contains_key(id)
    }

    /// Access for administration takes nothing.
    fn take(&mut self, result: &AllocationResult) {
        let results = result.devices.as_ref().and_then(|d| d.results.as_ref()).into_iter().flatten();
        for device in results.filter(|device| device.admin_access != Some(true)) {
            let id = (device.driver.clone(), device.pool.clone(), device.device.clone());
            if device.share_id.is_none() {
                self.whole.insert(id);
                continue;
            }
            let sums = self.shared.entry(id).or_default();
            for (name, consumed) in device.consumed_capacity.iter().flatten() {
                sums.entry(name.clone()).or_default().add(&amount(consumed));
            }
        }
    }
}

/// All devices.
pub(super) struct Inventory {
    pools: Vec<Pool>,
    /// The pools that have something for one node alone, by its name.
    by_node: HashMap<String, Vec<usize>>,
    /// The pools that may have something for any node.
    anywhere: Vec<usize>,
    pub(super) taken: Taken,
}

impl Inventory {
    /// As the API says, and with allocations that it does not know yet.
    pub(super) fn new<'a>(devices: &Devices, pending: impl Iterator<Item = &'a AllocationResult>) -> Self {
        let pools = pools(devices.slices.all());
        let (mut by_node, mut anywhere) = (HashMap::<String, Vec<usize>>::new(), Vec::new());
        for (at, pool) in pools.iter().enumerate() {
            let mut names = BTreeSet::new();
            let mut everywhere = false;
            for slice in &pool.slices {
                match slice.spec.node_name.as_deref().filter(|name| !name.is_empty()) {
                    Some(name) if !has_counters(slice) => drop(names.insert(name)),
                    _ => everywhere = true,
                }
            }
            if everywhere {
                anywhere.push(at);
            } else {
                names.into_iter().for_each(|name| by_node.entry(name.to_owned()).or_default().push(at));
            }
        }
        let mut taken = Taken::default();
        for claim in devices.claims.all() {
            allocation(&claim).into_iter().for_each(|result| taken.take(result));
        }
        pending.for_each(|result| taken.take(result));
        Self { pools, by_node, anywhere, taken }
    }

    /// The pools that the node can use something of, those last whose devices have to be waited for.
    pub(super) fn views(&self, node: &Node) -> Vec<View<'_>> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let own = self.by_node.get(name).into_iter().flatten();
        let mut places: Vec<_> = own.chain(&self.anywhere).copied().collect();
        places.sort_unstable();
        let mut views: Vec<_> = places.into_iter().filter_map(|at| self.pools[at].view(node)).collect();
        views.sort_by_key(|view| view.items.iter().any(|item| item.device.binding_conditions.is_some()));
        views
    }
}

fn pools(all: Vec<Arc<ResourceSlice>>) -> Vec<Pool> {
    let mut pools: BTreeMap<(String, String), Vec<Arc<ResourceSlice>>> = BTreeMap::new();
    for slice in all {
        let key = (slice.spec.driver.clone(), slice.spec.pool.name.clone());
        let slices = pools.entry(key).or_default();
        let generation = slice.spec.pool.generation;
        if slices.first().is_some_and(|first| first.spec.pool.generation > generation) {
            continue;
        }
        // An older generation does not count any more.
        slices.retain(|known| known.spec.pool.generation == generation);
        slices.push(slice);
    }
    let pools = pools.into_iter().map(|((driver, name), mut slices)| {
        slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let wanted = slices.first().map_or(0, |slice| slice.spec.pool.resource_slice_count);
        let is_complete = i64::try_from(slices.len()).is_ok_and(|count| count == wanted);
        let is_contradictory = is_contradictory(&slices);
        Pool { driver, name, slices, is_complete, is_contradictory }
    });
    pools.collect()
}

fn has_counters(slice: &ResourceSlice) -> bool {
    slice.spec.shared_counters.as_ref().is_some_and(|sets| !sets.is_empty())
}

/// Whether a set of counters is there twice, or a device consumes of one that is not there.
fn is_contradictory(slices: &[Arc<ResourceSlice>]) -> bool {
    let mut sets = HashMap::new();
    for set in slices.iter().flat_map(|slice| slice.spec.shared_counters.iter().flatten()) {
        if sets.insert(set.name.as_str(), &set.counters).is_some() {
            return true;
        }
    }
    let devices = slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    let mut consumptions = devices.flat_map(|device| device.consumes_counters.iter().flatten());
    consumptions.any(|consumption| {
        let set = sets.get(consumption.counter_set.as_str());
        set.is_none_or(|set| consumption.counters.keys().any(|name| !set.contains_key(name)))
    })
}

impl Pool {
    /// All devices of the pool, for whatever node. A slice has either counters or devices.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.slices.iter().filter(|slice| !has_counters(slice)).flat_map(move |slice| {
            let devices = slice.spec.devices.iter().flatten();
            devices.map(move |device| Item { pool: self, slice, device })
        })
    }

    /// The pool as the node sees it; none if it has nothing to do with the node.
    fn view<'a>(&'a self, node: &Node) -> Option<View<'a>> {
        let (mut is_relevant, mut is_valid) = (false, !self.is_contradictory);
        let (mut items, mut names) = (Vec::new(), HashSet::new());
        for slice in &self.slices {
            if has_counters(slice) {
                is_relevant = true;
                continue;
            }
            let spec = &slice.spec;
            let each = spec.per_device_node_selection == Some(true);
            let whole = is_for(node, spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref());
            let here = |device: &Device| {
                let selector = device.node_selector.as_ref();
                is_for(node, device.node_name.as_ref(), device.all_nodes, selector)
            };
            let mut devices = spec.devices.iter().flatten();
            if !if each { devices.any(here) } else { whole } {
                continue;
            }
            is_relevant = true;
            for device in spec.devices.iter().flatten() {
                is_valid &= names.insert(device.name.as_str());
                if !each || here(device) {
                    items.push(Item { pool: self, slice, device });
                }
            }
        }
        is_relevant.then_some(View { pool: self, items, is_valid })
    }
}

fn is_for(node: &Node, name: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>) -> bool {
    match (name.filter(|name| !name.is_empty()), all, selector) {
        (Some(name), _, _) => Some(name) == node.metadata.name.as_ref(),
        (None, Some(true), _) => true,
        (None, _, Some(selector)) => selector_matches(selector, node),
        _ => false,
    }
}
