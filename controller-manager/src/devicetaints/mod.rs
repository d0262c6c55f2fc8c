//! Evicts pods that use devices with NoExecute taints that their claims do not tolerate, or no longer. As upstream's
//! pkg/controller/devicetainteviction, without DeviceTaintRules and pod groups, which upstream has behind gates.
//!
//! A key is a pod. Since when a device is tainted is in its slice, so nothing is remembered here but which pods wait
//! for their eviction, to say so when it is called off.

mod plan;

use crate::clock::Clock;
use crate::common::disruption::{self, Reason};
use crate::common::errors::IgnoreGone;
use crate::common::{meta, pods};
use crate::context::{Context, with};
use crate::resourceclaim::plan as claims;
use client::controller::Action;
use client::events::{EventRecorder, EventType, reference};
use client::kube::api::{DeleteParams, Preconditions};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "device-taint-eviction-controller";
/// Slices, and claims with devices, by driver and pool.
const BY_POOL: &str = "pool of devices";
const REASON: Reason = Reason {
    reason: "DeletionByDeviceTaintManager",
    message: "Device Taint manager: deleting due to NoExecute taint",
};

struct Controller {
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    /// The pods that are to be evicted later, by UID.
    waiting: Mutex<HashMap<ObjectKey, String>>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (pods, claims, slices) = (cx.pods(), cx.informer::<ResourceClaim>(), cx.informer::<ResourceSlice>());
    slices.add_index(BY_POOL, |slice| vec![pool(&slice.spec.driver, &slice.spec.pool.name)]);
    claims.add_index(BY_POOL, |claim| {
        let pools = plan::allocated(claim).iter().map(|given| pool(&given.driver, &given.pool));
        pools.collect::<BTreeSet<_>>().into_iter().collect()
    });
    let queue = WorkQueue::new(NAME);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        recorder: cx.recorder(NAME),
        pods: pods.clone(),
        claims: claims.clone(),
        slices: slices.clone(),
        waiting: Mutex::default(),
    });
    controller.subscribe(&queue);
    let synced = async move {
        pods.synced().await;
        claims.synced().await;
        slices.synced().await;
    };
    let reconcile = |controller: Arc<Controller>, key| async move { controller.reconcile(key).await };
    cx.work(NAME, queue, cx.config.concurrent.device_taints, synced, with(&controller, reconcile));
}

fn pool(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

/// Whether a pod may have come into or out of the reach of a taint. What is said on a pod that is being evicted does
/// not wake it again.
fn matters(event: &Event<Pod>) -> bool {
    let claims = |pod: &Pod| pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
    match event {
        Event::Updated { old, new } => {
            old.metadata.uid != new.metadata.uid
                || pods::node_name(old) != pods::node_name(new)
                || claims(old) != claims(new)
        }
        _ => true,
    }
}

fn enqueue_consumers(claim: &ResourceClaim, queue: &WorkQueue<ObjectKey>) {
    let namespace = meta::namespace(&claim.metadata);
    plan::consumers(claim).for_each(|(name, _)| queue.add(ObjectKey::new(namespace, name)));
}

impl Controller {
    fn subscribe(&self, queue: &WorkQueue<ObjectKey>) {
        let keys = queue.clone();
        self.pods.subscribe(move |event| {
            if matters(event) && !claims::claims_of(event.object()).is_empty() {
                keys.add(meta::key(&event.object().metadata));
            }
        });
        let keys = queue.clone();
        self.claims.subscribe(move |event| {
            for claim in crate::context::states(event) {
                if !plan::allocated(claim).is_empty() {
                    enqueue_consumers(claim, &keys);
                }
            }
        });
        let (keys, claims, slices) = (queue.clone(), self.claims.clone(), self.slices.clone());
        self.slices.subscribe(move |event| {
            if let Event::Updated { old, new } = event
                && old.spec == new.spec
            {
                return;
            }
            let slice = event.object();
            let pool = pool(&slice.spec.driver, &slice.spec.pool.name);
            // A new generation can hide the taints of another slice, and the end of one can bring them back.
            let others = slices.store().indexed(BY_POOL, &pool);
            let tainted =
                crate::context::states(event).into_iter().chain(&others).any(|s| plan::is_tainted(s));
            if tainted {
                for claim in claims.store().indexed(BY_POOL, &pool) {
                    enqueue_consumers(&claim, &keys);
                }
            }
        });
    }

    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let pod = self.pods.store().get(&key).filter(|pod| !meta::is_deleting(&pod.metadata));
        let Some(pod) = pod else {
            self.waiting.lock().remove(&key);
            return Ok(Action::Done);
        };
        let claim = |name: &str| self.claims.store().get(&ObjectKey::new(key.namespace.as_str(), name));
        let slices = |driver: &str, name: &str| self.slices.store().indexed(BY_POOL, &pool(driver, name));
        let Some(at) = plan::eviction(&pod, claim, slices) else {
            if self.waiting.lock().remove(&key).is_some_and(|uid| uid == meta::uid(&pod.metadata)) {
                self.say(&pod, "Cancelling deletion");
            }
            return Ok(Action::Done);
        };
        self.waiting.lock().insert(key.clone(), meta::uid(&pod.metadata).to_owned());
        match Duration::try_from(at.duration_since(self.clock.now())) {
            Ok(left) if !left.is_zero() => Ok(Action::RequeueAfter(left)),
            _ => self.evict(&key, &pod, at).await,
        }
    }

    /// Deletes exactly this pod, if it is still there and nobody deletes it already.
    async fn evict(&self, key: &ObjectKey, pod: &Pod, since: Timestamp) -> anyhow::Result<Action> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let live = api.get_opt(&key.name).await?;
        let wanted =
            live.filter(|live| live.metadata.uid == pod.metadata.uid && !meta::is_deleting(&live.metadata));
        if let Some(pod) = wanted {
            self.say(&pod, "Marking for deletion");
            if disruption::mark(&self.client, &pod, Some(REASON), false, self.clock.now()).await? {
                let exactly = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
                if api.delete(&key.name, &params).await.ignore_gone()?.is_some() {
                    let late = self.clock.now().duration_since(since).as_secs_f64();
                    metrics::counter!("device_taint_eviction_controller_pod_deletions_total").increment(1);
                    metrics::histogram!("device_taint_eviction_controller_pod_deletion_duration_seconds")
                        .record(late);
                }
            }
        }
        self.waiting.lock().remove(key);
        Ok(Action::Done)
    }

    fn say(&self, pod: &Pod, what: &str) {
        self.recorder.event(&reference(pod), EventType::Normal, "DeviceTaintManagerEviction", what);
    }
}
