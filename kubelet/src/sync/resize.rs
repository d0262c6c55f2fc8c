//! What a resize needs: which containers are told what, and in which order with the pod's control group. Pure.
//!
//! Mechanism as upstream's `computePodResizeAction` and `doPodResizeAction`: memory and CPU one after the other; where
//! the pod grows, its group before its containers, where it shrinks, after them; a pod that grows gets its limit before
//! its weight, so that weight never exceeds limit.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::plan::{Kill, KillReason, PodPlan};
use crate::allocation::{Resource, Sizes};
use crate::cgroups::Limits;
use crate::types::{self, ContainerState, ContainerStatus, PodStatus};

/// One running container that is to be told other amounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUpdate {
    /// The runtime's identifier.
    pub id: String,
    /// Name in the spec.
    pub name: String,
    /// What the runtime has been told.
    pub current: Sizes,
    /// What it is to be told.
    pub desired: Sizes,
}

/// What comes of comparing a running container with what it should have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on as it is, or with other amounts.
    Keep,
    /// It is stopped, and started again with its new amounts.
    Restart,
}

/// Compares `container` with what the runtime was told of it, and notes in `plan` what has to be done.
pub(super) fn plan_container(
    pod: &Pod,
    container: &Container,
    status: &ContainerStatus,
    observed: &PodStatus,
    plan: &mut PodPlan,
) -> Verdict {
    if status.state != ContainerState::Running {
        return Verdict::Keep;
    }
    let told = &observed.actuated;
    let current = Sizes::of(told.containers.get(&container.name), told.pod.as_ref());
    let desired = Sizes::of(container.resources.as_ref(), types::spec(pod).resources.as_ref());
    if current == desired {
        return Verdict::Keep;
    }
    let changed = |resource| current.get(resource) != desired.get(resource);
    if [Resource::Cpu, Resource::Memory].into_iter().any(|r| changed(r) && restarts(container, r)) {
        plan.kill.push(Kill {
            id: status.id.id.clone(),
            name: container.name.clone(),
            message: format!("Container {} resize requires restart", container.name),
            reason: KillReason::Other,
        });
        plan.resize.pod = true;
        return Verdict::Restart;
    }
    let update = ContainerUpdate { id: status.id.id.clone(), name: container.name.clone(), current, desired };
    for resource in [Resource::Memory, Resource::Cpu] {
        if changed(resource) {
            plan.resize.note(resource, &update);
        }
    }
    Verdict::Keep
}

/// Whether the container has to be restarted to get another amount of `resource`.
fn restarts(container: &Container, resource: Resource) -> bool {
    let policy = container.resize_policy.iter().flatten().find(|p| p.resource_name == resource.name());
    policy.is_some_and(|p| p.restart_policy == "RestartContainer")
}

/// Whether the amounts of the pod as a whole are others than were told.
pub(super) fn pod_level_changed(pod: &Pod, observed: &PodStatus) -> bool {
    let of = |r: Option<&ResourceRequirements>| Sizes::of(r, None);
    of(types::spec(pod).resources.as_ref()) != of(observed.actuated.pod.as_ref())
}

/// Whether something of the pod has been allocated that the runtime has not been told. Init containers that run once are
/// left out, as upstream's `IsPodResizeInProgress` does.
#[must_use]
pub fn in_progress(pod: &Pod, observed: &PodStatus) -> bool {
    let spec = types::spec(pod);
    let sidecars = types::init_containers(spec).iter().filter(|c| types::is_restartable_init(c));
    let differs = |container: &Container| {
        let runs = observed.container(&container.name).is_some_and(|s| s.state == ContainerState::Running);
        let whole = spec.resources.as_ref();
        runs && Sizes::of(container.resources.as_ref(), whole)
            != Sizes::of(observed.actuated.containers.get(&container.name), None)
    };
    let whole = spec.resources.is_some() && observed.actuated.pod.is_some();
    sidecars.chain(&spec.containers).any(differs) || whole && pod_level_changed(pod, observed)
}

