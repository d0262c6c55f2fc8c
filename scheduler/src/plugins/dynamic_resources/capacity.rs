//! How much of a device that can be shared a request takes (upstream `consumable_capacity.go`).

use std::collections::BTreeMap;

use api::quantity::{Format, Quantity};
use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, CapacityRequirements, Device, DeviceCapacity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Amounts by the name of a capacity.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// An amount as it is written.
pub(super) fn amount(quantity: &ApiQuantity) -> Quantity {
    Quantity::parse(&quantity.0).unwrap_or_default()
}

fn asked(request: Option<&CapacityRequirements>, name: &str) -> Option<Quantity> {
    request?.requests.as_ref()?.get(name).map(amount)
}

/// What the device gives for the request.
pub(super) fn consumed(request: Option<&CapacityRequirements>, device: &Device) -> Amounts {
    let capacities = device.capacity.iter().flatten();
    capacities.map(|(name, capacity)| (name.clone(), rounded(asked(request, name), capacity))).collect()
}

/// Whether the device has that much left, `used` being what others have of it.
pub(super) fn fits(
    request: Option<&CapacityRequirements>,
    device: &Device,
    used: impl Fn(&str) -> Option<Quantity>,
) -> bool {
    let has = |name: &String| device.capacity.as_ref().is_some_and(|all| all.contains_key(name));
    if !request.and_then(|r| r.requests.as_ref()).is_none_or(|wanted| wanted.keys().all(has)) {
        return false;
    }
    device.capacity.iter().flatten().all(|(name, capacity)| {
        let wanted = rounded(asked(request, name), capacity);
        if !is_allowed(&wanted, capacity.request_policy.as_ref()) {
            return false;
        }
        let mut sum = wanted;
        if let Some(used) = used(name) {
            sum.add(&used);
        }
        sum <= amount(&capacity.value)
    })
}

/// The amount that is taken if so much is asked for.
fn rounded(asked: Option<Quantity>, capacity: &DeviceCapacity) -> Quantity {
    let policy = capacity.request_policy.as_ref();
    let Some(asked) = asked else {
        return amount(policy.and_then(|policy| policy.default.as_ref()).unwrap_or(&capacity.value));
    };
    let Some(policy) = policy else { return asked };
    if let Some(range) = &policy.valid_range {
        return in_range(asked, range);
    }
    let values = policy.valid_values.iter().flatten().map(amount);
    values.into_iter().find(|value| asked <= *value).unwrap_or(asked)
}

/// Up to the next step.
fn in_range(asked: Quantity, range: &CapacityRequestPolicyRange) -> Quantity {
    let least = amount(&range.min);
    if asked < least {
        return least;
    }
    let Some(step) = range.step.as_ref().map(|step| amount(step).value()).filter(|step| *step > 0) else {
        return asked;
    };
    let more = asked.value().saturating_sub(least.value());
    let steps = more / step + i64::from(more % step != 0);
    Quantity::new(least.value().saturating_add(step.saturating_mul(steps)), Format::BinarySi)
}

fn is_allowed(wanted: &Quantity, policy: Option<&CapacityRequestPolicy>) -> bool {
    let Some(policy) = policy else { return true };
    if policy.default.as_ref().is_some_and(|default| amount(default) == *wanted) {
        return true;
    }
    if let Some(range) = &policy.valid_range {
        let too_much = range.max.as_ref().is_some_and(|max| *wanted > amount(max));
        let step = range.step.as_ref().map(|step| amount(step).value()).filter(|step| *step > 0);
        let off = step.is_some_and(|step| (wanted.value() - amount(&range.min).value()) % step != 0);
        return !too_much && !off;
    }
    let mut values = policy.valid_values.iter().flatten().map(amount);
    policy.valid_values.as_ref().is_none_or(Vec::is_empty) || values.any(|value| value == *wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn device(capacity: Value) -> Device {
        serde_json::from_value(json!({"name": "d", "capacity": {"memory": capacity}})).expect("a device")
    }

    fn requested(memory: Option<&str>) -> CapacityRequirements {
        serde_json::from_value(json!({"requests": memory.map(|memory| json!({"memory": memory}))}))
            .expect("a request")
    }

    /// Upstream's tables of `TestConsumableCapacity`.
    #[test]
    fn what_is_asked_for_becomes_what_the_policy_allows() {
        let range =
            |range: Value| json!({"value": "5", "requestPolicy": {"default": "1", "validRange": range}});
        let values = json!({"value": "5", "requestPolicy": {"default": "1", "validValues": ["2", "4"]}});
        for (what, capacity, asked, taken, fits_alone) in [
            ("nothing said, no policy: all of it", json!({"value": "5"}), None, "5", true),
            ("no policy", json!({"value": "5"}), Some("3"), "3", true),
            ("more than there is", json!({"value": "5"}), Some("6"), "6", false),
            ("nothing said: the default", range(json!({"min": "2"})), None, "1", true),
            ("less than the least", range(json!({"min": "2"})), Some("1"), "2", true),
            ("in range", range(json!({"min": "2"})), Some("3"), "3", true),
            ("up to the next step", range(json!({"min": "1", "step": "2"})), Some("2"), "3", true),
            ("on a step", range(json!({"min": "1", "step": "2"})), Some("3"), "3", true),
            ("over the greatest", range(json!({"min": "1", "max": "2"})), Some("3"), "3", false),
            (
                "stepped over the greatest",
                range(json!({"min": "1", "step": "3", "max": "3"})),
                Some("2"),
                "4",
                false,
            ),
            ("up to the next value", values.clone(), Some("3"), "4", true),
            ("a value", values.clone(), Some("2"), "2", true),
            ("over all values", values.clone(), Some("5"), "5", false),
            ("nothing said: the default, though no value", values, None, "1", true),
        ] {
            let (device, request) = (device(capacity), requested(asked));
            let consumed = consumed(Some(&request), &device);
            assert_eq!(consumed["memory"], Quantity::parse(taken).expect("a quantity"), "{what}");
            assert_eq!(fits(Some(&request), &device, |_| None), fits_alone, "{what}");
        }
    }

    #[test]
    fn what_others_have_is_not_there() {
        let device = device(json!({"value": "5"}));
        let used = |amount: &'static str| move |_: &str| Quantity::parse(amount).ok();
        assert!(fits(Some(&requested(Some("2"))), &device, used("3")));
        assert!(!fits(Some(&requested(Some("2"))), &device, used("4")));
        assert!(!fits(None, &device, used("1")), "all of it");
        let other = serde_json::from_value(json!({"requests": {"cores": "1"}})).expect("a request");
        assert!(!fits(Some(&other), &device, |_| None), "the device has no such capacity");
    }
}
