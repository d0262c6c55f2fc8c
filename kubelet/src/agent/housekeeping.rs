//! Clears up after pods that are gone: workers, runtime leftovers, directories, control groups, logs, old containers.
//!
//! Everything here is found by looking at the runtime and the disk, so a restart forgets nothing.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use proto::cri;
use tokio::time::MissedTickBehavior;

use super::Agent;
use crate::containers::labels;
use crate::pleg::Listing;
use crate::pod_workers::Stage;
use crate::types;

const PERIOD: Duration = Duration::from_secs(2);
const GC_PERIOD: Duration = Duration::from_secs(60);

impl Agent {
    /// Starts clearing up. All pods that exist must have been taken in before.
    pub fn run_housekeeping(&self, tasks: &Tasks) {
        self.run_resizes(tasks);
        let this = self.clone();
        tasks.spawn("housekeeping", |token| async move {
            let mut tick = tokio::time::interval(PERIOD);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! { () = token.cancelled() => return, _ = tick.tick() => {} }
                this.housekeep().await;
            }
        });
        let this = self.clone();
        tasks.spawn("container-gc", |token| async move {
            let mut tick = tokio::time::interval(GC_PERIOD);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! { () = token.cancelled() => return, _ = tick.tick() => {} }
                if let Err(error) = this.collect_containers().await {
                    tracing::warn!(%error, "container garbage collection failed");
                }
            }
        });
    }

    async fn housekeep(&self) {
        let parts = self.parts();
        let wanted: HashSet<String> = parts.pods.pods().iter().map(|p| types::uid(p).to_owned()).collect();
        for uid in self.workers().sync_known(&wanted) {
            self.forget(&uid).await;
        }
        if let Some(mirrors) = &parts.mirrors {
            for mirror in parts.pods.mirrors() {
                let name = types::full_name(&mirror);
                if !parts.pods.pods().iter().any(|p| types::full_name(p) == name) {
                    mirrors.delete(&mirror).await;
                }
            }
        }
        if let Some(listing) = parts.pleg.listing() {
            self.stop_orphans(&listing);
            self.remove_orphan_dirs(&listing).await;
        }
        self.remove_orphan_cgroups().await;
        let allocated: Vec<_> = parts.pods.pods().iter().map(|p| parts.allocated.applied(p)).collect();
        if let Err(error) = parts.cgroups.update_qos(allocated.iter().map(AsRef::as_ref)) {
            crate::cgroups::log_failure(&error);
        }
        parts.probes.cleanup(&self.workers().uids().into_iter().collect());
        let known = |uid: &str| wanted.contains(uid) || self.workers().view(uid).is_some();
        parts.status.retain(known);
        parts.allocated.retain(known);
        parts.placement.retain(&|uid| self.may_hold(uid));
        // What is told of the runtime goes when nothing of the pod can be left there.
        parts.runtime.actuated().retain(|uid| known(uid) || !self.workers().content_may_go(uid));
    }

    /// A pod is gone from everywhere: what the runtime still remembers of it goes too.
    async fn forget(&self, uid: &str) {
        let parts = self.parts();
        parts.status.forget(uid);
        parts.runtime.reasons().forget_pod(uid);
        if let Err(error) = self.remove_from_runtime(uid).await {
            tracing::debug!(uid, %error, "leftovers of the pod are removed later");
        }
    }

    async fn remove_from_runtime(&self, uid: &str) -> Result<(), crate::runtime::Error> {
        let runtime = self.parts().runtime.runtime();
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let filter = cri::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
        for sandbox in runtime.list_pod_sandboxes(Some(filter)).await? {
            // Removing a sandbox removes its containers.
            runtime.stop_pod_sandbox(&sandbox.id).await?;
            runtime.remove_pod_sandbox(&sandbox.id).await?;
            if let Some(metadata) = sandbox.metadata {
                let logs = self.parts().layout.pod_log_dir(&metadata.namespace, &metadata.name, uid);
                remove_dir(&logs).await;
            }
        }
        let filter = cri::ContainerFilter { label_selector: selector, ..Default::default() };
        for container in runtime.list_containers(Some(filter)).await? {
            runtime.remove_container(&container.id).await?;
        }
        Ok(())
    }

    /// Pods that run and that nobody wants.
    fn stop_orphans(&self, listing: &Arc<Listing>) {
        for (uid, pod) in listing.iter().filter(|(_, pod)| pod.active) {
            if self.workers().view(uid).is_none() && !self.workers().could_run(uid) {
                tracing::info!(
                    pod = pod.name,
                    namespace = pod.namespace,
                    uid,
                    "stopping a pod that is not wanted here"
                );
                self.workers().kill_runtime_pod(uid);
            }
        }
    }

    async fn remove_orphan_dirs(&self, listing: &Listing) {
        let parts = self.parts();
        for uid in names(&parts.layout.pods_dir()).await {
            let runs = listing.get(&uid).is_some_and(|p| p.active);
            let finished = self.workers().view(&uid).is_none_or(|v| v.stage == Stage::Finished);
            if runs || !finished || !self.workers().content_may_go(&uid) {
                continue;
            }
            if let Err(error) = parts.volumes.unmount_pod(&uid).await {
                tracing::warn!(uid, error, "volumes of a pod that is gone are still in use");
                continue;
            }
            if !parts.volumes.exist(&uid).await {
                remove_dir(&parts.layout.pod_dir(&uid)).await;
            }
        }
    }

    async fn remove_orphan_cgroups(&self) {
        let cgroups = self.parts().cgroups.clone();
        let workers = self.workers().clone();
        let work = move || {
            for uid in cgroups.pod_uids_on_disk() {
                let known = workers.view(&uid).is_some_and(|v| v.stage < Stage::Terminated);
                if known || workers.could_run(&uid) {
                    continue;
                }
                if let Err(error) = cgroups.remove_pod(&uid) {
                    tracing::debug!(
                        uid,
                        error = client::chain(&error),
                        "control group of a pod that is gone remains"
                    );
                }
            }
        };
        // A panic there is logged by the runtime and costs this round only.
        drop(tokio::task::spawn_blocking(work).await);
    }

    /// Removes dead containers but the last of each, sandboxes that were replaced, and all of pods that are gone.
    pub(super) async fn collect_containers(&self) -> Result<(), crate::runtime::Error> {
        let parts = self.parts();
        let runtime = parts.runtime.runtime();
        let containers = runtime.list_containers(None).await?;
        let sandboxes = runtime.list_pod_sandboxes(None).await?;
        let gone = |uid: &str| self.workers().view(uid).is_none() && self.workers().content_may_go(uid);
        for id in plan_containers(&containers, &gone) {
            runtime.remove_container(&id).await?;
        }
        for id in plan_sandboxes(&sandboxes, &containers, &gone) {
            runtime.stop_pod_sandbox(&id).await?;
            runtime.remove_pod_sandbox(&id).await?;
        }
        self.remove_dead_logs(&gone).await;
        Ok(())
    }

    async fn remove_dead_logs(&self, gone: &(impl Fn(&str) -> bool + Sync)) {
        let layout = &self.parts().layout;
        for name in names(layout.pod_logs_dir()).await {
            // As upstream: NAMESPACE_NAME_UID.
            let uid = name.rsplit('_').next().unwrap_or_default();
            if gone(uid) {
                remove_dir(&layout.pod_logs_dir().join(&name)).await;
            }
        }
        for name in names(layout.container_logs_dir()).await {
            let link = layout.container_logs_dir().join(&name);
            if tokio::fs::symlink_metadata(&link).await.is_ok_and(|m| m.is_symlink())
                && tokio::fs::metadata(&link).await.is_err()
            {
                drop(tokio::fs::remove_file(&link).await);
            }
        }
    }
}

