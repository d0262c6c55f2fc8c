//! Finds devices for claims on one node: one request after the other, going back where it leads nowhere
//! (upstream `dynamic-resource-allocation/structured`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, Counter, Device, DeviceAllocationConfiguration, DeviceAllocationResult,
    DeviceAttribute, DeviceClaim, DeviceClass, DeviceConstraint, DeviceRequest,
    DeviceRequestAllocationResult, DeviceSelector, DeviceTaint, DeviceToleration, ResourceClaim,
};

use super::Devices;
use super::inventory::{DeviceId, Inventory, Item};
use crate::volumes::global;

/// A claim gets at most so many devices.
const MOST_DEVICES: usize = 32;

/// One way to fulfil a request.
struct Way<'a> {
    /// `request`, or `request/subrequest`.
    name: String,
    parent: &'a str,
    class: Arc<DeviceClass>,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    admin: bool,
    /// How many devices; none: all there are.
    count: Option<usize>,
}

/// A request with the ways to fulfil it, the best first.
struct Wanted<'a> {
    claim: usize,
    ways: Vec<Way<'a>>,
}

/// The devices classes that a claim asks for, by request.
pub(super) fn classes(claim: &ResourceClaim) -> Vec<(String, &str)> {
    let mut classes = Vec::new();
    for request in requests(claim) {
        let exactly = request.exactly.iter().map(|e| (request.name.clone(), e.device_class_name.as_str()));
        classes.extend(exactly);
        let first = request.first_available.iter().flatten();
        classes.extend(first.map(|s| (format!("{}/{}", request.name, s.name), s.device_class_name.as_str())));
    }
    classes
}

fn requests(claim: &ResourceClaim) -> &[DeviceRequest] {
    devices(claim).and_then(|devices| devices.requests.as_deref()).unwrap_or_default()
}

fn devices(claim: &ResourceClaim) -> Option<&DeviceClaim> {
    claim.spec.devices.as_ref()
}

/// What the claims get, each; none if there is not enough for all of them.
pub(super) fn allocate(
    devices: &Devices,
    inventory: &Inventory,
    node: &Node,
    claims: &[Arc<ResourceClaim>],
) -> Result<Option<Vec<AllocationResult>>, String> {
    let mut wanted = Vec::new();
    for (at, claim) in claims.iter().enumerate() {
        for request in requests(claim) {
            wanted.push(Wanted { claim: at, ways: ways(devices, request)? });
        }
    }
    let mut search =
        Search { devices, inventory, node, claims, wanted: &wanted, got: Vec::new(), chosen: Vec::new() };
    if !search.request(0)? {
        return Ok(None);
    }
    let results = (0..claims.len()).map(|at| search.result(at)).collect();
    Ok(Some(results))
}

fn ways<'a>(devices: &Devices, request: &'a DeviceRequest) -> Result<Vec<Way<'a>>, String> {
    let class = |name: &str| {
        devices
            .classes
            .get(&global(name))
            .ok_or_else(|| format!("request {}: could not retrieve device class {name}", request.name))
    };
    let count = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("All") => None,
        _ => Some(usize::try_from(count.unwrap_or(1)).unwrap_or(1)),
    };
    let mut ways = Vec::new();
    if let Some(exactly) = &request.exactly {
        ways.push(Way {
            name: request.name.clone(),
            parent: &request.name,
            class: class(&exactly.device_class_name)?,
            selectors: exactly.selectors.as_deref().unwrap_or_default(),
            tolerations: exactly.tolerations.as_deref().unwrap_or_default(),
            admin: exactly.admin_access == Some(true),
            count: count(exactly.allocation_mode.as_deref(), exactly.count),
        });
    }
    for sub in request.first_available.iter().flatten() {
        ways.push(Way {
            name: format!("{}/{}", request.name, sub.name),
            parent: &request.name,
            class: class(&sub.device_class_name)?,
            selectors: sub.selectors.as_deref().unwrap_or_default(),
            tolerations: sub.tolerations.as_deref().unwrap_or_default(),
            admin: false,
            count: count(sub.allocation_mode.as_deref(), sub.count),
        });
    }
    Ok(ways)
}

/// A device that a request got.
struct Got<'a> {
    claim: usize,
    way: &'a Way<'a>,
    item: Item<'a>,
    id: DeviceId,
}

struct Search<'a> {
    devices: &'a Devices,
    inventory: &'a Inventory,
    node: &'a Node,
    claims: &'a [Arc<ResourceClaim>],
    wanted: &'a [Wanted<'a>],
    got: Vec<Got<'a>>,
    /// The way taken for each request so far.
    chosen: Vec<&'a Way<'a>>,
}

impl<'a> Search<'a> {
    /// Fulfils the request and all after it.
    fn request(&mut self, at: usize) -> Result<bool, String> {
        let Some(wanted) = self.wanted.get(at) else { return Ok(true) };
        for way in &wanted.ways {
            self.chosen.push(way);
            let done = match way.count {
                Some(count) => self.some(at, way, count)?,
                None => self.all(at, way)?,
            };
            if done {
                return Ok(true);
            }
            self.chosen.pop();
        }
        Ok(false)
    }

