//! `networking.k8s.io`: ingresses and their classes, network policies, service CIDRs and addresses.

use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, IPAddress, IPAddressSpec, IPBlock, Ingress, IngressBackend, IngressClass,
    IngressClassParametersReference, IngressRule, IngressSpec, IngressTLS, NetworkPolicy, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec, ParentReference, ServiceCIDR, ServiceCIDRSpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::golang;
use super::ip::{legacy_cidr, legacy_ip, masked, parse_cidr_sloppy, parse_sloppy, strict_cidr, strict_ip};
use super::meta::{self, has_invalid_values, label_selector};
use super::rules::{IMMUTABLE, check, dns_subdomain, list, text, to_value};

fn metadata() -> Path {
    Path::new("metadata")
}

fn spec_path() -> Path {
    Path::new("spec")
}

/// A value that may stand in a URL.
fn path_segment(value: &str, path: &Path) -> ErrorList {
    check(path, value, format::path_segment_name(value))
}

fn required_segment(value: &str, path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, "");
    } else {
        errors.extend(path_segment(value, path));
    }
}

/// A new network policy.
pub(crate) fn policy(object: &NetworkPolicy) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    let spec = object.spec.clone().unwrap_or_default();
    errors.extend(policy_spec(&spec, false, &[], &spec_path()));
    errors
}

/// A changed network policy.
pub(crate) fn policy_update(new: &NetworkPolicy, old: &NetworkPolicy) -> ErrorList {
    let before = old.spec.clone().unwrap_or_default();
    let mut known = Vec::new();
    let from = list(&before.ingress).iter().flat_map(|rule| list(&rule.from));
    let to = list(&before.egress).iter().flat_map(|rule| list(&rule.to));
    for block in from.chain(to).filter_map(|peer| peer.ip_block.as_ref()) {
        known.push(block.cidr.clone());
        known.extend(list(&block.except).iter().cloned());
    }
    let allow_invalid = has_invalid_values(before.pod_selector.as_ref());
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    let spec = new.spec.clone().unwrap_or_default();
    errors.extend(policy_spec(&spec, allow_invalid, &known, &spec_path()));
    errors
}

fn policy_spec(spec: &NetworkPolicySpec, allow_invalid: bool, known: &[String], path: &Path) -> ErrorList {
    let mut errors = label_selector(spec.pod_selector.as_ref(), allow_invalid, &path.child("podSelector"));
    let ingress = list(&spec.ingress).iter().map(|rule| (list(&rule.ports), list(&rule.from)));
    let egress = list(&spec.egress).iter().map(|rule| (list(&rule.ports), list(&rule.to)));
    let rules = ingress.enumerate().map(|(i, rule)| ("ingress", "from", i, rule));
    for (key, side, i, (ports, peers)) in rules.chain(egress.enumerate().map(|(i, r)| ("egress", "to", i, r)))
    {
        let path = path.child(key).index(i);
        for (j, port) in ports.iter().enumerate() {
            policy_port(port, &path.child("ports").index(j), &mut errors);
        }
        for (j, peer) in peers.iter().enumerate() {
            policy_peer(peer, allow_invalid, known, &path.child(side).index(j), &mut errors);
        }
    }
    let path = path.child("policyTypes");
    let types = list(&spec.policy_types);
    if types.len() > 2 {
        errors.invalid(&path, types.to_vec(), "may not specify more than two policyTypes");
        return errors;
    }
    for (i, kind) in types.iter().enumerate() {
        errors.one_of(&path.index(i), kind, &["Ingress", "Egress"]);
    }
    errors
}

fn policy_port(port: &NetworkPolicyPort, path: &Path, errors: &mut ErrorList) {
    if let Some(protocol) = &port.protocol {
        errors.one_of(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let at_end = path.child("endPort");
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), end) => {
            for message in format::port_number(i64::from(*number)) {
                errors.invalid(&path.child("port"), *number, message);
            }
            let Some(end) = end else { return };
            if end < *number {
                errors.invalid(&at_end, *number, "must be greater than or equal to `port`");
            }
            for message in format::port_number(i64::from(end)) {
                errors.invalid(&at_end, end, message);
            }
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                errors.invalid(&at_end, end, "may not be specified when `port` is non-numeric");
            }
            errors.messages(&path.child("port"), name, format::port_name(name));
        }
        (None, Some(end)) => {
            errors.invalid(&at_end, end, "may not be specified when `port` is not specified");
        }
        (None, None) => {}
    }
}

