//! Requests must fit.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::DeviceClass;

use super::scoring::Scorer;
use crate::config::args::FitArgs;
use crate::framework::{
    Action, ClusterEvent, Code, Filter, Interest, Plugin, PreFilter, Rejection, Resource, Score,
};
use crate::listers::Lister;
use crate::node_info::NodeInfo;
use crate::plugins::dynamic_resources::extended;
use crate::plugins::is_placed;
use crate::pod_info::{PodInfo, uid};
use crate::resources::{Resources, is_extended};
use crate::snapshot::Snapshot;

const NAME: &str = "NodeResourcesFit";

/// The plugin.
pub struct Fit {
    ignored: Arc<Ignored>,
    scorer: Arc<Scorer>,
    /// Resources that may be devices.
    classes: Lister<DeviceClass>,
}

/// Extended resources that are not looked at, because something else sees to them.
#[derive(Default)]
struct Ignored {
    resources: Vec<String>,
    groups: Vec<String>,
}

impl Ignored {
    fn has(&self, name: &str) -> bool {
        let group = || name.split('/').next().unwrap_or_default();
        (!self.resources.is_empty() || !self.groups.is_empty())
            && is_extended(name)
            && (self.resources.iter().any(|n| n == name) || self.groups.iter().any(|g| g == group()))
    }
}

impl Fit {
    /// With these arguments.
    #[must_use]
    pub fn new(args: &FitArgs, classes: &Lister<DeviceClass>) -> Self {
        let ignored = Ignored {
            resources: args.ignored_resources.clone(),
            groups: args.ignored_resource_groups.clone(),
        };
        let scorer = Arc::new(Scorer::new(args.scoring_strategy.as_ref()));
        Self { ignored: Arc::new(ignored), scorer, classes: classes.clone() }
    }

    /// What the pod asks for that classes of devices go by.
    fn devices(&self, pod: &PodInfo) -> Vec<String> {
        let scalar = pod.requests.scalar.keys();
        scalar.filter(|name| extended::class_of(&self.classes, name).is_some()).cloned().collect()
    }
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> Vec<Interest> {
        vec![
            Interest::pods(Action::DELETE.or(Action::POD_SCALE_DOWN)),
            Interest::of(Resource::Node, Action::ADD.or(Action::NODE_ALLOCATABLE)),
            Interest::of(Resource::DeviceClass, Action::ADD.or(Action::UPDATE)),
        ]
    }

    fn is_worth_retrying(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let (old, Some(new)) = event.device_classes() {
            return gives_a_name(pod, old.map(|class| &**class), new);
        }
        match (event.pods(), event.nodes()) {
            ((Some(gone), None), _) => is_placed(gone),
            ((Some(old), Some(new)), _) => {
                let frees = || {
                    let (before, after) = (Resources::accounted_for(old), Resources::accounted_for(new));
                    wanted(pod).any(|name| before.amount(name) > after.amount(name))
                };
                uid(new) == pod.uid() || (!crate::pod_info::node_name(new).is_empty() && frees())
            }
            (_, (old, Some(new))) => {
                let new = NodeInfo::new(new.clone());
                let devices = self.devices(pod);
                if insufficient(&self.ignored, &devices, pod, &new).is_err() {
                    return false;
                }
                let offers_more = |old: &NodeInfo| {
                    let more = |name: &str| {
                        new.allocatable.amount(name) > old.allocatable.amount(name)
                            || is_device(&devices, name, &new)
                    };
                    more("pods") || wanted(pod).any(more)
                };
                old.is_none_or(|old| offers_more(&NodeInfo::new(old.clone())))
            }
            _ => true,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _: &Snapshot) -> Result<PreFilter, Rejection> {
        let (ignored, devices) = (self.ignored.clone(), self.devices(pod));
        Ok(PreFilter::with(Fits { ignored, pod: pod.clone(), devices }))
    }

    fn pre_score(&self, pod: &Arc<PodInfo>, _: &[Arc<NodeInfo>], _: &Snapshot) -> Option<Box<dyn Score>> {
        Some(Scorer::for_pod(&self.scorer, pod))
    }
}

#[derive(Clone)]
struct Fits {
    ignored: Arc<Ignored>,
    pod: Arc<PodInfo>,
    /// Resources that are devices on nodes that do not count them.
    devices: Vec<String>,
}

/// Whether the node offers the resource as devices only.
fn is_device(devices: &[String], name: &str, node: &NodeInfo) -> bool {
    devices.iter().any(|device| device == name) && node.allocatable.amount(name) == 0
}

impl Filter for Fits {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        insufficient(&self.ignored, &self.devices, &self.pod, node)
    }

    /// Which resources are devices may change.
    fn is_local(&self) -> bool {
        self.devices.is_empty()
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// The resources that a pod wants some of.
fn wanted(pod: &PodInfo) -> impl Iterator<Item = &str> {
    let basic = ["cpu", "memory", "ephemeral-storage"].into_iter();
    let all = basic.chain(pod.requests.scalar.keys().map(String::as_str));
    all.filter(|name| pod.requests.amount(name) > 0)
}

/// Whether a class of devices goes by the name of something that the pod wants, and did not before.
fn gives_a_name(pod: &PodInfo, old: Option<&DeviceClass>, new: &DeviceClass) -> bool {
    let named =
        |class: &DeviceClass| class.spec.extended_resource_name.clone().filter(|name| !name.is_empty());
    let wants = |name: &str| pod.requests.scalar.contains_key(name);
    match old {
        Some(old) if named(old) == named(new) => false,
        Some(_) => named(new).is_some_and(|name| wants(&name)),
        None => extended::names_of(new).iter().any(|name| wants(name)),
    }
}

/// What the node has too little of, in upstream's words.
fn insufficient(
    ignored: &Ignored,
    devices: &[String],
    pod: &PodInfo,
    node: &NodeInfo,
) -> Result<(), Rejection> {
    let mut refused: Option<Rejection> = None;
    let mut refuse = |reason: Cow<'static, str>, unresolvable: bool| {
        let code = if unresolvable { Code::Unresolvable } else { Code::Unschedulable };
        match &mut refused {
            None => refused = Some(Rejection::with_code(NAME, code, reason)),
            Some(refused) => {
                refused.push(reason);
                if unresolvable {
                    refused.code = code;
                }
            }
        }
    };
    let (requests, offered, taken) = (&pod.requests, &node.allocatable, &node.requested);
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= offered.pods {
        refuse("Too many pods".into(), false);
    }
    for (wanted, offered, taken, reason) in [
        (requests.cpu, offered.cpu, taken.cpu, "Insufficient cpu"),
        (requests.memory, offered.memory, taken.memory, "Insufficient memory"),
        (
            requests.ephemeral_storage,
            offered.ephemeral_storage,
            taken.ephemeral_storage,
            "Insufficient ephemeral-storage",
        ),
    ] {
        if wanted > 0 && wanted > offered - taken {
            refuse(reason.into(), wanted > offered);
        }
    }
    let counted = |name: &str| !ignored.has(name) && !is_device(devices, name, node);
    for (name, wanted) in requests.scalar.iter().filter(|(name, wanted)| **wanted > 0 && counted(name)) {
        if *wanted > offered.amount(name) - taken.amount(name) {
            refuse(format!("Insufficient {name}").into(), *wanted > offered.amount(name));
        }
    }
    refused.map_or(Ok(()), Err)
}
