//! Claims for devices: made from templates for the pods that name them, and freed when nobody uses them.
//! As upstream's pkg/controller/resourceclaim, without the claims of pod groups, which upstream has behind a gate.

pub(crate) mod plan;

use crate::common::errors::{self, IgnoreGone};
use crate::common::refs::CONTROLLER_INDEX;
use crate::common::written::Written;
use crate::common::{meta, pods};
use crate::context::{Context, enqueue_all};
use client::controller::Action;
use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use client::{Api, Client, EventRecorder, EventType, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use plan::Need;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "resourceclaim-controller";
/// Pods by the claims that they use, and by the templates that they name.
const BY_CLAIM: &str = "resource claim";
const BY_TEMPLATE: &str = "resource claim template";
const STALE: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Controller(Arc<Shared>);

struct Shared {
    client: Client,
    recorder: EventRecorder,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    written: Written,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let pods = cx.pods();
    pods.add_index(BY_CLAIM, |pod| {
        let namespace = meta::namespace(&pod.metadata);
        plan::names_of(pod).into_iter().map(|name| format!("{namespace}/{name}")).collect()
    });
    pods.add_index(BY_TEMPLATE, |pod| {
        let namespace = meta::namespace(&pod.metadata);
        let templates =
            plan::claims_of(pod).iter().filter_map(|claim| claim.resource_claim_template_name.as_ref());
        templates.map(|name| format!("{namespace}/{name}")).collect()
    });
    let claims = cx.controlled::<ResourceClaim>();
    let controller = Controller(Arc::new(Shared {
        client: cx.client.clone(),
        recorder: cx.recorder("resource_claim"),
        written: Written::new().follow(&claims).follow(&pods),
        templates: cx.informer(),
        pods,
        claims,
    }));
    let (pod_queue, claim_queue) = (WorkQueue::new("resource_claim_pods"), WorkQueue::new("resource_claim"));
    controller.subscribe(&pod_queue, &claim_queue);
    let workers = cx.config.concurrent.resource_claims;
    let of_pods = controller.clone();
    cx.work(NAME, pod_queue, workers, controller.clone().synced(), move |key| {
        let controller = of_pods.clone();
        async move { controller.pod(key).await }
    });
    cx.work(NAME, claim_queue, workers, controller.clone().synced(), move |key| {
        let controller = controller.clone();
        async move { controller.claim(key).await }
    });
}

impl Controller {
    async fn synced(self) {
        self.0.pods.synced().await;
        self.0.claims.synced().await;
        self.0.templates.synced().await;
    }

    fn subscribe(&self, pod_queue: &WorkQueue<ObjectKey>, claim_queue: &WorkQueue<ObjectKey>) {
        let (pods, claims) = (pod_queue.clone(), claim_queue.clone());
        self.0.pods.subscribe(move |event| {
            let pod = event.object();
            let names = plan::names_of(pod);
            if matches!(event, client::Event::Deleted(_)) || plan::is_done(pod) {
                let namespace = meta::namespace(&pod.metadata);
                names.into_iter().for_each(|name| claims.add(ObjectKey::new(namespace, name)));
            } else if !plan::claims_of(pod).is_empty() {
                pods.add(meta::key(&pod.metadata));
            }
        });
        enqueue_all(&self.0.claims, claim_queue);
        let (keys, users) = (pod_queue.clone(), self.0.pods.clone());
        self.0.claims.subscribe(move |event| {
            let claim = meta::key(&event.object().metadata).to_string();
            let pods = users.store().indexed(BY_CLAIM, &claim);
            pods.iter().for_each(|pod| keys.add(meta::key(&pod.metadata)));
        });
        let (keys, users) = (pod_queue.clone(), self.0.pods.clone());
        self.0.templates.subscribe(move |event| {
            let template = meta::key(&event.object().metadata).to_string();
            let pods = users.store().indexed(BY_TEMPLATE, &template);
            pods.iter().for_each(|pod| keys.add(meta::key(&pod.metadata)));
        });
    }

    fn claims_in(&self, namespace: &str) -> Api<ResourceClaim> {
        Api::namespaced(self.0.client.clone(), namespace)
    }

    async fn pod(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(pod) = self.0.pods.store().get(&key) else {
            self.0.written.forget(&key);
            return Ok(Action::Done);
        };
        if meta::is_deleting(&pod.metadata) || plan::is_done(&pod) {
            return Ok(Action::Done);
        }
        if !self.0.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        let mut told = Vec::new();
        for wanted in plan::claims_of(&pod) {
            match self.provide(&key, &pod, wanted).await {
                Ok(Some(name)) => told.push(json!({ "name": wanted.name, "resourceClaimName": name })),
                Ok(None) => {}
                Err(error) => {
                    let message = format!("PodResourceClaim {}: {error}", wanted.name);
                    self.0.recorder.object_event(
                        &*pod,
                        EventType::Warning,
                        "FailedResourceClaimCreation",
                        message,
                    );
                    return Err(error);
                }
            }
        }
        if !told.is_empty() {
            let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "resourceClaimStatuses": told } });
            let api: Api<Pod> = Api::namespaced(self.0.client.clone(), &key.namespace);
            let params = PatchParams {
                field_manager: Some("ResourceClaimController".to_owned()),
                ..Default::default()
            };
            // Nothing else may ever happen to a pod that waits for its claims: a conflict has to be retried.
            let patched = api.patch_status(&key.name, &params, &Patch::Strategic(patch)).await;
            if let Some(pod) = patched.ignore_not_found()? {
                self.0.written.wrote(&key, &pod);
            }
        }
        if !pods::node_name(&pod).is_empty() {
            self.reserve(&key, &pod).await?;
        }
        Ok(Action::Done)
    }

    /// Sees to one claim of a pod; its name if the pod does not know it yet.
    async fn provide(
        &self,
        key: &ObjectKey,
        pod: &Pod,
        wanted: &k8s_openapi::api::core::v1::PodResourceClaim,
    ) -> anyhow::Result<Option<String>> {
        let named = match plan::name_of(pod, wanted) {
            plan::Name::Known(name, _) => {
                self.0.claims.store().get(&ObjectKey::new(key.namespace.as_str(), name))
            }
            _ => None,
        };
        let made = self.0.claims.store().indexed(CONTROLLER_INDEX, meta::uid(&pod.metadata));
        let template = wanted.resource_claim_template_name.as_ref().and_then(|name| {
            self.0.templates.store().get(&ObjectKey::new(key.namespace.as_str(), name.as_str()))
        });
        match plan::need(pod, wanted, named.as_deref(), &made, template.as_deref()) {
            Need::Nothing => Ok(None),
            Need::Tell(name) => Ok(Some(name)),
            Need::Fail(why) => Err(anyhow::anyhow!(why)),
            Need::Create(claim) => {
                let created = self.claims_in(&key.namespace).create(&PostParams::default(), &claim).await;
                let created = created.map_err(|error| {
                    let said = errors::message(&error);
                    anyhow::Error::new(error).context(format!("create ResourceClaim : {said}"))
                })?;
                self.0.written.wrote(key, &created);
                Ok(Some(meta::name(&created.metadata).to_owned()))
            }
        }
    }

    /// Makes a pod that has a node a consumer of its claims: one that was not put there by the scheduler.
    async fn reserve(&self, key: &ObjectKey, pod: &Pod) -> anyhow::Result<()> {
        for wanted in plan::claims_of(pod) {
            let plan::Name::Known(name, own) = plan::name_of(pod, wanted) else { continue };
            let claim = self.0.claims.store().get(&ObjectKey::new(key.namespace.as_str(), name.as_str()));
            let Some(claim) = claim else { return Ok(()) };
            if own && !plan::is_for(pod, &claim) {
                anyhow::bail!("ResourceClaim {name} was not created for pod {key} (pod is not owner)");
            }
            if let Some(reserved) = plan::reserved(pod, &claim) {
                let api = self.claims_in(&key.namespace);
                let written = api.replace_status(&name, &PostParams::default(), &reserved).await?;
                self.0.written.wrote(key, &written);
            }
        }
        Ok(())
    }

    async fn claim(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(claim) = self.0.claims.store().get(&key) else { return Ok(Action::Done) };
        let consumers =
            claim.status.as_ref().and_then(|status| status.reserved_for.clone()).unwrap_or_default();
        let mut gone = HashSet::new();
        for consumer in consumers.iter().filter(|consumer| plan::is_pod(consumer)) {
            if self.is_gone(&key.namespace, consumer).await? {
                gone.insert(consumer.uid.clone());
            }
        }
        let owner = meta::controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod");
        let owner = owner.and_then(|owner| {
            self.0.pods.store().get(&ObjectKey::new(key.namespace.as_str(), owner.name.as_str()))
        });
        let plan = plan::cleanup(&claim, |consumer| !gone.contains(&consumer.uid), owner.as_deref());
        let api = self.claims_in(&key.namespace);
        let mut current = claim.as_ref().clone();
        if let Some(wanted) = plan.status {
            current = api.replace_status(&key.name, &PostParams::default(), &wanted).await?;
        }
        if plan.release {
            api.replace(&key.name, &PostParams::default(), &plan::released(current))
                .await
                .ignore_not_found()?;
        }
        if plan.delete && !meta::is_deleting(&claim.metadata) {
            api.delete(&key.name, &DeleteParams::default()).await.ignore_not_found()?;
        }
        Ok(Action::Done)
    }

    /// Whether a pod that consumes a claim is gone or through. One that the cache does not have is read live.
    async fn is_gone(
        &self,
        namespace: &str,
        consumer: &ResourceClaimConsumerReference,
    ) -> anyhow::Result<bool> {
        let other = |pod: &Pod| meta::uid(&pod.metadata) != consumer.uid;
        if let Some(pod) = self.0.pods.store().get(&ObjectKey::new(namespace, consumer.name.as_str())) {
            return Ok(other(&pod) || plan::is_done(&pod));
        }
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), namespace);
        Ok(api.get(&consumer.name).await.ignore_not_found()?.is_none_or(|pod| other(&pod)))
    }
}
