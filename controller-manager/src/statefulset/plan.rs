//! Decides which pods of a StatefulSet come, change and go.
//!
//! In order, one pod is dealt with after the other and each waits for the one before to be available; in parallel,
//! all at once. Scaling comes before updating.

use super::revisions::Revisions;
use super::{claims, identity};
use crate::common::{meta, pods};
use crate::deployment::resolve;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use std::sync::Arc;

/// One thing to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Create the pod, its claims before it.
    Create(Box<Pod>),
    /// Create claims that a pending pod waits for.
    EnsureClaims(Arc<Pod>),
    /// Write the pod with its name label or volumes repaired.
    Update(Box<Pod>),
    /// Make the pod's claims follow the retention policy.
    OwnClaims(Arc<Pod>),
    /// Delete the pod.
    Delete(Arc<Pod>),
}

/// What to do, and the status to report.
#[derive(Debug)]
pub struct Plan {
    /// Steps.
    pub steps: Vec<Step>,
    /// Whether each step waits for the one before.
    pub in_order: bool,
    /// The status.
    pub status: StatefulSetStatus,
}

/// For how long a pod must be ready.
pub fn min_ready_seconds(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn strategy(set: &StatefulSet) -> (bool, Option<&RollingUpdateStatefulSetStrategy>) {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    (rolling, strategy.and_then(|strategy| strategy.rolling_update.as_ref()))
}

/// The state of one place in the set.
enum Place {
    Empty,
    Held(Arc<Pod>),
}

/// Decides.
pub fn plan(
    set: &StatefulSet,
    all: &[Arc<Pod>],
    revisions: &Revisions,
    claim: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    now: Timestamp,
) -> Plan {
    let min_ready = min_ready_seconds(set);
    let parallel =
        set.spec.as_ref().and_then(|spec| spec.pod_management_policy.as_deref()) == Some("Parallel");
    let mut plan = Plan { steps: Vec::new(), in_order: !parallel, status: status(set, all, revisions, now) };
    let unavailable =
        |pod: &Pod| !pods::is_available(pod, min_ready, now) || meta::is_deleting(&pod.metadata);
    if !meta::is_deleting(&set.metadata) {
        let (places, condemned) = places(set, all);
        let work = Work { set, revisions, in_order: !parallel, unavailable: &unavailable, claim: &claim };
        if !work.living(&places, &mut plan.steps)
            && !work.condemned(&places, &condemned, &mut plan.steps)
            && plan.steps.iter().all(|step| !matches!(step, Step::Create(_) | Step::Delete(_)))
        {
            let updated = work.outdated(&places);
            let current =
                plan.status.current_replicas.unwrap_or(0) - i32::try_from(updated.len()).unwrap_or(0);
            plan.status.current_replicas = Some(current.max(0));
            plan.steps.extend(updated.into_iter().map(Step::Delete));
        }
    }
    complete(set, &mut plan.status);
    plan
}

/// The pods at their places, and those beyond, highest ordinal first.
fn places(set: &StatefulSet, all: &[Arc<Pod>]) -> (Vec<(i32, Place)>, Vec<Arc<Pod>>) {
    let held = |ordinal| all.iter().find(|pod| identity::ordinal(pod) == Some(ordinal)).cloned();
    let start = identity::start(set);
    let places = (start..start + replicas(set))
        .map(|ordinal| (ordinal, held(ordinal).map_or(Place::Empty, Place::Held)))
        .collect();
    let beyond =
        |pod: &&Arc<Pod>| identity::ordinal(pod).is_some_and(|ordinal| !identity::in_range(set, ordinal));
    let mut condemned: Vec<_> = all.iter().filter(beyond).cloned().collect();
    condemned.sort_by_key(|pod| std::cmp::Reverse(identity::ordinal(pod)));
    (places, condemned)
}

struct Work<'a> {
    set: &'a StatefulSet,
    revisions: &'a Revisions,
    in_order: bool,
    unavailable: &'a dyn Fn(&Pod) -> bool,
    claim: &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
}

