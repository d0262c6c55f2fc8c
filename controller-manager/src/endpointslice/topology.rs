//! Topology-aware routing: which zone's clients each endpoint is for, so that every zone has its share of the endpoints
//! by its share of the CPUs. Pure. As upstream's k8s.io/endpointslice/topologycache; ties go to the zone whose name
//! comes first, where upstream takes any.

use crate::common::{meta, nodes};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};
use std::collections::BTreeMap;
use std::sync::Arc;

/// By how much of its share an endpoint may be overloaded.
const OVERLOAD: f64 = 0.2;
/// Nodes with these labels run no workloads.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// The annotations of a Service that ask for this; the first that is there counts.
const ANNOTATIONS: [&str; 2] =
    ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"];

/// Whether the Service asks for hints by topology.
pub fn is_wanted(service: &Service) -> bool {
    let said = ANNOTATIONS.iter().find_map(|key| meta::annotation(&service.metadata, key));
    matches!(said, Some("Auto" | "auto"))
}

/// How many endpoints there are for each zone.
pub type Counts = BTreeMap<String, usize>;

/// Each zone's part of the CPUs of all nodes; empty if that is not known, or if there is only one zone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Zones(BTreeMap<String, f64>);

impl Zones {
    /// Of these nodes. One that is ready and does not say its zone or its CPUs spoils it for all.
    pub fn of(nodes: &[Arc<Node>]) -> Self {
        let mut millis = BTreeMap::<String, i64>::new();
        let counts = |node: &&Arc<Node>| {
            !EXCLUDED.iter().any(|label| meta::label(&node.metadata, label).is_some())
                && nodes::condition(node, "Ready") == Some("True")
        };
        for node in nodes.iter().filter(counts) {
            let (Some(zone), cpu @ 1..) = (super::endpoints::zone(node), cpu(node)) else {
                return Self::default();
            };
            *millis.entry(zone.to_owned()).or_default() += cpu;
        }
        if millis.len() < 2 {
            return Self::default();
        }
        let total = millis.values().sum::<i64>() as f64;
        Self(millis.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / total)).collect())
    }

    /// Whether a Service with so many endpoints for each zone has too few for one.
    pub fn overload(&self, counts: &Counts) -> bool {
        if counts.is_empty() || self.0.is_empty() {
            return !counts.is_empty();
        }
        let total = counts.values().sum::<usize>();
        self.0
            .iter()
            .any(|(zone, ratio)| counts.get(zone).is_none_or(|count| *count < least(*ratio * total as f64)))
    }

    /// What each zone is to have of so many endpoints; the error is why that cannot be.
    fn shares(&self, endpoints: usize) -> Result<BTreeMap<&str, Share>, String> {
        if self.0.is_empty() {
            return Err(
                "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
                    .to_owned(),
            );
        }
        let counts = || format!("({endpoints} endpoints, {} zones)", self.0.len());
        if self.0.len() > endpoints {
            return Err(format!("Insufficient number of endpoints {}", counts()));
        }
        let wishes = self.0.iter().map(|(zone, ratio)| (zone.as_str(), ratio * endpoints as f64));
        let wishes: Vec<_> = wishes.map(|(zone, wish)| (zone, wish, least(wish))).collect();
        let spoken_for: usize = wishes.iter().map(|(_, _, least)| least).sum();
        let Some(spare) = endpoints.checked_sub(spoken_for) else {
            return Err(format!(
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold {}",
                counts()
            ));
        };
        let share = |(zone, wish, least): (_, f64, usize)| {
            (zone, Share { most: least + spare, wish: wish.max(least as f64) })
        };
        Ok(wishes.into_iter().map(share).collect())
    }
}

/// The endpoints that a zone needs at least, when its fair part is `wish`.
fn least(wish: f64) -> usize {
    (wish * (1.0 / (1.0 + OVERLOAD))).ceil().max(0.0) as usize
}

fn cpu(node: &Node) -> i64 {
    let amount = node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu"));
    amount.and_then(|text| Quantity::parse(&text.0).ok()).map_or(0, |amount| amount.milli_value())
}

/// What a zone is to have.
struct Share {
    /// At most so many, or another would not have what it needs.
    most: usize,
    /// Its fair part.
    wish: f64,
}

/// The slices of a Service, of one type of addresses.
pub struct Slices<'a> {
    /// Those to be created.
    pub create: &'a mut Vec<EndpointSlice>,
    /// Those to be written anew.
    pub update: &'a mut Vec<EndpointSlice>,
    /// Those that may stay as they are. One that cannot moves to `update`.
    pub unchanged: Vec<EndpointSlice>,
}

/// Gives hints to all slices; how many endpoints there are for each zone then. If that cannot be, all hints are taken
/// away, and the error says why.
pub fn add_hints(zones: &Zones, mut slices: Slices<'_>) -> Result<Counts, String> {
    let result = try_add(zones, &mut slices);
    if result.is_err() {
        remove_hints(slices);
    }
    result
}

