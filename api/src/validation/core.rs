//! The small kinds of the core group: namespaces, config maps, secrets, service accounts, endpoints.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace, Secret, ServiceAccount,
};

use crate::codec::json;
use crate::field::{ErrorList, Path, Report};
use crate::format;

use super::claim::same;
use super::ip::{endpoint_ip, legacy_ip};
use super::meta;
use super::rules::{IMMUTABLE, check, dns_label, list, qualified_name, text};
use super::service::PROTOCOLS;

/// Bytes that the data of a secret or config map may have.
const MAX_DATA: usize = 1 << 20;
const FROZEN: &str = "field is immutable when `immutable` is set";

fn metadata() -> Path {
    Path::new("metadata")
}

/// A new namespace.
pub(crate) fn namespace(object: &Namespace) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, false, format::name_is_label, &metadata());
    let path = Path::new("spec").child("finalizers");
    for finalizer in finalizers(object) {
        errors.extend(finalizer_name(finalizer, &path));
    }
    errors
}

fn finalizers(object: &Namespace) -> &[String] {
    object.spec.as_ref().map(|spec| list(&spec.finalizers)).unwrap_or_default()
}

fn finalizer_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = check(path, name, format::label_key(name));
    let known = ["kubernetes", "orphan", "foregroundDeletion"];
    if !name.contains('/') && !known.contains(&name) {
        errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
    errors
}

/// A changed namespace.
pub(crate) fn namespace_update(new: &Namespace, old: &Namespace) -> ErrorList {
    meta::validate_update_core(&new.metadata, &old.metadata, &metadata())
}

/// A namespace changed by its status.
pub(crate) fn namespace_status(new: &Namespace, old: &Namespace) -> ErrorList {
    let mut errors = namespace_update(new, old);
    let phase = new.status.as_ref().map(|s| text(&s.phase)).unwrap_or_default();
    let path = Path::new("status").child("Phase");
    match (new.metadata.deletion_timestamp.is_some(), phase) {
        (false, "Active") | (true, "Terminating") => {}
        (false, _) => errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty"),
        (true, _) => {
            errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")
        }
    }
    errors
}

/// A namespace changed by its finalizers.
pub(crate) fn namespace_finalize(new: &Namespace, old: &Namespace) -> ErrorList {
    let mut errors = namespace_update(new, old);
    let path = Path::new("spec").child("finalizers");
    for (i, finalizer) in finalizers(new).iter().enumerate() {
        errors.extend(finalizer_name(finalizer, &path.index(i)));
    }
    errors
}

/// A new service account.
pub(crate) fn service_account(object: &ServiceAccount) -> ErrorList {
    meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata())
}

/// A changed service account.
pub(crate) fn service_account_update(new: &ServiceAccount, old: &ServiceAccount) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    errors.extend(service_account(new));
    errors
}

type Bytes = BTreeMap<String, ByteString>;

fn bytes(data: &Option<Bytes>) -> impl Iterator<Item = (&String, &ByteString)> {
    data.iter().flatten()
}

/// A new config map.
pub(crate) fn config_map(object: &ConfigMap) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    let mut size = 0;
    for (key, value) in object.data.iter().flatten() {
        let path = Path::new("data").key(key);
        errors.messages(&path, key, format::config_map_key(key));
        if object.binary_data.as_ref().is_some_and(|data| data.contains_key(key)) {
            errors.invalid(&path, key.as_str(), "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in bytes(&object.binary_data) {
        errors.messages(&Path::new("binaryData").key(key), key, format::config_map_key(key));
        size += value.0.len();
    }
    if size > MAX_DATA {
        errors.too_long(&Path::root().key(""), MAX_DATA);
    }
    errors
}

/// A changed config map.
pub(crate) fn config_map_update(new: &ConfigMap, old: &ConfigMap) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    if old.immutable == Some(true) {
        if new.immutable != Some(true) {
            errors.forbidden(&Path::new("immutable"), FROZEN);
        }
        if new.data.clone().unwrap_or_default() != old.data.clone().unwrap_or_default() {
            errors.forbidden(&Path::new("data"), FROZEN);
        }
        if new.binary_data.clone().unwrap_or_default() != old.binary_data.clone().unwrap_or_default() {
            errors.forbidden(&Path::new("binaryData"), FROZEN);
        }
    }
    errors.extend(config_map(new));
    errors
}

