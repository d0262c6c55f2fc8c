//! Decides on which nodes pods of a DaemonSet come and go.

use super::{by_node, node, template, update};
use crate::common::{meta, pods};
use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// Events: reason, type, message.
    pub events: Vec<(&'static str, EventType, String)>,
    /// When a failed pod may be replaced that may not be yet.
    pub retry_after: Option<Duration>,
}

/// A DaemonSet with all that decides about it.
pub struct View<'a> {
    /// The set.
    pub set: &'a DaemonSet,
    /// The nodes.
    pub nodes: &'a [Arc<Node>],
    /// Its pods by node, oldest first.
    pub pods: BTreeMap<String, Vec<Arc<Pod>>>,
    /// The hash of the present template.
    pub hash: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// For how long a pod must be ready.
pub fn min_ready_seconds(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

impl<'a> View<'a> {
    /// Sorts the pods by node.
    pub fn new(
        set: &'a DaemonSet,
        nodes: &'a [Arc<Node>],
        pods: &[Arc<Pod>],
        hash: &'a str,
        now: Timestamp,
    ) -> Self {
        Self { set, nodes, pods: by_node(pods), hash, now }
    }

    /// Whether the pod has been ready for long enough.
    pub fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, min_ready_seconds(self.set), self.now)
    }

    /// Whether the pod has the present template.
    pub fn is_updated(&self, pod: &Pod) -> bool {
        template::is_updated(self.set, pod, self.hash)
    }

    /// Nodes that should run the pod.
    pub fn wanted(&self) -> usize {
        self.nodes.iter().filter(|here| node::fit(here, self.set).run).count()
    }

    /// Counts for the status.
    pub fn status(&self) -> DaemonSetStatus {
        let mut status =
            DaemonSetStatus { observed_generation: self.set.metadata.generation, ..Default::default() };
        let (mut updated, mut available) = (0, 0);
        for here in self.nodes {
            let first = self.pods.get(meta::name(&here.metadata)).and_then(|pods| pods.first());
            match (node::fit(here, self.set).run, first) {
                (false, None) => {}
                (false, Some(_)) => status.number_misscheduled += 1,
                (true, None) => status.desired_number_scheduled += 1,
                (true, Some(pod)) => {
                    status.desired_number_scheduled += 1;
                    status.current_number_scheduled += 1;
                    status.number_ready += i32::from(pods::is_ready(pod));
                    available += i32::from(self.is_available(pod));
                    updated += i32::from(self.is_updated(pod));
                }
            }
        }
        let some = |number: i32| Some(number).filter(|number| *number != 0);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status
    }
}

/// Whether a status says nothing new.
pub fn same_status(before: &DaemonSetStatus, now: &DaemonSetStatus) -> bool {
    let number = |number: Option<i32>| number.unwrap_or(0);
    before.desired_number_scheduled == now.desired_number_scheduled
        && before.current_number_scheduled == now.current_number_scheduled
        && before.number_misscheduled == now.number_misscheduled
        && before.number_ready == now.number_ready
        && number(before.updated_number_scheduled) == number(now.updated_number_scheduled)
        && number(before.number_available) == number(now.number_available)
        && number(before.number_unavailable) == number(now.number_unavailable)
        && number(before.collision_count) == number(now.collision_count)
        && before.observed_generation.unwrap_or(0) >= now.observed_generation.unwrap_or(0)
}

/// How long to wait before a failed pod is replaced: longer each time it fails on the same node.
#[derive(Default)]
pub struct Backoff(HashMap<String, (Timestamp, Duration)>);

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(900);

