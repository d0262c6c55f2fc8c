//! What devices there are, and which of them are taken.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelector};
use k8s_openapi::api::resource::v1::{AllocationResult, Device, ResourceSlice};

use super::{Devices, allocation};
use crate::plugins::selector::selector_matches;

/// Driver, pool and name of a device.
pub(super) type DeviceId = (String, String, String);

/// The devices of one driver that belong together.
pub(super) struct Pool {
    pub(super) driver: String,
    pub(super) name: String,
    pub(super) slices: Vec<Arc<ResourceSlice>>,
    /// Whether all of its newest generation is there.
    pub(super) is_complete: bool,
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

/// All devices.
pub(super) struct Inventory {
    pub(super) pools: Vec<Pool>,
    pub(super) taken: HashSet<DeviceId>,
}

impl Inventory {
    /// As the API says, and with allocations that it does not know yet.
    pub(super) fn new<'a>(devices: &Devices, pending: impl Iterator<Item = &'a AllocationResult>) -> Self {
        let mut pools: BTreeMap<(String, String), Vec<Arc<ResourceSlice>>> = BTreeMap::new();
        for slice in devices.slices.all() {
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
        let pools = pools.into_iter().map(|((driver, name), slices)| {
            let wanted = slices.first().map_or(0, |slice| slice.spec.pool.resource_slice_count);
            let is_complete = i64::try_from(slices.len()).is_ok_and(|count| count == wanted);
            Pool { driver, name, slices, is_complete }
        });
        let mut taken = HashSet::new();
        for claim in devices.claims.all() {
            allocation(&claim).into_iter().for_each(|result| take(result, &mut taken));
        }
        pending.for_each(|result| take(result, &mut taken));
        Self { pools: pools.collect(), taken }
    }
}

/// Access for administration takes nothing.
fn take(result: &AllocationResult, taken: &mut HashSet<DeviceId>) {
    let results = result.devices.as_ref().and_then(|d| d.results.as_ref()).into_iter().flatten();
    for device in results.filter(|device| device.admin_access != Some(true)) {
        taken.insert((device.driver.clone(), device.pool.clone(), device.device.clone()));
    }
}

impl Pool {
    /// All devices of the pool.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.slices.iter().flat_map(move |slice| {
            let devices = slice.spec.devices.iter().flatten();
            devices.map(move |device| Item { pool: self, slice, device })
        })
    }

    /// The devices that can be used on the node.
    pub(super) fn items_for<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = Item<'a>> {
        self.items().filter(|item| {
            let (spec, device) = (&item.slice.spec, item.device);
            if spec.per_device_node_selection == Some(true) {
                is_for(node, device.node_name.as_ref(), device.all_nodes, device.node_selector.as_ref())
            } else {
                is_for(node, spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref())
            }
        })
    }
}

fn is_for(node: &Node, name: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>) -> bool {
    match (name, all, selector) {
        (Some(name), _, _) => Some(name) == node.metadata.name.as_ref(),
        (None, Some(true), _) => true,
        (None, _, Some(selector)) => selector_matches(selector, node),
        _ => false,
    }
}
