//! `resource.k8s.io`: claims, their templates and the classes of devices.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceClaim, DeviceClass, DeviceClassSpec, DeviceConstraint,
    DeviceRequest, DeviceRequestAllocationResult, DeviceSelector, DeviceToleration, NetworkDeviceData,
    OpaqueDeviceConfiguration, ResourceClaim, ResourceClaimSpec, ResourceClaimStatus, ResourceClaimTemplate,
};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::Value;

use crate::cel::admission::Failure;
use crate::cel::device;
use crate::field::{Error, ErrorList, Path, Report, quote};
use crate::format;

use super::affinity::node_selector;
use super::claim::{same, template_metadata};
use super::golang;
use super::ip::{go_text, parse_cidr_sloppy};
use super::meta::{self, label_name};
use super::resources::is_extended;
use super::rules::{IMMUTABLE, dns_label, dns_subdomain, list, text, to_value};
use super::source::csi_driver;

pub(crate) mod slice;

const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
const MAX_CONFIG: usize = 32;
const MAX_FIRST_AVAILABLE: usize = 8;
const MAX_SELECTORS: usize = 32;
const MAX_RESERVED: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_OPAQUE: usize = 10 << 10;
const MAX_EXPRESSION: usize = 10 << 10;
const MAX_POOL_NAME: usize = 253;
const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

fn metadata() -> Path {
    Path::new("metadata")
}

/// Items with a limit on how many there are; beyond it they are not looked at.
fn each<T>(
    items: &[T],
    limit: Option<usize>,
    path: &Path,
    errors: &mut ErrorList,
    mut check: impl FnMut(&T, &Path, &mut ErrorList),
) -> bool {
    if let Some(limit) = limit.filter(|limit| items.len() > *limit) {
        errors.push(Error::too_many(path, items.len(), limit));
        return false;
    }
    for (i, item) in items.iter().enumerate() {
        check(item, &path.index(i), errors);
    }
    true
}

/// As [`each`], of items that must differ in a key.
fn each_unique<T>(
    items: &[T],
    limit: Option<usize>,
    key: impl Fn(&T) -> String,
    path: &Path,
    errors: &mut ErrorList,
    check: impl FnMut(&T, &Path, &mut ErrorList),
) {
    if !each(items, limit, path, errors, check) {
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = key(item);
        if !seen.insert(key.clone()) {
            errors.duplicate(&path.index(i), key);
        }
    }
}

/// Names of requests, with those of their alternatives.
type Requests = BTreeMap<String, BTreeSet<String>>;

fn requests_of(devices: &DeviceClaim) -> Requests {
    let names = |request: &DeviceRequest| {
        let parts = list(&request.first_available).iter().map(|part| part.name.clone()).collect();
        (request.name.clone(), parts)
    };
    list(&devices.requests).iter().map(names).collect()
}

fn request_reference(name: &str, requests: &Requests, path: &Path, errors: &mut ErrorList) {
    let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        return errors.invalid(path, name, detail);
    }
    for part in &parts {
        errors.extend(dns_label(part, path));
    }
    let known = requests.get(parts[0]).is_some_and(|alternatives| match parts.get(1) {
        None => true,
        Some(part) => alternatives.contains(*part),
    });
    if !known {
        errors.invalid(path, name, detail);
    }
}

/// A new claim.
pub(crate) fn claim(object: &ResourceClaim) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    claim_spec(&object.spec, &Path::new("spec"), &mut errors);
    errors
}

/// A changed claim.
pub(crate) fn claim_update(new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
    let mut errors = meta::validate_core(&new.metadata, true, format::name_is_subdomain, &metadata());
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &metadata()));
    if !same(&new.spec, &old.spec) {
        let shown = golang::show("resource.ResourceClaimSpec", &to_value(&new.spec));
        errors.push(Error::invalid_shown(&Path::new("spec"), shown, IMMUTABLE));
    }
    errors
}

/// A claim changed by its status.
pub(crate) fn claim_status(new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    let requests = new.spec.devices.as_ref().map(requests_of).unwrap_or_default();
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let is_deleted = new.metadata.deletion_timestamp.is_some();
    status_update(&status, &before, is_deleted, &requests, &mut errors);
    errors
}

