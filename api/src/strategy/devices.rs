//! Claims for devices and what drivers offer (`resource.k8s.io`).

use std::collections::HashSet;

use serde_json::Value;

use crate::json::{Object, ObjectExt};

use super::Strategy;

pub(crate) const CLAIM: Strategy = Strategy::STATUS.status_keeps_meta().status_update(drop_deallocated);

pub(crate) const SLICE: Strategy =
    Strategy::SPEC.create(|new| drop_disabled(new, None)).update(|new, old| drop_disabled(new, Some(old)));

const MAPPINGS: &str = "nodeAllocatableResourceMappings";
const VALUE_LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

fn devices(slice: &Object) -> impl Iterator<Item = &Object> {
    slice.object("spec").into_iter().flat_map(|spec| spec.each("devices"))
}

fn attributes(device: &Object) -> impl Iterator<Item = &Object> {
    device.object("attributes").into_iter().flat_map(|all| all.values()).filter_map(Value::as_object)
}

/// Drops what belongs to features that are off, unless the slice had it before.
fn drop_disabled(new: &mut Object, old: Option<&Object>) {
    let had = |uses: fn(&Object) -> bool| old.is_some_and(|old| devices(old).any(uses));
    let keeps_mappings = had(|device| device.object(MAPPINGS).is_some_and(|mappings| !mappings.is_empty()));
    let keeps_lists =
        had(|device| attributes(device).any(|a| VALUE_LISTS.iter().any(|key| !a.is_unset(key))));
    let Some(spec) = new.object_mut("spec") else { return };
    for device in spec.each_mut("devices") {
        if !keeps_mappings {
            device.remove(MAPPINGS);
        }
        let all = device.object_mut("attributes").filter(|_| !keeps_lists);
        for attribute in all.into_iter().flat_map(|all| all.values_mut()).filter_map(Value::as_object_mut) {
            attribute.retain(|key, _| !VALUE_LISTS.contains(&key.as_str()));
        }
    }
}

/// What identifies a device, or a share of one.
type DeviceId = (String, String, String, String);

fn id(device: &Object) -> DeviceId {
    let text = |key: &str| device.text(key).to_owned();
    (text("driver"), text("pool"), text("device"), text("shareID"))
}

fn allocated(claim: &Object) -> HashSet<DeviceId> {
    let results = claim
        .object("status")
        .and_then(|status| status.object("allocation")?.object("devices"))
        .map(|devices| devices.each("results").map(id).collect());
    results.unwrap_or_default()
}

/// The state of a device goes with its allocation, so that clients need not know of it.
fn drop_deallocated(new: &mut Object, old: &Object) {
    let gone: HashSet<DeviceId> = allocated(old).difference(&allocated(new)).cloned().collect();
    let Some(status) = new.object_mut("status") else { return };
    let Some(list) = status.get_mut("devices").and_then(Value::as_array_mut) else { return };
    list.retain(|device| device.as_object().is_none_or(|device| !gone.contains(&id(device))));
    if list.is_empty() {
        status.remove("devices");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::names::GroupVersionKind;
    use crate::strategy::{prepare_for_create, prepare_for_status_update, prepare_for_update};

    fn kind(kind: &'static str) -> GroupVersionKind {
        GroupVersionKind::new("resource.k8s.io", "v1", kind)
    }

    #[test]
    fn fields_of_features_that_are_off_are_dropped_from_new_slices_only() {
        let device = json!({"name": "d",
            "nodeAllocatableResourceMappings": {"cpu": {"capacityKey": "c"}},
            "attributes": {"a": {"ints": [1, 2]}, "b": {"bool": true}}});
        let given = json!({"metadata": {}, "spec": {"driver": "x", "devices": [device]}});
        let mut new = given.clone();
        prepare_for_create(&kind("ResourceSlice"), &mut new);
        assert_eq!(
            new["spec"]["devices"],
            json!([{"name": "d", "attributes": {"a": {}, "b": {"bool": true}}}])
        );
        let mut same = given.clone();
        prepare_for_update(&kind("ResourceSlice"), &mut same, &given);
        assert_eq!(same["spec"], given["spec"]);
    }

    #[test]
    fn the_state_of_a_device_goes_with_its_allocation() {
        let device = |name: &str| json!({"driver": "x", "pool": "p", "device": name});
        let state = |allocated: &[&str]| {
            let results: Vec<_> = allocated.iter().map(|name| device(name)).collect();
            json!({"metadata": {}, "spec": {}, "status": {
                "allocation": {"devices": {"results": results}}, "devices": [device("a"), device("b")]}})
        };
        for (now, left) in
            [(&["a", "b"][..], json!([device("a"), device("b")])), (&["b"], json!([device("b")]))]
        {
            let mut new = state(now);
            prepare_for_status_update(&kind("ResourceClaim"), &mut new, &state(&["a", "b"]));
            assert_eq!(new["status"]["devices"], left);
        }
        let mut none = json!({"metadata": {}, "status": {"devices": [device("a")]}});
        prepare_for_status_update(&kind("ResourceClaim"), &mut none, &state(&["a"]));
        assert_eq!(none["status"], json!({}));
    }
}