fn policy_peer(
    peer: &NetworkPolicyPeer,
    allow_invalid: bool,
    known: &[String],
    path: &Path,
    errors: &mut ErrorList,
) {
    let selectors = [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
    for (key, selector) in selectors {
        errors.extend(label_selector(selector.as_ref(), allow_invalid, &path.child(key)));
    }
    if let Some(block) = &peer.ip_block {
        ip_block(block, known, &path.child("ipBlock"), errors);
    }
    let others = usize::from(peer.pod_selector.is_some()) + usize::from(peer.namespace_selector.is_some());
    match (others, peer.ip_block.is_some()) {
        (0, false) => errors.required(path, "must specify a peer"),
        (1.., true) => errors.forbidden(path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(block: &IPBlock, known: &[String], path: &Path, errors: &mut ErrorList) {
    let at = path.child("cidr");
    if block.cidr.is_empty() {
        return errors.required(&at, "");
    }
    errors.extend(legacy_cidr(&at, &block.cidr, known));
    let Some((ip, length)) = parse_cidr_sloppy(&block.cidr) else { return };
    for (i, except) in list(&block.except).iter().enumerate() {
        let at = path.child("except").index(i);
        errors.extend(legacy_cidr(&at, except, known));
        let Some((inner, inner_length)) = parse_cidr_sloppy(except) else { continue };
        let same_family = ip.is_ipv4() == inner.is_ipv4();
        let inside = same_family && masked(inner, length.min(inner_length)) == masked(ip, length);
        if !inside || length >= inner_length {
            errors.invalid(&at, except.as_str(), "must be a strict subset of `cidr`");
        }
    }
}

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// A new ingress.
pub(crate) fn ingress(object: &Ingress) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    let spec = object.spec.clone().unwrap_or_default();
    errors.extend(ingress_spec(&spec, None));
    let annotation = object.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    if let (Some(annotation), Some(class)) = (annotation, &spec.ingress_class_name)
        && annotation != class
    {
        let at = Path::new("annotations").child(CLASS_ANNOTATION);
        errors.invalid(&at, annotation.as_str(), "must match `ingressClassName` when both are specified");
    }
    errors
}

/// A changed ingress.
pub(crate) fn ingress_update(new: &Ingress, old: &Ingress) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    errors.extend(meta::validate_core(&new.metadata, true, format::name_is_subdomain, &metadata()));
    errors.extend(ingress_spec(&new.spec.clone().unwrap_or_default(), old.spec.as_ref()));
    errors
}

/// An ingress changed by its status.
pub(crate) fn ingress_status(new: &Ingress, old: &Ingress) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    let points = |object: &Ingress| {
        let balancer = object.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        balancer.and_then(|b| b.ingress.clone()).unwrap_or_default()
    };
    let before: Vec<String> = points(old).iter().filter_map(|p| p.ip.clone()).collect();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (i, point) in points(new).iter().enumerate() {
        let path = path.index(i);
        let (ip, hostname) = (text(&point.ip), text(&point.hostname));
        if !ip.is_empty() {
            errors.extend(legacy_ip(&path.child("ip"), ip, &before));
        }
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

fn bad_secret(tls: &IngressTLS) -> Vec<String> {
    match text(&tls.secret_name) {
        "" => Vec::new(),
        name => format::dns1123_subdomain(name),
    }
}

fn ingress_spec(spec: &IngressSpec, old: Option<&IngressSpec>) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = spec_path();
    let rules = list(&spec.rules);
    if rules.is_empty() && spec.default_backend.is_none() {
        let shown = spec.rules.as_ref().map_or(Value::Null, |_| json!([]));
        let shown = if shown == json!([]) { Value::Null } else { shown };
        errors.invalid(&path, shown, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(default) = &spec.default_backend {
        backend(default, &path.child("defaultBackend"), &mut errors);
    }
    let old_rules = old.map(|old| list(&old.rules)).unwrap_or_default();
    let lax_wildcards = old_rules.iter().any(|r| {
        let mut found = ErrorList::new();
        rule_value(r, &Path::root(), &mut found);
        text(&r.host).contains('*') && !found.is_empty()
    });
    for (i, rule) in rules.iter().enumerate() {
        ingress_rule(rule, lax_wildcards, &path.child("rules").index(i), &mut errors);
    }
    let lax_secrets = old.is_some_and(|old| list(&old.tls).iter().any(|tls| !bad_secret(tls).is_empty()));
    for (i, tls) in list(&spec.tls).iter().enumerate() {
        let path = path.child("tls").index(i);
        for (j, host) in list(&tls.hosts).iter().enumerate() {
            errors.extend(host_name(host, &path.child("hosts").index(j)));
        }
        if !lax_secrets {
            errors.messages(&path.child("secretName"), text(&tls.secret_name), bad_secret(tls));
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        errors.extend(dns_subdomain(class, &path.child("ingressClassName")));
    }
    errors
}

fn host_name(host: &str, path: &Path) -> ErrorList {
    let rule =
        if host.contains('*') { format::wildcard_dns1123_subdomain } else { format::dns1123_subdomain };
    check(path, host, rule(host))
}

fn ingress_rule(rule: &IngressRule, lax_wildcards: bool, path: &Path, errors: &mut ErrorList) {
    let host = text(&rule.host);
    if !host.is_empty() {
        let at = path.child("host");
        if parse_sloppy(host).is_some() {
            errors.invalid(&at, host, "must be a DNS name, not an IP address");
        }
        errors.extend(host_name(host, &at));
    }
    if !host.contains('*') || !lax_wildcards {
        rule_value(rule, path, errors);
    }
}

fn rule_value(rule: &IngressRule, path: &Path, errors: &mut ErrorList) {
    let Some(http) = &rule.http else { return };
    let path = path.child("http").child("paths");
    if http.paths.is_empty() {
        errors.required(&path, "");
    }
    for (i, one) in http.paths.iter().enumerate() {
        http_path(one, &path.index(i), errors);
    }
}

fn http_path(http: &HTTPIngressPath, path: &Path, errors: &mut ErrorList) {
    let at = path.child("path");
    let value = text(&http.path);
    match http.path_type.as_str() {
        "" => return errors.required(&path.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.invalid(&at, value, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|s| value.contains(**s)) {
                errors.invalid(&at, value, format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].iter().filter(|s| value.ends_with(**s)) {
                errors.invalid(&at, value, format!("cannot end with '{suffix}'"));
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&at, value, "must be an absolute path");
            }
        }
        other => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.not_supported(&path.child("pathType"), other, &known);
        }
    }
    backend(&http.backend, &path.child("backend"), errors);
}

fn backend(backend: &IngressBackend, path: &Path, errors: &mut ErrorList) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => local_reference(resource, &path.child("resource"), errors),
        (None, Some(service)) => {
            let at = path.child("service");
            match service.name.as_str() {
                "" => errors.required(&at.child("name"), ""),
                name => errors.messages(&at.child("name"), name, format::dns1123_label(name)),
            }
            let port = service.port.clone().unwrap_or_default();
            let at = at.child("port");
            match (text(&port.name), port.number.unwrap_or(0)) {
                ("", 0) => errors.required(path, "port name or number is required"),
                ("", number) => {
                    for message in format::port_number(i64::from(number)) {
                        errors.invalid(&at.child("number"), number, message);
                    }
                }
                (name, 0) => errors.messages(&at.child("name"), name, format::port_name(name)),
                _ => errors.invalid(path, "", "cannot set both port name & port number"),
            }
        }
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
    }
}

fn local_reference(reference: &TypedLocalObjectReference, path: &Path, errors: &mut ErrorList) {
    if let Some(group) = &reference.api_group {
        errors.extend(dns_subdomain(group, &path.child("apiGroup")));
    }
    required_segment(&reference.kind, &path.child("kind"), errors);
    required_segment(&reference.name, &path.child("name"), errors);
}

/// A new ingress class.
pub(crate) fn class(object: &IngressClass) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, format::name_is_subdomain, &metadata());
    let spec = object.spec.clone().unwrap_or_default();
    let path = spec_path();
    let controller = text(&spec.controller);
    if controller.len() > 250 {
        errors.too_long(&path.child("controller"), 250);
    }
    errors.extend(format::domain_prefixed_path(&path.child("controller"), controller));
    if let Some(parameters) = &spec.parameters {
        class_parameters(parameters, &path.child("parameters"), &mut errors);
    }
    errors
}

