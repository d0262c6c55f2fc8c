//! Carries out what pods need: one write at a time for a pod, as many pods at once as there are workers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::controller::Action;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use client::object::resource_version;
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubelet::status::patch::status_patch;
use kubelet::types;
use parking_lot::Mutex;

use crate::addresses::Addresses;
use crate::node::address;
use crate::nodes::Nodes;
use crate::pod::{Durations, Place, Plan, needs_addresses, plan};
use crate::record::PodRecord;

/// The pods of all simulated nodes; clones share them.
#[derive(Clone)]
pub struct Pods {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    nodes: Nodes,
    records: Informer<PodRecord>,
    durations: Durations,
    addresses: Mutex<Addresses>,
    /// Versions that our own writes made, until the watch has brought them: what it shows from before says nothing.
    written: Mutex<HashMap<ObjectKey, u64>>,
    queue: WorkQueue<ObjectKey>,
}

impl Pods {
    /// The pods that `records` brings, on `nodes`.
    #[must_use]
    pub fn new(client: Client, nodes: Nodes, records: Informer<PodRecord>, durations: Durations) -> Self {
        let (addresses, written) = (Mutex::default(), Mutex::default());
        let queue = WorkQueue::new("simulated_pods");
        Self { inner: Arc::new(Inner { client, nodes, records, durations, addresses, written, queue }) }
    }

    /// Names of pods to look at.
    #[must_use]
    pub fn queue(&self) -> &WorkQueue<ObjectKey> {
        &self.inner.queue
    }

    /// Follows the pods.
    pub fn begin(&self) {
        let this = self.clone();
        self.inner.records.subscribe(move |event| this.observe(event));
    }

    fn observe(&self, event: &Event<PodRecord>) {
        let (inner, record) = (&self.inner, event.object());
        let Some(number) = inner.nodes.number(&record.node) else { return };
        let key = ObjectKey::of(&**record);
        let seen = resource_version(&**record);
        if let Entry::Occupied(written) = inner.written.lock().entry(key.clone())
            && *written.get() <= seen
        {
            written.remove();
        }
        match (event, record.address) {
            (Event::Deleted(_), _) => inner.addresses.lock().release(number, record.uid()),
            (_, Some(address)) => {
                let ranges = inner.nodes.ranges(number);
                inner.addresses.lock().reserve(number, record.uid(), address, &ranges);
            }
            (_, None) if record.whole.is_none() => inner.addresses.lock().release(number, record.uid()),
            (_, None) => {}
        }
        if record.whole.is_some() && !matches!(event, Event::Deleted(_)) {
            inner.queue.add(key);
        }
    }

    /// Does what a pod needs now.
    ///
    /// # Errors
    /// The API server refuses, or the node has no address left.
    pub async fn sync(&self, key: ObjectKey) -> Result<Action> {
        let inner = &self.inner;
        let Some(record) = inner.records.store().get(&key) else { return Ok(Action::Done) };
        let (Some(pod), Some(number)) = (&record.whole, inner.nodes.number(&record.node)) else {
            return Ok(Action::Done);
        };
        if inner.written.lock().contains_key(&key) {
            // What came of the last write is on its way, and brings the pod here again.
            return Ok(Action::Done);
        }
        let place = Place { node: vec![address(number)], pod: self.addresses(pod, number)? };
        let now = Timestamp::now();
        match plan(pod, &place, &inner.durations, now) {
            Plan::Rest => Ok(Action::Done),
            Plan::Later(at) => {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                Ok(Action::RequeueAfter(wait.max(Duration::from_millis(1))))
            }
            Plan::Report(status) => self.write(&key, pod, &status).await,
            Plan::Remove { last: Some(status) } => {
                self.write(&key, pod, &status).await?;
                self.remove(&key, pod).await
            }
            Plan::Remove { last: None } => self.remove(&key, pod).await,
        }
    }

    fn addresses(&self, pod: &Pod, number: u32) -> Result<Vec<std::net::IpAddr>> {
        if !needs_addresses(pod) {
            return Ok(Vec::new());
        }
        let ranges = self.inner.nodes.ranges(number);
        let taken = self.inner.addresses.lock().take(number, types::uid(pod), &ranges);
        taken.context("all addresses of the node are in use")
    }

    async fn write(&self, key: &ObjectKey, pod: &Pod, status: &PodStatus) -> Result<Action> {
        let patch = Patch::Strategic(status_patch(types::uid(pod), status, &[]));
        match self.api(key).patch_status(&key.name, &PatchParams::default(), &patch).await {
            Ok(written) => self.note(key, resource_version(&written)),
            // It is gone, or another one has its name.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
            Err(error) => return Err(error).context("write the pod's status"),
        }
        Ok(Action::Done)
    }

    async fn remove(&self, key: &ObjectKey, pod: &Pod) -> Result<Action> {
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api(key).delete(&key.name, &parameters).await {
            Ok(_) => {}
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
            Err(error) => return Err(error).context("delete the pod"),
        }
        Ok(Action::Done)
    }

    /// Remembers what a write made, unless it has been seen already.
    fn note(&self, key: &ObjectKey, version: u64) {
        let mut written = self.inner.written.lock();
        let seen = self.inner.records.store().get(key).map(|record| resource_version(&*record));
        if seen.is_some_and(|seen| seen < version) {
            written.insert(key.clone(), version);
        }
    }

    fn api(&self, key: &ObjectKey) -> Api<Pod> {
        Api::namespaced(self.inner.client.clone(), &key.namespace)
    }
}
