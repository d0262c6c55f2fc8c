//! Makes plugins by name.

use std::sync::Arc;

use super::default_binder::DefaultBinder;
use super::dynamic_resources::{Devices, DynamicResources};
use super::image_locality::ImageLocality;
use super::inter_pod_affinity::InterPodAffinity;
use super::node_affinity::NodeAffinity;
use super::node_declared_features::NodeDeclaredFeatures;
use super::node_name::NodeName;
use super::node_ports::NodePorts;
use super::node_resources::{BalancedAllocation, Fit};
use super::node_unschedulable::NodeUnschedulable;
use super::node_volume_limits::NodeVolumeLimits;
use super::pod_topology_spread::PodTopologySpread;
use super::scheduling_gates::SchedulingGates;
use super::taint_toleration::TaintToleration;
use super::volume_binding::VolumeBinding;
use super::volume_restrictions::VolumeRestrictions;
use super::volume_zone::VolumeZone;
use crate::config::Arguments;
use crate::framework::Plugin;
use crate::listers::Listers;
use crate::preemption::{DefaultPreemption, Preempting};
use crate::volumes::Volumes;

/// What plugins are made from.
#[derive(Clone)]
pub struct Parts {
    /// What may select a pod.
    pub listers: Listers,
    /// What is known of storage.
    pub volumes: Volumes,
    /// What is known of devices.
    pub devices: Devices,
    /// Which pods wait for evictions.
    pub preempting: Arc<Preempting>,
    /// Resources that extenders see to, whatever a profile says.
    pub ignored_resources: Vec<String>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            listers: Listers::default(),
            volumes: Volumes::default(),
            devices: Devices::default(),
            preempting: Arc::new(Preempting::new(|_| None)),
            ignored_resources: Vec::new(),
        }
    }
}

/// A plugin by name; none if there is none of that name. (`PrioritySort` is the queue itself.)
#[must_use]
pub fn plugin(name: &str, arguments: &Arguments, parts: &Parts) -> Option<Arc<dyn Plugin>> {
    Some(match name {
        "SchedulingGates" => Arc::new(SchedulingGates),
        "NodeUnschedulable" => Arc::new(NodeUnschedulable),
        "NodeName" => Arc::new(NodeName),
        "TaintToleration" => Arc::new(TaintToleration),
        "NodeAffinity" => Arc::new(NodeAffinity::new(&arguments.node_affinity)),
        "NodePorts" => Arc::new(NodePorts),
        "NodeResourcesFit" => Arc::new(Fit::new(&arguments.fit, &parts.devices.classes)),
        "VolumeRestrictions" => Arc::new(VolumeRestrictions::new(&parts.volumes)),
        "NodeVolumeLimits" => Arc::new(NodeVolumeLimits::new(&parts.volumes)),
        "VolumeBinding" => Arc::new(VolumeBinding::new(&arguments.volume_binding, &parts.volumes)),
        "VolumeZone" => Arc::new(VolumeZone::new(&parts.volumes)),
        "PodTopologySpread" => {
            Arc::new(PodTopologySpread::new(&arguments.pod_topology_spread, &parts.listers))
        }
        "InterPodAffinity" => Arc::new(InterPodAffinity::new(&arguments.inter_pod_affinity)),
        "DynamicResources" => Arc::new(DynamicResources::new(arguments.dynamic_resources, &parts.devices)),
        "DefaultPreemption" => {
            Arc::new(DefaultPreemption::new(arguments.default_preemption, parts.preempting.clone()))
        }
        "NodeResourcesBalancedAllocation" => {
            Arc::new(BalancedAllocation::new(&arguments.balanced_allocation))
        }
        "ImageLocality" => Arc::new(ImageLocality),
        "NodeDeclaredFeatures" => Arc::new(NodeDeclaredFeatures),
        "DefaultBinder" => Arc::new(DefaultBinder),
        _ => return None,
    })
}
