//! Horizontal autoscaling: as many replicas as the metrics of a target ask for. As upstream's podautoscaler.
//!
//! Each autoscaler is looked at once in a period, never between: what matters is in the metrics, and nothing tells
//! when they change. What was recommended and done of late is kept in memory, as upstream does; after a restart the
//! number there is counts as recommended.

mod calculate;
mod compute;
mod history;
mod metrics;
mod plan;
mod target;

use crate::clock::Clock;
use crate::common::{Selector, errors, meta};
use crate::context::Context;
use calculate::Starting;
use client::controller::Action;
use client::kube::api::PostParams;
use client::kube::core::ApiResource;
use client::{Api, Client, Event, EventRecorder, EventType, Informer, ObjectKey, WorkQueue};
use compute::{Failure, Observed, Replicas};
use history::History;
use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricIdentifier,
    MetricSpec,
};
use k8s_openapi::api::core::v1::Pod;
use metrics::MetricsClient;
use parking_lot::Mutex;
use plan::{Decision, Now, Seen, Settings};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use target::Targets;
use tokio::time::Instant;

const NAME: &str = "horizontal-pod-autoscaler-controller";

#[derive(Clone)]
struct Autoscaler(Arc<Shared>);

struct Shared {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    metrics: MetricsClient,
    targets: Targets,
    settings: Settings,
    period: Duration,
    histories: Mutex<HashMap<ObjectKey, History>>,
    /// The pods that each autoscaler selects.
    selectors: Mutex<HashMap<ObjectKey, Selector>>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let flags = &cx.config.flags.autoscaling;
    let long = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    let settings = Settings {
        tolerance: flags.horizontal_pod_autoscaler_tolerance,
        window: flags.horizontal_pod_autoscaler_downscale_stabilization,
        starting: Starting {
            cpu: long(flags.horizontal_pod_autoscaler_cpu_initialization_period),
            readiness: long(flags.horizontal_pod_autoscaler_initial_readiness_delay),
        },
    };
    let autoscaler = Autoscaler(Arc::new(Shared {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder: cx.recorder("horizontal-pod-autoscaler"),
        autoscalers: cx.informer(),
        pods: cx.pods(),
        metrics: MetricsClient::new(cx.client.clone()),
        targets: Targets::new(cx.client.clone()),
        settings,
        period: flags.horizontal_pod_autoscaler_sync_period,
        histories: Mutex::default(),
        selectors: Mutex::default(),
    }));
    let queue = WorkQueue::new("horizontalpodautoscaler");
    let (keys, period) = (queue.clone(), autoscaler.0.period);
    autoscaler.0.autoscalers.subscribe(move |event| {
        let key = meta::key(&event.object().metadata);
        match event {
            Event::Added(_) => keys.add_after(key, period),
            Event::Deleted(_) => keys.add(key),
            Event::Updated { .. } => {}
        }
    });
    let caches = autoscaler.clone();
    let synced = async move {
        caches.0.autoscalers.synced().await;
        caches.0.pods.synced().await;
    };
    cx.work(NAME, queue, cx.config.concurrent.autoscalers, synced, move |key| {
        let autoscaler = autoscaler.clone();
        async move { Ok(autoscaler.reconcile(key).await) }
    });
}

impl Autoscaler {
    /// One look. Whatever goes wrong, the next one is a period later.
    async fn reconcile(&self, key: ObjectKey) -> Action {
        let Some(hpa) = self.0.autoscalers.store().get(&key) else {
            self.0.histories.lock().remove(&key);
            self.0.selectors.lock().remove(&key);
            return Action::Done;
        };
        let before = hpa.status.clone().unwrap_or_default();
        let status = self.look(&key, &hpa, before.clone()).await;
        if status != before
            && let Err(error) = self.write(&hpa, status).await
        {
            let message = errors::message(&error);
            self.0.recorder.object_event(&*hpa, EventType::Warning, "FailedUpdateStatus", message.as_str());
            tracing::warn!(object = %key, error = message, "could not write the status, will retry");
        }
        Action::RequeueAfter(self.0.period)
    }

