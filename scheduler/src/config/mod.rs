//! `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`): what `--config` reads.
//!
//! A file is read strictly, gets its defaults, and is checked as a whole, with upstream's messages, before anything
//! starts ([`validate`]). [`profile`] turns each profile into its plugins.

pub mod args;
pub mod profile;
#[cfg(test)]
mod tests;
pub mod validate;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use self::args::{
    BalancedAllocationArgs, DefaultPreemptionArgs, DynamicResourcesArgs, FitArgs, InterPodAffinityArgs,
    NodeAffinityArgs, PodTopologySpreadArgs, VolumeBindingArgs, default_resources,
};

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{0}")]
    Decode(String),
    /// It says something that cannot be.
    #[error("{0}")]
    Invalid(String),
}

/// The whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeSchedulerConfiguration {
    /// Group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Accepted: nodes are filtered by one thread.
    pub parallelism: Option<i32>,
    /// Whether and how to elect a leader; what is not said is as the flags say.
    pub leader_election: LeaderElectionConfiguration,
    /// How to reach the API server.
    pub client_connection: ClientConnectionConfiguration,
    /// Accepted for compatibility.
    pub enable_profiling: Option<bool>,
    /// Accepted for compatibility.
    pub enable_contention_profiling: Option<bool>,
    /// How many of the nodes to look for, in percent; 0: by the size of the cluster.
    pub percentage_of_nodes_to_score: Option<i32>,
    /// The first backoff of a pod.
    pub pod_initial_backoff_seconds: Option<i64>,
    /// The longest backoff of a pod.
    pub pod_max_backoff_seconds: Option<i64>,
    /// The profiles.
    pub profiles: Vec<Profile>,
    /// The extenders.
    pub extenders: Vec<ExtenderConfiguration>,
    /// Accepted for compatibility.
    pub delay_cache_until_active: bool,
}

/// Leader election.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderElectionConfiguration {
    /// Whether to elect.
    pub leader_elect: Option<bool>,
    /// How long others wait.
    pub lease_duration: Option<String>,
    /// How long a leader tries.
    pub renew_deadline: Option<String>,
    /// Time between tries.
    pub retry_period: Option<String>,
    /// Only `leases`.
    pub resource_lock: Option<String>,
    /// Name of the Lease.
    pub resource_name: Option<String>,
    /// Namespace of the Lease.
    pub resource_namespace: Option<String>,
}

/// The way to the API server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientConnectionConfiguration {
    /// Path of a kubeconfig file.
    pub kubeconfig: String,
    /// Accepted for compatibility.
    pub accept_content_types: String,
    /// Accepted for compatibility.
    pub content_type: String,
    /// Accepted for compatibility.
    pub qps: Option<f64>,
    /// Accepted for compatibility.
    pub burst: Option<i32>,
}

/// One profile.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Profile {
    /// The name that pods ask for.
    pub scheduler_name: Option<String>,
    /// How many of the nodes to look for; none: as for the whole scheduler.
    pub percentage_of_nodes_to_score: Option<i32>,
    /// Changes to the default plugins.
    pub plugins: Plugins,
    /// Arguments of plugins.
    pub plugin_config: Vec<PluginConfig>,
}

/// Plugins by extension point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "they are named as the extension points are")]
pub struct Plugins {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
    pub placement_generate: PluginSet,
    pub placement_score: PluginSet,
}

/// Plugins at one extension point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginSet {
    /// Those that are called, besides or in place of the default ones.
    pub enabled: Vec<EnabledPlugin>,
    /// Default ones that are not called; `*` for all.
    pub disabled: Vec<EnabledPlugin>,
}

/// One plugin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnabledPlugin {
    /// Its name.
    pub name: String,
    /// How much its scores count.
    #[serde(default)]
    pub weight: Option<i32>,
}

/// The arguments of one plugin.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginConfig {
    /// The plugin.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
}

/// One extender.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtenderConfiguration {
    /// Where it is.
    pub url_prefix: String,
    /// The path for filtering; empty: it does not.
    pub filter_verb: String,
    /// The path for preemption; empty: it has no say.
    pub preempt_verb: String,
    /// The path for scoring; empty: it does not.
    pub prioritize_verb: String,
    /// How much its scores count.
    pub weight: i64,
    /// The path for binding; empty: it does not.
    pub bind_verb: String,
    /// Whether to use TLS.
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    /// How to use TLS.
    pub tls_config: Option<ExtenderTls>,
    /// How long to wait for it; none: 5 s.
    pub http_timeout: Option<String>,
    /// Whether it knows nodes by name.
    pub node_cache_capable: bool,
    /// It has a say only about pods that request one of these; none: about all.
    pub managed_resources: Vec<ManagedResource>,
    /// Whether it is no error if it cannot be reached.
    pub ignorable: bool,
}

/// A resource that an extender manages.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ManagedResource {
    /// The resource.
    pub name: String,
    /// Whether the scheduler itself does not look at it.
    pub ignored_by_scheduler: bool,
}

/// How to use TLS with an extender.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "as in a kubeconfig")]
pub struct ExtenderTls {
    pub insecure: bool,
    pub server_name: String,
    pub cert_file: String,
    pub key_file: String,
    pub ca_file: String,
    pub cert_data: String,
    pub key_data: String,
    pub ca_data: String,
}

