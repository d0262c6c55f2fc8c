//! ResourceQuotas: adds up what a namespace uses. Admission compares; this keeps the sums right.
//!
//! `usage.rs` adds up. As upstream's pkg/controller/resourcequota.

mod usage;

use crate::clock::Clock;
use crate::common::errors::IgnoreGone;
use crate::common::{discovery, meta};
use crate::context::Context;
use api::pod::Resources;
use api::quantity::Quantity;
use api::quota::{Counted, Devices};
use client::controller::Action;
use client::informer::PartialObject;
use client::kube::api::{DynamicObject, ListParams, PostParams};
use client::kube::core::ApiResource;
use client::{Api, Client, Event, Informer, Object, ObjectKey, SharedInformerFactory, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

struct Controller {
    client: Client,
    clock: Clock,
    informers: SharedInformerFactory,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    device_claims: Informer<ResourceClaim>,
    device_classes: Informer<DeviceClass>,
    /// Resources whose objects are only counted, by `resource.group`. Caches of them say when one goes.
    counted: Mutex<HashMap<String, ApiResource>>,
    queue: WorkQueue<ObjectKey>,
    resync: Duration,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (quotas, pods) = (cx.informer::<ResourceQuota>(), cx.pods());
    let (services, claims) = (cx.informer::<Service>(), cx.informer::<PersistentVolumeClaim>());
    let queue = WorkQueue::new("resourcequota_primary");
    let keys = queue.clone();
    // Admission writes the status too: an answer to that from a cache that is behind would take back what it counted.
    quotas.subscribe(move |event| match event {
        Event::Updated { old, new } if limits(old) == limits(new) => {}
        _ => keys.add(meta::key(&event.object().metadata)),
    });
    let clock = cx.config.clock;
    follow(&pods, &quotas, &queue, move |old, new| usage::frees_pod(old, new, clock.now()));
    follow(&services, &quotas, &queue, usage::frees_service);
    follow(&claims, &quotas, &queue, usage::frees_claim);
    let (device_claims, device_classes) = (cx.informer::<ResourceClaim>(), cx.informer::<DeviceClass>());
    follow(&device_claims, &quotas, &queue, |_, _| false);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        informers: cx.informers.clone(),
        counted: Mutex::default(),
        queue: queue.clone(),
        resync: cx.config.flags.resource_quota_sync_period,
        quotas: quotas.clone(),
        pods: pods.clone(),
        services: services.clone(),
        claims: claims.clone(),
        device_claims: device_claims.clone(),
        device_classes: device_classes.clone(),
    });
    let client = cx.client.clone();
    let synced = async move {
        // A server may do without devices; the rest is counted there, too.
        if discovery::is_served(&client, "resource.k8s.io/v1", "resourceclaims").await {
            device_claims.synced().await;
        }
        if discovery::is_served(&client, "resource.k8s.io/v1", "deviceclasses").await {
            device_classes.synced().await;
        }
        quotas.synced().await;
        pods.synced().await;
        services.synced().await;
        claims.synced().await;
    };
    cx.work("resourcequota-controller", queue, cx.config.concurrent.quotas, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn limits(quota: &ResourceQuota) -> Resources {
    api::pod::read(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

/// What goes, or frees some of what it uses, wakes the quotas of its namespace. What comes was counted by admission.
fn follow<K: Object>(
    objects: &Informer<K>,
    quotas: &Informer<ResourceQuota>,
    queue: &WorkQueue<ObjectKey>,
    frees: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) {
    let (quotas, queue) = (quotas.clone(), queue.clone());
    objects.subscribe(move |event| {
        let woken = match event {
            Event::Added(_) => false,
            Event::Updated { old, new } => frees(old, new),
            Event::Deleted(_) => true,
        };
        if woken {
            wake(&quotas, &queue, meta::namespace(event.object().meta()));
        }
    });
}

fn wake(quotas: &Informer<ResourceQuota>, queue: &WorkQueue<ObjectKey>, namespace: &str) {
    let here = quotas.store().list_namespace(namespace);
    here.iter().for_each(|quota| queue.add(meta::key(&quota.metadata)));
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(quota) = self.quotas.store().get(&key) else { return Ok(Action::Done) };
        let hard = limits(&quota);
        let mut used: BTreeMap<String, Quantity> = BTreeMap::new();
        let namespace = key.namespace.as_str();
        self.add_up(&quota, &hard, namespace, &mut used);
        if usage::has_no_scopes(&quota) {
            for name in hard.keys().filter_map(|name| usage::counted_resource(name)) {
                if let Some(resource) = self.counted(&name).await? {
                    let count = self.count(&resource, namespace).await?;
                    usage::count(&name, count, &mut used);
                }
            }
        }
        // Only what is limited is reported, and what is limited is always reported.
        let used: BTreeMap<_, _> =
            hard.keys().map(|name| (name.clone(), used.remove(name).unwrap_or_default())).collect();
        self.write(&key, &quota, &used).await?;
        Ok(Action::RequeueAfter(self.resync))
    }

    /// Adds up the objects that use more than their own place.
    fn add_up(
        &self,
        quota: &ResourceQuota,
        hard: &Resources,
        namespace: &str,
        used: &mut BTreeMap<String, Quantity>,
    ) {
        let now = self.clock.now();
        let pods = self.pods.store().list_namespace(namespace);
        usage::sum(quota, hard, pods.iter().map(|pod| Counted::Pod(Cow::Borrowed(&**pod))), now, used);
        let services = self.services.store().list_namespace(namespace);
        let counted = services.iter().map(|service| Counted::Service(Cow::Borrowed(&**service)));
        usage::sum(quota, hard, counted, now, used);
        let claims = self.claims.store().list_namespace(namespace);
        usage::sum(
            quota,
            hard,
            claims.iter().map(|claim| Counted::Claim(Cow::Borrowed(&**claim))),
            now,
            used,
        );
        let claims = self.device_claims.store().list_namespace(namespace);
        let names = usage::extended_names(&self.device_classes.store().list());
        let counted = claims.iter().map(|claim| {
            let pod = |name: &str| self.pods.store().get(&ObjectKey::new(namespace, name));
            let charged = usage::charged_to_pod(claim, &claims, pod, now);
            Counted::Devices(Devices::named(claim, names.clone(), charged))
        });
        usage::sum(quota, hard, counted, now, used);
    }

    /// How many objects there are, said by the server: a cache may be behind the quota, and nothing would tell later
    /// that an object was missed.
    async fn count(&self, resource: &ApiResource, namespace: &str) -> anyhow::Result<usize> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, resource);
        let first = api.list_metadata(&ListParams::default().limit(1)).await?;
        let rest = first.metadata.remaining_item_count.unwrap_or_default();
        Ok(first.items.len() + usize::try_from(rest).unwrap_or_default())
    }

    /// The resource called `resource.group`; `None` when there is none. From now on an object of it that goes wakes the
    /// quotas of its namespace.
    async fn counted(&self, name: &str) -> anyhow::Result<Option<ApiResource>> {
        if let Some(known) = self.counted.lock().get(name) {
            return Ok(Some(known.clone()));
        }
        let discovered = discovery::discover(&self.client).await?;
        let named = |resource: &&discovery::Resource| {
            resource.namespaced && resource.supports(&["list", "watch"]) && resource.group_resource() == name
        };
        let Some(resource) = discovered.resources.iter().find(named) else { return Ok(None) };
        let mut counted = self.counted.lock();
        let known = counted.entry(name.to_owned()).or_insert_with(|| {
            let informer: Informer<PartialObject> = self.informers.dynamic_informer(&resource.api);
            let (quotas, queue) = (self.quotas.clone(), self.queue.clone());
            informer.subscribe(move |event| {
                if matches!(event, Event::Deleted(_)) {
                    wake(&quotas, &queue, meta::namespace(&event.object().metadata));
                }
            });
            resource.api.clone()
        });
        Ok(Some(known.clone()))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        quota: &ResourceQuota,
        used: &BTreeMap<String, Quantity>,
    ) -> anyhow::Result<()> {
        let before = quota.status.clone().unwrap_or_default();
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        let read = api::pod::read;
        if read(before.hard.as_ref()) == read(hard.as_ref()) && read(before.used.as_ref()) == *used {
            return Ok(());
        }
        let used = used.iter().map(|(name, amount)| (name.clone(), amount.into())).collect();
        let changed =
            ResourceQuota { status: Some(ResourceQuotaStatus { hard, used: Some(used) }), ..quota.clone() };
        let quotas: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
        quotas.replace_status(&key.name, &PostParams::default(), &changed).await.ignore_not_found()?;
        Ok(())
    }
}
