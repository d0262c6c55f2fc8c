//! Starts one container: image, configuration, creation, start, postStart hook.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use proto::cri;

use super::hooks;
use super::plan::{Kill, KillReason};
use super::runner::{ContainerOptions, ImageVolumes, Place, PodRuntime, StartFailure};
use crate::containers::container_config::{ContainerInput, container_config};
use crate::images::{Present, Wanted};
use crate::types::{self, PodStatus};

/// From here on, an image takes long enough for somebody to look.
const SLOW: Duration = Duration::from_millis(300);

fn failure(reason: &str, message: impl Into<String>) -> StartFailure {
    StartFailure { reason: reason.to_owned(), message: message.into(), retry: None }
}

impl PodRuntime {
    pub(super) async fn start_container(
        &self,
        pod: &Pod,
        container: &Container,
        observed: &PodStatus,
        target: Option<&str>,
        place: &Place<'_>,
    ) -> Result<(), StartFailure> {
        let inner = &self.inner;
        let warn = |message: String| inner.events.container_warning(pod, &container.name, "Failed", message);
        let volumes = super::image_volumes::of_container(container, place.images)
            .inspect_err(|error| warn(format!("Error: {}", error.message)))?;
        let wanted = Wanted::by(pod, container);
        let pull = inner.images.ensure(wanted, place.secrets, place.config);
        tokio::pin!(pull);
        let mut told = false;
        let image = loop {
            tokio::select! {
                biased;
                () = place.stop.cancelled() => return Err(failure("ContainerCreating", "")),
                image = &mut pull => break image,
                () = tokio::time::sleep(SLOW), if !told => {
                    told = true;
                    inner.environment.start_is_slow(pod).await;
                }
            }
        };
        let image = image.map_err(|error| {
            warn(format!("Error: {}", error.reason.as_str()));
            StartFailure {
                reason: error.reason.as_str().to_owned(),
                message: error.message,
                retry: error.retry,
            }
        })?;
        let config = self.config(pod, container, observed, target, place, (image, volumes)).await.map_err(
            |message| {
                warn(format!("Error: {message}"));
                failure("CreateContainerConfigError", message)
            },
        )?;
        self.note_actuated(pod, container);
        let log = Path::new(&place.config.log_directory).join(&config.log_path);
        let created = inner.runtime.create_container(place.sandbox, config, place.config.clone()).await;
        let id = created.map_err(|error| {
            warn(format!("Error: {}", error.status.message()));
            failure("CreateContainerError", error.status.message())
        })?;
        inner.events.container_normal(pod, &container.name, "Created", "Container created");
        if let Err(error) = inner.runtime.start_container(&id).await {
            warn(format!("Error: {}", error.status.message()));
            return Err(failure("RunContainerError", error.status.message()));
        }
        inner.events.container_normal(pod, &container.name, "Started", "Container started");
        self.link_log(pod, &container.name, &id, &log).await;
        self.post_start(pod, container, &id, place).await
    }

