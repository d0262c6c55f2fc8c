//! Devices for pods (KEP-4381): claims get devices that fulfil their requests, on the node that the pod gets.
//!
//! Filtering tries the allocation on each node; the choice is made again when the node is reserved, kept in memory
//! until it is written before the pod is bound, and counted as taken meanwhile. Not there: devices that several
//! claims share, extended resources backed by devices, conditions of devices to wait for, and taking unused
//! allocations back.

mod allocate;
mod inventory;
mod select;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use client::kube::api::PostParams;
use client::{Api, Client, ObjectKey, SharedInformerFactory};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, ResourceClaim, ResourceClaimConsumerReference, ResourceSlice,
};
use parking_lot::Mutex;

use self::inventory::Inventory;
use self::select::Selectors;
use super::selector::selector_matches;
use crate::framework::{Action, ClusterEvent, Filter, Interest, Plugin, PreFilter, Rejection, Resource};
use crate::listers::Lister;
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, uid};
use crate::snapshot::Snapshot;
use crate::volumes::global;

const NAME: &str = "DynamicResources";
/// Keeps a claim until its devices are free again.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// So many pods can use a claim.
const MOST_USERS: usize = 256;
/// How often a claim is written again if somebody else wrote it.
const TRIES: usize = 5;

/// All that scheduling knows of devices.
#[derive(Clone, Default)]
pub struct Devices {
    /// Claims.
    pub claims: Lister<ResourceClaim>,
    /// What devices there are.
    pub slices: Lister<ResourceSlice>,
    /// Classes of devices.
    pub classes: Lister<DeviceClass>,
    /// Allocations that are not yet written, or not yet seen written, by the UID of their claim.
    pending: Arc<Mutex<HashMap<String, (ObjectKey, AllocationResult)>>>,
    selectors: Arc<Selectors>,
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

