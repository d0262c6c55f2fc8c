//! Where a cluster keeps its files. Everything that `coxswain` makes is below these three folders.

use std::path::{Path, PathBuf};

/// The folders of one cluster on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What must survive a reboot: keys, state, images.
    pub data: PathBuf,
    /// What must not: sockets, process ids.
    pub run: PathBuf,
}

impl Layout {
    /// A cluster in these folders.
    #[must_use]
    pub fn new(data: &Path, run: &Path) -> Self {
        Self { data: data.to_owned(), run: run.to_owned() }
    }

    /// Keys and certificates.
    #[must_use]
    pub fn pki(&self, file: &str) -> PathBuf {
        self.data.join("pki").join(file)
    }

    /// The kubeconfig of an identity, for example `admin` or `scheduler`.
    #[must_use]
    pub fn kubeconfig(&self, identity: &str) -> PathBuf {
        self.data.join("kubeconfig").join(format!("{identity}.conf"))
    }

    /// The embedded store.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.data.join("state")
    }

    /// The kubelet's root directory.
    #[must_use]
    pub fn kubelet(&self) -> PathBuf {
        self.data.join("kubelet")
    }

    /// Volumes that are directories of this machine.
    #[must_use]
    pub fn local_volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// containerd's persistent data.
    #[must_use]
    pub fn containerd_root(&self) -> PathBuf {
        self.data.join("containerd")
    }

    /// containerd's volatile state.
    #[must_use]
    pub fn containerd_state(&self) -> PathBuf {
        self.run.join("containerd")
    }

    /// containerd's socket.
    #[must_use]
    pub fn containerd_socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// containerd's configuration file.
    #[must_use]
    pub fn containerd_config(&self) -> PathBuf {
        self.data.join("containerd.toml")
    }

    /// CNI configuration, written by the pod network.
    #[must_use]
    pub fn cni_config(&self) -> PathBuf {
        self.data.join("cni")
    }

    /// Image archives that are imported at start.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The log of a process.
    #[must_use]
    pub fn log(&self, process: &str) -> PathBuf {
        self.data.join("log").join(format!("{process}.log"))
    }

    /// The process id of a running process.
    #[must_use]
    pub fn pid(&self, process: &str) -> PathBuf {
        self.run.join(format!("{process}.pid"))
    }

    /// What the cluster was started with, for `down` and for the next `up`.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.data.join("settings.json")
    }
}
