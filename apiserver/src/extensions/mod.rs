//! What CustomResourceDefinitions bring about (upstream `k8s.io/apiextensions-apiserver/pkg/controller`): their
//! conditions are decided and written, what is established is served and published, and what is deleted is emptied
//! first.
//!
//! One task works on one definition after the other, so that no two are given the same name: after a write of its own
//! it waits until its cache has seen it. A definition is served before its condition says so.

mod cleanup;
mod publish;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use api::crd::conditions::{self, NamesInUse};
use client::controller::{Action, run_workers};
use client::informer::Informer;
use client::{Api, Client, ObjectKey, SharedInformerFactory, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use crate::server::Server;
use crate::webhook::Clients;

/// Who the server is in `managedFields`.
const MANAGER: &str = "kube-apiserver";
/// How long the cache may take to see a write of this task.
const SEEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Brings definitions into effect.
#[derive(Clone)]
pub struct Definitions {
    server: Arc<Server>,
    client: Client,
    crds: Informer<CustomResourceDefinition>,
    queue: WorkQueue<ObjectKey>,
    served: Arc<AtomicBool>,
    /// Of the webhooks that convert objects.
    clients: Clients,
}

impl Definitions {
    /// Watches definitions.
    #[must_use]
    pub fn new(
        server: Arc<Server>,
        client: Client,
        informers: &SharedInformerFactory,
        clients: Clients,
    ) -> Self {
        let crds: Informer<CustomResourceDefinition> = informers.informer();
        let queue = WorkQueue::new("custom-resource-definitions");
        let (store, added) = (crds.clone(), queue.clone());
        crds.subscribe(move |event| {
            let crd = event.object();
            added.add(ObjectKey::of(crd.as_ref()));
            // Names that this one gives up, or is refused, may be another's.
            for other in store.store().list().iter().filter(|other| other.spec.group == crd.spec.group) {
                if !conditions::is_true(other, conditions::NAMES_ACCEPTED) {
                    added.add(ObjectKey::of(other.as_ref()));
                }
            }
        });
        let served = server.custom_served();
        Self { server, client, crds, queue, served, clients }
    }

    /// Works until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = self.crds.synced() => {}
        }
        // What has been established before is served before the server says that it is ready.
        for crd in self.crds.store().list() {
            self.serve(&crd);
        }
        self.served.store(true, Ordering::Release);
        let queue = self.queue.clone();
        run_workers("custom-resource-definitions", queue, 1, token, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Action> {
        let Some(crd) = self.crds.store().get(key) else {
            self.server.registry.forget(&self.server.cacher, &key.name);
            self.server.openapi.withdraw(&key.name);
            return Ok(Action::Done);
        };
        let planned = plan(&crd, &self.names_in_use(&crd), Timestamp::now());
        let now = planned.as_ref().unwrap_or(&crd);
        if self.serve(now) {
            self.server.cacher.ready().await.context("load custom objects")?;
        }
        if let Some(planned) = planned {
            // Told again, it is looked at again.
            return self.write_status(&planned).await.map(|_| Action::Done);
        }
        if cleanup::is_due(&crd) {
            return self.clean_up(&crd).await;
        }
        Ok(Action::Done)
    }

    /// Serves and publishes an established definition. Whether there may be something to load.
    fn serve(&self, crd: &CustomResourceDefinition) -> bool {
        let established = conditions::is_true(crd, conditions::ESTABLISHED);
        if established {
            self.server.registry.serve(&self.server.cacher, &self.clients, crd);
        }
        let name = crd.metadata.name.as_deref().unwrap_or_default();
        self.server.openapi.publish(name, publish::versions(crd));
        established
    }

    /// The names that other definitions of the group have.
    fn names_in_use(&self, crd: &CustomResourceDefinition) -> NamesInUse {
        let all = self.crds.store().list();
        let others = all
            .iter()
            .filter(|other| other.spec.group == crd.spec.group && other.metadata.name != crd.metadata.name);
        NamesInUse::of(others.map(AsRef::as_ref))
    }

    /// Writes the status (and finalizers); `None` if the definition has changed meanwhile, or is gone.
    async fn write_status(
        &self,
        crd: &CustomResourceDefinition,
    ) -> anyhow::Result<Option<CustomResourceDefinition>> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = crd.metadata.name.as_deref().unwrap_or_default();
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match api.replace_status(name, &params, crd).await {
            Ok(written) => {
                let version = client::object::resource_version(&written);
                let seen = self.crds.store().wait_for_version(version);
                if tokio::time::timeout(SEEN_WITHIN, seen).await.is_err() {
                    tracing::warn!(definition = name, "a write has not been seen in time");
                }
                Ok(Some(written))
            }
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(None),
            Err(error) => Err(error).context("write the status of a definition"),
        }
    }
}

/// Decides one condition; `None` if nothing changes.
type Step<'a> = dyn Fn(&CustomResourceDefinition) -> Option<CustomResourceDefinition> + 'a;

/// What a definition is to become by its conditions; `None` if nothing changes.
fn plan(
    crd: &CustomResourceDefinition,
    used: &NamesInUse,
    now: Timestamp,
) -> Option<CustomResourceDefinition> {
    let mut planned = None;
    let names = |crd: &_| conditions::plan_names(crd, used, now);
    let structural = |crd: &_| conditions::plan_structural(crd, now);
    let approval = |crd: &_| conditions::plan_approval(crd, now);
    let established = |crd: &_| conditions::plan_established(crd, now);
    let steps: [&Step; 4] = [&names, &established, &structural, &approval];
    for step in steps {
        planned = step(planned.as_ref().unwrap_or(crd)).or(planned);
    }
    planned
}
