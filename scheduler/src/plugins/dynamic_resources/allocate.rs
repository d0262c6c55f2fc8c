//! Finds devices for claims on one node: one request after the other, going back where it leads nowhere
//! (upstream `dynamic-resource-allocation/structured`, the variant with all features that are on by default).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAttribute, DeviceConstraint, DeviceTaint, DeviceToleration, ResourceClaim,
};

use super::capacity::{self, Amounts, amount};
use super::inventory::{DeviceId, Inventory, Item, View};
use super::requests::{self, Wanted, Way};
use super::{Devices, key_of, result};

/// A claim gets at most so many devices.
const MOST_DEVICES: usize = 32;

/// Why nothing can be said of claims on a node, or not on any.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The node cannot be used.
    Node(String),
    /// Something is wrong with a claim or a class.
    Claim(String),
    /// It took too long.
    Late,
}

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self::Claim(error)
    }
}

/// A device that a request got.
pub(super) struct Got<'a> {
    pub(super) claim: usize,
    pub(super) way: &'a Way<'a>,
    pub(super) item: Item<'a>,
    pub(super) id: DeviceId,
    /// How much of it, if others may have some too.
    pub(super) share: Option<Amounts>,
}

/// What the claims get, each; none if there is not enough for all of them.
///
/// # Errors
/// Nothing can be said.
pub(super) fn allocate(
    devices: &Devices,
    inventory: &Inventory,
    node: &Node,
    claims: &[Arc<ResourceClaim>],
    deadline: Option<Instant>,
) -> Result<Option<Vec<AllocationResult>>, Failure> {
    let wanted = requests::wanted(devices, claims)?;
    let views = inventory.views(node);
    let usable = views.iter().filter(|view| view.is_usable()).flat_map(|view| view.items.iter().copied());
    let mut search = Search {
        devices,
        inventory,
        claims,
        wanted: &wanted,
        items: usable.collect(),
        got: Vec::new(),
        chosen: Vec::new(),
        deadline,
    };
    search.check_size(&views)?;
    if !search.request(0)? {
        return match views.iter().all(|view| !view.pool.is_complete || view.is_valid) {
            true => Ok(None),
            false => Err(Failure::Node("invalid resource pools were encountered".to_owned())),
        };
    }
    let results = claims.iter().enumerate().map(|(at, claim)| {
        let chosen = search.wanted.iter().zip(&search.chosen).filter(|(wanted, _)| wanted.claim == at);
        let chosen: Vec<_> = chosen.map(|(_, way)| *way).collect();
        let got: Vec<_> = search.got.iter().filter(|got| got.claim == at).collect();
        result::of(claim, &chosen, &got, node)
    });
    Ok(Some(results.collect()))
}

struct Search<'a> {
    devices: &'a Devices,
    inventory: &'a Inventory,
    claims: &'a [Arc<ResourceClaim>],
    wanted: &'a [Wanted<'a>],
    /// The devices that may be taken.
    items: Vec<Item<'a>>,
    got: Vec<Got<'a>>,
    /// The way taken for each request so far.
    chosen: Vec<&'a Way<'a>>,
    deadline: Option<Instant>,
}