    /// Allocations that count although no claim shows them. Those that one shows by now are forgotten.
    fn pending(&self) -> HashMap<String, (ObjectKey, AllocationResult)> {
        let mut pending = self.pending.lock();
        pending.retain(|uid, (key, _)| {
            let seen = self.claims.get(key);
            seen.is_some_and(|claim| claim.metadata.uid.as_ref() == Some(uid) && allocation(&claim).is_none())
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

/// A claim, and what it is to get if it has nothing yet.
type Promise = Vec<(ObjectKey, Option<AllocationResult>)>;

/// The plugin.
pub struct DynamicResources {
    devices: Devices,
    /// What was promised to pods on their way to their nodes, by UID.
    promised: Mutex<HashMap<String, Promise>>,
}

impl DynamicResources {
    /// Over what is known of devices.
    #[must_use]
    pub fn new(devices: &Devices) -> Self {
        Self { devices: devices.clone(), promised: Mutex::default() }
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

    fn check(&self, pod: &PodInfo) -> Result<Option<Check>, Rejection> {
        let refuse = |reason: String| Rejection::unresolvable(NAME, reason);
        let claims = self.claims(pod).map_err(refuse)?;
        if claims.is_empty() {
            return Ok(None);
        }
        let pending = self.devices.pending();
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
            for (request, class) in allocate::classes(claim) {
                if self.devices.classes.get(&global(class)).is_none() {
                    return Err(refuse(format!("request {request}: device class {class} does not exist")));
                }
            }
        }
        let inventory = Inventory::new(&self.devices, pending.values().map(|(_, allocation)| allocation));
        let devices = self.devices.clone();
        Ok(Some(Check {
            devices,
            allocated: Arc::new(allocated),
            new: Arc::new(new),
            inventory: Arc::new(inventory),
        }))
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

#[derive(Clone)]
struct Check {
    devices: Devices,
    /// Claims that have their devices.
    allocated: Arc<Vec<Arc<ResourceClaim>>>,
    /// Claims that need some.
    new: Arc<Vec<Arc<ResourceClaim>>>,
    inventory: Arc<Inventory>,
}

impl Check {
    /// What the new claims get on the node.
    fn allocate(&self, node: &Node) -> Result<Vec<AllocationResult>, Rejection> {
        if self.new.is_empty() {
            return Ok(Vec::new());
        }
        match allocate::allocate(&self.devices, &self.inventory, node, &self.new) {
            Ok(Some(results)) => Ok(results),
            Ok(None) => Err(Rejection::unresolvable(NAME, "cannot allocate all claims")),
            Err(error) => Err(Rejection::error(NAME, error)),
        }
    }
}

impl Filter for Check {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let elsewhere = |claim: &Arc<ResourceClaim>| {
            let selector = allocation(claim).and_then(|a| a.node_selector.as_ref());
            selector.is_some_and(|selector| !selector_matches(selector, &node.node))
        };
        if self.allocated.iter().any(elsewhere) {
            return Err(Rejection::unresolvable(NAME, "resourceclaim not available on the node"));
        }
        self.allocate(&node.node).map(drop)
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
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
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_LABEL)),
            Interest::of(Resource::DeviceClass, changes),
            Interest::of(Resource::ResourceSlice, changes),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let (_, Some(changed)) = event.pods() {
            return uid(changed) == pod.uid();
        }
        match event.resource_claims() {
            (None, None) => true,
            (old, new) => {
                let frees = old.is_some_and(|old| allocation(old).is_some())
                    && new.is_none_or(|new| allocation(new).is_none());
                let own = new.is_some_and(|new| {
                    let names = names(&pod.pod).unwrap_or_default();
                    new.metadata.namespace.as_deref() == Some(pod.namespace())
                        && names.iter().any(|(name, _)| Some(name) == new.metadata.name.as_ref())
                });
                frees || own
            }
        }
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        self.claims(pod).map(drop).map_err(|reason| Rejection::unresolvable(NAME, reason))
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        Ok(self.check(pod)?.map_or_else(PreFilter::skip, PreFilter::with))
    }

    fn reserve(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(check) = self.check(pod)? else { return Ok(()) };
        let results = check.allocate(&node.node)?;
        let mut pending = self.devices.pending.lock();
        let mut promise: Promise = Vec::new();
        for (claim, result) in check.new.iter().zip(results) {
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            pending.insert(uid, (key_of(claim), result.clone()));
            promise.push((key_of(claim), Some(result)));
        }
        let unused = check.allocated.iter().filter(|claim| !is_used_by(claim, pod));
        promise.extend(unused.map(|claim| (key_of(claim), None)));
        if !promise.is_empty() {
            self.promised.lock().insert(pod.uid().to_owned(), promise);
        }
        Ok(())
    }

    fn unreserve(&self, pod: &PodInfo, _node: &str) {
        let Some(promise) = self.promised.lock().remove(pod.uid()) else { return };
        let mut pending = self.devices.pending.lock();
        pending.retain(|_, (key, _)| !promise.iter().any(|(k, result)| k == key && result.is_some()));
    }

    fn has_pre_bind(&self, pod: &PodInfo, _node: &str) -> bool {
        self.promised.lock().contains_key(pod.uid())
    }

    fn pre_bind<'a>(
        &'a self,
        client: &'a Client,
        pod: &'a PodInfo,
        _node: &'a str,
    ) -> BoxFuture<'a, Result<(), Rejection>> {
        let promise = self.promised.lock().get(pod.uid()).cloned().unwrap_or_default();
        Box::pin(async move {
            for (key, result) in promise {
                let written = write(client, pod, &key, result.as_ref()).await;
                written.map_err(|error| Rejection::error(NAME, error))?;
            }
            Ok(())
        })
    }

    fn post_bind(&self, pod: &PodInfo, _node: &str) {
        self.promised.lock().remove(pod.uid());
    }
}

/// Writes what a claim gets, and who uses it.
async fn write(
    client: &Client,
    pod: &PodInfo,
    key: &ObjectKey,
    result: Option<&AllocationResult>,
) -> Result<(), String> {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), &key.namespace);
    let mut failed = String::new();
    for _ in 0..TRIES {
        let claim = api.get(&key.name).await.map_err(|error| client::chain(&error))?;
        match write_once(&api, pod, claim, result).await {
            Err(error) if client::is_conflict(&error) => failed = client::chain(&error),
            Err(error) => return Err(format!("add reservation to claim {key}: {}", client::chain(&error))),
            Ok(outcome) => return outcome.map_err(|reason| format!("claim {key} {reason}")),
        }
    }
    Err(format!("add reservation to claim {key}: {failed}"))
}

async fn write_once(
    api: &Api<ResourceClaim>,
    pod: &PodInfo,
    mut claim: ResourceClaim,
    result: Option<&AllocationResult>,
) -> client::kube::Result<Result<(), &'static str>> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Ok(Err("got deleted in the meantime"));
    }
    let name = claim.metadata.name.clone().unwrap_or_default();
    match (result, allocation(&claim)) {
        (Some(_), Some(_)) => return Ok(Err("got allocated elsewhere in the meantime")),
        (None, None) => return Ok(Err("got deallocated elsewhere in the meantime")),
        _ => {}
    }
    if let Some(result) = result {
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            claim = api.replace(&name, &PostParams::default(), &claim).await?;
        }
        claim.status.get_or_insert_default().allocation = Some(result.clone());
    }
    if !is_used_by(&claim, pod) {
        let user = ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
        };
        claim.status.get_or_insert_default().reserved_for.get_or_insert_default().push(user);
    }
    api.replace_status(&name, &PostParams::default(), &claim).await.map(|_| Ok(()))
}
