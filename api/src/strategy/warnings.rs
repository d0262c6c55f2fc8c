//! What clients are told about objects that are accepted all the same (upstream `GetWarningsFor...`).

use k8s_openapi::api::core::v1::{NodeSelectorTerm, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::de::DeserializeOwned;
use serde_json::Value;
use x509_parser::pem::Pem;

use crate::field::{Path, quote};
use crate::format;
use crate::json::{Object, ObjectExt};
use crate::validation::ip::{cidr_warnings, ip_warnings};
use crate::validation::list;

pub(crate) mod pod;
pub(crate) mod volume;

/// Warnings of a kind, for a new object or a changed one.
pub(crate) type Warnings = fn(new: &Value, old: Option<&Value>) -> Vec<String>;

fn typed<T: DeserializeOwned>(object: &Value) -> Option<T> {
    T::deserialize(object).ok()
}

fn annotations(object: &Value) -> Option<&Object> {
    object.pointer("/metadata/annotations")?.as_object()
}

fn has_annotation(object: &Value, key: &str) -> bool {
    annotations(object).is_some_and(|annotations| annotations.contains_key(key))
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// Messages as Go prints a list.
fn go_list(messages: &[String]) -> String {
    format!("[{}]", messages.join(" "))
}

/// What is wrong with using a label of nodes, where it is deprecated.
pub(crate) fn deprecated_node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

fn selector_term(term: &NodeSelectorTerm, check_values: bool, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, expression) in list(&term.match_expressions).iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        if let Some(message) = deprecated_node_label(&expression.key) {
            warnings.push(format!("{}: {} is {message}", path.child("key"), expression.key));
        }
        let values = list(&expression.values).iter().enumerate().filter(|_| check_values);
        for (j, value) in values {
            for message in format::label_value(value) {
                warnings.push(format!("{}: {value} is invalid, {message}", path.child("values").index(j)));
            }
        }
    }
    warnings
}

/// Services.
pub(crate) fn service(new: &Value, _: Option<&Value>) -> Vec<String> {
    let Some(service) = typed::<Service>(new) else { return Vec::new() };
    let spec = service.spec.unwrap_or_default();
    let path = Path::new("spec");
    let mut warnings = Vec::new();
    let hints = "service.kubernetes.io/topology-aware-hints";
    if has_annotation(new, hints) {
        let mode = "service.kubernetes.io/topology-mode";
        warnings.push(format!("annotation {hints} is deprecated, please use {mode} instead"));
    }
    let is = |kind: &str| spec.type_.as_deref() == Some(kind);
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    if !cluster_ip.is_empty() && cluster_ip != "None" {
        for (i, ip) in list(&spec.cluster_ips).iter().enumerate() {
            warnings.extend(ip_warnings(&path.child("clusterIPs").index(i), ip));
        }
    }
    let headless = is("ClusterIP") && cluster_ip == "None";
    let balancer_ip = spec.load_balancer_ip.as_deref().unwrap_or_default();
    let external = list(&spec.external_ips);
    if headless {
        let ignored = [
            ("spec.loadBalancerIP", !balancer_ip.is_empty()),
            ("spec.externalIPs", !external.is_empty()),
            ("spec.SessionAffinity", spec.session_affinity.as_deref() != Some("None")),
        ];
        let set = ignored.iter().filter(|(_, set)| *set);
        warnings.extend(set.map(|(field, _)| format!("{field} is ignored for headless services")));
    }
    for (i, ip) in external.iter().enumerate() {
        warnings.extend(ip_warnings(&path.child("externalIPs").index(i), ip));
    }
    if !external.is_empty() && !headless && !is("ExternalName") {
        let text = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(text.to_owned());
    }
    if !balancer_ip.is_empty() {
        warnings.extend(ip_warnings(&path.child("loadBalancerIP"), balancer_ip));
    }
    for (i, range) in list(&spec.load_balancer_source_ranges).iter().enumerate() {
        warnings.extend(cidr_warnings(&path.child("loadBalancerSourceRanges").index(i), range));
    }
    if is("ExternalName") && !external.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is("ExternalName") && !spec.external_name.as_deref().unwrap_or_default().is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        let text = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(text.to_owned());
    }
    warnings
}

/// The addresses in the status of services and ingresses.
pub(crate) fn load_balancer(new: &Value, _: Option<&Value>) -> Vec<String> {
    let points = new.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ips = points.into_iter().flatten().enumerate();
    ips.flat_map(|(i, point)| ip_warnings(&path.index(i), point["ip"].as_str().unwrap_or_default())).collect()
}

