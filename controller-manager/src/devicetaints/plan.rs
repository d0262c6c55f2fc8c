//! When pods have to leave because of taints on the devices of their claims. Pure.

use crate::common::{meta, pods};
use crate::resourceclaim::plan as claims;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    Device, DeviceRequestAllocationResult, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice,
};
use std::sync::Arc;

/// The effect that makes pods leave. Others, known or not, do not.
const NO_EXECUTE: &str = "NoExecute";

/// The devices that were given to a claim; none if it is not allocated.
pub fn allocated(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    devices.and_then(|devices| devices.results.as_deref()).unwrap_or_default()
}

/// The names of the pods that a claim is reserved for, with their UIDs. Groups of pods are behind a gate in upstream.
pub fn consumers(claim: &ResourceClaim) -> impl Iterator<Item = (&str, &str)> {
    let reserved =
        claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
    reserved
        .iter()
        .filter(|consumer| claims::is_pod(consumer))
        .map(|consumer| (consumer.name.as_str(), consumer.uid.as_str()))
}

/// Whether a slice has a device that pods may have to leave.
pub fn is_tainted(slice: &ResourceSlice) -> bool {
    devices(slice).iter().any(|device| taints(device).next().is_some())
}

fn devices(slice: &ResourceSlice) -> &[Device] {
    slice.spec.devices.as_deref().unwrap_or_default()
}

fn taints(device: &Device) -> impl Iterator<Item = &DeviceTaint> {
    device.taints.iter().flatten().filter(|taint| taint.effect == NO_EXECUTE)
}

/// A device by name. Slices of an older generation of the pool no longer count.
fn find<'a>(pool: &'a [Arc<ResourceSlice>], name: &str) -> Option<&'a Device> {
    let newest = pool.iter().map(|slice| slice.spec.pool.generation).max()?;
    let current = pool.iter().filter(|slice| slice.spec.pool.generation == newest);
    current.flat_map(|slice| devices(slice)).find(|device| device.name == name)
}

/// When the users of a device have to leave because of a taint; `None` if they may stay, or if the taint does not say
/// since when it is there.
fn leave(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let added = taint.time_added.as_ref()?.0;
    // As upstream's claimEvictionTime: one that says no effect does not count here.
    let matching = tolerations.iter().filter(|toleration| {
        toleration.effect.as_deref() == Some(NO_EXECUTE) && tolerates(toleration, taint)
    });
    let mut shortest = None;
    for toleration in matching {
        let seconds = toleration.toleration_seconds?.max(0);
        shortest = Some(shortest.map_or(seconds, |other: i64| other.min(seconds)));
    }
    Some(added.saturating_add(SignedDuration::from_secs(shortest.unwrap_or(0))).unwrap_or(Timestamp::MAX))
}

/// As upstream's ToleratesTaint, when the effect is known to match.
fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

/// When the users of a claim have to leave. `pool` gives the slices of a driver's pool.
fn eviction_of_claim(
    claim: &ResourceClaim,
    pool: &impl Fn(&str, &str) -> Vec<Arc<ResourceSlice>>,
) -> Option<Timestamp> {
    let of_device = |given: &DeviceRequestAllocationResult| {
        let tolerations = given.tolerations.as_deref().unwrap_or_default();
        let slices = pool(&given.driver, &given.pool);
        let device = find(&slices, &given.device)?;
        taints(device).filter_map(|taint| leave(taint, tolerations)).min()
    };
    allocated(claim).iter().filter_map(of_device).min()
}

/// When a pod has to leave; `None` if it may stay. `claim` gives a claim of the pod's namespace.
pub fn eviction(
    pod: &Pod,
    claim: impl Fn(&str) -> Option<Arc<ResourceClaim>>,
    pool: impl Fn(&str, &str) -> Vec<Arc<ResourceSlice>>,
) -> Option<Timestamp> {
    if pods::node_name(pod).is_empty() {
        return None;
    }
    let of_claim = |wanted| {
        let claims::Name::Known(name, own) = claims::name_of(pod, wanted) else { return None };
        let claim = claim(&name)?;
        let ours = consumers(&claim).any(|(_, uid)| uid == meta::uid(&pod.metadata));
        if !ours || (own && !claims::is_for(pod, &claim)) {
            return None;
        }
        eviction_of_claim(&claim, &pool)
    };
    claims::claims_of(pod).iter().filter_map(of_claim).min()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