impl Work<'_> {
    /// Deals with the places that should be filled. `true` when the rest has to wait.
    fn living(&self, places: &[(i32, Place)], steps: &mut Vec<Step>) -> bool {
        for (ordinal, place) in places {
            let stop = match place {
                Place::Empty => self.empty(*ordinal, steps),
                Place::Held(pod) => self.held(pod, steps),
            };
            if stop && self.in_order {
                return true;
            }
        }
        false
    }

    fn empty(&self, ordinal: i32, steps: &mut Vec<Step>) -> bool {
        let pod = self.new_pod(ordinal);
        let stale = claims::names(self.set, &pod).iter().any(|(_, name)| {
            (self.claim)(name).is_some_and(|claim| claims::is_stale(&claim, self.set, &pod))
        });
        if !stale {
            steps.push(Step::Create(Box::new(pod)));
        }
        true
    }

    fn held(&self, pod: &Arc<Pod>, steps: &mut Vec<Step>) -> bool {
        if pods::is_terminal(pod) {
            if !meta::is_deleting(&pod.metadata) {
                steps.push(Step::Delete(pod.clone()));
            }
            return true;
        }
        let missing = || claims::names(self.set, pod).iter().any(|(_, name)| (self.claim)(name).is_none());
        if pods::phase(pod) == "Pending" && !meta::is_deleting(&pod.metadata) && missing() {
            steps.push(Step::EnsureClaims(pod.clone()));
        }
        let ready = pods::phase(pod) == "Running" && pods::is_ready(pod);
        if self.in_order && (!ready || (self.unavailable)(pod)) {
            return true;
        }
        if let Some(repaired) = identity::repaired(self.set, pod) {
            steps.push(Step::Update(Box::new(repaired)));
        } else {
            self.own_claims(pod, steps);
        }
        false
    }

    fn own_claims(&self, pod: &Arc<Pod>, steps: &mut Vec<Step>) {
        let wrong = claims::names(self.set, pod).iter().any(|(_, name)| {
            (self.claim)(name).is_some_and(|claim| claims::with_owners(&claim, self.set, pod).is_some())
        });
        if wrong {
            steps.push(Step::OwnClaims(pod.clone()));
        }
    }

    /// A new pod gets the current template below the partition and the new one above it.
    fn new_pod(&self, ordinal: i32) -> Pod {
        let (rolling, parameters) = strategy(self.set);
        let start = identity::start(self.set);
        let current_replicas =
            self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
        let old = match parameters {
            Some(parameters) => ordinal < start + parameters.partition.unwrap_or(0),
            None => rolling && ordinal < start + current_replicas,
        };
        let revision = if old { &self.revisions.current } else { &self.revisions.update };
        identity::build(self.set, &revision.template, &revision.name, ordinal)
    }

    /// Takes away pods beyond the wanted number. `true` when the rest has to wait.
    fn condemned(&self, places: &[(i32, Place)], condemned: &[Arc<Pod>], steps: &mut Vec<Step>) -> bool {
        condemned.iter().for_each(|pod| self.own_claims(pod, steps));
        let first_unavailable = places
            .iter()
            .filter_map(|(_, place)| match place {
                Place::Held(pod) => Some(pod),
                Place::Empty => None,
            })
            .chain(condemned.iter().rev())
            .find(|pod| (self.unavailable)(pod));
        for pod in condemned {
            if meta::is_deleting(&pod.metadata) {
                if self.in_order {
                    return true;
                }
                continue;
            }
            let is_first = first_unavailable.is_some_and(|first| Arc::ptr_eq(first, pod));
            if self.in_order && (self.unavailable)(pod) && !is_first {
                return true;
            }
            steps.push(Step::Delete(pod.clone()));
            if self.in_order {
                return true;
            }
        }
        false
    }

    /// The pods to replace now, from the highest ordinal down to the partition.
    fn outdated(&self, places: &[(i32, Place)]) -> Vec<Arc<Pod>> {
        let (rolling, parameters) = strategy(self.set);
        if !rolling {
            return Vec::new();
        }
        let partition = parameters.and_then(|parameters| parameters.partition).unwrap_or(0);
        let targets =
            || places.iter().skip(usize::try_from(partition).unwrap_or(0)).rev().map(|(_, place)| place);
        let is_old = |pod: &Pod| {
            identity::revision(pod) != self.revisions.update.name && !meta::is_deleting(&pod.metadata)
        };
        let Some(bound) = parameters.and_then(|parameters| parameters.max_unavailable.as_ref()) else {
            // One at a time, once those above are available. Those below do not matter: they may be what the update
            // mends.
            for place in targets() {
                match place {
                    Place::Held(pod) if is_old(pod) => return vec![pod.clone()],
                    Place::Held(pod) if !(self.unavailable)(pod) => {}
                    _ => break,
                }
            }
            return Vec::new();
        };
        let may_be = resolve(Some(bound), replicas(self.set), false).max(1);
        let unavailable = places.iter().filter(|(_, place)| match place {
            Place::Held(pod) => (self.unavailable)(pod),
            Place::Empty => true,
        });
        let room = usize::try_from(may_be).unwrap_or(1).saturating_sub(unavailable.count());
        let old = targets().filter_map(|place| match place {
            Place::Held(pod) if is_old(pod) => Some(pod),
            _ => None,
        });
        old.take(room).cloned().collect()
    }
}

