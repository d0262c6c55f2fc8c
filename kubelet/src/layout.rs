//! Where the kubelet keeps things on disk, as upstream lays them out under `--root-dir` and `/var/log`.
//!
//! Paths only: nothing here touches the disk.

use std::path::{Path, PathBuf};

/// Paths of one kubelet.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    pod_logs: PathBuf,
    container_logs: PathBuf,
}

impl Layout {
    /// Paths under `root` (`/var/lib/kubelet`) and the directory of pod logs (`/var/log/pods`).
    pub fn new(
        root: impl Into<PathBuf>,
        pod_logs: impl Into<PathBuf>,
        container_logs: impl Into<PathBuf>,
    ) -> Self {
        Self { root: root.into(), pod_logs: pod_logs.into(), container_logs: container_logs.into() }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory that holds one directory per pod UID.
    #[must_use]
    pub fn pods_dir(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Everything kept for one pod.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    /// All volumes of a pod.
    #[must_use]
    pub fn pod_volumes_dir(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes")
    }

    /// One volume of a pod; `plugin` in its escaped form, for example `kubernetes.io~empty-dir`.
    #[must_use]
    pub fn pod_volume_dir(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod_volumes_dir(uid).join(plugin).join(volume)
    }

    /// Bind mounts made for sub paths.
    #[must_use]
    pub fn pod_volume_subpaths_dir(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("volume-subpaths")
    }

    /// State of volume plugins for a pod.
    #[must_use]
    pub fn pod_plugins_dir(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("plugins")
    }

    /// Termination messages of one container.
    #[must_use]
    pub fn pod_container_dir(&self, uid: &str, container: &str) -> PathBuf {
        self.pod_dir(uid).join("containers").join(container)
    }

    /// The file mounted as `/etc/hosts`.
    #[must_use]
    pub fn pod_etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("etc-hosts")
    }

    /// Directory of all pods' logs.
    #[must_use]
    pub fn pod_logs_dir(&self) -> &Path {
        &self.pod_logs
    }

    /// Directory of links to container logs, `/var/log/containers`.
    #[must_use]
    pub fn container_logs_dir(&self) -> &Path {
        &self.container_logs
    }

    /// Log directory of one pod, `NAMESPACE_NAME_UID`.
    #[must_use]
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs.join(format!("{namespace}_{name}_{uid}"))
    }

    /// Log file of a container's attempt, as the runtime is told it.
    #[must_use]
    pub fn container_log(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        container: &str,
        attempt: u32,
    ) -> PathBuf {
        self.pod_log_dir(namespace, name, uid).join(container_log_file(container, attempt))
    }

    /// The socket where agents ask what containers were given.
    #[must_use]
    pub fn pod_resources_dir(&self) -> PathBuf {
        self.root.join("pod-resources")
    }

    /// Sockets of device plugins, and the file of what they gave.
    #[must_use]
    pub fn device_plugins_dir(&self) -> PathBuf {
        self.root.join("device-plugins")
    }
}

/// Log path of a container relative to its pod's log directory: `NAME/ATTEMPT.log`.
#[must_use]
pub fn container_log_file(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams() {
        let layout = Layout::new("/var/lib/kubelet", "/var/log/pods", "/var/log/containers");
        assert_eq!(
            layout.pod_volume_dir("u1", "kubernetes.io~empty-dir", "cache"),
            Path::new("/var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/cache")
        );
        assert_eq!(
            layout.container_log("ns", "web", "u1", "app", 3),
            Path::new("/var/log/pods/ns_web_u1/app/3.log")
        );
        assert_eq!(layout.pod_etc_hosts("u1"), Path::new("/var/lib/kubelet/pods/u1/etc-hosts"));
    }
}
