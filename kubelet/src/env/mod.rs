//! The environment of a container.
//!
//! Order of precedence, lowest first: service variables, `envFrom` in order, `env` in order. A value may refer to
//! what was declared before it, or to a service variable, as `$(NAME)`. Errors carry upstream's words because they
//! become the message of a container that waits in CreateContainerConfigError.

mod expand;
mod field;
mod file;
mod resource;
mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVarSource, FileKeySelector, Node, Pod, Service,
};

pub use expand::{expand, expand_strict};
pub use field::{ObjectField, format_map, object_field};
pub use resource::{defaulted_limits, resource_value};
pub use service::service_variables;

use crate::objects::{self, Objects};

/// Why a container's environment cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The services are not known yet.
    #[error("services have not yet been read at least once, cannot construct envvars")]
    ServicesNotSynced,
    /// A ConfigMap or Secret cannot be had.
    #[error(transparent)]
    Object(#[from] objects::Error),
    /// A key is missing.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    KeyNotFound {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field reference that cannot be resolved.
    #[error("{0}")]
    Field(String),
}

/// Where ConfigMaps and Secrets come from; [`Objects`] outside of tests.
#[async_trait::async_trait]
pub trait Source: Send + Sync {
    /// Data of a ConfigMap.
    async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<BTreeMap<String, String>, objects::Error>;
    /// Data of a Secret.
    async fn secret(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, Vec<u8>>, objects::Error>;
}

#[async_trait::async_trait]
impl Source for Objects {
    async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<BTreeMap<String, String>, objects::Error> {
        let map = Objects::config_map(self, namespace, name).await?;
        Ok(map.data.clone().unwrap_or_default())
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, Vec<u8>>, objects::Error> {
        let secret = Objects::secret(self, namespace, name).await?;
        Ok(secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect())
    }
}

/// Everything the environment of one container depends on.
pub struct Input<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container (an ephemeral one converted).
    pub container: &'a Container,
    /// Addresses of the pod, primary first.
    pub pod_ips: &'a [String],
    /// Addresses of the node, primary first.
    pub host_ips: &'a [String],
    /// The node, for limits that default to its allocatable resources.
    pub node: Option<&'a Node>,
    /// All services known.
    pub services: &'a [Arc<Service>],
    /// Whether the services were listed at least once; static pods do not wait for it.
    pub services_synced: bool,
    /// ConfigMaps and Secrets.
    pub objects: &'a dyn Source,
    /// Where a volume of the pod is on the node, once it is mounted.
    pub volume: &'a (dyn Fn(&str) -> Option<PathBuf> + Sync),
}

/// The environment of `input.container`, sorted by name.
pub async fn build(input: Input<'_>) -> Result<Vec<(String, String)>, Error> {
    let is_static = input
        .pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.get("kubernetes.io/config.source").is_some_and(|source| source != "api"));
    if !is_static && !input.services_synced {
        return Err(Error::ServicesNotSynced);
    }
    let namespace = input.pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = input.pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = service_variables(input.services, namespace, links);
    let mut env = BTreeMap::new();
    for from in input.container.env_from.iter().flatten() {
        add_from(&input, namespace, from, &mut env).await?;
    }
    for variable in input.container.env.iter().flatten() {
        let literal = variable.value.as_deref().unwrap_or_default();
        let value = if !literal.is_empty() {
            let look_up = |name: &str| env.get(name).or_else(|| services.get(name)).cloned();
            expand::expand_with(literal, look_up)
        } else if let Some(source) = &variable.value_from {
            match resolve(&input, namespace, source).await? {
                Some(value) => value,
                None => continue,
            }
        } else {
            String::new()
        };
        env.insert(variable.name.clone(), value);
    }
    for (name, value) in services {
        env.entry(name).or_insert(value);
    }
    Ok(env.into_iter().collect())
}

async fn add_from(
    input: &Input<'_>,
    namespace: &str,
    from: &EnvFromSource,
    env: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    if let Some(reference) = &from.config_map_ref {
        let found = input.objects.config_map(namespace, &reference.name).await;
        let Some(data) = optional(found, reference.optional)? else { return Ok(()) };
        env.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
    } else if let Some(reference) = &from.secret_ref {
        let found = input.objects.secret(namespace, &reference.name).await;
        let Some(data) = optional(found, reference.optional)? else { return Ok(()) };
        env.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), text(value))));
    }
    Ok(())
}

/// `Ok(None)` for an optional object that does not exist.
fn optional<T>(found: Result<T, objects::Error>, optional: Option<bool>) -> Result<Option<T>, Error> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() && optional == Some(true) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The value of a variable with a source; `None` leaves the variable out.
async fn resolve(input: &Input<'_>, namespace: &str, source: &EnvVarSource) -> Result<Option<String>, Error> {
    if let Some(reference) = &source.field_ref {
        return pod_field(input, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource_value(reference, input.pod, Some(input.container), input.node)
            .map(Some)
            .map_err(Error::Field);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let found = input.objects.config_map(namespace, &reference.name).await;
        let Some(data) = optional(found, reference.optional)? else { return Ok(None) };
        return key(data, "ConfigMap", namespace, &reference.name, &reference.key, reference.optional);
    }
    if let Some(reference) = &source.secret_key_ref {
        let found = input.objects.secret(namespace, &reference.name).await;
        let Some(data) = optional(found, reference.optional)? else { return Ok(None) };
        return Ok(
            key(data, "Secret", namespace, &reference.name, &reference.key, reference.optional)?.map(text)
        );
    }
    if let Some(reference) = &source.file_key_ref {
        return from_file(input, reference);
    }
    Ok(Some(String::new()))
}

/// A variable from a file of variables that another container has left in a volume.
fn from_file(input: &Input<'_>, reference: &FileKeySelector) -> Result<Option<String>, Error> {
    let FileKeySelector { key, optional, path, volume_name } = reference;
    let Some(volume) = (input.volume)(volume_name) else {
        let text = format!("cannot find the volume {volume_name:?} referenced by FileKeyRef");
        return Err(Error::Field(text));
    };
    let value = file::read(&volume, path, key).map_err(|error| {
        // What is wrong with the file stays in the log: it could tell of what lies in it.
        tracing::warn!(volume = volume_name, path, %error, "file of variables");
        Error::Field("couldn't parse env file".to_owned())
    })?;
    match value {
        value if !value.is_empty() => Ok(Some(value)),
        _ if *optional == Some(true) => Ok(None),
        _ => {
            let file = volume.join(path);
            let text = format!(
                "environment variable key {key:?} not found in file {:?}",
                file.display().to_string()
            );
            Err(Error::Field(text))
        }
    }
}

fn key<T>(
    mut data: BTreeMap<String, T>,
    kind: &'static str,
    namespace: &str,
    name: &str,
    key: &str,
    optional: Option<bool>,
) -> Result<Option<T>, Error> {
    match data.remove(key) {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None => Err(Error::KeyNotFound {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        }),
    }
}

fn pod_field(input: &Input<'_>, path: &str) -> Result<String, Error> {
    let spec = input.pod.spec.as_ref();
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    Ok(match path {
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.hostIP" => first(input.host_ips),
        "status.hostIPs" => input.host_ips.join(","),
        "status.podIP" => first(input.pod_ips),
        "status.podIPs" => input.pod_ips.join(","),
        _ => object_field(&input.pod.metadata, path).map_err(Error::Field)?,
    })
}

#[cfg(test)]
mod tests;
