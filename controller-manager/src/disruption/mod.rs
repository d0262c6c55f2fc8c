//! PodDisruptionBudgets: how many pods may be taken away on purpose right now.
//!
//! `plan.rs` counts, `scale.rs` finds out how many pods there should be. As upstream's pkg/controller/disruption.

mod plan;
mod scale;

use crate::clock::Clock;
use crate::common::Selector;
use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::{Context, enqueue_all, states};
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::PostParams;
use client::{Api, Client, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::sync::Arc;
use std::time::Duration;

/// For how long a pod may say that it is being disrupted without being deleted.
const STALE_DISRUPTION: Duration = Duration::from_secs(120);

struct Controller {
    client: Client,
    clock: Clock,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: scale::Scales,
    recorder: EventRecorder,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (budgets, pods) = (cx.informer::<PodDisruptionBudget>(), cx.pods());
    let queue = WorkQueue::new("disruption");
    enqueue_all(&budgets, &queue);
    let (all, keys) = (budgets.clone(), queue.clone());
    let recorder = cx.recorder("controllermanager");
    pods.subscribe(move |event| {
        for pod in states(event) {
            let mut budgets = all.store().list_namespace(meta::namespace(&pod.metadata));
            budgets.retain(|budget| selector(budget).matches(meta::labels(&pod.metadata)));
            if let [first, _, ..] = &budgets[..] {
                let message = plan::several(pod, first);
                recorder.object_event(&**pod, EventType::Warning, "MultiplePodDisruptionBudgets", message);
            }
            budgets.iter().for_each(|budget| keys.add(meta::key(&budget.metadata)));
        }
    });
    start_clearing(cx, &pods);
    let scales = scale::Scales::new(cx);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder: cx.recorder("controllermanager"),
        scales: scales.clone(),
        budgets: budgets.clone(),
        pods: pods.clone(),
    });
    let synced = async move {
        budgets.synced().await;
        pods.synced().await;
        scales.synced().await;
    };
    cx.work("disruption-controller", queue, 2, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

/// A pod that was to be disrupted but is still there is no target any more.
fn start_clearing(cx: &Context, pods: &Informer<Pod>) {
    let queue = WorkQueue::new("stale_pod_disruption");
    let keys = queue.clone();
    pods.subscribe(move |event| {
        if plan::disrupted_since(event.object()).is_some() {
            keys.add(meta::key(&event.object().metadata));
        }
    });
    let (client, clock, pods) = (cx.client.clone(), cx.config.clock, pods.clone());
    let synced = pods.clone();
    cx.work("disruption-controller", queue, 1, async move { synced.synced().await }, move |key| {
        let (client, pods) = (client.clone(), pods.clone());
        async move {
            let Some(pod) = pods.store().get(&key) else { return Ok(Action::Done) };
            let Some(since) = plan::disrupted_since(&pod) else { return Ok(Action::Done) };
            let now = clock.now();
            let past = u64::try_from(now.as_second() - since.as_second()).unwrap_or(0);
            let left = STALE_DISRUPTION.saturating_sub(Duration::from_secs(past));
            if !left.is_zero() {
                return Ok(Action::RequeueAfter(left));
            }
            let api: Api<Pod> = Api::namespaced(client, &key.namespace);
            api.replace_status(&key.name, &PostParams::default(), &plan::cleared(&pod, now)).await?;
            Ok(Action::Done)
        }
    });
}

fn selector(budget: &PodDisruptionBudget) -> Selector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    Selector::from_meta(selector).unwrap_or_else(|_| Selector::nothing())
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(budget) = self.budgets.store().get(&key) else { return Ok(Action::Done) };
        let selector = selector(&budget);
        let mut matching = self.pods.store().list_namespace(&key.namespace);
        matching.retain(|pod| selector.matches(meta::labels(&pod.metadata)));
        if matching.is_empty() {
            self.recorder.object_event(&*budget, EventType::Normal, "NoPods", "No matching pods found");
        }
        let now = self.clock.now();
        for pod in plan::not_deleted(&budget, &matching, now) {
            let namespace = &key.namespace;
            // As upstream's buildDisruptedPodMap: the namespace stands in for the name, too.
            let message =
                format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't");
            self.recorder.object_event(&*pod, EventType::Warning, "NotDeleted", message);
        }
        let expected = if plan::needs_scale(&budget) {
            self.scales.expected(&matching).await
        } else {
            Ok(scale::Expected::default())
        };
        let (status, recheck) = match expected {
            Ok(expected) => {
                if !expected.unmanaged.is_empty() {
                    let shown = plan::selector_as_shown(&budget);
                    let message = format!(
                        "Pods selected by this PodDisruptionBudget (selector: {shown}) were found to be unmanaged. \
                         As a result, the status of the PDB cannot be calculated correctly, which may result in \
                         undefined behavior. To account for these pods please set \".spec.minAvailable\" field of \
                         the PDB to an integer value."
                    );
                    self.recorder.object_event(&*budget, EventType::Warning, "UnmanagedPods", message);
                }
                plan::status(&budget, &matching, expected.count, now)
            }
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error:#}");
                let reason = "CalculateExpectedPodCountFailed";
                self.recorder.object_event(&*budget, EventType::Warning, reason, message);
                (plan::failed(&budget, &format!("{error:#}"), now), None)
            }
        };
        if !budget.status.as_ref().is_some_and(|before| plan::same_status(before, &status)) {
            let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
            let changed = PodDisruptionBudget { status: Some(status), ..PodDisruptionBudget::clone(&budget) };
            api.replace_status(&key.name, &PostParams::default(), &changed).await.ignore_not_found()?;
        }
        Ok(recheck.map_or(Action::Done, Action::RequeueAfter))
    }
}