    fn some(&mut self, at: usize, way: &'a Way<'a>, left: usize) -> Result<bool, String> {
        if left == 0 {
            return self.request(at + 1);
        }
        let claim = self.wanted[at].claim;
        if self.count(claim) + left > MOST_DEVICES {
            return Ok(false);
        }
        let inventory = self.inventory;
        for pool in inventory.pools.iter().filter(|pool| pool.is_complete) {
            for item in pool.items_for(self.node) {
                if !self.selects(way, item)? || !self.take(claim, way, item) {
                    continue;
                }
                if self.some(at, way, left - 1)? {
                    return Ok(true);
                }
                self.got.pop();
            }
        }
        Ok(false)
    }

    /// All devices that are selected, or none will do.
    fn all(&mut self, at: usize, way: &'a Way<'a>) -> Result<bool, String> {
        let claim = self.wanted[at].claim;
        let before = self.got.len();
        let inventory = self.inventory;
        for pool in &inventory.pools {
            if !pool.is_complete && pool.items_for(self.node).next().is_some() {
                return Err(format!(
                    "request {}: asks for all devices, but resource pool {}/{} is currently being updated",
                    way.name, pool.driver, pool.name
                ));
            }
            for item in pool.items_for(self.node) {
                if self.selects(way, item)?
                    && (self.count(claim) >= MOST_DEVICES || !self.take(claim, way, item))
                {
                    self.got.truncate(before);
                    return Ok(false);
                }
            }
        }
        if self.got.len() > before && self.request(at + 1)? {
            return Ok(true);
        }
        self.got.truncate(before);
        Ok(false)
    }

    fn count(&self, claim: usize) -> usize {
        self.got.iter().filter(|got| got.claim == claim).count()
    }

    fn selects(&self, way: &Way<'_>, item: Item<'_>) -> Result<bool, String> {
        // Such devices need more than this can do.
        let beyond = item.device.allow_multiple_allocations == Some(true)
            || item.device.binding_conditions.as_ref().is_some_and(|all| !all.is_empty());
        if beyond {
            return Ok(false);
        }
        let of_class = way.class.spec.selectors.as_deref().unwrap_or_default();
        for selector in of_class.iter().chain(way.selectors) {
            let Some(cel) = &selector.cel else { return Ok(false) };
            let matches = self.devices.selectors.matches(&cel.expression, item);
            if !matches.map_err(|error| format!("request {}: {error}", way.name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the device if it is free, and fits what was taken before.
    fn take(&mut self, claim: usize, way: &'a Way<'a>, item: Item<'a>) -> bool {
        let id = item.id();
        let used_here = self.got.iter().any(|got| got.id == id && (!way.admin || got.claim == claim));
        let used = used_here || (!way.admin && self.inventory.taken.contains(&id));
        let tainted = item.device.taints.iter().flatten().any(|taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
                && !way.tolerations.iter().any(|toleration| tolerates(toleration, taint))
        });
        if used || tainted || !self.counters_allow(item, &id) {
            return false;
        }
        self.got.push(Got { claim, way, item, id });
        let constraints = devices(&self.claims[claim]).and_then(|d| d.constraints.as_ref());
        let fits = constraints.into_iter().flatten().all(|constraint| self.holds(claim, constraint));
        if !fits {
            self.got.pop();
        }
        fits
    }

    fn holds(&self, claim: usize, constraint: &DeviceConstraint) -> bool {
        let named = constraint.requests.as_deref().unwrap_or_default();
        let is_about = |got: &&Got<'_>| {
            let named = |name: &str| named.iter().any(|n| n == name);
            got.claim == claim
                && (constraint.requests.is_none() || named(&got.way.name) || named(got.way.parent))
        };
        let values = |attribute: &str| -> Option<Vec<&DeviceAttribute>> {
            let about = self.got.iter().filter(is_about);
            about.map(|got| attribute_of(attribute, &got.item)).collect()
        };
        if let Some(attribute) = &constraint.match_attribute {
            return values(attribute).is_some_and(|all| all.windows(2).all(|pair| pair[0] == pair[1]));
        }
        if let Some(attribute) = &constraint.distinct_attribute {
            let distinct =
                |all: Vec<&DeviceAttribute>| (0..all.len()).all(|at| !all[..at].contains(&all[at]));
            return values(attribute).is_some_and(distinct);
        }
        false
    }

    /// Whether what devices of one pool share is enough for this one too.
    fn counters_allow(&self, item: Item<'_>, id: &DeviceId) -> bool {
        let wanted = item.device.consumes_counters.as_deref().unwrap_or_default();
        if wanted.is_empty() {
            return true;
        }
        let mut left: BTreeMap<(&str, &str), Quantity> = BTreeMap::new();
        let sets = item.pool.slices.iter().flat_map(|slice| slice.spec.shared_counters.iter().flatten());
        for set in sets {
            for (name, counter) in &set.counters {
                left.insert((&set.name, name), value(counter));
            }
        }
        for other in item.pool.items() {
            let other_id = other.id();
            let counts = other_id == *id
                || self.inventory.taken.contains(&other_id)
                || self.got.iter().any(|got| got.id == other_id);
            for consumed in other.device.consumes_counters.iter().flatten().filter(|_| counts) {
                for (name, counter) in &consumed.counters {
                    if let Some(left) = left.get_mut(&(consumed.counter_set.as_str(), name.as_str())) {
                        left.sub(&value(counter));
                    }
                }
            }
        }
        left.values().all(|left| left.sign() >= 0)
    }

    /// What a claim gets.
    fn result(&self, claim: usize) -> AllocationResult {
        let got = || self.got.iter().filter(move |got| got.claim == claim);
        let results = got().map(|got| DeviceRequestAllocationResult {
            request: got.way.name.clone(),
            driver: got.id.0.clone(),
            pool: got.id.1.clone(),
            device: got.id.2.clone(),
            admin_access: got.way.admin.then_some(true),
            tolerations: (!got.way.tolerations.is_empty()).then(|| got.way.tolerations.to_vec()),
            ..DeviceRequestAllocationResult::default()
        });
        let config = self.config(claim);
        AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult {
                results: Some(results.collect()),
                config: (!config.is_empty()).then_some(config),
            }),
            node_selector: node_selector(got().map(|got| got.item)),
        }
    }

