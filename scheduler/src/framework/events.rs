//! What happens in the cluster, as far as it may let a pod fit that did not fit before (upstream
//! `framework/events.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, Pod, PodExtendedResourceClaimStatus,
    PodResourceClaimStatus, PodSpec, ResourceRequirements,
};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};

use crate::resources::Resources;

/// What something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A pod on a node.
    AssignedPod,
    /// A pod that waits for a node.
    UnscheduledPod,
    /// A node.
    Node,
    /// Labels of a namespace.
    Namespace,
    /// A volume.
    PersistentVolume,
    /// A claim for a volume.
    PersistentVolumeClaim,
    /// A class of volumes.
    StorageClass,
    /// What a node's storage drivers can do.
    CsiNode,
    /// A storage driver.
    CsiDriver,
    /// How much room a storage driver has.
    CsiStorageCapacity,
    /// A volume attached to a node.
    VolumeAttachment,
    /// A claim for devices.
    ResourceClaim,
    /// Devices that there are.
    ResourceSlice,
    /// A class of devices.
    DeviceClass,
    /// Anything: every waiting pod is to be tried.
    All,
}

impl Resource {
    /// Upstream's name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AssignedPod => "AssignedPod",
            Self::UnscheduledPod => "UnschedulablePod",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::PersistentVolume => "PersistentVolume",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::StorageClass => "storage.k8s.io/StorageClass",
            Self::CsiNode => "storage.k8s.io/CSINode",
            Self::CsiDriver => "storage.k8s.io/CSIDriver",
            Self::CsiStorageCapacity => "storage.k8s.io/CSIStorageCapacity",
            Self::VolumeAttachment => "storage.k8s.io/VolumeAttachment",
            Self::ResourceClaim => "ResourceClaim",
            Self::ResourceSlice => "ResourceSlice",
            Self::DeviceClass => "DeviceClass",
            Self::All => "*",
        }
    }
}

/// What happened to it; a set, so that plugins can ask for several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action(u32);

impl Action {
    /// New.
    pub const ADD: Self = Self(1);
    /// Gone.
    pub const DELETE: Self = Self(1 << 1);
    /// What the node offers changed.
    pub const NODE_ALLOCATABLE: Self = Self(1 << 2);
    /// Labels of the node changed.
    pub const NODE_LABEL: Self = Self(1 << 3);
    /// Taints of the node changed, or it is no longer cordoned.
    pub const NODE_TAINT: Self = Self(1 << 4);
    /// Conditions of the node changed.
    pub const NODE_CONDITION: Self = Self(1 << 5);
    /// Annotations of the node changed.
    pub const NODE_ANNOTATION: Self = Self(1 << 6);
    /// Labels of the pod changed.
    pub const POD_LABEL: Self = Self(1 << 7);
    /// The pod needs less.
    pub const POD_SCALE_DOWN: Self = Self(1 << 8);
    /// The pod tolerates more.
    pub const POD_TOLERATION: Self = Self(1 << 9);
    /// The last scheduling gate is gone.
    pub const POD_GATES_GONE: Self = Self(1 << 10);
    /// The claims made for the pod changed.
    pub const POD_CLAIMS: Self = Self(1 << 11);
    /// The features that the node declares changed.
    pub const NODE_FEATURES: Self = Self(1 << 12);
    /// Another change.
    pub const OTHER: Self = Self(1 << 13);
    /// Any change.
    pub const UPDATE: Self = Self((1 << 14) - 4);
    /// Anything.
    pub const ALL: Self = Self((1 << 14) - 1);

    /// Either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the two have something in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Upstream's name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ADD => "Add",
            Self::DELETE => "Delete",
            Self::NODE_ALLOCATABLE => "UpdateNodeAllocatable",
            Self::NODE_LABEL => "UpdateNodeLabel",
            Self::NODE_TAINT => "UpdateNodeTaint",
            Self::NODE_CONDITION => "UpdateNodeCondition",
            Self::NODE_ANNOTATION => "UpdateNodeAnnotation",
            Self::NODE_FEATURES => "UpdateNodeDeclaredFeature",
            Self::POD_LABEL => "UpdatePodLabel",
            Self::POD_SCALE_DOWN => "UpdatePodScaleDown",
            Self::POD_TOLERATION => "UpdatePodToleration",
            Self::POD_GATES_GONE => "UpdatePodSchedulingGatesEliminated",
            Self::POD_CLAIMS => "UpdatePodGeneratedResourceClaim",
            Self::ALL => "All",
            _ => "Update",
        }
    }
}