fn class_parameters(parameters: &IngressClassParametersReference, path: &Path, errors: &mut ErrorList) {
    if let Some(group) = &parameters.api_group {
        errors.extend(dns_subdomain(group, &path.child("apiGroup")));
    }
    required_segment(&parameters.kind, &path.child("kind"), errors);
    required_segment(&parameters.name, &path.child("name"), errors);
    let at = path.child("namespace");
    match (parameters.scope.as_deref(), &parameters.namespace) {
        (None, _) => errors.required(&path.child("scope"), ""),
        (Some("Namespace"), None) => errors.required(&at, "`parameters.scope` is set to 'Namespace'"),
        (Some("Namespace"), Some(namespace)) => {
            errors.messages(&at, namespace, format::dns1123_label(namespace));
        }
        (Some("Cluster"), Some(_)) => errors.forbidden(&at, "`parameters.scope` is set to 'Cluster'"),
        (Some("Cluster"), None) => {}
        (Some(other), _) => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

/// A changed ingress class.
pub(crate) fn class_update(new: &IngressClass, old: &IngressClass) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    let controller = |object: &IngressClass| {
        object.spec.as_ref().map(|s| text(&s.controller).to_owned()).unwrap_or_default()
    };
    if controller(new) != controller(old) {
        errors.invalid(&spec_path().child("controller"), controller(new), IMMUTABLE);
    }
    errors.extend(class(new));
    errors
}

fn address_name(name: &str, _: bool) -> Vec<String> {
    strict_ip(&Path::root(), name).into_iter().map(|error| error.detail).collect()
}

/// A new IP address.
pub(crate) fn address(object: &IPAddress) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, address_name, &metadata());
    let path = spec_path().child("parentRef");
    let Some(parent) = parent(&object.spec) else {
        errors.required(&path, "");
        return errors;
    };
    let group = text(&parent.group);
    if !group.is_empty() {
        errors.extend(dns_subdomain(group, &path.child("group")));
    }
    required_segment(&parent.resource, &path.child("resource"), &mut errors);
    required_segment(&parent.name, &path.child("name"), &mut errors);
    let namespace = text(&parent.namespace);
    if !namespace.is_empty() {
        errors.extend(path_segment(namespace, &path.child("namespace")));
    }
    errors
}

