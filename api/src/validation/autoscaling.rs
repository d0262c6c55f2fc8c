//! Autoscalers, in their newer version.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
    ObjectMetricSource, PodsMetricSource, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::field::{ErrorList, Path, Report};
use crate::format;

use super::meta;
use super::resources::container_resource_name;
use super::rules::{amount, dns_label, list, non_negative, non_negative_amount, text};

const MAX_PERIOD: i32 = 1800;
const MAX_WINDOW: i32 = 3600;

/// What is allowed for the sake of the object being replaced.
struct Options {
    min_replicas: i32,
    target_without_group: bool,
    any_target_version: bool,
    any_metric_version: bool,
}

impl Options {
    fn new(new: &HorizontalPodAutoscalerSpec, old: Option<&HorizontalPodAutoscalerSpec>) -> Self {
        let target = |spec: &HorizontalPodAutoscalerSpec| {
            (spec.scale_target_ref.api_version.clone(), spec.scale_target_ref.kind.clone())
        };
        let mut objects = old.iter().flat_map(|old| list(&old.metrics)).filter(|m| m.type_ == "Object");
        Self {
            min_replicas: i32::from(old.and_then(|old| old.min_replicas) != Some(0)),
            any_target_version: old.is_some_and(|old| target(old) == target(new)),
            target_without_group: new.scale_target_ref.kind == "ReplicationController",
            any_metric_version: objects.any(|m| {
                m.object.as_ref().is_some_and(|o| api_version(&o.described_object, true, false).is_some())
            }),
        }
    }
}

/// A new autoscaler.
pub(crate) fn create(object: &HorizontalPodAutoscaler) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    check(&object.spec, &Options::new(&object.spec, None), &mut errors);
    errors
}

/// A changed autoscaler.
pub(crate) fn update(new: &HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    check(&new.spec, &Options::new(&new.spec, Some(&old.spec)), &mut errors);
    errors
}

/// An autoscaler changed by its status.
pub(crate) fn status(new: &HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let status = new.status.clone().unwrap_or_default();
    let path = Path::new("status");
    errors.extend(non_negative(status.current_replicas.unwrap_or(0), &path.child("currentReplicas")));
    errors.extend(non_negative(status.desired_replicas, &path.child("desiredReplicas")));
    errors
}

fn check(spec: &HorizontalPodAutoscalerSpec, options: &Options, errors: &mut ErrorList) {
    let path = Path::new("spec");
    if let Some(min) = spec.min_replicas.filter(|min| *min < options.min_replicas) {
        let detail = format!("must be greater than or equal to {}", options.min_replicas);
        errors.invalid(&path.child("minReplicas"), min, detail);
    }
    let at = path.child("maxReplicas");
    match spec.max_replicas {
        0 => errors.required(&at, "must be set and greater than 0"),
        max if max < 0 => errors.invalid(&at, max, "must be greater than or equal to 1"),
        _ => {}
    }
    if spec.min_replicas.is_some_and(|min| spec.max_replicas < min) {
        errors.invalid(&at, spec.max_replicas, "must be greater than or equal to `minReplicas`");
    }
    let (group, any) = (options.target_without_group, options.any_target_version);
    reference(&spec.scale_target_ref, group, any, &path.child("scaleTargetRef"), errors);
    let metrics = list(&spec.metrics);
    let at = path.child("metrics");
    for (i, one) in metrics.iter().enumerate() {
        metric(one, options.any_metric_version, &at.index(i), errors);
    }
    let scales_to_zero = metrics.iter().any(|m| matches!(m.type_.as_str(), "Object" | "External"));
    if spec.min_replicas == Some(0) && !scales_to_zero {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&at, detail);
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (key, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                scaling_rules(rules, &path.child(key), errors);
            }
        }
    }
}

fn segment(value: &str, missing: &str, path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, missing);
    } else {
        errors.messages(path, value, format::path_segment_name(value));
    }
}

fn reference(
    reference: &CrossVersionObjectReference,
    without_group: bool,
    any_version: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    segment(&reference.kind, "", &path.child("kind"), errors);
    segment(&reference.name, "", &path.child("name"), errors);
    if let Some(why) = api_version(reference, without_group, any_version) {
        errors.invalid(&path.child("apiVersion"), text(&reference.api_version), why);
    }
}

fn api_version(reference: &CrossVersionObjectReference, without_group: bool, any: bool) -> Option<String> {
    if any {
        return None;
    }
    let version = text(&reference.api_version);
    if version.matches('/').count() > 1 {
        return Some(format!("unexpected GroupVersion string: {version}"));
    }
    let no_group = version.split_once('/').is_none_or(|(group, _)| group.is_empty());
    (no_group && !without_group).then(|| "apiVersion must specify API group".to_owned())
}

const METRICS: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

