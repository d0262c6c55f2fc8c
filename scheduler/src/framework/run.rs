//! One profile: its plugins by extension point, and the run through those that decide.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::Client;

use super::known::Memo;
use super::{Code, Diagnosis, Filter, Plugin, PreFilter, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// A plugin that scores, and how much its scores count.
pub struct Weighted {
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// The factor.
    pub weight: i64,
}

/// The plugins of one profile, at each extension point in the order they are called.
#[derive(Default)]
pub struct Framework {
    /// The name that pods ask for.
    pub scheduler_name: String,
    /// How many of the nodes to look for, in percent; none: the scheduler's.
    pub percentage_of_nodes_to_score: Option<i32>,
    /// All plugins, once each.
    pub plugins: Vec<Arc<dyn Plugin>>,
    /// At `PreEnqueue`.
    pub pre_enqueue: Vec<Arc<dyn Plugin>>,
    /// At `PreFilter`, in order.
    pub pre_filter: Vec<Arc<dyn Plugin>>,
    /// At `Filter`, in order.
    pub filter: Vec<Arc<dyn Plugin>>,
    /// At `PostFilter`.
    pub post_filter: Vec<Arc<dyn Plugin>>,
    /// At `PreScore` and `Score`.
    pub score: Vec<Weighted>,
    /// At `Reserve`.
    pub reserve: Vec<Arc<dyn Plugin>>,
    /// At `Permit`.
    pub permit: Vec<Arc<dyn Plugin>>,
    /// At `PreBind`.
    pub pre_bind: Vec<Arc<dyn Plugin>>,
    /// At `Bind`.
    pub bind: Vec<Arc<dyn Plugin>>,
    /// At `PostBind`.
    pub post_bind: Vec<Arc<dyn Plugin>>,
    /// What was found of nodes for the last kinds of pods.
    pub known: Memo,
}

/// What the plugins prepared to filter nodes for one pod. Clones share it until they count otherwise.
#[derive(Clone, Default)]
pub struct Prepared {
    filters: Vec<Arc<dyn Filter>>,
    /// Those of them that count pods.
    counting: Vec<usize>,
    /// Whether more decides than each node for itself.
    wide: bool,
    /// The only nodes that come into question; none: all do.
    pub nodes: Option<BTreeSet<String>>,
    /// The plugins that narrowed the nodes down.
    pub narrowed_by: BTreeSet<&'static str>,
}

impl Prepared {
    fn push(&mut self, filter: Arc<dyn Filter>) {
        if filter.counts_pods() {
            self.counting.push(self.filters.len());
        }
        self.wide |= !filter.is_local();
        self.filters.push(filter);
    }

    /// Whether nothing decides but each node for itself, and the pods nominated to it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        !self.wide
    }

    /// The filters alone, to count otherwise with.
    #[must_use]
    pub fn trial(&self) -> Self {
        Self { filters: self.filters.clone(), counting: self.counting.clone(), ..Self::default() }
    }

    /// Whether the node can take the pod.
    ///
    /// # Errors
    /// The first plugin that says it cannot.
    pub fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.filters.iter().try_for_each(|filter| filter.filter(node))
    }

    fn count(&mut self, change: impl Fn(&mut dyn Filter)) {
        for at in &self.counting {
            let filter = &mut self.filters[*at];
            if Arc::get_mut(filter).is_none() {
                *filter = Arc::from(filter.boxed_clone());
            }
            change(Arc::get_mut(filter).expect("nobody else has the copy"));
        }
    }

    /// Counts as if a pod were on the node too.
    pub fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.count(|filter| filter.add_pod(pod, node));
    }

    /// Counts as if a pod were not on the node.
    pub fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.count(|filter| filter.remove_pod(pod, node));
    }

    /// Whether the node can take the pod, also if the pods that are nominated to it and no less important come
    /// there. Both must hold: they may never come, and they may be in the way.
    ///
    /// # Errors
    /// The first plugin that says it cannot.
    pub fn check_with_nominated(
        &self,
        pod: &PodInfo,
        node: &NodeInfo,
        nominated: &[Arc<PodInfo>],
    ) -> Result<(), Rejection> {
        let mut more =
            nominated.iter().filter(|p| p.priority >= pod.priority && p.uid() != pod.uid()).peekable();
        if more.peek().is_some() {
            let mut fuller = node.clone();
            if self.counting.is_empty() {
                more.for_each(|pod| fuller.add(pod.clone()));
                self.check(&fuller)?;
            } else {
                let mut state = self.trial();
                for pod in more {
                    fuller.add(pod.clone());
                    state.add_pod(pod, &fuller);
                }
                state.check(&fuller)?;
            }
        }
        self.check(node)
    }

    fn narrow(&mut self, plugin: &'static str, nodes: BTreeSet<String>) -> Result<(), Rejection> {
        self.narrowed_by.insert(plugin);
        let left = match self.nodes.take() {
            None => nodes,
            Some(known) => known.intersection(&nodes).cloned().collect(),
        };
        if left.is_empty() {
            let names = self.narrowed_by.iter().copied().collect::<Vec<_>>().join(" ");
            let message = if self.narrowed_by.len() == 1 {
                format!("node(s) didn't satisfy plugin {names}")
            } else {
                format!("node(s) didn't satisfy plugin(s) [{names}] simultaneously")
            };
            return Err(Rejection::unresolvable(plugin, message));
        }
        self.nodes = Some(left);
        Ok(())
    }
}

