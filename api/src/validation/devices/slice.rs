//! Slices of the devices there are.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Counter, Device, DeviceAttribute, DeviceCapacity,
    DeviceTaint, NodeAllocatableResourceMapping, ResourcePool, ResourceSlice, ResourceSliceSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report, json};
use crate::format;
use crate::quantity::Quantity;
use crate::validation::affinity::node_selector;
use crate::validation::claim::same;
use crate::validation::golang;
use crate::validation::meta::{self, label_name};
use crate::validation::resources::is_native;
use crate::validation::rules::{IMMUTABLE, amount, dns_label, dns_subdomain, list, text, to_value};
use crate::validation::source::csi_driver;

use super::{TAINT_EFFECTS, attribute_name, binding_conditions, each, each_unique, metadata, pool_name};

const MAX_DEVICES: usize = 128;
/// With taints, counters or lists of attributes.
const MAX_RICH_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_ENTRIES: usize = 32;
const MAX_VALUES: usize = 48;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_VALUE: usize = 64;
const MAX_OPTIONS: usize = 10;

/// A new slice.
pub(crate) fn create(object: &ResourceSlice) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, format::name_is_subdomain, &metadata());
    check(&object.spec, None, &mut errors);
    errors
}

/// A changed slice.
pub(crate) fn update(new: &ResourceSlice, old: &ResourceSlice) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    check(&new.spec, Some(&old.spec), &mut errors);
    errors
}

