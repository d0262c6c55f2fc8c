//! Processes outside that have a say in scheduling (upstream `extender.go`).

mod http;

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::preemption::Candidate;
use crate::snapshot::Snapshot;

pub use self::http::HttpExtender;

/// The plugin name that refusals by extenders go by. Any event lets the pod be tried again.
pub const NAME: &str = "Extender";

/// Nodes that an extender refused, with its reasons.
#[derive(Debug, Default)]
pub struct Filtered {
    /// The nodes left.
    pub left: Vec<Arc<NodeInfo>>,
    /// Nodes refused, for which removing pods might help, or not (true).
    pub refused: Vec<(String, String, bool)>,
}

/// A process outside that has a say in scheduling.
pub trait Extender: Send + Sync {
    /// Its name in messages.
    fn name(&self) -> &str;
    /// Whether it is no error if it cannot be reached.
    fn is_ignorable(&self) -> bool;
    /// Whether it has a say about this pod.
    fn is_interested(&self, pod: &Pod) -> bool;
    /// Whether it filters nodes.
    fn is_filter(&self) -> bool;
    /// Whether it scores nodes.
    fn is_prioritizer(&self) -> bool;
    /// Whether it binds pods.
    fn is_binder(&self) -> bool;
    /// Whether it has a say in preemption.
    fn supports_preemption(&self) -> bool;
    /// Filters nodes.
    fn filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: Vec<Arc<NodeInfo>>,
    ) -> BoxFuture<'a, Result<Filtered, String>>;
    /// Scores nodes, weighted and brought to the scheduler's range.
    fn prioritize<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a [Arc<NodeInfo>],
    ) -> BoxFuture<'a, Result<Vec<(String, i64)>, String>>;
    /// Binds the pod.
    fn bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), String>>;
    /// Leaves of the candidates those that will do, maybe with other victims.
    fn process_preemption<'a>(
        &'a self,
        pod: &'a PodInfo,
        candidates: &'a [Candidate],
        snapshot: &'a Snapshot,
    ) -> BoxFuture<'a, Result<Vec<Candidate>, String>>;
}
