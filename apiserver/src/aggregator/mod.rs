//! The aggregation layer: APIs that other servers serve, as if they were part of this one (upstream `kube-aggregator`).
//!
//! An APIService with a Service says which server has a group and version. Requests for it are passed on ([`proxy`])
//! with the name of who asks, which the other server believes because of this server's client certificate. Whether it
//! can be reached is looked after and written into the APIService ([`availability`]); what it serves is fetched for
//! discovery ([`discovery`]) and for OpenAPI ([`documents`]). APIServices without a Service stand for what this server
//! serves itself; those of custom resources come and go with their definitions ([`registration`]).
//!
//! One informer of APIServices feeds the table of backends that requests look into. Two tasks run, one that looks after
//! APIServices and one that registers custom resources.

mod availability;
mod backend;
mod discovery;
mod documents;
mod proxy;
mod registration;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use client::informer::{Event, Informer};
use client::{Client, ObjectKey, SharedInformerFactory, Tasks, WorkQueue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt;
use parking_lot::RwLock;

use crate::openapi::Publisher;
use crate::remote::{Dialer, Resolver};
pub use backend::Backend;
pub use discovery::Found;

/// The groups and versions that other servers serve. Cheap to clone.
#[derive(Clone)]
pub struct Aggregator {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    resolver: Resolver,
    /// How connections to other servers are opened.
    dialer: Dialer,
    services: Informer<APIService>,
    definitions: Informer<CustomResourceDefinition>,
    /// Certificate and key that are shown to other servers.
    identity: Option<(PathBuf, PathBuf)>,
    backends: RwLock<Backends>,
    /// APIServices that are to be looked at.
    queue: WorkQueue<ObjectKey>,
    /// Groups and versions of custom resources that are to be looked at, as names of APIServices.
    registrations: WorkQueue<ObjectKey>,
    found: RwLock<BTreeMap<String, Found>>,
    documents: documents::Documents,
}

/// By the name of the APIService.
type Backends = BTreeMap<String, Arc<Backend>>;

impl Aggregator {
    /// Watches APIServices, and what they depend on.
    #[must_use]
    pub fn new(
        client: Client,
        informers: &SharedInformerFactory,
        resolver: Resolver,
        dialer: Dialer,
        identity: Option<(PathBuf, PathBuf)>,
        publisher: Publisher,
    ) -> Self {
        let inner = Arc::new(Inner {
            client,
            resolver,
            dialer,
            services: informers.informer(),
            definitions: informers.informer(),
            identity,
            backends: RwLock::default(),
            queue: WorkQueue::new("api-services"),
            registrations: WorkQueue::new("api-service-registration"),
            found: RwLock::default(),
            documents: documents::Documents::new(publisher),
        });
        inner.subscribe();
        Self { inner }
    }

    /// Starts the tasks.
    pub fn spawn(&self, tasks: &Tasks) {
        let (looking, registering) = (self.clone(), self.clone());
        tasks.spawn("api-services", |token| looking.look_after(token));
        tasks.spawn("api-service-registration", |token| registering.register(token));
    }

    /// The server of a path, if it is another one: paths below `/apis/GROUP/VERSION` of an APIService with a Service.
    #[must_use]
    pub fn backend(&self, path: &str) -> Option<Arc<Backend>> {
        let backends = self.inner.backends.read();
        if backends.is_empty() {
            return None;
        }
        let mut parts = path.strip_prefix("/apis/")?.splitn(3, '/');
        let (group, version) = (parts.next()?, parts.next()?);
        backends.get(&format!("{version}.{group}")).cloned()
    }

    /// All backends.
    #[must_use]
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.inner.backends.read().values().cloned().collect()
    }

    /// What a backend was found to serve.
    #[must_use]
    pub fn found(&self, name: &str) -> Option<Found> {
        self.inner.found.read().get(name).cloned()
    }
}

impl Inner {
    fn subscribe(self: &Arc<Self>) {
        // Weak: informers keep what is called for as long as they live themselves.
        let (told, of_services) = (Arc::downgrade(self), self.queue.clone());
        let registrations = self.registrations.clone();
        self.services.subscribe(move |event| {
            let service = event.object();
            if let Some(inner) = told.upgrade() {
                inner.take(event);
            }
            of_services.add(ObjectKey::of(service.as_ref()));
            registrations.add(ObjectKey::of(service.as_ref()));
        });
        let told = Arc::downgrade(self);
        self.resolver.services().subscribe(move |event| {
            let service = event.object();
            if let Some(inner) = told.upgrade() {
                inner.touched(&service.namespace().unwrap_or_default(), &service.name_any());
            }
        });
        let told = Arc::downgrade(self);
        self.resolver.slices().subscribe(move |event| {
            let slice = event.object();
            let service = slice.labels().get("kubernetes.io/service-name");
            if let (Some(inner), Some(service)) = (told.upgrade(), service) {
                inner.touched(&slice.namespace().unwrap_or_default(), service);
            }
        });
        let registrations = self.registrations.clone();
        self.definitions.subscribe(move |event| {
            let states = match event {
                Event::Updated { old, new } => vec![old, new],
                Event::Added(definition) | Event::Deleted(definition) => vec![definition],
            };
            for definition in states {
                let group = &definition.spec.group;
                for version in &definition.spec.versions {
                    registrations.add(ObjectKey::new("", format!("{}.{group}", version.name)));
                }
            }
        });
    }

    /// Brings a change of an APIService into the table.
    fn take(&self, event: &Event<APIService>) {
        let service = event.object();
        let name = service.name_any();
        let gone = matches!(event, Event::Deleted(_));
        let known = self.backends.read().get(&name).cloned();
        let made = if gone { None } else { Backend::new(service, known.as_deref(), self) };
        let mut backends = self.backends.write();
        match made {
            Some(backend) => drop(backends.insert(name, Arc::new(backend))),
            None => {
                backends.remove(&name);
                drop(backends);
                self.found.write().remove(&name);
                self.documents.forget(&name);
            }
        }
    }

    /// A Service, or what is behind it, has changed: the APIServices that lead there are looked at.
    fn touched(&self, namespace: &str, name: &str) {
        for (key, backend) in self.backends.read().iter() {
            if backend.service.namespace == namespace && backend.service.name == name {
                self.queue.add(ObjectKey::new("", key.as_str()));
            }
        }
    }
}
