//! What is kept of pods and nodes: little, unless something of a pod is still to be written.

use std::borrow::Cow;
use std::net::IpAddr;

use client::kube;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, NodeCondition, NodeStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubelet::types;
use serde::Deserialize;

use crate::pod;

/// A pod that is bound to a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Pod")]
pub struct PodRecord {
    /// Names and versions, nothing else.
    metadata: ObjectMeta,
    /// The node.
    pub node: Box<str>,
    /// An address of its own that it has and uses.
    pub address: Option<IpAddr>,
    /// All of it, while there may be something to do about it.
    pub whole: Option<Box<Pod>>,
}

impl PodRecord {
    /// Its UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
}

impl From<Pod> for PodRecord {
    fn from(mut pod: Pod) -> Self {
        let metadata = names(&pod.metadata);
        let node = pod.spec.as_mut().and_then(|spec| spec.node_name.clone()).unwrap_or_default().into();
        let status = pod.status.as_ref();
        let address = status.and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        let address = address.filter(|_| !types::host_network(&pod) && !pod::is_terminal(&pod));
        let whole = (!is_at_rest(&pod)).then(|| {
            pod.metadata.managed_fields = None;
            Box::new(pod)
        });
        Self { metadata, node, address, whole }
    }
}

fn names(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectMeta::default()
    }
}

/// Whether nothing is to be done about a pod, whatever the time, until somebody changes it. If in doubt, not.
#[must_use]
pub fn is_at_rest(pod: &Pod) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return pod::is_terminal(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    }
    if pod::is_terminal(pod) {
        return true;
    }
    let (spec, Some(status)) = (types::spec(pod), &pod.status) else { return false };
    let condition =
        |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True");
    let runs = |s: &ContainerStatus| s.ready && s.state.as_ref().is_some_and(|state| state.running.is_some());
    pod::Run::of(pod, std::time::Duration::ZERO).is_none()
        && spec.active_deadline_seconds.is_none()
        && spec.readiness_gates.as_ref().is_none_or(Vec::is_empty)
        && status.phase.as_deref() == Some("Running")
        && status.observed_generation == pod.metadata.generation
        && condition("Ready")
        && status.container_statuses.iter().flatten().all(runs)
}

impl kube::Resource for PodRecord {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A node of this simulation.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Node")]
pub struct NodeRecord {
    /// Names and versions, nothing else.
    metadata: ObjectMeta,
    /// The ranges of its pods.
    pub ranges: Box<[crate::addresses::Range]>,
    /// What is said of its state.
    pub conditions: Vec<NodeCondition>,
    /// Whether it has resources that it does not offer, or the other way round: somebody else changed them.
    pub is_out_of_step: bool,
}

impl NodeRecord {
    /// Its UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
}

impl From<Node> for NodeRecord {
    fn from(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let ranges = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        Self {
            metadata: names(&node.metadata),
            ranges: ranges.iter().filter_map(|text| crate::addresses::Range::parse(text)).collect(),
            is_out_of_step: node.status.as_ref().is_some_and(is_out_of_step),
            conditions: node.status.and_then(|status| status.conditions).unwrap_or_default(),
        }
    }
}

fn is_out_of_step(status: &NodeStatus) -> bool {
    let (has, offers) = (status.capacity.iter().flatten(), status.allocatable.iter().flatten());
    !has.map(|(name, _)| name).eq(offers.map(|(name, _)| name))
}

impl kube::Resource for NodeRecord {
    type DynamicType = ();
    type Scope = kube::core::ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Node::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Node::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Node::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Node::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::Resource;

    const RUNNING: &str = "{phase: Running, podIP: 10.0.0.7, observedGeneration: 1, \
        conditions: [{type: Ready, status: 'True'}], containerStatuses: [{name: a, image: i, imageID: i, \
        ready: true, restartCount: 0, state: {running: {}}}]}";

    fn pod(metadata: &str, spec: &str, status: &str) -> Pod {
        let text = format!(
            "metadata: {{name: p, namespace: ns, uid: u, resourceVersion: '5', generation: 1, \
             labels: {{a: b}}, managedFields: [{{manager: m}}]{metadata}}}\nspec: {{nodeName: n, \
             containers: [{{name: a}}]{spec}}}\nstatus: {status}\n"
        );
        serde_saphyr::from_str(&text).expect("a pod")
    }

    #[test]
    fn a_pod_is_kept_whole_only_while_something_is_to_be_done() {
        let ended = "{phase: Succeeded, podIP: 10.0.0.7}";
        let deleted = ", deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: ";
        for (metadata, spec, status, rests) in [
            ("", "", RUNNING, true),
            ("", "", "{phase: Pending}", false),
            ("", "", ended, true),
            ("", ", restartPolicy: Never", RUNNING, false),
            ("", ", activeDeadlineSeconds: 5", RUNNING, false),
            ("", ", readinessGates: [{conditionType: x}]", RUNNING, false),
            (", annotations: {coxswain.io/run-duration: 1s}", "", RUNNING, false),
            ("", "", &RUNNING.replace("observedGeneration: 1", "observedGeneration: 0"), false),
            ("", "", &RUNNING.replace("ready: true", "ready: false"), false),
            (&format!("{deleted}30"), "", RUNNING, false),
            (&format!("{deleted}30"), "", ended, false),
            (&format!("{deleted}0"), "", RUNNING, false),
            (&format!("{deleted}0"), "", ended, true),
        ] {
            let pod = pod(metadata, spec, status);
            assert_eq!(is_at_rest(&pod), rests, "{metadata} {spec} {status}");
            let record = PodRecord::from(pod);
            assert_eq!(record.whole.is_none(), rests);
            assert!(record.whole.is_none_or(|pod| pod.metadata.managed_fields.is_none()));
        }
    }

    #[test]
    fn little_is_kept_of_others() {
        let record = PodRecord::from(pod("", "", RUNNING));
        assert_eq!((&*record.node, record.uid()), ("n", "u"));
        assert_eq!(record.address, Some("10.0.0.7".parse().expect("an address")));
        assert_eq!(record.meta().labels, None);
        assert_eq!(client::object::resource_version(&record), 5);
        for (spec, status) in [(", hostNetwork: true", RUNNING), ("", "{phase: Failed, podIP: 10.0.0.7}")] {
            assert_eq!(PodRecord::from(pod("", spec, status)).address, None, "{spec} {status}");
        }
    }

    #[test]
    fn a_node_has_the_ranges_it_was_given() {
        let ranges = |spec: &str| {
            let node: Node =
                serde_saphyr::from_str(&format!("metadata: {{name: n}}\nspec: {spec}")).expect("a node");
            NodeRecord::from(node).ranges.len()
        };
        let in_step = |status: &str| {
            let node: Node =
                serde_saphyr::from_str(&format!("metadata: {{name: n}}\nstatus: {status}")).expect("a node");
            !NodeRecord::from(node).is_out_of_step
        };
        assert!(in_step("{capacity: {cpu: '2'}, allocatable: {cpu: '1'}}"));
        assert!(!in_step("{capacity: {cpu: '2', example.com/x: '1'}, allocatable: {cpu: '1'}}"));
        assert!(!in_step("{capacity: {cpu: '2'}, allocatable: {cpu: '1', example.com/x: '1'}}"));
        assert_eq!(ranges("{}"), 0);
        assert_eq!(ranges("{podCIDR: 10.0.0.0/24}"), 1);
        assert_eq!(ranges("{podCIDR: 10.0.0.0/24, podCIDRs: [10.0.0.0/24, 'fd00::/64']}"), 2);
    }
}
