//! What claims ask for: every request with the ways to fulfil it, the best first.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClaim, DeviceClass, DeviceConstraint, DeviceRequest, DeviceSelector,
    DeviceToleration, ResourceClaim,
};

use super::Devices;
use crate::volumes::global;

/// A request has at most so many alternatives.
pub(super) const MOST_WAYS: i64 = 8;

/// One way to fulfil a request.
pub(super) struct Way<'a> {
    /// `request`, or `request/subrequest`.
    pub(super) name: String,
    /// The request.
    pub(super) parent: &'a str,
    pub(super) class: Arc<DeviceClass>,
    pub(super) selectors: &'a [DeviceSelector],
    pub(super) tolerations: &'a [DeviceToleration],
    /// How much of a device that can be shared.
    pub(super) capacity: Option<&'a CapacityRequirements>,
    pub(super) admin: bool,
    /// How many devices; none: all there are.
    pub(super) count: Option<usize>,
}

/// A request of a claim.
pub(super) struct Wanted<'a> {
    pub(super) claim: usize,
    pub(super) ways: Vec<Way<'a>>,
}

/// The classes of devices that a claim asks for, by request.
///
/// # Errors
/// A request asks in a way that is not known.
pub(super) fn classes(claim: &ResourceClaim) -> Result<Vec<(String, &str)>, String> {
    let mut classes = Vec::new();
    for request in requests(claim) {
        let first = request.first_available.iter().flatten();
        let before = classes.len();
        let exactly = request.exactly.iter().map(|e| (request.name.clone(), e.device_class_name.as_str()));
        classes.extend(exactly);
        classes.extend(first.map(|s| (format!("{}/{}", request.name, s.name), s.device_class_name.as_str())));
        if classes.len() == before {
            let key = super::key_of(claim);
            return Err(format!("resource claim {key}, request {}: unknown request type", request.name));
        }
    }
    Ok(classes)
}

/// The requests of a claim.
pub(super) fn requests(claim: &ResourceClaim) -> &[DeviceRequest] {
    devices(claim).and_then(|devices| devices.requests.as_deref()).unwrap_or_default()
}

/// What a claim says of devices.
pub(super) fn devices(claim: &ResourceClaim) -> Option<&DeviceClaim> {
    claim.spec.devices.as_ref()
}

/// All requests of the claims.
///
/// # Errors
/// A class is not there.
pub(super) fn wanted<'a>(
    devices: &Devices,
    claims: &'a [Arc<ResourceClaim>],
) -> Result<Vec<Wanted<'a>>, String> {
    let mut wanted = Vec::new();
    for (at, claim) in claims.iter().enumerate() {
        let constraints = self::devices(claim).and_then(|devices| devices.constraints.as_ref());
        let is_empty = |c: &DeviceConstraint| c.match_attribute.is_none() && c.distinct_attribute.is_none();
        if let Some(empty) = constraints.and_then(|all| all.iter().position(is_empty)) {
            let key = super::key_of(claim);
            return Err(format!(
                "claim {key}, constraint #{empty}: empty constraint (unsupported constraint type?)"
            ));
        }
        for request in requests(claim) {
            let ways =
                ways(devices, request).map_err(|error| format!("claim {}, {error}", super::key_of(claim)))?;
            wanted.push(Wanted { claim: at, ways });
        }
    }
    Ok(wanted)
}

fn ways<'a>(devices: &Devices, request: &'a DeviceRequest) -> Result<Vec<Way<'a>>, String> {
    let class = |request: &str, name: &str| {
        let found = devices.classes.get(&global(name));
        found.ok_or_else(|| format!("request {request}: could not retrieve device class {name}"))
    };
    let count = |request: &str, mode: Option<&str>, count: Option<i64>| match mode {
        Some("All") => Ok(None),
        None | Some("ExactCount") => Ok(Some(usize::try_from(count.unwrap_or(1)).unwrap_or(1))),
        Some(other) => Err(format!("request {request}: unsupported count mode {other}")),
    };
    let selectors = |request: &str, selectors: &'a Option<Vec<DeviceSelector>>| {
        let all = selectors.as_deref().unwrap_or_default();
        match all.iter().position(|selector| selector.cel.is_none()) {
            None => Ok(all),
            Some(at) => Err(format!(
                "request {request}, selector #{at}: CEL expression empty (unsupported selector type?)"
            )),
        }
    };
    let mut ways = Vec::new();
    if let Some(exactly) = &request.exactly {
        ways.push(Way {
            name: request.name.clone(),
            parent: &request.name,
            class: class(&request.name, &exactly.device_class_name)?,
            selectors: selectors(&request.name, &exactly.selectors)?,
            tolerations: exactly.tolerations.as_deref().unwrap_or_default(),
            capacity: exactly.capacity.as_ref(),
            admin: exactly.admin_access == Some(true),
            count: count(&request.name, exactly.allocation_mode.as_deref(), exactly.count)?,
        });
    }
    for sub in request.first_available.iter().flatten() {
        ways.push(Way {
            name: format!("{}/{}", request.name, sub.name),
            parent: &request.name,
            class: class(&sub.name, &sub.device_class_name)?,
            selectors: selectors(&sub.name, &sub.selectors)?,
            tolerations: sub.tolerations.as_deref().unwrap_or_default(),
            capacity: sub.capacity.as_ref(),
            admin: false,
            count: count(&sub.name, sub.allocation_mode.as_deref(), sub.count)?,
        });
    }
    Ok(ways)
}

/// How good what was chosen for a claim is: earlier alternatives count for more (upstream `computeScore`).
pub(super) fn score<'a>(claim: &ResourceClaim, chosen: impl Iterator<Item = &'a str> + Clone) -> i64 {
    let mut score = 0;
    for request in requests(claim) {
        for (rank, sub) in (0..).zip(request.first_available.iter().flatten()) {
            let name = format!("{}/{}", request.name, sub.name);
            if chosen.clone().any(|chosen| chosen == name) {
                score += MOST_WAYS - rank;
            }
        }
    }
    score
}