fn status_update(
    status: &ResourceClaimStatus,
    old: &ResourceClaimStatus,
    is_deleted: bool,
    requests: &Requests,
    errors: &mut ErrorList,
) {
    let path = Path::new("status");
    let at = path.child("reservedFor");
    let reserved = list(&status.reserved_for);
    each_unique(
        reserved,
        Some(MAX_RESERVED),
        |user| user.uid.clone(),
        &at,
        errors,
        |user, path, errors| {
            for (key, value) in [("resource", &user.resource), ("name", &user.name), ("uid", &user.uid)] {
                if value.is_empty() {
                    errors.required(&path.child(key), "");
                }
            }
        },
    );
    let allocated: BTreeSet<String> = status
        .allocation
        .iter()
        .flat_map(|allocation| allocation.devices.iter().flat_map(|devices| list(&devices.results)))
        .map(|result| device_id(&result.driver, &result.pool, &result.device, result.share_id.as_deref()))
        .collect();
    let id = |device: &AllocatedDeviceStatus| {
        device_id(&device.driver, &device.pool, &device.device, device.share_id.as_deref())
    };
    each_unique(list(&status.devices), None, id, &path.child("devices"), errors, |device, path, errors| {
        device_status(device, &id(device), &allocated, path, errors);
    });
    if !reserved.is_empty() {
        if status.allocation.is_none() {
            errors.forbidden(&at, "may not be specified when `allocated` is not set");
        } else if is_deleted && reserved.iter().any(|user| !list(&old.reserved_for).contains(user)) {
            let detail =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.forbidden(&at, detail);
        }
    }
    let at = path.child("allocation");
    match (&status.allocation, &old.allocation) {
        (Some(new), Some(old)) if !same(new, old) => {
            let shown = golang::show("resource.AllocationResult", &to_value(new));
            errors.push(Error::invalid_shown(&at, shown, IMMUTABLE));
        }
        (Some(new), None) => allocation(new, requests, &at, errors),
        _ => {}
    }
}

fn device_id(driver: &str, pool: &str, device: &str, share: Option<&str>) -> String {
    match share {
        Some(share) => format!("{driver}/{pool}/{device}/{share}"),
        None => format!("{driver}/{pool}/{device}"),
    }
}

fn allocation(allocation: &AllocationResult, requests: &Requests, path: &Path, errors: &mut ErrorList) {
    let devices = allocation.devices.clone().unwrap_or_default();
    let at = path.child("devices");
    each(list(&devices.results), Some(MAX_RESULTS), &at.child("results"), errors, |result, path, errors| {
        allocation_result(result, requests, path, errors);
    });
    let limit = Some(2 * MAX_CONFIG);
    each(list(&devices.config), limit, &at.child("config"), errors, |config, path, errors| {
        match config.source.as_str() {
            "" => errors.required(&path.child("source"), ""),
            source => errors.one_of(&path.child("source"), source, &["FromClaim", "FromClass"]),
        }
        references(list(&config.requests), requests, &path.child("requests"), errors);
        configuration(config.opaque.as_ref(), path, errors);
    });
    if let Some(selector) = &allocation.node_selector {
        errors.extend(node_selector(selector, false, &path.child("nodeSelector")));
    }
}

fn allocation_result(
    result: &DeviceRequestAllocationResult,
    requests: &Requests,
    path: &Path,
    errors: &mut ErrorList,
) {
    request_reference(&result.request, requests, &path.child("request"), errors);
    errors.extend(csi_driver(&result.driver, &path.child("driver")));
    pool_name(&result.pool, &path.child("pool"), errors);
    errors.extend(dns_label(&result.device, &path.child("device")));
    let (binding, failure) = (list(&result.binding_conditions), list(&result.binding_failure_conditions));
    binding_conditions(binding, failure, path, errors);
    if let Some(share) = &result.share_id {
        uid(share, &path.child("shareID"), errors);
    }
}

fn uid(value: &str, path: &Path, errors: &mut ErrorList) {
    if let Err(why) = any_uuid(value) {
        errors.invalid(path, value, format!("error validating uid: {why}"));
    } else if value.len() != 36 || value.bytes().any(|b| b.is_ascii_uppercase()) {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.invalid(path, value, detail);
    }
}