/// What a plan holds of resizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResizePlan {
    /// Containers that get another amount of memory, those that shrink first.
    pub memory: Vec<ContainerUpdate>,
    /// Containers that get another amount of CPU, those that shrink first.
    pub cpu: Vec<ContainerUpdate>,
    /// The pod's group changes because containers restart with other amounts.
    pub pod: bool,
    /// The amounts of the pod as a whole change.
    pub pod_level: bool,
}

impl ResizePlan {
    /// Nothing is resized.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Updates of one resource.
    #[must_use]
    pub fn updates(&self, resource: Resource) -> &[ContainerUpdate] {
        match resource {
            Resource::Cpu => &self.cpu,
            Resource::Memory => &self.memory,
        }
    }

    /// Whether `resource` is concerned at all.
    #[must_use]
    pub fn concerns(&self, resource: Resource) -> bool {
        self.pod || self.pod_level || !self.updates(resource).is_empty()
    }

    fn note(&mut self, resource: Resource, update: &ContainerUpdate) {
        let list = match resource {
            Resource::Cpu => &mut self.cpu,
            Resource::Memory => &mut self.memory,
        };
        let (current, desired) = (update.current.get(resource), update.desired.get(resource));
        // The limit decides where it changes, else the request.
        let shrinks = if current.limit == desired.limit {
            desired.request < current.request
        } else {
            desired.limit < current.limit
        };
        if shrinks {
            list.insert(0, update.clone());
        } else {
            list.push(update.clone());
        }
    }
}

/// One step of a resize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Set these limits of the pod's group.
    Group(Limits),
    /// Tell the containers.
    Containers(Resource),
}

/// The steps of one resource. `now` is the group as it is, `then` as it is to be; none of both where pods have no groups.
#[must_use]
pub fn steps(resource: Resource, groups: Option<(&Limits, &Limits)>) -> Vec<Step> {
    let containers = Step::Containers(resource);
    let Some((now, then)) = groups else { return vec![containers] };
    let limit = match resource {
        Resource::Memory => (now.memory, then.memory, Limits { memory: then.memory, ..Limits::default() }),
        Resource::Cpu => {
            (now.quota, then.quota, Limits { quota: then.quota, period: then.period, ..Limits::default() })
        }
    };
    // Requests of memory are nothing that a group knows of.
    let weight = match resource {
        Resource::Memory => (None, None, Limits::default()),
        Resource::Cpu => {
            let signed = |shares: Option<u64>| shares.and_then(|s| i64::try_from(s).ok());
            let change = Limits { shares: then.shares, ..Limits::default() };
            (signed(now.shares), signed(then.shares), change)
        }
    };
    // As upstream: a limit that is not to be set stays what it is; taking limits away is not supported.
    let grows = |(now, then, _): &(Option<i64>, Option<i64>, Limits)| then.is_some() && *then > *now;
    let shrinks = |(now, then, _): &(Option<i64>, Option<i64>, Limits)| then.is_some() && *then < *now;
    let step = |of: &(Option<i64>, Option<i64>, Limits)| Step::Group(of.2.clone());
    let mut steps = Vec::new();
    steps.extend(grows(&limit).then(|| step(&limit)));
    steps.extend(grows(&weight).then(|| step(&weight)));
    steps.push(containers);
    steps.extend(shrinks(&weight).then(|| step(&weight)));
    steps.extend(shrinks(&limit).then(|| step(&limit)));
    steps
}

/// Memory limits that would become smaller: of the pod, and of containers by identifier, name and new limit.
#[must_use]
pub fn shrinking_memory(
    plan: &ResizePlan,
    groups: Option<(&Limits, &Limits)>,
) -> (Option<i64>, Vec<(String, String, i64)>) {
    if plan.memory.is_empty() && !plan.pod {
        return (None, Vec::new());
    }
    let of_pod = groups.and_then(|(now, then)| {
        let then = then.memory?;
        now.memory.is_none_or(|now| then < now).then_some(then)
    });
    let smaller = plan.memory.iter().filter(|u| {
        let (now, then) = (u.current.memory.limit, u.desired.memory.limit);
        then != 0 && (now == 0 || then < now)
    });
    let containers = smaller.map(|u| (u.id.clone(), u.name.clone(), u.desired.memory.limit));
    (of_pod, containers.collect())
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
