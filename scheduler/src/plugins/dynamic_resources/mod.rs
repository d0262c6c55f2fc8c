//! Devices for pods (KEP-4381): claims get devices that fulfil their requests, on the node that the pod gets.
//!
//! Filtering tries the allocation on each node ([`check`]); the choice is made again when the node is reserved, kept
//! in memory until it is written before the pod is bound ([`promise`]), and counted as taken meanwhile. Devices may be
//! shared ([`capacity`]), may have to be made ready first ([`binding`]), and may go by the name of an extended
//! resource ([`extended`]).

mod allocate;
#[cfg(test)]
mod allocate_tests;
mod binding;
mod capacity;
mod check;
pub(crate) mod extended;
mod inventory;
mod promise;
mod requests;
mod result;
mod select;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, ObjectKey, SharedInformerFactory};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, ResourceClaim, ResourceClaimConsumerReference, ResourceSlice,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::check::{Check, Favour, UNAVAILABLE};
use self::promise::Promise;
use self::select::Selectors;
use crate::config::args::DynamicResourcesArgs;
use crate::framework::{Action, ClusterEvent, Code, Interest, Plugin, PreFilter, Rejection, Resource, Score};
use crate::listers::Lister;
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, uid};
use crate::preemption::{Attempt, PostFilter, Write};
use crate::snapshot::Snapshot;

const NAME: &str = "DynamicResources";
/// So many pods can use a claim.
const MOST_USERS: usize = 256;
/// So long an allocation counts of a claim that was just made, if the claim is never seen.
const UNSEEN: Duration = Duration::from_secs(120);

/// An allocation that is not yet written, or not yet seen written.
#[derive(Clone)]
struct Pending {
    claim: ObjectKey,
    allocation: AllocationResult,
    /// Counts until then although no such claim is seen.
    unseen_until: Option<Instant>,
}

/// All that scheduling knows of devices.
#[derive(Clone)]
pub struct Devices {
    /// Claims.
    pub claims: Lister<ResourceClaim>,
    /// What devices there are.
    pub slices: Lister<ResourceSlice>,
    /// Classes of devices.
    pub classes: Lister<DeviceClass>,
    /// Counts changes of claims.
    pub changes: Arc<watch::Sender<u64>>,
    /// By the UID of their claim.
    pending: Arc<Mutex<HashMap<String, Pending>>>,
    selectors: Arc<Selectors>,
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            claims: Lister::default(),
            slices: Lister::default(),
            classes: Lister::default(),
            changes: Arc::new(watch::Sender::new(0)),
            pending: Arc::default(),
            selectors: Arc::default(),
        }
    }
}

impl Devices {
    /// From informers.
    #[must_use]
    pub fn new(factory: &SharedInformerFactory) -> Self {
        Self {
            claims: factory.informer().into(),
            slices: factory.informer().into(),
            classes: factory.informer().into(),
            ..Self::default()
        }
    }

    /// A claim changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Allocations that count although no claim shows them. Those that one shows by now are forgotten.
    fn pending(&self) -> HashMap<String, Pending> {
        let mut pending = self.pending.lock();
        let now = Instant::now();
        pending.retain(|uid, pending| {
            let seen =
                self.claims.get(&pending.claim).filter(|claim| claim.metadata.uid.as_ref() == Some(uid));
            match seen {
                Some(claim) => allocation(&claim).is_none(),
                None => pending.unseen_until.is_some_and(|until| now < until),
            }
        });
        pending.clone()
    }
}

fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

fn users(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default()
}

fn is_used_by(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    users(claim).iter().any(|user| user.uid == pod.uid())
}

fn key_of(claim: &ResourceClaim) -> ObjectKey {
    ObjectKey::of(claim)
}

/// The plugin.
pub struct DynamicResources {
    devices: Devices,
    args: DynamicResourcesArgs,
    /// What was promised to pods on their way to their nodes, by UID.
    promised: Mutex<HashMap<String, Promise>>,
    /// What was written for pods that did not get their nodes after all.
    broken: Mutex<HashMap<String, Promise>>,
}

impl DynamicResources {
    /// Over what is known of devices.
    #[must_use]
    pub fn new(args: DynamicResourcesArgs, devices: &Devices) -> Self {
        Self { devices: devices.clone(), args, promised: Mutex::default(), broken: Mutex::default() }
    }

