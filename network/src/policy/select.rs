//! Whom policies are about, and whom they let through.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::kube::core::{Selector, SelectorExt};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Direction, World};
use crate::address::{Family, Range};
use crate::pod::Pod;

type Labels = BTreeMap<String, String>;

/// One rule of a policy: any of these peers at any of these ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowed<'a> {
    /// The other ends; none for anybody.
    pub peers: Option<Vec<Peer<'a>>>,
    /// The ports; none for any port of any protocol.
    pub ports: Option<Vec<Port<'a>>>,
}

/// Who the other end may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer<'a> {
    /// A pod.
    Pod(&'a Pod),
    /// Addresses, some of them excepted.
    Block(Range, Vec<Range>),
}

/// Which port it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// Protocol, in capital letters.
    pub protocol: &'a str,
    /// The number.
    pub number: Number<'a>,
}

/// What a port is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Number<'a> {
    /// Any.
    Any,
    /// From the first to the last.
    Range(u16, u16),
    /// The port that the receiving pod calls so.
    Named(&'a str),
}

/// The world as one address family has it, with what is asked of it often made ready.
pub struct Finder<'a> {
    world: &'a World,
    family: Family,
    namespaces: BTreeMap<&'a str, &'a Labels>,
}

static NO_LABELS: Labels = Labels::new();

/// A selector that cannot be read selects nothing.
fn selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::try_from(selector.clone()).ok()
}

fn labels(pod: &Pod) -> &Labels {
    pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
}

impl<'a> Finder<'a> {
    /// Of this world.
    #[must_use]
    pub fn new(world: &'a World, family: Family) -> Self {
        let namespaces = world.namespaces.iter().filter_map(|namespace| {
            let meta = &namespace.metadata;
            Some((meta.name.as_deref()?, meta.labels.as_ref().unwrap_or(&NO_LABELS)))
        });
        Self { world, family, namespaces: namespaces.collect() }
    }

    /// Whose addresses count.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The policies that are about `pod` in this direction.
    #[must_use]
    pub fn policies_of(&self, pod: &Pod, direction: Direction) -> Vec<&'a NetworkPolicy> {
        let about = |policy: &&Arc<NetworkPolicy>| {
            let Some(spec) = &policy.spec else { return false };
            policy.metadata.namespace == pod.metadata.namespace
                && concerns(spec, direction)
                && match &spec.pod_selector {
                    None => true,
                    Some(wanted) => selector(wanted).is_some_and(|s| s.matches(labels(pod))),
                }
        };
        self.world.policies.iter().filter(about).map(|policy| &**policy).collect()
    }

    /// What a policy lets through in this direction.
    #[must_use]
    pub fn allowed(&self, policy: &'a NetworkPolicy, direction: Direction) -> Vec<Allowed<'a>> {
        let Some(spec) = &policy.spec else { return vec![] };
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let rules: Vec<(&Option<Vec<_>>, &Option<Vec<_>>)> = match direction {
            Direction::Ingress => {
                spec.ingress.iter().flatten().map(|rule| (&rule.from, &rule.ports)).collect()
            }
            Direction::Egress => spec.egress.iter().flatten().map(|rule| (&rule.to, &rule.ports)).collect(),
        };
        let one = |(peers, ports): (&'a Option<Vec<_>>, &'a Option<Vec<_>>)| Allowed {
            peers: some(peers).map(|list| list.iter().flat_map(|peer| self.peers(namespace, peer)).collect()),
            ports: some(ports).map(|list| list.iter().filter_map(port).collect()),
        };
        rules.into_iter().map(one).collect()
    }

    fn peers(&self, own: &str, peer: &'a NetworkPolicyPeer) -> Vec<Peer<'a>> {
        if let Some(block) = &peer.ip_block {
            let range = Range::parse(&block.cidr).filter(|range| range.family() == self.family);
            let except = block.except.iter().flatten().filter_map(|range| Range::parse(range)).collect();
            return range.map(|range| Peer::Block(range, except)).into_iter().collect();
        }
        let any = Selector::default();
        let namespaces = peer.namespace_selector.as_ref().map(selector);
        let pods = peer.pod_selector.as_ref().map_or(Some(any), selector);
        let Some(pods) = pods else { return vec![] };
        let is_among = |namespace: &str| match &namespaces {
            None => namespace == own,
            Some(None) => false,
            Some(Some(wanted)) => self.namespaces.get(namespace).is_some_and(|labels| wanted.matches(labels)),
        };
        let selected = self.world.pods.iter().filter(|pod| {
            pod.address(self.family).is_some()
                && is_among(pod.metadata.namespace.as_deref().unwrap_or_default())
                && pods.matches(labels(pod))
        });
        selected.map(|pod| Peer::Pod(pod)).collect()
    }

    /// The pods that a policy is about, among those of a node.
    #[must_use]
    pub fn subjects(&self, policy: &NetworkPolicy, node: &str) -> Vec<&'a Pod> {
        let wanted = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()).map(selector);
        let is_subject = |pod: &&Arc<Pod>| {
            &*pod.node == node
                && pod.address(self.family).is_some()
                && pod.metadata.namespace == policy.metadata.namespace
                && match &wanted {
                    None => true,
                    Some(wanted) => wanted.as_ref().is_some_and(|s| s.matches(labels(pod))),
                }
        };
        self.world.pods.iter().filter(is_subject).map(|pod| &**pod).collect()
    }

    /// All pods that have an address of their own.
    pub fn pods(&self) -> impl Iterator<Item = (&'a Pod, IpAddr)> {
        let family = self.family;
        self.world.pods.iter().filter_map(move |pod| Some((&**pod, pod.address(family)?)))
    }
}

/// An empty list means the same as none: no restriction.
fn some<T>(list: &Option<Vec<T>>) -> Option<&Vec<T>> {
    list.as_ref().filter(|list| !list.is_empty())
}

/// Without `policyTypes`, a policy is about what comes in, and about what goes out if it says anything of that.
fn concerns(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|kind| kind == "Ingress"),
        Direction::Egress if types.is_empty() => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        Direction::Egress => types.iter().any(|kind| kind == "Egress"),
    }
}

fn port(port: &NetworkPolicyPort) -> Option<Port<'_>> {
    let number = match &port.port {
        None => Number::Any,
        Some(IntOrString::String(name)) => Number::Named(name),
        Some(IntOrString::Int(first)) => {
            Number::Range(u16::try_from(*first).ok()?, u16::try_from(port.end_port.unwrap_or(*first)).ok()?)
        }
    };
    Some(Port { protocol: port.protocol.as_deref().unwrap_or("TCP"), number })
}
