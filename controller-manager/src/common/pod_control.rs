//! Creates and deletes pods for a controller, says so in events, and remembers the writes.

use super::errors::{self, IgnoreGone};
use super::meta;
use super::written::Written;
use client::events::{EventRecorder, EventType};
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client, ObjectKey, kube};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use std::sync::Arc;

/// The hands of a controller on pods.
#[derive(Clone)]
pub struct PodControl {
    client: Client,
    recorder: EventRecorder,
    written: Arc<Written>,
}

impl PodControl {
    /// Writes through `client`; events appear on the owners; writes are remembered in `written`.
    pub fn new(client: Client, recorder: EventRecorder, written: Arc<Written>) -> Self {
        Self { client, recorder, written }
    }

    /// The pods of a namespace.
    pub fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a pod for `owner`. In a namespace that is being deleted that fails quietly and is no error.
    pub async fn create(&self, owner: &ObjectReference, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
        let key = owner_key(owner);
        match self.api(&key.namespace).create(&PostParams::default(), pod).await {
            Ok(created) => {
                self.written.wrote(&key, &created);
                let message = format!("Created pod: {}", meta::name(&created.metadata));
                self.recorder.event(owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(created))
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error creating: {}", errors::message(&error));
                self.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    /// Deletes exactly this pod for `owner`; one that is gone already is fine.
    pub async fn delete(&self, owner: &ObjectReference, pod: &Pod) -> Result<(), kube::Error> {
        let key = owner_key(owner);
        let name = meta::name(&pod.metadata);
        let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
        match self.api(meta::namespace(&pod.metadata)).delete(name, &params).await.ignore_gone() {
            Ok(deleted) => {
                self.written.deleted(&key, pod);
                if deleted.is_some() {
                    let message = format!("Deleted pod: {name}");
                    self.recorder.event(owner, EventType::Normal, "SuccessfulDelete", message);
                }
                Ok(())
            }
            Err(error) => {
                let message = format!("Error deleting: {}", errors::message(&error));
                self.recorder.event(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }
}

/// The key of the object a reference names.
pub fn owner_key(owner: &ObjectReference) -> ObjectKey {
    ObjectKey::new(owner.namespace.clone().unwrap_or_default(), owner.name.clone().unwrap_or_default())
}
