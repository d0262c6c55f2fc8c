//! NetworkPolicies as packet rules.
//!
//! [`World`] is what the API says, [`select`] finds out whom each policy is about and who may talk to whom, [`rules`]
//! renders the rules of this node: pure, the same world gives the same text. A pod that no policy is about is not
//! mentioned. Rules look at forwarded packets when destinations have been rewritten and sources have not: what leaves
//! a Service is judged by the pods at both ends. Traffic between a pod and the node it runs on is nobody's to refuse.
//! Each address family has rules of its own; a pod with an address of each is isolated in both.

mod rules;
mod select;
#[cfg(test)]
mod tests;

pub use rules::{PREFIX, ROOT, render};

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::pod::Pod;

/// The objects as they are now.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    /// All namespaces.
    pub namespaces: Vec<Arc<Namespace>>,
    /// All policies.
    pub policies: Vec<Arc<NetworkPolicy>>,
}

/// Which way packets go, as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// The chains of a table: name to rules, each rule without its `-A CHAIN`.
pub type Chains = BTreeMap<String, Vec<String>>;
