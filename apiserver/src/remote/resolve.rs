//! Where a Service is reached (upstream `ResolveCluster` and `ResolveEndpoint`).

use std::fmt;

use api::names::GroupResource;
use api::status::ApiError;
use client::informer::Informer;
use client::{ObjectKey, SharedInformerFactory};
use k8s_openapi::api::core::v1::{Service, ServicePort as Port};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::Rng as _;

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The index of EndpointSlices by `namespace/service`.
const BY_SERVICE: &str = "service";

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The port of the Service.
    pub port: u16,
}

impl ServicePort {
    /// The name that its certificate is for.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// Why a Service leads nowhere.
#[derive(Debug)]
pub struct Unresolved(String);

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unresolved {}

/// Finds Services. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Resolver {
    /// Watches Services and their endpoints.
    #[must_use]
    pub fn new(informers: &SharedInformerFactory) -> Self {
        let slices: Informer<EndpointSlice> = informers.informer();
        slices.add_index(BY_SERVICE, |slice| {
            let labels = slice.metadata.labels.as_ref();
            let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            service.map(|name| format!("{namespace}/{name}")).into_iter().collect()
        });
        Self { services: informers.informer(), slices }
    }

    /// The Services.
    #[must_use]
    pub fn services(&self) -> &Informer<Service> {
        &self.services
    }

    /// The EndpointSlices.
    #[must_use]
    pub fn slices(&self) -> &Informer<EndpointSlice> {
        &self.slices
    }

    /// The EndpointSlices of a Service.
    #[must_use]
    pub fn slices_of(&self, namespace: &str, name: &str) -> Vec<std::sync::Arc<EndpointSlice>> {
        self.slices.store().indexed(BY_SERVICE, &format!("{namespace}/{name}"))
    }

    /// The host and port to connect to.
    ///
    /// # Errors
    /// When there is none, in upstream's words.
    pub async fn resolve(&self, target: &ServicePort) -> Result<(String, u16), Unresolved> {
        tokio::join!(self.services.synced(), self.slices.synced());
        let key = ObjectKey::new(target.namespace.as_str(), target.name.as_str());
        let Some(service) = self.services.store().get(&key) else {
            let error = ApiError::not_found(&GroupResource::new("", "service"), &target.name);
            return Err(Unresolved(error.message().to_owned()));
        };
        let slices = self.slices_of(&target.namespace, &target.name);
        locate(&service, &slices.iter().map(AsRef::as_ref).collect::<Vec<_>>(), target.port)
    }
}

/// As upstream's `ResolveCluster`, but that a ready endpoint is preferred to the Service's address: it is reached
/// without the help of a proxy on this machine.
fn locate(service: &Service, slices: &[&EndpointSlice], port: u16) -> Result<(String, u16), Unresolved> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let spec = service.spec.clone().unwrap_or_default();
    let address = spec.cluster_ip.unwrap_or_default();
    match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "ExternalName" => return Ok((spec.external_name.unwrap_or_default(), port)),
        "ClusterIP" if address == "None" => {
            return Err(Unresolved("cannot route to service with ClusterIP \"None\"".to_owned()));
        }
        "ClusterIP" | "LoadBalancer" | "NodePort" => {}
        other => return Err(Unresolved(format!("unsupported service type {other:?}"))),
    }
    let ports = spec.ports.unwrap_or_default();
    let Some(found) = ports.iter().find(|known| known.port == i32::from(port)) else {
        return Err(Unresolved(format!("no service port {port} found for service {name:?}")));
    };
    let family = spec.ip_families.as_ref().and_then(|families| families.first());
    Ok(endpoint(slices, found, family.map(String::as_str)).unwrap_or((address, port)))
}

/// A ready endpoint, drawn at random from those of the Service's first family, or else of any.
fn endpoint(slices: &[&EndpointSlice], port: &Port, family: Option<&str>) -> Option<(String, u16)> {
    let name = port.name.as_deref().unwrap_or_default();
    let ready = |wanted: &dyn Fn(&str) -> bool| -> Vec<(String, u16)> {
        let slices = slices.iter().filter(|slice| wanted(&slice.address_type));
        let of_slice = |slice: &&&EndpointSlice| {
            let mut ports = slice.ports.iter().flatten();
            let port = ports.find(|port| port.name.as_deref().unwrap_or_default() == name)?.port?;
            let port = u16::try_from(port).ok()?;
            let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
            });
            Some(ready.filter_map(|e| e.addresses.first().cloned()).map(|ip| (ip, port)).collect::<Vec<_>>())
        };
        slices.filter_map(|slice| of_slice(&slice)).flatten().collect()
    };
    let mut found = ready(&|own| family.is_none_or(|family| own == family));
    if found.is_empty() {
        found = ready(&|own| own != "FQDN");
    }
    let index = (!found.is_empty()).then(|| rand::rng().random_range(0..found.len()))?;
    Some(found.swap_remove(index))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "hook"}, "spec": spec})).expect("a service")
    }

    fn slice(family: &str, endpoints: Value) -> EndpointSlice {
        let slice = json!({"metadata": {}, "addressType": family, "endpoints": endpoints,
                           "ports": [{"name": "https", "port": 8443}]});
        serde_json::from_value(slice).expect("a slice")
    }

    #[test]
    fn services_lead_to_a_ready_endpoint_or_their_address() {
        let ports = json!([{"name": "https", "port": 443}]);
        let plain =
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.9", "ipFamilies": ["IPv4"], "ports": ports});
        let ready = json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": false}},
                           {"addresses": ["10.1.0.2"], "conditions": {}}]);
        let (v4, v6) =
            (slice("IPv4", ready), slice("IPv6", json!([{"addresses": ["fd00::1"], "conditions": {}}])));
        let none = slice("IPv4", json!([]));
        for (spec, slices, port, expected) in [
            (plain.clone(), vec![&v6, &v4], 443, Ok(("10.1.0.2".to_owned(), 8443))),
            (plain.clone(), vec![&none, &v6], 443, Ok(("fd00::1".to_owned(), 8443))),
            (plain.clone(), vec![&none], 443, Ok(("10.0.0.9".to_owned(), 443))),
            (plain, vec![&v4], 80, Err("no service port 80 found for service \"hook\"")),
            (
                json!({"type": "ExternalName", "externalName": "example.com"}),
                vec![],
                8443,
                Ok(("example.com".to_owned(), 8443)),
            ),
            (
                json!({"clusterIP": "None", "ports": ports}),
                vec![&v4],
                443,
                Err("cannot route to service with ClusterIP \"None\""),
            ),
            (json!({"type": "Odd"}), vec![], 1, Err("unsupported service type \"Odd\"")),
        ] {
            let found = locate(&service(spec), &slices, port).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        }
    }
}
