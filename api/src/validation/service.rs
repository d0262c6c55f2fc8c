//! Services.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    LoadBalancerStatus, Service, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::container::port_or_name;
use super::golang;
use super::ip::{endpoint_ip, is_dual_stack, legacy_cidr, legacy_ip, parse_sloppy};
use super::meta;
use super::rules::{dns_label, dns_subdomain, list, qualified_name, text, to_value};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
pub(crate) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MAX_AFFINITY_SECONDS: i32 = 86400;
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn spec_of(service: &Service) -> ServiceSpec {
    service.spec.clone().unwrap_or_default()
}

fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(list(&spec.cluster_ips), [only] if only == "None")
}

/// A new service.
pub(crate) fn create(service: &Service) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&service.metadata, true, format::name_is_label, &path);
    errors.extend(check(service, None));
    errors
}

/// A changed service.
pub(crate) fn update(new: &Service, old: &Service) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (spec, before) = (spec_of(new), spec_of(old));
    cluster_ips_update(&spec, &before, &mut errors);
    families_update(&spec, &before, &mut errors);
    load_balancer_class(&spec, Some(&before), &mut errors);
    if needs_health_check(&before)
        && needs_health_check(&spec)
        && spec.health_check_node_port.unwrap_or(0) != before.health_check_node_port.unwrap_or(0)
    {
        errors.forbidden(&Path::new("spec").child("healthCheckNodePort"), "field is immutable");
    }
    errors.extend(check(new, Some(old)));
    errors
}

/// A service changed by its status.
pub(crate) fn status(new: &Service, old: &Service) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let balancer =
        |service: &Service| service.status.as_ref().and_then(|s| s.load_balancer.clone()).unwrap_or_default();
    let path = Path::new("status").child("loadBalancer");
    let is_balanced = text(&spec_of(new).type_) == "LoadBalancer";
    errors.extend(load_balancer_status(&balancer(new), &balancer(old), is_balanced, &path));
    errors
}

fn load_balancer_status(
    status: &LoadBalancerStatus,
    old: &LoadBalancerStatus,
    is_balanced: bool,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = path.child("ingress");
    let ingress = list(&status.ingress);
    if !is_balanced && !ingress.is_empty() {
        errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return errors;
    }
    let before: Vec<String> =
        list(&old.ingress).iter().map(|i| text(&i.ip).to_owned()).filter(|ip| !ip.is_empty()).collect();
    for (i, ingress) in ingress.iter().enumerate() {
        let path = path.index(i);
        let ip = text(&ingress.ip);
        if !ip.is_empty() {
            errors.extend(legacy_ip(&path.child("ip"), ip, &before));
        }
        let at = path.child("ipMode");
        match &ingress.ip_mode {
            None if ip.is_empty() => {}
            None => errors.required(&at, "must be specified when `ip` is set"),
            Some(_) if ip.is_empty() => errors.forbidden(&at, "may not be specified when `ip` is not set"),
            Some(mode) => errors.one_of(&at, mode, &["Proxy", "VIP"]),
        }
        let hostname = text(&ingress.hostname);
        if !hostname.is_empty() {
            let at = path.child("hostname");
            errors.extend(dns_subdomain(hostname, &at));
            if parse_sloppy(hostname).is_some() {
                errors.invalid(&at, hostname, "must be a DNS name, not an IP address");
            }
        }
    }
    errors
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a String> {
    service.metadata.annotations.as_ref()?.get(key)
}

fn check(service: &Service, old: Option<&Service>) -> ErrorList {
    let mut errors = ErrorList::new();
    if let (Some(hints), Some(mode)) = (annotation(service, HINTS), annotation(service, MODE))
        && hints != mode
    {
        let at = Path::new("metadata").child("annotations").key(MODE);
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(&at, mode.as_str(), detail);
    }
    let spec = spec_of(service);
    let before = old.map(spec_of);
    let path = Path::new("spec");
    let kind = text(&spec.type_);
    if list(&spec.ports).is_empty() && !is_headless(&spec) && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    by_type(&spec, kind, &path, &mut errors);
    each_port(&spec, &path.child("ports"), &mut errors);
    if spec.selector.is_some() {
        errors.extend(meta::labels(spec.selector.as_ref(), &path.child("selector")));
    }
    affinity(&spec, &path, &mut errors);
    cluster_ips(&spec, before.as_ref(), &path, &mut errors);
    let external = before.as_ref().map(|b| list(&b.external_ips)).unwrap_or_default();
    for (i, ip) in list(&spec.external_ips).iter().enumerate() {
        let at = path.child("externalIPs").index(i);
        let found = legacy_ip(&at, ip, external);
        let found = if found.is_empty() { endpoint_ip(ip, &at) } else { found };
        errors.extend(found);
    }
    if kind.is_empty() {
        errors.required(&path.child("type"), "");
    } else {
        errors.one_of(&path.child("type"), kind, &TYPES);
    }
    unique_ports(&spec, kind, &path.child("ports"), &mut errors);
    source_ranges(service, &spec, old, &mut errors);
    let is_balanced = kind == "LoadBalancer";
    if spec.allocate_load_balancer_node_ports.is_some() && !is_balanced {
        let at = path.child("allocateLoadBalancerNodePorts");
        errors.forbidden(&at, "may only be used when `type` is 'LoadBalancer'");
    }
    if is_balanced && spec.allocate_load_balancer_node_ports.is_none() {
        errors.required(&Path::new("allocateLoadBalancerNodePorts"), "");
    }
    load_balancer_class(&spec, None, &mut errors);
    traffic(&spec, kind, &path, &mut errors);
    errors
}

fn by_type(spec: &ServiceSpec, kind: &str, path: &Path, errors: &mut ErrorList) {
    let at = path.child("clusterIPs");
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            errors.invalid(&at.index(0), "None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            let detail = "may not be set for ExternalName services";
            if !list(&spec.cluster_ips).is_empty() {
                errors.forbidden(&at, detail);
            }
            if !list(&spec.ip_families).is_empty() {
                errors.forbidden(&path.child("ipFamilies"), detail);
            }
            if spec.ip_family_policy.is_some() {
                errors.forbidden(&path.child("ipFamilyPolicy"), detail);
            }
            let name = text(&spec.external_name);
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.required(&path.child("externalName"), ""),
                name => errors.extend(dns_subdomain(name, &path.child("externalName"))),
            }
        }
        _ => {}
    }
}

