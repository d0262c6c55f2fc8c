//! Limit ranges and resource quotas.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    LimitRange, LimitRangeItem, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopeSelector,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::quantity::{Format, Quantity};

use super::golang;
use super::meta;
use super::resources::{
    container_resource_name, is_overcommit_allowed, is_standard_quota, quota_resource_name, resource_amount,
    resource_name,
};
use super::rules::{IMMUTABLE, amount, list, to_value};

type Amounts = BTreeMap<String, ApiQuantity>;

/// A limit range, new or changed.
pub(crate) fn limit_range(object: &LimitRange) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    let limits = object.spec.as_ref().map(|spec| spec.limits.as_slice()).unwrap_or_default();
    let path = Path::new("spec").child("limits");
    for (i, limit) in limits.iter().enumerate() {
        let path = path.index(i);
        errors.extend(limit_type(&limit.type_, &path.child("type")));
        if limits[..i].iter().any(|l| l.type_ == limit.type_) {
            errors.duplicate(&path.child("type"), limit.type_.as_str());
        }
        limit_item(limit, &path, &mut errors);
    }
    errors
}

/// A changed limit range.
pub(crate) fn limit_range_update(new: &LimitRange, _: &LimitRange) -> ErrorList {
    limit_range(new)
}

fn limit_type(value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    errors.messages(path, value, format::label_key(value));
    if errors.is_empty()
        && !value.contains('/')
        && !matches!(value, "Pod" | "Container" | "PersistentVolumeClaim")
    {
        errors.invalid(path, value, "must be a standard limit type or fully qualified");
    }
    errors
}

fn limit_item(limit: &LimitRangeItem, path: &Path, errors: &mut ErrorList) {
    let is_pod = limit.type_ == "Pod";
    let name = |name: &str, path: &Path| match limit.type_.as_str() {
        "Pod" | "Container" => container_resource_name(name, path),
        _ => resource_name(name, path),
    };
    let mut keys = BTreeSet::new();
    let mut names = |field: &str, amounts: &Option<Amounts>, errors: &mut ErrorList| {
        for key in amounts.iter().flatten().map(|(key, _)| key) {
            errors.extend(name(key, &path.child(field).key(key)));
            keys.insert(key.clone());
        }
    };
    names("max", &limit.max, errors);
    names("min", &limit.min, errors);
    for (field, amounts) in [("default", &limit.default), ("defaultRequest", &limit.default_request)] {
        if !is_pod {
            names(field, amounts, errors);
        } else if amounts.as_ref().is_some_and(|a| !a.is_empty()) {
            errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
        }
    }
    let has_storage = |a: &Option<Amounts>| a.as_ref().is_some_and(|a| a.contains_key("storage"));
    if limit.type_ == "PersistentVolumeClaim" && !has_storage(&limit.min) && !has_storage(&limit.max) {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), detail);
    }
    names("maxLimitRequestRatio", &limit.max_limit_request_ratio, errors);
    for key in keys {
        compare(limit, &key, is_pod, path, errors);
    }
}

fn compare(limit: &LimitRangeItem, key: &str, is_pod: bool, path: &Path, errors: &mut ErrorList) {
    let get = |amounts: &Option<Amounts>| amounts.as_ref()?.get(key).map(amount);
    let (min, max) = (get(&limit.min), get(&limit.max));
    let default = get(&limit.default).filter(|_| !is_pod);
    let request = get(&limit.default_request).filter(|_| !is_pod);
    let ratio = get(&limit.max_limit_request_ratio);
    let mut above =
        |a: (&Option<Quantity>, &str), b: (&Option<Quantity>, &str), field: &str, bad: &Option<Quantity>| {
            if let (Some(low), Some(high), Some(bad)) = (a.0, b.0, bad)
                && low > high
            {
                let detail = format!("{} value {low} is greater than {} value {high}", a.1, b.1);
                errors.invalid(&path.child(field).key(key), bad.to_string(), detail);
            }
        };
    above((&min, "min"), (&max, "max"), "min", &min);
    above((&min, "min"), (&request, "default request"), "defaultRequest", &request);
    above((&request, "default request"), (&max, "max"), "defaultRequest", &request);
    above((&request, "default request"), (&default, "default limit"), "defaultRequest", &request);
    above((&min, "min"), (&default, "default"), "default", &min);
    above((&default, "default"), (&max, "max"), "default", &max);
    let at = path.child("maxLimitRequestRatio").key(key);
    if let Some(ratio) = &ratio {
        if *ratio < Quantity::new(1, Format::DecimalSi) {
            errors.invalid(&at, ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            let fits = |q: &Quantity| q.value() < i64::MAX / 1000;
            #[allow(clippy::cast_precision_loss)] // as upstream compares them
            let (value, bound) = if fits(ratio) && fits(min) && fits(max) {
                (ratio.milli_value() as f64 / 1000.0, max.milli_value() as f64 / min.milli_value() as f64)
            } else {
                (ratio.value() as f64, max.value() as f64 / min.value() as f64)
            };
            if value > bound {
                let detail = format!("ratio {ratio} is greater than max/min = {bound:.6}");
                errors.invalid(&at, ratio.to_string(), detail);
            }
        }
    }
    if let (Some(default), Some(request)) = (&default, &request)
        && !is_overcommit_allowed(key)
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        errors.invalid(&path.child("defaultRequest").key(key), request.to_string(), detail);
    }
}