/// Dead containers to remove: all of pods that are gone, all but the newest of each name else.
fn plan_containers(containers: &[cri::Container], gone: &impl Fn(&str) -> bool) -> Vec<String> {
    let mut by_name: HashMap<(&str, &str), Vec<&cri::Container>> = HashMap::new();
    for container in containers {
        if container.state == cri::ContainerState::ContainerRunning as i32 {
            continue;
        }
        let label = |key: &str| container.labels.get(key).map(String::as_str);
        // A container nobody labelled is not the kubelet's.
        let (Some(uid), Some(name)) = (label(labels::POD_UID), label(labels::CONTAINER_NAME)) else {
            continue;
        };
        by_name.entry((uid, name)).or_default().push(container);
    }
    let mut remove = Vec::new();
    for ((uid, _), mut dead) in by_name {
        dead.sort_by_key(|c| std::cmp::Reverse((c.metadata.as_ref().map(|m| m.attempt), c.created_at)));
        let keep = usize::from(!gone(uid));
        remove.extend(dead.into_iter().skip(keep).map(|c| c.id.clone()));
    }
    remove.sort();
    remove
}

/// Sandboxes to remove: not ready, empty, and of a pod that is gone or has a newer one.
fn plan_sandboxes(
    sandboxes: &[cri::PodSandbox],
    containers: &[cri::Container],
    gone: &impl Fn(&str) -> bool,
) -> Vec<String> {
    let occupied: HashSet<&str> = containers.iter().map(|c| c.pod_sandbox_id.as_str()).collect();
    let uid = |s: &cri::PodSandbox| s.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default();
    let age = |s: &cri::PodSandbox| (s.metadata.as_ref().map(|m| m.attempt), s.created_at);
    let mut newest = HashMap::new();
    for sandbox in sandboxes {
        let at = newest.entry(uid(sandbox)).or_insert_with(|| age(sandbox));
        *at = (*at).max(age(sandbox));
    }
    let mut remove: Vec<String> = sandboxes
        .iter()
        .filter(|s| {
            let ready = s.state == cri::PodSandboxState::SandboxReady as i32;
            let replaced = newest.get(&uid(s)).is_some_and(|at| *at > age(s));
            !ready && ((replaced && !occupied.contains(s.id.as_str())) || gone(&uid(s)))
        })
        .map(|s| s.id.clone())
        .collect();
    remove.sort();
    remove
}