impl<'a> Search<'a> {
    /// Nobody can ask for more than a claim can hold, nor for all devices of a pool that is not all there.
    fn check_size(&self, views: &[View<'a>]) -> Result<(), Failure> {
        for (at, claim) in self.claims.iter().enumerate() {
            let mut least = 0;
            for wanted in self.wanted.iter().filter(|wanted| wanted.claim == at) {
                let mut fewest = usize::MAX;
                for way in &wanted.ways {
                    fewest = fewest.min(match way.count {
                        Some(count) => count,
                        None => self.all_of(at, way, views)?,
                    });
                }
                least += if fewest == usize::MAX { 0 } else { fewest };
            }
            if least > MOST_DEVICES {
                return Err(Failure::Claim(format!(
                    "claim {}: number of requested devices {least} exceeds the claim limit of {MOST_DEVICES}",
                    key_of(claim)
                )));
            }
        }
        Ok(())
    }

    /// How many devices are meant by all.
    fn all_of(&self, claim: usize, way: &Way<'a>, views: &[View<'a>]) -> Result<usize, Failure> {
        let mut count = 0;
        for view in views {
            let state = match (view.pool.is_complete, view.is_valid) {
                (false, _) => "being updated",
                (true, false) => "invalid",
                (true, true) => {
                    for item in &view.items {
                        count += usize::from(self.is_meant(claim, way, *item)?);
                    }
                    continue;
                }
            };
            return Err(Failure::Claim(format!(
                "claim {}, request {}: asks for all devices, but resource pool {}/{} is currently {state}",
                key_of(&self.claims[claim]),
                way.name,
                view.pool.driver,
                view.pool.name
            )));
        }
        Ok(count)
    }

    /// Whether the device is one of all that the request means.
    fn is_meant(&self, claim: usize, way: &Way<'_>, item: Item<'a>) -> Result<bool, Failure> {
        let fits = || {
            let shared = self.inventory.taken.shared(&item.id());
            capacity::fits(way.capacity, item.device, |name| shared?.get(name).cloned())
        };
        Ok(self.selects(claim, way, item)? && fits())
    }

    /// Fulfils the request and all after it.
    fn request(&mut self, at: usize) -> Result<bool, Failure> {
        let Some(wanted) = self.wanted.get(at) else { return Ok(true) };
        for way in &wanted.ways {
            self.chosen.push(way);
            let done = match way.count {
                Some(count) => self.some(at, way, count, 0)?,
                None => self.all(at, way)?,
            };
            if done {
                return Ok(true);
            }
            self.chosen.pop();
        }
        Ok(false)
    }

    /// So many devices more, from those at `start` on: it does not matter in which order a request gets them.
    fn some(&mut self, at: usize, way: &'a Way<'a>, left: usize, start: usize) -> Result<bool, Failure> {
        if left == 0 {
            return self.request(at + 1);
        }
        let claim = self.wanted[at].claim;
        if self.count(claim) + left > MOST_DEVICES {
            return Ok(false);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(Failure::Late);
        }
        for place in start..self.items.len() {
            let item = self.items[place];
            if self.is_in_use(claim, way, &item.id())
                || !self.selects(claim, way, item)?
                || !self.take(claim, way, item, false)?
            {
                continue;
            }
            if self.some(at, way, left - 1, place + 1)? {
                return Ok(true);
            }
            self.got.pop();
        }
        Ok(false)
    }