/// A new secret.
pub(crate) fn secret(object: &Secret) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    let path = Path::new("data");
    let mut size = 0;
    for (key, value) in bytes(&object.data) {
        errors.messages(&path.key(key), key, format::config_map_key(key));
        size += value.0.len();
    }
    if size > MAX_DATA {
        errors.too_long(&path, MAX_DATA);
    }
    let get = |key: &str| object.data.as_ref().and_then(|data| data.get(key));
    match text(&object.type_) {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let name = object.metadata.annotations.as_ref().and_then(|a| a.get(key));
            if name.is_none_or(String::is_empty) {
                errors.required(&metadata().child("annotations").key(key), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(".dockercfg", get(".dockercfg"), &path, &mut errors),
        "kubernetes.io/dockerconfigjson" => {
            docker(".dockerconfigjson", get(".dockerconfigjson"), &path, &mut errors);
        }
        "kubernetes.io/basic-auth" if get("username").is_none() && get("password").is_none() => {
            errors.required(&path.key("username"), "");
            errors.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if get("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
            errors.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| get(key).is_none()) {
                errors.required(&path.key(key), "");
            }
        }
        _ => {}
    }
    errors
}

fn docker(key: &str, data: Option<&ByteString>, path: &Path, errors: &mut ErrorList) {
    let path = path.key(key);
    let Some(data) = data else { return errors.required(&path, "") };
    let why = match json::decode(&data.0) {
        Ok(value) if value.is_object() || value.is_null() => return,
        Ok(value) => {
            format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                json::kind_of(&value)
            )
        }
        Err(why) => why,
    };
    errors.invalid(&path, "<secret contents redacted>", why);
}

/// A changed secret.
pub(crate) fn secret_update(new: &Secret, old: &Secret) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    if text(&new.type_) != text(&old.type_) {
        errors.invalid(&Path::new("type"), text(&new.type_), IMMUTABLE);
    }
    if old.immutable == Some(true) {
        if new.immutable != Some(true) {
            errors.forbidden(&Path::new("immutable"), FROZEN);
        }
        if new.data.clone().unwrap_or_default() != old.data.clone().unwrap_or_default() {
            errors.forbidden(&Path::new("data"), FROZEN);
        }
    }
    errors.extend(secret(new));
    errors
}

/// New endpoints.
pub(crate) fn endpoints(object: &Endpoints) -> ErrorList {
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &metadata());
    errors.extend(subsets(list(&object.subsets)));
    errors
}

/// Changed endpoints. What was stored may stay.
pub(crate) fn endpoints_update(new: &Endpoints, old: &Endpoints) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &metadata());
    errors.extend(meta::validate_core(&new.metadata, true, format::name_is_subdomain, &metadata()));
    if !same(&new.subsets, &old.subsets) {
        errors.extend(subsets(list(&new.subsets)));
    }
    errors
}

fn subsets(subsets: &[EndpointSubset]) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, subset) in subsets.iter().enumerate() {
        let path = Path::new("subsets").index(i);
        let (ready, waiting) = (list(&subset.addresses), list(&subset.not_ready_addresses));
        if ready.is_empty() && waiting.is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (key, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
            for (j, one) in addresses.iter().enumerate() {
                address(one, &path.child(key).index(j), &mut errors);
            }
        }
        let ports = list(&subset.ports);
        for (j, one) in ports.iter().enumerate() {
            port(one, ports.len() > 1, &path.child("ports").index(j), &mut errors);
        }
    }
    errors
}

fn address(address: &EndpointAddress, path: &Path, errors: &mut ErrorList) {
    errors.extend(legacy_ip(&path.child("ip"), &address.ip, &[]));
    let hostname = text(&address.hostname);
    if !hostname.is_empty() {
        errors.extend(dns_label(hostname, &path.child("hostname")));
    }
    if let Some(node) = &address.node_name {
        errors.messages(&path.child("nodeName"), node, format::dns1123_subdomain(node));
    }
    errors.extend(endpoint_ip(&address.ip, &path.child("ip")));
}

fn port(port: &EndpointPort, named: bool, path: &Path, errors: &mut ErrorList) {
    match text(&port.name) {
        "" if named => errors.required(&path.child("name"), ""),
        "" => {}
        name => errors.extend(dns_label(name, &path.child("name"))),
    }
    for message in format::port_number(i64::from(port.port)) {
        errors.invalid(&path.child("port"), port.port, message);
    }
    match text(&port.protocol) {
        "" => errors.required(&path.child("protocol"), ""),
        protocol => errors.one_of(&path.child("protocol"), protocol, &PROTOCOLS),
    }
    if let Some(protocol) = &port.app_protocol {
        errors.extend(qualified_name(protocol, &path.child("appProtocol")));
    }
}