    /// The pod's claims; all must exist and be in order.
    fn claims(&self, pod: &PodInfo) -> Result<Vec<Arc<ResourceClaim>>, String> {
        let mut claims = Vec::new();
        for (name, made_for_pod) in names(&pod.pod)? {
            let claim = self.devices.claims.get(&ObjectKey::new(pod.namespace(), &name));
            let claim = claim.ok_or_else(|| format!("resourceclaim.resource.k8s.io {name:?} not found"))?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("resourceclaim {name:?} is being deleted"));
            }
            let mut owners = claim.metadata.owner_references.iter().flatten();
            if made_for_pod && !owners.any(|o| o.controller == Some(true) && o.uid == pod.uid()) {
                let place = pod.namespace();
                return Err(format!(
                    "ResourceClaim {place}/{name} was not created for Pod {place}/{} (Pod is not owner)",
                    pod.name()
                ));
            }
            claims.push(claim);
        }
        Ok(claims)
    }

    fn check(&self, pod: &Arc<PodInfo>) -> Result<Option<Check>, Rejection> {
        let claims = self.claims(pod).map_err(|reason| Rejection::unresolvable(NAME, reason))?;
        Check::of(&self.devices, self.args, pod, claims)
    }

    /// Whether a change of a claim matters to a pod that was refused.
    fn is_about(
        &self,
        pod: &PodInfo,
        old: Option<&Arc<ResourceClaim>>,
        new: Option<&Arc<ResourceClaim>>,
    ) -> bool {
        let Ok(claims) = self.claims(pod) else { return false };
        let had = old.is_some_and(|old| allocation(old).is_some());
        if had && new.is_none_or(|new| allocation(new).is_none()) {
            return true;
        }
        let Some(new) = new else { return false };
        let is_own = claims.iter().any(|claim| claim.metadata.uid == new.metadata.uid);
        is_own && old.is_none_or(|old| old.status != new.status)
    }

    /// A claim that the pod has, and that is in the way of its placement.
    fn in_the_way(&self, attempt: &Attempt<'_>) -> Option<(Arc<ResourceClaim>, bool)> {
        let check = self.check(attempt.pod).ok()??;
        if let Some(stale) = check.stale() {
            return Some((stale, true));
        }
        let refused = |said: &Rejection| said.plugin == NAME && said.message() == UNAVAILABLE;
        let nodes = attempt.diagnosis.nodes_with(refused);
        let nodes = nodes.iter().map(|at| &attempt.snapshot.nodes[*at]);
        let mut unavailable = nodes.flat_map(|node| check.unavailable(node));
        let free = |claim: &&Arc<ResourceClaim>| match users(claim) {
            [] => true,
            [only] => only.uid == attempt.pod.uid(),
            _ => false,
        };
        unavailable.find(free).map(|claim| (claim.clone(), false))
    }
}

/// The names of the pod's claims, and whether each was made for it. Some need none.
fn names(pod: &Pod) -> Result<Vec<(String, bool)>, String> {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let made = || status.and_then(|s| s.resource_claim_statuses.as_ref()).into_iter().flatten();
    let mut names = Vec::new();
    for claim in spec.and_then(|s| s.resource_claims.as_ref()).into_iter().flatten() {
        if let Some(name) = &claim.resource_claim_name {
            names.push((name.clone(), false));
            continue;
        }
        let known = made().find(|status| status.name == claim.name);
        let known = known.ok_or_else(|| {
            let key = ObjectKey::of(pod);
            format!("pod \"{key}\": ResourceClaim not created yet")
        })?;
        names.extend(known.resource_claim_name.clone().map(|name| (name, true)));
    }
    Ok(names)
}