    /// All devices that are selected, or none will do.
    fn all(&mut self, at: usize, way: &'a Way<'a>) -> Result<bool, Failure> {
        let claim = self.wanted[at].claim;
        let before = self.got.len();
        for place in 0..self.items.len() {
            let item = self.items[place];
            if self.is_meant(claim, way, item)?
                && (self.count(claim) >= MOST_DEVICES || !self.take(claim, way, item, true)?)
            {
                self.got.truncate(before);
                return Ok(false);
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

    fn selects(&self, claim: usize, way: &Way<'_>, item: Item<'_>) -> Result<bool, Failure> {
        let class = way.class.metadata.name.as_deref().unwrap_or_default();
        let of_class = way.class.spec.selectors.iter().flatten().enumerate().map(|s| (true, s));
        let own = way.selectors.iter().enumerate().map(|s| (false, s));
        for (is_class, (at, selector)) in of_class.chain(own) {
            let Some(cel) = &selector.cel else { return Ok(false) };
            let matches = self.devices.selectors.matches(&cel.expression, item).map_err(|error| {
                let whose = match is_class {
                    true => format!("class {class}"),
                    false => format!("claim {}", key_of(&self.claims[claim])),
                };
                Failure::Claim(format!("{whose}: selector #{at}: {error}"))
            })?;
            if !matches {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing of the device is left for the request.
    fn is_in_use(&self, claim: usize, way: &Way<'_>, id: &DeviceId) -> bool {
        let whole = |got: &&Got<'_>| got.share.is_none() && got.id == *id;
        match way.admin {
            true => self.got.iter().filter(whole).any(|got| got.claim == claim),
            false => self.got.iter().any(|got| whole(&got)) || self.inventory.taken.whole(id),
        }
    }

    /// Takes the device if it is free, and fits what was taken before. `must` says that no other will do.
    fn take(&mut self, claim: usize, way: &'a Way<'a>, item: Item<'a>, must: bool) -> Result<bool, Failure> {
        let id = item.id();
        let tainted = item.device.taints.iter().flatten().any(|taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
                && !way.tolerations.iter().any(|toleration| tolerates(toleration, taint))
        });
        if self.is_in_use(claim, way, &id) || tainted || !self.has_room(way, item, &id) {
            return Ok(false);
        }
        let is_shared = item.device.allow_multiple_allocations == Some(true);
        let counted_already = is_shared && self.is_shared_already(&id);
        if !counted_already && !self.counters_allow(item, &id) {
            return Ok(false);
        }
        let share = is_shared.then(|| capacity::consumed(way.capacity, item.device));
        self.got.push(Got { claim, way, item, id, share });
        let constraints = requests::devices(&self.claims[claim]).and_then(|d| d.constraints.as_ref());
        if constraints.into_iter().flatten().all(|constraint| self.holds(claim, constraint)) {
            return Ok(true);
        }
        let got = self.got.pop();
        match got.filter(|_| must) {
            None => Ok(false),
            Some(Got { id: (driver, pool, device), .. }) => Err(Failure::Claim(format!(
                "claim {}, request {}: cannot add device {driver}/{pool}/{device} because a claim constraint would not be satisfied",
                key_of(&self.claims[claim]),
                way.name
            ))),
        }
    }

    fn has_room(&self, way: &Way<'_>, item: Item<'_>, id: &DeviceId) -> bool {
        capacity::fits(way.capacity, item.device, |name| {
            let taken = self.inventory.taken.shared(id).and_then(|all| all.get(name));
            let here =
                self.got.iter().filter(|got| got.id == *id).filter_map(|got| got.share.as_ref()?.get(name));
            let mut sum: Option<Quantity> = None;
            taken.into_iter().chain(here).for_each(|part| sum.get_or_insert_default().add(part));
            sum
        })
    }

    fn is_shared_already(&self, id: &DeviceId) -> bool {
        self.inventory.taken.shared(id).is_some() || self.got.iter().any(|got| got.id == *id)
    }

    fn holds(&self, claim: usize, constraint: &DeviceConstraint) -> bool {
        let named = constraint.requests.as_deref().unwrap_or_default();
        let is_about = |got: &&Got<'_>| {
            let named = |name: &str| named.iter().any(|n| n == name);
            got.claim == claim
                && (constraint.requests.as_ref().is_none_or(Vec::is_empty)
                    || named(&got.way.name)
                    || named(got.way.parent))
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
                left.insert((&set.name, name), amount(&counter.value));
            }
        }
        for other in item.pool.items() {
            let other_id = other.id();
            let counts = other_id == *id
                || self.inventory.taken.any(&other_id)
                || self.got.iter().any(|got| got.id == other_id);
            for consumed in other.device.consumes_counters.iter().flatten().filter(|_| counts) {
                for (name, counter) in &consumed.counters {
                    if let Some(left) = left.get_mut(&(consumed.counter_set.as_str(), name.as_str())) {
                        left.sub(&amount(&counter.value));
                    }
                }
            }
        }
        left.values().all(|left| left.sign() >= 0)
    }
}

/// An attribute by its full name; the driver's own may be there without its domain.
fn attribute_of<'a>(name: &str, item: &Item<'a>) -> Option<&'a DeviceAttribute> {
    let attributes = item.device.attributes.as_ref()?;
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
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}
