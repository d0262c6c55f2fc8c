//! Mirror pods: what the API shows of static pods.

use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::pods::{CONFIG_HASH, CONFIG_MIRROR};
use crate::types;

/// Makes and removes mirror pods. Best effort: the static pod runs all the same.
#[derive(Clone)]
pub struct Mirrors {
    client: Client,
    node_name: String,
}

impl Mirrors {
    /// Mirrors on the node of this name.
    #[must_use]
    pub fn new(client: Client, node_name: String) -> Self {
        Self { client, node_name }
    }

    /// Makes sure that `pod` has a mirror that shows it as it is; `mirror` is the one the API has.
    pub async fn ensure(&self, pod: &Pod, mirror: Option<&Pod>) {
        if let Some(mirror) = mirror {
            let current = types::annotation(mirror, CONFIG_MIRROR) == types::annotation(pod, CONFIG_HASH);
            if current && mirror.metadata.deletion_timestamp.is_none() {
                return;
            }
            self.delete(mirror).await;
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let owner = match nodes.get(&self.node_name).await {
            Ok(node) => node.metadata.uid,
            Err(error) => {
                tracing::debug!(error = client::chain(&error), "no mirror pod without the node");
                return;
            }
        };
        let wanted = mirror_of(pod, &self.node_name, owner);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), types::namespace(pod));
        match api.create(&PostParams::default(), &wanted).await {
            Ok(_) => {}
            Err(error) if client::is_already_exists(&error) => {}
            Err(error) => {
                let error = client::chain(&error);
                tracing::warn!(pod = types::format_pod(pod), error, "failed creating a mirror pod");
            }
        }
    }

    /// Removes a mirror at once.
    pub async fn delete(&self, mirror: &Pod) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), types::namespace(mirror));
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(types::name(mirror), &parameters).await {
            Ok(_) => tracing::info!(pod = types::format_pod(mirror), "deleted a mirror pod"),
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
            Err(error) => {
                let error = client::chain(&error);
                tracing::warn!(pod = types::format_pod(mirror), error, "failed deleting a mirror pod");
            }
        }
    }
}

/// The API's picture of a static pod.
fn mirror_of(pod: &Pod, node_name: &str, node_uid: Option<String>) -> Pod {
    let mut mirror = pod.clone();
    let hash = types::annotation(pod, CONFIG_HASH).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(CONFIG_MIRROR.to_owned(), hash);
    mirror.metadata.uid = None;
    mirror.metadata.resource_version = None;
    mirror.metadata.owner_references = node_uid.map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node_name.to_owned(),
            uid,
            controller: Some(true),
            block_owner_deletion: None,
        }]
    });
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_carries_the_hash_and_belongs_to_the_node() {
        let pod: Pod = serde_saphyr::from_str(
            "metadata: {name: web-n1, namespace: kube-system, uid: abc, annotations: {kubernetes.io/config.hash: abc}}",
        )
        .expect("valid");
        let mirror = mirror_of(&pod, "n1", Some("node-uid".into()));
        assert_eq!(types::annotation(&mirror, CONFIG_MIRROR), Some("abc"));
        assert_eq!(mirror.metadata.uid, None);
        let owner = &mirror.metadata.owner_references.expect("set")[0];
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()),
            ("Node", "n1", "node-uid")
        );
    }
}
