//! EndpointSlices: where the pods of a Service are, in pieces of bounded size.
//!
//! `endpoints.rs` turns pods into endpoints, `plan.rs` distributes them over slices, `topology.rs` says which zones each
//! is for, and `hints.rs` remembers that. As upstream's k8s.io/endpointslice and pkg/controller/endpointslice.

mod endpoints;
mod hints;
mod plan;
mod topology;

use crate::common::errors::{self, IgnoreGone};
use crate::common::{meta, services, written::Written};
use crate::context::{Context, NODE_INDEX, enqueue_all, states};
use crate::replicaset::STALE;
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue, kube};
use hints::Hints;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use plan::Plan;
use std::sync::Arc;

/// The label by which a slice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a slice names its controller.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller's name in that label.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Slices by `namespace/service`.
const BY_SERVICE: &str = "service";

struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    recorder: EventRecorder,
    written: Written,
    triggers: services::TriggerTimes,
    hints: Arc<Hints>,
    max_endpoints: usize,
}

/// The cache of slices, indexed by the Service they are for.
pub fn slices(cx: &Context) -> Informer<EndpointSlice> {
    let slices = cx.informer::<EndpointSlice>();
    slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    slices
}

/// The Service a slice is for.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = meta::label(&slice.metadata, SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(meta::namespace(&slice.metadata), name))
}

/// The slices of a Service that a controller answers for and that stay.
pub fn managed(slices: &Informer<EndpointSlice>, service: &ObjectKey, by: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = slices.store().indexed(BY_SERVICE, &service.to_string());
    slices.retain(|slice| {
        meta::label(&slice.metadata, MANAGED_BY) == Some(by) && !meta::is_deleting(&slice.metadata)
    });
    slices
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (services, pods, nodes) = (cx.informer::<Service>(), cx.pods(), cx.informer::<Node>());
    let slices = slices(cx);
    let queue = WorkQueue::new("endpoint_slice");
    enqueue_all(&services, &queue);
    services::enqueue_for_pods(&pods, &services, &queue, cx.config.flags.endpointslice_updates_batch_period);
    enqueue_for_slices(&slices, &queue);
    enqueue_for_nodes(&nodes, &pods, &services, &queue);
    let hints = Arc::new(Hints::new(nodes.clone()));
    hints.enqueue_overloaded(&queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        recorder: cx.recorder("endpoint-slice-controller"),
        written: Written::new().follow(&slices),
        triggers: services::TriggerTimes::default(),
        hints,
        max_endpoints: cx.config.flags.max_endpoints_per_slice.max(1),
        services: services.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        slices: slices.clone(),
    });
    let synced = async move {
        services.synced().await;
        pods.synced().await;
        nodes.synced().await;
        slices.synced().await;
    };
    cx.work("endpointslice-controller", queue, cx.config.concurrent.service_endpoints, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

/// A slice of this controller that anybody changed is looked at again.
fn enqueue_for_slices(slices: &Informer<EndpointSlice>, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    slices.subscribe(move |event| {
        for slice in states(event) {
            if meta::label(&slice.metadata, MANAGED_BY) == Some(CONTROLLER)
                && let Some(key) = service_of(slice)
            {
                queue.add(key);
            }
        }
    });
}

/// A node that appears, or whose zone changes, matters to the Services of its pods.
fn enqueue_for_nodes(
    nodes: &Informer<Node>,
    pods: &Informer<Pod>,
    services: &Informer<Service>,
    queue: &WorkQueue<ObjectKey>,
) {
    let (pods, services, queue) = (pods.clone(), services.clone(), queue.clone());
    nodes.subscribe(move |event| {
        if let Event::Updated { old, new } = event
            && endpoints::zone(old) == endpoints::zone(new)
        {
            return;
        }
        for pod in pods.store().indexed(NODE_INDEX, meta::name(&event.object().metadata)) {
            let namespace = meta::namespace(&pod.metadata);
            services::for_labels(&services, namespace, meta::labels(&pod.metadata))
                .into_iter()
                .for_each(|key| queue.add(key));
        }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(service) = self.services.store().get(&key) else {
            self.written.forget(&key);
            self.triggers.forget(&key);
            self.hints.forget(&key);
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
        let node = |name: &str| self.nodes.store().get(&ObjectKey::new("", name));
        let existing = managed(&self.slices, &key, CONTROLLER);
        let zones = topology::is_wanted(&service).then(|| self.hints.zones());
        let plan = plan::plan(&service, &pods, node, &existing, self.max_endpoints, zones.as_deref());
        let said = self.hints.observe(&key, &endpoints::address_types(&service), &plan.topology);
        let applied = self.apply(&key, &service, plan, trigger).await;
        for hints::Said { kind, reason, message } in said {
            self.recorder.object_event(&*service, kind, reason, message);
        }
        if let Err(error) = applied {
            let message =
                format!("Error updating Endpoint Slices for Service {key}: {}", errors::message(&error));
            self.recorder.object_event(
                &*service,
                EventType::Warning,
                "FailedToUpdateEndpointSlices",
                message,
            );
            return Err(error.into());
        }
        Ok(Action::Done)
    }

    async fn apply(
        &self,
        key: &ObjectKey,
        service: &Service,
        plan: Plan,
        trigger: Option<Timestamp>,
    ) -> Result<(), kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for mut slice in plan.create {
            if meta::is_deleting(&service.metadata) {
                break;
            }
            stamp(&mut slice, trigger);
            match api.create(&PostParams::default(), &slice).await {
                Ok(created) => self.written.wrote(key, &created),
                Err(error) if errors::is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        for mut slice in plan.update {
            stamp(&mut slice, trigger);
            let written = api.replace(meta::name(&slice.metadata), &PostParams::default(), &slice).await?;
            self.written.wrote(key, &written);
        }
        for slice in plan.delete {
            let exactly = Preconditions { uid: slice.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
            api.delete(meta::name(&slice.metadata), &params).await.ignore_gone()?;
            self.written.deleted(key, &slice);
        }
        Ok(())
    }
}

fn stamp(slice: &mut EndpointSlice, trigger: Option<Timestamp>) {
    let annotations = slice.metadata.annotations.get_or_insert_default();
    match trigger {
        Some(at) => annotations.insert(services::TRIGGER_TIME.to_owned(), services::trigger_text(at)),
        None => annotations.remove(services::TRIGGER_TIME),
    };
    if annotations.is_empty() {
        slice.metadata.annotations = None;
    }
}