fn status(set: &StatefulSet, all: &[Arc<Pod>], revisions: &Revisions, now: Timestamp) -> StatefulSetStatus {
    let count = |matches: &dyn Fn(&Pod) -> bool| {
        i32::try_from(all.iter().filter(|pod| matches(pod)).count()).unwrap_or(i32::MAX)
    };
    let created = |pod: &Pod| !pods::phase(pod).is_empty();
    let ready = |pod: &Pod| pods::phase(pod) == "Running" && pods::is_ready(pod);
    let of = |pod: &Pod, name: &str| {
        created(pod) && !meta::is_deleting(&pod.metadata) && identity::revision(pod) == name
    };
    let min_ready = min_ready_seconds(set);
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(&created),
        ready_replicas: Some(count(&ready)),
        available_replicas: Some(count(&|pod| ready(pod) && pods::is_available(pod, min_ready, now))),
        current_replicas: Some(count(&|pod| of(pod, &revisions.current.name))),
        updated_replicas: Some(count(&|pod| of(pod, &revisions.update.name))),
        current_revision: Some(revisions.current.name.clone()),
        update_revision: Some(revisions.update.name.clone()),
        collision_count: Some(revisions.collision_count),
        conditions: None,
    }
}

/// When all pods are new and ready, the new template is the current one.
fn complete(set: &StatefulSet, status: &mut StatefulSetStatus) {
    let wanted = replicas(set);
    if strategy(set).0
        && status.updated_replicas == Some(wanted)
        && status.ready_replicas == Some(wanted)
        && status.replicas == wanted
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
}

/// Whether a status says nothing new.
pub fn same_status(before: &StatefulSetStatus, now: &StatefulSetStatus) -> bool {
    let number = |number: Option<i32>| number.unwrap_or(0);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    now.observed_generation.unwrap_or(0) <= before.observed_generation.unwrap_or(0)
        && before.replicas == now.replicas
        && number(before.ready_replicas) == number(now.ready_replicas)
        && number(before.available_replicas) == number(now.available_replicas)
        && number(before.current_replicas) == number(now.current_replicas)
        && number(before.updated_replicas) == number(now.updated_replicas)
        && number(before.collision_count) == number(now.collision_count)
        && text(&before.current_revision) == text(&now.current_revision)
        && text(&before.update_revision) == text(&now.update_revision)
}

#[cfg(test)]
mod tests {
    use super::super::revisions::Revision;
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::apps::v1::{StatefulSetSpec, StatefulSetUpdateStrategy};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn set(replicas: i32, policy: &str, partition: i32, max_unavailable: i32) -> StatefulSet {
        StatefulSet {
            metadata: ObjectMeta { name: Some("web".into()), uid: Some("set".into()), ..Default::default() },
            spec: Some(StatefulSetSpec {
                replicas: Some(replicas),
                pod_management_policy: Some(policy.into()),
                update_strategy: Some(StatefulSetUpdateStrategy {
                    type_: Some("RollingUpdate".into()),
                    rolling_update: Some(RollingUpdateStatefulSetStrategy {
                        partition: Some(partition),
                        max_unavailable: (max_unavailable > 0).then_some(IntOrString::Int(max_unavailable)),
                    }),
                }),
                ..Default::default()
            }),
            status: None,
        }
    }

    /// `0+new` is pod web-0 of revision `new`, ready; `-` unready, `x` failed, `t` ready but terminating.
    fn pods(text: &str) -> Vec<Arc<Pod>> {
        let parse = |word: &str| {
            let index = word.find(|c: char| !c.is_ascii_digit()).expect("a mark");
            let (ordinal, mark, revision) = (&word[..index], &word[index..=index], &word[index + 1..]);
            let name = format!("web-{ordinal}");
            let mut pod = match mark {
                "-" => pod(&name, "n", "Running", None),
                "x" => pod(&name, "n", "Failed", None),
                _ => pod(&name, "n", "Running", Some(1)),
            };
            pod.metadata.labels = Some(
                [(identity::REVISION.to_owned(), revision.to_owned()), (identity::POD_NAME.to_owned(), name)]
                    .into(),
            );
            pod.metadata.deletion_timestamp = (mark == "t").then(|| Time(at(5)));
            Arc::new(pod)
        };
        text.split_whitespace().map(parse).collect()
    }