fn check(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>, errors: &mut ErrorList) {
    let path = Path::new("spec");
    errors.extend(csi_driver(&spec.driver, &path.child("driver")));
    pool(&spec.pool, &path.child("pool"), errors);
    if let Some(old) = old {
        let fixed = [
            (path.child("pool").child("name"), to_value(&spec.pool.name), to_value(&old.pool.name)),
            (path.child("driver"), to_value(&spec.driver), to_value(&old.driver)),
            (path.child("nodeName"), to_value(&spec.node_name), to_value(&old.node_name)),
        ];
        for (path, new, _) in fixed.into_iter().filter(|(_, new, old)| new != old) {
            errors.invalid(&path, new, IMMUTABLE);
        }
    }
    placement(spec, &path, errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        errors.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let devices = list(&spec.devices);
    let has_lists = |a: &DeviceAttribute| {
        a.bools.is_some() || a.ints.is_some() || a.strings.is_some() || a.versions.is_some()
    };
    let is_rich = devices.iter().any(|device| {
        !list(&device.taints).is_empty()
            || !list(&device.consumes_counters).is_empty()
            || device.attributes.iter().flatten().any(|(_, attribute)| has_lists(attribute))
    });
    let limit = Some(if is_rich { MAX_RICH_DEVICES } else { MAX_DEVICES });
    let per_device = spec.per_device_node_selection == Some(true);
    each_unique(
        devices,
        limit,
        |d| d.name.clone(),
        &path.child("devices"),
        errors,
        |one, path, errors| {
            let before = old.and_then(|old| list(&old.devices).iter().find(|d| d.name == one.name));
            device(one, before, per_device, path, errors);
        },
    );
    let at = path.child("sharedCounters");
    let (sets, limit) = (list(&spec.shared_counters), Some(MAX_COUNTER_SETS));
    each_unique(
        sets,
        limit,
        |set| set.name.clone(),
        &at,
        errors,
        |set, path, errors| {
            named_counters("name", &set.name, &set.counters, path, errors);
        },
    );
}

fn pool(pool: &ResourcePool, path: &Path, errors: &mut ErrorList) {
    pool_name(&pool.name, &path.child("name"), errors);
    if pool.resource_slice_count <= 0 {
        let detail = "must be greater than zero";
        errors.invalid(&path.child("resourceSliceCount"), pool.resource_slice_count, detail);
    }
    if pool.generation < 0 {
        errors.invalid(&path.child("generation"), pool.generation, "must be greater than or equal to zero");
    }
}

fn named_counters(
    key: &str,
    name: &str,
    counters: &BTreeMap<String, Counter>,
    path: &Path,
    errors: &mut ErrorList,
) {
    match name {
        "" => errors.required(&path.child(key), ""),
        name => errors.extend(dns_label(name, &path.child(key))),
    }
    let at = path.child("counters");
    if counters.is_empty() {
        errors.required(&at, "");
    } else if counters.len() > MAX_COUNTERS {
        errors.push(Error::too_many(&at, counters.len(), MAX_COUNTERS));
    } else {
        counters.keys().for_each(|name| errors.extend(dns_label(name, &at)));
    }
}

fn set_to_true(key: &str, value: Option<bool>, path: &Path, set: &mut Vec<String>, errors: &mut ErrorList) {
    match value {
        Some(true) => set.push(format!("`{key}`")),
        Some(false) => errors.invalid(&path.child(key), false, "must be either unset or set to true"),
        None => {}
    }
}

fn placement(spec: &ResourceSliceSpec, path: &Path, errors: &mut ErrorList) {
    let mut set = Vec::new();
    match spec.node_name.as_deref() {
        Some("") => {
            let detail = "must be either unset or set to a non-empty string";
            errors.invalid(&path.child("nodeName"), "", detail);
        }
        Some(name) => {
            set.push("`nodeName`".to_owned());
            errors.extend(dns_subdomain(name, &path.child("nodeName")));
        }
        None => {}
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`".to_owned());
        let at = path.child("nodeSelector");
        errors.extend(node_selector(selector, false, &at));
        if selector.node_selector_terms.len() != 1 {
            let shown = golang::show_list("core.NodeSelectorTerm", &to_value(&selector.node_selector_terms));
            let detail = "must have exactly one node selector term";
            errors.push(Error::invalid_shown(&at.child("nodeSelectorTerms"), shown, detail));
        }
    }
    set_to_true("allNodes", spec.all_nodes, path, &mut set, errors);
    set_to_true("perDeviceNodeSelection", spec.per_device_node_selection, path, &mut set, errors);
    let exactly =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => errors.required(path, exactly),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set.join(", "));
            errors.invalid(path, shown, format!("{exactly}, but multiple fields are set"));
        }
    }
}

fn device(device: &Device, old: Option<&Device>, per_device: bool, path: &Path, errors: &mut ErrorList) {
    errors.extend(dns_label(&device.name, &path.child("name")));
    let (no_attributes, no_capacity) = (BTreeMap::new(), BTreeMap::new());
    let attributes = device.attributes.as_ref().unwrap_or(&no_attributes);
    let capacity = device.capacity.as_ref().unwrap_or(&no_capacity);
    let entries = attributes.len() + capacity.len();
    if entries > MAX_ENTRIES {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_ENTRIES}");
        errors.invalid(path, entries, detail);
    }
    let values: usize = attributes.values().map(value_count).sum();
    if values > MAX_VALUES {
        let detail = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        errors.invalid(path, values, detail);
    }
    let at = path.child("attributes");
    for (key, one) in attributes {
        attribute_name(key, &at, errors);
        attribute(one, &at.key(key), errors);
    }
    let at = path.child("capacity");
    for (key, one) in capacity {
        attribute_name(key, &at, errors);
        self::capacity(one, device.allow_multiple_allocations == Some(true), &at.key(key), errors);
    }
    if !old.is_some_and(|old| same(&old.taints, &device.taints)) {
        each(list(&device.taints), Some(MAX_TAINTS), &path.child("taints"), errors, taint);
    }
    let at = path.child("consumesCounters");
    let (consumed, limit) = (list(&device.consumes_counters), Some(MAX_CONSUMPTIONS));
    each_unique(
        consumed,
        limit,
        |c| c.counter_set.clone(),
        &at,
        errors,
        |one, path, errors| {
            named_counters("counterSet", &one.counter_set, &one.counters, path, errors);
        },
    );
    device_placement(device, per_device, path, errors);
    let (binding, failure) = (list(&device.binding_conditions), list(&device.binding_failure_conditions));
    binding_conditions(binding, failure, path, errors);
    let at = path.child("nodeAllocatableResourceMappings");
    for (name, one) in device.node_allocatable_resource_mappings.iter().flatten() {
        mapping(name, one, capacity, &at.key(name), errors);
    }
}

fn device_placement(device: &Device, per_device: bool, path: &Path, errors: &mut ErrorList) {
    if !per_device {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(path, Value::Null, detail);
        }
        return;
    }
    let mut set = Vec::new();
    match device.node_name.as_deref() {
        Some("") => errors.invalid(&path.child("nodeName"), "", "must not be empty"),
        Some(name) => {
            set.push("`nodeName`".to_owned());
            errors.extend(dns_subdomain(name, &path.child("nodeName")));
        }
        None => {}
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`".to_owned());
        errors.extend(node_selector(selector, false, &path.child("nodeSelector")));
    }
    set_to_true("allNodes", device.all_nodes, path, &mut set, errors);
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match set.len() {
        0 => errors.required(path, detail),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", set.join(", ")), detail),
    }
}

fn mapping(
    name: &str,
    mapping: &NodeAllocatableResourceMapping,
    capacity: &BTreeMap<String, DeviceCapacity>,
    path: &Path,
    errors: &mut ErrorList,
) {
    if !is_native(name) {
        errors.invalid(path, name, "must be a node allocatable resource name");
    }
    if mapping.allocation_multiplier.is_none() && mapping.capacity_key.is_none() {
        errors.invalid(path, "", "at least one of allocationMultiplier or capacityKey must be set");
    }
    if let Some(factor) = mapping.allocation_multiplier.as_ref().map(amount).filter(|f| f.sign() <= 0) {
        errors.invalid(&path.child("allocationMultiplier"), factor.to_string(), "must be positive");
    }
    let at = path.child("capacityKey");
    match mapping.capacity_key.as_deref() {
        Some("") => errors.invalid(&at, "", "capacityKey must not be an empty string"),
        Some(key) if !capacity.contains_key(key) => errors.push(Error::not_found(&at, key)),
        _ => {}
    }
}

fn value_count(attribute: &DeviceAttribute) -> usize {
    let lists = list(&attribute.bools).len()
        + list(&attribute.ints).len()
        + list(&attribute.strings).len()
        + list(&attribute.versions).len();
    lists.max(1)
}

fn attribute(attribute: &DeviceAttribute, path: &Path, errors: &mut ErrorList) {
    if let Some(value) = &attribute.string {
        short(value, &path.child("string"), errors);
    }
    if let Some(value) = &attribute.version {
        version(value, &path.child("version"), errors);
    }
    let lists = [
        ("bools", attribute.bools.as_ref().map(Vec::len)),
        ("ints", attribute.ints.as_ref().map(Vec::len)),
        ("strings", attribute.strings.as_ref().map(Vec::len)),
        ("versions", attribute.versions.as_ref().map(Vec::len)),
    ];
    for (key, _) in lists.iter().filter(|(_, length)| *length == Some(0)) {
        errors.invalid(&path.child(key), Value::Array(Vec::new()), "must not be empty if specified");
    }
    for (i, value) in list(&attribute.strings).iter().enumerate() {
        short(value, &path.child("strings").index(i), errors);
    }
    for (i, value) in list(&attribute.versions).iter().enumerate() {
        version(value, &path.child("versions").index(i), errors);
    }
    let single = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
    ];
    let set = single.iter().filter(|set| **set).count() + lists.iter().filter(|(_, l)| l.is_some()).count();
    match set {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.push(Error::invalid_shown(path, shown(attribute), "exactly one value must be specified")),
    }
}

