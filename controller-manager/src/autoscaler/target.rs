//! What an autoscaler scales: any kind with the subresource `scale`.

use crate::common::{discovery, errors};
use client::kube::api::PostParams;
use client::kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use client::{Api, Client, kube};
use k8s_openapi::api::autoscaling::v1::Scale;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Kinds that every cluster has.
const KNOWN: [(&str, &str, &str); 4] = [
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("apps", "v1", "StatefulSet"),
    ("", "v1", "ReplicationController"),
];

/// Finds resources by group and kind, and remembers them.
#[derive(Clone)]
pub struct Targets {
    client: Client,
    seen: Arc<Mutex<HashMap<(String, String), ApiResource>>>,
}

/// The group in an API version. The error is what upstream's ParseGroupVersion says.
pub fn group_of(api_version: &str) -> Result<&str, String> {
    match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [_] => Ok(""),
        [group, _] => Ok(group),
        _ => Err(format!("unexpected GroupVersion string: {api_version}")),
    }
}

impl Targets {
    /// Asks through `client`.
    pub fn new(client: Client) -> Self {
        let resource = |(group, version, kind): (&str, &str, &str)| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            ((group.to_owned(), kind.to_owned()), resource)
        };
        let seen = KNOWN.into_iter().map(resource).collect();
        Self { client, seen: Arc::new(Mutex::new(seen)) }
    }

    /// The resource of a kind, in the version that its group prefers.
    pub async fn resource(&self, group: &str, kind: &str) -> Result<ApiResource, String> {
        let key = (group.to_owned(), kind.to_owned());
        if let Some(resource) = self.seen.lock().get(&key) {
            return Ok(resource.clone());
        }
        let discovered = discovery::discover(&self.client).await.map_err(|error| errors::message(&error))?;
        let mut resources = discovered.resources.into_iter().map(|resource| resource.api);
        let found = resources.find(|resource| resource.group == group && resource.kind == kind);
        let found = found.ok_or_else(|| format!("no matches for kind \"{kind}\" in group \"{group}\""))?;
        self.seen.lock().insert(key, found.clone());
        Ok(found)
    }

    /// The scale of an object.
    pub async fn scale(
        &self,
        namespace: &str,
        resource: &ApiResource,
        name: &str,
    ) -> Result<Scale, kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let scale = api.get_scale(name).await;
        if scale.as_ref().is_err_and(client::is_not_found) {
            // The definition may be another one by now.
            let known =
                KNOWN.iter().any(|(group, _, kind)| *group == resource.group && *kind == resource.kind);
            if !known {
                self.seen.lock().remove(&(resource.group.clone(), resource.kind.clone()));
            }
        }
        scale
    }

    /// Asks for so many replicas; again with a newer version when somebody else was faster.
    pub async fn rescale(
        &self,
        namespace: &str,
        resource: &ApiResource,
        mut scale: Scale,
        replicas: i32,
    ) -> Result<(), kube::Error> {
        const ATTEMPTS: usize = 5;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let name = scale.metadata.name.clone().unwrap_or_default();
        let mut attempt = 1;
        loop {
            scale.spec.get_or_insert_default().replicas = Some(replicas);
            match api.replace_scale(&name, &PostParams::default(), &scale).await {
                Err(error) if errors::is_conflict(&error) && attempt < ATTEMPTS => {
                    scale = api.get_scale(&name).await?;
                    attempt += 1;
                }
                outcome => return outcome.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_versions() {
        assert_eq!(group_of("v1"), Ok(""));
        assert_eq!(group_of("apps/v1"), Ok("apps"));
        assert_eq!(group_of("a/b/c"), Err("unexpected GroupVersion string: a/b/c".to_owned()));
    }
}
