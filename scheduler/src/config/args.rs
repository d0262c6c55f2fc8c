//! The arguments of plugins, as `pluginConfig` gives them.

use std::time::Duration;

use client::leader::parse_duration;
use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::{Deserialize, Deserializer};

/// A resource and how much it counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceSpec {
    /// Name of the resource.
    #[serde(default)]
    pub name: String,
    /// How much it counts; 0 is read as 1.
    #[serde(default)]
    pub weight: i64,
}

/// CPU and memory alike.
#[must_use]
pub fn default_resources() -> Vec<ResourceSpec> {
    ["cpu", "memory"].map(|name| ResourceSpec { name: name.to_owned(), weight: 1 }).into()
}

/// One point of a function of utilization, both in percent and in tenths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShapePoint {
    /// Utilization, 0 to 100.
    #[serde(default)]
    pub utilization: i32,
    /// Score, 0 to 10.
    #[serde(default)]
    pub score: i32,
}

/// The parameters of `RequestedToCapacityRatio`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestedToCapacityRatio {
    /// The function.
    #[serde(default)]
    pub shape: Vec<ShapePoint>,
}

/// How nodes are scored by what is left on them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScoringStrategy {
    /// `LeastAllocated`, `MostAllocated` or `RequestedToCapacityRatio`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The resources looked at.
    #[serde(default)]
    pub resources: Vec<ResourceSpec>,
    /// Parameters of that strategy.
    #[serde(default)]
    pub requested_to_capacity_ratio: Option<RequestedToCapacityRatio>,
}

/// Arguments of `NodeResourcesFit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FitArgs {
    /// Extended resources that are not looked at.
    pub ignored_resources: Vec<String>,
    /// Groups of extended resources that are not looked at.
    pub ignored_resource_groups: Vec<String>,
    /// How nodes are scored; none: `LeastAllocated` over CPU and memory.
    pub scoring_strategy: Option<ScoringStrategy>,
}

/// Arguments of `NodeResourcesBalancedAllocation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BalancedAllocationArgs {
    /// The resources looked at; none: CPU and memory.
    pub resources: Vec<ResourceSpec>,
}

/// Arguments of `InterPodAffinity`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InterPodAffinityArgs {
    /// How much it counts that a pod which is there requires pods like the incoming one.
    pub hard_pod_affinity_weight: i32,
    /// Whether what pods that are there prefer is ignored for pods without preferences.
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinityArgs {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

/// Arguments of `PodTopologySpread`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodTopologySpreadArgs {
    /// For pods that have none of their own.
    pub default_constraints: Vec<TopologySpreadConstraint>,
    /// `System` (also if empty) or `List`.
    pub defaulting_type: String,
}

/// Arguments of `NodeAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeAffinityArgs {
    /// Holds for all pods, besides their own.
    pub added_affinity: Option<NodeAffinity>,
}

/// Arguments of `DefaultPreemption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DefaultPreemptionArgs {
    /// At least this share of the nodes is tried.
    pub min_candidate_nodes_percentage: i32,
    /// And at least so many.
    pub min_candidate_nodes_absolute: i32,
}

impl Default for DefaultPreemptionArgs {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

/// Arguments of `VolumeBinding`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VolumeBindingArgs {
    /// How long to wait for volumes to be bound.
    pub bind_timeout_seconds: i64,
    /// Not to be used: scoring by capacity is off.
    pub shape: Option<Vec<ShapePoint>>,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { bind_timeout_seconds: 600, shape: None }
    }
}

/// Arguments of `DynamicResources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DynamicResourcesArgs {
    /// How long devices may be looked for on one node; 0: as long as it takes.
    #[serde(deserialize_with = "filter_timeout")]
    pub filter_timeout: Duration,
    /// How long to wait for devices to be made ready.
    #[serde(deserialize_with = "binding_timeout")]
    pub binding_timeout: Duration,
}

impl Default for DynamicResourcesArgs {
    fn default() -> Self {
        Self { filter_timeout: Duration::from_secs(10), binding_timeout: Duration::from_secs(600) }
    }
}

fn filter_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Ok(duration(from)?.unwrap_or(DynamicResourcesArgs::default().filter_timeout))
}

fn binding_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Ok(duration(from)?.unwrap_or(DynamicResourcesArgs::default().binding_timeout))
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
}