/// An attribute with the names of Go's fields.
fn shown(attribute: &DeviceAttribute) -> String {
    format!(
        "{{\"IntValue\":{},\"BoolValue\":{},\"StringValue\":{},\"VersionValue\":{},\"IntValues\":{},\"BoolValues\":{},\"StringValues\":{},\"VersionValues\":{}}}",
        json(&attribute.int),
        json(&attribute.bool),
        json(&attribute.string),
        json(&attribute.version),
        json(&attribute.ints),
        json(&attribute.bools),
        json(&attribute.strings),
        json(&attribute.versions)
    )
}

fn short(value: &str, path: &Path, errors: &mut ErrorList) {
    if value.len() > MAX_VALUE {
        errors.too_long(path, MAX_VALUE);
    }
}

fn version(value: &str, path: &Path, errors: &mut ErrorList) {
    if !is_semantic_version(value) {
        errors.invalid(path, value, "must be a string compatible with semver.org spec 2.0.0");
    }
    short(value, path, errors);
}

fn is_semantic_version(value: &str) -> bool {
    let (rest, build) = value.split_once('+').map_or((value, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_pre = |part: &str| is_word(part) && (part.bytes().any(|b| !b.is_ascii_digit()) || is_number(part));
    let numbers: Vec<&str> = core.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

fn capacity(capacity: &DeviceCapacity, shared: bool, path: &Path, errors: &mut ErrorList) {
    let Some(policy) = &capacity.request_policy else { return };
    let path = path.child("requestPolicy");
    if !shared {
        return errors.forbidden(&path, "allowMultipleAllocations must be true");
    }
    let options = list(&policy.valid_values);
    if !options.is_empty() && policy.valid_range.is_some() {
        let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        return errors.forbidden(&path, detail);
    }
    request_policy(policy, options, &amount(&capacity.value), &path, errors);
}

fn request_policy(
    policy: &CapacityRequestPolicy,
    options: &[ApiQuantity],
    most: &Quantity,
    path: &Path,
    errors: &mut ErrorList,
) {
    let default = policy.default.as_ref().map(amount);
    let at = path.child("default");
    match (options.is_empty(), &policy.valid_range, default) {
        (false, _, None) => errors.required(&at, "required when validValues is defined"),
        (false, _, Some(default)) => {
            valid_values(&default, most, options, &path.child("validValues"), errors)
        }
        (true, Some(_), None) => errors.required(&at, "required when validRange is defined"),
        (true, Some(range), Some(default)) => {
            valid_range(&default, most, range, &path.child("validRange"), errors)
        }
        (true, None, _) => {}
    }
}

fn valid_values(
    default: &Quantity,
    most: &Quantity,
    options: &[ApiQuantity],
    path: &Path,
    errors: &mut ErrorList,
) {
    let options: Vec<Quantity> = options.iter().map(amount).collect();
    for (i, pair) in options.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        errors.invalid(&path.index(i + 1), pair[1].to_string(), "values must be sorted in ascending order");
    }
    let key = |option: &Quantity| option.value().to_string();
    each_unique(&options, Some(MAX_OPTIONS), key, path, errors, |option, path, errors| {
        if option > most {
            errors.invalid(path, option.to_string(), format!("option is larger than capacity value: {most}"));
        }
    });
    if options.len() > MAX_OPTIONS || !options.contains(default) {
        errors.invalid(
            path,
            default.to_string(),
            "default value is not valid according to the requestPolicy",
        );
    }
}

fn valid_range(
    default: &Quantity,
    most: &Quantity,
    range: &CapacityRequestPolicyRange,
    path: &Path,
    errors: &mut ErrorList,
) {
    let at = path.child("min");
    if range.min.0.is_empty() {
        return errors.required(&at, "required when validRange is defined");
    }
    let min = amount(&range.min);
    if min > *most {
        errors.invalid(&at, min.to_string(), format!("min is larger than capacity value: {most}"));
    }
    if *default < min {
        errors.invalid(&at, default.to_string(), format!("default is less than min: {min}"));
    }
    let max = range.max.as_ref().map(amount);
    if let Some(max) = &max {
        let at = path.child("max");
        if min > *max {
            errors.invalid(&at, min.to_string(), format!("min is larger than max: {max}"));
        }
        if max > most {
            errors.invalid(&at, max.to_string(), format!("max is larger than capacity value: {most}"));
        }
        if default > max {
            errors.invalid(&at, default.to_string(), format!("default is more than max: {max}"));
        }
    }
    let Some(step) = range.step.as_ref().map(amount) else { return };
    let at = path.child("step");
    let mut added = min.clone();
    added.add(&step);
    if added > *most {
        let detail = format!("one step {added} is larger than capacity value: {most}");
        errors.invalid(&at, step.to_string(), detail);
    }
    for value in std::iter::once(default).chain(&max) {
        let rest = (value.value() - min.value()).checked_rem(step.value());
        if rest != Some(0) {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            errors.invalid(&at, value.to_string(), detail);
        }
    }
}

fn taint(taint: &DeviceTaint, path: &Path, errors: &mut ErrorList) {
    errors.extend(label_name(&taint.key, &path.child("key")));
    let value = text(&taint.value);
    if !value.is_empty() {
        errors.messages(&path.child("value"), value, format::label_value(value));
    }
    match taint.effect.as_str() {
        "" => errors.required(&path.child("effect"), ""),
        effect => errors.one_of(&path.child("effect"), effect, &TAINT_EFFECTS),
    }
}
