//! Pods as far as authorization needs them: where they run and what they refer to. A tenth of a whole pod in memory.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

/// The kinds of objects a pod refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A pod.
    Pod,
    /// A secret.
    Secret,
    /// A config map.
    ConfigMap,
    /// A persistent volume claim.
    Claim,
    /// A service account.
    ServiceAccount,
    /// A resource claim.
    ResourceClaim,
}

/// A pod, reduced.
#[derive(Clone, Debug, Default)]
pub struct SlimPod {
    /// Name, namespace, UID, resourceVersion, deletion timestamp.
    pub metadata: ObjectMeta,
    /// Where it runs; empty if nowhere yet.
    pub node: Box<str>,
    /// What it refers to, in its own namespace.
    pub references: Box<[(Kind, Box<str>)]>,
}

impl kube::Resource for SlimPod {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    annotations: Option<WireAnnotations>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireAnnotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WirePod {
    metadata: WireMeta,
    spec: Option<WireSpec>,
    status: Option<WireStatus>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    node_name: String,
    service_account_name: String,
    image_pull_secrets: Option<Vec<Named>>,
    containers: Option<Vec<WireContainer>>,
    init_containers: Option<Vec<WireContainer>>,
    ephemeral_containers: Option<Vec<WireContainer>>,
    volumes: Option<Vec<WireVolume>>,
    resource_claims: Option<Vec<ResourceClaimReference>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    resource_claim_statuses: Option<Vec<ResourceClaimReference>>,
    extended_resource_claim_status: Option<ResourceClaimReference>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ResourceClaimReference {
    resource_claim_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireContainer {
    env: Option<Vec<WireEnv>>,
    env_from: Option<Vec<WireEnvFrom>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireEnv {
    value_from: Option<WireValueFrom>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireValueFrom {
    secret_key_ref: Option<Named>,
    config_map_key_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireEnvFrom {
    secret_ref: Option<Named>,
    config_map_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireVolume {
    name: String,
    secret: Option<SecretVolume>,
    azure_file: Option<SecretVolume>,
    config_map: Option<Named>,
    projected: Option<Projected>,
    persistent_volume_claim: Option<ClaimVolume>,
    ephemeral: Option<serde::de::IgnoredAny>,
    cephfs: Option<WithSecret>,
    cinder: Option<WithSecret>,
    flex_volume: Option<WithSecret>,
    rbd: Option<WithSecret>,
    #[serde(rename = "scaleIO")]
    scale_io: Option<WithSecret>,
    iscsi: Option<WithSecret>,
    storageos: Option<WithSecret>,
    csi: Option<WithSecret>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SecretVolume {
    secret_name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClaimVolume {
    claim_name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WithSecret {
    #[serde(alias = "nodePublishSecretRef")]
    secret_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Projected {
    sources: Option<Vec<ProjectedSource>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ProjectedSource {
    secret: Option<Named>,
    config_map: Option<Named>,
}

impl<'de> Deserialize<'de> for SlimPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(WirePod::deserialize(deserializer)?.reduce())
    }
}

impl WirePod {
    fn reduce(self) -> SlimPod {
        let meta = self.metadata;
        let spec = self.spec.unwrap_or_default();
        let mirror = meta.annotations.is_some_and(|annotations| annotations.mirror.is_some());
        let node: Box<str> = spec.node_name.as_str().into();
        let pod_name = meta.name.clone().unwrap_or_default();
        // A mirror pod gives its node no access to anything: nodes make them themselves.
        let mut references =
            if mirror { Vec::new() } else { spec.references(&pod_name, self.status.unwrap_or_default()) };
        references.retain(|(_, name)| !name.is_empty());
        references.sort_unstable();
        references.dedup();
        SlimPod {
            metadata: ObjectMeta {
                name: meta.name,
                namespace: meta.namespace,
                uid: meta.uid,
                resource_version: meta.resource_version,
                deletion_timestamp: meta.deletion_timestamp,
                ..ObjectMeta::default()
            },
            node,
            references: references.into(),
        }
    }
}

impl WireSpec {
    fn references(self, pod: &str, status: WireStatus) -> Vec<(Kind, Box<str>)> {
        let mut out: Vec<(Kind, Box<str>)> = vec![(Kind::ServiceAccount, self.service_account_name.into())];
        let mut add = |kind: Kind, name: String| out.push((kind, name.into()));
        for secret in self.image_pull_secrets.into_iter().flatten() {
            add(Kind::Secret, secret.name);
        }
        let containers = [self.containers, self.init_containers, self.ephemeral_containers];
        for container in containers.into_iter().flatten().flatten() {
            for from in container.env.into_iter().flatten().filter_map(|env| env.value_from) {
                from.secret_key_ref.into_iter().for_each(|named| add(Kind::Secret, named.name));
                from.config_map_key_ref.into_iter().for_each(|named| add(Kind::ConfigMap, named.name));
            }
            for from in container.env_from.into_iter().flatten() {
                from.secret_ref.into_iter().for_each(|named| add(Kind::Secret, named.name));
                from.config_map_ref.into_iter().for_each(|named| add(Kind::ConfigMap, named.name));
            }
        }
        for volume in self.volumes.into_iter().flatten() {
            volume.references(pod, &mut add);
        }
        let claims = self.resource_claims.into_iter().flatten();
        let claims = claims.chain(status.resource_claim_statuses.into_iter().flatten());
        for claim in claims.chain(status.extended_resource_claim_status) {
            add(Kind::ResourceClaim, claim.resource_claim_name.unwrap_or_default());
        }
        out
    }
}

impl WireVolume {
    fn references(self, pod: &str, add: &mut impl FnMut(Kind, String)) {
        for secret in [self.secret, self.azure_file].into_iter().flatten() {
            add(Kind::Secret, secret.secret_name);
        }
        self.config_map.into_iter().for_each(|named| add(Kind::ConfigMap, named.name));
        for source in self.projected.and_then(|projected| projected.sources).into_iter().flatten() {
            source.secret.into_iter().for_each(|named| add(Kind::Secret, named.name));
            source.config_map.into_iter().for_each(|named| add(Kind::ConfigMap, named.name));
        }
        if let Some(claim) = self.persistent_volume_claim {
            add(Kind::Claim, claim.claim_name);
        } else if self.ephemeral.is_some() {
            add(Kind::Claim, format!("{pod}-{}", self.name));
        }
        let with_secrets = [
            self.cephfs,
            self.cinder,
            self.flex_volume,
            self.rbd,
            self.scale_io,
            self.iscsi,
            self.storageos,
            self.csi,
        ];
        for named in with_secrets.into_iter().flatten().filter_map(|source| source.secret_ref) {
            add(Kind::Secret, named.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reference_of_a_pod_is_found() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "annotations": {"a": "b"}, "managedFields": []},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"envFrom": [{"configMapRef": {"name": "cm1"}}, {"secretRef": {"name": "s1"}}]}],
                "containers": [{"env": [
                    {"name": "a", "value": "b"},
                    {"name": "c", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                    {"name": "d", "valueFrom": {"configMapKeyRef": {"name": "cm2", "key": "k"}}},
                    {"name": "e", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
                "volumes": [
                    {"name": "v1", "secret": {"secretName": "s3"}},
                    {"name": "v2", "configMap": {"name": "cm3"}},
                    {"name": "v3", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "cm4"}}]}},
                    {"name": "v4", "persistentVolumeClaim": {"claimName": "c1"}},
                    {"name": "v5", "ephemeral": {"volumeClaimTemplate": {}}},
                    {"name": "v6", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s5"}}},
                    {"name": "v7", "emptyDir": {}}],
                "resourceClaims": [{"name": "r", "resourceClaimName": "rc1"}]}});
        let slim: SlimPod = serde_json::from_value(pod.clone()).expect("pod");
        let names = |kind: Kind| {
            slim.references.iter().filter(|(k, _)| *k == kind).map(|(_, name)| &**name).collect::<Vec<_>>()
        };
        assert_eq!(&*slim.node, "n1");
        assert_eq!(names(Kind::Secret), ["pull", "s1", "s2", "s3", "s4", "s5"]);
        assert_eq!(names(Kind::ConfigMap), ["cm1", "cm2", "cm3", "cm4"]);
        assert_eq!(names(Kind::Claim), ["c1", "p-v5"]);
        assert_eq!(names(Kind::ServiceAccount), ["sa"]);
        assert_eq!(names(Kind::ResourceClaim), ["rc1"]);

        let mut mirror = pod;
        mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
        let slim: SlimPod = serde_json::from_value(mirror).expect("pod");
        assert!(slim.references.is_empty());
    }
}