    fn steps(set: &StatefulSet, text: &str) -> String {
        let revision = |name: &str| Revision { name: name.into(), ..Default::default() };
        let revisions = Revisions { current: revision("old"), update: revision("new"), collision_count: 0 };
        let plan = plan(set, &pods(text), &revisions, |_| None, at(100));
        let word = |step: &Step| match step {
            Step::Create(pod) => {
                format!("+{}{}", identity::ordinal(pod).unwrap_or(-1), identity::revision(pod))
            }
            Step::Delete(pod) => format!("-{}", identity::ordinal(pod).unwrap_or(-1)),
            other => format!("{other:?}"),
        };
        plan.steps.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_come_and_go_in_order() {
        let ordered = set(3, "OrderedReady", 0, 1);
        for (have, expected) in [
            ("", "+0new"),
            ("0-new", ""),
            ("0+new", "+1new"),
            ("0+new 1+new", "+2new"),
            ("0+new 1xnew", "-1"),
            ("0+new 2+new", "+1new"),
            ("0+new 1+new 2+new", ""),
            ("0+new 1+new 2+new 3+new 4+new", "-4"),
            ("0+new 1+new 2+new 3-new 4+new", "-4"),
            ("0+new 1+new 2+new 3+new 4-new", "-4"),
            ("0+new 1+new 2+new 3+new 4tnew", ""),
            ("0-new 1+new 2+new 3+new", ""),
        ] {
            assert_eq!(steps(&ordered, have), expected, "{have}");
        }
    }

    #[test]
    fn parallel_pods_come_and_go_at_once() {
        let parallel = set(3, "Parallel", 0, 1);
        for (have, expected) in
            [("", "+0new +1new +2new"), ("1-new", "+0new +2new"), ("0+new 1+new 2+new 3+new 4-new", "-4 -3")]
        {
            assert_eq!(steps(&parallel, have), expected, "{have}");
        }
    }

    #[test]
    fn update_goes_from_the_top_down_to_the_partition() {
        for (partition, max_unavailable, have, expected) in [
            (0, 1, "0+old 1+old 2+old", "-2"),
            (0, 1, "0+old 1+old 2-new", ""),
            (0, 1, "0+old 1+old 2+new", "-1"),
            (0, 2, "0+old 1+old 2+old", "-2 -1"),
            (2, 1, "0+old 1+old 2+new", ""),
            (2, 1, "0+old 1+old", "+2new"),
            (2, 1, "0+old 2+old", "+1old"),
            (0, 1, "0+new 1+new 2+new", ""),
        ] {
            let set = set(3, "OrderedReady", partition, max_unavailable);
            assert_eq!(steps(&set, have), expected, "partition {partition}: {have}");
        }
    }

    /// Without a bound, what is broken below does not keep those above from their update.
    #[test]
    fn update_of_parallel_pods_goes_past_broken_ones() {
        for (max_unavailable, have, expected) in [
            (0, "0-old 1+old 2+old", "-2"),
            (0, "0+old 1+old 2-old", "-2"),
            (0, "0-old 1+old 2-new", ""),
            (0, "0-old 1+old 2+new", "-1"),
            (0, "0-old 1told 2+new", ""),
            (0, "0-old 1+new 2+new", "-0"),
            (1, "0-old 1+old 2+old", ""),
            (2, "0-old 1+old 2+old", "-2"),
            (2, "0+old 1+old 2+old", "-2 -1"),
            (2, "0+old 1+old 2tnew", "-1"),
        ] {
            let set = set(3, "Parallel", 0, max_unavailable);
            assert_eq!(steps(&set, have), expected, "{max_unavailable}: {have}");
        }
    }

    #[test]
    fn completed_update_becomes_current() {
        let revision = |name: &str| Revision { name: name.into(), ..Default::default() };
        let revisions = Revisions { current: revision("old"), update: revision("new"), collision_count: 0 };
        let status = |text: &str| {
            plan(&set(2, "OrderedReady", 0, 1), &pods(text), &revisions, |_| None, at(100)).status
        };
        assert_eq!(status("0+old 1+new").current_revision.as_deref(), Some("old"));
        let done = status("0+new 1+new");
        assert_eq!(done.current_revision.as_deref(), Some("new"));
        assert_eq!((done.current_replicas, done.updated_replicas), (Some(2), Some(2)));
        assert!(same_status(&done, &done.clone()));
    }
}