/// Whether another plugin refused the pod before this one was asked (upstream has no state of it then).
fn was_not_asked(attempt: &Attempt<'_>) -> bool {
    let plugins = &attempt.framework.pre_filter;
    let place = |name: &str| plugins.iter().position(|plugin| plugin.name() == name);
    let before = attempt.diagnosis.before.as_ref().filter(|before| before.code == Code::Unresolvable);
    before.is_some_and(|before| place(before.plugin) < place(NAME))
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        let changes = Action::ADD.or(Action::UPDATE);
        vec![
            Interest::of(Resource::ResourceClaim, changes.or(Action::DELETE)),
            Interest::pods(Action::POD_CLAIMS),
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_LABEL).or(Action::NODE_ALLOCATABLE)),
            Interest::of(Resource::DeviceClass, changes),
            Interest::of(Resource::ResourceSlice, changes),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let (_, Some(changed)) = event.pods() {
            return uid(changed) == pod.uid() && self.claims(&PodInfo::new(changed.clone())).is_ok();
        }
        match event.resource_claims() {
            (None, None) => true,
            (old, new) => self.is_about(pod, old, new),
        }
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        self.claims(pod).map(drop).map_err(|reason| Rejection::unresolvable(NAME, reason))
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        Ok(self.check(pod)?.map_or_else(PreFilter::skip, PreFilter::with))
    }

    fn post_filter<'a>(&'a self, attempt: &'a Attempt<'a>) -> Option<BoxFuture<'a, PostFilter>> {
        Some(Box::pin(async move {
            if was_not_asked(attempt) {
                return PostFilter::failed("not found");
            }
            let is_about_claims = matches!(self.check(attempt.pod), Ok(Some(_)));
            match self.in_the_way(attempt) {
                Some((claim, true)) => PostFilter::saying("deletion of ResourceClaim completed")
                    .and(Write::new(move |client| async move { write::delete(&client, &claim).await })),
                Some((claim, false)) => PostFilter::saying("deallocation of ResourceClaim completed")
                    .and(Write::new(move |client| async move { write::deallocate(&client, &claim).await })),
                None if is_about_claims => PostFilter::saying("still not schedulable"),
                None => PostFilter::saying("no new claims to deallocate"),
            }
        }))
    }

    fn pre_score(&self, pod: &Arc<PodInfo>, nodes: &[Arc<NodeInfo>], _: &Snapshot) -> Option<Box<dyn Score>> {
        let check = self.check(pod).ok()??;
        Some(Box::new(Favour::of(&check, nodes)?))
    }

    fn reserve(&self, pod: &Arc<PodInfo>, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(check) = self.check(pod)? else { return Ok(()) };
        let promise = Promise::make(&self.devices, &check, node)?;
        if !promise.is_empty() {
            self.promised.lock().insert(pod.uid().to_owned(), promise);
        }
        Ok(())
    }

    fn unreserve(&self, pod: &PodInfo, _node: &str) {
        let Some(promise) = self.promised.lock().remove(pod.uid()) else { return };
        promise.forget(&self.devices);
        if promise.has_written() {
            self.broken.lock().insert(pod.uid().to_owned(), promise);
        }
    }

    fn has_undo(&self, pod: &PodInfo) -> bool {
        self.broken.lock().contains_key(pod.uid())
    }

    fn undo<'a>(&'a self, client: &'a Client, pod: &'a PodInfo) -> BoxFuture<'a, ()> {
        let broken = self.broken.lock().remove(pod.uid());
        Box::pin(async move {
            if let Some(promise) = broken {
                promise.take_back(client, pod).await;
            }
        })
    }

    fn has_pre_bind(&self, pod: &PodInfo, _node: &str) -> bool {
        self.promised.lock().contains_key(pod.uid())
    }

    fn waits_for(&self, pod: &PodInfo, node: &str) -> Option<(&'static str, String)> {
        let waits = self.promised.lock().get(pod.uid()).is_some_and(Promise::has_conditions);
        let message = || format!("waiting for binding conditions for device on node {node}");
        waits.then(|| ("BindingConditionsPending", message()))
    }

    fn pre_bind<'a>(
        &'a self,
        client: &'a Client,
        pod: &'a PodInfo,
        _node: &'a str,
    ) -> BoxFuture<'a, Result<(), Rejection>> {
        Box::pin(async move {
            let promise = self.promised.lock().get(pod.uid()).cloned();
            let Some(mut promise) = promise else { return Ok(()) };
            let note = |promise: &Promise| {
                if let Some(known) = self.promised.lock().get_mut(pod.uid()) {
                    known.clone_from(promise);
                }
            };
            let kept = promise.keep(client, &self.devices, pod, note).await;
            kept.map_err(|error| Rejection::error(NAME, error))?;
            let ready = promise.wait(&self.devices, self.args.binding_timeout).await;
            ready.map_err(|error| Rejection::error(NAME, error))
        })
    }

    fn post_bind(&self, pod: &PodInfo, _node: &str) {
        self.promised.lock().remove(pod.uid());
    }
}
