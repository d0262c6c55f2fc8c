//! Defaults of the core group but pods, volumes and workloads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{quantity, resource_list};

/// Service.
pub(crate) fn service(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    spec.or_zero("sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let config = spec.object("sessionAffinityConfig").and_then(|c| c.object("clientIP"));
            if config.is_none_or(|c| c.is_unset("timeoutSeconds")) {
                spec.insert(
                    "sessionAffinityConfig".to_owned(),
                    json!({"clientIP": {"timeoutSeconds": 10800}}),
                );
            }
        }
        _ => {}
    }
    spec.or_zero("type", "ClusterIP");
    for port in spec.each_mut("ports") {
        port.or_zero("protocol", "TCP");
        let number = port.int("port");
        port.or_zero("targetPort", number);
    }
    let kind = spec.text("type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    if external {
        spec.or_zero("externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        spec.or_default("internalTrafficPolicy", "Cluster");
    }
    if kind != "LoadBalancer" {
        return;
    }
    spec.or_default("allocateLoadBalancerNodePorts", true);
    let balancer = object.object_mut("status").and_then(|s| s.object_mut("loadBalancer"));
    for ingress in balancer.into_iter().flat_map(|b| b.each_mut("ingress")) {
        if !ingress.text("ip").is_empty() {
            ingress.or_default("ipMode", "VIP");
        }
    }
}

/// Secret: its type, and the plain strings that become data.
pub(crate) fn secret(object: &mut Object) {
    object.or_zero("type", "Opaque");
    if let Some(Value::Object(strings)) = object.remove("stringData")
        && !strings.is_empty()
        && let Some(data) = object.ensure("data")
    {
        for (key, text) in strings {
            let encoded = STANDARD.encode(text.as_str().unwrap_or_default());
            data.insert(key, Value::String(encoded));
        }
    }
}

/// Endpoints.
pub(crate) fn endpoints(object: &mut Object) {
    for port in object.each_mut("subsets").flat_map(|s| s.each_mut("ports")) {
        port.or_zero("protocol", "TCP");
    }
}

/// Namespace: the label with its own name.
pub(crate) fn namespace(object: &mut Object) {
    if let Some(status) = object.ensure("status") {
        status.or_zero("phase", "Active");
    }
    if let Some(meta) = object.ensure("metadata") {
        let name = meta.text("name").to_owned();
        if !name.is_empty()
            && let Some(labels) = meta.ensure("labels")
        {
            labels.insert("kubernetes.io/metadata.name".to_owned(), Value::String(name));
        }
    }
}

/// Node: what can be allocated is all there is, unless said otherwise.
pub(crate) fn node(object: &mut Object) {
    if let Some(status) = object.object_mut("status") {
        resource_list(status, "capacity");
        resource_list(status, "allocatable");
        if let Some(capacity) = status.get("capacity").filter(|c| !c.is_null()).cloned() {
            status.or_default("allocatable", capacity);
        }
    }
    let Some(spec) = object.object_mut("spec") else { return };
    let single = spec.text("podCIDR").to_owned();
    let first = spec.list("podCIDRs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
    if !single.is_empty() && first != single {
        spec.insert("podCIDRs".to_owned(), json!([single]));
    } else if single.is_empty() && !first.is_empty() {
        spec.insert("podCIDR".to_owned(), Value::String(first));
    }
}

/// LimitRange: the default of a container is its maximum, the default request its default or its minimum.
pub(crate) fn limit_range(object: &mut Object) {
    for item in object.object_mut("spec").into_iter().flat_map(|s| s.each_mut("limits")) {
        for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            resource_list(item, key);
        }
        if item.text("type") != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let source = item.object(from).cloned().unwrap_or_default();
            if let Some(target) = item.ensure(to) {
                source.into_iter().for_each(|(name, amount)| target.or_default(&name, amount));
            }
        }
    }
}

/// ResourceQuota.
pub(crate) fn resource_quota(object: &mut Object) {
    if let Some(spec) = object.object_mut("spec") {
        resource_list(spec, "hard");
    }
    if let Some(status) = object.object_mut("status") {
        resource_list(status, "hard");
        resource_list(status, "used");
    }
}

/// RuntimeClass.
pub(crate) fn runtime_class(object: &mut Object) {
    if let Some(overhead) = object.object_mut("overhead") {
        for amount in overhead.object_mut("podFixed").into_iter().flat_map(|l| l.values_mut()) {
            quantity(amount, false);
        }
    }
}