/// Whether this is an identifier in one of the forms that upstream's library reads.
fn any_uuid(value: &str) -> Result<(), String> {
    let plain = match value.len() {
        36 | 32 => value,
        45 => match value.split_at_checked(9) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("urn:uuid:") => rest,
            Some((prefix, _)) => return Err(format!("invalid urn prefix: {}", quote(prefix))),
            None => return Err("invalid UUID format".to_owned()),
        },
        38 => value
            .strip_prefix('{')
            .and_then(|value| value.strip_suffix('}'))
            .ok_or_else(|| "invalid bracketed UUID format".to_owned())?,
        length => return Err(format!("invalid UUID length: {length}")),
    };
    let dashed = plain.len() == 36;
    let is_right = |(i, byte): (usize, u8)| match i {
        8 | 13 | 18 | 23 if dashed => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    let good = plain.bytes().enumerate().all(is_right);
    if good { Ok(()) } else { Err("invalid UUID format".to_owned()) }
}

fn pool_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > MAX_POOL_NAME {
        errors.too_long(path, MAX_POOL_NAME);
    }
    for part in name.split('/') {
        errors.extend(dns_subdomain(part, path));
    }
}

fn binding_conditions(binding: &[String], failure: &[String], path: &Path, errors: &mut ErrorList) {
    let (at_binding, at_failure) = (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    let name = |name: &String, path: &Path, errors: &mut ErrorList| errors.extend(label_name(name, path));
    each(binding, Some(4), &at_binding, errors, name);
    each(failure, Some(4), &at_failure, errors, name);
    for (i, condition) in binding.iter().enumerate().filter(|(i, c)| binding[..*i].contains(c)) {
        errors.duplicate(&at_binding.index(i), condition.as_str());
    }
    for (i, condition) in failure.iter().enumerate() {
        if failure[..i].contains(condition) {
            errors.duplicate(&at_failure.index(i), condition.as_str());
        }
        if binding.contains(condition) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            errors.invalid(&at_failure.index(i), condition.as_str(), detail);
        }
    }
    match (binding.is_empty(), failure.is_empty()) {
        (true, false) => {
            let detail = "bindingConditions are required to use bindingFailureConditions";
            errors.invalid(&at_binding, Value::Null, detail);
        }
        (false, true) => {
            let detail = "bindingFailureConditions are required to use bindingConditions";
            errors.invalid(&at_failure, Value::Null, detail);
        }
        _ => {}
    }
}

fn device_status(
    device: &AllocatedDeviceStatus,
    id: &str,
    allocated: &BTreeSet<String>,
    path: &Path,
    errors: &mut ErrorList,
) {
    errors.extend(csi_driver(&device.driver, &path.child("driver")));
    pool_name(&device.pool, &path.child("pool"), errors);
    errors.extend(dns_label(&device.device, &path.child("device")));
    if let Some(share) = &device.share_id {
        uid(share, &path.child("shareID"), errors);
    }
    if !allocated.contains(id) {
        errors.invalid(path, id, "must be an allocated device in the claim");
    }
    let conditions = list(&device.conditions);
    let at = path.child("conditions");
    if conditions.len() > 8 {
        errors.push(Error::too_many(&at, conditions.len(), 8));
    }
    errors.extend(meta::conditions(conditions, &at));
    if let Some(data) = device.data.as_ref().filter(|data| !data.0.is_null()) {
        raw(data, &path.child("data"), errors);
    }
    if let Some(network) = &device.network_data {
        network_data(network, &path.child("networkData"), errors);
    }
}

fn network_data(network: &NetworkDeviceData, path: &Path, errors: &mut ErrorList) {
    for (key, value, limit) in
        [("interfaceName", &network.interface_name, 256), ("hardwareAddress", &network.hardware_address, 128)]
    {
        if text(value).len() > limit {
            errors.too_long(&path.child(key), limit);
        }
    }
    let at = path.child("ips");
    each_unique(list(&network.ips), Some(16), Clone::clone, &at, errors, |address, path, errors| {
        let Some((ip, length)) = parse_cidr_sloppy(address) else {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            return errors.invalid(path, address.as_str(), detail);
        };
        let canonical = format!("{}/{length}", go_text(ip));
        if canonical != *address {
            let shown = crate::field::quote(&canonical);
            errors.invalid(path, address.as_str(), format!("must be in canonical form ({shown})"));
        }
    });
}

