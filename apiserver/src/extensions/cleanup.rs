//! The end of a definition: its objects are deleted first (upstream `controller/finalizer`).

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use api::crd::conditions::{self, CLEANUP_FINALIZER};
use client::Api;
use client::controller::Action;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};

use super::Definitions;

/// How soon objects are counted again that others hold by their finalizers.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether a definition waits for its objects to be deleted.
pub fn is_due(crd: &CustomResourceDefinition) -> bool {
    let finalizers = crd.metadata.finalizers.as_deref().unwrap_or_default();
    crd.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|name| name == CLEANUP_FINALIZER)
}

impl Definitions {
    /// Deletes the objects of a definition, and lets it go when there are none.
    pub(super) async fn clean_up(&self, crd: &CustomResourceDefinition) -> anyhow::Result<Action> {
        let mut crd = crd.clone();
        let progress = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
        conditions::set_terminating(&mut crd, true, progress.0, progress.1, Timestamp::now());
        let Some(mut crd) = self.write_status(&crd).await? else { return Ok(Action::Done) };
        let names = &crd.spec.names;
        let (reason, message) = if self.server.registry.is_built_in(&crd.spec.group, &names.plural) {
            ("OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
        } else if !conditions::is_true(&crd, conditions::ESTABLISHED) {
            ("NeverEstablished", "resource was never established")
        } else {
            match self.delete_objects(&crd).await {
                Ok(0) => ("InstanceDeletionCompleted", "removed all instances"),
                Ok(_) => return Ok(Action::RequeueAfter(AGAIN)),
                Err(error) => {
                    let message = format!("could not issue all deletes: {error:#}");
                    let now = Timestamp::now();
                    conditions::set_terminating(&mut crd, true, "InstanceDeletionFailed", &message, now);
                    self.write_status(&crd).await?;
                    return Err(error);
                }
            }
        };
        conditions::set_terminating(&mut crd, false, reason, message, Timestamp::now());
        if let Some(finalizers) = &mut crd.metadata.finalizers {
            finalizers.retain(|name| name != CLEANUP_FINALIZER);
        }
        self.write_status(&crd).await?;
        Ok(Action::Done)
    }

    /// Deletes all objects; how many are left.
    async fn delete_objects(&self, crd: &CustomResourceDefinition) -> anyhow::Result<usize> {
        // Those of the storage version need no conversion.
        let mut served = crd.spec.versions.iter().filter(|version| version.served);
        let Some(version) = served.clone().find(|version| version.storage).or_else(|| served.next()) else {
            // Nobody can reach them: they go with their definition's return, as upstream's do.
            return Ok(0);
        };
        let kind = GroupVersionKind::gvk(&crd.spec.group, &version.name, &crd.spec.names.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &crd.spec.names.plural);
        let everywhere: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let list = || async {
            let listed = everywhere.list_metadata(&ListParams::default()).await;
            listed.context("list custom objects").map(|list| list.items)
        };
        let namespaces: BTreeSet<Option<String>> =
            list().await?.into_iter().map(|object| object.metadata.namespace).collect();
        for namespace in namespaces {
            let api: Api<DynamicObject> = match &namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => everywhere.clone(),
            };
            let deleted = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
            deleted.context("delete custom objects")?;
        }
        Ok(list().await?.len())
    }
}
