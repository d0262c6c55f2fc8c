//! The facts that answers are made of.

use std::net::IpAddr;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{Namespace, Service};
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::{Informer, ObjectKey, SharedInformerFactory};

/// Label that names a slice's service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the zone asks.
pub trait Source: Send + Sync + 'static {
    /// A service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// The endpoint slices of a service.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// The services with this cluster address.
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>>;
    /// The slices that hold this address.
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
    /// Whether there is such a namespace.
    fn has_namespace(&self, name: &str) -> bool;
}

/// Facts from the API server.
pub struct Informers {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
}

impl Informers {
    /// Starts watching.
    #[must_use]
    pub fn new(factory: &SharedInformerFactory) -> Self {
        let services = factory.informer::<Service>();
        services.add_index("ip", |service| {
            let spec = service.spec.as_ref();
            spec.and_then(|s| s.cluster_ips.clone()).unwrap_or_default()
        });
        let slices = factory.informer::<EndpointSlice>();
        slices.add_index("service", |slice| {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME));
            service.map(|service| format!("{namespace}/{service}")).into_iter().collect()
        });
        slices.add_index("ip", |slice| {
            slice.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned()).collect()
        });
        Self { services, slices, namespaces: factory.informer::<Namespace>() }
    }

    /// Whether everything has been listed once.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced() && self.namespaces.has_synced()
    }
}

impl Source for Informers {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.store().get(&ObjectKey::new(namespace, name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.store().indexed("service", &format!("{namespace}/{service}"))
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.store().indexed("ip", &ip.to_string())
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.store().indexed("ip", &ip.to_string())
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.store().get(&ObjectKey::new("", name)).is_some()
    }
}