/// The parent of an address; the struct does not tell an unset one from an empty one.
fn parent(spec: &IPAddressSpec) -> Option<&ParentReference> {
    let parent = &spec.parent_ref;
    (*parent != ParentReference::default()).then_some(parent)
}

/// A changed IP address.
pub(crate) fn address_update(new: &IPAddress, old: &IPAddress) -> ErrorList {
    let mut errors = address(new);
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &metadata()));
    let (now, before) = (parent(&new.spec), parent(&old.spec));
    if now != before {
        let shown = golang::show("networking.ParentReference", &now.map(to_value).unwrap_or_default());
        errors.push(Error::invalid_shown(&spec_path().child("parentRef"), shown, IMMUTABLE));
    }
    errors
}

/// A new service CIDR.
pub(crate) fn service_cidr(object: &ServiceCIDR) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, format::name_is_subdomain, &metadata());
    errors.extend(cidrs(&object.spec.clone().unwrap_or_default()));
    errors
}

fn cidrs(spec: &ServiceCIDRSpec) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = spec_path().child("cidrs");
    let cidrs = list(&spec.cidrs);
    if cidrs.is_empty() {
        errors.required(&path, "at least one CIDR required");
        return errors;
    }
    if cidrs.len() > 2 {
        let shown = format!("{{\"CIDRs\":{}}}", crate::field::json(&cidrs));
        errors.push(Error::invalid_shown(&path, shown, "may only hold up to 2 values"));
        return errors;
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        errors.extend(strict_cidr(&path.index(i), cidr));
    }
    if let [a, b] = cidrs
        && let (Some((a, _)), Some((b, _))) = (parse_cidr_sloppy(a), parse_cidr_sloppy(b))
        && a.is_ipv4() == b.is_ipv4()
    {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&path, cidrs.to_vec(), detail);
    }
    errors
}

/// A changed service CIDR: the second family may be added.
pub(crate) fn service_cidr_update(new: &ServiceCIDR, old: &ServiceCIDR) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    let (spec, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let path = spec_path().child("cidrs");
    let (now, then) = (list(&spec.cidrs), list(&before.cidrs));
    if now.len() == then.len() || (then.len() == 1 && now.len() == 2) {
        for (i, (cidr, _)) in now.iter().zip(then).enumerate().filter(|(_, (a, b))| a != b) {
            errors.invalid(&path.index(i), cidr.as_str(), IMMUTABLE);
        }
        if now.len() != then.len() {
            errors.extend(cidrs(&spec));
        }
    } else {
        errors.invalid(&path, now.to_vec(), IMMUTABLE);
    }
    errors
}

/// A service CIDR changed by its status.
pub(crate) fn service_cidr_status(new: &ServiceCIDR, old: &ServiceCIDR) -> ErrorList {
    meta::validate_update_core(&new.metadata, &old.metadata, &metadata())
}
