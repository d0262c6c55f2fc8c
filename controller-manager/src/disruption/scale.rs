//! How many pods the controllers of some pods are meant to have.

use crate::common::{discovery, meta};
use crate::context::Context;
use client::kube::core::DynamicObject;
use client::{Api, Client, Informer, ObjectKey};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::HashMap;
use std::sync::Arc;

/// The sum, and the pods that nobody controls.
#[derive(Debug, Default)]
pub struct Expected {
    /// How many pods there should be.
    pub count: i32,
    /// Names of pods without controller.
    pub unmanaged: Vec<String>,
}

/// Knows the controllers.
#[derive(Clone)]
pub struct Scales {
    client: Client,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

impl Scales {
    /// Uses the caches of the usual controllers.
    pub fn new(cx: &Context) -> Self {
        Self {
            client: cx.client.clone(),
            sets: cx.informer(),
            deployments: cx.informer(),
            stateful: cx.informer(),
            controllers: cx.informer(),
        }
    }

    /// Waits for the caches.
    pub async fn synced(&self) {
        self.sets.synced().await;
        self.deployments.synced().await;
        self.stateful.synced().await;
        self.controllers.synced().await;
    }

    /// Sums up over the controllers of the pods, each once.
    pub async fn expected(&self, pods: &[Arc<Pod>]) -> anyhow::Result<Expected> {
        let mut expected = Expected::default();
        let mut scales: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            let Some(owner) = meta::controller_of(&pod.metadata) else {
                expected.unmanaged.push(meta::name(&pod.metadata).to_owned());
                continue;
            };
            if scales.contains_key(&owner.uid) {
                continue;
            }
            let (uid, scale) = self.of(meta::namespace(&pod.metadata), owner).await?.ok_or_else(|| {
                anyhow::anyhow!("found no controllers for pod {:?}", meta::name(&pod.metadata))
            })?;
            scales.insert(uid, scale);
        }
        expected.count = scales.values().sum();
        Ok(expected)
    }

    /// UID and size of the controller, or of the Deployment behind it.
    async fn of(&self, namespace: &str, owner: &OwnerReference) -> anyhow::Result<Option<(String, i32)>> {
        let key = ObjectKey::new(namespace, owner.name.as_str());
        let found = |uid: &Option<String>, replicas: Option<i32>| {
            (uid.as_deref() == Some(owner.uid.as_str())).then(|| (owner.uid.clone(), replicas.unwrap_or(1)))
        };
        Ok(match owner.kind.as_str() {
            "ReplicaSet" => {
                let Some(set) = self.sets.store().get(&key) else { return Ok(None) };
                if let Some(above) =
                    meta::controller_of(&set.metadata).filter(|above| above.kind == "Deployment")
                {
                    let key = ObjectKey::new(namespace, above.name.as_str());
                    let deployment = self.deployments.store().get(&key);
                    return Ok(deployment.filter(|found| meta::uid(&found.metadata) == above.uid).map(
                        |found| {
                            let replicas = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                            (above.uid.clone(), replicas)
                        },
                    ));
                }
                found(&set.metadata.uid, set.spec.as_ref().and_then(|spec| spec.replicas))
            }
            "StatefulSet" => {
                let set = self.stateful.store().get(&key);
                set.and_then(|set| found(&set.metadata.uid, set.spec.as_ref().and_then(|spec| spec.replicas)))
            }
            "ReplicationController" => {
                let set = self.controllers.store().get(&key);
                set.and_then(|set| found(&set.metadata.uid, set.spec.as_ref().and_then(|spec| spec.replicas)))
            }
            _ => self.by_subresource(namespace, owner).await?,
        })
    }

    /// Any other kind may have the subresource `scale`.
    async fn by_subresource(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> anyhow::Result<Option<(String, i32)>> {
        let discovered = discovery::discover(&self.client).await?;
        let of_kind = |resource: &&discovery::Resource| {
            resource.api.kind == owner.kind && resource.api.api_version == owner.api_version
        };
        let Some(resource) = discovered.resources.iter().find(of_kind) else { return Ok(None) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource.api);
        let scale = api.get_scale(&owner.name).await?;
        let same = scale.metadata.uid.as_deref() == Some(owner.uid.as_str());
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        Ok(same.then(|| (owner.uid.clone(), replicas)))
    }
}