fn try_add(zones: &Zones, slices: &mut Slices<'_>) -> Result<Counts, String> {
    let all = slices.create.iter().chain(slices.update.iter()).chain(&slices.unchanged);
    let shares = zones.shares(all.flat_map(endpoints).filter(|endpoint| is_ready(endpoint)).count())?;
    let mut counts = Counts::new();
    for slice in std::mem::take(&mut slices.unchanged) {
        match kept(&slice, &counts, &shares) {
            Some(kept) => {
                kept.into_iter().for_each(|(zone, count)| *counts.entry(zone).or_default() += count);
                slices.unchanged.push(slice);
            }
            None => slices.update.push(slice),
        }
    }
    let mut open: Vec<_> = slices
        .create
        .iter_mut()
        .chain(slices.update.iter_mut())
        .flat_map(|slice| slice.endpoints.iter_mut().flatten())
        .filter(|endpoint| is_ready(endpoint))
        .collect();
    for endpoint in &mut open {
        let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty());
        let zone = zone.ok_or("One or more endpoints do not have a zone specified")?;
        *counts.entry(zone.clone()).or_default() += 1;
        endpoint.hints = Some(for_zone(zone));
    }
    redistribute(&mut open, exchange(&shares, &counts), &mut counts);
    if counts.is_empty() {
        return Err("No hints allocated for zones".to_owned());
    }
    Ok(counts)
}

/// Takes all hints away.
pub fn remove_hints(slices: Slices<'_>) {
    for slice in slices.unchanged {
        if endpoints(&slice).iter().any(|endpoint| endpoint.hints.is_some()) {
            slices.update.push(slice);
        }
    }
    let changed = slices.create.iter_mut().chain(slices.update);
    changed.flat_map(|slice| slice.endpoints.iter_mut().flatten()).for_each(|endpoint| endpoint.hints = None);
}

fn endpoints(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

fn for_zone(name: String) -> EndpointHints {
    EndpointHints { for_zones: Some(vec![ForZone { name }]), for_nodes: None }
}

/// The hints of a slice that may stay: every ready endpoint has one, for a zone that exists, and no zone gets more than
/// it may, together with what it has already.
fn kept(slice: &EndpointSlice, already: &Counts, shares: &BTreeMap<&str, Share>) -> Option<Counts> {
    let mut counts = Counts::new();
    for endpoint in endpoints(slice).iter().filter(|endpoint| is_ready(endpoint)) {
        let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        if zones.is_empty() {
            return None;
        }
        for zone in zones {
            shares.get(zone.name.as_str())?;
            *counts.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = counts.iter().all(|(zone, count)| {
        let most = shares.get(zone.as_str()).map_or(0, |share| share.most);
        count + already.get(zone).copied().unwrap_or(0) <= most
    });
    fits.then_some(counts)
}

/// How many endpoints zones give, and how many zones receive.
type Exchange = (Counts, Counts);

/// Decides which zones give endpoints to which: from the one that has most too many to the one that lacks most, as long
/// as that makes it better.
fn exchange(shares: &BTreeMap<&str, Share>, counts: &Counts) -> Exchange {
    let (mut surplus, mut lack) = (BTreeMap::new(), BTreeMap::new());
    for (zone, share) in shares {
        let difference = counts.get(*zone).copied().unwrap_or(0) as f64 - share.wish;
        if difference > 0.0 {
            surplus.insert(*zone, difference);
        } else if difference < 0.0 {
            lack.insert(*zone, -difference);
        }
    }
    let (mut giving, mut receiving) = (Counts::new(), Counts::new());
    while let (Some((from, give)), Some((to, take))) = (most(&surplus), most(&lack)) {
        if (give < 1.0 && take < 1.0) || give < 0.5 || take < 0.5 {
            break;
        }
        for (side, left, zone) in [(&mut giving, &mut surplus, from), (&mut receiving, &mut lack, to)] {
            *side.entry(zone.to_owned()).or_default() += 1;
            left.entry(zone).and_modify(|left| *left -= 1.0);
        }
    }
    (giving, receiving)
}

fn most<'a>(zones: &BTreeMap<&'a str, f64>) -> Option<(&'a str, f64)> {
    let mut found: Option<(&str, f64)> = None;
    for (zone, amount) in zones {
        if *amount > found.map_or(0.0, |(_, most)| most) {
            found = Some((zone, *amount));
        }
    }
    found
}

/// Gives endpoints of zones that have too many to zones that lack some.
fn redistribute(open: &mut [&mut Endpoint], (mut giving, mut receiving): Exchange, counts: &mut Counts) {
    for endpoint in open {
        let Some(from) = endpoint.zone.clone() else { continue };
        let Some(left) = giving.get_mut(&from).filter(|left| **left > 0) else { continue };
        let Some((to, wanted)) = receiving.iter_mut().find(|(_, wanted)| **wanted > 0) else { return };
        endpoint.hints = Some(for_zone(to.clone()));
        *left -= 1;
        *wanted -= 1;
        *counts.entry(to.clone()).or_default() += 1;
        counts.entry(from).and_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;
