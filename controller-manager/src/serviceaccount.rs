//! Every namespace has a ServiceAccount called `default`. As upstream's serviceaccounts_controller.go.

use crate::common::errors;
use crate::common::meta;
use crate::context::{Context, enqueue_all};
use client::controller::Action;
use client::kube::api::PostParams;
use client::{Api, Event, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAME: &str = "default";

/// Starts the controller.
pub fn start(cx: &Context) {
    let (namespaces, accounts) = (cx.informer::<Namespace>(), cx.informer::<ServiceAccount>());
    let queue = WorkQueue::new("serviceaccount");
    enqueue_all(&namespaces, &queue);
    let keys = queue.clone();
    accounts.subscribe(move |event| {
        if let Event::Deleted(account) = event
            && meta::name(&account.metadata) == NAME
        {
            keys.add(ObjectKey::new("", meta::namespace(&account.metadata)));
        }
    });
    let (client, synced) = (cx.client.clone(), (namespaces.clone(), accounts.clone()));
    let synced = async move {
        synced.0.synced().await;
        synced.1.synced().await;
    };
    cx.work("serviceaccount-controller", queue, 1, synced, move |key| {
        let (client, namespaces, accounts) = (client.clone(), namespaces.clone(), accounts.clone());
        async move {
            let namespace = namespaces.store().get(&key);
            let there = accounts.store().get(&ObjectKey::new(key.name.as_str(), NAME)).is_some();
            if there || !namespace.is_some_and(|namespace| is_active(&namespace)) {
                return Ok(Action::Done);
            }
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(key.name.clone()),
                ..Default::default()
            };
            let account = ServiceAccount { metadata, ..Default::default() };
            let api: Api<ServiceAccount> = Api::namespaced(client, &key.name);
            match api.create(&PostParams::default(), &account).await {
                Err(error)
                    if !errors::is_already_exists(&error) && !errors::is_namespace_terminating(&error) =>
                {
                    Err(error.into())
                }
                _ => Ok(Action::Done),
            }
        }
    });
}

/// Whether things can be created in the namespace.
pub fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    !meta::is_deleting(&namespace.metadata) && phase != Some("Terminating")
}
