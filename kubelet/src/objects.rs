//! ConfigMaps, Secrets, Services and service account tokens that the pods of this node need.
//!
//! Tasks: one small watch per referenced ConfigMap or Secret (by name, which is all the node authorizer grants), alive as
//! long as some registered pod refers to it. A changed object is announced on [`Objects::changes`], so that volumes
//! are refreshed at once. Invariant: an object is served from the cache only when its watch has seen it, so a pod
//! never starts with the state from before it was registered.

mod references;
mod tokens;
mod watched;

use std::sync::Arc;

use client::{Api, Client, Informer, SharedInformerFactory, Tasks};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use tokio::sync::broadcast;

pub use references::{References, references};
use tokens::Tokens;
use watched::Watched;

/// How many unread changes are kept; who lags behind refreshes everything.
const CHANGES: usize = 256;

/// Why an object cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// Lower-case kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The API has not shown it yet.
    #[error("failed to sync {kind} cache: timed out waiting for the condition")]
    NotSynced {
        /// Lower-case kind.
        kind: &'static str,
    },
    /// This kubelet runs without an API.
    #[error("couldn't get {kind} {namespace}/{name}, no kubeClient defined")]
    NoClient {
        /// Kind.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API refused or failed.
    #[error("{}", api_message(.0))]
    Api(#[source] Box<client::kube::Error>),
}

fn api_message(error: &client::kube::Error) -> String {
    match error {
        client::kube::Error::Api(status) => status.message.clone(),
        other => client::chain(other),
    }
}

impl Error {
    /// The object does not exist.
    #[must_use]
    pub fn not_found(kind: &'static str, name: &str) -> Self {
        Self::NotFound { kind, name: name.to_owned() }
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// An object that pods refer to has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `configmap` or `secret`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The objects of this node's pods.
pub struct Objects {
    client: Option<Client>,
    services: Option<Informer<Service>>,
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
    tokens: Tokens,
    changes: broadcast::Sender<Change>,
}

impl Objects {
    /// Nothing referenced yet. Without a client only pods that need no object can run.
    #[must_use]
    pub fn new(client: Option<Client>, factory: Option<&SharedInformerFactory>, tasks: &Tasks) -> Arc<Self> {
        let (changes, _) = broadcast::channel(CHANGES);
        Arc::new(Self {
            services: factory.map(|factory| factory.informer::<Service>()),
            config_maps: Watched::new("configmap", client.clone(), tasks.clone(), changes.clone()),
            secrets: Watched::new("secret", client.clone(), tasks.clone(), changes.clone()),
            tokens: Tokens::default(),
            client,
            changes,
        })
    }

    /// Changes of referenced objects from now on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Starts to follow what `pod` refers to; again after its spec has changed.
    pub fn register_pod(&self, pod: &Pod) {
        let References { config_maps, secrets } = references(pod);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        self.config_maps.refer(uid, namespace, config_maps);
        self.secrets.refer(uid, namespace, secrets);
    }

    /// Forgets what the pod referred to, and its tokens.
    pub fn unregister_pod(&self, uid: &str) {
        self.config_maps.forget(uid);
        self.secrets.forget(uid);
        self.tokens.forget(uid);
    }

    /// A ConfigMap.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, Error> {
        self.config_maps.get(namespace, name).await
    }

    /// A Secret.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, Error> {
        self.secrets.get(namespace, name).await
    }

    /// All services known.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        self.services.as_ref().map(|informer| informer.store().list()).unwrap_or_default()
    }

    /// Whether services were listed at least once (always, without an API).
    #[must_use]
    pub fn services_synced(&self) -> bool {
        self.services.as_ref().is_none_or(Informer::has_synced)
    }

    /// A token of a service account, from the cache until 80 % of its life have passed.
    pub async fn token(
        &self,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<String, Error> {
        let Some(client) = &self.client else {
            return Err(Error::NoClient {
                kind: "token",
                namespace: namespace.to_owned(),
                name: account.to_owned(),
            });
        };
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let fetch = || async { api.create_token_request(account, &Default::default(), request).await };
        self.tokens.get(namespace, account, request, fetch).await.map_err(|error| Error::Api(Box::new(error)))
    }
}