fn raw(value: &RawExtension, path: &Path, errors: &mut ErrorList) {
    match &value.0 {
        Value::Null => errors.required(path, ""),
        value if value.to_string().len() > MAX_OPAQUE => errors.too_long(path, MAX_OPAQUE),
        Value::Object(_) => {}
        _ => errors.invalid(path, "<value omitted>", "must be a valid JSON object"),
    }
}

fn claim_spec(spec: &ResourceClaimSpec, path: &Path, errors: &mut ErrorList) {
    let devices = spec.devices.clone().unwrap_or_default();
    let path = path.child("devices");
    let requests = requests_of(&devices);
    let (items, limit) = (list(&devices.requests), Some(MAX_REQUESTS));
    each_unique(items, limit, |r| r.name.clone(), &path.child("requests"), errors, request);
    let at = path.child("constraints");
    each(list(&devices.constraints), Some(MAX_CONSTRAINTS), &at, errors, |one, path, errors| {
        constraint(one, &requests, path, errors);
    });
    each(list(&devices.config), Some(MAX_CONFIG), &path.child("config"), errors, |config, path, errors| {
        references(list(&config.requests), &requests, &path.child("requests"), errors);
        configuration(config.opaque.as_ref(), path, errors);
    });
}

fn references(names: &[String], requests: &Requests, path: &Path, errors: &mut ErrorList) {
    each_unique(names, Some(MAX_REQUESTS), Clone::clone, path, errors, |name, path, errors| {
        request_reference(name, requests, path, errors);
    });
}

/// What requests and their alternatives have in common.
struct Wanted<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: &'a str,
    count: i64,
    tolerations: &'a [DeviceToleration],
}

fn request(request: &DeviceRequest, path: &Path, errors: &mut ErrorList) {
    errors.extend(dns_label(&request.name, &path.child("name")));
    let alternatives = list(&request.first_available);
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), false) => {
            let detail =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, Value::Null, detail);
        }
        (Some(exactly), true) => {
            let wanted = Wanted {
                class: &exactly.device_class_name,
                selectors: list(&exactly.selectors),
                mode: text(&exactly.allocation_mode),
                count: exactly.count.unwrap_or(0),
                tolerations: list(&exactly.tolerations),
            };
            self::wanted(&wanted, &path.child("exactly"), errors);
        }
        (None, false) => {
            let at = path.child("firstAvailable");
            let limit = Some(MAX_FIRST_AVAILABLE);
            each_unique(
                alternatives,
                limit,
                |part| part.name.clone(),
                &at,
                errors,
                |part, path, errors| {
                    errors.extend(dns_label(&part.name, &path.child("name")));
                    let wanted = Wanted {
                        class: &part.device_class_name,
                        selectors: list(&part.selectors),
                        mode: text(&part.allocation_mode),
                        count: part.count.unwrap_or(0),
                        tolerations: list(&part.tolerations),
                    };
                    self::wanted(&wanted, path, errors);
                },
            );
        }
    }
}