impl Backoff {
    /// `None` when it may be replaced now, which counts as a replacement; else how long to wait.
    fn wait(&mut self, key: String, now: Timestamp) -> Option<Duration> {
        self.0.retain(|_, (last, delay)| age(*last, now) < delay.saturating_mul(2).max(LONGEST));
        match self.0.get(&key).copied() {
            Some((last, delay)) if age(last, now) < delay => Some(delay.saturating_sub(age(last, now))),
            Some((_, delay)) => {
                self.0.insert(key, (now, delay.saturating_mul(2).min(LONGEST)));
                None
            }
            None => {
                self.0.insert(key, (now, FIRST));
                None
            }
        }
    }
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(now.as_millisecond() - since.as_millisecond()).unwrap_or(0))
}

/// Decides: first who is missing or too many, and only when nothing is, what the update replaces.
pub fn plan(view: &View<'_>, backoff: &mut Backoff) -> Plan {
    let mut plan = Plan::default();
    for here in view.nodes {
        on_node(view, here, backoff, &mut plan);
    }
    let known: Vec<_> = view.nodes.iter().map(|here| meta::name(&here.metadata)).collect();
    let elsewhere = view.pods.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    let unbound = elsewhere.flat_map(|(_, pods)| pods).filter(|pod| pods::node_name(pod).is_empty());
    plan.delete.extend(unbound.filter(|pod| !meta::is_deleting(&pod.metadata)).cloned());
    let strategy = view.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    if rolling && plan.create.is_empty() && plan.delete.is_empty() {
        update::plan(view, &mut plan);
    }
    plan
}

fn on_node(view: &View<'_>, here: &Node, backoff: &mut Backoff, plan: &mut Plan) {
    let name = meta::name(&here.metadata);
    let fit = node::fit(here, view.set);
    let pods = view.pods.get(name).map(Vec::as_slice).unwrap_or_default();
    let staying = pods.iter().filter(|pod| !meta::is_deleting(&pod.metadata));
    if fit.run && pods.is_empty() {
        plan.create.push(name.to_owned());
        return;
    }
    if !fit.stay {
        plan.delete.extend(staying.cloned());
        return;
    }
    let mut running = Vec::new();
    for pod in staying {
        let what = format!(
            "daemon pod {}/{} on node {name}",
            meta::namespace(&pod.metadata),
            meta::name(&pod.metadata)
        );
        match pods::phase(pod) {
            "Failed" => match backoff.wait(backoff_key(view.set, name), view.now) {
                Some(wait) => plan.retry_after = Some(plan.retry_after.map_or(wait, |other| other.min(wait))),
                None => {
                    let message = format!("Found failed {what}, will try to kill it");
                    plan.events.push(("FailedDaemonPod", EventType::Warning, message));
                    plan.delete.push(pod.clone());
                }
            },
            "Succeeded" => {
                let message = format!("Found succeeded {what}, will try to delete it");
                plan.events.push(("SucceededDaemonPod", EventType::Normal, message));
                plan.delete.push(pod.clone());
            }
            _ => running.push(pod.clone()),
        }
    }
    if update::max_surge(view.set, 1) == 0 {
        plan.delete.extend(running.into_iter().skip(1));
    } else {
        surging(view, name, fit.run, running, plan);
    }
}

/// With surge a node may have an old and a new pod for a while.
fn surging(view: &View<'_>, name: &str, run: bool, running: Vec<Arc<Pod>>, plan: &mut Plan) {
    if running.is_empty() && run {
        plan.create.push(name.to_owned());
        return;
    }
    if running.len() < 2 {
        return;
    }
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| view.is_updated(pod));
    plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).cloned());
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!pods::is_ready(old) || view.is_available(new))
    {
        plan.delete.push(old.clone());
    }
}

