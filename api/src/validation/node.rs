//! Nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMapNodeConfigSource, Node, NodeConfigSource, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report, quote};
use crate::format;

use super::affinity::taints;
use super::golang;
use super::ip::{is_dual_stack, legacy_cidr, parse_cidr_sloppy};
use super::meta;
use super::resources::resource_amount;
use super::rules::{check, list, positive, text, to_value};

mod annotations;

/// A new node.
pub(crate) fn create(node: &Node) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&node.metadata, false, format::name_is_subdomain, &path);
    let annotations = node.metadata.annotations.as_ref();
    errors.extend(annotations::validate(annotations, &path.child("annotations")));
    let (spec, status) = (node.spec.clone().unwrap_or_default(), node.status.clone().unwrap_or_default());
    if !list(&spec.taints).is_empty() {
        errors.extend(taints(list(&spec.taints), &path.child("taints")));
    }
    resources(&status, &mut errors);
    if let Some(swap) = status.node_info.as_ref().and_then(|info| info.swap.as_ref())
        && let Some(capacity) = swap.capacity
    {
        errors.extend(positive(capacity, &path.child("nodeSwapStatus").child("capacity")));
    }
    declared_features(list(&status.declared_features), &mut errors);
    pod_cidrs(&spec, &mut errors);
    errors
}

fn pod_cidrs(spec: &NodeSpec, errors: &mut ErrorList) {
    let path = Path::new("spec").child("podCIDRs");
    let cidrs = list(&spec.pod_cidrs);
    for (i, cidr) in cidrs.iter().enumerate() {
        errors.extend(legacy_cidr(&path.index(i), cidr, &[]));
    }
    if cidrs.len() > 1 {
        let dual = is_dual_stack(cidrs.iter().map(|cidr| Some(parse_cidr_sloppy(cidr)?.0)));
        if dual.is_none() {
            let bad = cidrs.iter().find(|cidr| parse_cidr_sloppy(cidr).is_none()).map_or("", String::as_str);
            let detail = format!(
                "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR address: {bad}"
            );
            errors.push(Error::internal(&path, detail));
        }
        if dual != Some(true) || cidrs.len() > 2 {
            errors.invalid(&path, cidrs.to_vec(), "may specify no more than one CIDR for each IP family");
        }
    }
}

fn resources(status: &NodeStatus, errors: &mut ErrorList) {
    let mut check = |field: &str, amounts: Option<&BTreeMap<String, Quantity>>| {
        for (name, value) in amounts.into_iter().flatten() {
            let path = Path::new("status").child(field).child(name);
            errors.extend(resource_amount(name, value, &path));
        }
    };
    check("capacity", status.capacity.as_ref());
    check("allocatable", status.allocatable.as_ref());
}

fn declared_features(features: &[String], errors: &mut ErrorList) {
    let path = Path::new("status").child("declaredFeatures");
    for (i, feature) in features.iter().enumerate() {
        let is_part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let good = feature.starts_with(|c: char| c.is_ascii_uppercase()) && feature.split('/').all(is_part);
        if feature.len() > 253 {
            let detail =
                format!("invalid feature name {}: must be no more than 253 characters", quote(feature));
            errors.invalid(&path.index(i), feature.as_str(), detail);
        } else if !good {
            let detail = format!(
                "invalid feature name {}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
                quote(feature)
            );
            errors.invalid(&path.index(i), feature.as_str(), detail);
        }
        if let Some(next) = features.get(i + 1) {
            if feature == next {
                errors.duplicate(&path.index(i + 1), next.as_str());
            } else if feature > next {
                errors.invalid(&path.index(i + 1), next.as_str(), "list must be sorted alphabetically");
            }
        }
    }
}

/// A changed node, by whatever way.
pub(crate) fn node_update(new: &Node, old: &Node) -> ErrorList {
    let mut errors = create(new);
    errors.extend(update(new, old));
    errors
}

/// A node changed by its status, or in any other way.
pub(crate) fn update(new: &Node, old: &Node) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &path);
    let annotations = new.metadata.annotations.as_ref();
    errors.extend(annotations::validate(annotations, &path.child("annotations")));
    let (spec, status) = (new.spec.clone().unwrap_or_default(), new.status.clone().unwrap_or_default());
    let before = old.spec.clone().unwrap_or_default();
    resources(&status, &mut errors);
    declared_features(list(&status.declared_features), &mut errors);
    let addresses = list(&status.addresses);
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            let at = Path::new("status").child("addresses").index(i);
            let shown = Some(golang::show("core.NodeAddress", &to_value(address)));
            errors.push(Error { shown, ..Error::duplicate(&at, Value::Null) });
        }
    }
    let path_spec = Path::new("spec");
    let (cidrs, cidrs_before) = (list(&spec.pod_cidrs), list(&before.pod_cidrs));
    if !cidrs_before.is_empty() {
        let changes = if cidrs.len() == cidrs_before.len() {
            cidrs.iter().zip(cidrs_before).filter(|(a, b)| a != b).count()
        } else {
            1
        };
        for _ in 0..changes {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&path_spec.child("podCIDRs"), detail);
        }
    }
    if !text(&before.provider_id).is_empty() && before.provider_id != spec.provider_id {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&path_spec.child("providerID"), detail);
    }
    if let Some(source) = &spec.config_source {
        config_source(source, false, &path_spec.child("configSource"), &mut errors);
    }
    if let Some(config) = &status.config {
        let at = Path::new("status").child("config");
        let sources = [
            ("assigned", &config.assigned),
            ("active", &config.active),
            ("lastKnownGood", &config.last_known_good),
        ];
        for (key, source) in sources {
            if let Some(source) = source {
                config_source(source, true, &at.child(key), &mut errors);
            }
        }
    }
    if !list(&spec.taints).is_empty() {
        errors.extend(taints(list(&spec.taints), &path.child("taints")));
    }
    if text(&spec.external_id) != text(&before.external_id) {
        errors.forbidden(&path_spec.child("externalID"), "may not be updated");
    }
    errors
}

fn config_source(source: &NodeConfigSource, in_status: bool, path: &Path, errors: &mut ErrorList) {
    match &source.config_map {
        Some(map) => config_map(map, in_status, &path.child("configMap"), errors),
        None => {
            let shown = golang::show("core.NodeConfigSource", &to_value(source));
            let detail = "exactly one reference subfield must be non-nil";
            errors.push(Error::invalid_shown(path, shown, detail));
        }
    }
}

fn config_map(source: &ConfigMapNodeConfigSource, in_status: bool, path: &Path, errors: &mut ErrorList) {
    for (key, value) in [("uid", text(&source.uid)), ("resourceVersion", text(&source.resource_version))] {
        if in_status && value.is_empty() {
            errors.required(&path.child(key), "");
        }
        if !in_status && !value.is_empty() {
            errors.forbidden(&path.child(key), format!("{key} must not be set in spec"));
        }
    }
    type Rule = fn(&str) -> Vec<String>;
    let fields: [(&str, &str, Rule); 3] = [
        ("namespace", &source.namespace, format::dns1123_label),
        ("name", &source.name, format::dns1123_subdomain),
        ("kubeletConfigKey", &source.kubelet_config_key, format::config_map_key),
    ];
    for (key, value, rule) in fields {
        if value.is_empty() {
            errors.required(&path.child(key), "");
        } else {
            errors.extend(check(&path.child(key), value, rule(value)));
        }
    }
}
