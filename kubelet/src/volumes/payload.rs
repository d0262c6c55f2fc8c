//! The files of configMap, secret, downwardAPI and projected volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Node, Pod, ProjectedVolumeSource, Secret,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::Reason;
use super::atomic_writer::{FileProjection, Payload};
use crate::env::{object_field, resource_value};
use crate::objects::{self, Objects};

const DEFAULT_MODE: i32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// What the contents of a volume are made from.
pub struct Sources<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The node, for limits that are not set.
    pub node: Option<Arc<Node>>,
    /// ConfigMaps, Secrets and tokens.
    pub objects: &'a Objects,
}

/// Whether `volume` has contents made here, and so can change while the pod runs.
#[must_use]
pub fn is_projected(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

impl Sources<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The files of `volume`.
    pub async fn payload(&self, volume: &Volume) -> Result<Payload, Reason> {
        if let Some(source) = &volume.config_map {
            let map =
                optional(self.objects.config_map(self.namespace(), &source.name).await, source.optional)?;
            let files = map.map(|map| config_map_data(&map)).unwrap_or_default();
            return select(
                files,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
                "configmap references non-existent config key",
            );
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let secret = optional(self.objects.secret(self.namespace(), name).await, source.optional)?;
            let files = secret.map(|secret| secret_data(&secret)).unwrap_or_default();
            return select(
                files,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
                "references non-existent secret key",
            );
        }
        if let Some(source) = &volume.downward_api {
            return self.downward(source.items.as_deref().unwrap_or_default(), source.default_mode);
        }
        match &volume.projected {
            Some(source) => self.projected(source).await,
            None => Ok(Payload::new()),
        }
    }

    async fn projected(&self, source: &ProjectedVolumeSource) -> Result<Payload, Reason> {
        let mut payload = Payload::new();
        for projection in source.sources.iter().flatten() {
            payload.extend(self.projection(projection, source.default_mode).await?);
        }
        Ok(payload)
    }

    async fn projection(&self, projection: &VolumeProjection, mode: Option<i32>) -> Result<Payload, Reason> {
        if let Some(source) = &projection.config_map {
            let map =
                optional(self.objects.config_map(self.namespace(), &source.name).await, source.optional)?;
            let files = map.map(|map| config_map_data(&map)).unwrap_or_default();
            return select(
                files,
                source.items.as_deref(),
                mode,
                source.optional,
                "configmap references non-existent config key",
            );
        }
        if let Some(source) = &projection.secret {
            let secret =
                optional(self.objects.secret(self.namespace(), &source.name).await, source.optional)?;
            let files = secret.map(|secret| secret_data(&secret)).unwrap_or_default();
            return select(
                files,
                source.items.as_deref(),
                mode,
                source.optional,
                "references non-existent secret key",
            );
        }
        if let Some(source) = &projection.downward_api {
            return self.downward(source.items.as_deref().unwrap_or_default(), mode);
        }
        if let Some(source) = &projection.service_account_token {
            return self.token(source, mode).await;
        }
        Err(Reason::Text("unsupported source of a projected volume".to_owned()))
    }

    fn downward(
        &self,
        items: &[DownwardAPIVolumeFile],
        default_mode: Option<i32>,
    ) -> Result<Payload, Reason> {
        let mut payload = Payload::new();
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                object_field(&self.pod.metadata, &field.field_path).map_err(Reason::Text)?
            } else if let Some(resource) = &item.resource_field_ref {
                resource_value(resource, self.pod, None, self.node.as_deref()).map_err(Reason::Text)?
            } else {
                continue;
            };
            payload.insert(item.path.clone(), file(text.into_bytes(), item.mode.or(default_mode)));
        }
        Ok(payload)
    }

    async fn token(
        &self,
        source: &ServiceAccountTokenProjection,
        mode: Option<i32>,
    ) -> Result<Payload, Reason> {
        let metadata = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
        let audience = source.audience.clone().filter(|audience| !audience.is_empty());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.into_iter().collect()),
                expiration_seconds: Some(source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: metadata.name.clone(),
                    uid: metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let account = account.as_deref().unwrap_or("default");
        let token = self
            .objects
            .token(self.namespace(), account, &request)
            .await
            .map_err(|error| Reason::Text(format!("failed to fetch token: {error}")))?;
        let user = common_user(self.pod);
        let mut projected = file(token.into_bytes(), mode);
        // As upstream: a token with an owner or a group of its own is private to it.
        if user.is_some() || super::fs_group(self.pod).is_some() {
            projected.mode = 0o600;
        }
        projected.user = user;
        Ok(Payload::from([(source.path.clone(), projected)]))
    }
}

/// The user all containers run as, if they agree on one.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers
        .map(|container| container.security_context.as_ref().and_then(|c| c.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn optional<T>(found: Result<T, objects::Error>, optional: Option<bool>) -> Result<Option<T>, Reason> {
    match found {
        Err(error) if error.is_not_found() && optional == Some(true) => Ok(None),
        found => Ok(Some(found?)),
    }
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

fn file(data: Vec<u8>, mode: Option<i32>) -> FileProjection {
    FileProjection { data, mode: u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644), user: None }
}

/// All keys as files, or the chosen ones at their paths.
fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
    missing: &str,
) -> Result<Payload, Reason> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, file(value, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get_mut(&item.key) {
            Some(value) => {
                payload.insert(item.path.clone(), file(value.clone(), item.mode.or(mode)));
            }
            None if optional == Some(true) => {}
            None => return Err(Reason::Text(format!("{missing}: {}", item.key))),
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(payload: Result<Payload, Reason>) -> String {
        match payload {
            Ok(files) => {
                let show = |(path, file): (&String, &FileProjection)| {
                    format!("{path}={}:{:o}", String::from_utf8_lossy(&file.data), file.mode)
                };
                files.iter().map(show).collect::<Vec<_>>().join(" ")
            }
            Err(reason) => reason.to_string(),
        }
    }

    #[test]
    fn keys_are_selected_with_paths_and_modes() {
        let data = || BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        let item =
            |key: &str, path: &str, mode| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode };
        for (items, mode, optional, want) in [
            (None, None, None, "a=1:644 b=2:644"),
            (None, Some(0o400), None, "a=1:400 b=2:400"),
            (
                Some(vec![item("b", "x/y", None), item("a", "z", Some(0o600))]),
                Some(0o440),
                None,
                "x/y=2:440 z=1:600",
            ),
            (Some(vec![item("no", "x", None)]), None, None, "missing: no"),
            (Some(vec![item("no", "x", None), item("a", "a", None)]), None, Some(true), "a=1:644"),
        ] {
            assert_eq!(show(select(data(), items.as_deref(), mode, optional, "missing")), want);
        }
    }

    #[test]
    fn token_owner_is_the_user_all_containers_share() {
        for (spec, want) in [
            (serde_json::json!({"containers": [{"name": "a"}]}), None),
            (
                serde_json::json!({"securityContext": {"runAsUser": 7}, "containers": [{"name": "a"}, {"name": "b"}]}),
                Some(7),
            ),
            (
                serde_json::json!({"securityContext": {"runAsUser": 7}, "containers": [{"name": "a", "securityContext": {"runAsUser": 8}}, {"name": "b"}]}),
                None,
            ),
            (
                serde_json::json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 8}}]}),
                Some(8),
            ),
        ] {
            let pod: Pod =
                serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": "Pod", "spec": spec}))
                    .unwrap();
            assert_eq!(common_user(&pod), want);
        }
    }
}
