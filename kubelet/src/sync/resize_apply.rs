//! Resizes running containers, and the group of their pod.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::plan::PodPlan;
use super::resize::{ContainerUpdate, ResizePlan, Step, shrinking_memory, steps};
use super::runner::{Outcome, PodRuntime};
use crate::allocation::{Resource, with_pod_limits};
use crate::cgroups::Limits;
use crate::containers::resources::{container_resources, group_resources};
use crate::types;

/// The group of a pod as it is and as it is to be.
type Groups = Option<(Limits, Limits)>;

impl PodRuntime {
    /// Does what `plan` says of resources. What was begun and failed is found and finished by the next plan.
    pub(super) async fn resize(&self, pod: &Pod, plan: &PodPlan, outcome: &mut Outcome) {
        if let Err(error) = self.try_resize(pod, plan).await {
            tracing::warn!(pod = types::format_pod(pod), error, "could not resize the pod");
            outcome.fail(
                format!("failed to \"ResizePodInPlace\" for {:?}: {error}", types::format_pod(pod)),
                None,
            );
            outcome.resize_failure = Some(error);
        }
        // Even where it failed, some of it may have been done.
        outcome.changed = true;
    }

    async fn try_resize(&self, pod: &Pod, plan: &PodPlan) -> Result<(), String> {
        let mut groups = self.inner.environment.pod_limits(pod);
        self.check_memory(pod, &plan.resize, &groups).await?;
        for resource in [Resource::Memory, Resource::Cpu] {
            if !plan.resize.concerns(resource) {
                continue;
            }
            for step in steps(resource, groups.as_ref().map(|(now, then)| (now, then))) {
                match step {
                    Step::Group(limits) => {
                        self.limit_pod(pod, &plan.sandbox_id, &limits, &mut groups).await?
                    }
                    Step::Containers(resource) => {
                        for update in plan.resize.updates(resource) {
                            self.update_container(pod, resource, update, &plan.resize).await?;
                        }
                    }
                }
            }
        }
        if plan.resize.pod_level {
            self.note_actuated_pod(pod);
        }
        Ok(())
    }

    /// Refuses limits below what is used already. Only the best that can be done: use changes meanwhile.
    async fn check_memory(&self, pod: &Pod, plan: &ResizePlan, groups: &Groups) -> Result<(), String> {
        let (of_pod, containers) = shrinking_memory(plan, groups.as_ref().map(|(now, then)| (now, then)));
        let mut errors = Vec::new();
        if let Some(limit) = of_pod {
            match self.inner.environment.pod_memory(pod) {
                None => errors.push("missing pod memory usage".to_owned()),
                Some(used) if below(limit, used) => errors.push(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        for (id, name, limit) in containers {
            match self.container_memory(&id).await {
                None => errors.push(format!("missing container {name:?} memory usage")),
                Some(used) if below(limit, used) => errors.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
        }
    }

    async fn container_memory(&self, id: &str) -> Option<u64> {
        let memory = self.inner.runtime.container_stats(id).await.ok()??.memory?;
        memory.usage_bytes.or(memory.working_set_bytes).map(|v| v.value)
    }

    /// Changes the pod's group; the runtime is asked first, and may refuse.
    async fn limit_pod(
        &self,
        pod: &Pod,
        sandbox: &str,
        limits: &Limits,
        groups: &mut Groups,
    ) -> Result<(), String> {
        let Some((now, _)) = groups else { return Ok(()) };
        let before = now.clone();
        let after = before.merged(limits);
        self.tell_sandbox(sandbox, &after).await?;
        if let Err(error) = self.inner.environment.limit_pod(pod, limits) {
            if let Err(error) = self.tell_sandbox(sandbox, &before).await {
                tracing::warn!(
                    sandbox,
                    error,
                    "the runtime does not take the former resources of a sandbox back"
                );
            }
            return Err(error);
        }
        *now = after;
        Ok(())
    }

    /// Tells the runtime what a sandbox as a whole gets. Most runtimes do not want to know.
    async fn tell_sandbox(&self, sandbox: &str, limits: &Limits) -> Result<(), String> {
        match self.inner.runtime.update_pod_sandbox_resources(sandbox, group_resources(limits)).await {
            Err(error)
                if !error.is_unimplemented() && !error.status.message().contains("not implemented") =>
            {
                Err(format!(
                    "failed to notify runtime for UpdatePodSandboxResources; resize rejected: {error}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Tells a container's amounts of one resource; the other keeps what was told of it last.
    async fn update_container(
        &self,
        pod: &Pod,
        resource: Resource,
        update: &ContainerUpdate,
        plan: &ResizePlan,
    ) -> Result<(), String> {
        let Some((_, mut container)) = types::find_container(types::spec(pod), &update.name) else {
            return Ok(());
        };
        let mut told = update.current;
        if resource == Resource::Cpu && plan.memory.iter().any(|u| u.name == update.name) {
            told = told.with(Resource::Memory, &update.desired);
        }
        told = told.with(resource, &update.desired);
        container.resources = Some(told.applied(container.resources.as_ref()));
        let limits = container_resources(pod, &container, &self.inner.limits);
        let limits = self.inner.environment.place(pod, &container.name).applied(limits);
        let updated = self.inner.runtime.update_container_resources(&update.id, limits).await;
        updated.map_err(|error| error.to_string())?;
        self.note_actuated(pod, &container);
        Ok(())
    }

    /// Notes what the runtime was told of a container.
    pub(super) fn note_actuated(&self, pod: &Pod, container: &Container) {
        let told = with_pod_limits(container.resources.as_ref(), types::spec(pod).resources.as_ref());
        self.inner.actuated.update(types::uid(pod), |kept| {
            kept.containers.insert(container.name.clone(), told);
        });
    }

    /// Notes what the pod as a whole was given.
    pub fn note_actuated_pod(&self, pod: &Pod) {
        let whole = types::spec(pod).resources.clone();
        if whole.is_some() {
            self.inner.actuated.update(types::uid(pod), |kept| kept.pod = whole);
        }
    }
}

fn below(limit: i64, used: u64) -> bool {
    u64::try_from(limit).is_ok_and(|limit| used >= limit)
}