    /// First what classes say of their devices, once each, then what the claim says.
    fn config(&self, claim: usize) -> Vec<DeviceAllocationConfiguration> {
        let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
        let mut seen: Vec<(Option<String>, usize, usize)> = Vec::new();
        let chosen = self.wanted.iter().zip(&self.chosen).filter(|(wanted, _)| wanted.claim == claim);
        let chosen: Vec<_> = chosen.map(|(_, way)| *way).collect();
        for way in &chosen {
            let name = way.class.metadata.name.clone();
            if let Some((_, start, end)) = seen.iter().find(|(class, ..)| *class == name) {
                for config in &mut all[*start..*end] {
                    config.requests.get_or_insert_default().push(way.name.clone());
                }
                continue;
            }
            let start = all.len();
            all.extend(way.class.spec.config.iter().flatten().map(|config| DeviceAllocationConfiguration {
                source: "FromClass".to_owned(),
                requests: Some(vec![way.name.clone()]),
                opaque: config.opaque.clone(),
            }));
            seen.push((name, start, all.len()));
        }
        let own = devices(&self.claims[claim]).and_then(|devices| devices.config.as_ref());
        for config in own.into_iter().flatten() {
            let named = config.requests.as_deref().unwrap_or_default();
            let is_about = |way: &&&Way<'_>| named.iter().any(|n| *n == way.name || n == way.parent);
            if named.is_empty() || chosen.iter().any(|way| is_about(&way)) {
                all.push(DeviceAllocationConfiguration {
                    source: "FromClaim".to_owned(),
                    requests: config.requests.clone(),
                    opaque: config.opaque.clone(),
                });
            }
        }
        all
    }
}

fn value(counter: &Counter) -> Quantity {
    Quantity::parse(&counter.value.0).unwrap_or_default()
}

/// An attribute by its full name; the driver's own may be there without its domain.
fn attribute_of<'a>(name: &str, item: &Item<'a>) -> Option<&'a DeviceAttribute> {
    let device: &Device = item.device;
    let attributes = device.attributes.as_ref()?;
    let (domain, id) = name.split_once('/')?;
    attributes.get(name).or_else(|| attributes.get(id).filter(|_| domain == item.pool.driver))
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let other = |said: &Option<String>, is: &str| said.as_deref().is_some_and(|t| !t.is_empty() && t != is);
    if other(&toleration.effect, &taint.effect) || other(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    }
}

/// Where all of the devices can be used.
fn node_selector<'a>(items: impl Iterator<Item = Item<'a>>) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    let add = |from: &Option<Vec<NodeSelectorRequirement>>,
               into: &mut Option<Vec<NodeSelectorRequirement>>| {
        for requirement in from.iter().flatten() {
            let all = into.get_or_insert_default();
            if !all.contains(requirement) {
                all.push(requirement.clone());
            }
        }
    };
    for item in items {
        let (spec, device) = (&item.slice.spec, item.device);
        let per_device = spec.per_device_node_selection == Some(true);
        let name = if per_device { &device.node_name } else { &spec.node_name };
        let selector = if per_device { &device.node_selector } else { &spec.node_selector };
        if let Some(name) = name {
            let only = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![name.clone()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![only]), match_expressions: None };
            return Some(NodeSelector { node_selector_terms: vec![term] });
        }
        if let Some(first) = selector.as_ref().and_then(|s| s.node_selector_terms.first()) {
            add(&first.match_fields, &mut term.match_fields);
            add(&first.match_expressions, &mut term.match_expressions);
        }
    }
    let says_something = term.match_fields.is_some() || term.match_expressions.is_some();
    says_something.then(|| NodeSelector { node_selector_terms: vec![term] })
}