/// An object that something happened to.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Arc<Pod>),
    /// A node.
    Node(Arc<Node>),
    /// A volume.
    Volume(Arc<PersistentVolume>),
    /// A claim.
    Claim(Arc<PersistentVolumeClaim>),
    /// A class of volumes.
    StorageClass(Arc<StorageClass>),
    /// A node's storage drivers.
    CsiNode(Arc<CSINode>),
    /// A storage driver.
    CsiDriver(Arc<CSIDriver>),
    /// A storage driver's room.
    CsiCapacity(Arc<CSIStorageCapacity>),
    /// An attached volume.
    Attachment(Arc<VolumeAttachment>),
    /// A claim for devices.
    ResourceClaim(Arc<ResourceClaim>),
    /// Devices.
    ResourceSlice(Arc<ResourceSlice>),
    /// A class of devices.
    DeviceClass(Arc<DeviceClass>),
}

/// Something that happened, with the object before and after.
#[derive(Clone, Debug)]
pub struct ClusterEvent {
    /// What it happened to.
    pub resource: Resource,
    /// What happened.
    pub action: Action,
    /// The object before; none if it is new.
    pub old: Option<Object>,
    /// The object now; none if it is gone.
    pub new: Option<Object>,
    /// The name in metrics, if it is not made of resource and action.
    label: Option<&'static str>,
}

macro_rules! accessor {
    ($(#[$doc:meta] $name:ident: $variant:ident($kind:ty)),* $(,)?) => {
        impl ClusterEvent {$(
            #[$doc]
            #[must_use]
            pub fn $name(&self) -> (Option<&Arc<$kind>>, Option<&Arc<$kind>>) {
                let old = match &self.old {
                    Some(Object::$variant(object)) => Some(object),
                    _ => None,
                };
                let new = match &self.new {
                    Some(Object::$variant(object)) => Some(object),
                    _ => None,
                };
                (old, new)
            }
        )*}
    };
}

accessor! {
    /// Old and new pod.
    pods: Pod(Pod),
    /// Old and new node.
    nodes: Node(Node),
    /// Old and new volume.
    volumes: Volume(PersistentVolume),
    /// Old and new claim.
    claims: Claim(PersistentVolumeClaim),
    /// Old and new storage class.
    classes: StorageClass(StorageClass),
    /// Old and new state of a node's storage drivers.
    csi_nodes: CsiNode(CSINode),
    /// Old and new storage driver.
    csi_drivers: CsiDriver(CSIDriver),
    /// Old and new room.
    csi_capacities: CsiCapacity(CSIStorageCapacity),
    /// Old and new attachment.
    attachments: Attachment(VolumeAttachment),
    /// Old and new claim for devices.
    resource_claims: ResourceClaim(ResourceClaim),
    /// Old and new class of devices.
    device_classes: DeviceClass(DeviceClass),
}

impl ClusterEvent {
    /// Something happened.
    #[must_use]
    pub fn new(resource: Resource, action: Action, old: Option<Object>, new: Option<Object>) -> Self {
        Self { resource, action, old, new, label: None }
    }

    /// Every pod of those is to be tried again, whatever it waits for.
    #[must_use]
    pub fn everything(label: &'static str) -> Self {
        Self { resource: Resource::All, action: Action::ALL, old: None, new: None, label: Some(label) }
    }

    /// A pod that was counted on a node is gone.
    #[must_use]
    pub fn pod_gone(pod: Arc<Pod>) -> Self {
        Self::new(Resource::AssignedPod, Action::DELETE, Some(Object::Pod(pod)), None)
    }

    /// The name in metrics.
    #[must_use]
    pub fn label(&self) -> String {
        self.label
            .map_or_else(|| format!("{}{}", self.resource.as_str(), self.action.as_str()), ToOwned::to_owned)
    }

    /// Whether this is what a plugin asked for.
    #[must_use]
    pub fn is_asked_for(&self, interest: &Interest) -> bool {
        let pod = |r: Resource| matches!(r, Resource::AssignedPod | Resource::UnscheduledPod);
        let same = interest.resource == self.resource || interest.any_pod && pod(self.resource);
        same && interest.action.meets(self.action)
    }
}

/// Events that a plugin asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    resource: Resource,
    any_pod: bool,
    action: Action,
}

