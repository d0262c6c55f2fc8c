//! Which ConfigMaps and Secrets a pod's spec names.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec, Volume};

/// Names in the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets, those for pulling images included.
    pub secrets: BTreeSet<String>,
}

/// What `pod` names.
#[must_use]
pub fn references(pod: &Pod) -> References {
    let mut found = References::default();
    let Some(spec) = &pod.spec else { return found };
    environment(spec, &mut found);
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut found);
    }
    found.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
    found.secrets.remove("");
    found.config_maps.remove("");
    found
}

fn environment(spec: &PodSpec, found: &mut References) {
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        of_env(container.env.iter().flatten(), container.env_from.iter().flatten(), found);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        of_env(container.env.iter().flatten(), container.env_from.iter().flatten(), found);
    }
}

fn of_env<'a>(
    env: impl Iterator<Item = &'a EnvVar>,
    from: impl Iterator<Item = &'a EnvFromSource>,
    found: &mut References,
) {
    for source in env.filter_map(|variable| variable.value_from.as_ref()) {
        found.config_maps.extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
        found.secrets.extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
    }
    for source in from {
        found.config_maps.extend(source.config_map_ref.iter().map(|map| map.name.clone()));
        found.secrets.extend(source.secret_ref.iter().map(|secret| secret.name.clone()));
    }
}

fn of_volume(volume: &Volume, found: &mut References) {
    found.config_maps.extend(volume.config_map.iter().map(|map| map.name.clone()));
    found.secrets.extend(volume.secret.iter().filter_map(|secret| secret.secret_name.clone()));
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        found.config_maps.extend(source.config_map.iter().map(|map| map.name.clone()));
        found.secrets.extend(source.secret.iter().map(|secret| secret.name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_names_an_object_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": "Pod", "spec": {
            "imagePullSecrets": [{"name": "s-pull"}],
            "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c-init", "key": "k"}}}]}],
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s-from"}}, {"configMapRef": {"name": "c-from"}}]}],
            "ephemeralContainers": [{"name": "e", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s-eph", "key": "k"}}}]}],
            "volumes": [
                {"name": "a", "configMap": {"name": "c-vol"}}, {"name": "b", "secret": {"secretName": "s-vol"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "c-proj"}}, {"secret": {"name": "s-proj"}}]}}
            ]
        }})).unwrap();
        let found = references(&pod);
        assert_eq!(
            found.config_maps.into_iter().collect::<Vec<_>>(),
            ["c-from", "c-init", "c-proj", "c-vol"]
        );
        assert_eq!(
            found.secrets.into_iter().collect::<Vec<_>>(),
            ["s-eph", "s-from", "s-proj", "s-pull", "s-vol"]
        );
    }
}
