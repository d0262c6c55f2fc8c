//! The extension points of a scheduling cycle (upstream `kube-scheduler/framework`), and the run through them.
//!
//! What a plugin prepares for one pod is an object of its own: [`Filter`] and [`Score`] hold what `PreFilter` and
//! `PreScore` computed, so nothing is looked up by name while nodes are gone through. A plugin that has nothing to
//! say about a pod prepares nothing and costs nothing.

pub mod events;
pub mod known;
pub mod memo;
mod run;
mod select;
pub mod status;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use futures::future::BoxFuture;

pub use self::events::{Action, ClusterEvent, Interest, Resource};
pub use self::run::{Framework, Prepared, Weighted};
pub use self::select::{Choice, Nominated, Search, best, enough_nodes};
pub use self::status::{Code, Diagnosis, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::preemption::{Attempt, PostFilter};
use crate::snapshot::Snapshot;

/// The best a plugin can say of a node.
pub const MAX_SCORE: i64 = 100;

/// What a plugin prepared to filter nodes for one pod.
pub trait Filter: Send + Sync {
    /// Whether the node can take the pod.
    ///
    /// # Errors
    /// It cannot.
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;

    /// Counts as if a pod were on the node too.
    fn add_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}

    /// Counts as if a pod were not on the node.
    fn remove_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}

    /// Whether nothing decides but the node and the pod: its requests, host ports, priority, tolerations and wishes for
    /// nodes.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether it counts pods at all. Those that do not are shared, and never told of pods that come and go.
    fn counts_pods(&self) -> bool {
        false
    }

    /// A copy to count otherwise with.
    fn boxed_clone(&self) -> Box<dyn Filter>;
}

/// A filter that depends on nothing but the node.
#[derive(Clone)]
struct Check<F>(F);

impl<F> Filter for Check<F>
where
    F: Fn(&NodeInfo) -> Result<(), Rejection> + Clone + Send + Sync + 'static,
{
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        (self.0)(node)
    }

    fn is_local(&self) -> bool {
        true
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// What a plugin has to say before nodes are looked at.
#[derive(Default)]
pub struct PreFilter {
    /// Filters nodes; none: every node will do.
    pub filter: Option<Arc<dyn Filter>>,
    /// The only nodes that come into question; none: all do.
    pub nodes: Option<BTreeSet<String>>,
}

impl PreFilter {
    /// Nothing to say.
    #[must_use]
    pub fn skip() -> Self {
        Self::default()
    }

    /// Filters nodes with what was prepared.
    #[must_use]
    pub fn with(filter: impl Filter + 'static) -> Self {
        Self { filter: Some(Arc::new(filter)), nodes: None }
    }

    /// Filters nodes with a check that depends on nothing but the node.
    pub fn check<F>(check: F) -> Self
    where
        F: Fn(&NodeInfo) -> Result<(), Rejection> + Clone + Send + Sync + 'static,
    {
        Self::with(Check(check))
    }
}

/// What a plugin prepared to score nodes for one pod.
pub trait Score: Send + Sync {
    /// How good the node is; higher is better. Any range; [`Score::normalize`] brings it to 0..=100.
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all nodes to 0..=100.
    fn normalize(&self, _nodes: &[Arc<NodeInfo>], _scores: &mut [i64]) {}
}

/// Whether a pod may be bound now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Now,
    /// It waits to be allowed, at most so long.
    Wait(Duration),
}

/// One plugin. It implements the extension points it has something to say at; the others do nothing.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// The events after which a pod that this plugin refused may be worth another try (upstream
    /// `EventsToRegister`).
    fn events(&self) -> Vec<Interest> {
        Vec::new()
    }

    /// Whether an event the plugin asked for makes a pod that it refused worth another try (upstream
    /// `QueueingHintFn`).
    fn is_worth_retrying(&self, _pod: &PodInfo, _event: &ClusterEvent) -> bool {
        true
    }

    /// Whether the pod may be tried at all; the error says what it waits for.
    ///
    /// # Errors
    /// The pod must wait.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// Once before filtering: prepares the filter, narrows the nodes down, or refuses the pod for all of them.
    ///
    /// # Errors
    /// No node can take the pod.
    fn pre_filter(&self, _pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<PreFilter, Rejection> {
        Ok(PreFilter::skip())
    }

    /// When the pod fits nowhere: may make room for it. None: the plugin does not do that.
    fn post_filter<'a>(&'a self, _attempt: &'a Attempt<'a>) -> Option<BoxFuture<'a, PostFilter>> {
        None
    }

    /// Once before scoring. None: this plugin has no preference for this pod.
    fn pre_score(
        &self,
        _pod: &Arc<PodInfo>,
        _nodes: &[Arc<NodeInfo>],
        _snapshot: &Snapshot,
    ) -> Option<Box<dyn Score>> {
        None
    }

    /// The pod was given the node: takes what goes with it, in memory.
    ///
    /// # Errors
    /// It cannot be had; the pod does not get the node.
    fn reserve(&self, _pod: &Arc<PodInfo>, _node: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// The pod does not get the node after all. Must be safe to be called without `reserve`, and again.
    fn unreserve(&self, _pod: &PodInfo, _node: &str) {}

    /// Whether [`Plugin::undo`] has something to do for the pod.
    fn has_undo(&self, _pod: &PodInfo) -> bool {
        false
    }

    /// After `unreserve`: takes back what was written for the pod.
    fn undo<'a>(&'a self, _client: &'a Client, _pod: &'a PodInfo) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    /// Whether the pod may be bound now.
    ///
    /// # Errors
    /// It may not be bound at all.
    fn permit(&self, _pod: &PodInfo, _node: &str) -> Result<Permit, Rejection> {
        Ok(Permit::Now)
    }

    /// Whether [`Plugin::pre_bind`] has something to do for the pod on that node.
    fn has_pre_bind(&self, _pod: &PodInfo, _node: &str) -> bool {
        false
    }

    /// What [`Plugin::pre_bind`] waits for, if it may take long: the reason and the message of an event.
    fn waits_for(&self, _pod: &PodInfo, _node: &str) -> Option<(&'static str, String)> {
        None
    }

    /// Writes what must be written before the pod is bound, and waits until it is in effect.
    fn pre_bind<'a>(
        &'a self,
        _client: &'a Client,
        _pod: &'a PodInfo,
        _node: &'a str,
    ) -> BoxFuture<'a, Result<(), Rejection>> {
        Box::pin(async { Ok(()) })
    }

    /// Binds the pod. None: the plugin does not bind pods.
    fn bind<'a>(
        &'a self,
        _client: &'a Client,
        _pod: &'a PodInfo,
        _node: &'a str,
    ) -> Option<BoxFuture<'a, client::kube::Result<()>>> {
        None
    }

    /// The pod was bound.
    fn post_bind(&self, _pod: &PodInfo, _node: &str) {}
}

/// Scales scores so that the greatest becomes 100; with `reverse`, so that the least does (upstream
/// `DefaultNormalizeScore`).
pub fn scale(scores: &mut [i64], reverse: bool) {
    let greatest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if greatest == 0 {
            *score = if reverse { MAX_SCORE } else { *score };
            continue;
        }
        *score = MAX_SCORE * *score / greatest;
        if reverse {
            *score = MAX_SCORE - *score;
        }
    }
}