fn metric(metric: &MetricSpec, any_version: bool, path: &Path, errors: &mut ErrorList) {
    let kind = metric.type_.as_str();
    let at = path.child("type");
    if kind.is_empty() {
        errors.required(&at, "must specify a metric source type");
    }
    errors.one_of(&at, kind, &METRICS);
    let present = [
        ("object", metric.object.is_some()),
        ("external", metric.external.is_some()),
        ("pods", metric.pods.is_some()),
        ("resource", metric.resource.is_some()),
        ("containerResource", metric.container_resource.is_some()),
    ];
    // Only the first of several sources is looked into.
    let first = present.iter().find(|(_, set)| *set).map(|(key, _)| *key);
    let at_source = |key: &str| path.child(key);
    match first {
        Some("object") => {
            let source = metric.object.as_ref();
            source.into_iter().for_each(|s| object_source(s, any_version, &at_source("object"), errors));
        }
        Some("external") => {
            let source = metric.external.as_ref();
            source.into_iter().for_each(|s| external_source(s, &at_source("external"), errors));
        }
        Some("pods") => {
            let source = metric.pods.as_ref();
            source.into_iter().for_each(|s| pods_source(s, &at_source("pods"), errors));
        }
        Some("resource") => {
            let source = metric.resource.as_ref();
            source.into_iter().for_each(|s| resource_source(s, &at_source("resource"), errors));
        }
        Some("containerResource") => {
            let source = metric.container_resource.as_ref();
            source.into_iter().for_each(|s| container_source(s, &at_source("containerResource"), errors));
        }
        _ => {}
    }
    let expected = match kind {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => {
            errors.not_supported(&at, kind, &METRICS);
            ""
        }
    };
    if !expected.is_empty() && !present.contains(&(expected, true)) {
        errors.required(&path.child(expected), "must populate information for the given metric source");
    }
    if present.iter().filter(|(_, set)| *set).count() != 1 {
        for (key, _) in present.iter().filter(|(key, set)| *set && *key != expected) {
            errors.forbidden(&path.child(key), "must populate the given metric source only");
        }
    }
}

fn object_source(source: &ObjectMetricSource, any_version: bool, path: &Path, errors: &mut ErrorList) {
    reference(&source.described_object, true, any_version, &path.child("describedObject"), errors);
    identifier(&source.metric, &path.child("metric"), errors);
    let at = path.child("target");
    target(&source.target, &at, errors);
    if source.target.value.is_none() && source.target.average_value.is_none() {
        errors.required(&at.child("averageValue"), "must set either a target value or averageValue");
    }
}

fn external_source(source: &ExternalMetricSource, path: &Path, errors: &mut ErrorList) {
    identifier(&source.metric, &path.child("metric"), errors);
    let at = path.child("target");
    target(&source.target, &at, errors);
    match (source.target.value.is_some(), source.target.average_value.is_some()) {
        (false, false) => {
            let detail = "must set either a target value for metric or a per-pod target";
            errors.required(&at.child("averageValue"), detail);
        }
        (true, true) => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&at.child("value"), detail);
        }
        _ => {}
    }
}

fn pods_source(source: &PodsMetricSource, path: &Path, errors: &mut ErrorList) {
    identifier(&source.metric, &path.child("metric"), errors);
    let at = path.child("target");
    target(&source.target, &at, errors);
    if source.target.average_value.is_none() {
        errors.required(&at.child("averageValue"), "must specify a positive target averageValue");
    }
}

fn container_source(source: &ContainerResourceMetricSource, path: &Path, errors: &mut ErrorList) {
    match source.name.as_str() {
        "" => errors.required(&path.child("name"), "must specify a resource name"),
        name => errors.extend(container_resource_name(name, &path.child("name"))),
    }
    match source.container.as_str() {
        "" => errors.required(&path.child("container"), "must specify a container"),
        name => errors.extend(dns_label(name, &path.child("container"))),
    }
    resource_target(&source.target, path, errors);
}

fn resource_source(source: &ResourceMetricSource, path: &Path, errors: &mut ErrorList) {
    if source.name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    resource_target(&source.target, path, errors);
}

fn resource_target(metric: &MetricTarget, path: &Path, errors: &mut ErrorList) {
    let at = path.child("target");
    target(metric, &at, errors);
    match (metric.average_utilization.is_some(), metric.average_value.is_some()) {
        (false, false) => {
            let detail = "must set either a target raw value or a target utilization";
            errors.required(&at.child("averageUtilization"), detail);
        }
        (true, true) => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.forbidden(&at.child("averageValue"), detail);
        }
        _ => {}
    }
}

fn target(target: &MetricTarget, path: &Path, errors: &mut ErrorList) {
    let kind = target.type_.as_str();
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&path.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    let mut positive = |key: &str, value: &Option<ApiQuantity>| {
        if let Some(value) = value.as_ref().map(amount).filter(|value| value.sign() != 1) {
            errors.invalid(&path.child(key), value.to_string(), "must be positive");
        }
    };
    positive("value", &target.value);
    positive("averageValue", &target.average_value);
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

fn identifier(metric: &MetricIdentifier, path: &Path, errors: &mut ErrorList) {
    segment(&metric.name, "must specify a metric name", &path.child("name"), errors);
}

fn scaling_rules(rules: &HPAScalingRules, path: &Path, errors: &mut ErrorList) {
    let at = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(window) if window < 0 => errors.invalid(&at, window, "must be greater than or equal to zero"),
        Some(window) if window > MAX_WINDOW => {
            errors.invalid(&at, window, format!("must be less than or equal to {MAX_WINDOW}"));
        }
        _ => {}
    }
    if let Some(policy) = &rules.select_policy {
        errors.one_of(&path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let at = path.child("policies");
    let policies = list(&rules.policies);
    if policies.is_empty() {
        errors.required(&at, "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = at.index(i);
        errors.one_of(&at.child("type"), &policy.type_, &["Percent", "Pods"]);
        for (key, value) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
            if value <= 0 {
                errors.invalid(&at.child(key), value, "must be greater than zero");
            }
        }
        if policy.period_seconds > MAX_PERIOD {
            let detail = format!("must be less than or equal to {MAX_PERIOD}");
            errors.invalid(&at.child("periodSeconds"), policy.period_seconds, detail);
        }
    }
    if let Some(tolerance) = &rules.tolerance {
        errors.extend(non_negative_amount(tolerance, &path.child("tolerance")));
    }
}
