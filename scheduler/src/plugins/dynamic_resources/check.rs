//! Whether a pod's claims can have their devices on a node.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::allocate::{self, Failure};
use super::extended::{Extended, Mappings};
use super::inventory::Inventory;
use super::{Devices, MOST_USERS, NAME, allocation, binding, is_used_by, key_of, requests, users};
use crate::config::args::DynamicResourcesArgs;
use crate::framework::{Filter, Rejection, Score, scale};
use crate::node_info::NodeInfo;
use crate::plugins::selector::selector_matches;
use crate::pod_info::PodInfo;
use crate::volumes::global;

/// Said of a node that claims with devices cannot be used on.
pub(super) const UNAVAILABLE: &str = "resourceclaim not available on the node";

/// What filtering needs to know.
#[derive(Clone)]
pub(super) struct Check {
    devices: Devices,
    args: DynamicResourcesArgs,
    /// Claims that have their devices.
    pub(super) allocated: Arc<Vec<Arc<ResourceClaim>>>,
    /// Claims that need some.
    new: Arc<Vec<Arc<ResourceClaim>>>,
    inventory: Arc<Inventory>,
    extended: Option<Arc<Extended>>,
}

/// What claims get on a node.
pub(super) struct Found {
    /// Each claim that needs some, with what it gets.
    pub(super) claims: Vec<(Arc<ResourceClaim>, AllocationResult)>,
    /// Which containers use the last of them, if it is for extended resources.
    pub(super) mappings: Option<Mappings>,
}

impl Check {
    /// None if the pod needs no devices.
    pub(super) fn of(
        devices: &Devices,
        args: DynamicResourcesArgs,
        pod: &Arc<PodInfo>,
        claims: Vec<Arc<ResourceClaim>>,
    ) -> Result<Option<Self>, Rejection> {
        let refuse = |reason: String| Rejection::unresolvable(NAME, reason);
        let extended = Extended::of(pod, &devices.classes, &devices.claims);
        if claims.is_empty() && extended.is_none() {
            return Ok(None);
        }
        let pending = devices.pending();
        for claim in &claims {
            if allocation(claim).is_some() && !is_used_by(claim, pod) && users(claim).len() >= MOST_USERS {
                return Err(refuse("resourceclaim in use".into()));
            }
            if claim.metadata.uid.as_ref().is_some_and(|uid| pending.contains_key(uid)) {
                let key = key_of(claim);
                return Err(refuse(format!("resource claim {key} is in the process of being allocated")));
            }
        }
        let (allocated, new): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| allocation(claim).is_some());
        for claim in &new {
            for (request, class) in requests::classes(claim).map_err(refuse)? {
                if devices.classes.get(&global(class)).is_none() {
                    return Err(refuse(format!("request {request}: device class {class} does not exist")));
                }
            }
        }
        let inventory = Inventory::new(devices, pending.values().map(|pending| &pending.allocation));
        Ok(Some(Self {
            devices: devices.clone(),
            args,
            allocated: Arc::new(allocated),
            new: Arc::new(new),
            inventory: Arc::new(inventory),
            extended: extended.map(Arc::new),
        }))
    }

    /// A claim for extended resources that an earlier attempt has left.
    pub(super) fn stale(&self) -> Option<Arc<ResourceClaim>> {
        self.extended.as_ref()?.stale.clone()
    }

    /// The claims with devices that cannot be used on the node, or that wait for them in vain.
    pub(super) fn unavailable<'a>(
        &'a self,
        node: &'a NodeInfo,
    ) -> impl Iterator<Item = &'a Arc<ResourceClaim>> {
        let now = Timestamp::now();
        self.allocated.iter().filter(move |claim| {
            let selector = allocation(claim).and_then(|a| a.node_selector.as_ref());
            let elsewhere = selector.is_some_and(|selector| !selector_matches(selector, &node.node));
            elsewhere
                || match binding::is_ready(claim) {
                    Err(_) => true,
                    Ok(ready) => !ready && binding::is_late(claim, now, self.args.binding_timeout),
                }
        })
    }

    /// What claims get on the node.
    pub(super) fn on(&self, node: &NodeInfo) -> Result<Found, Rejection> {
        let special = self.extended.as_ref().map(|extended| extended.on(node)).transpose()?.flatten();
        if self.new.is_empty() && special.is_none() {
            return Ok(Found { claims: Vec::new(), mappings: None });
        }
        let mut claims = Vec::clone(&self.new);
        let mappings = special.map(|(claim, mappings)| {
            claims.push(Arc::new(claim));
            mappings
        });
        let deadline =
            (!self.args.filter_timeout.is_zero()).then(|| Instant::now() + self.args.filter_timeout);
        match allocate::allocate(&self.devices, &self.inventory, &node.node, &claims, deadline) {
            Ok(Some(results)) => Ok(Found { claims: claims.into_iter().zip(results).collect(), mappings }),
            Ok(None) => Err(Rejection::unresolvable(NAME, "cannot allocate all claims")),
            Err(Failure::Node(reason)) => Err(Rejection::unresolvable(NAME, reason)),
            Err(Failure::Claim(error)) => Err(Rejection::error(NAME, error)),
            Err(Failure::Late) => {
                let error = format!("node {}: timed out trying to allocate devices", node.name());
                Err(Rejection::error(NAME, error))
            }
        }
    }
}

impl Filter for Check {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.on(node)?;
        if self.unavailable(node).next().is_some() {
            return Err(Rejection::unresolvable(NAME, UNAVAILABLE));
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// Nodes where claims get what they would rather have are better.
pub(super) struct Favour {
    scores: Vec<(String, i64)>,
}

impl Favour {
    /// None if claims have no alternatives.
    pub(super) fn of(check: &Check, nodes: &[Arc<NodeInfo>]) -> Option<Self> {
        let mut all = check.allocated.iter().chain(check.new.iter());
        let has_choice = |claim: &Arc<ResourceClaim>| {
            requests::requests(claim).iter().any(|request| request.first_available.is_some())
        };
        if !all.any(has_choice) {
            return None;
        }
        let score = |claim: &ResourceClaim, allocation: &AllocationResult| {
            let devices = allocation.devices.as_ref().and_then(|devices| devices.results.as_ref());
            requests::score(claim, devices.into_iter().flatten().map(|device| device.request.as_str()))
        };
        let before = check.allocated.iter().filter_map(|claim| Some(score(claim, allocation(claim)?)));
        let before: i64 = before.sum();
        let scores = nodes.iter().map(|node| {
            let found = check.on(node).map(|found| found.claims).unwrap_or_default();
            let now = found.iter().map(|(claim, allocation)| score(claim, allocation));
            (node.name().to_owned(), before + now.sum::<i64>())
        });
        Some(Self { scores: scores.collect() })
    }
}

impl Score for Favour {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.scores.iter().find(|(name, _)| name == node.name()).map_or(0, |(_, score)| *score)
    }

    fn normalize(&self, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        scale(scores, false);
    }
}
