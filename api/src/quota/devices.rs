//! What a claim for devices uses of quotas.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::ResourceClaim;

use super::{number, one};
use crate::pod::Resources;

const COUNT: &str = "count/resourceclaims.resource.k8s.io";
/// `gpu.deviceclass.resource.k8s.io/devices`: devices of the class `gpu`.
const PER_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// `requests.deviceclass.resource.kubernetes.io/gpu`: the same, by the name of an extended resource.
const IMPLICIT: &str = "requests.deviceclass.resource.kubernetes.io/";
/// A claim gets at most so many devices.
const MOST_DEVICES: i64 = 32;

/// A claim for devices, with what else decides what it uses.
pub struct Devices<'a> {
    claim: Cow<'a, ResourceClaim>,
    /// The extended resources that classes go by.
    names: BTreeMap<String, String>,
    /// What the pod that the claim was made for is charged already.
    pod: Resources,
}

impl<'a> Devices<'a> {
    /// A claim alone.
    #[must_use]
    pub fn of(claim: Cow<'a, ResourceClaim>) -> Self {
        Self { claim, names: BTreeMap::new(), pod: Resources::new() }
    }

    /// With the extended resources that classes go by, and what the pod that the claim was made for is charged.
    #[must_use]
    pub fn named(claim: &'a ResourceClaim, names: BTreeMap<String, String>, pod: Resources) -> Self {
        Self { claim: Cow::Borrowed(claim), names, pod }
    }

    /// Whether the claim could use a resource of this name.
    pub(super) fn concerns(&self, name: &str) -> bool {
        name == COUNT
            || name.ends_with(PER_CLASS)
            || name.strip_prefix(IMPLICIT).is_some_and(|class| self.names.contains_key(class))
            || name
                .strip_prefix("requests.")
                .is_some_and(|name| self.names.values().any(|known| known == name))
    }

    /// What the claim uses.
    pub(super) fn usage(&self) -> Resources {
        let mut used = Resources::from([(COUNT.to_owned(), one())]);
        let mut by_name = Resources::new();
        for (class, devices) in per_class(&self.claim) {
            let amount = number(usize::try_from(devices).unwrap_or(0));
            if let Some(name) = self.names.get(&class) {
                by_name.insert(format!("requests.{name}"), amount.clone());
            }
            by_name.insert(format!("{IMPLICIT}{class}"), amount.clone());
            used.insert(format!("{class}{PER_CLASS}"), amount);
        }
        for (name, mut amount) in by_name {
            if let Some(charged) = self.pod.get(&name) {
                amount.sub(charged);
            }
            if amount.sign() > 0 {
                used.insert(name, amount);
            }
        }
        used
    }
}

/// How many devices of each class the claim may get at most.
fn per_class(claim: &ResourceClaim) -> BTreeMap<String, i64> {
    let devices = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("ExactCount") => count.unwrap_or(0),
        Some("All") => MOST_DEVICES,
        _ => 0,
    };
    let mut sums = BTreeMap::new();
    let requests = claim.spec.devices.as_ref().and_then(|devices| devices.requests.as_ref());
    for request in requests.into_iter().flatten() {
        let mut most = BTreeMap::new();
        let ways = request.first_available.iter().flatten();
        for way in ways {
            let count = devices(way.allocation_mode.as_deref(), way.count);
            let known = most.entry(way.device_class_name.clone()).or_insert(0);
            *known = count.max(*known);
        }
        if let Some(exactly) = request.exactly.as_ref().filter(|_| most.is_empty()) {
            let count = devices(exactly.allocation_mode.as_deref(), exactly.count);
            most.insert(exactly.device_class_name.clone(), count);
        }
        for (class, count) in most {
            *sums.entry(class).or_insert(0) += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::quantity::Quantity;

    fn claim(requests: Value) -> ResourceClaim {
        serde_json::from_value(json!({"metadata": {}, "spec": {"devices": {"requests": requests}}}))
            .expect("a claim")
    }

    fn text(used: &Resources) -> String {
        used.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    /// Upstream's cases of `TestResourceClaimEvaluatorUsage`.
    #[test]
    fn claims_are_charged_for_the_most_they_may_get() {
        let exactly = |name: &str, class: &str, mode: &str, count: Option<i64>| json!({"name": name, "exactly": {"deviceClassName": class, "allocationMode": mode, "count": count}});
        let way = |name: &str, class: &str, count: i64| json!({"name": name, "deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let counted = "count/resourceclaims.resource.k8s.io=1";
        for (what, requests, expected) in [
            ("nothing", json!([]), ""),
            (
                "some",
                json!([exactly("a", "gpu", "ExactCount", Some(2))]),
                " gpu.deviceclass.resource.k8s.io/devices=2",
            ),
            ("all", json!([exactly("a", "gpu", "All", None)]), " gpu.deviceclass.resource.k8s.io/devices=32"),
            (
                "an unknown way",
                json!([exactly("a", "gpu", "Other", None)]),
                " gpu.deviceclass.resource.k8s.io/devices=0",
            ),
            (
                "the sum of requests",
                json!([
                    exactly("a", "gpu", "ExactCount", Some(2)),
                    exactly("b", "gpu", "ExactCount", Some(1))
                ]),
                " gpu.deviceclass.resource.k8s.io/devices=3",
            ),
            (
                "the worst of alternatives, by class",
                json!([{"name": "a", "firstAvailable": [way("x", "gpu", 1), way("y", "gpu", 3), way("z", "nic", 2)]}]),
                " gpu.deviceclass.resource.k8s.io/devices=3 nic.deviceclass.resource.k8s.io/devices=2",
            ),
        ] {
            let used = Devices::of(Cow::Owned(claim(requests))).usage();
            let used: Resources =
                used.into_iter().filter(|(name, _)| !name.starts_with("requests.")).collect();
            assert_eq!(text(&used), format!("{counted}{expected}"), "{what}");
        }
    }

    #[test]
    fn names_of_extended_resources_are_charged_too_but_not_twice() {
        let claim = claim(
            json!([{"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3}}]),
        );
        let names = BTreeMap::from([("gpu".to_owned(), "example.com/gpu".to_owned())]);
        let charged = |name: &str, pod: &[(&str, i64)]| {
            let amount = |n: i64| Quantity::new(n, crate::quantity::Format::DecimalSi);
            let pod = pod.iter().map(|(name, n)| ((*name).to_owned(), amount(*n))).collect();
            let devices = Devices::named(&claim, names.clone(), pod);
            (devices.concerns(name), devices.usage().get(name).map(ToString::to_string))
        };
        let (named, implicit) =
            ("requests.example.com/gpu", "requests.deviceclass.resource.kubernetes.io/gpu");
        assert_eq!(charged(named, &[]), (true, Some("3".to_owned())));
        assert_eq!(charged(implicit, &[]), (true, Some("3".to_owned())));
        assert_eq!(charged(named, &[(named, 2)]), (true, Some("1".to_owned())));
        assert_eq!(charged(named, &[(named, 3)]), (true, None));
        assert!(!charged("requests.example.com/nic", &[]).0);
    }
}