/// Endpoints that no controller of ours wrote.
pub(crate) fn endpoints(new: &Value, _: Option<&Value>) -> Vec<String> {
    let label = new.pointer("/metadata/labels/endpoints.kubernetes.io~1managed-by");
    if label.is_some_and(|label| label == "endpoint-controller") {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let path = Path::new("subsets");
    let subsets = new.get("subsets").and_then(Value::as_array);
    for (i, subset) in subsets.into_iter().flatten().enumerate() {
        for key in ["addresses", "notReadyAddresses"] {
            for (j, address) in subset[key].as_array().into_iter().flatten().enumerate() {
                let at = path.index(i).child(key).index(j).child("ip");
                warnings.extend(ip_warnings(&at, address["ip"].as_str().unwrap_or_default()));
            }
        }
    }
    warnings
}

/// Endpoint slices that no controller of ours wrote.
pub(crate) fn endpoint_slice(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() && new["addressType"] == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let label =
        new.pointer("/metadata/labels/endpointslice.kubernetes.io~1managed-by").and_then(Value::as_str);
    let ours = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    if label.is_some_and(|label| ours.contains(&label)) {
        return warnings;
    }
    for (i, endpoint) in new["endpoints"].as_array().into_iter().flatten().enumerate() {
        for (j, address) in endpoint["addresses"].as_array().into_iter().flatten().enumerate() {
            let path = Path::new("endpoints").index(i).child("addresses").index(j);
            warnings.extend(ip_warnings(&path, address.as_str().unwrap_or_default()));
        }
    }
    warnings
}

/// Network policies.
pub(crate) fn network_policy(new: &Value, _: Option<&Value>) -> Vec<String> {
    let spec = typed::<NetworkPolicy>(new).and_then(|policy| policy.spec).unwrap_or_default();
    let mut warnings = Vec::new();
    let from = list(&spec.ingress).iter().map(|rule| list(&rule.from));
    let to = list(&spec.egress).iter().map(|rule| list(&rule.to));
    let rules = from.enumerate().map(|(i, peers)| ("ingress", "from", i, peers));
    for (key, side, i, peers) in rules.chain(to.enumerate().map(|(i, peers)| ("egress", "to", i, peers))) {
        for (j, peer) in peers.iter().enumerate() {
            let Some(block) = &peer.ip_block else { continue };
            let path = Path::new("spec").child(key).index(i).child(side).index(j).child("ipBlock");
            warnings.extend(cidr_warnings(&path.child("cidr"), &block.cidr));
            for (k, except) in list(&block.except).iter().enumerate() {
                warnings.extend(cidr_warnings(&path.child("except").index(k), except));
            }
        }
    }
    warnings
}

/// New ingresses.
pub(crate) fn ingress(new: &Value, old: Option<&Value>) -> Vec<String> {
    let key = "kubernetes.io/ingress.class";
    let unset = new.pointer("/spec/ingressClassName").is_none_or(Value::is_null);
    if old.is_some() || !unset || !has_annotation(new, key) {
        return Vec::new();
    }
    vec![format!("annotation {} is deprecated, please use 'spec.ingressClassName' instead", quote(key))]
}

/// Nodes.
pub(crate) fn node(new: &Value, _: Option<&Value>) -> Vec<String> {
    let empty = Object::new();
    let spec = new.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    let mut warnings = Vec::new();
    if !spec.is_unset("configSource") {
        warnings.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.text("externalID").is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for (i, cidr) in spec.list("podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        warnings.extend(cidr_warnings(&Path::new("spec").child("podCIDRs").index(i), cidr));
    }
    warnings
}

/// Secrets with a certificate and its key.
pub(crate) fn secret(new: &Value, _: Option<&Value>) -> Vec<String> {
    if new["type"] != "kubernetes.io/tls" {
        return Vec::new();
    }
    let data = typed::<Secret>(new).and_then(|secret| secret.data).unwrap_or_default();
    let bytes = |key: &str| data.get(key).map(|value| value.0.as_slice()).unwrap_or_default();
    key_pair_error(bytes("tls.crt"), bytes("tls.key")).into_iter().collect()
}

/// Why a certificate and a key cannot be used, as Go's TLS says it.
fn key_pair_error(certificate: &[u8], key: &[u8]) -> Option<String> {
    let labels =
        |pem: &[u8]| Pem::iter_from_buffer(pem).map_while(Result::ok).map(|b| b.label).collect::<Vec<_>>();
    let is_key = |label: &str| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY");
    let skipped = |labels: &[String]| labels.join(" ");
    let found = labels(certificate);
    if !found.iter().any(|label| label == "CERTIFICATE") {
        return Some(match found.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [only] if is_key(only) => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned(),
            many => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", skipped(many)),
        });
    }
    let found = labels(key);
    if !found.iter().any(|label| is_key(label)) {
        return Some(match found.as_slice() {
            [] => "tls: failed to find any PEM data in key input".to_owned(),
            [only] if only == "CERTIFICATE" => {
                "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
            }
            many => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
                skipped(many)
            ),
        });
    }
    None
}

/// Service accounts.
pub(crate) fn service_account(new: &Value, old: Option<&Value>) -> Vec<String> {
    let key = "kubernetes.io/enforce-mountable-secrets";
    if old.is_some_and(|old| has_annotation(old, key)) || !has_annotation(new, key) {
        return Vec::new();
    }
    let text = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    vec![format!("metadata.annotations[{key}]: {text}")]
}

/// Runtime classes.
pub(crate) fn runtime_class(new: &Value, _: Option<&Value>) -> Vec<String> {
    let labels = new.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
    let keys = labels.into_iter().flat_map(|labels| labels.keys());
    keys.filter_map(|key| deprecated_node_label(key))
        .map(|m| format!("scheduling.nodeSelector: {m}"))
        .collect()
}

/// Resource slices.
pub(crate) fn resource_slice(new: &Value, _: Option<&Value>) -> Vec<String> {
    let driver = new.pointer("/spec/driver").and_then(Value::as_str).unwrap_or_default();
    if driver == driver.to_lowercase() {
        return Vec::new();
    }
    let driver = quote(driver);
    vec![format!("spec.driver: driver names should be lowercase; {driver} contains uppercase characters")]
}