/// A new quota.
pub(crate) fn quota(object: &ResourceQuota) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    errors.extend(quota_spec(&object.spec.clone().unwrap_or_default()));
    errors.extend(quota_amounts(&object.status.clone().unwrap_or_default()));
    errors
}

/// A changed quota.
pub(crate) fn quota_update(new: &ResourceQuota, old: &ResourceQuota) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (spec, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    errors.extend(quota_spec(&spec));
    let set = |spec: &ResourceQuotaSpec| list(&spec.scopes).iter().cloned().collect::<BTreeSet<_>>();
    if set(&spec) != set(&before) {
        errors.invalid(&Path::new("spec").child("scopes"), shown_scopes(&spec), IMMUTABLE);
    }
    errors
}

/// A quota changed by its status.
pub(crate) fn quota_status(new: &ResourceQuota, old: &ResourceQuota) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    if new.metadata.resource_version.as_deref().unwrap_or_default().is_empty() {
        errors.required(&Path::new("resourceVersion"), "");
    }
    errors.extend(quota_amounts(&new.status.clone().unwrap_or_default()));
    errors
}

fn hard(amounts: Option<&Amounts>, path: &Path, errors: &mut ErrorList) {
    for (name, value) in amounts.into_iter().flatten() {
        let path = path.key(name);
        errors.extend(quota_resource_name(name, &path));
        errors.extend(resource_amount(name, value, &path));
    }
}

fn quota_amounts(status: &ResourceQuotaStatus) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status");
    hard(status.hard.as_ref(), &path.child("hard"), &mut errors);
    hard(status.used.as_ref(), &path.child("used"), &mut errors);
    errors
}

fn quota_spec(spec: &ResourceQuotaSpec) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    hard(spec.hard.as_ref(), &path.child("hard"), &mut errors);
    scopes(spec, &path.child("scopes"), &mut errors);
    if let Some(selector) = &spec.scope_selector {
        scope_selector(spec, selector, &path.child("scopeSelector").child("matchExpressions"), &mut errors);
    }
    errors
}

fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "VolumeAttributesClass"
            | "CrossNamespacePodAffinity"
    )
}

const POD_COMPUTE: [&str; 6] =
    ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || POD_COMPUTE.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// How many of the resources counted are none that the scope knows.
fn misapplied(spec: &ResourceQuotaSpec, scope: &str) -> usize {
    let names = spec.hard.iter().flatten().map(|(name, _)| name);
    names.filter(|name| is_standard_quota(name) && !applies(scope, name)).count()
}

fn conflicts<'a>(scopes: impl Iterator<Item = &'a str> + Clone) -> usize {
    let has = |scope: &str| scopes.clone().any(|s| s == scope);
    [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")]
        .iter()
        .filter(|(a, b)| has(a) && has(b))
        .count()
}

fn shown_scopes(spec: &ResourceQuotaSpec) -> serde_json::Value {
    spec.scopes.as_ref().filter(|s| !s.is_empty()).map(to_value).unwrap_or_default()
}

fn scopes(spec: &ResourceQuotaSpec, path: &Path, errors: &mut ErrorList) {
    let all = list(&spec.scopes);
    let shown = shown_scopes(spec);
    for scope in all {
        if !is_scope(scope) {
            errors.invalid(path, shown.clone(), "unsupported scope");
        }
        for _ in 0..misapplied(spec, scope) {
            errors.invalid(path, shown.clone(), "unsupported scope applied to resource");
        }
    }
    for _ in 0..conflicts(all.iter().map(String::as_str)) {
        errors.invalid(path, shown.clone(), "conflicting scopes");
    }
}

fn scope_selector(spec: &ResourceQuotaSpec, selector: &ScopeSelector, path: &Path, errors: &mut ErrorList) {
    let expressions = list(&selector.match_expressions);
    for expression in expressions {
        let scope = expression.scope_name.as_str();
        if !is_scope(scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in 0..misapplied(spec, scope) {
            let shown = golang::show("core.ScopeSelector", &to_value(selector));
            errors.push(Error::invalid_shown(path, shown, "unsupported scope applied to resource"));
        }
        let (operator, values) = (expression.operator.as_str(), list(&expression.values));
        let exists_only = matches!(
            scope,
            "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity"
        );
        if exists_only && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, detail);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), values.to_vec(), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
    }
    for _ in 0..conflicts(expressions.iter().map(|e| e.scope_name.as_str())) {
        errors.invalid(path, shown_scopes(spec), "conflicting scopes");
    }
}