fn each_port(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let ports = list(&spec.ports);
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(&port.name);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&path.child("name"), "");
            }
        } else {
            errors.extend(dns_label(name, &path.child("name")));
            if !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        for message in format::port_number(i64::from(port.port)) {
            errors.invalid(&path.child("port"), port.port, message);
        }
        match text(&port.protocol) {
            "" => errors.required(&path.child("protocol"), ""),
            protocol => errors.one_of(&path.child("protocol"), protocol, &PROTOCOLS),
        }
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(0));
        errors.extend(port_or_name(&target, &path.child("targetPort")));
        if let Some(protocol) = &port.app_protocol {
            errors.extend(qualified_name(protocol, &path.child("appProtocol")));
        }
    }
}

fn unique_ports(spec: &ServiceSpec, kind: &str, path: &Path, errors: &mut ErrorList) {
    let ports = list(&spec.ports);
    let node_port = |port: &ServicePort| port.node_port.unwrap_or(0);
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
            let at = path.index(i).child("nodePort");
            errors.forbidden(&at, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
        if !seen.insert((text(&port.protocol), node_port(port))) {
            errors.duplicate(&path.index(i).child("nodePort"), node_port(port));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !seen.insert((text(&port.protocol), port.port)) {
            let key = json!({"protocol": port.protocol, "port": port.port});
            let shown = Some(golang::show("core.ServicePort", &key));
            errors.push(Error { shown, ..Error::duplicate(&path.index(i), Value::Null) });
        }
    }
}

fn affinity(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let at = path.child("sessionAffinity");
    let affinity = text(&spec.session_affinity);
    if affinity.is_empty() {
        errors.required(&at, "");
    } else {
        errors.one_of(&at, affinity, &["ClientIP", "None"]);
    }
    let at = path.child("sessionAffinityConfig");
    match affinity {
        "ClientIP" => client_ip(spec.session_affinity_config.as_ref(), &at, errors),
        "None" if spec.session_affinity_config.is_some() => {
            errors.forbidden(&at, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn client_ip(config: Option<&SessionAffinityConfig>, path: &Path, errors: &mut ErrorList) {
    let detail = "when session affinity type is ClientIP";
    let Some(config) = config else { return errors.required(path, detail) };
    let path = path.child("clientIP");
    let Some(client) = &config.client_ip else { return errors.required(&path, detail) };
    let path = path.child("timeoutSeconds");
    let Some(seconds) = client.timeout_seconds else { return errors.required(&path, detail) };
    if seconds <= 0 || seconds > MAX_AFFINITY_SECONDS {
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.invalid(&path, seconds, detail);
    }
}

fn cluster_ips(spec: &ServiceSpec, old: Option<&ServiceSpec>, path: &Path, errors: &mut ErrorList) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let at = path.child("clusterIPs");
    let (ip, ips) = (text(&spec.cluster_ip), list(&spec.cluster_ips));
    match (ip, ips.first()) {
        ("", None) => {}
        ("", Some(_)) => errors.invalid(&at, ips.to_vec(), "must be empty when `clusterIP` is not specified"),
        (_, None) => errors.required(&at, ""),
        (ip, Some(first)) if ip != first => {
            errors.invalid(&at, ips.to_vec(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = list(&spec.ip_families);
    let family_path = path.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        errors.one_of(&family_path.index(i), family, &FAMILIES);
        if families[..i].contains(family) {
            errors.duplicate(&family_path.index(i), family.as_str());
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        errors.one_of(&path.child("ipFamilyPolicy"), policy, &FAMILY_POLICIES);
    }
    let before = old.map(|old| list(&old.cluster_ips)).unwrap_or_default();
    let mut bad = false;
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                bad = true;
                errors.invalid(&at, ips.to_vec(), "'None' must be the first and only value");
            }
            continue;
        }
        let found = legacy_ip(&at.index(i), ip, before);
        bad |= !found.is_empty();
        errors.extend(found);
    }
    if ips.len() > 2 {
        errors.invalid(&at, ips.to_vec(), "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    if ips.len() > 1 && is_dual_stack(ips.iter().map(|ip| parse_sloppy(ip))) != Some(true) {
        errors.invalid(&at, ips.to_vec(), "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
        let is_v6 = parse_sloppy(ip).is_some_and(|ip| ip.to_canonical().is_ipv6());
        if (family == "IPv4" && is_v6) || (family == "IPv6" && !is_v6) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&at.index(i), ip.as_str(), detail);
        }
    }
}

const UNCHANGING: &str = "may not change once set";

/// A list as a bad value; Go shows an unset one as null.
fn shown(items: &Option<Vec<String>>) -> Value {
    items.as_ref().filter(|items| !items.is_empty()).map(to_value).unwrap_or_default()
}

fn single_stack_only(new: &ServiceSpec, what: &str, errors: &mut ErrorList) {
    if new.ip_family_policy.as_deref() != Some("SingleStack") {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.invalid(&Path::new("spec").child("ipFamilyPolicy"), to_value(&new.ip_family_policy), detail);
    }
}

fn is_external(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "ExternalName"
}

fn cluster_ips_update(new: &ServiceSpec, old: &ServiceSpec, errors: &mut ErrorList) {
    if is_external(new) || is_external(old) || (is_headless(old) && is_headless(new)) {
        return;
    }
    let path = Path::new("spec").child("clusterIPs");
    let (ips, before) = (list(&new.cluster_ips), list(&old.cluster_ips));
    let first_changed = matches!((ips.first(), before.first()), (Some(a), Some(b)) if a != b);
    if before.len() == ips.len() {
        for (i, _) in before.iter().zip(ips).enumerate().filter(|(_, (a, b))| a != b) {
            errors.invalid(&path.index(i), shown(&new.cluster_ips), UNCHANGING);
        }
        return;
    }
    if ips.is_empty() {
        errors.invalid(&path.index(0), Value::Null, "primary clusterIP can not be unset");
    }
    if first_changed {
        errors.invalid(&path.index(0), shown(&new.cluster_ips), UNCHANGING);
    }
    if before.len() > ips.len() && ips.len() == 1 {
        single_stack_only(new, "clusterIP", errors);
    }
}

fn families_update(new: &ServiceSpec, old: &ServiceSpec, errors: &mut ErrorList) {
    if is_external(new) || is_external(old) || is_headless(old) || is_headless(new) {
        return;
    }
    let path = Path::new("spec").child("ipFamilies").index(0);
    let (families, before) = (list(&new.ip_families), list(&old.ip_families));
    let first_changed = matches!((families.first(), before.first()), (Some(a), Some(b)) if a != b);
    if before.len() == families.len() {
        for _ in before.iter().zip(families).filter(|(a, b)| a != b) {
            errors.invalid(&path, shown(&new.ip_families), UNCHANGING);
        }
        return;
    }
    if before.len() > families.len() && list(&new.cluster_ips).is_empty() {
        errors.invalid(&path, shown(&new.ip_families), "primary ipFamily can not be unset");
    }
    if first_changed {
        errors.invalid(&path, shown(&new.cluster_ips), UNCHANGING);
    }
    if before.len() > families.len() && families.len() == 1 {
        single_stack_only(new, "ipFamily", errors);
    }
}

fn load_balancer_class(spec: &ServiceSpec, old: Option<&ServiceSpec>, errors: &mut ErrorList) {
    let path = Path::new("spec").child("loadBalancerClass");
    let is_balanced = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    let class = &spec.load_balancer_class;
    if old.is_some_and(|old| is_balanced(old) && is_balanced(spec) && old.load_balancer_class != *class) {
        errors.invalid(&path, to_value(class), UNCHANGING);
    }
    match class {
        Some(class) if is_balanced(spec) => errors.extend(qualified_name(class, &path)),
        Some(_) => errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'"),
        None => {}
    }
}

fn source_ranges(service: &Service, spec: &ServiceSpec, old: Option<&Service>, errors: &mut ErrorList) {
    let is_balanced = text(&spec.type_) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = list(&spec.load_balancer_source_ranges);
    if !ranges.is_empty() {
        let path = Path::new("spec").child("LoadBalancerSourceRanges");
        if !is_balanced {
            errors.forbidden(&path, only);
        }
        let before: Vec<String> = old
            .and_then(|old| old.spec.as_ref())
            .map(|old| list(&old.load_balancer_source_ranges).iter().map(|r| r.trim().to_owned()).collect())
            .unwrap_or_default();
        for (i, range) in ranges.iter().enumerate() {
            errors.extend(legacy_cidr(&path.index(i), range.trim(), &before));
        }
    } else if let Some(ranges) = annotation(service, SOURCE_RANGES) {
        let path = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        if !is_balanced {
            errors.forbidden(&path, only);
        }
        let unchanged = old.and_then(|old| annotation(old, SOURCE_RANGES)) == Some(ranges);
        if !unchanged && !ranges.trim().is_empty() {
            for range in ranges.trim().split(',') {
                errors.extend(legacy_cidr(&path, range.trim(), &[]));
            }
        }
    }
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

fn traffic(spec: &ServiceSpec, kind: &str, path: &Path, errors: &mut ErrorList) {
    let external = matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !list(&spec.external_ips).is_empty());
    let at = path.child("externalTrafficPolicy");
    match (external, text(&spec.external_traffic_policy)) {
        (false, "") => {}
        (false, policy) => errors.invalid(&at, policy, "may only be set for externally-accessible services"),
        (true, "") => errors.required(&at, ""),
        (true, policy) => errors.one_of(&at, policy, &["Cluster", "Local"]),
    }
    let at = path.child("healthCheckNodePort");
    match (needs_health_check(spec), spec.health_check_node_port.unwrap_or(0)) {
        (false, 0) => {}
        (false, port) => {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&at, port, detail);
        }
        (true, 0) => errors.required(&at, ""),
        (true, port) => {
            for message in format::port_number(i64::from(port)) {
                errors.invalid(&at, port, message);
            }
        }
    }
    let at = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        None if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") => errors.required(&at, ""),
        None => {}
        Some(policy) => errors.one_of(&at, policy, &["Cluster", "Local"]),
    }
    if let Some(distribution) = &spec.traffic_distribution {
        let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.one_of(&path.child("trafficDistribution"), distribution, &known);
    }
}