    async fn config(
        &self,
        pod: &Pod,
        container: &Container,
        observed: &PodStatus,
        target: Option<&str>,
        place: &Place<'_>,
        (image, volumes): (Present, ImageVolumes),
    ) -> Result<cri::ContainerConfig, String> {
        let inner = &self.inner;
        let (namespace, name, uid) = (types::namespace(pod), types::name(pod), types::uid(pod));
        let logs = inner.layout.pod_log_dir(namespace, name, uid).join(&container.name);
        let restart_count = match observed.container(&container.name) {
            Some(status) => status.restart_count + 1,
            None => next_count_by_logs(&logs).await,
        };
        let target_id = match target {
            None | Some("") => None,
            Some(target) => Some(
                observed
                    .container(target)
                    .map(|s| s.id.id.clone())
                    .ok_or_else(|| format!("unable to find target container {target}"))?,
            ),
        };
        let ContainerOptions { env, mut mounts, devices, annotations, cdi_devices, place: runs_on } =
            inner.environment.container(pod, container, place.ips, &volumes).await?;
        mounts.extend(self.termination_log(uid, container).await?);
        tokio::fs::create_dir_all(&logs).await.map_err(|e| {
            format!("create container log directory for container {} failed: {e}", container.name)
        })?;
        let expand = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|text| inner.environment.expand(text, &env)).collect()
        };
        container_config(ContainerInput {
            pod,
            container,
            restart_count,
            image_ref: image.image_ref,
            image_user: image.user,
            command: expand(&container.command),
            args: expand(&container.args),
            env,
            mounts,
            devices,
            annotations,
            cdi_devices,
            target_id,
            limits: &inner.limits,
            place: runs_on,
            seccomp_root: &inner.seccomp_root,
            seccomp_default: inner.seccomp_default,
        })
        .map_err(|e| e.to_string())
    }

    /// A fresh file for the container's last words.
    async fn termination_log(&self, uid: &str, container: &Container) -> Result<Option<cri::Mount>, String> {
        let Some(path) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) else {
            return Ok(None);
        };
        let directory = self.inner.layout.pod_container_dir(uid, &container.name);
        let file = directory.join(format!("{:08x}", rand::random::<u32>()));
        let create = async {
            tokio::fs::create_dir_all(&directory).await?;
            tokio::fs::write(&file, b"").await?;
            // Whoever the container runs as must be able to write.
            tokio::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).await
        };
        create.await.map_err(|e| format!("create termination-log file {:?} failed: {e}", file.display()))?;
        Ok(Some(cri::Mount {
            host_path: file.display().to_string(),
            container_path: path.to_owned(),
            ..Default::default()
        }))
    }

    /// `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`, where log collectors look. Best effort.
    async fn link_log(&self, pod: &Pod, container: &str, id: &str, log: &Path) {
        let directory = self.inner.layout.container_logs_dir();
        let prefix = format!("{}_{}_{container}", types::name(pod), types::namespace(pod));
        // As upstream: a name longer than a file name may be loses its end, never the identifier.
        let room = 251usize.saturating_sub(id.len() + 1);
        let prefix: String = prefix.chars().take(room).collect();
        let link = directory.join(format!("{prefix}-{id}.log"));
        let made = async {
            tokio::fs::create_dir_all(directory).await?;
            tokio::fs::symlink(log, &link).await
        };
        if let Err(error) = made.await {
            tracing::debug!(path = %link.display(), %error, "failed to link the container log");
        }
    }

    async fn post_start(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        place: &Place<'_>,
    ) -> Result<(), StartFailure> {
        let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let inner = &self.inner;
        let hook = hooks::run(&inner.runtime, id, container, place.ips.first().map(String::as_str), handler);
        let result = tokio::select! {
            biased;
            // The pod is being stopped, and its container with it.
            () = place.stop.cancelled() => return Ok(()),
            result = hook => result,
        };
        let Err(error) = result else { return Ok(()) };
        tracing::warn!(pod = types::format_pod(pod), container = container.name, %error, "postStart hook failed");
        // The event does not say why: answers of servers may hold secrets.
        inner.events.container_warning(pod, &container.name, "FailedPostStartHook", "PostStartHook failed");
        let kill = Kill {
            id: id.to_owned(),
            name: container.name.clone(),
            message: "FailedPostStartHook".to_owned(),
            reason: KillReason::FailedPostStartHook,
        };
        if let Err(error) = self.kill_container(Some(pod), &kill, None, None).await {
            tracing::error!(container = container.name, error, "failed to kill container");
        }
        Err(failure("PostStartHookError", error.to_string()))
    }
}

/// After a reboot the runtime may have forgotten earlier attempts, but their logs are still there.
async fn next_count_by_logs(directory: &Path) -> i32 {
    let Ok(mut entries) = tokio::fs::read_dir(directory).await else { return 0 };
    let mut next = 0;
    while let Ok(Some(entry)) = entries.next_entry().await {
        let name = entry.file_name();
        let count = name.to_str().and_then(|n| n.split_once('.')).and_then(|(n, _)| n.parse::<i32>().ok());
        next = next.max(count.map_or(0, |c| c.saturating_add(1)));
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn restarts_are_counted_by_logs() {
        let directory = std::env::temp_dir().join(format!("logs-{}", uuid::Uuid::new_v4()));
        assert_eq!(next_count_by_logs(&directory).await, 0);
        tokio::fs::create_dir_all(&directory).await.expect("create");
        for name in ["0.log", "2.log", "2.log.20260101-000000.gz", "other"] {
            tokio::fs::write(directory.join(name), b"").await.expect("write");
        }
        assert_eq!(next_count_by_logs(&directory).await, 3);
        tokio::fs::remove_dir_all(&directory).await.expect("remove");
    }
}
