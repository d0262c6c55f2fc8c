//! Namespaces: when one is deleted, everything in it goes, pods first, and then the namespace itself.
//!
//! `content.rs` deletes, `conditions.rs` says what is left. As upstream's pkg/controller/namespace.

mod conditions;
mod content;

use crate::clock::Clock;
use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::Context;
use client::controller::Action;
use client::kube::api::PostParams;
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue, kube};
use k8s_openapi::api::core::v1::Namespace;
use std::sync::Arc;
use std::time::Duration;

/// The finalizer in `spec.finalizers` that this controller answers for.
const FINALIZER: &str = "kubernetes";

struct Controller {
    client: Client,
    clock: Clock,
    namespaces: Informer<Namespace>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let namespaces = cx.informer::<Namespace>();
    let queue = WorkQueue::new("namespace");
    let keys = queue.clone();
    namespaces.subscribe(move |event| match event {
        Event::Added(namespace) | Event::Updated { new: namespace, .. }
            if meta::is_deleting(&namespace.metadata) =>
        {
            keys.add(meta::key(&namespace.metadata));
        }
        _ => {}
    });
    wake_when_pods_are_gone(cx, &namespaces, &queue);
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        clock: cx.config.clock,
        namespaces: namespaces.clone(),
    });
    let synced = async move { namespaces.synced().await };
    cx.work("namespace-controller", queue, cx.config.concurrent.namespaces, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

/// Pods take their grace time; the last one to go wakes the namespace at once, instead of after an estimate.
fn wake_when_pods_are_gone(cx: &Context, namespaces: &Informer<Namespace>, queue: &WorkQueue<ObjectKey>) {
    let (namespaces, pods, queue) = (namespaces.clone(), cx.pods(), queue.clone());
    let store = pods.clone();
    pods.subscribe(move |event| {
        let Event::Deleted(pod) = event else { return };
        let name = meta::namespace(&pod.metadata);
        let key = ObjectKey::new("", name);
        let deleting =
            namespaces.store().get(&key).is_some_and(|namespace| meta::is_deleting(&namespace.metadata));
        if deleting && store.store().list_namespace(name).is_empty() {
            queue.add(key);
        }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        if !self.namespaces.store().get(&key).is_some_and(|namespace| meta::is_deleting(&namespace.metadata))
        {
            return Ok(Action::Done);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let Some(mut namespace) = api.get_opt(&key.name).await? else { return Ok(Action::Done) };
        if !meta::is_deleting(&namespace.metadata) {
            return Ok(Action::Done);
        }
        if namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
            let written = api.replace_status(&key.name, &PostParams::default(), &namespace).await;
            let Some(written) = written.ignore_not_found()? else { return Ok(Action::Done) };
            namespace = written;
        }
        if is_finalized(&namespace) {
            return Ok(Action::Done);
        }
        let left = content::delete_all(&self.client, &namespace, self.clock.now()).await?;
        let status = conditions::with(&namespace, &left, self.clock.now());
        if status != namespace.status {
            namespace.status = status;
            let written = api.replace_status(&key.name, &PostParams::default(), &namespace).await;
            let Some(written) = written.ignore_not_found()? else { return Ok(Action::Done) };
            namespace = written;
        }
        if let Some(error) = left.error() {
            anyhow::bail!(error);
        }
        if left.is_empty() {
            finalize(&self.client, namespace).await?;
            return Ok(Action::Done);
        }
        // Half the estimate, as upstream; the end of the last pod is noticed earlier.
        Ok(Action::RequeueAfter(Duration::from_secs(left.estimate / 2 + 1)))
    }
}

fn is_finalized(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref());
    finalizers.is_none_or(|finalizers| !finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

/// Takes this controller's finalizer off, by the subresource made for it.
async fn finalize(client: &Client, mut namespace: Namespace) -> Result<(), kube::Error> {
    let name = meta::name(&namespace.metadata).to_owned();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let api: Api<Namespace> = Api::all(client.clone());
    api.replace_subresource("finalize", &name, &PostParams::default(), &namespace)
        .await
        .ignore_not_found()
        .map(drop)
}
