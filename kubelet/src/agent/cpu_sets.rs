//! Tells the runtime on which CPUs containers run, whenever that changed.

use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use proto::cri;
use tokio::time::MissedTickBehavior;

use super::Agent;
use crate::containers::labels;
use crate::cpus::Running;
use crate::pod_resources::IsActive;

impl Agent {
    /// Starts telling the runtime, where containers get CPUs for themselves.
    pub fn run_cpu_sets(&self, period: Duration, tasks: &Tasks) {
        if !self.parts().placement.cpus().are_given() {
            return;
        }
        let this = self.clone();
        tasks.spawn("cpu-sets", |token| async move {
            // A period of nothing is none.
            let mut tick = tokio::time::interval(period.max(Duration::from_millis(100)));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! { () = token.cancelled() => return, _ = tick.tick() => {} }
                if let Err(error) = this.tell_cpu_sets().await {
                    tracing::warn!(%error, "cannot look at containers to tell them of their CPUs");
                }
            }
        });
    }

    /// Tells the runtime of all containers whose CPUs are others than it was told last.
    pub(super) async fn tell_cpu_sets(&self) -> Result<(), crate::runtime::Error> {
        let parts = self.parts();
        let (runtime, cpus) = (parts.runtime.runtime(), parts.placement.cpus());
        parts.placement.retain(&|uid| self.may_hold(uid));
        let state = cri::ContainerState::ContainerRunning as i32;
        let filter =
            cri::ContainerFilter { state: Some(cri::ContainerStateValue { state }), ..Default::default() };
        let listed = runtime.list_containers(Some(filter)).await?;
        let running: Vec<Running> = listed
            .into_iter()
            .filter(|container| container.state == state)
            .filter_map(|container| {
                let label = |key: &str| container.labels.get(key).cloned();
                let (uid, name) = (label(labels::POD_UID)?, label(labels::CONTAINER_NAME)?);
                // Containers of pods that nobody wants are about to end.
                parts.pods.by_uid(&uid)?;
                Some(Running { uid, container: name, id: container.id.clone() })
            })
            .collect();
        for (container, set) in cpus.updates(&running) {
            let only = cri::LinuxContainerResources { cpuset_cpus: set.to_string(), ..Default::default() };
            match runtime.update_container_resources(&container.id, only).await {
                Ok(()) => cpus.told(&container.id, set),
                // It is told again next time.
                Err(error) => {
                    tracing::warn!(container = container.container, %set, %error, "CPUs not changed")
                }
            }
        }
        Ok(())
    }

    /// Whether a pod holds what it was given.
    #[must_use]
    pub fn holds(&self) -> IsActive {
        let this = self.clone();
        Arc::new(move |uid| this.may_hold(uid))
    }
}
