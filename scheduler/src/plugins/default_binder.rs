//! Binds pods to nodes through the API.

use client::k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::kube::api::PostParams;
use client::{Api, Client};
use futures::future::BoxFuture;

use crate::framework::Plugin;
use crate::pod_info::PodInfo;

/// The plugin.
pub struct DefaultBinder;

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn bind<'a>(
        &'a self,
        client: &'a Client,
        pod: &'a PodInfo,
        node: &'a str,
    ) -> Option<BoxFuture<'a, client::kube::Result<()>>> {
        Some(Box::pin(bind(client, pod, node)))
    }
}

async fn bind(client: &Client, pod: &PodInfo, node: &str) -> client::kube::Result<()> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name().to_owned()),
            namespace: Some(pod.namespace().to_owned()),
            uid: pod.pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    let parameters = PostParams::default();
    api.create_subresource::<_, serde_json::Value>("binding", pod.name(), &parameters, &binding)
        .await
        .map(drop)
}