fn wanted(wanted: &Wanted<'_>, path: &Path, errors: &mut ErrorList) {
    let at = path.child("deviceClassName");
    match wanted.class {
        "" => errors.required(&at, ""),
        class => errors.extend(dns_subdomain(class, &at)),
    }
    selectors(wanted.selectors, &path.child("selectors"), errors);
    let at = path.child("count");
    match wanted.mode {
        "All" if wanted.count != 0 => {
            errors.invalid(&at, wanted.count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if wanted.count <= 0 => errors.invalid(&at, wanted.count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        mode => errors.not_supported(&path.child("allocationMode"), mode, &["All", "ExactCount"]),
    }
    for (i, one) in wanted.tolerations.iter().enumerate() {
        toleration(one, &path.child("tolerations").index(i), errors);
    }
}

fn selectors(selectors: &[DeviceSelector], path: &Path, errors: &mut ErrorList) {
    each(selectors, Some(MAX_SELECTORS), path, errors, |selector, path, errors| {
        let path = path.child("cel");
        match &selector.cel {
            None => errors.required(&path, ""),
            Some(cel) if cel.expression.len() > MAX_EXPRESSION => {
                errors.too_long(&path.child("expression"), MAX_EXPRESSION);
            }
            Some(cel) => selector_expression(&cel.expression, &path.child("expression"), errors),
        }
    });
}

fn selector_expression(expression: &str, path: &Path, errors: &mut ErrorList) {
    match device::compile(expression) {
        Ok(selector) if selector.max_cost > device::MAX_COST => {
            errors.forbidden(path, "too complex, exceeds cost limit");
        }
        Ok(_) => {}
        Err(why @ Failure::Program(_)) => errors.push(Error::internal(path, why.to_string())),
        Err(why) => errors.invalid(path, expression, why.to_string()),
    }
}

fn toleration(toleration: &DeviceToleration, path: &Path, errors: &mut ErrorList) {
    let key = text(&toleration.key);
    if !key.is_empty() {
        errors.extend(label_name(key, &path.child("key")));
    }
    let (at, value) = (path.child("value"), text(&toleration.value));
    match text(&toleration.operator) {
        "Exists" if !value.is_empty() => errors.invalid(&at, value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => errors.messages(&at, value, format::label_value(value)),
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    let effect = text(&toleration.effect);
    if !effect.is_empty() {
        errors.one_of(&path.child("effect"), effect, &TAINT_EFFECTS);
    }
}

fn constraint(constraint: &DeviceConstraint, requests: &Requests, path: &Path, errors: &mut ErrorList) {
    references(list(&constraint.requests), requests, &path.child("requests"), errors);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => full_name(name, &path.child("matchAttribute"), errors),
        (None, Some(name)) => full_name(name, &path.child("distinctAttribute"), errors),
        (None, None) => {
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.required(path, detail);
        }
    }
}

fn full_name(name: &str, path: &Path, errors: &mut ErrorList) {
    attribute_name(name, path, errors);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.invalid(path, name, detail);
    }
}

fn attribute_name(name: &str, path: &Path, errors: &mut ErrorList) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [name] => identifier(name, path, errors),
        [domain, name] => {
            match *domain {
                "" => errors.invalid(path, "", "the domain must not be empty"),
                domain => errors.extend(csi_driver(domain, path)),
            }
            match *name {
                "" => errors.invalid(path, "", "the name must not be empty"),
                name => identifier(name, path, errors),
            }
        }
        _ => {}
    }
}

fn identifier(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.len() > 32 {
        errors.too_long(path, 32);
    }
    errors.messages(path, name, format::c_identifier(name));
}

fn configuration(opaque: Option<&OpaqueDeviceConfiguration>, path: &Path, errors: &mut ErrorList) {
    let path = path.child("opaque");
    let Some(opaque) = opaque else { return errors.required(&path, "") };
    errors.extend(csi_driver(&opaque.driver, &path.child("driver")));
    raw(&opaque.parameters, &path.child("parameters"), errors);
}

/// A new class.
pub(crate) fn class(object: &DeviceClass) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, format::name_is_subdomain, &metadata());
    class_spec(&object.spec, &mut errors);
    errors
}

/// A changed class.
pub(crate) fn class_update(new: &DeviceClass, old: &DeviceClass) -> ErrorList {
    let mut errors = meta::validate_core(&new.metadata, false, format::name_is_subdomain, &metadata());
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &metadata()));
    class_spec(&new.spec, &mut errors);
    errors
}

fn class_spec(spec: &DeviceClassSpec, errors: &mut ErrorList) {
    let path = Path::new("spec");
    selectors(list(&spec.selectors), &path.child("selectors"), errors);
    each(list(&spec.config), Some(MAX_CONFIG), &path.child("config"), errors, |config, path, errors| {
        configuration(config.opaque.as_ref(), path, errors);
    });
    if let Some(name) = spec.extended_resource_name.as_ref().filter(|name| !is_extended(name)) {
        let detail = "must be a valid extended resource name";
        errors.invalid(&path.child("extendedResourceName"), name.as_str(), detail);
    }
}

/// A new template of claims.
pub(crate) fn template(object: &ResourceClaimTemplate) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    let path = Path::new("spec");
    errors.extend(template_metadata(object.spec.metadata.as_ref(), &path.child("metadata")));
    claim_spec(&object.spec.spec, &path.child("spec"), &mut errors);
    errors
}

/// A changed template of claims.
pub(crate) fn template_update(new: &ResourceClaimTemplate, old: &ResourceClaimTemplate) -> ErrorList {
    let mut errors = template(new);
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &metadata()));
    if !same(&new.spec, &old.spec) {
        let shown = golang::show("resource.ResourceClaimTemplateSpec", &to_value(&new.spec));
        errors.push(Error::invalid_shown(&Path::new("spec"), shown, IMMUTABLE));
    }
    errors
}
