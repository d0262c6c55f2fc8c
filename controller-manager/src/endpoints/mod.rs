//! Endpoints: the older form of EndpointSlices, one object per Service. As upstream's pkg/controller/endpoint.

mod plan;

use crate::common::errors::{self, IgnoreGone};
use crate::common::{meta, services, written::Written};
use crate::context::{Context, enqueue_all};
use crate::replicaset::STALE;
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{DeleteParams, PostParams};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use std::sync::Arc;

struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    recorder: EventRecorder,
    written: Written,
    triggers: services::TriggerTimes,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (services, pods, endpoints) = (cx.informer::<Service>(), cx.pods(), cx.informer::<Endpoints>());
    let queue = WorkQueue::new("endpoint");
    enqueue_all(&services, &queue);
    services::enqueue_for_pods(&pods, &services, &queue, cx.config.flags.endpoint_updates_batch_period);
    let (keys, found) = (queue.clone(), queue.clone());
    // Those that are deleted may have to come back.
    endpoints.subscribe(move |event| {
        if let Event::Deleted(endpoints) = event {
            keys.add(meta::key(&endpoints.metadata));
        }
    });
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        recorder: cx.recorder("endpoint-controller"),
        written: Written::new().follow(&endpoints),
        triggers: services::TriggerTimes::default(),
        services: services.clone(),
        pods: pods.clone(),
        endpoints: endpoints.clone(),
    });
    let synced = async move {
        services.synced().await;
        pods.synced().await;
        endpoints.synced().await;
        // Those found at the start may be left over; users may make others later.
        for endpoints in endpoints.store().list() {
            found.add(meta::key(&endpoints.metadata));
        }
    };
    cx.work("endpoints-controller", queue, cx.config.concurrent.endpoints, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let current = self.endpoints.store().get(&key);
        let Some(service) = self.services.store().get(&key) else {
            self.written.forget(&key);
            self.triggers.forget(&key);
            if current.is_some_and(|endpoints| plan::is_leftover(&endpoints)) {
                api.delete(&key.name, &DeleteParams::default()).await.ignore_not_found()?;
            }
            return Ok(Action::Done);
        };
        let Some(selector) = services::selector(&service).filter(|_| !services::is_external_name(&service))
        else {
            return Ok(Action::Done);
        };
        if !self.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        let mut pods = self.pods.store().list_namespace(&key.namespace);
        pods.retain(|pod| services::selects(selector, meta::labels(&pod.metadata)));
        let trigger = self.triggers.observe(&key, &service, &pods);
        let Some(wanted) = plan::plan(&service, &pods, current.as_deref(), trigger) else {
            return Ok(Action::Done);
        };
        let (written, reason, verb) = match &current {
            None => (
                api.create(&PostParams::default(), &wanted).await,
                "FailedToCreateEndpoint",
                "create endpoint for service",
            ),
            Some(_) => (
                api.replace(&key.name, &PostParams::default(), &wanted).await,
                "FailedToUpdateEndpoint",
                "update endpoint",
            ),
        };
        match written {
            Ok(written) => {
                self.written.wrote(&key, &written);
                Ok(Action::Done)
            }
            Err(error) if errors::is_namespace_terminating(&error) => Ok(Action::Done),
            Err(error) => {
                let message = format!("Failed to {verb} {key}: {}", errors::message(&error));
                self.recorder.object_event(&wanted, EventType::Warning, reason, message);
                Err(error.into())
            }
        }
    }
}
