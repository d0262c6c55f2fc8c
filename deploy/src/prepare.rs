//! Everything a cluster needs on disk before its first process starts. Doing it again changes nothing.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::layout::Layout;
use crate::settings::Settings;
use crate::{containerd, kubeconfig, pki};

/// Programs of Debian packages that must be there, with their package.
const PROGRAMS: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables-restore", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
];

/// Makes folders, keys, kubeconfigs and configuration.
///
/// # Errors
/// Not root, a package is missing, or the disk refuses; the error says which and what helps.
pub fn prepare(layout: &Layout, settings: &Settings) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "containers need root: run this as root");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    for (program, package) in PROGRAMS {
        ensure!(found(program), "{program} is missing: apt-get install {package}");
    }
    for folder in [&layout.data, &layout.run, &layout.data.join("manifests"), &layout.data.join("log/pods")] {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    settings.write(layout)?;
    // What a node that joined has of these it has got from its cluster.
    if !settings.joined {
        pki::prepare(layout, &settings.subjects()?)?;
        kubeconfig::prepare(layout, &settings.url()?)?;
    }
    containerd::write_config(layout)
}

/// The archives of a folder, ordered by name; none if there is no such folder.
#[must_use]
pub fn archives(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|e| e.path());
    let mut archives: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "tar")).collect();
    archives.sort();
    archives
}
