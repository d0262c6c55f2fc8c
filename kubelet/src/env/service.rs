//! Variables that tell a container where services are: `NAME_SERVICE_HOST` and the older docker-link style.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Variables for the services of `namespace` (with `links`) and, always, for the cluster's own `kubernetes` service.
pub fn service_variables(
    services: &[Arc<Service>],
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        if cluster_ip(service).is_none() {
            continue;
        }
        // As upstream's getServiceEnvVarMap: a service of the pod's namespace wins over the master service of its name.
        if own == namespace && links {
            chosen.insert(name, service);
        } else if own == "default" && name == "kubernetes" {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        variables.extend(variables_of(name, service));
    }
    variables
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let ip = spec.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None" && spec.type_.as_deref() != Some("ExternalName")).then_some(ip)
}

fn upper(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn variables_of(name: &str, service: &Service) -> Vec<(String, String)> {
    let (Some(ip), Some(spec)) = (cluster_ip(service), service.spec.as_ref()) else { return Vec::new() };
    let prefix = upper(name);
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut variables = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_owned())];
    if let Some(first) = ports.first() {
        variables.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
        variables.push((format!("{prefix}_PORT"), url(ip, first)));
    }
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.push((format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string()));
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.push((format!("{base}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{base}_PORT"), port.port.to_string()));
        variables.push((format!("{base}_ADDR"), ip.to_owned()));
        variables.push((base, url(ip, port)));
    }
    variables
}

fn url(ip: &str, port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{protocol}://{host}:{}", port.port)
}