    async fn write(
        &self,
        hpa: &HorizontalPodAutoscaler,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<(), client::kube::Error> {
        let mut wanted = hpa.clone();
        wanted.status = Some(status);
        let api: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.0.client.clone(), meta::namespace(&hpa.metadata));
        api.replace_status(meta::name(&hpa.metadata), &PostParams::default(), &wanted).await.map(drop)
    }

    /// Looks at the target, scales it if need be, and returns the status that results.
    async fn look(
        &self,
        key: &ObjectKey,
        hpa: &HorizontalPodAutoscaler,
        mut status: HorizontalPodAutoscalerStatus,
    ) -> HorizontalPodAutoscalerStatus {
        let now = Now { clock: self.0.clock.now(), instant: Instant::now() };
        let (resource, scale) = match self.scale(hpa).await {
            Ok(found) => found,
            Err(error) => {
                self.0.recorder.object_event(hpa, EventType::Warning, "FailedGetScale", error.as_str());
                let message =
                    format!("the HPA controller was unable to get the target's current scale: {error}");
                plan::set_condition(
                    &mut status,
                    "AbleToScale",
                    false,
                    ("FailedGetScale", &message),
                    now.clock,
                );
                return status;
            }
        };
        let why = ("SucceededGetScale", "the HPA controller was able to get the target's current scale");
        plan::set_condition(&mut status, "AbleToScale", true, why, now.clock);
        let replicas = Replicas {
            spec: scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0),
            status: scale.status.as_ref().map_or(0, |status| status.replicas),
        };
        let selector = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        let (observed, pods) = if plan::needs_metrics(hpa, replicas.spec) {
            self.observe(key, hpa, &selector).await
        } else {
            (Ok(Vec::new()), Vec::new())
        };
        let decision = {
            let mut histories = self.0.histories.lock();
            let history = histories.entry(key.clone()).or_default();
            history.begin(replicas.spec, now.instant);
            plan::decide(hpa, status, Seen { replicas, pods, observed }, history, &self.0.settings, now)
        };
        for (kind, reason, message) in &decision.events {
            self.0.recorder.object_event(hpa, *kind, reason, message.as_str());
        }
        self.carry_out(key, hpa, decision, (resource, scale), replicas.spec, now).await
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        hpa: &HorizontalPodAutoscaler,
        decision: Decision,
        (resource, scale): (ApiResource, Scale),
        current: i32,
        now: Now,
    ) -> HorizontalPodAutoscalerStatus {
        let Some((wanted, reason)) = decision.rescale.clone() else { return decision.status };
        let outcome = self.0.targets.rescale(&key.namespace, &resource, scale, wanted).await;
        if let Err(error) = outcome {
            let error = errors::message(&error);
            let message = format!("New size: {wanted}; reason: {reason}; error: {error}");
            self.0.recorder.object_event(hpa, EventType::Warning, "FailedRescale", message);
            let before = hpa.status.as_ref().map_or(0, |status| status.desired_replicas);
            return plan::not_rescaled(&decision, current, before, &error, now.clock);
        }
        let message = format!("New size: {wanted}; reason: {reason}");
        self.0.recorder.object_event(hpa, EventType::Normal, "SuccessfulRescale", message);
        if let Some(behavior) = &hpa.spec.behavior {
            let mut histories = self.0.histories.lock();
            histories.entry(key.clone()).or_default().changed(behavior, current, wanted, now.instant);
        }
        plan::rescaled(&decision, current, wanted, now.clock)
    }

    async fn scale(&self, hpa: &HorizontalPodAutoscaler) -> Result<(ApiResource, Scale), String> {
        let target = &hpa.spec.scale_target_ref;
        let group = target::group_of(target.api_version.as_deref().unwrap_or_default())?;
        let resource = self.0.targets.resource(group, &target.kind).await?;
        let scale = self.0.targets.scale(meta::namespace(&hpa.metadata), &resource, &target.name).await;
        Ok((resource, scale.map_err(|error| errors::message(&error))?))
    }

    /// Asks for all metrics, if it is clear whose they are.
    async fn observe(
        &self,
        key: &ObjectKey,
        hpa: &HorizontalPodAutoscaler,
        selector: &str,
    ) -> (Result<Vec<Result<Observed, String>>, Failure>, Vec<Arc<Pod>>) {
        let pods = match self.selected(key, selector) {
            Ok(pods) => pods,
            Err(failure) => return (Err(failure), Vec::new()),
        };
        let mut observed = Vec::new();
        for metric in plan::metrics(hpa) {
            observed.push(self.measure(&key.namespace, metric, selector).await);
        }
        (Ok(observed), pods)
    }

    /// The pods under a selector that no other autoscaler has.
    fn selected(&self, key: &ObjectKey, selector: &str) -> Result<Vec<Arc<Pod>>, Failure> {
        let failure = |reason, message: String, full: String| Failure { reason, message, full };
        if selector.is_empty() {
            let full = "the HPA target's scale is missing a selector".to_owned();
            return Err(failure("SelectorRequired", "selector is required".to_owned(), full));
        }
        let parsed = Selector::parse(selector).map_err(|error| {
            let message =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            failure("InvalidSelector", message.clone(), message)
        })?;
        let mut pods = self.0.pods.store().list_namespace(&key.namespace);
        pods.retain(|pod| parsed.matches(meta::labels(&pod.metadata)));
        let mut selectors = self.0.selectors.lock();
        selectors.insert(key.clone(), parsed);
        let of_one = |other: &Selector| pods.iter().any(|pod| other.matches(meta::labels(&pod.metadata)));
        let mut rivals: Vec<_> = selectors
            .iter()
            .filter(|(other, selector)| other.namespace == key.namespace && of_one(selector))
            .map(|(other, _)| format!("{{{} {}}}", other.name, other.namespace))
            .collect();
        if rivals.len() > 1 {
            rivals.sort();
            let rivals = rivals.join(" ");
            let message = format!("pods by selector {selector} are controlled by multiple HPAs: [{rivals}]");
            return Err(failure("AmbiguousSelector", message.clone(), message));
        }
        Ok(pods)
    }

    async fn measure(
        &self,
        namespace: &str,
        metric: &MetricSpec,
        selector: &str,
    ) -> Result<Observed, String> {
        let metrics = &self.0.metrics;
        if let Some(source) = &metric.resource {
            return metrics.resource(namespace, &source.name, selector, "").await.map(Observed::Pods);
        }
        if let Some(source) = &metric.container_resource {
            let found = metrics.resource(namespace, &source.name, selector, &source.container).await;
            return found.map(Observed::Pods);
        }
        if let Some(source) = &metric.pods {
            let of_metric = of_metric(&source.metric)?;
            return metrics
                .pods(namespace, &source.metric.name, selector, &of_metric)
                .await
                .map(Observed::Pods);
        }
        if let Some(source) = &metric.object {
            return self.of_object(namespace, &source.described_object, &source.metric).await;
        }
        if let Some(source) = &metric.external {
            let of_metric = of_metric(&source.metric)?;
            return metrics.external(namespace, &source.metric.name, &of_metric).await.map(Observed::Total);
        }
        Err("no source".to_owned())
    }

    async fn of_object(
        &self,
        namespace: &str,
        about: &CrossVersionObjectReference,
        metric: &MetricIdentifier,
    ) -> Result<Observed, String> {
        let group = target::group_of(about.api_version.as_deref().unwrap_or_default())?;
        let resource = if group.is_empty() && about.kind == "Namespace" {
            String::new()
        } else {
            let resource = self.0.targets.resource(group, &about.kind).await?;
            if group.is_empty() { resource.plural } else { format!("{}.{group}", resource.plural) }
        };
        let object = metrics::Object { resource: &resource, name: &about.name };
        let of_metric = of_metric(metric)?;
        self.0.metrics.object(namespace, object, &metric.name, &of_metric).await.map(Observed::Total)
    }
}

/// The selector of a metric as text.
fn of_metric(metric: &MetricIdentifier) -> Result<String, String> {
    let Some(selector) = &metric.selector else { return Ok(String::new()) };
    Selector::from_meta(Some(selector)).map(|selector| selector.to_string())
}