impl Framework {
    /// Whether the pod may be tried.
    ///
    /// # Errors
    /// A plugin makes it wait.
    pub fn run_pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        self.pre_enqueue.iter().try_for_each(|plugin| plugin.pre_enqueue(pod))
    }

    /// A plugin by name.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<&Arc<dyn Plugin>> {
        self.plugins.iter().find(|plugin| plugin.name() == name)
    }

    fn filters(&self, plugin: &dyn Plugin) -> bool {
        self.filter.iter().any(|p| p.name() == plugin.name())
    }

    /// Lets the plugins prepare. If the pod is refused for all nodes in a way that removing pods might help, what
    /// they prepared comes along, to find that out.
    ///
    /// # Errors
    /// What refused the pod, or failed.
    pub fn prepare(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> (Prepared, Result<(), Rejection>) {
        let (mut prepared, mut refused) = (Prepared::default(), None);
        for plugin in &self.pre_filter {
            let filters = self.filters(&**plugin);
            let said = plugin.pre_filter(pod, snapshot).and_then(|PreFilter { filter, nodes }| {
                filter.filter(|_| filters).into_iter().for_each(|filter| prepared.push(filter));
                nodes.map_or(Ok(()), |nodes| prepared.narrow(plugin.name(), nodes))
            });
            match said {
                Ok(()) => {}
                Err(rejection) if rejection.code == Code::Unschedulable => {
                    // What the others prepared is not all there is to say.
                    prepared.wide = true;
                    refused.get_or_insert(rejection);
                }
                Err(rejection) => return (prepared, Err(rejection)),
            }
        }
        (prepared, refused.map_or(Ok(()), Err))
    }

    /// The diagnosis of a pod that was refused before any node was looked at.
    #[must_use]
    pub fn refused_before(
        &self,
        snapshot: &Snapshot,
        prepared: &Prepared,
        rejection: Rejection,
    ) -> Diagnosis {
        let mut diagnosis = Diagnosis::new(snapshot.nodes.len());
        diagnosis.plugins.clone_from(&prepared.narrowed_by);
        diagnosis.refuse_all(rejection);
        diagnosis
    }

    /// Takes what goes with the node for the pod.
    ///
    /// # Errors
    /// A plugin could not; nothing is taken.
    pub fn run_reserve(&self, pod: &Arc<PodInfo>, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = self.reserve.iter().try_for_each(|plugin| plugin.reserve(pod, node));
        if taken.is_err() {
            self.run_unreserve(pod, node.name());
        }
        taken
    }

    /// Gives back what went with the node, in reverse order.
    pub fn run_unreserve(&self, pod: &PodInfo, node: &str) {
        self.reserve.iter().rev().for_each(|plugin| plugin.unreserve(pod, node));
    }

    /// Takes back what was written, in reverse order.
    pub async fn run_undo(&self, client: &Client, pod: &PodInfo) {
        for plugin in self.reserve.iter().rev().filter(|plugin| plugin.has_undo(pod)) {
            plugin.undo(client, pod).await;
        }
    }
}