/// The arguments of all plugins of a profile that have some.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "they are named as the plugins are")]
pub struct Arguments {
    pub fit: FitArgs,
    pub balanced_allocation: BalancedAllocationArgs,
    pub inter_pod_affinity: InterPodAffinityArgs,
    pub pod_topology_spread: PodTopologySpreadArgs,
    pub node_affinity: NodeAffinityArgs,
    pub default_preemption: DefaultPreemptionArgs,
    pub dynamic_resources: DynamicResourcesArgs,
    pub volume_binding: VolumeBindingArgs,
}

impl KubeSchedulerConfiguration {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or says something that cannot be.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads YAML or JSON; strict, with defaults, and checked.
    ///
    /// # Errors
    /// It says something that cannot be.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut config: Self = serde_saphyr::from_str(text)
            .map_err(|error| Error::Decode(format!("strict decoding error: {error}")))?;
        if (config.api_version.as_str(), config.kind.as_str()) != (API_VERSION, KIND) {
            let (kind, version) = (&config.kind, &config.api_version);
            return Err(Error::Decode(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/scheduler/apis/config/scheme/scheme.go:30\""
            )));
        }
        config.set_defaults();
        validate::validate(&config).map_err(Error::Invalid)?;
        Ok(config)
    }

    /// What holds without a file.
    #[must_use]
    pub fn default_for(scheduler_name: &str) -> Self {
        let profile = Profile { scheduler_name: Some(scheduler_name.to_owned()), ..Profile::default() };
        let mut config = Self { profiles: vec![profile], ..Self::default() };
        config.set_defaults();
        config
    }

    fn set_defaults(&mut self) {
        self.parallelism.get_or_insert(16);
        self.percentage_of_nodes_to_score.get_or_insert(0);
        self.pod_initial_backoff_seconds.get_or_insert(1);
        self.pod_max_backoff_seconds.get_or_insert(10);
        if self.profiles.is_empty() {
            self.profiles.push(Profile::default());
        }
        if let [only] = self.profiles.as_mut_slice() {
            only.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
        }
        self.leader_election.resource_lock.get_or_insert_with(|| "leases".to_owned());
    }

    /// Resources that extenders see to, so that the scheduler itself does not look at them.
    #[must_use]
    pub fn ignored_resources(&self) -> Vec<String> {
        let managed = self.extenders.iter().flat_map(|extender| &extender.managed_resources);
        managed.filter(|resource| resource.ignored_by_scheduler).map(|r| r.name.clone()).collect()
    }

    /// How long pods wait.
    #[must_use]
    pub fn waits(&self) -> crate::queue::Waits {
        let seconds = |seconds: Option<i64>, default| {
            Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(default))
        };
        crate::queue::Waits {
            initial_backoff: seconds(self.pod_initial_backoff_seconds, 1),
            max_backoff: seconds(self.pod_max_backoff_seconds, 10),
            ..crate::queue::Waits::default()
        }
    }
}

impl Profile {
    /// The arguments of the plugins, with defaults.
    ///
    /// # Errors
    /// Some cannot be read; the error says which (by its place in `pluginConfig`) and why.
    pub fn arguments(&self) -> Result<Arguments, (usize, String)> {
        let mut arguments = Arguments::default();
        for (at, config) in self.plugin_config.iter().enumerate() {
            arguments.take(config).map_err(|error| (at, error))?;
        }
        arguments.set_defaults();
        Ok(arguments)
    }
}

impl Arguments {
    fn take(&mut self, config: &PluginConfig) -> Result<(), String> {
        match config.name.as_str() {
            "NodeResourcesFit" => self.fit = read(config)?,
            "NodeResourcesBalancedAllocation" => self.balanced_allocation = read(config)?,
            "InterPodAffinity" => self.inter_pod_affinity = read(config)?,
            "PodTopologySpread" => self.pod_topology_spread = read(config)?,
            "NodeAffinity" => self.node_affinity = read(config)?,
            "DefaultPreemption" => self.default_preemption = read(config)?,
            "DynamicResources" => self.dynamic_resources = read(config)?,
            "VolumeBinding" => self.volume_binding = read(config)?,
            _ => {}
        }
        Ok(())
    }

    fn set_defaults(&mut self) {
        let fill = |resources: &mut Vec<args::ResourceSpec>| {
            if resources.is_empty() {
                *resources = default_resources();
            }
            resources.iter_mut().filter(|r| r.weight == 0).for_each(|r| r.weight = 1);
        };
        fill(&mut self.balanced_allocation.resources);
        let strategy = self.fit.scoring_strategy.get_or_insert_with(|| args::ScoringStrategy {
            kind: "LeastAllocated".to_owned(),
            resources: Vec::new(),
            requested_to_capacity_ratio: None,
        });
        fill(&mut strategy.resources);
        if self.pod_topology_spread.defaulting_type.is_empty() {
            self.pod_topology_spread.defaulting_type = "System".to_owned();
        }
    }
}

/// Reads the arguments of a plugin; kind and version may be left out, or must be right.
fn read<T: Default + serde::de::DeserializeOwned>(config: &PluginConfig) -> Result<T, String> {
    let mut value = config.args.clone();
    if value.is_null() {
        return Ok(T::default());
    }
    if let Some(object) = value.as_object_mut() {
        let (kind, expected) = (object.remove("kind"), format!("{}Args", config.name));
        object.remove("apiVersion");
        if let Some(kind) = kind.as_ref().and_then(Value::as_str).filter(|kind| **kind != *expected) {
            return Err(format!(
                "args for plugin {} were not of type {expected}.kubescheduler.config.k8s.io, got {kind}.kubescheduler.config.k8s.io",
                config.name
            ));
        }
    }
    serde_json::from_value(value)
        .map_err(|error| format!("decoding args for plugin {}: {error}", config.name))
}
