//! Names and amounts of resources (upstream `pkg/apis/core/helper` and the resource parts of validation).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::quantity::Quantity;

use super::pod::Fault;
use super::rules::{NOT_INTEGER, amount, dns_label, list, non_negative_amount};

const HUGE_PAGES: &str = "hugepages-";

pub(crate) fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

fn is_quota_huge_pages(name: &str) -> bool {
    is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(crate) fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && format::label_key(&format!("requests.{name}")).is_empty()
}

const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

const QUOTA: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

pub(crate) fn is_standard_quota(name: &str) -> bool {
    QUOTA.contains(&name) || COUNTED.contains(&name) || is_quota_huge_pages(name)
}

fn is_standard(name: &str) -> bool {
    name == "storage" || is_standard_quota(name)
}

pub(crate) fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// A resource name of any kind.
pub(crate) fn resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    errors.messages(path, name, format::label_key(name));
    if errors.is_empty() && !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    errors
}

/// A resource that containers may ask for.
pub(crate) fn container_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = resource_name(name, path);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_pages(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
    errors
}

/// A resource that a pod as a whole may ask for.
pub(crate) fn pod_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = resource_name(name, path);
    if errors.is_empty() && !crate::pod::is_pod_level(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
    errors
}

/// A resource that quotas count.
pub(crate) fn quota_resource_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = resource_name(name, path);
    if !name.contains('/') && !is_standard_quota(name) {
        errors.invalid(path, name, "must be a standard resource for quota");
    }
    errors
}

/// The amount of a resource: not negative, and whole where it counts things.
pub(crate) fn resource_amount(name: &str, value: &ApiQuantity, path: &Path) -> ErrorList {
    let mut errors = non_negative_amount(value, path);
    let parsed = amount(value);
    if is_integer(name) && parsed.milli_value() % 1000 != 0 {
        errors.invalid(path, parsed.to_string(), NOT_INTEGER);
    }
    errors
}

/// An amount that is not negative, by upstream's older message.
pub(crate) fn basic_amount(value: &ApiQuantity, path: &Path) -> ErrorList {
    let whole = amount(value).value();
    let mut errors = ErrorList::new();
    if whole < 0 {
        errors.invalid(path, whole, "must be a valid resource quantity");
    }
    errors
}

/// Whether the amount is one of huge pages, but of no whole number of them.
pub(crate) fn indivisible_pages(name: &str, value: &ApiQuantity) -> bool {
    is_huge_pages(name) && !huge_pages_divisible(name, &amount(value))
}

fn huge_pages_divisible(name: &str, value: &Quantity) -> bool {
    let Ok(page) = Quantity::parse(name.trim_start_matches(HUGE_PAGES)) else { return false };
    page.sign() > 0 && page.milli_value() % 1000 == 0 && value.value() % page.value() == 0
}

/// The check of a resource name.
pub(crate) type NameRule = fn(&str, &Path) -> ErrorList;

/// Requests and limits.
pub(crate) fn requirements(
    requirements: &ResourceRequirements,
    name_rule: NameRule,
    claims: &BTreeSet<String>,
    faults: &[Fault],
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let whole_pages = !faults.contains(&Fault::HugePages);
    let empty = BTreeMap::new();
    let limits = requirements.limits.as_ref().unwrap_or(&empty);
    let requests = requirements.requests.as_ref().unwrap_or(&empty);
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, value) in limits {
        let key = limits_path.key(name);
        errors.extend(name_rule(name, &key));
        errors.extend(resource_amount(name, value, &key));
        if whole_pages {
            huge_pages(name, value, &key, &mut errors);
        }
    }
    for (name, value) in requests {
        let key = requests_path.key(name);
        errors.extend(name_rule(name, &key));
        errors.extend(resource_amount(name, value, &key));
        against_limit(name, value, limits.get(name), &requests_path, &limits_path, &mut errors);
        if whole_pages {
            huge_pages(name, value, &key, &mut errors);
        }
    }
    let names = || limits.keys().chain(requests.keys());
    if names().any(|n| is_huge_pages(n)) && !names().any(|n| matches!(n.as_str(), "cpu" | "memory")) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    errors.extend(claim_names(list(&requirements.claims), claims, &path.child("claims")));
    errors
}

fn huge_pages(name: &str, value: &ApiQuantity, path: &Path, errors: &mut ErrorList) {
    if indivisible_pages(name, value) {
        let parsed = amount(value);
        let detail = format!("{parsed} is not positive integer multiple of {name}");
        errors.invalid(path, parsed.to_string(), detail);
    }
}

fn against_limit(
    name: &str,
    value: &ApiQuantity,
    limit: Option<&ApiQuantity>,
    requests: &Path,
    limits: &Path,
    errors: &mut ErrorList,
) {
    let (request, overcommit) = (amount(value), is_overcommit_allowed(name));
    match limit.map(amount) {
        Some(limit) if request != limit && !overcommit => {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.invalid(requests, request.to_string(), detail);
        }
        Some(limit) if request > limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(requests, request.to_string(), detail);
        }
        Some(_) => {}
        None if !overcommit => errors.required(limits, "Limit must be set for non overcommitable resources"),
        None => {}
    }
}

fn claim_names(claims: &[ResourceClaim], known: &BTreeSet<String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::<String>::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if names.contains(name) {
            errors.duplicate(&path, name);
        } else {
            let request = claim.request.as_deref().unwrap_or_default();
            let mut key = name.to_owned();
            if !request.is_empty() {
                errors.extend(dns_label(request, &path.child("request")));
                key = format!("{name}/{request}");
            }
            if names.contains(&key) {
                errors.duplicate(&path, key.as_str());
            } else if request.is_empty() {
                let twice =
                    names.iter().filter(|n| n.split_once('/').is_some_and(|(n, _)| n == name)).count();
                (0..twice).for_each(|_| errors.duplicate(&path, name));
            }
            names.insert(key);
        }
        if !known.contains(name) {
            let all: Vec<&str> = known.iter().map(String::as_str).collect();
            let tail =
                if all.is_empty() { " which is empty".to_owned() } else { format!(": {}", all.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{tail}");
            errors.push(Error { detail, ..Error::not_found(&path, name) });
        }
    }
    errors
}