async fn names(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(directory).await else { return found };
    while let Ok(Some(entry)) = entries.next_entry().await {
        found.extend(entry.file_name().into_string());
    }
    found
}

async fn remove_dir(path: &Path) {
    if let Err(error) = tokio::fs::remove_dir_all(path).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "failed to remove directory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(
        id: &str,
        uid: &str,
        name: &str,
        created_at: i64,
        running: bool,
        sandbox: &str,
    ) -> cri::Container {
        cri::Container {
            id: id.into(),
            pod_sandbox_id: sandbox.into(),
            created_at,
            state: if running { 1 } else { 2 },
            labels: HashMap::from([
                (labels::POD_UID.to_owned(), uid.to_owned()),
                (labels::CONTAINER_NAME.to_owned(), name.to_owned()),
            ]),
            ..Default::default()
        }
    }

    #[test]
    fn the_last_dead_container_of_a_living_pod_stays() {
        let containers = [
            container("a0", "u", "a", 1, false, "s"),
            container("a1", "u", "a", 2, false, "s"),
            container("a2", "u", "a", 3, true, "s"),
            container("b0", "u", "b", 1, false, "s"),
            container("g0", "gone", "a", 1, false, "t"),
            container("g1", "gone", "a", 2, true, "t"),
        ];
        assert_eq!(plan_containers(&containers, &|uid| uid == "gone"), ["a0", "g0"]);
        // The clock was set back between them.
        let attempt = |id: &str, attempt, created_at| cri::Container {
            metadata: Some(cri::ContainerMetadata { name: "a".into(), attempt }),
            ..container(id, "u", "a", created_at, false, "s")
        };
        let containers = [attempt("first", 0, 9), attempt("last", 1, 5)];
        assert_eq!(plan_containers(&containers, &|_| false), ["first"]);
    }

    #[test]
    fn replaced_and_orphaned_sandboxes_go() {
        let sandbox = |id: &str, uid: &str, created_at, ready: bool| cri::PodSandbox {
            id: id.into(),
            created_at,
            state: i32::from(!ready),
            metadata: Some(cri::PodSandboxMetadata { uid: uid.into(), ..Default::default() }),
            ..Default::default()
        };
        let sandboxes = [
            sandbox("old", "u", 1, false),
            sandbox("used", "u", 2, false),
            sandbox("now", "u", 3, true),
            sandbox("last", "v", 1, false),
            sandbox("gone", "w", 1, false),
            sandbox("runs", "w", 2, true),
        ];
        let containers = [container("c", "u", "a", 1, false, "used")];
        assert_eq!(plan_sandboxes(&sandboxes, &containers, &|uid| uid == "w"), ["gone", "old"]);
        // The clock was set back between them.
        let attempt = |id: &str, attempt, created_at| cri::PodSandbox {
            metadata: Some(cri::PodSandboxMetadata { uid: "u".into(), attempt, ..Default::default() }),
            ..sandbox(id, "u", created_at, false)
        };
        let sandboxes = [attempt("first", 0, 9), attempt("last", 1, 5)];
        assert_eq!(plan_sandboxes(&sandboxes, &[], &|_| false), ["first"]);
    }
}