fn backoff_key(set: &DaemonSet, node: &str) -> String {
    let generation = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    format!("{}/{generation}/{node}", meta::uid(&set.metadata))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::apps::v1::{DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
    use k8s_openapi::api::core::v1::{NodeSpec, PodSpec, PodTemplateSpec, Taint};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    /// A set that updates within these bounds.
    pub fn set(surge: i32, unavailable: i32) -> DaemonSet {
        let mut set = DaemonSet::default();
        set.metadata.name = Some("agent".into());
        set.metadata.uid = Some("uid-agent".into());
        set.spec = Some(DaemonSetSpec {
            template: PodTemplateSpec { spec: Some(PodSpec::default()), ..Default::default() },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            ..Default::default()
        });
        set
    }

    /// Nodes by name; `!` before a name taints it NoSchedule, `!!` NoExecute.
    pub fn nodes(text: &str) -> Vec<Arc<Node>> {
        let parse = |word: &str| {
            let effect = match word {
                word if word.starts_with("!!") => Some("NoExecute"),
                word if word.starts_with('!') => Some("NoSchedule"),
                _ => None,
            };
            let mut node = Node::default();
            node.metadata.name = Some(word.trim_start_matches('!').into());
            node.spec = effect.map(|effect| NodeSpec {
                taints: Some(vec![Taint { key: "t".into(), effect: effect.into(), ..Default::default() }]),
                ..Default::default()
            });
            Arc::new(node)
        };
        text.split_whitespace().map(parse).collect()
    }

    /// `n1+new` is a ready pod on n1 of template `new`; `-` unready, `x` failed.
    pub fn pods(text: &str) -> Vec<Arc<Pod>> {
        let parse = |(index, word): (usize, &str)| {
            let at = word.find(['+', '-', 'x']).expect("a mark");
            let (node, mark, hash) = (&word[..at], &word[at..=at], &word[at + 1..]);
            let (phase, ready) = match mark {
                "+" => ("Running", Some(1)),
                "-" => ("Running", None),
                _ => ("Failed", None),
            };
            let mut pod = pod(&format!("{word}{index}"), node, phase, ready);
            pod.metadata.labels = Some([(super::super::HASH.to_owned(), hash.to_owned())].into());
            Arc::new(pod)
        };
        text.split_whitespace().enumerate().map(parse).collect()
    }

    /// What is planned: `+node` for a creation, `-node` for a deletion.
    pub fn planned(set: &DaemonSet, on: &str, have: &str) -> String {
        let (nodes, pods) = (nodes(on), pods(have));
        let view = View::new(set, &nodes, &pods, "new", at(100));
        let plan = plan(&view, &mut Backoff::default());
        let mut words: Vec<_> = plan.create.iter().map(|node| format!("+{node}")).collect();
        words.extend(plan.delete.iter().map(|pod| format!("-{}", pods::node_name(pod))));
        words.join(" ")
    }

    #[test]
    fn each_node_that_wants_it_has_one_pod() {
        for (on, have, expected) in [
            ("a b", "", "+a +b"),
            ("a b", "a+new b+new", ""),
            ("a !b !!c", "", "+a"),
            ("a !b !!c", "a+new b+new c+new", "-c"),
            ("a", "a+new a+new", "-a"),
            ("a", "axnew", "-a"),
            ("a", "a+new gone+new", ""),
        ] {
            assert_eq!(planned(&set(0, 1), on, have), expected, "{on}: {have}");
        }
    }

    #[test]
    fn failing_pods_are_replaced_ever_more_slowly() {
        let mut backoff = Backoff::default();
        let mut wait = |second| backoff.wait("k".into(), at(second)).map(|wait| wait.as_secs());
        assert_eq!(wait(0), None);
        assert_eq!(wait(0), Some(1));
        assert_eq!(wait(1), None);
        assert_eq!(wait(2), Some(1));
        assert_eq!(wait(3), None);
        assert_eq!(wait(4), Some(3));
    }

    #[test]
    fn status_counts_nodes() {
        let (nodes, pods, set) = (nodes("a b c !d"), pods("a+new b-old d+new"), set(0, 1));
        let status = View::new(&set, &nodes, &pods, "new", at(100)).status();
        assert_eq!(
            (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled),
            (3, 2, 1)
        );
        assert_eq!(
            (status.number_ready, status.number_available, status.number_unavailable),
            (1, Some(1), Some(2))
        );
        assert_eq!(status.updated_number_scheduled, Some(1));
    }
}
