//! Endpoint slices.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::claim::same;
use super::ip::{endpoint_ip, legacy_ip, parse_sloppy, strict_ip};
use super::meta;
use super::rules::{IMMUTABLE, dns_label, list, qualified_name, text};
use super::service::PROTOCOLS;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_HINTS: usize = 8;
const ZONE: &str = "topology.kubernetes.io/zone";

/// A new slice.
pub(crate) fn create(slice: &EndpointSlice) -> ErrorList {
    check(slice, None)
}

/// A changed slice.
pub(crate) fn update(new: &EndpointSlice, old: &EndpointSlice) -> ErrorList {
    let mut errors = check(new, Some(old));
    if new.address_type != old.address_type {
        errors.invalid(&Path::new("addressType"), new.address_type.as_str(), IMMUTABLE);
    }
    errors
}

fn check(slice: &EndpointSlice, old: Option<&EndpointSlice>) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&slice.metadata, true, format::name_is_subdomain, &path);
    let path = Path::new("addressType");
    match slice.address_type.as_str() {
        "" => errors.required(&path, ""),
        kind => errors.one_of(&path, kind, &["FQDN", "IPv4", "IPv6"]),
    }
    ports(list(&slice.ports), &Path::new("ports"), &mut errors);
    if !old.is_some_and(|old| same(&old.endpoints, &slice.endpoints)) {
        endpoints(slice, &Path::new("endpoints"), &mut errors);
    }
    errors
}

fn ports(ports: &[EndpointPort], path: &Path, errors: &mut ErrorList) {
    if ports.len() > MAX_PORTS {
        return errors.push(Error::too_many(path, ports.len(), MAX_PORTS));
    }
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            errors.extend(dns_label(name, &path.child("name")));
        }
        if ports[..i].iter().any(|p| text(&p.name) == name) {
            errors.duplicate(&path.child("name"), name);
        }
        match &port.protocol {
            None => errors.required(&path.child("protocol"), ""),
            Some(protocol) => errors.one_of(&path.child("protocol"), protocol, &PROTOCOLS),
        }
        if let Some(protocol) = &port.app_protocol {
            errors.extend(qualified_name(protocol, &path.child("appProtocol")));
        }
    }
}

fn endpoints(slice: &EndpointSlice, path: &Path, errors: &mut ErrorList) {
    let endpoints = list(&slice.endpoints);
    if endpoints.len() > MAX_ENDPOINTS {
        return errors.push(Error::too_many(path, endpoints.len(), MAX_ENDPOINTS));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        one(endpoint, &slice.address_type, &path.index(i), errors);
    }
}

fn one(endpoint: &Endpoint, kind: &str, path: &Path, errors: &mut ErrorList) {
    let at = path.child("addresses");
    let count = endpoint.addresses.len();
    if count == 0 {
        errors.required(&at, "must contain at least 1 address");
    } else if count > MAX_ADDRESSES {
        errors.push(Error::too_many(&at, count, MAX_ADDRESSES));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        one_address(address, kind, i, &at, errors);
    }
    if let Some(node) = &endpoint.node_name {
        errors.messages(&path.child("nodeName"), node, format::dns1123_subdomain(node));
    }
    let topology = endpoint.deprecated_topology.as_ref();
    if topology.is_some_and(|t| t.len() > 16) {
        let size = topology.map_or(0, std::collections::BTreeMap::len);
        errors.push(Error::too_many(&path.child("deprecatedTopology"), size, 16));
    }
    errors.extend(meta::labels(topology, &path.child("deprecatedTopology")));
    if topology.is_some_and(|t| t.contains_key(ZONE)) {
        let at = path.child("deprecatedTopology").key(ZONE);
        errors.push(Error::internal(&at, "reserved key was not removed in conversion"));
    }
    if let Some(hostname) = &endpoint.hostname {
        errors.extend(dns_label(hostname, &path.child("hostname")));
    }
    if let Some(hints) = &endpoint.hints {
        self::hints(hints, &path.child("hints"), errors);
    }
}

fn one_address(address: &str, kind: &str, i: usize, path: &Path, errors: &mut ErrorList) {
    let at = path.index(i);
    let is_v6 = || parse_sloppy(address).is_some_and(|ip| ip.to_canonical().is_ipv6());
    let (found, right) = match kind {
        "IPv4" => (legacy_ip(&at, address, &[]), !is_v6()),
        "IPv6" => (strict_ip(&at, address), is_v6()),
        "FQDN" => return errors.extend(full_name(address, &at)),
        _ => return,
    };
    if !found.is_empty() {
        return errors.extend(found);
    }
    if !right {
        errors.invalid(path, address, format!("must be an {kind} address"));
    }
    errors.extend(endpoint_ip(address, &at));
}

/// A domain name of at least two labels.
fn full_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = match name.strip_suffix('.').unwrap_or(name) {
        "" => {
            errors.required(path, "");
            return errors;
        }
        name => name,
    };
    let found = format::dns1123_subdomain(name);
    if !found.is_empty() {
        errors.invalid(path, name, found.join(","));
    } else if !name.contains('.') {
        errors.invalid(path, name, "should be a domain with at least two segments separated by dots");
    } else if let Some(label) = name.split('.').find(|label| !format::dns1123_label(label).is_empty()) {
        errors.invalid(path, label, format::dns1123_label(label).join(","));
    }
    errors
}

fn hints(hints: &EndpointHints, path: &Path, errors: &mut ErrorList) {
    let zones: Vec<&str> = list(&hints.for_zones).iter().map(|z| z.name.as_str()).collect();
    let nodes: Vec<&str> = list(&hints.for_nodes).iter().map(|n| n.name.as_str()).collect();
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, &[&str], Rule); 2] =
        [("forZones", &zones, format::label_value), ("forNodes", &nodes, format::dns1123_subdomain)];
    for (key, names, rule) in rules {
        let path = path.child(key);
        if names.len() > MAX_HINTS {
            return errors.push(Error::too_many(&path, names.len(), MAX_HINTS));
        }
        for (i, name) in names.iter().enumerate() {
            let path = path.index(i).child("name");
            if names[..i].contains(name) {
                errors.duplicate(&path, *name);
            }
            errors.messages(&path, name, rule(name));
        }
    }
}
