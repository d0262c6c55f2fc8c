//! Devices that have to be made ready for a node before the pod is bound (KEP-5007): their drivers say so by
//! conditions of the claim.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceRequestAllocationResult, ResourceClaim,
};

use super::allocation;

/// Whether the claim's devices are ready.
///
/// # Errors
/// One of them will never be.
pub(super) fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(allocation) = allocation(claim) else { return Ok(false) };
    for result in conditional(allocation) {
        let Some(status) = status(claim, result) else { return Ok(false) };
        let condition = |name: &String| {
            let all = status.conditions.iter().flatten();
            all.clone().find(|condition| condition.type_ == *name && condition.status == "True").cloned()
        };
        if let Some(failed) = result.binding_failure_conditions.iter().flatten().find_map(condition) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "device binding failed: claim={name}, reason={}, message={:?}",
                failed.reason, failed.message
            ));
        }
        if !result.binding_conditions.iter().flatten().all(|name| condition(name).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether it takes longer than it may.
pub(super) fn is_late(claim: &ResourceClaim, now: Timestamp, patience: Duration) -> bool {
    let Some(allocation) = allocation(claim) else { return false };
    let Some(since) = &allocation.allocation_timestamp else { return false };
    let waited = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    conditional(allocation).next().is_some() && waited > patience
}

/// The devices that have to be made ready.
pub(super) fn conditional(
    allocation: &AllocationResult,
) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let results = allocation.devices.as_ref().and_then(|devices| devices.results.as_ref());
    let has = |result: &&DeviceRequestAllocationResult| {
        result.binding_conditions.as_ref().is_some_and(|all| !all.is_empty())
    };
    results.into_iter().flatten().filter(has)
}

fn status<'a>(
    claim: &'a ResourceClaim,
    result: &DeviceRequestAllocationResult,
) -> Option<&'a AllocatedDeviceStatus> {
    claim.status.as_ref()?.devices.as_ref()?.iter().find(|status| {
        (&status.driver, &status.pool, &status.device) == (&result.driver, &result.pool, &result.device)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(conditions: Value) -> ResourceClaim {
        let conditions: Vec<_> = conditions.as_object().expect("conditions").iter().map(|(name, status)| {
            json!({"type": name, "status": status, "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"})
        }).collect();
        let id = json!({"driver": "d", "pool": "p", "device": "x"});
        let mut result = json!({"request": "r", "bindingConditions": ["Attached", "Ready"], "bindingFailureConditions": ["Broken"]});
        crate::testing::merge(&mut result, id.clone());
        let mut status = json!({"conditions": conditions});
        crate::testing::merge(&mut status, id);
        serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}, "status": {"devices": [status],
            "allocation": {"allocationTimestamp": "2026-01-01T00:00:00Z", "devices": {"results": [result]}}}}))
        .expect("a claim")
    }

    #[test]
    fn a_claim_is_ready_when_all_its_devices_are() {
        for (conditions, expected) in [
            (json!({}), Ok(false)),
            (json!({"Attached": "True"}), Ok(false)),
            (json!({"Attached": "True", "Ready": "False"}), Ok(false)),
            (json!({"Attached": "True", "Ready": "True"}), Ok(true)),
            (json!({"Attached": "True", "Ready": "True", "Broken": "False"}), Ok(true)),
            (
                json!({"Attached": "True", "Ready": "True", "Broken": "True"}),
                Err("device binding failed: claim=c, reason=R, message=\"m\"".to_owned()),
            ),
        ] {
            assert_eq!(is_ready(&claim(conditions.clone())), expected, "{conditions}");
        }
    }

    #[test]
    fn it_is_late_when_the_time_since_the_allocation_is_over() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let patience = Duration::from_secs(600);
        let mut claim = claim(json!({}));
        assert!(!is_late(&claim, at("2026-01-01T00:10:00Z"), patience));
        assert!(is_late(&claim, at("2026-01-01T00:10:01Z"), patience));
        let devices = claim.status.as_mut().and_then(|s| s.allocation.as_mut()?.devices.as_mut());
        devices.and_then(|d| d.results.as_mut()).expect("results")[0].binding_conditions = None;
        assert!(!is_late(&claim, at("2026-01-02T00:00:00Z"), patience), "nothing has to be waited for");
    }
}