impl Interest {
    /// Events of pods, waiting or on nodes.
    #[must_use]
    pub const fn pods(action: Action) -> Self {
        Self { resource: Resource::AssignedPod, any_pod: true, action }
    }

    /// Events of another resource.
    #[must_use]
    pub const fn of(resource: Resource, action: Action) -> Self {
        Self { resource, any_pod: false, action }
    }
}

/// The changes of a pod that matter to scheduling; one general change if none does.
#[must_use]
pub fn pod_changes(old: &Pod, new: &Pod) -> Vec<Action> {
    let mut actions = vec![];
    let (before, after) = (old.spec.as_ref(), new.spec.as_ref());
    if old.metadata.labels != new.metadata.labels {
        actions.push(Action::POD_LABEL);
    }
    if (before != after || resizes(old) != resizes(new)) && needs_less(old, new) {
        actions.push(Action::POD_SCALE_DOWN);
    }
    let gates = |spec: Option<&PodSpec>| spec.and_then(|s| s.scheduling_gates.as_ref()).map_or(0, Vec::len);
    if gates(before) > 0 && gates(after) == 0 {
        actions.push(Action::POD_GATES_GONE);
    }
    let tolerations = |spec: Option<&PodSpec>| spec.and_then(|s| s.tolerations.as_ref()).map_or(0, Vec::len);
    if tolerations(before) != tolerations(after) {
        actions.push(Action::POD_TOLERATION);
    }
    if claims(old) != claims(new) {
        actions.push(Action::POD_CLAIMS);
    }
    if actions.is_empty() {
        actions.push(Action::OTHER);
    }
    actions
}

/// What the status says of claims made for the pod.
fn claims(pod: &Pod) -> (&[PodResourceClaimStatus], Option<&PodExtendedResourceClaimStatus>) {
    let status = pod.status.as_ref();
    let named = status.and_then(|s| s.resource_claim_statuses.as_deref()).unwrap_or_default();
    (named, status.and_then(|s| s.extended_resource_claim_status.as_ref()))
}

/// What the status says of the resources of containers, and of the pod as a whole.
fn resizes(pod: &Pod) -> Vec<Option<&ResourceRequirements>> {
    let status = pod.status.as_ref();
    let whole = status.and_then(|status| status.resources.as_ref());
    let containers =
        status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses));
    let containers = containers.flatten().map(|container| container.resources.as_ref());
    containers.chain([whole]).collect()
}

fn needs_less(old: &Pod, new: &Pod) -> bool {
    let (before, after) = (Resources::accounted_for(old), Resources::accounted_for(new));
    after.cpu < before.cpu
        || after.memory < before.memory
        || after.ephemeral_storage < before.ephemeral_storage
        || before.scalar.iter().any(|(name, amount)| after.amount(name) < *amount)
}

/// The changes of a node that matter to scheduling.
#[must_use]
pub fn node_changes(old: &Node, new: &Node) -> Vec<Action> {
    let mut actions = vec![];
    let cordoned = |node: &Node| node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    let taints = |node: &Node| node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    let conditions = |node: &Node| -> BTreeMap<String, String> {
        let all = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        all.into_iter().map(|c| (c.type_, c.status)).collect()
    };
    if (cordoned(old) && !cordoned(new)) || taints(old) != taints(new) {
        actions.push(Action::NODE_TAINT);
    }
    if allocatable(old) != allocatable(new) {
        actions.push(Action::NODE_ALLOCATABLE);
    }
    if old.metadata.labels != new.metadata.labels {
        actions.push(Action::NODE_LABEL);
    }
    if conditions(old) != conditions(new) {
        actions.push(Action::NODE_CONDITION);
    }
    if old.metadata.annotations != new.metadata.annotations {
        actions.push(Action::NODE_ANNOTATION);
    }
    let features = |node: &Node| node.status.as_ref().and_then(|s| s.declared_features.clone());
    if features(old) != features(new) {
        actions.push(Action::NODE_FEATURES);
    }
    actions
}
