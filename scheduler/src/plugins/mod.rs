//! The plugins, one file each.

#[cfg(test)]
mod cases;
pub mod default_binder;
pub mod dynamic_resources;
#[cfg(test)]
mod hint_tests;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_declared_features;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_unschedulable;
pub mod node_volume_limits;
#[cfg(test)]
mod oracle_tests;
pub mod pod_topology_spread;
pub mod registry;
pub mod scheduling_gates;
pub(crate) mod selector;
pub(crate) mod taint_toleration;
#[cfg(test)]
mod tests;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;

use k8s_openapi::api::core::v1::Pod;

use crate::pod_info::{node_name, nominated_node};

/// Whether the pod counts on some node: it is there, or is to come there.
fn is_placed(pod: &Pod) -> bool {
    !node_name(pod).is_empty() || !nominated_node(pod).is_empty()
}
